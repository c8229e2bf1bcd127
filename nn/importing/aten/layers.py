"""Norms by stored statistics, and functions.  Needs torch."""

from __future__ import annotations

from typing import Any

from nn import layers as ly
from nn import rectifiers as r
from nn import softmax as s
from nn.importing.aten.table import OPERATORS, operator
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor
from nn.importing.export_graph import Graph, Operator
from nn.importing.torch_functions import OPERATIONS


@operator("_native_batch_norm_legit_no_training", "batch_norm", "native_batch_norm", "cudnn_batch_norm")
def _batch_norm(graph: Graph, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> list[Tensor]:
    tensor = graph.plain(x)
    if mean is None or (any(rest[:1]) and isinstance(rest[0], bool)):
        raise refused("it keeps no statistics", "train it with track_running_stats=True")
    eps = float(rest[-1] if isinstance(rest[-1], float) else rest[-2])
    kind = {4: ly.BatchNorm2d, 5: ly.BatchNorm3d}.get(len(tensor.layout.shape), ly.BatchNorm1d)
    held = {"running_mean": graph.known(mean), "running_var": graph.known(variance)}
    if weight is not None:
        held |= {"weight": graph.known(weight), "bias": graph.known(bias)}
    layer = kind(held["running_mean"].values.numel(), eps, affine=weight is not None)
    return [graph.add(layer, tensor, layout=tensor.layout, **held)]


# -- functions ---------------------------------------------------------------------------------------------------------


def _function(make: Any) -> Operator:
    def made(graph: Graph, x: Any, *args: Any, **kwargs: Any) -> Tensor:
        return graph.add(make(*args, **kwargs, interval=graph.interval), graph.tensor(x))

    return made


OPERATORS.update({f"aten.{name}": _function(make) for name, make in OPERATIONS.items()})


@operator("prelu", "_prelu_kernel")
def _prelu(graph: Graph, x: Any, weight: Any) -> Tensor:
    held = graph.known(weight)
    return graph.add(r.PReLU(held.values.numel()), graph.plain(x), weight=Known(held.values.reshape(-1), held.name))


@operator("softmax", "_softmax")
def _softmax(graph: Graph, x: Any, dim: int, *_: Any, **__: Any) -> Tensor:
    tensor = graph.tensor(x)
    return graph.add(s.Softmax(tensor.layout.place(dim)), tensor)


@operator("log_softmax", "_log_softmax")
def _log_softmax(graph: Graph, x: Any, dim: int, *_: Any, **__: Any) -> Tensor:
    tensor = graph.tensor(x)
    return graph.add(s.LogSoftmax(tensor.layout.place(dim)), tensor)
