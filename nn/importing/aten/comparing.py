"""Comparisons, choices and look-ups at what depends on the input.  Needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mpc.errors import UnsupportedError
from nn import functional as f
from nn import lookups as lk
from nn.importing.aten.table import OPERATORS, operator, single
from nn.importing.blockers import SMOOTH, refused
from nn.importing.building import (
    Known,
    Tensor,
    affine,
    beside,
    binary,
    gathered_at,
    looked_up,
    one_hot,
    over,
    sign,
    widest,
)
from nn.importing.export_graph import Graph, Operator

_TURNED = {"gt": "lt", "lt": "gt", "ge": "le", "le": "ge", "eq": "eq", "ne": "ne"}
_LOOKED_UP = frozenset(f"aten.{name}" for name in ("embedding", "one_hot", "gather", "index", "index_select"))


def _comparison(kind: str) -> Operator:
    def made(graph: Graph, x: Any, y: Any) -> Tensor:
        if (number := single(y)) is not None:
            tensor = graph.tensor(x)
            return graph.add(lk.Compare(kind, number), tensor, layout=tensor.layout)
        if (number := single(x)) is not None:
            tensor = graph.tensor(y)
            return graph.add(lk.Compare(_TURNED[kind], number), tensor, layout=tensor.layout)
        return binary(graph, lk.Compare(kind), x, y)

    return made


OPERATORS |= {f"aten.{kind}": _comparison(kind) for kind in _TURNED}


@operator("logical_not", "bitwise_not")
def _not(graph: Graph, x: Any) -> Tensor:
    return affine(graph, bits(graph, x), -1.0, 1.0)


@operator("logical_and", "bitwise_and")
def _and(graph: Graph, x: Any, y: Any) -> Tensor:
    return binary(graph, f.Multiply(), bits(graph, x), bits(graph, y))


@operator("logical_or", "bitwise_or")
def _or(graph: Graph, x: Any, y: Any) -> Tensor:
    """Unless both are not."""
    neither = [_not(graph, each) if isinstance(each, Tensor) else Known(~each.values.bool()) for each in (x, y)]
    return affine(graph, binary(graph, f.Multiply(), neither[0], neither[1]), -1.0, 1.0)


@operator("logical_xor", "bitwise_xor")
def _xor(graph: Graph, x: Any, y: Any) -> Tensor:
    return binary(graph, lk.Compare("ne"), bits(graph, x), bits(graph, y))


@operator("any")
def _any(graph: Graph, x: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether the largest of bits along dimensions is 1."""
    tensor = graph.tensor(bits(graph, x))
    if dim is None:
        raise refused("it is over everything, the batch too", "name other dimensions than the batch's")
    dims = [dim] if isinstance(dim, int) else dim
    total = over(graph, f.Mean(tensor.layout.places(dims), True), tensor, dims, keep=keepdim)
    count = float(math.prod(tensor.layout.shape[each] for each in dims))
    return graph.add(lk.Compare("gt", 0.5), affine(graph, total, count), layout=total.layout)


def bits(graph: Graph, x: Any) -> Any:
    """What is of 0 and 1; of numbers, whether they are not 0."""
    if isinstance(x, Known):
        return Known(x.values.bool())
    tensor = graph.tensor(x)
    if graph.is_bits(tensor):
        return tensor
    return graph.add(lk.Compare("ne", 0.0), tensor, layout=tensor.layout)


@operator("to", "_to_copy", "type_as")
def _converted(graph: Graph, x: Any, *_: Any, **__: Any) -> Tensor:
    """Another type of numbers: whole ones stay, of others it is only looked up what lies at the whole one below."""
    tensor = graph.tensor(x)
    if graph.dtype == torch.bool:
        return graph.tensor(bits(graph, tensor))
    if not graph.dtype.is_floating_point and graph.was_floating and not graph.feeds(_LOOKED_UP):
        raise refused("it makes whole numbers of its operand", SMOOTH)
    return tensor


@operator("sign", "sgn")
def _sign(graph: Graph, x: Any) -> Tensor:
    return sign(graph, graph.tensor(x))


def chosen(graph: Graph, condition: Tensor, x: Any, y: Any) -> Tensor:
    """x where a secret condition holds, else y; numbers or tensors."""
    filled = [Known(torch.tensor(each)) if isinstance(each, int | float) else each for each in (x, y)]
    like = widest(condition, *filled).resized(graph.shape)
    operands = [beside(graph, each, like) for each in (bits(graph, condition), *filled)]
    return graph.add(lk.Where(), *operands, layout=like)


# -- positions ---------------------------------------------------------------------------------------------------------


def position(graph: Graph, x: Any, dim: Any, keepdim: bool = False, *, smallest: bool = False) -> Tensor:
    """Where along a dimension the largest value is."""
    if dim is None:
        raise refused("it is over everything, the batch too", "name other dimensions than the batch's")
    tensor = graph.tensor(x)
    return over(graph, lk.ArgMax(tensor.layout.place(dim), smallest), tensor, [dim], keep=keepdim)


@operator("argmax")
def _argmax(graph: Graph, x: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    return position(graph, x, dim, keepdim)


@operator("argmin")
def _argmin(graph: Graph, x: Any, dim: Any = None, keepdim: bool = False) -> Tensor:
    return position(graph, x, dim, keepdim, smallest=True)


@operator("one_hot")
def _one_hot(graph: Graph, x: Any, count: int = -1) -> Tensor:
    if count < 1:
        raise refused("it does not say how many places there are", "give it num_classes")
    return one_hot(graph, graph.tensor(x), count)


@operator("embedding")
def _embedding(graph: Graph, weight: Any, places: Any, *_: Any, **__: Any) -> Tensor:
    """At places that are computed, or numbers of the input: one-hot vectors are made of them first."""
    held = graph.known(weight)
    count, width = held.values.shape
    try:
        hot = _one_hot(graph, places, count)
    except UnsupportedError:
        raise refused(f"a table of {count} rows is too long to compare a secret with", _SHARED) from None
    return graph.add(lk.Embedding(count, width), hot, layout=hot.layout.resized(graph.shape), weight=held)


_SHARED = "give samples of whole numbers: they are shared as one-hot vectors then"


def gathered(graph: Graph, x: Any, dim: int, places: Tensor) -> Tensor:
    """At secret places along one dimension, of all others alike: a product with one-hot vectors."""
    if isinstance(x, Known):
        rows = x.values.movedim(dim, 0).flatten(1)
        if not bool((rows == rows[:, :1]).all()):
            raise refused("its rows differ, and each is asked for places of its own", SMOOTH)
        return looked_up(graph, Known(rows[:, 0]), places)
    return gathered_at(graph, graph.tensor(x), dim, places)


def indexed(graph: Graph, x: Any, indices: Sequence[Any]) -> Tensor:
    """``table[places]``, where places depend on the input."""
    if len(indices) != 1 or not isinstance(x, Known):
        raise refused("it takes secret positions of a secret tensor", "use torch.gather along one dimension")
    return looked_up(graph, x, graph.tensor(indices[0]))


@operator("_assert_tensor_metadata")
def _asserted(graph: Graph, x: Any, *_: Any, **__: Any) -> None:
    """Of sizes and types, which are known."""
