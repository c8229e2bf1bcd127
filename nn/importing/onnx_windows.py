"""Convolutions, pools, pads and resizing of ONNX, in one to three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from nn import axes as ax
from nn import choosing as c
from nn import dimensions as d
from nn import functional as f
from nn import layers as ly
from nn import rectifiers as r
from nn import resizing as rs
from nn import transposed as t
from nn import transposed_volumes as tv
from nn.importing.blockers import refused
from nn.importing.building import Tensor, over, pads_of, part
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.layer import Array, Layer, axis_of

Ints = tuple[int, ...]


class Window(NamedTuple):
    """Of each dimension; ``pads`` are before and after."""

    kernel: Ints
    strides: Ints
    dilations: Ints
    pads: tuple[tuple[int, int], ...]

    def of(self, values: Ints) -> Any:
        """One number where there is one dimension."""
        return values[0] if len(values) == 1 else values

    @property
    def even(self) -> Ints | None:
        """Pads, where they are the same on both sides; None else."""
        return tuple(a for a, _ in self.pads) if all(a == b for a, b in self.pads) else None


def window(node: Node, kernel: Ints, sizes: Ints) -> Window:
    """Of a node, for an input of these sizes.  Raises UnsupportedError."""
    count = len(kernel)
    if not 1 <= count <= 3 or len(sizes) != count:
        raise refused(f"its window has {count} dimensions, and its input {len(sizes)}", READ)
    strides, dilations = (node.take(name, (1,) * count) for name in ("strides", "dilations"))
    pads, auto = node.take("pads", (0,) * (2 * count)), node.take("auto_pad", "NOTSET")
    if not len(strides) == len(dilations) == count or len(pads) != 2 * count:
        raise refused("its strides, dilations and pads are not of its dimensions", READ)
    sides = list(zip(pads[:count], pads[count:], strict=True))
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sides = []
        for size, k, s, e in zip(sizes, kernel, strides, dilations, strict=True):
            missing = max((-(-size // s) - 1) * s + e * (k - 1) + 1 - size, 0)
            less, more = missing // 2, missing - missing // 2
            sides.append((less, more) if auto == "SAME_UPPER" else (more, less))
    elif auto == "VALID":
        sides = [(0, 0)] * count
    elif auto != "NOTSET":
        raise refused(f"its auto_pad {auto!r} is not supported", "export it with pads")
    return Window(kernel, strides, dilations, tuple(sides))


def _resized(node: Node, layer: Layer, x: Tensor, sizes: Sequence[int], **weights: Array) -> Tensor:
    """A step whose result has other sizes, but for the batch's."""
    return node.add(layer, x, layout=x.layout.resized((x.layout.shape[0], *sizes)), **weights)


def _around(node: Node, x: Tensor, pads: tuple[tuple[int, int], ...]) -> Tensor:
    """With zeros."""
    widths = [n for sides in reversed(pads) for n in sides]
    sizes = [n + a + b for n, (a, b) in zip(x.layout.shape[2:], pads, strict=True)]
    return _resized(node, rs.Pad(tuple(widths)), x, (x.layout.shape[1], *sizes))


# -- convolutions ------------------------------------------------------------------------------------------------------

_CONVOLUTIONS: dict[int, Callable[..., Layer]] = {1: d.Conv1d, 2: ly.Conv2d, 3: d.Conv3d}
_TRANSPOSED: dict[int, Callable[..., Layer]] = {1: d.ConvTranspose1d, 2: t.ConvTranspose2d, 3: tv.ConvTranspose3d}


def _conv(node: Node) -> Value:
    weights = {"weight": node.constant(1)} | ({"bias": node.constant(2)} if node.has(2) else {})
    return convolved(node, node.plain(0), weights)


def convolved(node: Node, x: Tensor, weights: dict[str, Array]) -> Tensor:
    """By a node's window."""
    weight, groups = weights["weight"], node.take("group", 1)
    kernel = weight.shape[2:]
    if groups < 1 or node.take("kernel_shape", kernel) != kernel or len(kernel) not in _CONVOLUTIONS:
        raise refused("its weight is not (out, in, ...) of one to three dimensions", READ)
    own = window(node, kernel, x.layout.shape[2:])
    sizes = [
        (n + a + b - e * (k - 1) - 1) // s + 1
        for n, (a, b), k, s, e in zip(x.layout.shape[2:], own.pads, kernel, own.strides, own.dilations, strict=True)
    ]
    padding = own.even
    if padding is None:
        x, padding = _around(node, x, own.pads), (0,) * len(kernel)
    layer = _CONVOLUTIONS[len(kernel)](
        weight.shape[1] * groups, len(weight), own.of(kernel), own.of(own.strides), own.of(padding),
        own.of(own.dilations), groups, "bias" in weights,
    )  # fmt: skip
    return _resized(node, layer, x, (len(weight), *sizes), **weights)


def _conv_transpose(node: Node) -> Value:
    x, weight, groups = node.plain(0), node.constant(1), node.take("group", 1)
    kernel = weight.shape[2:]
    count = len(kernel)
    if count not in _TRANSPOSED or node.take("kernel_shape", kernel) != kernel:
        raise refused("its weight is not (in, out, ...) of one to three dimensions", READ)
    if node.attribute("output_shape") is not None:
        raise refused("it says the shape of its output", "export it with pads and output_padding")
    more = node.take("output_padding", (0,) * count)
    own = window(node, kernel, x.layout.shape[2:])
    padding = own.even
    weights = {"weight": weight} | ({"bias": node.constant(2)} if node.has(2) else {})
    layer = _TRANSPOSED[count](
        weight.shape[0], weight.shape[1] * groups, own.of(kernel), own.of(own.strides),
        own.of(padding or (0,) * count), own.of(more), groups, "bias" in weights, own.of(own.dilations),
    )  # fmt: skip
    whole = [
        (n - 1) * s + e * (k - 1) + 1 + extra - (2 * p)
        for n, s, e, k, extra, p in zip(
            x.layout.shape[2:], own.strides, own.dilations, kernel, more, padding or (0,) * count, strict=True
        )
    ]
    y = _resized(node, layer, x, (weight.shape[1] * groups, *whole), **weights)
    if padding is None:
        for axis, (before, after) in enumerate(own.pads, 2):
            y = part(node.graph, y, axis, before, 1, y.layout.shape[axis] - before - after)
    return y


# -- pools -------------------------------------------------------------------------------------------------------------

_LARGEST: dict[int, Callable[..., Layer]] = {1: d.MaxPool1d, 2: r.MaxPool2d, 3: d.MaxPool3d}
_MEANS: dict[int, Callable[..., Layer]] = {1: d.AvgPool1d, 2: ly.AvgPool2d, 3: d.AvgPool3d}


def _pool(node: Node) -> Value:
    x = node.plain(0)
    kernel = node.take("kernel_shape", (0,) * (node.rank(x) - 2))
    own, ceil = window(node, kernel, x.layout.shape[2:]), bool(node.take("ceil_mode", 0))
    mean = node.kind == "AveragePool"
    counted = bool(node.take("count_include_pad", 0)) if mean else False
    node.only("storage_order", 0, 0)
    padding = own.even
    if padding is None:
        if not mean or not counted or ceil:
            raise refused(f"its pads {own.pads} differ on two sides", "pad by the same on both sides")
        x, padding = _around(node, x, own.pads), (0,) * len(kernel)
    if mean and any(n != 1 for n in own.dilations):
        raise refused("its dilations are not 1", READ)
    parts = own.of(kernel), own.of(own.strides), own.of(padding)
    layer: Layer
    if mean:
        layer = _MEANS[len(kernel)](*parts, ceil, counted)
    else:
        layer = _LARGEST[len(kernel)](*parts, own.of(own.dilations), ceil)
    sizes = [
        len(ax.windows(n, k, s, p, e, ceil))
        for n, k, s, p, e in zip(x.layout.shape[2:], kernel, own.strides, padding, own.dilations, strict=True)
    ]
    return _resized(node, layer, x, (x.layout.shape[1], *sizes))


def _whole(node: Node) -> Value:
    """Over all but the batch and the channels."""
    x = node.plain(0)
    dims = tuple(range(2, node.rank(x)))
    layer: Layer
    if len(dims) == 2:
        layer = ly.AdaptiveAvgPool2d() if node.kind == "GlobalAveragePool" else r.AdaptiveMaxPool2d()
    else:
        layer = f.Mean(dims, True) if node.kind == "GlobalAveragePool" else c.Amax(dims, True)
    return over(node.graph, layer, x, dims, keep=True)


def _batch_norm(node: Node) -> Value:
    node.only("training_mode", 0, 0)
    node.take("momentum", 0.9)
    names = ("weight", "bias", "running_mean", "running_var")
    weights = {name: node.constant(i) for i, name in enumerate(names, 1)}
    x = node.plain(0)
    kind = {4: ly.BatchNorm2d, 5: ly.BatchNorm3d}.get(node.rank(x), ly.BatchNorm1d)
    return node.same(kind(weights["weight"].size, node.take("epsilon", 1e-5)), x, **weights)


# -- pads and resizing -------------------------------------------------------------------------------------------------

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(node: Node) -> Value:
    x, mode, pads = node.place(0), node.take("mode", "constant"), node.integers(1)
    if mode not in _MODES or len(pads) % 2:
        raise refused(f"its mode {mode!r} or its pads are not supported", READ)
    axes = node.integers(3) if node.has(3) else tuple(range(len(pads) // 2))
    value = node.number(2) if node.has(2) else 0.0
    widths, sizes = {}, list(x.layout.shape)
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        if before or after:
            axis = axis_of(axis, node.rank(x))
            widths[x.layout.place(axis)] = (before, after)
            sizes[axis] += before + after
    if not widths:
        return x
    layer = rs.Pad(tuple(pads_of(x.layout, widths)), _MODES[mode], value)  # type: ignore[arg-type]
    return node.add(layer, x, layout=x.layout.resized(tuple(sizes)))


_RULES = {
    ("nearest", "asymmetric", "floor"): ("nearest", None),
    ("nearest", "half_pixel", "round_prefer_ceil"): ("nearest-exact", None),
    ("linear", "half_pixel", ""): ("linear", False),
    ("linear", "pytorch_half_pixel", ""): ("linear", False),
    ("linear", "align_corners", ""): ("linear", True),
    ("cubic", "half_pixel", ""): ("bicubic", False),
    ("cubic", "pytorch_half_pixel", ""): ("bicubic", False),
    ("cubic", "align_corners", ""): ("bicubic", True),
}
"""Mode, coordinates and rounding, as torch calls them."""


def _resize(node: Node) -> Value:
    x = node.plain(0)
    mode, where = node.take("mode", "nearest"), node.take("coordinate_transformation_mode", "half_pixel")
    rounded = node.take("nearest_mode", "round_prefer_floor")
    node.only("antialias", 0, 0)
    node.only("exclude_outside", 0, 0)
    node.only("keep_aspect_ratio_policy", "stretch", "stretch")
    node.take("extrapolation_value", 0.0)
    sharp = node.take("cubic_coeff_a", -0.75)
    rule = _RULES.get((mode, where, rounded if mode == "nearest" else ""))
    if mode == "nearest" and rule is None and _is_whole_factor(node, x):
        # Each pixel becomes a block of itself: rules differ between blocks alone.
        rule = ("nearest", None)
    if rule is None or (mode == "cubic" and abs(sharp + 0.75) > 1e-6):
        raise refused(
            f"it resizes by mode {mode!r}, {where!r}, {rounded!r}", "resize as torch.nn.functional.interpolate does"
        )
    shape = node.shapes[0]
    if shape[:2] != x.layout.shape[:2]:
        raise refused("it resizes the batch or the channels", READ)
    name = {3: "linear", 4: "bilinear", 5: "trilinear"}.get(node.rank(x), "") if rule[0] == "linear" else rule[0]
    scales = node.known(2).reshape(-1) if node.has(2) else ()
    if len(scales) == node.rank(x):
        factors = tuple(float(n) for n in scales[2:])
        layer = rs.Upsample(None, factors, name, rule[1])  # type: ignore[arg-type]
    else:
        layer = rs.Upsample(shape[2:], None, name, rule[1])  # type: ignore[arg-type]
    return _resized(node, layer, x, shape[1:])


def _is_whole_factor(node: Node, x: Tensor) -> bool:
    pairs = zip(node.shapes[0][2:], x.layout.shape[2:], strict=True)
    return all(after % before == 0 for after, before in pairs)


WINDOWS: dict[str, Callable[[Node], Value]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _whole),
    "BatchNormalization": _batch_norm,
    "Pad": _pad,
    "Resize": _resize,
}
