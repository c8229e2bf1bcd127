"""What a ``forward`` written in Python does between its layers: sums, joins, products, reshapes.  All but
products are local.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import MAX_DIMENSIONS, Shape
from nn.layer import (
    Array,
    Arrays,
    Layer,
    Secrets,
    WeightArray,
    axis_of,
    check_finite,
    check_size,
    check_weights,
)
from protocols.trace.secret_tensor import SecretTensor, concatenate


def check_aligned(layer: Layer, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
    """``Layer.check_batch`` where operands broadcast.

    Axes are aligned from the last one: an operand with fewer would have its batch meet another axis.
    """
    ndim = max(map(len, shapes))
    for shape, own in zip(shapes, batched, strict=True):
        if len(shape) < ndim if own else len(shape) == ndim > 0 and shape[0] != 1:
            raise mixing(layer, shapes)


class _Binary(Layer, frozen=True):
    operands: ClassVar[int] = 2
    _act: ClassVar[Callable[[Any, Any], Any]]

    def check_batch(self, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
        check_aligned(self, shapes, batched)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        y: SecretTensor = type(self)._act(*inputs)
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        try:
            return np.asarray(type(self)._act(*inputs))
        except ValueError:
            shapes = " and ".join(str(x.shape) for x in inputs)
            raise ShapeError(f"{type(self).__name__}: shapes {shapes} do not go together") from None


class Add(_Binary, frozen=True):
    """``x + y``: residual connections."""

    _act: ClassVar[Callable[[Any, Any], Any]] = staticmethod(lambda x, y: x + y)


class Subtract(_Binary, frozen=True):
    """``x - y``."""

    _act: ClassVar[Callable[[Any, Any], Any]] = staticmethod(lambda x, y: x - y)


class Multiply(_Binary, frozen=True):
    """``x * y``, elementwise: gates and attention to channels."""

    _act: ClassVar[Callable[[Any, Any], Any]] = staticmethod(lambda x, y: x * y)


class Maximum(_Binary, frozen=True):
    """The larger of ``x`` and ``y``, elementwise; two rounds."""

    _act: ClassVar[Callable[[Any, Any], Any]] = staticmethod(lambda x, y: np.maximum(x, y))


class Minimum(_Binary, frozen=True):
    """The smaller of ``x`` and ``y``, elementwise; two rounds."""

    _act: ClassVar[Callable[[Any, Any], Any]] = staticmethod(lambda x, y: np.minimum(x, y))


class Matmul(_Binary, frozen=True):
    """``x @ y``."""

    def check_batch(self, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
        """As for sums, where there are stacks of matrices; and no batch is an axis of a matrix that is summed over."""
        x, y = shapes
        if (batched[0] and len(x) < 2) or (batched[1] and len(y) < 3):
            raise mixing(self, shapes)
        if max(len(x), len(y)) > 2:
            super().check_batch(shapes, batched)

    _act: ClassVar[Callable[[Any, Any], Any]] = staticmethod(lambda x, y: x @ y)


class Affine(Layer, frozen=True):
    """``scale * x + shift`` with public numbers."""

    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        check_finite("scale and shift", self.scale, self.shift)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        y = inputs[0] if self.scale == 1.0 else inputs[0] * self.scale
        return y + self.shift if self.shift else y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return inputs[0] * self.scale + self.shift


class Parameter(Layer, frozen=True):
    """A weight of the model's own, for the steps after it to use."""

    operands: ClassVar[int] = 0

    shape: Shape

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_DIMENSIONS:
            raise UnsupportedError(f"a parameter of {len(self.shape)} dimensions")
        for n in self.shape:
            check_size("a parameter's dimension", n)
        check_weights(self.shape)

    @property
    def parameters(self) -> dict[str, Shape]:
        return {"": self.shape}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        return {"": WeightArray(weights[""], contracted=(0,) if len(self.shape) == 2 else None)}

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return weights[""]

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return weights[""]


def mixing(layer: Layer, shapes: Sequence[Shape]) -> ShapeError:
    """Of operands in which the batch is not the first axis."""
    of = " and ".join(map(str, shapes))
    return ShapeError(f"{type(layer).__name__} of shapes {of} would mix the images of the batch: it must stay first")


class Concatenate(Layer, frozen=True):
    """``torch.cat`` along ``dim``, which may not be the batch's; what is no image's own is beside each of them."""

    operands: ClassVar[int] = -1

    dim: int = 1

    def __post_init__(self) -> None:
        if self.dim == 0:
            raise UnsupportedError("a concatenation along dimension 0 would mix the images of the batch")

    def check_batch(self, shapes: Sequence[Shape], batched: Sequence[bool]) -> None:
        """What is no image's own would go to one of them each."""
        if any(shape[:1] != (1,) for shape, own in zip(shapes, batched, strict=True) if not own):
            raise mixing(self, shapes)

    def _axis(self, ndim: int) -> int:
        axis = axis_of(self.dim, ndim)
        if axis == 0:
            raise ShapeError(f"a concatenation along dimension {self.dim} of {ndim} would mix the images of the batch")
        return axis

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        most = max(x.shape[0] for x in inputs)
        each = [x if x.shape[0] == most else x.broadcast_to((most, *x.shape[1:])) for x in inputs]
        return concatenate(each, self._axis(inputs[0].ndim))

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        axis = self._axis(inputs[0].ndim)
        most = max(len(x) for x in inputs)
        try:
            return np.concatenate([np.broadcast_to(x, (most, *x.shape[1:])) for x in inputs], axis=axis)
        except ValueError:
            shapes = ", ".join(str(x.shape) for x in inputs)
            raise ShapeError(f"shapes {shapes} do not join along dimension {self.dim}") from None


class Mean(Layer, frozen=True):
    """The mean over dimensions ``dim``, none of which may be the batch's."""

    dim: tuple[int, ...]
    keepdim: bool = False

    def __post_init__(self) -> None:
        if not self.dim or 0 in self.dim:
            raise UnsupportedError("a mean over the batch would mix its images: name other dimensions")

    def _axes(self, ndim: int) -> tuple[int, ...]:
        axes = tuple(sorted({axis_of(d, ndim) for d in self.dim}))
        if 0 in axes:
            raise ShapeError(f"a mean over dimensions {self.dim} of {ndim} would mix the images of the batch")
        return axes

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].mean(self._axes(inputs[0].ndim), keepdims=self.keepdim)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(inputs[0].mean(axis=self._axes(inputs[0].ndim), keepdims=self.keepdim))


class Reshape(Layer, frozen=True):
    """Each image of the batch to ``shape``, one dimension of which may be -1."""

    shape: Shape

    def __post_init__(self) -> None:
        if len(self.shape) >= MAX_DIMENSIONS or self.shape.count(-1) > 1:
            raise UnsupportedError(f"cannot reshape to {self.shape}")
        for n in self.shape:
            if n != -1:
                check_size("a dimension", n)

    def _shape(self, shape: Shape) -> Shape:
        each, known = math.prod(shape[1:]), math.prod(n for n in self.shape if n != -1)
        fits = each % known == 0 if -1 in self.shape else each == known
        if not shape or not fits:
            raise ShapeError(f"{shape[1:]} cannot be reshaped to {self.shape}")
        return (shape[0], *(each // known if n == -1 else n for n in self.shape))

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].reshape(self._shape(inputs[0].shape))

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return inputs[0].reshape(self._shape(inputs[0].shape))


class Permute(Layer, frozen=True):
    """Dimensions in another order; the batch's stays first."""

    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.dims or self.dims[0] != 0:
            raise UnsupportedError("a permutation keeps dimension 0, the batch's, first")

    def _order(self, ndim: int) -> tuple[int, ...]:
        order = tuple(axis_of(d, ndim) for d in self.dims)
        if sorted(order) != list(range(ndim)):
            raise ShapeError(f"{self.dims} does not permute {ndim} dimensions")
        return order

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].transpose(self._order(inputs[0].ndim))

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return inputs[0].transpose(self._order(inputs[0].ndim))
