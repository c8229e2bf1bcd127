"""Data sets: named tensors that stay on the parties as shares, as models do, and are inputs of programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from mpc import fixed_point
from mpc.decoders import json_decoder
from mpc.errors import EncodingError, ProgramError, TesseraError, UnsupportedError, UsageError, printable
from mpc.operation import MAX_NAME
from mpc.program import Program
from mpc.rings.field import FieldArray
from nn.model import Description
from nn.stored import StoredType
from protocols.trace.arguments import declared, lost_to_whole
from protocols.trace.sizes import count_of

FORMAT = 1
MAX_BYTES = 1 << 20
"""Of a description."""
MAX_TENSOR = 2**28
"""Numbers in one tensor: as many as in a model's weight."""


class DataDescription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A data set without its values: public, and checked when made.  ``data`` is the number of this format."""

    tensors: dict[str, StoredType]
    data: int

    def __post_init__(self) -> None:
        if self.data != FORMAT:
            raise UnsupportedError(f"data set format {self.data} is not {FORMAT}: another version wrote it")
        for name in self.tensors:
            if not 0 < len(name) <= MAX_NAME or not name.isprintable():
                raise UnsupportedError("names of stored tensors are short and printable")

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> DataDescription:
        """Read and check a description from a stranger.  Raises UnsupportedError."""
        if len(data) > MAX_BYTES:
            raise UnsupportedError(f"a description of {len(data)} bytes is over the limit of {MAX_BYTES}")
        try:
            found: DataDescription = json_decoder(cls).decode(data)
        except (TesseraError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArithmeticError) as error:
            raise UnsupportedError(f"not a data set's description: {printable(str(error))}") from None
        return found


def kept_types(program: Program) -> dict[str, StoredType]:
    """Of the tensors that a program keeps."""
    types = {tensor: program.nodes[i].type for tensor, i in program.kept.items()}
    return {n: StoredType(t.shape, t.fraction_bits, t.low, t.high) for n, t in types.items()}


def described(program: Program) -> bytes:
    """What a program keeps: the model that it says, or else a data set.

    Raises UnsupportedError for what is none, ProgramError where it has other tensors than the program keeps.
    """
    kept, says = kept_types(program), program.keeping.description
    if not says:
        return DataDescription(kept, FORMAT).encode()
    types = Description.decode(says).stored_types
    if types.keys() != kept.keys() or not all(t.holds(kept[name]) for name, t in types.items()):
        raise ProgramError("a program keeps other tensors than those of the model that it says it keeps")
    return says


class DataSet:
    """Tensors to ``upload``, with values in [low, high]; names, shapes, ranges and fraction bits become public.

    ``ranges`` has ends of their own for some of the tensors, by name; where it has all, nothing else is needed.  Ranges
    are declared, not taken from the values, which they would tell something about.  Raises EncodingError, naming
    the tensor and the place, for a value that is not finite or not in it; UsageError for too many of them, and for a
    tensor without a range, or a range without a tensor.
    """

    def __init__(
        self,
        tensors: Mapping[str, npt.ArrayLike],
        *,
        low: float | None = None,
        high: float | None = None,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        fraction_bits: int | None = None,
    ) -> None:
        if not isinstance(tensors, Mapping) or not tensors or not all(isinstance(name, str) for name in tensors):
            raise UsageError("a data set has at least one tensor, by name: ts.DataSet({'x': array}, low=.., high=..)")
        types = {n: declared(*ends, fraction_bits) for n, ends in _ranges(tensors, low, high, ranges or {}).items()}
        for name, values in tensors.items():
            if (count := count_of(values)) > MAX_TENSOR:
                raise UsageError(f"{name} has {count:,} numbers, and a tensor {MAX_TENSOR:,} at most: cut it in parts")
        self._elements = {}
        for name, (least, most, bits) in types.items():
            self._elements[name] = fixed_point.encode(tensors[name], bits, least, most, name=name)
            if lost_to_whole(tensors[name], bits):
                raise EncodingError(f"{name} holds other than whole numbers, which is all that fraction_bits=0 is for")
        stored = {n: StoredType(self._elements[n].shape, bits, *ends) for n, (*ends, bits) in types.items()}
        self._description = DataDescription(stored, FORMAT)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        low: float | None = None,
        high: float | None = None,
        ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> DataSet:
        """The arrays of a ``.npz`` file, by name.  Raises UsageError for a file that is none."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - NumPy fails in many ways at a file that is damaged
            raise UsageError(f"{path} cannot be read as arrays (.npz): {printable(str(error))}") from None
        return cls(arrays, low=low, high=high, ranges=ranges)

    def encode(self) -> Mapping[str, FieldArray]:
        """The tensors as field elements, by name: secret."""
        return self._elements

    def describe(self) -> bytes:
        """The description as JSON; ``DataDescription.decode`` reads it."""
        return self._description.encode()

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {t.shape}" for name, t in self._description.tensors.items())
        return f"<DataSet: {shapes}>"


def _ranges(
    tensors: Mapping[str, object],
    low: float | None,
    high: float | None,
    ranges: Mapping[str, tuple[float, float]],
) -> dict[str, tuple[float, float]]:
    """Of each tensor, its own or that of all.  Raises UsageError."""
    strangers = [str(name) for name in ranges if name not in tensors]
    odd = [name for name, ends in ranges.items() if not (isinstance(ends, Sequence) and len(ends) == 2)]
    if odd:
        raise UsageError(f"the range of {odd[0]} is no pair: give its ends as (low, high)")
    if strangers:
        raise UsageError(f"ranges names {', '.join(strangers)}, and the data set has {', '.join(tensors)}")
    if low is not None and high is not None:
        return {name: ranges.get(name, (low, high)) for name in tensors}
    bare = [name for name in tensors if name not in ranges]
    if bare:
        raise UsageError(
            f"the range of {', '.join(bare)} is missing: give low and high for all, or ranges={{{bare[0]!r}: (.., ..)}}"
        )
    if low is not None or high is not None:
        raise UsageError("low and high are the ends of one range: give both, or none where each tensor has its own")
    return {name: ranges[name] for name in tensors}


def is_data(description: bytes) -> bool:
    """Whether it describes a data set, and not a model."""
    try:
        DataDescription.decode(description)
    except UnsupportedError:
        return False
    return True
