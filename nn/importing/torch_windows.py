"""torch's convolutions, pools, pads and resizing, and what chooses among values.  Needs torch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mpc.errors import UnsupportedError
from nn import choosing as c
from nn import dimensions as d
from nn import layers as ly
from nn import rectifiers as r
from nn import resizing as rs
from nn import sampling as sm
from nn import transposed as t
from nn import transposed_volumes as tv
from nn.importing.blockers import refused
from nn.layer import Layer

Make = Callable[..., Layer]


def ints(value: Any) -> Any:
    """An argument that is a whole number or several, as layers take it.  Raises UnsupportedError for anything else."""
    try:
        return tuple(operator.index(n) for n in value) if isinstance(value, tuple | list) else operator.index(value)
    except TypeError:
        raise UnsupportedError(f"its argument {value!r} is not whole numbers") from None


def _sizes(value: Any) -> Any:
    """The same, where None may be among them; one alone, where that is all there is, and None for none."""
    if value is None:
        return None
    if isinstance(value, tuple | list):
        found = tuple(None if n is None else ints(n) for n in value)
        return found or None
    return ints(value)


def _single(value: Any) -> Any:
    """Of a sequence: what a tuple of one has in it."""
    found = _sizes(value)
    return found[0] if isinstance(found, tuple) and len(found) == 1 else found


# -- pools -------------------------------------------------------------------------------------------------------------


def max_pool(kind: Callable[..., Layer], read: Callable[[Any], Any] = _sizes) -> Make:
    """A maker of one of torch's arguments."""

    def make(
        kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: Any = False,
        return_indices: Any = False, **_: Any,
    ) -> Layer:  # fmt: skip
        _check_indices(return_indices)
        return kind(read(kernel_size), read(stride), read(padding), read(dilation), bool(ceil_mode))

    return make


def avg_pool(kind: Callable[..., Layer], read: Callable[[Any], Any] = _sizes) -> Make:
    """The same of means; all but those of images have no divisor of their own here."""

    def make(
        kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: Any = False, count_include_pad: Any = True,
        divisor_override: Any = None, **_: Any,
    ) -> Layer:  # fmt: skip
        made = kind(read(kernel_size), read(stride), read(padding), bool(ceil_mode), bool(count_include_pad))
        if divisor_override is None:
            return made
        if not isinstance(made, ly.AvgPool2d):
            raise refused("its divisor_override is not supported", "leave it out, and multiply by a number")
        return ly.AvgPool2d(
            made.kernel_size, made.stride, made.padding, made.ceil_mode, made.count_include_pad, ints(divisor_override)
        )

    return make


def adaptive_pool(kind: Callable[..., Layer], read: Callable[[Any], Any] = _sizes) -> Make:
    """The same of pools to a given size."""

    def make(output_size: Any = 1, return_indices: Any = False, **_: Any) -> Layer:
        _check_indices(return_indices)
        return kind(read(output_size))

    return make


def _check_indices(wanted: Any) -> None:
    if wanted:
        raise refused("return_indices: where a maximum is stays secret", "leave return_indices out")


# -- convolutions ------------------------------------------------------------------------------------------------------


def _conv(kind: Callable[..., Layer], read: Callable[[Any], Any] = ints) -> Make:
    def make(m: Any, **_: Any) -> Layer:
        padding: Any = m.padding if isinstance(m.padding, str) else read(m.padding)
        return kind(
            m.in_channels, m.out_channels, read(m.kernel_size), read(m.stride), padding, read(m.dilation), m.groups,
            m.bias is not None, m.padding_mode,
        )  # fmt: skip

    return make


def conv3d(
    in_channels: int, out_channels: int, kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, bias: bool,
    padding_mode: str = "zeros",
) -> Layer:  # fmt: skip
    """Of volumes.  Raises UnsupportedError for pads that are no zeros, or that differ on two sides."""
    if padding_mode != "zeros":
        raise refused(f"its padding_mode is {padding_mode!r}", "pad by torch.nn.functional.pad before it")
    if padding == "same":
        spans = [e * (k - 1) for k, e in zip(d.triple(kernel), d.triple(dilation), strict=True)]
        if any(n % 2 for n in spans):
            raise refused("its padding 'same' differs on two sides", "pad by torch.nn.functional.pad before it")
        padding = tuple(n // 2 for n in spans)
    return d.Conv3d(in_channels, out_channels, kernel, stride, padding, dilation, groups, bias)


def _conv_transpose(kind: Callable[..., Layer], read: Callable[[Any], Any] = ints) -> Make:
    def make(m: Any, **_: Any) -> Layer:
        return kind(
            m.in_channels, m.out_channels, read(m.kernel_size), read(m.stride), read(m.padding), read(m.output_padding),
            m.groups, m.bias is not None, read(m.dilation),
        )  # fmt: skip

    return make


# -- resizing ----------------------------------------------------------------------------------------------------------


def resized(
    size: Any = None, scale_factor: Any = None, mode: Any = "nearest", align_corners: Any = None,
    recompute_scale_factor: Any = None, antialias: Any = False, **_: Any,
) -> Layer:  # fmt: skip
    """``torch.nn.functional.interpolate``."""
    if antialias:
        raise refused("antialias is not supported", "leave it out, or pool before")
    if mode == "area":
        if not isinstance(size, tuple | list) or len(size) != 2:
            raise refused("mode 'area' has no size of two dimensions", "use AdaptiveAvgPool2d")
        return ly.AdaptiveAvgPool2d(_sizes(size))
    factor = tuple(map(float, scale_factor)) if isinstance(scale_factor, tuple | list) else scale_factor
    corners = None if align_corners is None else bool(align_corners)
    return rs.Upsample(_sizes(size), factor, mode, corners, recompute_scale_factor)


def padded(pad: Any, mode: Any = "constant", value: Any = None, **_: Any) -> Layer:
    """``torch.nn.functional.pad``."""
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise UnsupportedError(f"mode {mode!r}")
    widths = ints(pad)
    if not isinstance(widths, tuple):
        raise UnsupportedError(f"its widths {widths} are not two for each dimension")
    return rs.Pad(widths, mode, 0.0 if value is None else float(value))


def _padding(mode: str) -> Make:
    return lambda m, **_: padded(m.padding, mode, getattr(m, "value", None))


# -- choosing ----------------------------------------------------------------------------------------------------------


def clamp(min: Any = None, max: Any = None, **_: Any) -> Layer:
    """``torch.clamp`` by public numbers."""
    if any(isinstance(end, bool) or not isinstance(end, int | float | None) for end in (min, max)):
        raise refused("its bounds are no numbers", "give public numbers, or compare with torch.maximum")
    ends = [None if end is None or abs(end) == float("inf") else float(end) for end in (min, max)]
    if None not in ends:
        return r.Hardtanh(*map(float, ends))  # type: ignore[arg-type]
    if (min is None or min == float("-inf")) and (max is None or max == float("inf")):
        return ly.Identity()
    return r.ReLU() if ends == [0.0, None] else c.Clamp(*ends)


def extreme(kind: Callable[..., Layer]) -> Make:
    """``torch.amax`` and ``amin``."""

    def make(dim: Any = (), keepdim: Any = False, **_: Any) -> Layer:
        dims = ints(dim if isinstance(dim, tuple | list) else (dim,))
        if not dims:
            raise refused("it is over everything, the batch too", "name other dimensions than the batch's")
        return kind(dims, bool(keepdim))

    return make


def running_sum(dim: Any, **_: Any) -> Layer:
    """``torch.cumsum``."""
    return c.CumSum(ints(dim))


def unfolded(kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1, **_: Any) -> Layer:
    return sm.Unfold(*map(ints, (kernel_size, dilation, padding, stride)))


def folded(output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1, **_: Any) -> Layer:
    size = ints(output_size)
    around = map(ints, (kernel_size, dilation, padding, stride))
    return sm.Fold(*around, output_size=size if isinstance(size, tuple) else (size, size))


MODULES: dict[type[nn.Module], Make] = {
    nn.Conv1d: _conv(d.Conv1d, _single),
    nn.Conv2d: _conv(ly.Conv2d),
    nn.Conv3d: _conv(conv3d),
    nn.ConvTranspose1d: _conv_transpose(d.ConvTranspose1d, _single),
    nn.ConvTranspose2d: _conv_transpose(t.ConvTranspose2d),
    nn.ConvTranspose3d: _conv_transpose(tv.ConvTranspose3d),
    **{
        kind: lambda m, pool=pool, **_: pool(
            m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
        )
        for kind, pool in (
            (nn.MaxPool1d, max_pool(d.MaxPool1d, _single)),
            (nn.MaxPool2d, max_pool(r.MaxPool2d)),
            (nn.MaxPool3d, max_pool(d.MaxPool3d)),
        )
    },
    **{
        kind: lambda m, pool=pool, **_: pool(
            m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, getattr(m, "divisor_override", None)
        )
        for kind, pool in (
            (nn.AvgPool1d, avg_pool(d.AvgPool1d, _single)),
            (nn.AvgPool2d, avg_pool(ly.AvgPool2d)),
            (nn.AvgPool3d, avg_pool(d.AvgPool3d)),
        )
    },
    **{
        kind: lambda m, pool=pool, **_: pool(m.output_size, getattr(m, "return_indices", False))
        for kind, pool in (
            (nn.AdaptiveAvgPool1d, adaptive_pool(d.AdaptiveAvgPool1d, _single)),
            (nn.AdaptiveAvgPool2d, adaptive_pool(ly.AdaptiveAvgPool2d)),
            (nn.AdaptiveAvgPool3d, adaptive_pool(d.AdaptiveAvgPool3d)),
            (nn.AdaptiveMaxPool1d, adaptive_pool(d.AdaptiveMaxPool1d, _single)),
            (nn.AdaptiveMaxPool2d, adaptive_pool(r.AdaptiveMaxPool2d)),
            (nn.AdaptiveMaxPool3d, adaptive_pool(d.AdaptiveMaxPool3d)),
        )
    },
    **dict.fromkeys(
        (nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d),
        lambda m, **_: resized(m.size, m.scale_factor, m.mode, m.align_corners, m.recompute_scale_factor),
    ),
    **{
        getattr(nn, f"{name}{n}d"): _padding(mode)
        for name, mode in (
            ("ZeroPad", "constant"), ("ConstantPad", "constant"), ("ReflectionPad", "reflect"),
            ("ReplicationPad", "replicate"), ("CircularPad", "circular"),
        )
        for n in (1, 2, 3)
    },
    nn.PixelShuffle: lambda m, **_: rs.PixelShuffle(m.upscale_factor),
    nn.PixelUnshuffle: lambda m, **_: rs.PixelUnshuffle(m.downscale_factor),
    nn.ChannelShuffle: lambda m, **_: rs.ChannelShuffle(m.groups),
    nn.Unfold: lambda m, **_: unfolded(m.kernel_size, m.dilation, m.padding, m.stride),
    nn.Fold: lambda m, **_: folded(m.output_size, m.kernel_size, m.dilation, m.padding, m.stride),
    nn.Threshold: lambda m, **_: c.Threshold(float(m.threshold), float(m.value)),
    nn.Hardshrink: lambda m, **_: c.Hardshrink(float(m.lambd)),
}  # fmt: skip

FUNCTIONS: dict[Any, Make] = {
    **dict.fromkeys((functional.max_pool1d, torch.max_pool1d), max_pool(d.MaxPool1d, _single)),
    **dict.fromkeys((functional.max_pool2d, torch.max_pool2d), max_pool(r.MaxPool2d)),
    **dict.fromkeys((functional.max_pool3d, torch.max_pool3d), max_pool(d.MaxPool3d)),
    functional.avg_pool1d: avg_pool(d.AvgPool1d, _single),
    functional.avg_pool2d: avg_pool(ly.AvgPool2d),
    functional.avg_pool3d: avg_pool(d.AvgPool3d),
    functional.adaptive_avg_pool1d: adaptive_pool(d.AdaptiveAvgPool1d, _single),
    functional.adaptive_avg_pool2d: adaptive_pool(ly.AdaptiveAvgPool2d),
    functional.adaptive_avg_pool3d: adaptive_pool(d.AdaptiveAvgPool3d),
    functional.adaptive_max_pool1d: adaptive_pool(d.AdaptiveMaxPool1d, _single),
    functional.adaptive_max_pool2d: adaptive_pool(r.AdaptiveMaxPool2d),
    functional.adaptive_max_pool3d: adaptive_pool(d.AdaptiveMaxPool3d),
    functional.unfold: unfolded,
    functional.fold: folded,
    **dict.fromkeys((functional.interpolate, functional.upsample), resized),
    **dict.fromkeys((functional.pad, torch._C._nn.pad), padded),
    functional.pixel_shuffle: lambda upscale_factor, **_: rs.PixelShuffle(ints(upscale_factor)),
    functional.pixel_unshuffle: lambda downscale_factor, **_: rs.PixelUnshuffle(ints(downscale_factor)),
    **dict.fromkeys(
        (functional.channel_shuffle, torch.channel_shuffle), lambda groups, **_: rs.ChannelShuffle(ints(groups))
    ),
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip", "clamp_", "clip_"), clamp),
    **dict.fromkeys((torch.clamp_min, "clamp_min", "clamp_min_"), lambda min, **_: clamp(min)),
    **dict.fromkeys((torch.clamp_max, "clamp_max", "clamp_max_"), lambda max, **_: clamp(None, max)),
    **dict.fromkeys((torch.amax, "amax"), extreme(c.Amax)),
    **dict.fromkeys((torch.amin, "amin"), extreme(c.Amin)),
    **dict.fromkeys((torch.cumsum, "cumsum"), running_sum),
    **dict.fromkeys(
        (functional.threshold, torch.threshold),
        lambda threshold, value, **_: c.Threshold(float(threshold), float(value)),
    ),
    functional.hardshrink: lambda lambd=0.5, **_: c.Hardshrink(float(lambd)),
}
"""As ``torch_layers.UNARY``."""
