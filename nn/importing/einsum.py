"""Sums over products by Einstein's convention, of one or two tensors: permutations, sums and one product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nn import functional as f
from nn.importing.batch_layout import Layout
from nn.importing.blockers import refused
from nn.importing.building import Building, Known, Tensor, affine, beside, over

_PLAIN = "write it as matmul, permute and sum"


def einsum(graph: Building, equation: str, operands: Sequence[Tensor | Known]) -> Tensor:
    """What ``numpy.einsum`` gives.  Raises UnsupportedError for ellipses, diagonals, and more than two operands."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if "." in given or not 1 <= len(terms) <= 2 or len(terms) != len(operands):
        raise refused("it has ellipses, or more than two operands", _PLAIN)
    if not arrow:
        result = "".join(sorted(c for c in set(given) - {","} if given.count(c) == 1))
    if any(len(set(term)) != len(term) for term in (*terms, result)):
        raise refused("it takes a diagonal", _PLAIN)
    others = set(result) - set(given)
    if others:
        raise refused("its result has an axis that no operand has", _PLAIN)
    own = [_summed(graph, each, term, set(result) | set("".join(terms[:i] + terms[i + 1 :])))
           for i, (each, term) in enumerate(zip(operands, terms, strict=True))]  # fmt: skip
    if len(own) == 1:
        ((x, term),) = own
        return graph.permuted(graph.tensor(x), [term.index(c) for c in result])
    return _product(graph, own[0], own[1], result)


def _summed(graph: Building, x: Tensor | Known, term: str, kept: set[str]) -> tuple[Tensor | Known, str]:
    """Over all axes that nobody else has."""
    gone = [i for i, c in enumerate(term) if c not in kept]
    left = "".join(c for c in term if c in kept)
    if not gone:
        return x, left
    if isinstance(x, Known):
        return Known(np.asarray(x.values).sum(tuple(gone))), left
    if x.layout.axis in gone:
        raise refused("it would mix the images of the batch", "keep the batch in the result")
    count = int(np.prod([x.layout.shape[i] for i in gone]))
    return affine(graph, over(graph, f.Mean(x.layout.places(gone), True), x, gone, keep=False), float(count)), left


def _product(graph: Building, x: tuple[Tensor | Known, str], y: tuple[Tensor | Known, str], result: str) -> Tensor:
    """Matrices of (what both keep, what one keeps, what goes) and (what both keep, what goes, what the other keeps)."""
    (a, left), (b, right) = x, y
    batch = next(term[each.layout.axis] for each, term in (x, y) if isinstance(each, Tensor))
    if any(isinstance(each, Tensor) and term[each.layout.axis] != batch for each, term in (x, y)):
        raise refused("it would mix the images of the batch", "name the batch's axis alike in both")
    if batch not in result:
        raise refused("it would mix the images of the batch", "keep the batch in the result")
    both = [c for c in result if (c in left and c in right) or c == batch]
    rows = [c for c in result if c in left and c not in both]
    columns = [c for c in result if c in right and c not in both]
    gone = [c for c in left if c not in result]
    sizes = {c: n for each, term in (x, y) for c, n in zip(term, _shape(each), strict=True)}
    # The batch's own axis first, so that it stays alone.
    both = [batch, *(c for c in both if c != batch)]
    one = _matrix(graph, a, left, both, [rows, gone], sizes)
    other = _matrix(graph, b, right, both, [gone, columns], sizes)
    shape = [*(sizes[c] for c in both), _count(rows, sizes), _count(columns, sizes)]
    layout = Layout(tuple(shape), 0, 1, 1)
    wide = layout.resized((*shape[:-2], _count(rows, sizes), _count(gone, sizes)))
    tall = layout.resized((*shape[:-2], _count(gone, sizes), _count(columns, sizes)))
    made = graph.add(f.Matmul(), beside(graph, one, wide), beside(graph, other, tall), layout=layout)
    apart = [*both, *rows, *columns]
    whole = graph.laid_out(made, layout.resized(tuple(sizes[c] for c in apart)))
    return graph.permuted(whole, [apart.index(c) for c in result])


def _matrix(
    graph: Building, x: Tensor | Known, term: str, both: list[str], sides: list[list[str]], sizes: dict[str, int]
) -> Tensor | Known:
    """With the axes that both keep first, of size 1 where there is none, and two more."""
    there = [c for c in (*both, *sides[0], *sides[1]) if c in term]
    shape = [*(sizes[c] if c in term else 1 for c in both), *(_count(side, sizes) for side in sides)]
    order = [term.index(c) for c in there]
    if isinstance(x, Known):
        return Known(np.asarray(x.values).transpose(order).reshape(shape))
    turned = graph.permuted(x, order)
    return graph.laid_out(turned, turned.layout._replace(shape=tuple(shape)))


def _count(axes: Sequence[str], sizes: dict[str, int]) -> int:
    return int(np.prod([sizes[c] for c in axes], dtype=np.int64))


def _shape(x: Tensor | Known) -> tuple[int, ...]:
    return x.layout.shape if isinstance(x, Tensor) else tuple(x.values.shape)
