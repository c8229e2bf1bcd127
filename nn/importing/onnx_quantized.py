"""Numbers of few bits in ONNX: weights are what they stand for, and what depends on the input is not rounded.

What a file rounds on the way is kept as the real number, bounded as its few bits bound it.  By how much that differs is
what the file's own steps come to: it is compared with onnx's reference within them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nn import rectifiers as r
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor, affine, linear
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.importing.onnx_rounded import Rounded
from nn.importing.onnx_windows import convolved
from nn.layer import Array

STEPS = 255
"""Of eight bits."""


def _quantize(node: Node) -> Value:
    node.take("axis", 1)
    node.take("saturate", 1)
    node.take("output_dtype", 0)
    scale = node.constant(1)
    zero = node.known(2) if node.has(2) else np.zeros((), np.uint8)
    return _rounded(node, node.place(0), scale, zero)


def _rounded(node: Node, x: Tensor, scale: Array, zero: np.ndarray) -> Rounded:
    """Bounded as its few bits are."""
    if scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu" or zero.dtype.itemsize > 2:
        raise refused("it rounds each channel by steps of its own, or to no 8 or 16 bits", READ)
    ends, step, at = np.iinfo(zero.dtype), float(scale.item()), int(zero.item())
    bounded = node.same(r.Hardtanh((ends.min - at) * step, (ends.max - at) * step), x)
    node.graph.roundings[bounded.place] = step
    return Rounded(bounded, scale.reshape(()), zero.reshape(()).astype(np.float64))


def _dynamic(node: Node) -> Value:
    """Its scale depends on the input: of numbers that are not rounded, any does."""
    node.graph.roundings[node.place(0).place] = 0.0
    one, none = np.ones(()), np.zeros(())
    return [Rounded(node.place(0), one, none), Known(one), Known(np.zeros((), np.uint8))]


def _dequantize(node: Node) -> Value:
    node.take("axis", 1)
    value, scale = node.value(0), node.constant(1)
    return _real(node, value, scale, _zero(node, 2))


def _real(node: Node, value: Any, scale: Array, zero: Array) -> Tensor:
    """What q stands for by this scale and zero."""
    if not isinstance(value, Rounded):
        raise refused("its input holds no numbers of few bits", READ)
    if scale.size != 1 or zero.size != 1:
        raise refused("its scale is not one number", READ)
    factor = float(scale.item() / value.scale.item())
    # (q - zero) scale, of q = x / its scale + its zero.
    shift = float((value.zero.item() - zero.item()) * scale.item())
    return affine(node.graph, value.tensor, factor, shift)


def _weight(node: Node, i: int, scale: int | None, zero: int) -> Array:
    """Real numbers that whole ones of the file stand for; a row of scales is of the first dimension."""
    values, *parts = _stored(node, i, scale, zero)
    shift, factor = (
        each.reshape(-1, *(1,) * (values.ndim - 1)) if each.ndim == 1 and each.size > 1 else each for each in parts
    )
    return np.asarray((values - shift) * factor)


def _matrix(node: Node, i: int, scale: int | None, zero: int) -> Array:
    """The same of a matrix, whose rows of scales are of its columns."""
    values, shift, factor = _stored(node, i, scale, zero)
    return np.asarray((values - shift) * factor)


def _stored(node: Node, i: int, scale: int | None, zero: int) -> tuple[Array, Array, Array]:
    """Whole numbers, their zero, and their scale: 1 where there is none."""
    return node.known(i).astype(np.float64), _zero(node, zero), np.ones(()) if scale is None else _zero(node, scale)


def _zero(node: Node, i: int) -> Array:
    return node.known(i).astype(np.float64) if node.has(i) else np.zeros(())


def _whole(node: Node, i: int, zero: int) -> Tensor:
    """q less its zero, of input ``i``."""
    return _real(node, node.value(i), np.ones(()), _zero(node, zero))


def _matmul_integer(node: Node) -> Value:
    x, weight = _whole(node, 0, 2), _matrix(node, 1, None, 3)
    return _linear(node, x, weight)


def _linear(node: Node, x: Tensor, matrix: Array) -> Tensor:
    if matrix.ndim != 2 or x.layout.axis == node.rank(x) - 1:
        raise refused("its weight is no matrix, or it would mix the images of the batch", READ)
    return linear(node.graph, x, Known(matrix.T))


def _conv_integer(node: Node) -> Value:
    return convolved(node, node.graph.plain(_whole(node, 0, 2)), {"weight": _weight(node, 1, None, 3)})


def _linear_conv(node: Node) -> Value:
    """QLinearConv: what it is given, its scale and zero; the same of weights, and of what it gives; whole biases."""
    x = node.graph.plain(_real(node, node.value(0), node.constant(1), _zero(node, 2)))
    weights = {"weight": _weight(node, 3, 4, 5)}
    if node.has(8):
        weights["bias"] = node.known(8).astype(np.float64) * node.constant(1).item() * node.constant(4).reshape(-1)
    return _rounded(node, convolved(node, x, weights), node.constant(6), node.known(7))


def _linear_matmul(node: Node) -> Value:
    x = _real(node, node.value(0), node.constant(1), _zero(node, 2))
    return _rounded(node, _linear(node, x, _matrix(node, 3, 4, 5)), node.constant(6), node.known(7))


QUANTIZED: dict[str, Callable[[Node], Value]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _matmul_integer,
    "ConvInteger": _conv_integer,
    "QLinearConv": _linear_conv,
    "QLinearMatMul": _linear_matmul,
}
