"""Operators of ONNX that choose: in order, at places, at pixels of a grid; and Einstein's sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from nn.importing.blockers import refused
from nn.importing.building import Known, affine, gathered_at, one_hot, ordered
from nn.importing.einsum import einsum
from nn.importing.moving import Places, moved
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.sampling import Fold, GridSample


def _topk(node: Node) -> Value:
    node.take("sorted", 1)  # those in order are right in any
    x, largest = node.place(0), bool(node.take("largest", 1))
    axis, count = node.take("axis", -1), int(node.number(1))
    return ordered(node.graph, x, count, axis, smallest=not largest, positions=node.is_used(1))


def _one_hot(node: Node) -> Value:
    places, count, ends = node.place(0), int(node.number(1)), node.known(2).astype(np.float64).reshape(-1)
    if len(ends) != 2 or node.take("axis", -1) not in (-1, node.rank(places)):
        raise refused("it has no two values, or another axis than the last", READ)
    off, on = (float(end) for end in ends)
    return affine(node.graph, one_hot(node.graph, places, count), on - off, off)


def at_places(node: Node) -> Value:
    """Numbers at public places: wherever the operator takes them from, it takes places from there."""
    operands, indices = [], 1
    for i in range(node.count):
        if i != indices:
            value = node.graph.as_tensor(node.value(i))
            operands.append(Known(value.values.astype(np.float64)) if isinstance(value, Known) else value)
    places = node.known(indices)
    if node.kind.startswith("Scatter"):
        node.only("reduction", "none", "none")
    node.take("axis", 0)
    node.take("batch_dims", 0)

    def run(codes: list[Places]) -> Places:
        fed = dict(zip(node.proto.input, [codes[0], places, *codes[1:]], strict=True))
        results: Any = ReferenceEvaluator(_plain(node.proto), opsets=node.graph.opsets).run(None, fed)
        return np.asarray(results[0])

    return moved(node.graph, operands, run)


def _plain(proto: NodeProto) -> NodeProto:
    """With inputs of names of their own, whatever is given twice."""
    if len(set(proto.input)) != len(proto.input):
        raise refused("it has an input twice", READ)
    return proto


def _gather_elements(node: Node) -> Value:
    if isinstance(node.value(1), Known):
        return at_places(node)
    return gathered_at(node.graph, node.place(0), node.take("axis", 0), node.graph.as_tensor(node.value(1)))


_SAMPLED = {"bilinear": "bilinear", "linear": "bilinear", "nearest": "nearest"}
_AROUND = ("zeros", "border", "reflection")


def _grid_sample(node: Node) -> Value:
    x, points = node.plain(0), node.constant(1)
    mode, around = node.take("mode", "linear"), node.take("padding_mode", "zeros")
    corners = bool(node.take("align_corners", 0))
    if node.rank(x) != 4 or mode not in _SAMPLED or around not in _AROUND or points.ndim != 4:
        raise refused("it is cubic, or of volumes", "sample images by linear or nearest")
    if (points != points[:1]).any():
        raise refused("its grid differs from image to image", "use the same grid for all images")
    size = (points.shape[1], points.shape[2])
    kind: Any = _SAMPLED[mode]
    layer = GridSample(tuple(points[0].reshape(-1).tolist()), size, kind, around, corners)  # type: ignore[arg-type]
    return node.add(layer, x, layout=x.layout.resized((*x.layout.shape[:2], *size)))


def _einsum(node: Node) -> Value:
    operands = [node.operand(i) for i in range(node.count)]
    return einsum(node.graph, node.take("equation", ""), operands)


def _columns(node: Node) -> Value:
    """Sums of what windows have at each pixel."""
    x, (height, width), kernel = node.plain(0), node.integers(1), node.integers(2)
    dilations, strides = node.take("dilations", (1, 1)), node.take("strides", (1, 1))
    up, left, down, right = node.take("pads", (0, 0, 0, 0))
    if len(kernel) != 2 or (up, left) != (down, right):
        raise refused("it is not of images, or its pads differ on two sides", READ)
    layer = Fold((kernel[0], kernel[1]), (dilations[0], dilations[1]), (up, left), (strides[0], strides[1]),
                 output_size=(height, width))  # fmt: skip
    sizes = (x.layout.shape[0], x.layout.shape[1] // (kernel[0] * kernel[1]), height, width)
    return node.add(layer, x, layout=x.layout.resized(sizes))


CHOICES: dict[str, Callable[[Node], Value]] = {
    "TopK": _topk,
    "OneHot": _one_hot,
    "GatherElements": _gather_elements,
    **dict.fromkeys(("GatherND", "ScatterND", "ScatterElements"), at_places),
    "GridSample": _grid_sample,
    "Einsum": _einsum,
    "Col2Im": _columns,
}
