"""What an ONNX file holds beside its nodes: numbers, and what it takes and gives.  Needs onnx.

The file is a stranger's: sizes are checked before an array is made.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from onnx import GraphProto, TensorProto, ValueInfoProto, numpy_helper

from mpc.errors import EncodingError, UsageError, printable
from mpc.tensor_type import MAX_DIMENSIONS, Shape
from nn.importing.blockers import INSTEAD, refused
from nn.inputs import MOST_PARTS
from nn.layer import MAX_WEIGHTS

READ = (
    "export the network with operators that are read (docs/models.md lists them) and fixed sizes but for the batch's,"
    " constants folded, or end it before this node"
)
_REALS = frozenset((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16))
_INTEGERS = frozenset((TensorProto.INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL))
DTYPES: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
    TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32,
    TensorProto.BOOL: np.bool_,
}
"""Of inputs, by onnx's numbers."""
_LONGEST_NAME = 60


class Taken(NamedTuple):
    """What one of the graph's inputs is."""

    name: str
    kind: int
    """Of what numbers, as onnx counts types."""
    sizes: tuple[int | None, ...]
    """The batch's first; None for what the file leaves open."""

    @property
    def dtype(self) -> Any:
        """As NumPy has it."""
        return DTYPES[self.kind]

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers."""
        return self.kind not in _REALS

    @property
    def shape(self) -> Shape | None:
        """One input's, where it is known."""
        if None in self.sizes[1:]:
            return None
        return tuple(n for n in self.sizes[1:] if n is not None)


class Signature(NamedTuple):
    """What the graph takes and gives."""

    inputs: tuple[Taken, ...]
    outputs: tuple[str, ...]
    """Those that are wanted."""

    @property
    def batch(self) -> int | None:
        """How many inputs it is for; None for any number."""
        return next((each.sizes[0] for each in self.inputs if each.sizes[0] is not None), None)


def said(name: str | bytes) -> str:
    """A stranger's name, for a sentence; bytes where it is no UTF-8."""
    return printable(name if isinstance(name, str) else name.decode(errors="replace"))[:_LONGEST_NAME]


def array_of(tensor: TensorProto) -> np.ndarray:
    """Its numbers: real ones in float64, whole ones in their own type.  Raises UnsupportedError or EncodingError."""
    name = said(tensor.name)
    shape = tuple(tensor.dims)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data or tensor.HasField("segment"):
        raise refused(f"the numbers of {name!r} are in another file", "save the model with its weights inside")
    if tensor.data_type not in _REALS | _INTEGERS:
        raise refused(f"{name!r} holds no real numbers of 16, 32 or 64 bits", "export the network in float32")
    if len(shape) > MAX_DIMENSIONS or min(shape, default=1) < 1 or math.prod(shape) > MAX_WEIGHTS:
        raise refused(f"{name!r} has shape {shape[: MAX_DIMENSIONS + 1]}", "give it no empty and no huge dimension")
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        values = np.empty(0)
    if values.shape != shape:
        raise EncodingError(f"{name!r} does not hold the numbers of its shape{INSTEAD}export the network again")
    if tensor.data_type in _INTEGERS:
        return values
    if np.isnan(values).any():
        # Infinite ones mask what a softmax takes; steps have none (``Graph.array``).
        raise EncodingError(f"{name!r} holds values that are no numbers{INSTEAD}train the network again")
    return values.astype(np.float64)


def signature(graph: GraphProto) -> Signature:
    """Its inputs and outputs.  Raises UsageError."""
    stored = {t.name for t in graph.initializer}
    inputs = tuple(_taken(each) for each in graph.input if each.name not in stored)
    if not 0 < len(inputs) <= MOST_PARTS or not graph.output:
        reason = f"it has {len(inputs)} inputs and {len(graph.output)} outputs"
        raise refused(reason, f"export one that takes 1 to {MOST_PARTS} tensors")
    if stored & {""} or graph.sparse_initializer:
        raise UsageError("weights without names, or sparse ones, are not read")
    if len({each.sizes[0] for each in inputs} - {None}) > 1:
        raise refused("its inputs are of batches of several sizes", "export one whose inputs all have the batch first")
    return Signature(inputs, _wanted(graph))


def _taken(given: ValueInfoProto) -> Taken:
    kind, name = given.type.tensor_type, said(given.name)
    if kind.elem_type not in DTYPES:
        raise refused(
            f"its input {name!r} is no tensor of real or whole numbers that NumPy has", "export one that takes float32"
        )
    sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    if not sizes or len(sizes) > MAX_DIMENSIONS or not all(n is None or 0 < n <= MAX_WEIGHTS for n in sizes):
        raise refused(f"its input {name!r} is not of a batch's shape (N, ...)", "export one that takes a batch")
    return Taken(given.name, kind.elem_type, sizes)


def _wanted(graph: GraphProto) -> tuple[str, ...]:
    """Outputs of real numbers; labels, beside these, are left out."""
    labels = (TensorProto.INT64, TensorProto.STRING)
    real = [o.name for o in graph.output if o.type.tensor_type.elem_type not in labels]
    return tuple(real or [o.name for o in graph.output])
