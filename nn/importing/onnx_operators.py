"""What each operator of ONNX becomes: a function of its node that adds steps, or refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from nn import activations as a
from nn import choosing as c
from nn import functional as f
from nn import lookups as lk
from nn import rectifiers as r
from nn import softmax as s
from nn.importing.blockers import refused
from nn.importing.building import (
    MASKED,
    Known,
    Tensor,
    affine,
    beside,
    binary,
    dropped,
    linear,
    log_sum,
    over,
    power_of,
    powered,
    product,
    sign,
    widest,
)
from nn.importing.onnx_choosing import CHOICES
from nn.importing.onnx_file import READ
from nn.importing.onnx_ml import MACHINE_LEARNING
from nn.importing.onnx_nodes import Node, Value
from nn.importing.onnx_norms import NORMS
from nn.importing.onnx_quantized import QUANTIZED
from nn.importing.onnx_recurrent import RECURRENT
from nn.importing.onnx_shapes import SHAPES
from nn.importing.onnx_windows import WINDOWS
from nn.layer import Array, Layer
from nn.norms import Norm
from protocols.trace.activations import SELU_ALPHA, SELU_SCALE

UNBOUNDED = 3e38
"""What exporters write for no bound, and more."""

_BINARY: dict[str, Callable[[], Layer]] = {
    "Add": f.Add,
    "Sum": f.Add,
    "Sub": f.Subtract,
    "Mul": f.Multiply,
    "Div": f.Multiply,
    "Max": f.Maximum,
    "Min": f.Minimum,
}


def _simple(make: Callable[[Node], Layer]) -> Callable[[Node], Value]:
    """Of one tensor, by one layer that changes no sizes."""
    return lambda node: node.same(make(node), node.place(0))


def _along(make: Callable[[int], Layer]) -> Callable[[Node], Value]:
    """Of one tensor, along a dimension, by default the last."""

    def add(node: Node) -> Value:
        x = node.place(0)
        return node.same(make(x.layout.place(node.take("axis", -1))), x)

    return add


# -- sums and products -------------------------------------------------------------------------------------------------


def _gemm(node: Node) -> Value:
    node.only("transA", 0, 0)
    alpha, beta = node.take("alpha", 1.0), node.take("beta", 1.0)
    weight = node.constant(1) if node.take("transB", 0) else node.constant(1).T
    if weight.ndim != 2:
        raise refused("its weight is no matrix", READ)
    width, bias = len(weight), None
    if node.has(2):
        added = node.constant(2)
        if added.size not in (1, width) or added.shape[-1:] not in ((), (1,), (width,)):
            raise refused("its addend is not one number for each output", READ)
        bias = Known(beta * np.broadcast_to(added.reshape(-1), (width,)))
    return linear(node.graph, node.place(0), Known(weight if alpha == 1 else alpha * weight), bias)


def _matmul(node: Node) -> Value:
    x, y = node.operand(0), node.operand(1)
    if isinstance(x, Tensor) and isinstance(y, Known) and y.values.ndim == 2:
        return linear(node.graph, x, Known(y.values.T))
    if isinstance(x, Tensor) and isinstance(y, Known) and y.values.ndim == 1:
        found = linear(node.graph, x, Known(y.values[None]))
        return node.graph.laid_out(found, dropped(found.layout, [-1]))
    if min(_rank(x), _rank(y)) < 2:
        raise refused("one of its operands is no matrix", "make it one, of one row or one column")
    layout = widest(x, y)
    if layout.axis >= len(layout.shape) - 2:
        raise refused("it would mix the images of the batch", "keep the batch first")
    return binary(node.graph, f.Matmul(), x, y)


def _rank(x: Tensor | Known) -> int:
    return len(x.layout.shape) if isinstance(x, Tensor) else int(x.values.ndim)


def _binary(node: Node) -> Value:
    x, y = node.operand(0), node.operand(1)
    if isinstance(y, Tensor) and node.kind == "Div":
        y = node.same(a.Function("reciprocal"), y)
    if isinstance(x, Tensor) and isinstance(y, Known):
        return _with_constant(node, x, y.values, 0)
    if isinstance(y, Tensor) and isinstance(x, Known):
        return _with_constant(node, y, x.values, 1)
    known = _less(node, x, y)
    return _of_two(node, x, y) if known is None else known


def _of_two(node: Node, x: Tensor | Known, y: Tensor | Known) -> Tensor:
    """With the sizes that broadcasting gives."""
    shapes = [each.layout.shape if isinstance(each, Tensor) else each.values.shape for each in (x, y)]
    return binary(node.graph, _BINARY[node.kind](), x, y, np.broadcast_shapes(*shapes))


def _with_constant(node: Node, x: Tensor, c: Array, tensor: int) -> Value:
    """``tensor``: which operand the tensor is; a quotient's has been inverted already if it is the second."""
    graph = node.graph
    if node.kind == "Add":
        if graph.biased(x, c, node.proto.input[tensor]):
            return x
        if c.size and c.min() < -MASKED and graph.feeds_softmax(node.result):
            c = np.maximum(c, -MASKED)
    if node.kind == "Div" and tensor == 0:
        if not c.all():
            raise refused("it divides by zero", READ)
        c = 1.0 / c
    if c.size == 1 and c.ndim <= node.rank(x) and node.kind not in ("Max", "Min"):
        number = float(c.item())
        match node.kind:
            case "Add":
                return affine(graph, x, 1.0, number)
            case "Sub":
                return affine(graph, x, -1.0, number) if tensor else affine(graph, x, 1.0, -number)
        return affine(graph, x, number)
    return _of_two(node, *((Known(c), x) if tensor else (x, Known(c))))


def _several(node: Node) -> Value:
    """``Sum``, ``Max`` and ``Min`` of any number of operands."""
    result = node.operand(0)
    for i in range(1, node.count):
        other = node.operand(i)
        if isinstance(result, Known) and isinstance(other, Known):
            raise refused("several of its inputs are constants", "fold them when exporting")
        result = _of_two(node, result, other)
    return result


def _power(node: Node) -> Value:
    x = node.operand(0)
    if isinstance(x, Known):
        return power_of(node.graph, node.number(0), node.place(1))
    return powered(node.graph, x, node.number(1))


# -- comparisons -------------------------------------------------------------------------------------------------------

_COMPARED = {"Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le", "Equal": "eq"}
_TURNED = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge", "eq": "eq"}


def _compared(node: Node) -> Value:
    kind, x, y = _COMPARED[node.kind], node.value(0), node.value(1)
    x, y = (Known(e.values.astype(np.float64)) if isinstance(e, Known) else node.graph.as_tensor(e) for e in (x, y))
    for one, other, own in ((x, y, kind), (y, x, _TURNED[kind])):
        if isinstance(one, Tensor) and isinstance(other, Known) and other.values.size == 1:
            return node.same(lk.Compare(own, float(other.values.item())), one)
    return binary(node.graph, lk.Compare(kind), x, y)


def _where(node: Node) -> Value:
    condition, graph = node.value(0), node.graph
    operands = []
    for i in (1, 2):
        value = node.operand(i)
        if isinstance(value, Known):
            value = Known(_lowered(node, value.values))
        operands.append(value)
    x, y = operands
    if isinstance(condition, Known):
        # x where it is 1, y where it is 0; numbers of 0 are left out.
        kept = condition.values.astype(np.float64)
        parts = [
            Known(each.values * own)
            if isinstance(each, Known)
            else binary(graph, f.Multiply(), each, Known(own), np.broadcast_shapes(each.layout.shape, own.shape))
            for each, own in ((x, kept), (y, 1.0 - kept))
        ]
        for one, other in (parts, parts[::-1]):
            if isinstance(other, Known) and not other.values.any() and isinstance(one, Tensor):
                return one
        return binary(graph, f.Add(), parts[0], parts[1])
    like = widest(condition, *(each for each in (x, y) if isinstance(each, Tensor))).resized(graph.shape)
    return graph.add(lk.Where(), *(beside(graph, each, like) for each in (condition, x, y)), layout=like)


def _lowered(node: Node, values: Array) -> Array:
    """What is filled in, which is lowered no further than counts, where a softmax takes it."""
    if values.size and values.min() < -MASKED and node.graph.feeds_softmax(node.result):
        values = np.maximum(values, -MASKED)
    if not np.isfinite(values).all():
        raise refused("it fills with what is not finite, and no softmax takes all of it", "fill with a finite number")
    return values


def _not(node: Node) -> Value:
    return affine(node.graph, node.place(0), -1.0, 1.0)


def _both(node: Node) -> Value:
    """Of 0 and 1: And, Or and Xor."""
    operands = [node.value(i) for i in (0, 1)]
    x, y = (Known(e.values.astype(np.float64)) if isinstance(e, Known) else e for e in operands)
    if node.kind == "Xor":
        return binary(node.graph, lk.Compare("ne"), x, y)
    if node.kind == "And" and any(isinstance(e, Known) and not e.values.any() for e in (x, y)):
        return Known(np.zeros((1,) * max(_rank(x), _rank(y)), bool))
    if node.kind == "And":
        return binary(node.graph, f.Multiply(), x, y)
    x, y = (Known(1.0 - e.values) if isinstance(e, Known) else affine(node.graph, e, -1.0, 1.0) for e in (x, y))
    return affine(node.graph, binary(node.graph, f.Multiply(), x, y), -1.0, 1.0)


def _no_number(node: Node) -> Value:
    """What is computed here is always one."""
    node.take("detect_negative", 1)
    node.take("detect_positive", 1)
    return Known(np.zeros((1,) * node.rank(node.place(0)), bool))


def _cast(node: Node) -> Value:
    kind = node.take("to", 1)
    node.take("saturate", 1)
    x = node.place(0)
    if kind in _REAL_KINDS:
        return x
    before = node.graph.kind_of(node.proto.input[0])
    if before in _REAL_KINDS:
        if kind == _BOOL:
            return node.same(lk.Compare("ne", 0.0), x)
        raise refused("it makes whole numbers of its operand", "leave it out")
    return x


_REAL_KINDS = (1, 10, 11, 16)
_BOOL = 9


# -- bounds ------------------------------------------------------------------------------------------------------------


def _clip(node: Node) -> Value:
    x = node.place(0)
    low, high = (_bound(node, i) if node.has(i) else None for i in (1, 2))
    if low is not None and high is not None:
        return node.same(r.ReLU6() if (low, high) == (0, 6) else r.Hardtanh(low, high), x)
    if low == 0:
        return node.same(r.ReLU(), x)
    return x if low is None and high is None else node.same(c.Clamp(low, high), x)


def _bound(node: Node, i: int) -> float | None:
    value = node.constant(i)
    if value.size != 1:
        raise refused("its bounds are not single numbers", READ)
    number = float(value.item())
    if abs(number) < UNBOUNDED:
        return number
    if (number < 0) is not (i == 1):
        raise refused("it leaves no number as it is", READ)
    return None


def _prelu(node: Node) -> Value:
    slopes, x = node.constant(1), node.plain(0)
    channels = slopes if slopes.ndim < node.rank(x) else slopes.reshape(slopes.shape[1:] if len(slopes) == 1 else (0,))
    if slopes.size != 1 and (channels.ndim != node.rank(x) - 1 or channels.size != channels.shape[0]):
        raise refused("its slopes are not one, or one for each channel", READ)
    return node.same(r.PReLU(slopes.size), x, weight=slopes.reshape(-1))


def _hard_sigmoid(node: Node) -> Value:
    alpha, beta = node.take("alpha", 0.2), node.take("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return node.same(r.Hardsigmoid(), node.place(0))
    return node.same(r.Hardtanh(0.0, 1.0), affine(node.graph, node.place(0), alpha, beta))


def _gelu(node: Node) -> Layer:
    approximate = node.take("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise refused("its approximate is not 'none' or 'tanh'", READ)
    return a.GELU(approximate=approximate)  # type: ignore[arg-type]


def _selu(node: Node) -> Layer:
    ours = ("alpha", SELU_ALPHA), ("gamma", SELU_SCALE)
    if any(abs(node.take(name, value) - value) > 1e-6 for name, value in ours):
        raise refused("its alpha and gamma are not SELU's", "use Elu, and multiply")
    return r.SELU()


def _reduced(make: Callable[[tuple[int, ...]], Layer]) -> Callable[[Node], Value]:
    """Over dimensions, by a layer that keeps them."""

    def add(node: Node) -> Value:
        node.only("noop_with_empty_axes", 0, 0)
        x = node.place(0)
        axes = node.axes(1, x)
        return over(node.graph, make(x.layout.places(axes)), x, axes, keep=bool(node.take("keepdims", 1)))

    return add


def _sum(node: Node) -> Value:
    x = node.place(0)
    axes = node.axes(1, x)
    count = math.prod(x.layout.shape[axis] for axis in axes)
    node.only("noop_with_empty_axes", 0, 0)
    if node.kind == "ReduceSumSquare":
        x = node.add(f.Multiply(), x, x, layout=x.layout)
    mean = over(node.graph, f.Mean(x.layout.places(axes), True), x, axes, keep=bool(node.take("keepdims", 1)))
    return affine(node.graph, mean, float(count))


def _log_sum(node: Node) -> Value:
    x = node.place(0)
    axes = node.axes(1, x)
    found = log_sum(node.graph, x, axes, keep=bool(node.take("keepdims", 1)))
    if len(axes) == 1:
        node.graph.log_sums[found.place] = (x.place, x.layout.place(axes[0]))
    return found


def _less(node: Node, x: Tensor | Known, y: Tensor | Known) -> Tensor | None:
    """x less the logarithm of the sum of its exponentials, which is its log-softmax, and bounded as that is."""
    if node.kind != "Sub" or not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return None
    place, steps = y.place, node.graph.steps
    while place and place not in node.graph.log_sums and isinstance(steps[place - 1].layer, f.Reshape):
        place = steps[place - 1].inputs[0]
    of, axis = node.graph.log_sums.get(place, (-1, 0))
    return node.same(s.LogSoftmax(axis), x) if of == x.place else None


def _exponential(node: Node) -> Value:
    x = node.place(0)
    step = node.graph.steps[x.place - 1] if x.place else None
    if step is not None and isinstance(step.layer, s.LogSoftmax):
        return node.same(s.Softmax(step.layer.dim), Tensor(step.inputs[0], x.layout))
    return node.same(a.Function("exp"), x)


def _log_of_sum(node: Node) -> Value:
    total = _sum(node)
    return node.same(a.Function("log"), total)


def _whole_product(node: Node) -> Value:
    node.only("noop_with_empty_axes", 0, 0)
    x, keep = node.place(0), bool(node.take("keepdims", 1))
    axes = node.axes(1, x)
    for axis in axes:
        x = product(node.graph, x, axis, keep=True)
    return x if keep else node.graph.laid_out(x, dropped(x.layout, axes))


def _position(node: Node) -> Value:
    node.only("select_last_index", 0, 0)
    x, axis = node.place(0), node.take("axis", 0)
    layer = lk.ArgMax(x.layout.place(axis), node.kind == "ArgMin")
    return over(node.graph, layer, x, [axis], keep=bool(node.take("keepdims", 1)))


def _running_sum(node: Node) -> Value:
    node.only("exclusive", 0, 0)
    node.only("reverse", 0, 0)
    x = node.place(0)
    return node.same(c.CumSum(x.layout.place(int(node.number(1)))), x)


def _shrink(node: Node) -> Layer:
    lambd, bias = node.take("lambd", 0.5), node.take("bias", 0.0)
    if bias not in (0, lambd):
        raise refused("its bias is not 0 or its lambd", READ)
    return r.Softshrink(lambd) if bias else c.Hardshrink(lambd)


def _sign(node: Node) -> Value:
    return sign(node.graph, node.place(0))


def _constant(node: Node) -> Value:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        value = node.attribute(name)
        if value is not None:
            return Known(np.asarray(value, np.int64 if "int" in name else None))
    raise refused("it holds no numbers that are read", READ)


def _same(node: Node) -> Value:
    return node.value(0)


def _dropout(node: Node) -> Value:
    node.take("seed", 0)
    if node.has(2) and node.number(2):
        raise refused("it is in training mode", "export the network in evaluation mode")
    return node.value(0)


_FUNCTIONS = ("exp", "log", "sqrt", "reciprocal", "sin", "cos", "erf")

OPERATORS: dict[str, Callable[[Node], Value]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _binary),
    **dict.fromkeys(("Sum", "Max", "Min"), _several),
    "Pow": _power,
    **dict.fromkeys(_COMPARED, _compared),
    "Where": _where,
    "Not": _not,
    **dict.fromkeys(("And", "Or", "Xor"), _both),
    **dict.fromkeys(("IsNaN", "IsInf"), _no_number),
    "Cast": _cast,
    **WINDOWS,
    "Relu": _simple(lambda node: r.ReLU()),
    "LeakyRelu": _simple(lambda node: r.LeakyReLU(node.take("alpha", 0.01))),
    "ThresholdedRelu": _simple(lambda node: c.Threshold(node.take("alpha", 1.0), 0.0)),
    "Shrink": _simple(_shrink),
    "Clip": _clip,
    "PRelu": _prelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _simple(lambda node: r.Hardswish()),
    "Sigmoid": _simple(lambda node: a.Sigmoid()),
    "Tanh": _simple(lambda node: a.Tanh()),
    "Softplus": _simple(lambda node: a.Softplus()),
    "Gelu": _simple(_gelu),
    "Mish": _simple(lambda node: a.Mish()),
    "Elu": _simple(lambda node: r.ELU(node.take("alpha", 1.0))),
    "Celu": _simple(lambda node: r.CELU(node.take("alpha", 1.0))),
    "Selu": _simple(_selu),
    "Softsign": _simple(lambda node: r.Softsign()),
    **{name.capitalize(): _simple(lambda node, name=name: a.Function(name)) for name in _FUNCTIONS},  # type: ignore[misc]
    "Exp": _exponential,
    "Softmax": _along(s.Softmax),
    "LogSoftmax": _along(s.LogSoftmax),
    **SHAPES,
    "Identity": _same,
    "Dropout": _dropout,
    "Abs": _simple(lambda node: r.Abs()),
    "Neg": lambda node: affine(node.graph, node.place(0), -1.0),
    "Sign": _sign,
    "CumSum": _running_sum,
    **dict.fromkeys(("ArgMax", "ArgMin"), _position),
    "ReduceMean": _reduced(lambda axes: f.Mean(axes, True)),
    "ReduceMax": _reduced(lambda axes: c.Amax(axes, True)),
    "ReduceMin": _reduced(lambda axes: c.Amin(axes, True)),
    "ReduceL1": _reduced(lambda axes: Norm(axes, True, "1")),
    "ReduceL2": _reduced(lambda axes: Norm(axes, True, "2")),
    **dict.fromkeys(("ReduceSum", "ReduceSumSquare"), _sum),
    "ReduceLogSumExp": _log_sum,
    "ReduceLogSum": _log_of_sum,
    "ReduceProd": _whole_product,
    **CHOICES,
    **NORMS,
    **RECURRENT,
    **QUANTIZED,
    **MACHINE_LEARNING,
    "Constant": _constant,
}
"""By operator, of opset 13 and later; those of another domain with its name."""
