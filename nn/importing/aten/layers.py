"""Norms by stored statistics, and functions.  Needs torch."""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from nn import activations as a
from nn import layers as ly
from nn import rectifiers as r
from nn import softmax as s
from nn.importing.aten.table import OPERATORS, operator
from nn.importing.blockers import refused
from nn.importing.export_graph import Graph, Known, Operator, Tensor
from nn.layer import Layer


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
        layer = make(*args, **kwargs)
        if graph.interval is not None and isinstance(layer, a.Approximated):
            layer = msgspec.structs.replace(layer, interval=graph.interval)
        return graph.add(layer, graph.tensor(x))

    return made


def _gelu(approximate: str = "none") -> Layer:
    return a.GELU(approximate="tanh" if approximate == "tanh" else "none")


def _hardtanh(low: float = -1.0, high: float = 1.0) -> Layer:
    return r.ReLU6() if (low, high) == (0, 6) else r.Hardtanh(float(low), float(high))


def _elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Layer:
    if (scale, input_scale) != (1, 1):
        raise refused("it is an ELU with scales of its own", "multiply before and after it")
    return r.ELU(float(alpha))


_NAMED = ("exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "erf")

_FUNCTIONS: dict[str, Any] = {
    "relu": r.ReLU, "relu6": r.ReLU6, "hardtanh": _hardtanh, "hardswish": r.Hardswish,
    "hardsigmoid": r.Hardsigmoid, "leaky_relu": lambda slope=0.01: r.LeakyReLU(float(slope)), "abs": r.Abs,
    "softshrink": lambda lambd=0.5: r.Softshrink(float(lambd)), "silu": a.SiLU, "sigmoid": a.Sigmoid, "tanh": a.Tanh,
    "elu": _elu, "selu": r.SELU, "celu": lambda alpha=1.0: r.CELU(float(alpha)), "log_sigmoid": r.LogSigmoid,
    "mish": a.Mish, "gelu": _gelu,
    "softplus": lambda beta=1.0, threshold=20.0: a.Softplus(float(beta), float(threshold)),
    **{name: functools.partial(a.Function, name) for name in _NAMED},
}  # fmt: skip


OPERATORS.update({f"aten.{name}": _function(make) for name, make in _FUNCTIONS.items()})


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
