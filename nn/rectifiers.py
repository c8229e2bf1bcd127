"""Layers that compare: rectifiers and maxima, exact or within one unit of the precision, on whatever values come; and
those that follow from functions that do, such as ELU, which err by about 1e-4 (``protocols/trace/activations.py``).

Each comparison takes one round besides the opening of what is compared, which a linear layer's result needs for any
activation (``protocols/operations/comparison.py``); what it lets through is cut for the next layer on the way.  A
``ReLU`` before a ``MaxPool2d`` is evaluated after it, on fewer values: the result is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn import axes
from nn.layer import (
    Array,
    Arrays,
    Layer,
    Pair,
    Secrets,
    WeightArray,
    check_finite,
    check_images,
    check_pair,
    check_size,
    pair,
)
from nn.layers import AdaptivePool2d, Pool2d
from protocols.trace.activations import SELU_ALPHA, SELU_SCALE, check_alpha
from protocols.trace.secret_tensor import SecretTensor


class Elementwise(Layer, frozen=True):
    """One formula in NumPy's words, for secret tensors and for arrays."""

    def of(self, x: Any) -> Any:
        """The formula: of a secret tensor another, of an array another; local or not as its operations say."""
        raise NotImplementedError

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        y: SecretTensor = self.of(inputs[0])
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(self.of(inputs[0]))


class ReLU(Elementwise, frozen=True, omit_defaults=True):
    """max(x, 0).

    ``interval``: where x is assumed to lie, in the place of the worst case that types know, which in a deep network
    does not fit the field (`nn.assuming`).  A bit beside the results says if it does not hold.
    """

    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.interval is not None:
            _check_interval(self.interval)

    def of(self, x: Any) -> Any:
        return _relu(x)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,) = inputs
        return (x if self.interval is None else x.assumed(*self.interval)).relu()


class Assumed(Elementwise, frozen=True):
    """Nothing but that values are assumed to lie in ``interval``, as a ``ReLU``'s may be: where there are fewest."""

    interval: tuple[float, float]

    def __post_init__(self) -> None:
        _check_interval(self.interval)

    def of(self, x: Any) -> Any:
        return x

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].assumed(*self.interval)


class LeakyReLU(Elementwise, frozen=True):
    """x where x >= 0, else ``negative_slope`` times as much."""

    negative_slope: float = 0.01

    def __post_init__(self) -> None:
        check_finite("negative_slope", self.negative_slope)

    def of(self, x: Any) -> Any:
        return x * self.negative_slope + _relu(x) * (1.0 - self.negative_slope)


class Hardtanh(Elementwise, frozen=True):
    """x, but no less than ``min_val`` and no more than ``max_val``."""

    min_val: float = -1.0
    max_val: float = 1.0

    def __post_init__(self) -> None:
        check_finite("min_val and max_val", self.min_val, self.max_val)
        if self.min_val > self.max_val:
            raise UnsupportedError("min_val is not above max_val")

    def of(self, x: Any) -> Any:
        return np.clip(x, self.min_val, self.max_val)


class ReLU6(Elementwise, frozen=True):
    """x, but no less than 0 and no more than 6."""

    def of(self, x: Any) -> Any:
        return np.clip(x, 0.0, 6.0)


class Hardsigmoid(Elementwise, frozen=True):
    """x / 6 + 1/2, but no less than 0 and no more than 1."""

    def of(self, x: Any) -> Any:
        return _hard_sigmoid(x)


class Hardswish(Elementwise, frozen=True):
    """x times its ``Hardsigmoid``; a round more for the product."""

    def of(self, x: Any) -> Any:
        return x * (np.clip(x, -3.0, 3.0) + 3.0) / 6.0


class ELU(Elementwise, frozen=True):
    """x where x >= 0, else ``alpha`` (exp(x) - 1)."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    def of(self, x: Any) -> Any:
        return x.elu(self.alpha) if isinstance(x, SecretTensor) else _elu(x, self.alpha)


class SELU(Elementwise, frozen=True):
    """``ELU`` with torch's constants, by which means and variances stay."""

    def of(self, x: Any) -> Any:
        return x.selu() if isinstance(x, SecretTensor) else SELU_SCALE * _elu(x, SELU_ALPHA)


class CELU(Elementwise, frozen=True):
    """``alpha`` times ``ELU`` of x / ``alpha``."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    def of(self, x: Any) -> Any:
        return x.celu(self.alpha) if isinstance(x, SecretTensor) else self.alpha * _elu(x / self.alpha, 1.0)


class LogSigmoid(Elementwise, frozen=True):
    """log(sigmoid(x))."""

    def of(self, x: Any) -> Any:
        return x.logsigmoid() if isinstance(x, SecretTensor) else -np.logaddexp(0.0, -x)


class Softsign(Elementwise, frozen=True):
    """x / (1 + |x|), right to a thousandth; the rounds of a reciprocal, and three more."""

    def of(self, x: Any) -> Any:
        return x.softsign() if isinstance(x, SecretTensor) else x / (1.0 + np.abs(x))


class Softshrink(Elementwise, frozen=True):
    """x without what of it lies within ``lambd`` of 0."""

    lambd: float = 0.5

    def __post_init__(self) -> None:
        check_finite("lambd", self.lambd)
        if self.lambd < 0:
            raise UnsupportedError("lambd is at least 0")

    def of(self, x: Any) -> Any:
        return x - np.clip(x, -self.lambd, self.lambd)


class Abs(Elementwise, frozen=True):
    """|x|."""

    def of(self, x: Any) -> Any:
        return abs(x)


class PReLU(Layer, frozen=True):
    """x where x >= 0, else a secret slope times as much: one for all channels (axis 1), or one for each.

    A round more for the product.
    """

    num_parameters: int = 1

    def __post_init__(self) -> None:
        check_size("num_parameters", self.num_parameters)

    @property
    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_parameters,)}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        return {"weight": WeightArray(weights["weight"])}

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,), above = inputs, inputs[0].relu()
        return above - (above - x) * weights["weight"].reshape(self._shape(x))

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,), slopes = inputs, weights["weight"].reshape(self._shape(inputs[0]))
        return np.where(x >= 0, x, slopes * x)

    def _shape(self, x: SecretTensor | Array) -> Shape:
        if self.num_parameters == 1:
            return (1,) * x.ndim
        if x.ndim < 2 or x.shape[1] != self.num_parameters:
            raise ShapeError(f"PReLU takes {self.num_parameters} channels, not a tensor of shape {x.shape}")
        return (1, -1, *(1,) * (x.ndim - 2))


class MaxPool2d(Pool2d, frozen=True):
    """Maxima over windows of (N, C, H, W); padding counts for nothing."""

    dilation: Pair = 1
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        check_pair("dilation", self.dilation)
        super().__post_init__()

    def _places(self, shape: Shape) -> list[axes.Positions]:
        """What each window has under it, along either axis."""
        found = []
        for size, kernel, stride, padding, dilation in zip(shape[2:], *self._window, pair(self.dilation), strict=True):
            places = axes.windows(size, kernel, stride, padding, dilation, self.ceil_mode)
            found.append(axes.inside(places, (places >= 0) & (places < size)))
        return found

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        x = inputs[0]
        if pair(self.dilation) != (1, 1):
            y: SecretTensor = largest(x, self._places(x.shape))
            return y
        for axis, size, kernel, stride, padding in zip((2, 3), x.shape[2:], *self._window, strict=True):
            last = axes.windows(size, kernel, stride, padding, ceil=self.ceil_mode)[-1, -1]
            if (beyond := int(last) + 1 - padding - size) > 0:
                # A window that reaches beyond the last has it, and loses nothing by having it twice.
                x = x.take(np.minimum(np.arange(size + beyond), size - 1), axis)
        return x.max_pool2d(*self._window)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        return np.asarray(largest(inputs[0], self._places(inputs[0].shape)))


class AdaptiveMaxPool2d(AdaptivePool2d, frozen=True):
    """Maxima over as many windows as there shall be."""

    def _places(self, shape: Shape) -> list[axes.Positions]:
        sizes = zip(shape[2:], self._sizes(shape), strict=True)
        return [axes.inside(*axes.parted(size, count)) for size, count in sizes]

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        x, kernel = inputs[0], self._kernel(inputs[0].shape)
        y: SecretTensor = x.max_pool2d(kernel) if kernel is not None else largest(x, self._places(x.shape))
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        return np.asarray(largest(inputs[0], self._places(inputs[0].shape)))


def largest(x: Any, places: list[axes.Positions]) -> Any:
    """Maxima over windows of (N, C, H, W), along one axis and then along the other."""
    for axis, positions in zip((3, 2), reversed(places), strict=True):
        x = x.take(positions, axis).max(axis + 1)
    return x


def _check_interval(interval: tuple[float, float]) -> None:
    check_finite("an interval", *interval)
    if not interval[0] < interval[1]:
        raise UnsupportedError(f"{interval} is not an interval")


def _relu(x: Any) -> Any:
    return x.relu() if isinstance(x, SecretTensor) else np.maximum(x, 0.0)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _hard_sigmoid(x: Any) -> Any:
    return np.clip(x, -3.0, 3.0) / 6.0 + 0.5
