"""What is looked up at secret places: of one-hot vectors that are shared, or of whole numbers, which become such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn.choosing import AlongOne
from nn.functional import check_aligned
from nn.layer import Array, Arrays, Layer, Secrets, WeightArray, check_size, check_weights
from protocols.trace.counting import MOST_MARKS
from protocols.trace.secret_tensor import SecretTensor


class Embedding(Layer, frozen=True):
    """Rows of a table, for one-hot vectors (..., num_embeddings): a product, and no comparison but one for each vector.

    Of bits, as ``TokenInput`` shares them, the result is in the table's range, not in what their sum could reach; that
    each vector has no more than a 1 is assumed, and where one has two there is no answer.  ``transposed``: stored as a
    ``Linear``'s weight of the same shape, (embedding_dim, num_embeddings), so that it can be one with it.
    """

    num_embeddings: int
    embedding_dim: int
    transposed: bool = False

    def __post_init__(self) -> None:
        check_size("num_embeddings", self.num_embeddings)
        check_size("embedding_dim", self.embedding_dim)
        check_weights((self.num_embeddings, self.embedding_dim))

    @property
    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_embeddings, self.embedding_dim)}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        # One row of it is what there is of a sum.
        return {"weight": WeightArray(weights["weight"].T if self.transposed else weights["weight"])}

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        x: SecretTensor = self._checked(inputs[0])
        weight = weights["weight"]
        found = self._found(x, weight)
        if x.type.fraction_bits or not 0.0 <= x.type.low <= x.type.high <= 1.0:
            return found
        ones = x.sum(-1, keepdims=True)
        low, high = min(weight.type.low, 0.0), max(weight.type.high, 0.0)
        # Nothing is added where there is a 1.
        return found.within(low, high) + (ones.assumed(0.0, 1.0) - 1.0)

    def _found(self, x: SecretTensor, weight: SecretTensor) -> SecretTensor:
        if not self.transposed:
            return x @ weight
        # The table from the left: what is laid out of it for the other product serves this one.
        columns = (weight @ x.reshape(-1, self.num_embeddings).transpose()).transpose()
        return columns.reshape(*x.shape[:-1], self.embedding_dim)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(self._checked(inputs[0]) @ weights["weight"])

    def _checked(self, x: Any) -> Any:
        if x.ndim < 2 or x.shape[-1] != self.num_embeddings:
            raise ShapeError(f"Embedding takes vectors of {self.num_embeddings}, not a tensor of shape {x.shape}")
        return x


class OneHot(Layer, frozen=True):
    """A last axis of ``depth`` more: 1 at the place that a number says, else 0.

    Of numbers between whole ones, at the whole one below.  Of comparisons' results and positions, one round for up to
    1,024 places; of all else ``depth`` comparisons at once.
    """

    depth: int

    def __post_init__(self) -> None:
        if not 0 < self.depth <= MOST_MARKS:
            raise UnsupportedError(f"a one-hot vector of {self.depth}: 1 to {MOST_MARKS} places")

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,) = inputs
        if not x.type.fraction_bits and x.type.low >= 0:
            return x.one_hot(self.depth)
        reached = x.expand_dims(-1) >= np.arange(self.depth + 1.0)
        hot: SecretTensor = (reached[..., :-1] - reached[..., 1:]).within(0.0, 1.0)
        return hot

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(np.floor(inputs[0])[..., None] == np.arange(self.depth), np.float64)


class ArgMax(AlongOne, frozen=True):
    """Where along a dimension the largest value is, the first of several; the dimension stays, of size 1."""

    smallest: bool = False

    def of(self, x: Any, axis: int) -> Any:
        found = x.argmin(axis) if self.smallest else x.argmax(axis)
        return np.expand_dims(found, axis)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return super().plain(*inputs, weights=weights, exact=exact).astype(np.float64)


class Compare(Layer, frozen=True):
    """Of two tensors, or of one and ``number``: 1 where it holds, else 0; exact, ties included."""

    operands: ClassVar[int] = -1

    kind: str
    number: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in _COMPARISONS:
            raise UnsupportedError(f"there is no comparison {self.kind!r}: there are {', '.join(_COMPARISONS)}")

    def check_batch(self, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
        check_aligned(self, shapes, batched)

    def _of(self, inputs: tuple[Any, ...]) -> Any:
        if len(inputs) != (2 if self.number is None else 1):
            raise ShapeError(f"{self!r} of {len(inputs)} tensors")
        return _COMPARISONS[self.kind](inputs[0], self.number if self.number is not None else inputs[1])

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        y: SecretTensor = self._of(inputs)
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(self._of(inputs), np.float64)


_COMPARISONS: dict[str, Any] = {
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
}


class Where(Layer, frozen=True):
    """The second tensor where the first, of 0 and 1, is 1, and the third where it is 0."""

    operands: ClassVar[int] = 3

    def check_batch(self, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
        check_aligned(self, shapes, batched)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        condition, x, y = inputs
        return condition.where(x, y)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        condition, x, y = inputs
        return np.where(condition > 0.5, x, y)
