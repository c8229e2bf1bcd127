"""What changes no number: reshapes, permutations, parts, joins.  Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nn import functional as f
from nn.importing.aten.table import beside, operator
from nn.importing.blockers import SMOOTH, refused
from nn.importing.export_graph import Graph, Known, Tensor
from nn.parts import Part
from nn.resizing import PixelShuffle, PixelUnshuffle


@operator("clone", "contiguous", "detach", "alias", "lift_fresh_copy")
def _same(graph: Graph, x: Any, **_: Any) -> Tensor:
    return graph.tensor(x)


@operator("to", "_to_copy", "type_as")
def _converted(graph: Graph, x: Any, *_: Any, **__: Any) -> Tensor:
    if not graph.dtype.is_floating_point:
        raise refused("it makes whole numbers of its operand", SMOOTH)
    return graph.tensor(x)


@operator("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def _dropout(graph: Graph, x: Any, _: float, train: bool) -> Tensor:
    if train:
        raise refused("it is in training mode even in evaluation", "pass training=self.training to it")
    return graph.tensor(x)


@operator("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_copy")
def _reshape(graph: Graph, x: Any, *_: Any, **__: Any) -> Tensor:
    return graph.reshaped(graph.tensor(x), graph.shape)


@operator("expand", "expand_as")
def _expand(graph: Graph, x: Any, *_: Any, **__: Any) -> Tensor:
    tensor = graph.tensor(x)
    if tensor.layout.shape == graph.shape:
        return tensor
    # A sum with zeros of that size: local.
    layout = tensor.layout.resized(graph.shape)
    if len(tensor.layout.shape) != len(graph.shape) or layout.axis != tensor.layout.axis:
        raise refused("it repeats the batch", "keep the batch first, and one axis for each that is repeated")
    sizes = [1 if i == layout.axis else n for i, n in enumerate(graph.shape)]
    zeros = graph.parameter(Known(torch.zeros(sizes)), layout)
    return graph.add(f.Add(), tensor, Tensor(zeros, layout), layout=layout)


@operator("permute")
def _permute(graph: Graph, x: Any, dims: Sequence[int]) -> Tensor:
    return graph.permuted(graph.tensor(x), dims)


@operator("transpose")
def _transpose(graph: Graph, x: Any, first: int, second: int) -> Tensor:
    tensor = graph.tensor(x)
    order = list(range(len(tensor.layout.shape)))
    order[first], order[second] = order[second], order[first]
    return graph.permuted(tensor, order)


@operator("t", "numpy_T")
def _turned(graph: Graph, x: Any) -> Tensor:
    tensor = graph.tensor(x)
    return graph.permuted(tensor, list(reversed(range(len(tensor.layout.shape)))))


@operator("slice")
def _slice(
    graph: Graph, x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    tensor = graph.tensor(x)
    size = tensor.layout.shape[dim]
    first, last, _ = slice(start, end, step).indices(size)
    if dim % len(tensor.layout.shape) == tensor.layout.axis and (first, last, step) == (0, size, 1):
        return tensor
    return part(graph, tensor, dim, first, step, len(range(first, last, step)))


@operator("flip")
def _flip(graph: Graph, x: Any, dims: Sequence[int]) -> Tensor:
    tensor = graph.tensor(x)
    for dim in dims:
        size = tensor.layout.shape[dim]
        tensor = part(graph, tensor, dim, size - 1, -1, size)
    return tensor


@operator("select")
def _select(graph: Graph, x: Any, dim: int, index: int) -> Tensor:
    tensor = graph.tensor(x)
    return graph.reshaped(part(graph, tensor, dim, index % tensor.layout.shape[dim], 1, 1), graph.shape)


@operator("split", "split_with_sizes", "chunk", "tensor_split")
def _split(graph: Graph, x: Any, _: Any, dim: int = 0) -> list[Tensor]:
    tensor, start, parts = graph.tensor(x), 0, []
    for shape in graph.shapes:
        parts.append(part(graph, tensor, dim, start, 1, shape[dim]))
        start += shape[dim]
    return parts


@operator("unbind")
def _unbind(graph: Graph, x: Any, dim: int = 0) -> list[Tensor]:
    tensor = graph.tensor(x)
    return [graph.reshaped(part(graph, tensor, dim, i, 1, 1), shape) for i, shape in enumerate(graph.shapes)]


def part(graph: Graph, tensor: Tensor, dim: int, start: int, step: int, count: int) -> Tensor:
    """``count`` elements of one dimension, every ``step``-th."""
    layout = tensor.layout
    slices = [(0, 1, n) for n in layout.inner]
    slices[layout.place(dim) - 1] = (start, step, count)
    sizes = list(layout.shape)
    sizes[dim] = count
    made = layout.resized(tuple(sizes))
    if made == layout and step == 1:
        return tensor
    return graph.add(Part(tuple(slices)), tensor, layout=made)


@operator("embedding")
def _looked_up(graph: Graph, *_: Any, **__: Any) -> Tensor:
    """At places that depend on the input; those that do not are looked up here."""
    raise refused("it chooses by values, and nobody may see them", "share one-hot vectors, and use Linear")


@operator("cat", "concat", "concatenate")
def _cat(graph: Graph, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    layout = next(each.layout for each in tensors if isinstance(each, Tensor))
    joined = [beside(graph, each, layout) for each in tensors]
    made = layout.resized(graph.shape)
    return graph.add(f.Concatenate(layout.place(dim)), *joined, layout=made)


@operator("stack")
def _stack(graph: Graph, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    shape = list(graph.shape)
    dim %= len(shape)
    each = (*shape[:dim], 1, *shape[dim + 1 :])
    return _cat(graph, [graph.reshaped(graph.tensor(x), each) for x in tensors], dim)


@operator("pixel_shuffle")
def _pixel_shuffle(graph: Graph, x: Any, factor: int) -> Tensor:
    return graph.add(PixelShuffle(factor), graph.plain(x))


@operator("pixel_unshuffle")
def _pixel_unshuffle(graph: Graph, x: Any, factor: int) -> Tensor:
    return graph.add(PixelUnshuffle(factor), graph.plain(x))
