"""Layers with weights or windows, named and argued as in ``torch.nn``; activations are in ``nn.activations``.

Linear layers and pools are local: no round of their own.  Their operands are masked once each, so a layer
costs the opening of its input, and nothing at all where the input is a client's or has been opened already.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn import axes, windows
from nn.layer import (
    Array,
    Arrays,
    Layer,
    Pair,
    Secrets,
    WeightArray,
    axis_of,
    check_finite,
    check_groups,
    check_images,
    check_pair,
    check_size,
    check_weights,
    pair,
)
from protocols.trace.secret_tensor import SecretTensor

_Tensor = TypeVar("_Tensor", SecretTensor, Array)


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
    """Cross-correlation of (N, C, H, W).  ``padding`` is an integer, two, ``"valid"``, or ``"same"`` at stride 1, of
    zeros or by ``padding_mode``.

    With a ``dilation`` of d, the d x d parts of an image between whose pixels a kernel steps are images of their own:
    no zero is multiplied.  A stride besides costs as much as none.
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
        check_pair("dilation", self.dilation)
        if self.padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise UnsupportedError(f"there is no padding_mode {self.padding_mode!r}")
        check_groups(self.in_channels, self.out_channels, self.groups)
        check_weights(self._shape)

    @property
    def _shape(self) -> Shape:
        return (self.out_channels, self.in_channels // self.groups, *pair(self.kernel_size))

    @property
    def _sides(self) -> windows.Sides:
        """Zeros (above, below), (left, right): an even window's odd zero comes last, as in torch."""
        if self.padding == "same":
            spans = (d * (k - 1) for k, d in zip(pair(self.kernel_size), pair(self.dilation), strict=True))
            (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in spans)
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
        check_images(inputs[0], self, self.in_channels)
        x, ((top, bottom), (left, right)) = self._around(inputs[0])
        if pair(self.dilation) != (1, 1):
            x = x.pad(((0, 0), (0, 0), (top, bottom), (left, right)))
            y = windows.dilated(
                x, pair(self.kernel_size), pair(self.dilation), lambda parts: self._convolved(parts, weights, 1, 0)
            )
            y = y[:, :, :: pair(self.stride)[0], :: pair(self.stride)[1]]
        elif top == bottom and left == right:
            y = self._convolved(x, weights, self.stride, (top, left))
        else:
            y = self._convolved(x.pad(((0, 0), (0, 0), (top, bottom), (left, right))), weights, self.stride, 0)
        return y + weights["bias"].reshape(1, -1, 1, 1) if self.bias else y

    def _convolved(self, x: SecretTensor, weights: Secrets, stride: Pair, padding: Pair) -> SecretTensor:
        return x.conv2d(weights["weight"], stride=stride, padding=padding, groups=self.groups)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self, self.in_channels)
        x, sides = self._around(inputs[0])
        y = windows.conv2d(x, weights["weight"], pair(self.stride), sides, self.groups, pair(self.dilation))
        return y + weights["bias"].reshape(1, -1, 1, 1) if self.bias else y

    def _around(self, x: _Tensor) -> tuple[_Tensor, windows.Sides]:
        """With what is no zero around it, and the zeros that are still to come."""
        if self.padding_mode == "zeros":
            return x, self._sides
        for axis, (before, after) in zip((2, 3), self._sides, strict=True):
            if before or after:
                x = x.take(axes.padded(x.shape[axis], before, after, self.padding_mode), axis)
        return x, ((0, 0), (0, 0))


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
    divisor_override: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.divisor_override is not None:
            check_size("divisor_override", self.divisor_override)

    def _reach(self, shape: Shape) -> tuple[list[tuple[int, int]], Array | None]:
        """Zeros that windows reach for below and to the right, and what means over whole windows are multiplied by."""
        widths, counts = [(0, 0), (0, 0)], []
        for size, kernel, stride, padding in zip(shape[2:], *self._window, strict=True):
            places = axes.windows(size, kernel, stride, padding, ceil=self.ceil_mode)
            around = padding if self.count_include_pad else 0
            counts.append(((places >= -around) & (places < size + around)).sum(axis=1))
            widths.append((0, max(0, int(places[-1, -1]) + 1 - padding - size)))
        divisors = np.outer(*counts) if self.divisor_override is None else np.full((1, 1), self.divisor_override)
        area = math.prod(self._window[0])
        return widths, None if (divisors == area).all() else area / divisors

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        widths, factors = self._reach(inputs[0].shape)
        x = inputs[0].pad(widths) if any(map(any, widths)) else inputs[0]
        pooled = x.avg_pool2d(*self._window)
        return pooled if factors is None else pooled * factors

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        widths, factors = self._reach(inputs[0].shape)
        pooled = windows.mean_pool2d(np.pad(inputs[0], widths), *self._window)
        return pooled if factors is None else pooled * factors


class AdaptivePool2d(Layer, frozen=True):
    """What pools to a given size have in common: (N, C, H, W) to (N, C, *output_size); None is a size as it is."""

    output_size: int | tuple[int | None, int | None] = 1

    def __post_init__(self) -> None:
        size = self.output_size
        for n in size if isinstance(size, tuple) else (size,):
            if n is not None:
                check_size("output_size", n)

    def _sizes(self, shape: Shape) -> tuple[int, int]:
        wanted = self.output_size if isinstance(self.output_size, tuple) else (self.output_size, self.output_size)
        height, width = (had if n is None else n for n, had in zip(wanted, shape[2:], strict=True))
        return height, width

    def _kernel(self, shape: Shape) -> tuple[int, int] | None:
        """Of the windows, where all are of one size and none overlap."""
        sizes = self._sizes(shape)
        if any(not n or n % out for n, out in zip(shape[2:], sizes, strict=True)):
            return None
        return shape[2] // sizes[0], shape[3] // sizes[1]


class AdaptiveAvgPool2d(AdaptivePool2d, frozen=True):
    """Means over as many windows as there shall be: local."""

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        x, kernel = inputs[0], self._kernel(inputs[0].shape)
        if kernel == x.shape[2:]:
            return x.mean((2, 3), keepdims=True)
        y: SecretTensor = x.avg_pool2d(kernel) if kernel is not None else self._by_parts(x)
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        return np.asarray(self._by_parts(inputs[0]))

    def _by_parts(self, x: Any) -> Any:
        for axis, count in zip((2, 3), self._sizes(x.shape), strict=True):
            places, counts = axes.parted(x.shape[axis], count)
            x = axes.weighted(x, axis, axes.Taps(axes.inside(places, counts), counts / counts.sum(1, keepdims=True)))
        return x


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
