"""Sums, products, means, and products of matrices.  Needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nn import activations as a
from nn import functional as f
from nn import softmax as s
from nn.attention import ScaledDotProductAttention
from nn.importing.aten.comparing import chosen
from nn.importing.aten.table import operator, single
from nn.importing.blockers import SMOOTH, refused
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
    widest,
)
from nn.importing.export_graph import Graph


@operator("add")
def _add(graph: Graph, x: Any, y: Any, *, alpha: float = 1) -> Tensor:
    if alpha != 1:
        y = _scaled(graph, y, float(alpha))
    for one, other in ((x, y), (y, x)):
        if (number := single(other)) is not None:
            return affine(graph, graph.tensor(one), 1.0, number)
    return binary(graph, f.Add(), *(_lowered(graph, each) for each in (x, y)))


def _lowered(graph: Graph, x: Any) -> Any:
    """A constant that a softmax takes: masks lower no further than counts."""
    if not isinstance(x, Known) or not x.values.is_floating_point() or x.values.numel() == 0:
        return x
    if float(x.values.min()) < -MASKED and graph.feeds_softmax:
        return Known(x.values.clamp(min=-MASKED), x.name)
    return x


@operator("sub")
def _sub(graph: Graph, x: Any, y: Any, *, alpha: float = 1) -> Tensor:
    if alpha != 1:
        y = _scaled(graph, y, float(alpha))
    if (number := single(y)) is not None:
        return affine(graph, graph.tensor(x), 1.0, -number)
    if (number := single(x)) is not None:
        return affine(graph, graph.tensor(y), -1.0, number)
    return binary(graph, f.Subtract(), x, y)


@operator("rsub")
def _rsub(graph: Graph, x: Any, y: Any, alpha: float = 1) -> Tensor:
    return _sub(graph, y, x, alpha=alpha)


@operator("mul")
def _mul(graph: Graph, x: Any, y: Any) -> Tensor:
    for one, other in ((x, y), (y, x)):
        if (number := single(other)) is not None:
            return affine(graph, graph.tensor(one), number)
    return binary(graph, f.Multiply(), x, y)


@operator("div")
def _div(graph: Graph, x: Any, y: Any, *, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise refused("it rounds", SMOOTH)
    if (number := single(y)) is not None:
        return affine(graph, graph.tensor(x), 1.0 / number)
    if isinstance(y, Known):
        return binary(graph, f.Multiply(), x, Known(y.values.double().reciprocal()))
    if (unit := graph.unit_of(x, y)) is not None:
        return unit
    inverse = graph.add(a.Function("reciprocal"), graph.tensor(y), layout=graph.tensor(y).layout)
    return _mul(graph, x, inverse)


@operator("neg")
def _neg(graph: Graph, x: Any) -> Tensor:
    return affine(graph, graph.tensor(x), -1.0)


def _scaled(graph: Graph, x: Any, factor: float) -> Any:
    if isinstance(x, Known):
        return Known(x.values.double() * factor)
    return x * factor if isinstance(x, int | float) else affine(graph, graph.tensor(x), factor)


@operator("square")
def _square(graph: Graph, x: Any) -> Tensor:
    tensor = graph.tensor(x)
    return graph.add(f.Multiply(), tensor, tensor)


@operator("pow")
def _pow(graph: Graph, x: Any, exponent: Any) -> Tensor:
    base = single(x)
    if base is not None:
        return power_of(graph, base, graph.tensor(exponent))
    tensor, number = graph.tensor(x), single(exponent)
    if number is None:
        raise refused("its exponent is secret, or one of several", "use one public exponent")
    return powered(graph, tensor, number)


@operator("masked_fill")
def _masked_fill(graph: Graph, x: Any, mask: Any, value: Any) -> Tensor:
    """x (1 - mask) + value mask, of a mask that depends on no input; else a choice."""
    number = single(value)
    if number is None:
        raise refused("it fills with what is no public number", SMOOTH)
    if isinstance(mask, Tensor):
        return chosen(graph, mask, _filling(graph, number), x)
    tensor, known = graph.tensor(x), graph.known(mask)
    kept = Known(1.0 - known.values.double())
    left = binary(graph, f.Multiply(), tensor, kept)
    filled = Known(known.values.double() * _filling(graph, number))
    return binary(graph, f.Add(), left, filled) if number else left


def _filling(graph: Graph, number: float) -> float:
    """What it fills with, which is lowered no further than counts, where a softmax takes it."""
    if number < -MASKED and graph.feeds_softmax:
        return -MASKED
    if not math.isfinite(number):
        raise refused("it fills with what is not finite, and no softmax takes all of it", "fill with a finite number")
    return number


@operator("where")
def _where(graph: Graph, condition: Any, x: Any, y: Any) -> Tensor:
    """By a condition that depends on no input, or a secret one."""
    if isinstance(condition, Tensor):
        numbers = [x if single(x) is None else _filling(graph, float(single(x) or 0.0)) for x in (x, y)]
        return chosen(graph, condition, *numbers)
    where = graph.known(condition).values.double()
    parts: list[Any] = []
    for value, kept in ((x, where), (y, 1.0 - where)):
        number = single(value)
        if number is not None:
            parts.append(Known(kept * _filling(graph, number)))
        elif isinstance(value, Known):
            parts.append(Known(kept * value.values.double()))
        else:
            parts.append(binary(graph, f.Multiply(), value, Known(kept)))
    return binary(graph, f.Add(), *parts)


@operator("mean")
def _mean(graph: Graph, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    tensor = graph.tensor(x)
    dims = [dim] if isinstance(dim, int) else dim
    if not dims:
        raise refused("it is a mean over the batch too", "name other dimensions than the batch's")
    keep = len(graph.shape) == len(tensor.layout.shape)
    return over(graph, f.Mean(tensor.layout.places(dims), True), tensor, dims, keep=keep)


@operator("sum")
def _sum(graph: Graph, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    tensor = graph.tensor(x)
    dims = [dim] if isinstance(dim, int) else dim
    mean = _mean(graph, x, dims, keepdim)
    return affine(graph, mean, float(math.prod(tensor.layout.shape[d] for d in dims)))


# -- products of matrices ----------------------------------------------------------------------------------------------


@operator("exp2")
def _exp2(graph: Graph, x: Any) -> Tensor:
    return _pow(graph, 2.0, x)


@operator("expm1")
def _expm1(graph: Graph, x: Any) -> Tensor:
    return affine(graph, graph.add(a.Function("exp"), graph.tensor(x)), 1.0, -1.0)


@operator("log1p")
def _log1p(graph: Graph, x: Any) -> Tensor:
    return graph.add(a.Function("log"), affine(graph, graph.tensor(x), 1.0, 1.0))


@operator("log2")
def _log2(graph: Graph, x: Any) -> Tensor:
    return affine(graph, graph.add(a.Function("log"), graph.tensor(x)), 1.0 / math.log(2.0))


@operator("log10")
def _log10(graph: Graph, x: Any) -> Tensor:
    return affine(graph, graph.add(a.Function("log"), graph.tensor(x)), 1.0 / math.log(10.0))


@operator("var")
def _var(graph: Graph, x: Any, dim: Any = None, *rest: Any, **options: Any) -> Tensor:
    """The mean of squares of what is left without the mean; over n - 1 unless another correction is said."""
    return _spread(graph, x, dim, rest, options)


@operator("std")
def _std(graph: Graph, x: Any, dim: Any = None, *rest: Any, **options: Any) -> Tensor:
    found = _spread(graph, x, dim, rest, options)
    return graph.add(a.Function("sqrt"), found, layout=found.layout)


@operator("var_mean")
def _var_mean(graph: Graph, x: Any, dim: Any = None, *rest: Any, **options: Any) -> list[Tensor]:
    return [_spread(graph, x, dim, rest, options), _means(graph, x, dim, rest, options)[1]]


@operator("std_mean")
def _std_mean(graph: Graph, x: Any, dim: Any = None, *rest: Any, **options: Any) -> list[Tensor]:
    return [_std(graph, x, dim, *rest, **options), _means(graph, x, dim, rest, options)[1]]


def _means(graph: Graph, x: Any, dim: Any, rest: Sequence[Any], options: Any) -> tuple[Tensor, Tensor, list[int], bool]:
    """With sizes of 1, and as they are wanted; over which dimensions, and whether these stay."""
    tensor = graph.tensor(x)
    dims = [dim] if isinstance(dim, int) and not isinstance(dim, bool) else dim
    if not dims or isinstance(dims, bool):
        raise refused("it is over the batch too", "name other dimensions than the batch's")
    keep = bool(options.get("keepdim", rest[1] if len(rest) > 1 else False))
    kept = over(graph, f.Mean(tensor.layout.places(dims), True), tensor, dims, keep=True)
    return kept, kept if keep else graph.laid_out(kept, dropped(kept.layout, dims)), dims, keep


def _spread(graph: Graph, x: Any, dim: Any, rest: Sequence[Any], options: Any) -> Tensor:
    tensor = graph.tensor(x)
    mean, _, dims, keep = _means(graph, x, dim, rest, options)
    count = math.prod(tensor.layout.shape[d] for d in dims)
    said = options.get("correction", options.get("unbiased", rest[0] if rest else True))
    correction = 1.0 if said is None else float(said)
    if count <= correction:
        raise refused(f"it is of {count} numbers, and divides by {count - correction:g}", "give it correction=0")
    apart = graph.add(f.Subtract(), tensor, mean, layout=tensor.layout)
    squares = graph.add(f.Multiply(), apart, apart, layout=tensor.layout)
    found = over(graph, f.Mean(tensor.layout.places(dims), True), squares, dims, keep=keep)
    return affine(graph, found, count / (count - correction))


@operator("logsumexp")
def _logsumexp(graph: Graph, x: Any, dim: Any, keepdim: bool = False) -> Tensor:
    return log_sum(graph, graph.tensor(x), [dim] if isinstance(dim, int) else dim, keep=keepdim)


@operator("prod")
def _prod(graph: Graph, x: Any, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    """Halves by halves."""
    if dim is None:
        raise refused("it is over the batch too", "name another dimension than the batch's")
    return product(graph, graph.tensor(x), dim, keep=keepdim)


@operator("_trilinear")
def _trilinear(
    graph: Graph, x: Any, weight: Any, y: Any, expand1: Any, expand2: Any, expand3: Any, sums: Any, unroll: int = 1
) -> Tensor:
    """``nn.Bilinear``: of each pair of numbers of two tensors, what a weight makes of it."""
    held = graph.known(weight).values
    first, other = graph.tensor(x), graph.tensor(y)
    if list(sums) != [len(first.layout.shape), len(first.layout.shape) + 1] or held.ndim != 3:
        raise refused("it is not as nn.Bilinear has it", SMOOTH)
    out, wide, narrow = held.shape
    made = linear(graph, first, Known(held.permute(0, 2, 1).reshape(out * narrow, wide)))
    shape = (*first.layout.shape[:-1], out, narrow)
    apart = graph.laid_out(made, made.layout.resized(shape))
    column = graph.laid_out(other, other.layout.resized((*other.layout.shape, 1)))
    found = graph.add(f.Matmul(), apart, column, layout=apart.layout.resized((*shape[:-1], 1)))
    return graph.laid_out(found, found.layout.resized(shape[:-1]))


@operator("linear")
def _linear(graph: Graph, x: Any, weight: Any, bias: Any = None) -> Tensor:
    return linear(graph, graph.tensor(x), graph.known(weight), None if bias is None else graph.known(bias))


@operator("addmm")
def _addmm(graph: Graph, bias: Any, x: Any, weight: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    held = graph.known(weight)
    if (beta, alpha) != (1, 1) or not isinstance(bias, Known) or bias.values.ndim != 1:
        made = _scaled(graph, _linear(graph, x, Known(held.values.T)), float(alpha))
        return _add(graph, made, _scaled(graph, bias, float(beta)))
    return _linear(graph, x, Known(held.values.T), bias)


@operator("mm", "bmm", "matmul")
def _matmul(graph: Graph, x: Any, y: Any) -> Tensor:
    if isinstance(y, Known) and y.values.numel() == math.prod(y.values.shape[-2:]):
        return graph.reshaped(_linear(graph, x, Known(y.values.reshape(y.values.shape[-2:]).T)), graph.shape)
    layout = widest(x, y)
    if isinstance(x, Known) and x.values.ndim == 2 and layout.axis == len(layout.shape) - 1:
        # Inputs beside each other, as columns.
        order = [*range(layout.axis - 1), layout.axis, layout.axis - 1]
        return graph.permuted(_linear(graph, graph.permuted(y, order), x), order)
    if layout.axis >= len(layout.shape) - 2 or min(len(_sizes(x)), len(_sizes(y))) < 2:
        raise refused("it would mix the images of the batch", "keep the batch first")
    return binary(graph, f.Matmul(), x, y)


def _sizes(x: Any) -> Sequence[int]:
    return x.layout.shape if isinstance(x, Tensor) else tuple(x.values.shape)


@operator("scaled_dot_product_attention")
def _attention(
    graph: Graph, query: Any, key: Any, value: Any, mask: Any = None, dropout: float = 0.0, is_causal: bool = False,
    *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    q, k, v = (graph.tensor(each) for each in (query, key, value))
    if dropout:
        raise refused("it is in training mode even in evaluation", "give it dropout_p=0.0 in evaluation")
    if enable_gqa or len({len(each.layout.shape) for each in (q, k, v)}) > 1:
        raise refused("its heads are shared", "repeat them before")
    if any((each.layout.axis, each.layout.before, each.layout.after) != q.layout[1:] for each in (k, v)):
        raise refused("its operands have the batch in different places", "bring it to the same dimension before")
    count = len(k.layout.shape)
    if q.layout.axis >= count - 2:
        raise refused("it would mix the images of the batch", "keep the batch first")
    made = q.layout.resized(graph.shape)
    lengths = (*q.layout.shape[:-1], k.layout.shape[-2])
    added = None if mask is None else _added(graph.known(mask).values)
    if added is not None and not mask.name:
        # Of no weights, and public as forward is: all is seen, or what comes before.
        before = torch.triu(torch.full(lengths[-2:], -MASKED), 1)
        is_causal = added.shape[-2:] == before.shape and bool((added == before).all())
        added = None if is_causal or not bool(added.any()) else added
    if added is None:
        return graph.add(ScaledDotProductAttention(bool(is_causal), scale), q, k, v, layout=made)
    turned = graph.permuted(k, [*range(count - 2), count - 1, count - 2])
    width = q.layout.shape[-1]
    scores = graph.add(f.Matmul(), affine(graph, q, width**-0.5 if scale is None else scale), turned,
                       layout=q.layout.resized(lengths))  # fmt: skip
    scores = graph.add(f.Add(), scores, beside(graph, Known(added), scores.layout), layout=scores.layout)
    chosen = graph.add(s.Softmax(-1), scores, layout=scores.layout)
    return graph.add(f.Matmul(), chosen, v, layout=made)


def _added(mask: torch.Tensor) -> torch.Tensor:
    """What a mask adds to scores: one of bits lowers what it leaves out."""
    if mask.dtype == torch.bool:
        return torch.where(mask, 0.0, -MASKED)
    return mask.double().clamp(-MASKED, MASKED)
