"""Operators of ONNX that change no number: reshapes, permutations, parts, joins, and what is looked up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nn import functional as f
from nn.importing.blockers import refused
from nn.importing.building import (
    Known,
    Tensor,
    beside,
    binary,
    dropped,
    expanded,
    looked_up,
    part,
    sized,
    taken,
    widest,
)
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.layer import axis_of
from nn.resizing import PixelShuffle, PixelUnshuffle


def _reshape(node: Node) -> Value:
    """To sizes that onnx tells, whatever zeros mean; the batch stays together."""
    node.take("allowzero", 0)
    return node.graph.reshaped(node.place(0), node.shapes[0])


def _flatten(node: Node) -> Value:
    node.take("axis", 1)
    return node.graph.reshaped(node.place(0), node.shapes[0])


def _squeeze(node: Node) -> Value:
    x = node.place(0)
    shape = x.layout.shape
    said = node.integers(1) if node.has(1) else [i for i, n in enumerate(shape) if n == 1 and i != x.layout.axis]
    gone = {axis_of(int(axis), len(shape)) for axis in said}
    without = dropped(x.layout, gone)
    if x.layout.axis in gone:
        # The batch's own, of one: it goes on in the next.
        return node.graph.reshaped(x, without.shape)
    return node.graph.laid_out(x, without)


def _unsqueeze(node: Node) -> Value:
    x = node.place(0)
    said = node.integers(1)
    rank = node.rank(x) + len(said)
    new = sorted(axis_of(axis, rank) for axis in said)
    shape = list(x.layout.shape)
    axis = x.layout.axis
    for place in new:
        shape.insert(place, 1)
        axis += place <= axis
    return node.graph.laid_out(x, x.layout._replace(shape=tuple(shape), axis=axis))


def _transpose(node: Node) -> Value:
    x = node.place(0)
    return node.graph.permuted(x, node.take("perm", tuple(reversed(range(node.rank(x))))))


def _concat(node: Node) -> Value:
    operands = [node.operand(i) for i in range(node.count)]
    layout, axis = widest(*operands), node.take("axis", 0)
    joined = [beside(node.graph, each, layout) for each in operands]
    sizes = [each.layout.shape[axis] if isinstance(each, Tensor) else each.values.shape[axis] for each in operands]
    return node.add(f.Concatenate(layout.place(axis)), *joined, layout=sized(layout, axis, sum(sizes)))


def _slice(node: Node) -> Value:
    x = node.place(0)
    starts, ends = node.integers(1), node.integers(2)
    axes = node.integers(3) if node.has(3) else tuple(range(len(starts)))
    steps = node.integers(4) if node.has(4) else (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(axis, node.rank(x))
        size = x.layout.shape[axis]
        if not step:
            raise refused("its step is 0", READ)
        # Ends far below 0 stand for the beginning, where it goes backwards.
        first, last, _ = slice(start, None if step < 0 and end < -size else end, step).indices(size)
        if axis == x.layout.axis and (first, last, step) == (0, size, 1):
            continue
        x = part(node.graph, x, axis, first, step, len(range(first, last, step)))
    return x


def _split(node: Node) -> Value:
    x, axis = node.place(0), node.take("axis", 0)
    node.take("num_outputs", 1)
    start, parts = 0, []
    for shape in node.shapes:
        parts.append(part(node.graph, x, axis, start, 1, shape[axis]))
        start += shape[axis]
    return parts


def _expand(node: Node) -> Value:
    x, shape = node.place(0), node.shapes[0]
    axis = len(shape) - node.rank(x) + x.layout.axis
    sizes = [1 if i == axis else n for i, n in enumerate(shape)]
    return expanded(node.graph, x, shape, Known(np.zeros(sizes)))


def _tile(node: Node) -> Value:
    x = node.place(0)
    for axis, times in enumerate(node.integers(1)):
        if times != 1:
            x = taken(node.graph, x, axis, [*range(x.layout.shape[axis])] * times)
    return x


def _gather(node: Node) -> Value:
    axis, places = node.take("axis", 0), node.value(1)
    if not isinstance(places, Known):
        table = node.value(0)
        if not isinstance(table, Known) or axis % table.values.ndim:
            raise refused("it takes from a tensor at places that depend on the input", READ)
        return looked_up(node.graph, table, node.graph.as_tensor(places))
    x = node.place(0)
    found = taken(node.graph, x, axis, [int(n) for n in places.values.reshape(-1)])
    axis %= node.rank(x)
    shape = found.layout.shape
    moved = found.layout.axis + (places.values.ndim - 1 if found.layout.axis > axis else 0)
    made = found.layout._replace(shape=(*shape[:axis], *places.values.shape, *shape[axis + 1 :]), axis=moved)
    return node.graph.laid_out(found, made)


def _depth_to_space(node: Node) -> Value:
    """Channels as pixels; DCR has those of one pixel furthest apart, CRD beside each other."""
    size, mode = node.take("blocksize", 1), node.take("mode", "DCR")
    x = node.plain(0)
    n, channels, height, width = x.layout.shape
    shape = (n, channels // size**2, height * size, width * size)
    if mode == "DCR":
        each = channels // size**2
        order = [place * each + c for c in range(each) for place in range(size**2)]
        x = taken(node.graph, x, 1, order)
    return node.add(PixelShuffle(size), x, layout=x.layout.resized(shape))


def _space_to_depth(node: Node) -> Value:
    size, x = node.take("blocksize", 1), node.plain(0)
    n, channels, height, width = x.layout.shape
    shape = (n, channels * size**2, height // size, width // size)
    found = node.add(PixelUnshuffle(size), x, layout=x.layout.resized(shape))
    order = [c * size**2 + place for place in range(size**2) for c in range(channels)]
    return taken(node.graph, found, 1, order)


def _trilu(node: Node) -> Value:
    x = node.place(0)
    if x.layout.axis >= node.rank(x) - 2:
        raise refused("it would mix the images of the batch", "keep the batch first")
    kept = np.triu if node.take("upper", 1) else np.tril
    mask = kept(np.ones(x.layout.shape[-2:]), int(node.number(1)) if node.has(1) else 0)
    return binary(node.graph, f.Multiply(), x, Known(mask), x.layout.shape)


SHAPES: dict[str, Callable[[Node], Value]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "Gather": _gather,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Trilu": _trilu,
}
