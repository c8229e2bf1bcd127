"""Layers with weights or windows, named and argued as in ``torch.nn``; activations are in ``nn.activations``.

Linear layers and pools are local: no round of their own.  Their operands are masked once each, so a layer
costs the opening of its input, and nothing at all where the input is a client's or has been opened already.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn import windows
from nn.layer import (
    Array,
    Arrays,
    Layer,
    Pair,
    Secrets,
    WeightArray,
    axis_of,
    check_finite,
    check_images,
    check_pair,
    check_size,
    check_weights,
    pair,
)
from protocols.trace.secret_tensor import SecretTensor


class Linear(Layer, frozen=True):
    """``x @ weight.T + bias`` on the last axis.  Stored transposed, (in, out), so that nothing is moved at run time."""

    in_features: int
    out_features: int
    bias: bool = True

    def __post_init__(self) -> None:
        check_size("in_features", self.in_features)
        check_size("out_features", self.out_features)
        check_weights((self.out_features, self.in_features))

    @property
    def parameters(self) -> dict[str, Shape]:
        bias: dict[str, Shape] = {"bias": (self.out_features,)} if self.bias else {}
        return {"weight": (self.out_features, self.in_features), **bias}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        bias = {"bias": WeightArray(weights["bias"])} if self.bias else {}
        return {"weight": WeightArray(weights["weight"].T, contracted=(0,)), **bias}

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        self._check(inputs[0])
        y = inputs[0] @ weights["weight"]
        return y + weights["bias"] if self.bias else y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        self._check(inputs[0])
        y: Array = inputs[0] @ weights["weight"].T
        return y + weights["bias"] if self.bias else y

    def _check(self, x: SecretTensor | Array) -> None:
        if x.ndim < 2 or x.shape[-1] != self.in_features:
            raise ShapeError(f"Linear takes {self.in_features} features, not a tensor of shape {x.shape}")


class Conv2d(Layer, frozen=True):
    """Cross-correlation of (N, C, H, W).  ``padding`` is zeros: an integer, two, ``"valid"``, or ``"same"``
    at stride 1.
    """

    in_channels: int
    out_channels: int
    kernel_size: Pair
    stride: Pair = 1
    padding: Pair | Literal["same", "valid"] = 0
    dilation: Pair = 1
    groups: int = 1
    bias: bool = True
    padding_mode: str = "zeros"

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "groups"):
            check_size(name, getattr(self, name))
        check_pair("kernel_size", self.kernel_size)
        check_pair("stride", self.stride)
        if isinstance(self.padding, str):
            if self.padding not in ("same", "valid"):
                raise UnsupportedError(f"padding is numbers, 'same' or 'valid', not {self.padding!r}")
            if self.padding == "same" and pair(self.stride) != (1, 1):
                raise UnsupportedError("padding='same' needs stride 1")
        else:
            check_pair("padding", self.padding, least=0)
        if pair(self.dilation) != (1, 1):
            raise UnsupportedError(f"dilation {self.dilation}: only 1 is supported")
        if self.padding_mode != "zeros":
            raise UnsupportedError(f"padding_mode {self.padding_mode!r}: only 'zeros' is supported")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise UnsupportedError(
                f"{self.in_channels} and {self.out_channels} channels do not divide into {self.groups} groups"
            )
        check_weights(self._shape)

    @property
    def _shape(self) -> Shape:
        return (self.out_channels, self.in_channels // self.groups, *pair(self.kernel_size))

    @property
    def _sides(self) -> windows.Sides:
        """Zeros (above, below), (left, right): an even window's odd zero comes last, as in torch."""
        if self.padding == "same":
            (top, bottom), (left, right) = (((k - 1) // 2, k // 2) for k in pair(self.kernel_size))
            return (top, bottom), (left, right)
        vertical, horizontal = (0, 0) if isinstance(self.padding, str) else pair(self.padding)
        return (vertical, vertical), (horizontal, horizontal)

    @property
    def parameters(self) -> dict[str, Shape]:
        bias: dict[str, Shape] = {"bias": (self.out_channels,)} if self.bias else {}
        return {"weight": self._shape, **bias}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        bias = {"bias": WeightArray(weights["bias"])} if self.bias else {}
        return {"weight": WeightArray(weights["weight"], contracted=(1, 2, 3)), **bias}

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        x, ((top, bottom), (left, right)) = inputs[0], self._sides
        check_images(x, self, self.in_channels)
        if top == bottom and left == right:
            padding = (top, left)
        else:
            x, padding = x.pad(((0, 0), (0, 0), (top, bottom), (left, right))), (0, 0)
        y = x.conv2d(weights["weight"], stride=self.stride, padding=padding, groups=self.groups)
        return y + weights["bias"].reshape(1, -1, 1, 1) if self.bias else y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self, self.in_channels)
        y = windows.conv2d(inputs[0], weights["weight"], pair(self.stride), self._sides, self.groups)
        return y + weights["bias"].reshape(1, -1, 1, 1) if self.bias else y


class Pool2d(Layer, frozen=True):
    """What windows over (N, C, H, W) have in common."""

    kernel_size: Pair
    stride: Pair | None = None
    padding: Pair = 0

    def __post_init__(self) -> None:
        check_pair("kernel_size", self.kernel_size)
        if self.stride is not None:
            check_pair("stride", self.stride)
        check_pair("padding", self.padding, least=0)
        if any(2 * p > k for p, k in zip(pair(self.padding), pair(self.kernel_size), strict=True)):
            raise UnsupportedError("padding of a pool is at most half its window")

    @property
    def _window(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        kernel = pair(self.kernel_size)
        return kernel, kernel if self.stride is None else pair(self.stride), pair(self.padding)


class AvgPool2d(Pool2d, frozen=True):
    """Means over windows of (N, C, H, W): local, and free of arithmetic for a window of 2^k."""

    ceil_mode: bool = False
    count_include_pad: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ceil_mode:
            raise UnsupportedError("ceil_mode=True: only False is supported")

    def _correction(self, shape: Shape) -> Array | None:
        """What means that count the padding must be multiplied by, where it is not to be counted."""
        if self.count_include_pad or not any(pair(self.padding)):
            return None
        return 1.0 / windows.mean_pool2d(np.ones((1, 1, *shape[2:])), *self._window)

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        pooled = inputs[0].avg_pool2d(*self._window)
        correction = self._correction(inputs[0].shape)
        return pooled if correction is None else pooled * correction

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        pooled = windows.mean_pool2d(inputs[0], *self._window)
        correction = self._correction(inputs[0].shape)
        return pooled if correction is None else pooled * correction


class GlobalPool2d(Layer, frozen=True):
    """What pools of whole channels have in common: (N, C, H, W) to (N, C, 1, 1).  Only ``output_size=1``."""

    others: ClassVar[str] = ""
    """The layer for other sizes."""

    output_size: Pair = 1

    def __post_init__(self) -> None:
        check_pair("output_size", self.output_size)
        if pair(self.output_size) != (1, 1):
            raise UnsupportedError(f"output_size {self.output_size}: only 1 is supported, use {self.others} for others")


class AdaptiveAvgPool2d(GlobalPool2d, frozen=True):
    """The mean of each channel: (N, C, H, W) to (N, C, 1, 1).  Only ``output_size=1``."""

    others: ClassVar[str] = "AvgPool2d"

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        return inputs[0].mean((2, 3), keepdims=True)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        return np.asarray(inputs[0].mean(axis=(2, 3), keepdims=True))


class _Affine(Layer, frozen=True, kw_only=True):
    affine: bool = True


class BatchNorm(_Affine, frozen=True):
    """Normalisation by stored statistics: a secret scale and shift per channel (axis 1).

    ``Model.fold`` merges it into a Linear or Conv2d before it; where it stays, it costs the opening of its
    input.
    """

    ndims: ClassVar[tuple[int, ...]] = ()

    num_features: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        check_size("num_features", self.num_features)
        check_finite("eps", self.eps)
        if self.eps < 0:
            raise UnsupportedError("eps is at least 0")

    @property
    def parameters(self) -> dict[str, Shape]:
        names = ("weight", "bias", "running_mean", "running_var") if self.affine else ("running_mean", "running_var")
        return dict.fromkeys(names, (self.num_features,))

    def scale_and_shift(self, weights: Arrays) -> tuple[Array, Array]:
        """The map it stands for, ``scale * x + shift`` per channel."""
        variance = weights["running_var"] + self.eps
        if not (variance > 0).all():
            raise UnsupportedError("running_var + eps must be positive")
        scale = 1.0 / np.sqrt(variance)
        if not self.affine:
            return scale, -weights["running_mean"] * scale
        scale = scale * weights["weight"]
        return scale, weights["bias"] - weights["running_mean"] * scale

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        scale, shift = self.scale_and_shift(weights)
        return {"scale": WeightArray(scale), "shift": WeightArray(shift)}

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        shape = self._broadcast(inputs[0])
        return inputs[0] * weights["scale"].reshape(shape) + weights["shift"].reshape(shape)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        shape = self._broadcast(inputs[0])
        scale, shift = self.scale_and_shift(weights)
        return inputs[0] * scale.reshape(shape) + shift.reshape(shape)

    def _broadcast(self, x: SecretTensor | Array) -> Shape:
        if x.ndim not in self.ndims or x.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__} takes {self.num_features} channels, not a tensor of shape {x.shape}"
            )
        return (1, -1, *(1,) * (x.ndim - 2))


class BatchNorm1d(BatchNorm, frozen=True):
    """Of (N, C) or (N, C, L), by stored statistics."""

    ndims: ClassVar[tuple[int, ...]] = (2, 3)


class BatchNorm2d(BatchNorm, frozen=True):
    """Of (N, C, H, W), by stored statistics."""

    ndims: ClassVar[tuple[int, ...]] = (4,)


class BatchNorm3d(BatchNorm, frozen=True):
    """Of (N, C, D, H, W), by stored statistics."""

    ndims: ClassVar[tuple[int, ...]] = (5,)


class Flatten(Layer, frozen=True):
    """Axes ``start_dim`` to ``end_dim`` as one; the first axis holds the batch and stays."""

    start_dim: int = 1
    end_dim: int = -1

    def __post_init__(self) -> None:
        if self.start_dim == 0:
            raise UnsupportedError("Flatten(start_dim=0) would merge the images of a batch: use start_dim=1")

    def _shape(self, shape: Shape) -> Shape:
        first, last = axis_of(self.start_dim, len(shape)), axis_of(self.end_dim, len(shape))
        if not 1 <= first <= last:
            raise ShapeError(f"{self} of a tensor of shape {shape}")
        return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0].reshape(self._shape(inputs[0].shape))

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return inputs[0].reshape(self._shape(inputs[0].shape))


class Identity(Layer, frozen=True):
    """Nothing."""

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        return inputs[0]

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return inputs[0]


class Rows(Identity, frozen=True):
    """Nothing, of (N, features) alone: what is left of a BatchNorm1d that was folded into the Linear before it, where
    nobody said that the Linear's outputs are its channels.
    """

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        self._check(inputs[0])
        return inputs[0]

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        self._check(inputs[0])
        return inputs[0]

    def _check(self, x: SecretTensor | Array) -> None:
        if x.ndim != 2:
            raise ShapeError(
                "a BatchNorm1d was folded into the Linear before it, which is right of (N, features), and not of shape"
                f" {x.shape}: give from_torch samples, or the architecture its input_shape"
            )


class Dropout(Identity, frozen=True):
    """Nothing: it acts in training alone."""

    p: float = 0.5
