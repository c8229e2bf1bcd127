"""What changes no number: reshapes, permutations, parts, joins.  Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nn import functional as f
from nn.importing.aten.table import operator
from nn.importing.batch_layout import Layout
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, beside, binary, expanded, part, sized, taken, widest
from nn.importing.export_graph import Graph
from nn.resizing import PixelShuffle, PixelUnshuffle


@operator("_assert_tensor_metadata", "_assert_async", "_assert_scalar", "sym_constrain_range_for_size")
def _asserted(*_: Any, **__: Any) -> None:
    """What torch.export has looked at."""


@operator("clone", "contiguous", "detach", "alias", "lift_fresh_copy")
def _same(graph: Graph, x: Any, **_: Any) -> Tensor:
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
    sizes = [1 if n % graph.batch == 0 else n for n in graph.shape]
    return expanded(graph, tensor, graph.shape, Known(torch.zeros(sizes)))


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


@operator("repeat")
def _repeat(graph: Graph, x: Any, sizes: Sequence[int]) -> Tensor:
    tensor = graph.tensor(x)
    missing = len(sizes) - len(tensor.layout.shape)
    layout = tensor.layout
    tensor = graph.laid_out(tensor, layout._replace(shape=(*(1,) * missing, *layout.shape), axis=layout.axis + missing))
    for dim, times in enumerate(sizes):
        if times != 1:
            tensor = taken(graph, tensor, dim, [*range(tensor.layout.shape[dim])] * times)
    return tensor


@operator("repeat_interleave")
def _interleaved(graph: Graph, x: Any, times: Any, dim: int | None = None, **_: Any) -> Tensor:
    if dim is None or not isinstance(times, int):
        raise refused("it repeats each image, or each element another number of times", "give it a number and a dim")
    tensor = graph.tensor(x)
    return taken(graph, tensor, dim, [i for i in range(tensor.layout.shape[dim]) for _ in range(times)])


@operator("unfold")
def _unfold(graph: Graph, x: Any, dim: int, size: int, step: int) -> Tensor:
    """Windows along a dimension, whose places come last."""
    tensor = graph.tensor(x)
    dim %= len(tensor.layout.shape)
    count = (tensor.layout.shape[dim] - size) // step + 1
    found = taken(graph, tensor, dim, [i * step + j for i in range(count) for j in range(size)])
    shape = found.layout.shape
    axis = found.layout.axis + (found.layout.axis > dim)
    apart = found.layout._replace(shape=(*shape[:dim], count, size, *shape[dim + 1 :]), axis=axis)
    places = [i for i in range(len(apart.shape)) if i != dim + 1]
    return graph.permuted(graph.laid_out(found, apart), [*places, dim + 1])


@operator("tril")
def _tril(graph: Graph, x: Any, diagonal: int = 0) -> Tensor:
    return _triangle(graph, x, torch.tril, diagonal)


@operator("triu")
def _triu(graph: Graph, x: Any, diagonal: int = 0) -> Tensor:
    return _triangle(graph, x, torch.triu, diagonal)


def _triangle(graph: Graph, x: Any, kept: Any, diagonal: int) -> Tensor:
    tensor = graph.tensor(x)
    if tensor.layout.axis >= len(tensor.layout.shape) - 2:
        raise refused("it would mix the images of the batch", "keep the batch first")
    return binary(graph, f.Multiply(), tensor, Known(kept(torch.ones(tensor.layout.shape[-2:]), diagonal)))


@operator("slice_scatter")
def _put_slice(
    graph: Graph, x: Any, y: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    """x with y in the place of a slice: what is changed in place comes to this."""
    layout = widest(x, y)
    dim %= len(layout.shape)
    size = graph.shape[dim]
    places = list(range(*slice(start, end, step).indices(size)))
    if places == list(range(size)):
        return y
    return _put(graph, x, y, dim, places)


@operator("select_scatter")
def _put_one(graph: Graph, x: Any, y: Any, dim: int, index: int) -> Any:
    dim %= len(graph.shape)
    shape = (*graph.shape[:dim], 1, *graph.shape[dim + 1 :])
    one = Known(y.values.unsqueeze(dim)) if isinstance(y, Known) else graph.reshaped(graph.tensor(y), shape)
    return _put(graph, x, one, dim, [index % graph.shape[dim]])


def _put(graph: Graph, x: Any, y: Any, dim: int, places: Sequence[int]) -> Tensor:
    layout = widest(x, y).resized(graph.shape)
    whole = _whole(graph, x, layout)
    part_of = _whole(graph, y, sized(layout, dim, len(places)))
    size = graph.shape[dim]
    both = graph.add(f.Concatenate(layout.place(dim)), whole, part_of, layout=sized(layout, dim, size + len(places)))
    order = list(range(size))
    for i, place in enumerate(places):
        order[place] = size + i
    return taken(graph, both, dim, order)


def _whole(graph: Graph, x: Any, layout: Layout) -> Tensor:
    """In all sizes of a layout."""
    sizes = [1 if i == layout.axis else n for i, n in enumerate(layout.shape)]
    if isinstance(x, Known):
        own = list(x.values.shape)
        missing = len(layout.shape) - len(own)
        if missing <= layout.axis:
            own[layout.axis - missing] = 1
            return beside(graph, Known(x.values[tuple(slice(0, n) for n in own)].expand(sizes)), layout)
        return beside(graph, Known(x.values.expand(sizes)), layout)
    return expanded(graph, graph.tensor(x), layout.shape, Known(torch.zeros(sizes)))


@operator("copy")
def _copied(graph: Graph, x: Any, y: Any, *_: Any) -> Any:
    """Another's numbers, in its sizes."""
    return _whole(graph, y, widest(x, y).resized(graph.shape))


@operator("cat", "concat", "concatenate")
def _cat(graph: Graph, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    layout = next(each.layout for each in tensors if isinstance(each, Tensor))
    # What holds nothing may have any dimensions, as a cache has that is still empty.
    some = [each for each in tensors if isinstance(each, Tensor) or graph.known(each).values.numel()]
    if len(some) == 1:
        return graph.tensor(some[0])
    joined = [beside(graph, each, layout) for each in some]
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
