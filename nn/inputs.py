"""Inputs of models that are arrays: of real numbers, of tokens, or several of these; as a model says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mpc.errors import EncodingError, ShapeError, UnsupportedError
from mpc.tensor_type import MAX_DIMENSIONS, Shape
from nn.layer import MAX_WEIGHTS
from nn.said import of_its_types

MAX_NAME: Final = 200
MOST_VALUE: Final = 2.0**40
MOST_PARTS: Final = 64


class ArrayInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="array"):
    """An input that is an array of numbers in [low, high]; ``shape`` is without the batch.  Raises UnsupportedError."""

    shape: Shape
    low: float
    high: float

    @of_its_types
    def __post_init__(self) -> None:
        check_shape(self.shape)
        if not -MOST_VALUE <= self.low < self.high <= MOST_VALUE:
            raise UnsupportedError(f"[{self.low:g}, {self.high:g}] is not an input's range")


class TokenInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="tokens"):
    """Whole numbers from 0 to ``vocabulary`` - 1, in an array of shape ``positions``: tokens of a text, say.

    Each is shared as a vector of bits, with a 1 at its place: so what is looked up for it is a product, and parties
    compare nothing.  That every number shared is a bit is checked as ranges of inputs are.  Raises UnsupportedError.
    """

    positions: Shape
    vocabulary: int

    @of_its_types
    def __post_init__(self) -> None:
        check_shape((*self.positions, self.vocabulary))

    @property
    def shape(self) -> Shape:
        """Of what is shared."""
        return (*self.positions, self.vocabulary)

    @property
    def low(self) -> float:
        """Of a bit."""
        return 0.0

    @property
    def high(self) -> float:
        """Of a bit."""
        return 1.0

    def encode(self, tokens: NDArray[Any], name: str = "inputs") -> NDArray[np.float64]:
        """Of (N, *positions), whole numbers: (N, *positions, vocabulary), bits.  Raises ShapeError, EncodingError."""
        if tokens.shape[1:] != self.positions:
            raise ShapeError(f"{name}: tokens of shape (N, {_sizes(self.positions)}) are taken, not {tokens.shape}")
        wrong = tokens.dtype.kind not in "iu" and not bool((np.rint(tokens) == tokens).all())
        if tokens.dtype.kind not in "iuf" or wrong:
            raise EncodingError(f"{name}: tokens are whole numbers")
        outside = np.argwhere((tokens < 0) | (tokens >= self.vocabulary))
        if len(outside):  # the place, and not the token, which may be secret
            place = ", ".join(map(str, outside[0]))
            raise EncodingError(f"{name}[{place}] is no token: they are 0 to {self.vocabulary - 1}")
        found = np.zeros((*tokens.shape, self.vocabulary))
        np.put_along_axis(found, tokens.astype(np.int64)[..., None], 1.0, axis=-1)
        return found


class NamedInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several."""

    name: str
    input: ArrayInput | TokenInput

    @of_its_types
    def __post_init__(self) -> None:
        check_name(self.name)


class SeveralInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="several"):
    """Arrays by name, shared as one row, one after the other in this order.  Raises UnsupportedError."""

    inputs: tuple[NamedInput, ...]

    @of_its_types
    def __post_init__(self) -> None:
        names = [each.name for each in self.inputs]
        if not 0 < len(names) <= MOST_PARTS or len(set(names)) != len(names):
            raise UnsupportedError(f"a model takes 1 to {MOST_PARTS} inputs, each of a name of its own")
        check_shape(self.shape)

    @property
    def shape(self) -> Shape:
        """Of a row."""
        return (sum(math.prod(each.input.shape) for each in self.inputs),)

    @property
    def low(self) -> float:
        """No number of a row is below."""
        return min(each.input.low for each in self.inputs)

    @property
    def high(self) -> float:
        """No number of a row is above."""
        return max(each.input.high for each in self.inputs)

    def encode(self, inputs: Mapping[str, Any]) -> NDArray[np.float64]:
        """Rows (N, all numbers), of arrays (N, ...) by name.  Raises ShapeError, EncodingError."""
        wanted = [each.name for each in self.inputs]
        if set(inputs) != set(wanted):
            raise ShapeError(f"the model takes inputs called {', '.join(wanted)}: give a dict of arrays with these")
        rows = []
        for each in self.inputs:
            array = np.asarray(inputs[each.name])
            if isinstance(each.input, TokenInput):
                array = each.input.encode(array, each.name)
            elif array.shape[1:] != each.input.shape:
                raise ShapeError(f"{each.name} is of shape (N, {_sizes(each.input.shape)}), not {array.shape}")
            elif not ((each.input.low <= array) & (array <= each.input.high)).all():  # NaN too
                raise EncodingError(f"{each.name} is not within {each.input.low:g} to {each.input.high:g}")
            rows.append(array.reshape(len(array), -1).astype(np.float64))
        if len({len(row) for row in rows}) != 1:
            raise ShapeError("inputs of one batch have as many rows each")
        return np.concatenate(rows, axis=1)


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several results; ``shape`` is without the batch.  Raises UnsupportedError."""

    name: str
    shape: Shape

    @of_its_types
    def __post_init__(self) -> None:
        check_name(self.name)
        if self.shape:
            check_shape(self.shape)


def check_shape(shape: Shape) -> None:
    """Raises UnsupportedError for what is no input's."""
    if len(shape) >= MAX_DIMENSIONS or any(not 0 < n <= MAX_WEIGHTS for n in shape) or math.prod(shape) > MAX_WEIGHTS:
        raise UnsupportedError(f"{shape} is not an input's shape")


def check_name(name: str) -> None:
    """Raises UnsupportedError for what can name nothing."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise UnsupportedError(f"a name has 1 to {MAX_NAME} printable characters")


def _sizes(shape: Shape) -> str:
    return ", ".join(map(str, shape))
