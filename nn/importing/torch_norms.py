"""torch's norms, and the layers they become; functions of them take their weights as arguments.  Needs torch."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mpc.errors import UnsupportedError
from nn import layers as ly
from nn import norms as n
from nn.importing.blockers import refused
from nn.layer import Layer

Make = Callable[..., Layer]
Weighted = tuple[Layer, dict[str, Any]]
"""A layer, and its weights by local name."""


def ints(value: Any) -> tuple[int, ...]:
    """One whole number or several, as several.  Raises UnsupportedError for anything else."""
    try:
        values = value if isinstance(value, tuple | list) else (value,)
        return tuple(operator.index(each) for each in values)
    except TypeError:
        raise UnsupportedError(f"its argument {value!r} is not whole numbers") from None


def epsilon_of(m: nn.RMSNorm) -> float:
    """What torch adds: where it is not said, what its numbers can tell from 1."""
    dtype = torch.get_default_dtype() if m.weight is None else m.weight.dtype
    return float(torch.finfo(dtype).eps if m.eps is None else m.eps)


def _instance(own: type[n.InstanceNorm], kept: type[ly.BatchNorm]) -> Make:
    def make(m: Any, **_: Any) -> Layer:
        # With statistics that are kept, it is what a BatchNorm is.
        if m.running_mean is not None:
            return kept(m.num_features, m.eps, affine=m.affine)
        return own(m.num_features, m.eps, m.affine)

    return make


NORM_MODULES: dict[type[nn.Module], Make] = {
    nn.LayerNorm: lambda m, **_: n.LayerNorm(ints(m.normalized_shape), m.eps, m.elementwise_affine, m.bias is not None),
    nn.RMSNorm: lambda m, **_: n.RMSNorm(ints(m.normalized_shape), epsilon_of(m), m.elementwise_affine),
    nn.GroupNorm: lambda m, **_: n.GroupNorm(m.num_groups, m.num_channels, m.eps, m.affine),
    nn.InstanceNorm1d: _instance(n.InstanceNorm1d, ly.BatchNorm1d),
    nn.InstanceNorm2d: _instance(n.InstanceNorm2d, ly.BatchNorm2d),
    nn.InstanceNorm3d: _instance(n.InstanceNorm3d, ly.BatchNorm3d),
    nn.CosineSimilarity: lambda m, **_: n.CosineSimilarity(m.dim, m.eps),
}


def _given(weight: Any, bias: Any) -> dict[str, Any]:
    if weight is None and bias is not None:
        raise refused("it has a bias and no weight", "give it a weight of ones")
    return {name: value for name, value in (("weight", weight), ("bias", bias)) if value is not None}


def _channels(shape: tuple[int, ...] | None, weights: dict[str, Any]) -> int:
    if "weight" in weights:
        return int(weights["weight"].tensor.shape[0])
    if shape is None or len(shape) < 2:
        raise refused("its number of channels is not known", "give from_torch samples, or an example_input")
    return shape[1]


def _both(weights: dict[str, Any]) -> bool:
    if len(weights) == 1:
        raise refused("it has a weight and no bias", "give it a bias of zeros")
    return bool(weights)


def _layer_norm(
    shape: tuple[int, ...] | None, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Weighted:
    weights = _given(weight, bias)
    return n.LayerNorm(ints(normalized_shape), float(eps), "weight" in weights, "bias" in weights), weights


def _rms_norm(
    shape: tuple[int, ...] | None, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Weighted:
    weights = _given(weight, None)
    return n.RMSNorm(ints(normalized_shape), None if eps is None else float(eps), bool(weights)), weights


def _group_norm(
    shape: tuple[int, ...] | None, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Weighted:
    weights = _given(weight, bias)
    return n.GroupNorm(operator.index(num_groups), _channels(shape, weights), float(eps), _both(weights)), weights


def _instance_norm(
    shape: tuple[int, ...] | None, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Weighted:  # fmt: skip
    weights = _given(weight, bias)
    if not use_input_stats:
        raise refused("it is called with statistics that are kept", "use torch.nn.InstanceNorm, or batch_norm")
    kinds = {3: n.InstanceNorm1d, 4: n.InstanceNorm2d, 5: n.InstanceNorm3d}
    if shape is None or len(shape) not in kinds:
        raise refused("its number of dimensions is not known", "give from_torch samples of (N, C, L) or more")
    return kinds[len(shape)](_channels(shape, weights), float(eps), _both(weights)), weights


WEIGHTED_NORMS: dict[Any, Callable[..., Weighted]] = {
    functional.layer_norm: _layer_norm,
    functional.rms_norm: _rms_norm,
    functional.group_norm: _group_norm,
    functional.instance_norm: _instance_norm,
}
"""Functions of a tensor, whose shape comes first, where it is known."""

_ORDERS: dict[Any, Any] = {None: "2", "fro": "2", 2: "2", 1: "1", math.inf: "inf"}


def _norm(p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None, **_: Any) -> Layer:
    if isinstance(p, torch.dtype) or p not in _ORDERS or dtype is not None:
        raise refused(f"its order {p!r} is not supported", "there are 1, 2 and inf, of vectors")
    if dim is None:
        raise refused("a norm over everything would mix the images of the batch", "give it dim=1, or others")
    return n.Norm(ints(dim), bool(keepdim), _ORDERS[p])


def _vector_norm(ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None, **_: Any) -> Layer:
    return _norm(ord, dim, keepdim, dtype)


def _normalize(p: float = 2.0, dim: Any = 1, eps: float = 1e-12, **_: Any) -> Layer:
    if p != 2:
        raise refused(f"its order {p!r} is not supported", "there is p=2")
    return n.Normalize(ints(dim), float(eps))


NORM_FUNCTIONS: dict[Any, Make] = {
    functional.normalize: _normalize,
    torch.norm: _norm,
    "norm": _norm,
    torch.linalg.norm: _vector_norm,
    torch.linalg.vector_norm: _vector_norm,
}


def similarity(x2: Any = None, dim: int = 1, eps: float = 1e-8) -> Layer:
    """What ``functional.cosine_similarity`` is, of its further arguments."""
    return n.CosineSimilarity(operator.index(dim), float(eps))
