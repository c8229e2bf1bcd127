"""Layers that compare: rectifiers and maxima, exact or within one unit of the precision, on whatever values come; and
those that follow from functions that do, such as ELU, which err by about 1e-4 (``protocols/trace/activations.py``).

Each comparison takes one round besides the opening of what is compared, which a linear layer's result needs for any
activation (``protocols/operations/comparison.py``); what it lets through is cut for the next layer on the way.  A
``ReLU`` before a ``MaxPool2d`` is evaluated after it, on fewer values: the result is the same.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn import windows
from nn.layer import (
    Array,
    Arrays,
    Layer,
    Secrets,
    WeightArray,
    check_finite,
    check_images,
    check_size,
)
from nn.layers import GlobalPool2d, Pool2d
from protocols.trace.activations import SELU_ALPHA, SELU_SCALE, check_alpha
from protocols.trace.secret_tensor import SecretTensor


class Elementwise(Layer, frozen=True):
    """One formula in NumPy's words, for secret tensors and for arrays."""

    def of(self, x: Any) -> Any:
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
            check_finite("an interval", *self.interval)
            if not self.interval[0] < self.interval[1]:
                raise UnsupportedError(f"{self.interval} is not an interval")

    def of(self, x: Any) -> Any:
        return _relu(x)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,) = inputs
        return (x if self.interval is None else x.assumed(*self.interval)).relu()


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

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        return inputs[0].max_pool2d(*self._window)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        return windows.max_pool2d(inputs[0], *self._window)


class AdaptiveMaxPool2d(GlobalPool2d, frozen=True):
    """The maximum of each channel: (N, C, H, W) to (N, C, 1, 1).  Only ``output_size=1``."""

    others: ClassVar[str] = "MaxPool2d"

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        return inputs[0].max_pool2d((inputs[0].shape[2], inputs[0].shape[3]))

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        return np.asarray(inputs[0].max(axis=(2, 3), keepdims=True))


def _relu(x: Any) -> Any:
    return x.relu() if isinstance(x, SecretTensor) else np.maximum(x, 0.0)


def _elu(x: Array, alpha: float) -> Array:
    return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _hard_sigmoid(x: Any) -> Any:
    return np.clip(x, -3.0, 3.0) / 6.0 + 0.5
