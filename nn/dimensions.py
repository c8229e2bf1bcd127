"""Layers of (N, C, L) and of (N, C, D, H, W), by those of images: a sequence is an image of one row, and a volume's
planes are images.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn import axes
from nn.layer import MAX_SIZE, Array, Arrays, Layer, Secrets, WeightArray, check_size, check_weights
from nn.layers import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Pool2d
from nn.rectifiers import AdaptiveMaxPool2d, MaxPool2d
from nn.resizing import Tensor
from nn.transposed import ConvTranspose2d
from protocols.trace.secret_tensor import SecretTensor

Triple = int | tuple[int, int, int]


def triple(value: Triple) -> tuple[int, int, int]:
    """An integer means the same in all directions."""
    return value if isinstance(value, tuple) else (value, value, value)


class _OfRows(Layer, frozen=True):
    """What a layer of images makes of (N, C, L), as images of one row."""

    @property
    def plane(self) -> Layer:
        """That layer."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        _ = self.plane  # checks its arguments

    @property
    def parameters(self) -> dict[str, Shape]:
        found = self.plane.parameters
        return {name: (*s[:2], *s[3:]) if name == "weight" else s for name, s in found.items()}

    def _whole(self, weights: Arrays) -> Arrays:
        return {name: w[:, :, None] if name == "weight" else w for name, w in weights.items()}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        return self.plane.tensors(self._whole(weights))

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,) = self._checked(inputs[0])
        y = self.plane.forward(x.reshape(*x.shape[:2], 1, x.shape[2]), weights=weights)
        return y.reshape(*y.shape[:2], y.shape[3])

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,) = self._checked(inputs[0])
        return self.plane.plain(x[:, :, None], weights=self._whole(weights), exact=exact)[:, :, 0]

    def _checked(self, x: Tensor) -> tuple[Tensor]:
        if x.ndim != 3:
            raise ShapeError(f"{type(self).__name__} takes (N, C, L), not a tensor of shape {x.shape}")
        return (x,)


class Conv1d(_OfRows, frozen=True):
    """Cross-correlation of (N, C, L), as ``Conv2d``."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int | Literal["same", "valid"] = 0
    dilation: int = 1
    groups: int = 1
    bias: bool = True
    padding_mode: str = "zeros"

    @property
    def plane(self) -> Conv2d:
        padding = self.padding if isinstance(self.padding, str) else (0, self.padding)
        return Conv2d(
            self.in_channels, self.out_channels, (1, self.kernel_size), (1, self.stride), padding, (1, self.dilation),
            self.groups, self.bias, self.padding_mode,
        )  # fmt: skip


class ConvTranspose1d(_OfRows, frozen=True):
    """The transpose of a ``Conv1d`` of these arguments."""

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    output_padding: int = 0
    groups: int = 1
    bias: bool = True
    dilation: int = 1

    @property
    def plane(self) -> ConvTranspose2d:
        return ConvTranspose2d(
            self.in_channels, self.out_channels, (1, self.kernel_size), (1, self.stride), (0, self.padding),
            (0, self.output_padding), self.groups, self.bias, (1, self.dilation),
        )  # fmt: skip


class AvgPool1d(_OfRows, frozen=True):
    """Means over windows of (N, C, L)."""

    kernel_size: int
    stride: int | None = None
    padding: int = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    @property
    def plane(self) -> AvgPool2d:
        stride = self.kernel_size if self.stride is None else self.stride
        return AvgPool2d(
            (1, self.kernel_size), (1, stride), (0, self.padding), self.ceil_mode, self.count_include_pad
        )  # fmt: skip


class MaxPool1d(_OfRows, frozen=True):
    """Maxima over windows of (N, C, L)."""

    kernel_size: int
    stride: int | None = None
    padding: int = 0
    dilation: int = 1
    ceil_mode: bool = False

    @property
    def plane(self) -> MaxPool2d:
        stride = self.kernel_size if self.stride is None else self.stride
        return MaxPool2d((1, self.kernel_size), (1, stride), (0, self.padding), (1, self.dilation), self.ceil_mode)


class AdaptiveAvgPool1d(_OfRows, frozen=True):
    """Means over as many windows of (N, C, L) as there shall be."""

    output_size: int = 1

    @property
    def plane(self) -> AdaptiveAvgPool2d:
        return AdaptiveAvgPool2d((1, self.output_size))


class AdaptiveMaxPool1d(_OfRows, frozen=True):
    """Maxima over as many windows of (N, C, L) as there shall be."""

    output_size: int = 1

    @property
    def plane(self) -> AdaptiveMaxPool2d:
        return AdaptiveMaxPool2d((1, self.output_size))


class _OfVolumes(Layer, frozen=True):
    """Of (N, C, D, H, W): one layer of all planes, and one of what lies behind each other."""

    @property
    def planes(self) -> tuple[Layer, Layer]:
        """Of (N, C D, H, W), and of (N, C, D, H W) after it."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        _ = self.planes  # checks their arguments

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        n, c, d, h, w = volume(self, inputs[0])
        across, along = self.planes
        y = across.forward(inputs[0].reshape(n, c * d, h, w), weights=weights)
        h, w = y.shape[2:]
        y = along.forward(y.reshape(n, c, d, h * w), weights=weights)
        return y.reshape(n, c, y.shape[2], h, w)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        n, c, d, h, w = volume(self, inputs[0])
        across, along = self.planes
        y = across.plain(inputs[0].reshape(n, c * d, h, w), weights=weights)
        h, w = y.shape[2:]
        y = along.plain(y.reshape(n, c, d, h * w), weights=weights)
        return y.reshape(n, c, y.shape[2], h, w)


class AvgPool3d(_OfVolumes, frozen=True):
    """Means over windows of (N, C, D, H, W)."""

    kernel_size: Triple
    stride: Triple | None = None
    padding: Triple = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    @property
    def planes(self) -> tuple[Pool2d, Pool2d]:
        (k, *kernel), (s, *stride), (p, *padding) = _windows(self.kernel_size, self.stride, self.padding)
        rest = (self.ceil_mode, self.count_include_pad)
        return (
            AvgPool2d((kernel[0], kernel[1]), (stride[0], stride[1]), (padding[0], padding[1]), *rest),
            AvgPool2d((k, 1), (s, 1), (p, 0), *rest),
        )


class MaxPool3d(_OfVolumes, frozen=True):
    """Maxima over windows of (N, C, D, H, W)."""

    kernel_size: Triple
    stride: Triple | None = None
    padding: Triple = 0
    dilation: Triple = 1
    ceil_mode: bool = False

    @property
    def planes(self) -> tuple[Pool2d, Pool2d]:
        (k, *kernel), (s, *stride), (p, *padding) = _windows(self.kernel_size, self.stride, self.padding)
        d, *dilation = triple(self.dilation)
        windows = (kernel[0], kernel[1]), (stride[0], stride[1]), (padding[0], padding[1]), (dilation[0], dilation[1])
        return MaxPool2d(*windows, self.ceil_mode), MaxPool2d((k, 1), (s, 1), (p, 0), (d, 1), self.ceil_mode)


class AdaptiveAvgPool3d(_OfVolumes, frozen=True):
    """Means over as many windows of (N, C, D, H, W) as there shall be; None is a size as it is."""

    output_size: int | tuple[int | None, int | None, int | None] = 1

    @property
    def planes(self) -> tuple[Layer, Layer]:
        d, h, w = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * 3
        return AdaptiveAvgPool2d((h, w)), AdaptiveAvgPool2d((d, None))


class AdaptiveMaxPool3d(_OfVolumes, frozen=True):
    """Maxima over as many windows of (N, C, D, H, W) as there shall be; None is a size as it is."""

    output_size: int | tuple[int | None, int | None, int | None] = 1

    @property
    def planes(self) -> tuple[Layer, Layer]:
        d, h, w = self.output_size if isinstance(self.output_size, tuple) else (self.output_size,) * 3
        return AdaptiveMaxPool2d((h, w)), AdaptiveMaxPool2d((d, None))


class Conv3d(Layer, frozen=True):
    """Cross-correlation of (N, C, D, H, W): of each result's planes as channels of one image.

    The input is opened once for each plane of the kernel.  ``padding`` is zeros: an integer, three, or ``"valid"``.
    """

    in_channels: int
    out_channels: int
    kernel_size: Triple
    stride: Triple = 1
    padding: Triple | Literal["valid"] = 0
    dilation: Triple = 1
    groups: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("kernel_size", "stride", "dilation"):
            for n in triple(getattr(self, name)):
                check_size(name, n)
        for n in self._padding:
            check_size("padding", n, least=0)
        check_size("in_channels", self.in_channels)
        if self.in_channels * triple(self.kernel_size)[0] > MAX_SIZE:
            raise UnsupportedError(f"a kernel of {self.kernel_size} with {self.in_channels} channels")
        _ = self._plane
        check_weights(self._shape)

    @property
    def _padding(self) -> tuple[int, int, int]:
        return (0, 0, 0) if isinstance(self.padding, str) else triple(self.padding)

    @property
    def _shape(self) -> Shape:
        return (self.out_channels, self.in_channels // self.groups, *triple(self.kernel_size))

    @property
    def _plane(self) -> Conv2d:
        depth, height, width = triple(self.kernel_size)
        (_, s, t), (_, p, q), (_, d, e) = triple(self.stride), self._padding, triple(self.dilation)
        return Conv2d(
            self.in_channels * depth, self.out_channels, (height, width), (s, t), (p, q), (d, e), self.groups, self.bias
        )

    @property
    def parameters(self) -> dict[str, Shape]:
        bias: dict[str, Shape] = {"bias": (self.out_channels,)} if self.bias else {}
        return {"weight": self._shape, **bias}

    def _merged(self, weights: Arrays) -> Arrays:
        """The kernel's planes as channels."""
        weight = weights["weight"]
        return {**weights, "weight": weight.reshape(len(weight), -1, *weight.shape[3:])}

    def tensors(self, weights: Arrays) -> dict[str, WeightArray]:
        return self._plane.tensors(self._merged(weights))

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        n, _, depth, _, _ = volume(self, inputs[0], self.in_channels)
        around = self._padding[0]
        x = inputs[0].pad(((0, 0), (0, 0), (around, around), (0, 0), (0, 0)))
        places = self._places(depth)
        y = self._plane.forward(self._stacked(x.take(places, 2)), weights=weights)
        return y.reshape(n, len(places), *y.shape[1:]).transpose(0, 2, 1, 3, 4)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        n, _, depth, _, _ = volume(self, inputs[0], self.in_channels)
        around = self._padding[0]
        x = np.pad(inputs[0], ((0, 0), (0, 0), (around, around), (0, 0), (0, 0)))
        places = self._places(depth)
        y = self._plane.plain(self._stacked(x.take(places, 2)), weights=self._merged(weights))
        return y.reshape(n, len(places), *y.shape[1:]).transpose(0, 2, 1, 3, 4)

    def _places(self, depth: int) -> axes.Positions:
        """Which planes each result is made of, counted from the first zeros on."""
        (k, *_), (s, *_), (d, *_) = triple(self.kernel_size), triple(self.stride), triple(self.dilation)
        return axes.windows(depth + 2 * self._padding[0], k, s, 0, d)

    def _stacked(self, x: Tensor) -> Tensor:
        """(N, C, D', k, H, W) as images, (N D', C k, H, W)."""
        n, c, count, k, h, w = x.shape
        return x.transpose(0, 2, 1, 3, 4, 5).reshape(n * count, c * k, h, w)


def _windows(kernel: Triple, stride: Triple | None, padding: Triple) -> tuple[tuple[int, int, int], ...]:
    return triple(kernel), triple(kernel if stride is None else stride), triple(padding)


def volume(layer: Layer, x: SecretTensor | Array, channels: int | None = None) -> tuple[int, int, int, int, int]:
    """Sizes; raises ShapeError unless ``x`` is (N, C, D, H, W), with this many channels and at least one element."""
    if x.ndim != 5 or (channels is not None and x.shape[1] != channels) or not math.prod(x.shape):
        wanted = "C" if channels is None else str(channels)
        raise ShapeError(f"{type(layer).__name__} takes (N, {wanted}, D, H, W), not a tensor of shape {x.shape}")
    n, c, d, h, w = x.shape
    return n, c, d, h, w
