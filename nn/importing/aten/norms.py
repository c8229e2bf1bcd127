"""Norms of what is given, and cosines.  Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from nn import norms as n
from nn.importing.aten.table import operator
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, beside, over, widest
from nn.importing.export_graph import Graph
from nn.importing.torch_norms import NORM_FUNCTIONS


def _over_last(graph: Graph, x: Any, shape: Sequence[int]) -> Tensor:
    """What has these last dimensions, none of which is the batch's."""
    tensor = graph.tensor(x)
    if tensor.layout.axis >= len(tensor.layout.shape) - len(shape):
        raise refused("it would mix the images of the batch", "keep the batch first")
    return tensor


def _both(graph: Graph, weight: Any, bias: Any, sizes: Sequence[int]) -> dict[str, Known]:
    """Weight and bias; what is left out beside the other changes nothing."""
    if weight is None and bias is None:
        return {}
    return {
        "weight": Known(torch.ones(*sizes)) if weight is None else graph.known(weight),
        "bias": Known(torch.zeros(*sizes)) if bias is None else graph.known(bias),
    }


@operator("layer_norm")
def _layer_norm(
    graph: Graph, x: Any, shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    tensor = _over_last(graph, x, shape)
    held = _both(graph, weight, bias, shape)
    if bias is None:
        held.pop("bias", None)
    return graph.add(
        n.LayerNorm(tuple(shape), float(eps), bool(held), "bias" in held), tensor, layout=tensor.layout, **held
    )


@operator("rms_norm")
def _rms_norm(graph: Graph, x: Any, shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Tensor:
    tensor = _over_last(graph, x, shape)
    least = torch.finfo(graph.dtype).eps if eps is None else eps
    held = {} if weight is None else {"weight": graph.known(weight)}
    return graph.add(n.RMSNorm(tuple(shape), float(least), bool(held)), tensor, layout=tensor.layout, **held)


@operator("group_norm")
def _group_norm(
    graph: Graph, x: Any, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    tensor = graph.plain(x)
    channels = tensor.layout.shape[1]
    held = _both(graph, weight, bias, (channels,))
    return graph.add(n.GroupNorm(groups, channels, float(eps), bool(held)), tensor, layout=tensor.layout, **held)


@operator("instance_norm")
def _instance_norm(
    graph: Graph, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, own: bool, momentum: float, eps: float,
    *_: Any,
) -> Tensor:  # fmt: skip
    """Each channel a group of its own."""
    if not own:
        raise refused("it is called with statistics that are kept", "use batch_norm")
    return _group_norm(graph, x, graph.plain(x).layout.shape[1], weight, bias, eps)


@operator("linalg_vector_norm")
def _vector_norm(graph: Graph, x: Any, order: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    tensor = graph.tensor(x)
    dims = [dim] if isinstance(dim, int) else dim
    if not dims:
        raise refused("a norm over everything would mix the images of the batch", "give it dim=1, or others")
    layer = NORM_FUNCTIONS[torch.linalg.vector_norm](order, tensor.layout.places(dims), True)
    return over(graph, layer, tensor, dims, keep=len(graph.shape) == len(tensor.layout.shape))


@operator("cosine_similarity")
def _cosine(graph: Graph, x: Any, y: Any, dim: int = 1, eps: float = 1e-8) -> Tensor:
    layout = widest(x, y)
    place, dim = layout.place(dim), dim % len(layout.shape)
    made = layout._replace(shape=graph.shape, axis=layout.axis - (dim < layout.axis))
    layer = n.CosineSimilarity(place, float(eps))
    return graph.add(layer, beside(graph, x, layout), beside(graph, y, layout), layout=made)
