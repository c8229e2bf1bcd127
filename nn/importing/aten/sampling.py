"""Windows as columns, pixels at the places of a grid, and values in order.  Needs torch."""

from __future__ import annotations

from typing import Any

from nn import sampling as sm
from nn.importing import torch_windows as w
from nn.importing.aten.table import operator
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, ordered
from nn.importing.export_graph import Graph

_MODES = "bilinear", "nearest"
_AROUND = "zeros", "border", "reflection"


@operator("im2col")
def _unfold(graph: Graph, x: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    return graph.add(w.unfolded(kernel, dilation, padding, stride), graph.plain(x))


@operator("col2im")
def _fold(graph: Graph, x: Any, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Tensor:
    return graph.add(w.folded(size, kernel, dilation, padding, stride), graph.plain(x))


@operator("grid_sampler", "grid_sampler_2d")
def _grid_sample(graph: Graph, x: Any, grid: Any, mode: int, around: int, align_corners: bool) -> Tensor:
    if not isinstance(grid, Known):
        remedy = "sample at public places, of a grid that is a buffer; or end the network before it"
        raise refused("its grid depends on the input: secret places would be compared with every pixel", remedy)
    tensor = graph.plain(x)
    if len(tensor.layout.shape) != 4 or mode >= len(_MODES):
        raise refused("it is bicubic, or of volumes", "use mode='bilinear' or 'nearest', of images")
    points = grid.values.double()
    if not bool((points == points[:1]).all()):
        raise refused("its grid differs from image to image", "use the same grid for all images")
    size = (int(points.shape[1]), int(points.shape[2]))
    numbers = tuple(points[0].reshape(-1).tolist())
    layer = sm.GridSample(numbers, size, _MODES[mode], _AROUND[around], bool(align_corners))  # type: ignore[arg-type]
    return graph.add(layer, tensor)


@operator("topk")
def _topk(graph: Graph, x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> list[Tensor]:
    return ordered(graph, graph.tensor(x), k, dim, smallest=not largest, positions=1 in graph.used)


@operator("sort")
def _sort(graph: Graph, x: Any, *options: Any, **named: Any) -> list[Tensor]:
    """Of both overloads: with ``stable``, by name, or without."""
    return _in_order(graph, x, 1 in graph.used, *options, **named)


@operator("argsort")
def _argsort(graph: Graph, x: Any, *options: Any, **named: Any) -> Tensor:
    return _in_order(graph, x, True, *options, **named)[1]


def _in_order(
    graph: Graph, x: Any, positions: bool, dim: int = -1, descending: bool = False, *, stable: Any = None
) -> list[Tensor]:
    tensor = graph.tensor(x)
    return ordered(graph, tensor, tensor.layout.shape[dim], dim, smallest=not descending, positions=positions)
