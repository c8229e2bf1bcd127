"""Convolutions, pools, norms and functions.  Needs torch."""

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


@operator("conv2d")
def _conv2d(
    graph: Graph, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Tensor:  # fmt: skip
    tensor, held = graph.plain(x), graph.known(weight)
    out, each, *kernel = held.values.shape
    shift = None if bias is None else graph.known(bias)
    around: Any = padding if isinstance(padding, str) else _pair(padding)
    layer = ly.Conv2d(
        each * groups, out, (kernel[0], kernel[1]), _pair(stride), around, _pair(dilation), groups, shift is not None
    )
    return graph.add(layer, tensor, weight=held, bias=shift)


@operator("convolution")
def _convolution(
    graph: Graph, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Tensor:  # fmt: skip
    if transposed or len(stride) != 2:
        raise refused("it is no convolution of images", "use Conv2d")
    return _conv2d(graph, x, weight, bias, stride, padding, dilation, groups)


def _pair(value: Any) -> tuple[int, int]:
    parts = [value] if isinstance(value, int) else list(value)
    return (parts[0], parts[-1])


@operator("_native_batch_norm_legit_no_training", "batch_norm", "native_batch_norm", "cudnn_batch_norm")
def _batch_norm(graph: Graph, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> list[Tensor]:
    tensor = graph.plain(x)
    if mean is None or (any(rest[:1]) and isinstance(rest[0], bool)):
        raise refused("it keeps no statistics", "train it with track_running_stats=True")
    eps = float(rest[-1] if isinstance(rest[-1], float) else rest[-2])
    kind = ly.BatchNorm2d if len(tensor.layout.shape) == 4 else ly.BatchNorm1d
    held = {"running_mean": graph.known(mean), "running_var": graph.known(variance)}
    if weight is not None:
        held |= {"weight": graph.known(weight), "bias": graph.known(bias)}
    layer = kind(held["running_mean"].values.numel(), eps, affine=weight is not None)
    return [graph.add(layer, tensor, layout=tensor.layout, **held)]


def _max_pool(
    kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> r.MaxPool2d:
    if ceil_mode or _pair(dilation) != (1, 1):
        raise refused("ceil_mode and dilation are not supported", "use MaxPool2d without them")
    return r.MaxPool2d(_pair(kernel), _pair(stride or kernel), _pair(padding))


@operator("max_pool2d")
def _pooled(graph: Graph, x: Any, *options: Any) -> Tensor:
    return graph.add(_max_pool(*options), graph.plain(x))


@operator("max_pool2d_with_indices")
def _pooled_with_indices(graph: Graph, x: Any, *options: Any) -> list[Tensor]:
    tensor = graph.plain(x)
    return [graph.add(_max_pool(*options), tensor, layout=tensor.layout.resized(graph.shapes[0]))]


@operator("avg_pool2d")
def _avg_pool(
    graph: Graph, x: Any, kernel: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    if divisor_override is not None:
        raise refused("divisor_override is not supported", "leave it out")
    layer = ly.AvgPool2d(_pair(kernel), _pair(stride or kernel), _pair(padding), ceil_mode, count_include_pad)
    return graph.add(layer, graph.plain(x))


@operator("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_avg_pool(graph: Graph, x: Any, size: Any) -> Tensor:
    tensor = graph.plain(x)
    if _pair(size) == tensor.layout.shape[2:]:
        return tensor
    return graph.add(ly.AdaptiveAvgPool2d(_pair(size)), tensor)


@operator("adaptive_max_pool2d")
def _adaptive_max_pool(graph: Graph, x: Any, size: Any) -> list[Tensor]:
    tensor = graph.plain(x)
    return [graph.add(r.AdaptiveMaxPool2d(_pair(size)), tensor, layout=tensor.layout.resized(graph.shapes[0]))]


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


def _clamp_min(low: float) -> Layer:
    if low != 0:
        raise refused(f"its lower bound is {low}", "use relu, or clamp with both bounds")
    return r.ReLU()


_NAMED = ("exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos")

_FUNCTIONS: dict[str, Any] = {
    "relu": r.ReLU, "relu6": r.ReLU6, "hardtanh": _hardtanh, "clamp": _hardtanh, "hardswish": r.Hardswish,
    "hardsigmoid": r.Hardsigmoid, "leaky_relu": lambda slope=0.01: r.LeakyReLU(float(slope)), "abs": r.Abs,
    "softshrink": lambda lambd=0.5: r.Softshrink(float(lambd)), "silu": a.SiLU, "sigmoid": a.Sigmoid, "tanh": a.Tanh,
    "gelu": _gelu, "softplus": lambda beta=1.0, threshold=20.0: a.Softplus(float(beta), float(threshold)),
    "clamp_min": _clamp_min,
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
