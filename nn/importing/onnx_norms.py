"""Operators of ONNX that divide by a norm of their input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from mpc.tensor_type import Shape
from nn import activations as a
from nn import functional as f
from nn import norms as n
from nn.importing.blockers import refused
from nn.importing.building import Tensor, binary, over
from nn.importing.onnx_file import READ
from nn.importing.onnx_nodes import Node, Value
from nn.layer import axis_of


def _last(node: Node, weight: np.ndarray) -> Shape:
    """The axes that are normed over, which are the last ones: as many as the scale has."""
    rank, layout = node.rank(node.place(0)), node.place(0).layout
    count = rank - axis_of(node.take("axis", -1), rank)
    if layout.axis >= rank - count:
        raise refused("it would mix the images of the batch", "keep the batch first")
    shape = weight.shape[-count:]
    if weight.ndim < count or math.prod(weight.shape) != math.prod(shape):
        raise refused("its scale has not the shape of what is normalised", READ)
    return shape


def _layer(node: Node) -> Value:
    node.take("stash_type", 1)
    scale = node.constant(1)
    shape = _last(node, scale)
    weights = {"weight": scale.reshape(shape)}
    if node.has(2):
        weights["bias"] = np.broadcast_to(node.constant(2), shape)
    layer = n.LayerNorm(shape, node.take("epsilon", 1e-5), True, "bias" in weights)
    return node.same(layer, node.place(0), **weights)


def _rms(node: Node) -> Value:
    node.take("stash_type", 1)
    scale = node.constant(1)
    shape = _last(node, scale)
    return node.same(n.RMSNorm(shape, node.take("epsilon", 1e-5)), node.place(0), weight=scale.reshape(shape))


def _instance(node: Node) -> Value:
    x, scale, shift = node.plain(0), node.constant(1), node.constant(2)
    kinds = {3: n.InstanceNorm1d, 4: n.InstanceNorm2d, 5: n.InstanceNorm3d}
    if node.rank(x) not in kinds:
        raise refused("it takes (N, C, L), (N, C, H, W) or one dimension more", READ)
    layer = kinds[node.rank(x)](scale.size, node.take("epsilon", 1e-5), True)
    return node.same(layer, x, weight=scale, bias=shift)


def _group(node: Node) -> Value:
    node.take("stash_type", 1)
    # Until opset 21 there is a number for each group alone: that is not the number of channels, and so refused.
    x, scale, shift, groups = node.plain(0), node.constant(1), node.constant(2), node.take("num_groups", 1)
    return node.same(n.GroupNorm(groups, scale.size, node.take("epsilon", 1e-5)), x, weight=scale, bias=shift)


def _unit(node: Node) -> Value:
    x, order = node.place(0), node.take("p", 2)
    axis = node.take("axis", -1)
    if order == 2:
        return node.same(n.Normalize((x.layout.place(axis),), 0.0), x)
    if order != 1:
        raise refused(f"its p is {order}", "use 1 or 2")
    return divided_by_norm(node, x, axis, "1")


def divided_by_norm(node: Node, x: Tensor, axis: int, order: Literal["1", "2", "inf"]) -> Tensor:
    """Along an axis."""
    norm = over(node.graph, n.Norm((x.layout.place(axis),), True, order), x, [axis], keep=True)
    inverse = node.same(a.Function("reciprocal"), norm)
    return binary(node.graph, f.Multiply(), x, inverse, x.layout.shape)


NORMS: dict[str, Callable[[Node], Value]] = {
    "LayerNormalization": _layer,
    "RMSNormalization": _rms,
    "InstanceNormalization": _instance,
    "GroupNormalization": _group,
    "LpNormalization": _unit,
}
