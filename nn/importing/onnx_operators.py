"""What each operator of ONNX becomes: a function of its node that adds steps, or refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.errors import UnsupportedError
from nn import activations as a
from nn import functional as f
from nn import layers as ly
from nn import rectifiers as r
from nn import softmax as s
from nn.importing.blockers import refused
from nn.importing.onnx_graph import READ, Node, Value
from nn.importing.onnx_norms import NORMS
from nn.layer import Array, Layer, axis_of
from protocols.trace.activations import SELU_ALPHA, SELU_SCALE

UNBOUNDED = 3e38
"""What exporters write for no bound, and more."""

_BINARY: dict[str, Callable[[], Layer]] = {"Add": f.Add, "Sub": f.Subtract, "Mul": f.Multiply, "Div": f.Multiply}


def _simple(make: Callable[[Node], Layer]) -> Callable[[Node], Value]:
    """Of one tensor, by one layer."""
    return lambda node: node.add(make(node), node.place(0))


def _gemm(node: Node) -> Value:
    node.only("transA", 0, 0)
    alpha, beta = node.take("alpha", 1.0), node.take("beta", 1.0)
    weight = node.constant(1) if node.take("transB", 0) else node.constant(1).T
    if weight.ndim != 2:
        raise refused("its weight is no matrix", READ)
    weights, width = {"weight": weight if alpha == 1 else alpha * weight}, len(weight)
    if node.has(2):
        bias = node.constant(2)
        if bias.size not in (1, width) or bias.shape[-1:] not in ((), (1,), (width,)):
            raise refused("its addend is not one number for each output", READ)
        weights["bias"] = beta * np.broadcast_to(bias.reshape(-1), (width,))
    x = node.place(0)
    return node.add(ly.Linear(weight.shape[1], width, "bias" in weights), x, **weights)


def _matmul(node: Node) -> Value:
    x, y = node.operand(0), node.operand(1)
    if isinstance(x, int) and not isinstance(y, int) and y.ndim == 2:
        return node.add(ly.Linear(y.shape[0], y.shape[1], False), x, weight=y.T)
    if not isinstance(x, int) and not isinstance(y, int):
        raise _folded()
    places = node.place(0), node.place(1)
    if min(map(node.rank, places)) < 2:
        raise refused("one of its operands is no matrix", "make it one, of one row or one column")
    return node.add(f.Matmul(), *places)


def _binary(node: Node) -> Value:
    x, y = node.operand(0), node.operand(1)
    if isinstance(x, int) and isinstance(y, int):
        if node.kind == "Div":
            y = node.add(a.Function("reciprocal"), y)
        return node.add(_BINARY[node.kind](), x, y)
    if not isinstance(x, int) and not isinstance(y, int):
        raise _folded()
    if isinstance(x, int):
        return _with_constant(node, x, np.asarray(y), 0)
    place = node.place(1)
    if node.kind == "Div":
        place = node.add(a.Function("reciprocal"), place)
    return _with_constant(node, place, np.asarray(x), 1)


def _with_constant(node: Node, x: int, c: Array, tensor: int) -> Value:
    """``tensor``: which operand the tensor is; a quotient's has been inverted already if it is the second."""
    if node.kind == "Add" and node.graph.biased(x, c, node.name_of(tensor), node.result):
        return x
    if node.kind == "Div" and tensor == 0:
        if not c.all():
            raise refused("it divides by zero", READ)
        c = 1.0 / c
    if c.size == 1 and c.ndim <= node.rank(x):
        number = float(c.item())
        match node.kind:
            case "Add":
                return node.add(f.Affine(1.0, number), x)
            case "Sub":
                return node.add(f.Affine(-1.0, number) if tensor else f.Affine(1.0, -number), x)
        return node.add(f.Affine(number), x)
    other = node.parameter(c)
    return node.add(_BINARY[node.kind](), *((other, x) if tensor else (x, other)))


def _window(node: Node, kernel: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, ...] | str]:
    """Kernel, stride, and padding: (top, left, bottom, right), or ``"same"`` with the odd zero last."""
    if len(kernel) != 2:
        raise refused(f"its window has {len(kernel)} dimensions: only images, (N, C, H, W), are supported", READ)
    if any(n != 1 for n in node.take("dilations", (1, 1))):
        raise refused("its dilations are not 1", READ)
    strides, pads, auto = node.take("strides", (1, 1)), node.take("pads", (0,) * 4), node.take("auto_pad", "NOTSET")
    if len(strides) != 2 or len(pads) != 4:
        raise refused("its strides and pads are not those of an image", READ)
    odd = all(k % 2 for k in kernel)
    if auto == "SAME_UPPER" or (auto == "SAME_LOWER" and odd):
        return (kernel[0], kernel[1]), (strides[0], strides[1]), "same"
    if auto not in ("NOTSET", "VALID"):
        raise refused(f"its auto_pad {auto!r} is not supported", "export it with pads")
    return (kernel[0], kernel[1]), (strides[0], strides[1]), pads if auto == "NOTSET" else (0,) * 4


def _conv(node: Node) -> Value:
    weight, groups = node.constant(1), node.take("group", 1)
    if weight.ndim != 4 or node.take("kernel_shape", weight.shape[2:]) != weight.shape[2:]:
        raise refused("its weight is not (out, in, height, width)", "export convolutions of images alone")
    kernel, stride, pads = _window(node, weight.shape[2:])
    same = tuple((k - 1) // 2 for k in kernel) + tuple(k // 2 for k in kernel)
    if pads == same and stride == (1, 1):
        pads = "same"
    padding: Any = pads if isinstance(pads, str) else _symmetric(pads)
    weights = {"weight": weight} | ({"bias": node.constant(2)} if node.has(2) else {})
    layer = ly.Conv2d(
        weight.shape[1] * groups, len(weight), kernel, stride, padding, groups=groups, bias="bias" in weights
    )  # fmt: skip
    return node.add(layer, node.place(0), **weights)


def _pool(node: Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    node.only("ceil_mode", 0, 0)
    kernel, stride, pads = _window(node, node.take("kernel_shape", (0, 0)))
    if isinstance(pads, str):
        raise refused("its auto_pad is not supported for a pool", "export it with pads")
    return kernel, stride, _symmetric(pads)


def _average(node: Node) -> Layer:
    counted = bool(node.take("count_include_pad", 0))
    return ly.AvgPool2d(*_pool(node), count_include_pad=counted)


def _maximum(node: Node) -> Layer:
    node.only("storage_order", 0, 0)
    return r.MaxPool2d(*_pool(node))


def _symmetric(pads: tuple[int, ...]) -> tuple[int, int]:
    if pads[:2] != pads[2:]:
        raise refused(f"its pads {pads} differ on two sides", "pad by the same on both sides")
    return pads[0], pads[1]


def _batch_norm(node: Node) -> Value:
    node.only("training_mode", 0, 0)
    node.take("momentum", 0.9)
    names = ("weight", "bias", "running_mean", "running_var")
    weights = {name: node.constant(i) for i, name in enumerate(names, 1)}
    x = node.place(0)
    kind = ly.BatchNorm2d if node.rank(x) == 4 else ly.BatchNorm1d
    return node.add(kind(weights["weight"].size, node.take("epsilon", 1e-5)), x, **weights)


def _clip(node: Node) -> Value:
    x = node.place(0)
    low, high = (_bound(node, i) if node.has(i) else None for i in (1, 2))
    if low is not None and high is not None:
        return node.add(r.ReLU6() if (low, high) == (0, 6) else r.Hardtanh(low, high), x)
    if low is not None:
        above = node.add(r.ReLU(), node.add(f.Affine(1.0, -low), x) if low else x)
        return node.add(f.Affine(1.0, low), above) if low else above
    if high is not None:
        return node.add(f.Affine(-1.0, high), node.add(r.ReLU(), node.add(f.Affine(-1.0, high), x)))
    return x


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
    slopes, x = node.constant(1), node.place(0)
    channels = slopes if slopes.ndim < node.rank(x) else slopes.reshape(slopes.shape[1:] if len(slopes) == 1 else (0,))
    if slopes.size != 1 and (channels.ndim != node.rank(x) - 1 or channels.size != channels.shape[0]):
        raise refused("its slopes are not one, or one for each channel", READ)
    return node.add(r.PReLU(slopes.size), x, weight=slopes.reshape(-1))


def _hard_sigmoid(node: Node) -> Layer:
    alpha, beta = node.take("alpha", 0.2), node.take("beta", 0.5)
    if abs(alpha - 1 / 6) > 1e-6 or beta != 0.5:
        raise refused("its alpha and beta are not 1/6 and 1/2", "use torch.nn.Hardsigmoid, or Clip of a sum")
    return r.Hardsigmoid()


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


def _flatten(node: Node) -> Value:
    x, axis = node.place(0), node.take("axis", 1)
    if axis not in (1, 1 - node.rank(x)):
        raise refused("its axis is not 1: the batch must stay first", "use axis=1")
    return node.add(ly.Flatten(), x)


def _reshape(node: Node) -> Value:
    node.only("allowzero", 0, 0)
    x, shape = node.place(0), node.integers(1)
    first, rest = (shape[0], shape[1:]) if shape else (None, ())
    batch = node.graph.batch
    keeps = first == 0 or (first == -1 and -1 not in rest) or (first is not None and first == batch)
    if not keeps or 0 in rest:
        raise refused(
            f"its shape {shape} does not keep the batch first, with known sizes after it",
            "write x.reshape(x.size(0), ...) with numbers, or torch.flatten(x, 1)",
        )
    return node.add(f.Reshape(rest), x)


def _transpose(node: Node) -> Layer:
    return f.Permute(node.take("perm", tuple(reversed(range(node.rank(node.place(0)))))))


def _concat(node: Node) -> Value:
    places = [node.place(i) for i in range(node.count)]
    return node.add(f.Concatenate(node.take("axis", 0)), *places)


def _mean(node: Node) -> Value:
    x, axes = node.place(0), node.attribute("axes") or ()
    node.only("noop_with_empty_axes", 0, 0)
    axes = node.integers(1) if node.has(1) else axes
    dims = tuple(sorted({axis_of(axis, node.rank(x)) for axis in axes}))
    return node.add(f.Mean(dims, bool(node.take("keepdims", 1))), x)


def _constant(node: Node) -> Value:
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        value = node.attribute(name)
        if value is not None:
            return np.array(value, np.int64 if "int" in name else None)
    raise refused("it holds no numbers that are read", READ)


def _same(node: Node) -> Value:
    return node.operand(0)


def _dropout(node: Node) -> Value:
    node.take("seed", 0)
    if node.has(2):
        raise refused("it says whether it is in training", "export the network in evaluation mode")
    return node.operand(0)


def _folded() -> UnsupportedError:
    return refused("all of its inputs are constants", "fold constants when exporting")


OPERATORS: dict[str, Callable[[Node], Value]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    **dict.fromkeys(_BINARY, _binary),
    "Conv": _conv,
    "AveragePool": _simple(_average),
    "GlobalAveragePool": _simple(lambda node: ly.AdaptiveAvgPool2d()),
    "MaxPool": _simple(_maximum),
    "GlobalMaxPool": _simple(lambda node: r.AdaptiveMaxPool2d()),
    "BatchNormalization": _batch_norm,
    "Relu": _simple(lambda node: r.ReLU()),
    "LeakyRelu": _simple(lambda node: r.LeakyReLU(node.take("alpha", 0.01))),
    "Clip": _clip,
    "PRelu": _prelu,
    "HardSigmoid": _simple(_hard_sigmoid),
    "HardSwish": _simple(lambda node: r.Hardswish()),
    "Sigmoid": _simple(lambda node: a.Sigmoid()),
    "Tanh": _simple(lambda node: a.Tanh()),
    "Softplus": _simple(lambda node: a.Softplus()),
    "Gelu": _simple(_gelu),
    "Mish": _simple(lambda node: a.Mish()),
    "Erf": _simple(lambda node: a.Function("erf")),
    "Elu": _simple(lambda node: r.ELU(node.take("alpha", 1.0))),
    "Celu": _simple(lambda node: r.CELU(node.take("alpha", 1.0))),
    "Selu": _simple(_selu),
    "Softsign": _simple(lambda node: r.Softsign()),
    "Softmax": _simple(lambda node: s.Softmax(node.take("axis", -1))),
    "LogSoftmax": _simple(lambda node: s.LogSoftmax(node.take("axis", -1))),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _simple(_transpose),
    "Concat": _concat,
    "Identity": _same,
    "Dropout": _dropout,
    "Abs": _simple(lambda node: r.Abs()),
    "Neg": _simple(lambda node: f.Affine(-1.0)),
    "ReduceMean": _mean,
    **NORMS,
    "Constant": _constant,
}
"""By operator, of opset 13 and later."""
