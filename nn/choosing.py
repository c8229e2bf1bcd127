"""Parts of tensors by public positions, and the largest, the smallest and the bounded of what is secret."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from nn.layer import MAX_SIZE, OneFormula, axis_of, check_finite, check_size
from nn.rectifiers import Elementwise


class AlongOne(OneFormula, frozen=True):
    """One formula in NumPy's words along ``dim``, which is not the batch's."""

    dim: int

    def __post_init__(self) -> None:
        if self.dim == 0:
            raise UnsupportedError(f"{type(self).__name__} along dimension 0 would mix the images of the batch")

    def of(self, x: Any, axis: int) -> Any:
        """The formula along this axis: of a secret tensor another, of an array another."""
        raise NotImplementedError

    def _axis(self, ndim: int) -> int:
        axis = axis_of(self.dim, ndim)
        if axis == 0:
            raise ShapeError(f"dimension {self.dim} of {ndim} is the batch's")
        return axis

    def _of(self, x: Any) -> Any:
        return self.of(x, self._axis(x.ndim))


class Take(AlongOne, frozen=True):
    """What lies at these places of a dimension, in this order: local."""

    positions: tuple[int, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < len(self.positions) <= MAX_SIZE:
            raise UnsupportedError(f"Take has 1 to {MAX_SIZE} positions, not {len(self.positions)}")
        for n in self.positions:
            check_size("a position", n, least=0)

    def of(self, x: Any, axis: int) -> Any:
        if max(self.positions) >= x.shape[axis]:
            raise ShapeError(f"position {max(self.positions)} in a dimension of {x.shape[axis]}")
        return x.take(np.array(self.positions), axis)


class CumSum(AlongOne, frozen=True):
    """Running sums along a dimension: local."""

    def of(self, x: Any, axis: int) -> Any:
        return x.cumsum(axis)


class _Extreme(OneFormula, frozen=True):
    """The largest or smallest value over dimensions ``dim``, none of which may be the batch's."""

    largest: ClassVar[bool]

    dim: tuple[int, ...]
    keepdim: bool = False

    def __post_init__(self) -> None:
        if not self.dim or 0 in self.dim:
            raise UnsupportedError(f"{type(self).__name__} over the batch would mix its images: name other dimensions")

    def _of(self, x: Any) -> Any:
        found = tuple(sorted({axis_of(d, x.ndim) for d in self.dim}))
        if 0 in found or 0 in x.shape:
            raise ShapeError(f"{self} of a tensor of shape {x.shape}")
        return x.max(found, keepdims=self.keepdim) if self.largest else x.min(found, keepdims=self.keepdim)


class Amax(_Extreme, frozen=True):
    """The largest value over dimensions: four rounds for up to 8 values, else two for each doubling."""

    largest: ClassVar[bool] = True


class Amin(_Extreme, frozen=True):
    """The smallest value over dimensions, as ``Amax``."""

    largest: ClassVar[bool] = False


class Clamp(Elementwise, frozen=True):
    """x, but no less than ``min`` and no more than ``max``: ``Hardtanh`` with one bound, or two."""

    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        ends = [end for end in (self.min, self.max) if end is not None]
        check_finite("min and max", *ends)
        if not ends:
            raise UnsupportedError("Clamp has one bound at least")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise UnsupportedError("min is not above max")

    def of(self, x: Any) -> Any:
        return np.clip(x, self.min, self.max)


class Threshold(Elementwise, frozen=True):
    """x where it is above ``threshold``, else ``value``."""

    threshold: float
    value: float

    def __post_init__(self) -> None:
        check_finite("threshold and value", self.threshold, self.value)

    def of(self, x: Any) -> Any:
        return np.where(x > self.threshold, x, self.value)


class Hardshrink(Elementwise, frozen=True):
    """x where |x| is above ``lambd``, else 0."""

    lambd: float = 0.5

    def __post_init__(self) -> None:
        check_finite("lambd", self.lambd)

    def of(self, x: Any) -> Any:
        if self.lambd < 0:
            return x
        return np.where(x > self.lambd, x, 0.0) + np.where(x < -self.lambd, x, 0.0)
