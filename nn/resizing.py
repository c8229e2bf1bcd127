"""Images of other sizes: interpolation, pads, and pixels that become channels.  All local, by public positions."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import MAX_DIMENSIONS, Shape
from nn import axes
from nn.layer import MAX_SIZE, Array, Arrays, Layer, Secrets, check_finite, check_images, check_size
from protocols.trace.secret_tensor import SecretTensor

Tensor = TypeVar("Tensor", SecretTensor, Array)

Mode = Literal["nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic"]

_DIMENSIONS: dict[str, int] = {"linear": 3, "bilinear": 4, "trilinear": 5, "bicubic": 4}


class Upsample(Layer, frozen=True):
    """(N, C, ...) at another resolution, ``size`` or ``scale_factor`` times as large; smaller, if that is less.

    As torch, which takes the factor that was said in the place of the true one unless ``recompute_scale_factor``.
    """

    size: int | tuple[int, ...] | None = None
    scale_factor: float | tuple[float, ...] | None = None
    mode: Mode = "nearest"
    align_corners: bool | None = None
    recompute_scale_factor: bool | None = None

    def __post_init__(self) -> None:
        if (self.size is None) is (self.scale_factor is None):
            raise UnsupportedError("Upsample takes either size or scale_factor")
        for n in self.size if isinstance(self.size, tuple) else (self.size,):
            if n is not None:
                check_size("size", n)
        factors = self.scale_factor if isinstance(self.scale_factor, tuple) else (self.scale_factor,)
        for factor in factors:
            if factor is not None and not (
                isinstance(factor, int | float) and math.isfinite(factor) and 1 / MAX_SIZE <= factor <= MAX_SIZE
            ):
                raise UnsupportedError(f"a scale_factor of {factor!r}")
        if self.align_corners and self.mode.startswith("nearest"):
            raise UnsupportedError("align_corners is for modes that interpolate")

    def _taps(self, shape: Shape) -> list[axes.Taps]:
        """Of each axis but the first two.  Raises ShapeError."""
        count = len(shape) - 2
        known = _DIMENSIONS.get(self.mode)
        if count < 1 or 0 in shape or len(shape) != (known or len(shape)):
            raise ShapeError(f"Upsample in mode {self.mode!r} of a tensor of shape {shape}")
        sizes = self.size if isinstance(self.size, tuple) else (self.size,) * count
        factors = self.scale_factor if isinstance(self.scale_factor, tuple) else (self.scale_factor,) * count
        if len(sizes) != count or len(factors) != count:
            raise ShapeError(f"{self} of a tensor of shape {shape}")
        wanted = []
        for had, size, factor in zip(shape[2:], sizes, factors, strict=True):
            if factor is not None:
                wanted.append((had, axes.resized(had, factor), None if self.recompute_scale_factor else float(factor)))
            elif size is not None:
                wanted.append((had, size, None))
        axes.check_room((*shape[:2], *(count for _, count, _ in wanted)))
        return [self._of(*each) for each in wanted]

    def _of(self, size: int, count: int, factor: float | None) -> axes.Taps:
        if self.mode.startswith("nearest"):
            return axes.nearest(size, count, factor, self.mode == "nearest-exact")
        interpolated = axes.cubic if self.mode == "bicubic" else axes.linear
        return interpolated(size, count, factor, bool(self.align_corners))

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        y: SecretTensor = self._resized(inputs[0])
        return y

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        return np.asarray(self._resized(inputs[0]))

    def _resized(self, x: Any) -> Any:
        for axis, taps in enumerate(self._taps(x.shape), 2):
            x = axes.weighted(x, axis, taps)
        return x


class Pad(Layer, frozen=True):
    """``torch.nn.functional.pad``: (before, after) of the last axis, then of the one before it, and so on; below 0,
    widths crop.  The batch has none.  ``value`` is of mode ``constant``.
    """

    padding: tuple[int, ...]
    mode: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    value: float = 0.0

    def __post_init__(self) -> None:
        if not self.padding or len(self.padding) % 2 or len(self.padding) > 2 * MAX_DIMENSIONS:
            raise UnsupportedError(f"a pad has two widths for each dimension, not {self.padding}")
        for n in self.padding:
            check_size("a pad's width", abs(n), least=0)
        check_finite("a pad's value", self.value)

    def _widths(self, shape: Shape) -> list[tuple[int, int]]:
        """Of each axis.  Raises ShapeError."""
        pairs = list(zip(self.padding[::2], self.padding[1::2], strict=True))
        if len(pairs) > len(shape):
            raise ShapeError(f"a pad of {len(pairs)} dimensions, of a tensor of shape {shape}")
        widths = [(0, 0)] * (len(shape) - len(pairs)) + pairs[::-1]
        if any(widths[0]):
            raise ShapeError("a pad of the batch would add images to it")
        if any(n + before + after < 1 for n, (before, after) in zip(shape, widths, strict=True)):
            raise ShapeError(f"a pad of {self.padding} leaves nothing of shape {shape}")
        axes.check_room(tuple(n + before + after for n, (before, after) in zip(shape, widths, strict=True)))
        return widths

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        x, widths = inputs[0], self._widths(inputs[0].shape)
        if self.mode != "constant":
            return self._repeated(x, widths)
        x = _cropped(x, widths)
        around = [(max(0, before), max(0, after)) for before, after in widths]
        return (x - self.value).pad(around) + self.value if self.value else x.pad(around)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        x, widths = inputs[0], self._widths(inputs[0].shape)
        if self.mode != "constant":
            return self._repeated(x, widths)
        around = [(max(0, before), max(0, after)) for before, after in widths]
        return np.pad(_cropped(x, widths), around, constant_values=self.value)

    def _repeated(self, x: Tensor, widths: list[tuple[int, int]]) -> Tensor:
        for axis, (before, after) in enumerate(widths):
            if before or after:
                x = x.take(axes.padded(x.shape[axis], before, after, self.mode), axis)
        return x


def _cropped(x: Tensor, widths: list[tuple[int, int]]) -> Tensor:
    """Without what negative widths take away."""
    if min(map(min, widths)) >= 0:
        return x
    cut: Tensor = x[tuple(slice(max(0, -before), n + min(0, after)) for n, (before, after) in zip(x.shape, widths))]  # noqa: B905
    return cut


class _Moved(Layer, frozen=True):
    """Pixels and channels in other places."""

    def _of(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        check_images(inputs[0], self)
        return self._of(inputs[0])

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        check_images(inputs[0], self)
        return self._of(inputs[0])


class PixelShuffle(_Moved, frozen=True):
    """(N, C r^2, H, W) to (N, C, H r, W r)."""

    upscale_factor: int

    def __post_init__(self) -> None:
        check_size("upscale_factor", self.upscale_factor)

    def _of(self, x: Tensor) -> Tensor:
        (n, c, h, w), r = x.shape, self.upscale_factor
        if c % r**2:
            raise ShapeError(f"PixelShuffle({r}) takes a multiple of {r**2} channels, not {c}")
        parts = x.reshape(n, c // r**2, r, r, h, w).transpose(0, 1, 4, 2, 5, 3)
        return parts.reshape(n, c // r**2, h * r, w * r)


class PixelUnshuffle(_Moved, frozen=True):
    """(N, C, H r, W r) to (N, C r^2, H, W)."""

    downscale_factor: int

    def __post_init__(self) -> None:
        check_size("downscale_factor", self.downscale_factor)

    def _of(self, x: Tensor) -> Tensor:
        (n, c, h, w), r = x.shape, self.downscale_factor
        if h % r or w % r:
            raise ShapeError(f"PixelUnshuffle({r}) takes multiples of {r} pixels, not {h}x{w}")
        parts = x.reshape(n, c, h // r, r, w // r, r).transpose(0, 1, 3, 5, 2, 4)
        return parts.reshape(n, c * r**2, h // r, w // r)


class ChannelShuffle(_Moved, frozen=True):
    """Channels of ``groups`` groups in turn, one of each."""

    groups: int

    def __post_init__(self) -> None:
        check_size("groups", self.groups)

    def _of(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if c % self.groups:
            raise ShapeError(f"{c} channels do not divide into {self.groups} groups")
        return x.reshape(n, self.groups, c // self.groups, h, w).transpose(0, 2, 1, 3, 4).reshape(n, c, h, w)
