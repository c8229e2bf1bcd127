"""What a model takes and gives, as it says of itself: public, for whoever has an input and wants an answer.

Its owner writes it, and a client that asks the parties for the model reads it: so every field is bounded, and checked
when it is made.  Nothing of it plays a part in what the parties compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from mpc.errors import ShapeError, UnsupportedError, UsageError
from mpc.tensor_type import Shape
from nn.architecture import decode_json
from nn.inputs import MAX_NAME, MOST_PARTS, ArrayInput, Result, SeveralInputs, TokenInput
from nn.preprocessing import ImageInput
from nn.said import of_its_types
from nn.tables import TableInput
from protocols.lowering.planner import FRACTION_BITS

MAX_CLASSES = 1 << 16
MAX_NOTICE = 1000


AnyInput = ImageInput | TableInput | ArrayInput | TokenInput | SeveralInputs
"""All have ``shape``, of one input, without the batch, and the range ``low`` to ``high``."""


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a class is called: a name for people, and a short code for programs where there is one."""

    name: str
    code: str = ""

    @of_its_types
    def __post_init__(self) -> None:
        if not self.name or max(len(self.name), len(self.code)) > MAX_NAME:
            raise UnsupportedError(f"a class has a name of 1 to {MAX_NAME} characters, and a code of no more")
        if not self.name.isprintable() or not self.code.isprintable():
            raise UnsupportedError("names of classes are printable")


class Classes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A result that is one number for each class, in this order.  Raises UnsupportedError for none or too many."""

    labels: tuple[Label, ...]
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    """What makes probabilities of the numbers: of classes that exclude each other, of ones that do not, or nothing."""

    @of_its_types
    def __post_init__(self) -> None:
        if not all(isinstance(label, Label) for label in self.labels):
            raise UnsupportedError("classes are labels: Classes((Label('a'), Label('b')))")
        if not 0 < len(self.labels) <= MAX_CLASSES:
            raise UnsupportedError(f"a model tells 1 to {MAX_CLASSES} classes apart, not {len(self.labels)}")

    def check(self, shape: Shape) -> None:
        """Raises ShapeError unless results of this shape (N, ...) are these classes'."""
        if len(shape) != 2 or shape[1] != len(self.labels):
            raise ShapeError(f"the model gives results of shape {shape}, not {len(self.labels)} classes per input")

    def probabilities(self, results: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each class, in public, of results (N, classes).  Raises ShapeError as ``check`` does."""
        self.check(results.shape)
        if self.activation == "none":
            return results
        if self.activation == "sigmoid":
            # tanh does not overflow, as exp does.
            halves: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(results / 2)
            return halves
        powers = np.exp(results - results.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities


class Interface(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model says of itself beside what it computes; nothing, where its owner has said nothing."""

    input: AnyInput | None = None
    output: Classes | None = None
    notice: str = ""
    """To be shown with every answer."""
    results: tuple[Result, ...] = ()
    """Where a network gives several: they lie in a row, one after the other (``named``)."""
    compared: bool = False
    """Whether its results, in the parties' numbers, were held against those of the network that it was imported from
    (``nn/importing/compared.py``): then nobody is warned of what its layers might lose."""

    @of_its_types
    def __post_init__(self) -> None:
        if len(self.results) > MOST_PARTS or len({each.name for each in self.results}) != len(self.results):
            raise UnsupportedError(f"a model gives up to {MOST_PARTS} results, each of a name of its own")
        if len(self.notice) > MAX_NOTICE or not self.notice.isprintable():
            raise UnsupportedError(f"a notice has up to {MAX_NOTICE} printable characters")

    def bounds(self, low: float | None = None, high: float | None = None) -> tuple[float, float]:
        """The range of inputs: as given, or else what the model says, or else [-1, 1]."""
        said = (-1.0, 1.0) if self.input is None else (self.input.low, self.input.high)
        return said[0] if low is None else low, said[1] if high is None else high

    @property
    def fraction_bits(self) -> int:
        """Of inputs, as they are shared."""
        return 0 if isinstance(self.input, TokenInput) else FRACTION_BITS

    def encoded(self, inputs: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> NDArray[Any]:
        """What is shared of a batch: of tokens bits, of several inputs rows; all else as it is.

        Raises ShapeError and EncodingError for what the model does not take.
        """
        takes = self.input
        if isinstance(takes, SeveralInputs) and isinstance(inputs, Mapping):
            return takes.encode(inputs)
        if isinstance(inputs, Mapping):
            raise UsageError("the model has one input, without a name: give it an array")
        array = np.asarray(inputs)
        if isinstance(takes, TokenInput) and array.ndim == 1 + len(takes.positions):
            return takes.encode(array)
        return array

    def named(self, results: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The several results (N, ...) that a row of them holds, by name.  Raises ShapeError."""
        ends = np.cumsum([math.prod(each.shape) for each in self.results])
        if results.ndim != 2 or not len(ends) or results.shape[1] != ends[-1]:
            raise ShapeError(f"results of shape {results.shape} are no rows of the {len(ends)} that the model names")
        parts = np.split(results, ends[:-1], axis=1)
        return {e.name: part.reshape(len(part), *e.shape) for e, part in zip(self.results, parts, strict=True)}


NOTHING_SAID = Interface()


def as_read(interface: object) -> Interface:
    """``interface`` as whoever asks for the model will read it: numbers of NumPy made plain, say.

    Raises UnsupportedError for what nobody could.
    """
    if not isinstance(interface, Interface):
        what = type(interface).__name__
        raise UnsupportedError(f"what a model says of itself is Interface(input=, output=, notice=), not {what}")
    try:
        return decode_json(msgspec.json.encode(interface, enc_hook=_plain), Interface)
    except TypeError as error:
        raise UnsupportedError(f"this cannot be said of a model: {error}") from None


def _plain(value: object) -> object:
    """A number of NumPy, or an array of them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no part of it")
