"""Convolutions, pools, pads and resizing.  Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpc.errors import UnsupportedError
from nn import dimensions as d
from nn import layers as ly
from nn import rectifiers as r
from nn import resizing as rs
from nn import transposed as t
from nn import transposed_volumes as tv
from nn.importing import torch_windows as w
from nn.importing.aten.table import OPERATORS, operator
from nn.importing.building import Tensor, pads_of
from nn.importing.export_graph import Graph, Operator
from nn.layer import Layer


def _numbers(value: Any, count: int) -> Any:
    """One number for each dimension; of a sequence, the one."""
    parts = [value] * count if isinstance(value, int) else list(value) * (count if len(value) == 1 else 1)
    if len(parts) != count:
        raise UnsupportedError(f"its argument {value!r} is not of {count} dimensions")
    return parts[0] if count == 1 else tuple(parts)


_CONVOLUTIONS: dict[int, Callable[..., Layer]] = {1: d.Conv1d, 2: ly.Conv2d, 3: w.conv3d}
_TRANSPOSED: dict[int, Callable[..., Layer]] = {1: d.ConvTranspose1d, 2: t.ConvTranspose2d, 3: tv.ConvTranspose3d}


@operator("conv1d", "conv2d", "conv3d")
def _conv(
    graph: Graph, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    tensor, held = graph.plain(x), graph.known(weight)
    out, each, *kernel = held.values.shape
    count = len(kernel)
    shift = None if bias is None else graph.known(bias)
    layer = _CONVOLUTIONS[count](
        each * groups, out, _numbers(kernel, count), _numbers(stride, count),
        padding if isinstance(padding, str) else _numbers(padding, count), _numbers(dilation, count), groups,
        shift is not None,
    )  # fmt: skip
    return graph.add(layer, tensor, weight=held, bias=shift)


@operator("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(
    graph: Graph, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    tensor, held = graph.plain(x), graph.known(weight)
    channels, each, *kernel = held.values.shape
    count = len(kernel)
    shift = None if bias is None else graph.known(bias)
    options = (_numbers(value, count) for value in (kernel, stride, padding, output_padding))
    layer = _TRANSPOSED[count](
        channels, each * groups, *options, groups, shift is not None, _numbers(dilation, count)
    )  # fmt: skip
    return graph.add(layer, tensor, weight=held, bias=shift)


@operator("convolution")
def _convolution(
    graph: Graph, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Tensor:  # fmt: skip
    if transposed:
        return _conv_transpose(graph, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return _conv(graph, x, weight, bias, stride, padding, dilation, groups)


# -- pools -------------------------------------------------------------------------------------------------------------


def _of_images(make: w.Make) -> Operator:
    def made(graph: Graph, x: Any, *args: Any, **kwargs: Any) -> Tensor:
        return graph.add(make(*args, **kwargs), graph.plain(x))

    return made


def _with_indices(make: w.Make) -> Operator:
    """Of two results, the second of which nobody may use."""

    def made(graph: Graph, x: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
        tensor = graph.plain(x)
        return [graph.add(make(*args, **kwargs), tensor, layout=tensor.layout.resized(graph.shapes[0]))]

    return made


def _single(value: Any) -> Any:
    if value is None or value == []:
        return None
    return value[0] if isinstance(value, list) and len(value) == 1 else w.ints(value)


_MAX = {1: w.max_pool(d.MaxPool1d, _single), 2: w.max_pool(r.MaxPool2d), 3: w.max_pool(d.MaxPool3d)}
_AVERAGE = {1: w.avg_pool(d.AvgPool1d, _single), 2: w.avg_pool(ly.AvgPool2d), 3: w.avg_pool(d.AvgPool3d)}
_WHOLE = {
    1: w.adaptive_pool(d.AdaptiveAvgPool1d, _single),
    2: w.adaptive_pool(ly.AdaptiveAvgPool2d),
    3: w.adaptive_pool(d.AdaptiveAvgPool3d),
}
_LARGEST = {
    1: w.adaptive_pool(d.AdaptiveMaxPool1d, _single),
    2: w.adaptive_pool(r.AdaptiveMaxPool2d),
    3: w.adaptive_pool(d.AdaptiveMaxPool3d),
}

for _n in (1, 2, 3):
    OPERATORS[f"aten.max_pool{_n}d"] = _of_images(_MAX[_n])
    OPERATORS[f"aten.max_pool{_n}d_with_indices"] = _with_indices(_MAX[_n])
    OPERATORS[f"aten.adaptive_max_pool{_n}d"] = _with_indices(_LARGEST[_n])
    OPERATORS[f"aten.avg_pool{_n}d"] = _of_images(_AVERAGE[_n])
    for _name in ("adaptive_avg_pool", "_adaptive_avg_pool"):
        OPERATORS[f"aten.{_name}{_n}d"] = _of_images(_WHOLE[_n])


# -- resizing ----------------------------------------------------------------------------------------------------------


def _upsampled(mode: str, has_corners: bool) -> Operator:
    def made(graph: Graph, x: Any, size: Any, *rest: Any) -> Tensor:
        corners, *factors = rest if has_corners else (None, *rest)
        said = factors[0] if factors and isinstance(factors[0], list) else factors
        if said and all(factor is not None for factor in said):
            return graph.add(w.resized(None, said, mode, corners), graph.plain(x))
        return graph.add(w.resized(size, None, mode, corners), graph.plain(x))

    return made


for _name, _mode in (
    ("upsample_nearest1d", "nearest"), ("upsample_nearest2d", "nearest"), ("upsample_nearest3d", "nearest"),
    ("_upsample_nearest_exact1d", "nearest-exact"), ("_upsample_nearest_exact2d", "nearest-exact"),
    ("_upsample_nearest_exact3d", "nearest-exact"), ("upsample_linear1d", "linear"),
    ("upsample_bilinear2d", "bilinear"), ("upsample_trilinear3d", "trilinear"), ("upsample_bicubic2d", "bicubic"),
):  # fmt: skip
    OPERATORS[f"aten.{_name}"] = _upsampled(_mode, not _mode.startswith("nearest"))


@operator("pad")
def _pad(graph: Graph, x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    tensor = graph.tensor(x)
    layout, count = tensor.layout, len(tensor.layout.shape)
    widths = {}
    for i, around in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        if any(around):
            widths[layout.place(count - 1 - i)] = around
    if not widths:
        return tensor
    return graph.add(w.padded(pads_of(layout, widths), mode, value), tensor)


@operator("constant_pad_nd")
def _pad_with(graph: Graph, x: Any, pad: Sequence[int], value: float = 0.0) -> Tensor:
    return _pad(graph, x, pad, "constant", value)


def _padding(mode: str) -> Operator:
    return lambda graph, x, pad: _pad(graph, x, pad, mode)


for _n in (1, 2, 3):
    OPERATORS[f"aten.reflection_pad{_n}d"] = _padding("reflect")
    OPERATORS[f"aten.replication_pad{_n}d"] = _padding("replicate")


@operator("channel_shuffle")
def _channel_shuffle(graph: Graph, x: Any, groups: int) -> Tensor:
    return graph.add(rs.ChannelShuffle(groups), graph.plain(x))
