"""Parts at public positions, the largest and the smallest, and what has two halves.  Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nn import activations as a
from nn import choosing as c
from nn import functional as f
from nn.importing import torch_windows as w
from nn.importing.aten.comparing import gathered, indexed, position
from nn.importing.aten.table import OPERATORS, operator
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, binary, looked_up, over, part, taken
from nn.importing.export_graph import Graph, Operator
from nn.importing.moving import Places, moved

_PLACES = "take along a dimension that is not the batch's, at whole numbers that depend on no input"


def _whole_numbers(graph: Graph, index: Any) -> torch.Tensor:
    values = graph.known(index).values
    if values.is_floating_point() or values.dtype == torch.bool:
        raise refused("its positions are no whole numbers", _PLACES)
    found: torch.Tensor = values
    return found


@operator("index_select")
def _index_select(graph: Graph, x: Any, dim: int, index: Any) -> Tensor:
    if isinstance(x, Known) and isinstance(index, Tensor) and not dim:
        return looked_up(graph, x, index)
    return taken(graph, graph.tensor(x), dim, _whole_numbers(graph, index).reshape(-1).tolist())


@operator("index")
def _index(graph: Graph, x: Any, indices: Sequence[Any]) -> Tensor:
    """By one array of places, along one dimension."""
    if any(isinstance(index, Tensor) for index in indices):
        return indexed(graph, x, indices)
    dims = [i for i, index in enumerate(indices) if index is not None]
    places = [None if index is None else graph.known(index).values for index in indices]
    if len(dims) != 1 or places[dims[0]].dtype == torch.bool:  # type: ignore[union-attr]
        key = tuple(slice(None) if each is None else each for each in places)
        return moved(graph, [x], lambda codes: torch.from_numpy(codes[0])[key].numpy())
    found = taken(graph, graph.tensor(x), dims[0], _whole_numbers(graph, indices[dims[0]]).reshape(-1).tolist())
    return graph.reshaped(found, graph.shape)


@operator("diagonal", "diagonal_copy")
def _diagonal(graph: Graph, x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    return moved(graph, [graph.tensor(x)], lambda codes: np.diagonal(codes[0], offset, dim1, dim2))


@operator("scatter")
def _scatter(graph: Graph, x: Any, dim: int, index: Any, source: Any, **options: Any) -> Tensor:
    """At public places."""
    if options or isinstance(index, Tensor):
        raise refused("it adds, or its places depend on the input", _PLACES)
    given = Known(torch.full((1,), float(source))) if isinstance(source, int | float) else source
    places = _batched(graph, graph.known(index).values)

    def run(codes: list[Places]) -> Places:
        whole, own = (torch.from_numpy(np.ascontiguousarray(each)) for each in codes)
        whole = _batched(graph, whole).clone()
        return whole.scatter(
            dim, places, _batched(graph, own).expand(places.shape) if own.numel() == 1 else own
        ).numpy()

    return moved(graph, [x, given], run)


@operator("index_put")
def _index_put(graph: Graph, x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Tensor:
    """At public places."""
    if accumulate or any(isinstance(each, Tensor) for each in indices):
        raise refused("it adds, or its places depend on the input", _PLACES)
    key = tuple(slice(None) if each is None else graph.known(each).values for each in indices)

    def run(codes: list[Places]) -> Places:
        whole, own = (torch.from_numpy(np.ascontiguousarray(each)) for each in codes)
        whole = _batched(graph, whole).clone()
        whole[key] = own
        return whole.numpy()

    return moved(graph, [x, values], run)


def _batched(graph: Graph, values: torch.Tensor) -> torch.Tensor:
    """What is known for a batch of one, for all of it."""
    if values.ndim and values.shape[0] == 1 and graph.shape[:1] == (graph.batch,) and values.ndim == len(graph.shape):
        return values.expand(graph.batch, *values.shape[1:])
    return values


@operator("gather")
def _gather(graph: Graph, x: Any, dim: int, index: Any, **_: Any) -> Tensor:
    """Where all rows are asked for the same places, or each for secret ones."""
    if isinstance(index, Tensor):
        return gathered(graph, x, dim, index)
    tensor, places = graph.tensor(x), _whole_numbers(graph, index)
    dim %= places.ndim
    first = places
    for other in reversed(range(places.ndim)):
        if other != dim:
            first = first.narrow(other, 0, 1)
    others = [i for i in range(places.ndim) if i != dim]
    if not bool((places == first).all()) or any(graph.shape[i] != tensor.layout.shape[i] for i in others):
        raise refused("its positions differ from row to row", _PLACES)
    return taken(graph, graph.tensor(x), dim, first.reshape(-1).tolist())


@operator("roll")
def _roll(graph: Graph, x: Any, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    tensor = graph.tensor(x)
    if not dims:
        raise refused("it rolls over all dimensions, the batch's too", "name other dimensions than the batch's")
    for shift, dim in zip(shifts, dims, strict=True):
        size = tensor.layout.shape[dim]
        tensor = taken(graph, tensor, dim, [(i - shift) % size for i in range(size)])
    return tensor


@operator("cumsum")
def _cumsum(graph: Graph, x: Any, dim: int, **_: Any) -> Tensor:
    tensor = graph.tensor(x)
    return graph.add(c.CumSum(tensor.layout.place(dim)), tensor)


# -- the largest and the smallest --------------------------------------------------------------------------------------


def _extreme(kind: type[c.Amax] | type[c.Amin]) -> Operator:
    def made(graph: Graph, x: Any, dim: Any = (), keepdim: bool = False) -> Tensor:
        return _over(graph, kind, x, [dim] if isinstance(dim, int) else dim, graph.shape)

    return made


def _over(graph: Graph, kind: type[c.Amax] | type[c.Amin], x: Any, dims: Sequence[int], shape: Sequence[int]) -> Tensor:
    tensor = graph.tensor(x)
    if not dims:
        raise refused("it is over everything, the batch too", "name other dimensions than the batch's")
    keep = len(shape) == len(tensor.layout.shape)
    return over(graph, kind(tensor.layout.places(dims), True), tensor, dims, keep=keep)


def _between(kind: type[c.Amax] | type[c.Amin], pairs: type[f.Maximum] | type[f.Minimum]) -> Operator:
    """``max`` and ``min``: along a dimension, of which the positions are not used, or of two tensors."""

    def made(graph: Graph, x: Any, other: Any = None, keepdim: bool = False) -> Any:
        if isinstance(other, int):
            found = [_over(graph, kind, x, [other], graph.shapes[0])]
            if 1 in graph.used:
                found.append(position(graph, x, other, keepdim, smallest=kind is c.Amin))
            return found
        if other is None:
            raise refused("it is over everything, the batch too", "name other dimensions than the batch's")
        return binary(graph, pairs(), x, other)

    return made


for _names, _kind, _pairs in (
    (("maximum", "fmax"), c.Amax, f.Maximum),
    (("minimum", "fmin"), c.Amin, f.Minimum),
):
    for _name in _names:
        OPERATORS[f"aten.{_name}"] = lambda graph, x, y, pairs=_pairs: binary(graph, pairs(), x, y)
OPERATORS |= {
    "aten.amax": _extreme(c.Amax),
    "aten.amin": _extreme(c.Amin),
    "aten.max": _between(c.Amax, f.Maximum),
    "aten.min": _between(c.Amin, f.Minimum),
}


@operator("clamp", "clip")
def _clamp(graph: Graph, x: Any, low: Any = None, high: Any = None) -> Tensor:
    if isinstance(low, Tensor | Known) or isinstance(high, Tensor | Known):
        raised = x if low is None else binary(graph, f.Maximum(), x, low)
        return graph.tensor(raised) if high is None else binary(graph, f.Minimum(), raised, high)
    return graph.add(w.clamp(low, high), graph.tensor(x))


@operator("clamp_min")
def _clamp_min(graph: Graph, x: Any, low: Any) -> Tensor:
    return _clamp(graph, x, low)


@operator("clamp_max")
def _clamp_max(graph: Graph, x: Any, high: Any) -> Tensor:
    return _clamp(graph, x, None, high)


@operator("threshold")
def _threshold(graph: Graph, x: Any, threshold: float, value: float) -> Tensor:
    return graph.add(c.Threshold(float(threshold), float(value)), graph.tensor(x))


@operator("hardshrink")
def _hardshrink(graph: Graph, x: Any, lambd: float = 0.5) -> Tensor:
    return graph.add(c.Hardshrink(float(lambd)), graph.tensor(x))


@operator("glu")
def _glu(graph: Graph, x: Any, dim: int = -1) -> Tensor:
    tensor = graph.tensor(x)
    half = tensor.layout.shape[dim] // 2
    value, gate = (part(graph, tensor, dim, start, 1, half) for start in (0, half))
    open_ = graph.add(a.Sigmoid(interval=graph.interval), gate, layout=gate.layout)
    return graph.add(f.Multiply(), value, open_)


def is_zero(x: Any) -> bool:
    """Whether it is known to be nothing but zeros."""
    return isinstance(x, Known) and not bool(x.values.any())
