"""NumPy's products of tensors: dot, tensordot, einsum and their kin, each a matrix product of reshaped operands."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from protocols.trace.arguments import axis_of
from protocols.trace.numpy_functions import Operand, arrays, broadcast
from protocols.trace.numpy_protocol import registered


@registered(np.dot)
def _dot(a: Operand, b: Operand) -> Any:
    x, y = arrays(a, b)
    if not x.ndim or not y.ndim:
        return x * y
    return x @ y if y.ndim <= 2 else np.tensordot(x, y, (x.ndim - 1, y.ndim - 2))


@registered(np.vdot)
def _vdot(a: Operand, b: Operand) -> Any:
    x, y = arrays(a, b)
    return x.reshape(-1) @ y.reshape(-1)


@registered(np.inner)
def _inner(a: Operand, b: Operand) -> Any:
    x, y = arrays(a, b)
    return np.tensordot(x, y, (-1, -1)) if x.ndim and y.ndim else x * y


@registered(np.outer)
def _outer(a: Operand, b: Operand) -> Any:
    x, y = arrays(a, b)
    return x.reshape(-1, 1) * y.reshape(1, -1)


@registered(np.kron)
def _kron(a: Operand, b: Operand) -> Any:
    x, y = arrays(a, b)
    ndim = max(x.ndim, y.ndim)
    one, other = ((1,) * (ndim - z.ndim) + z.shape for z in (x, y))
    x = x.reshape([n for length in one for n in (length, 1)])
    y = y.reshape([n for length in other for n in (1, length)])
    return (x * y).reshape([n * m for n, m in zip(one, other, strict=True)])


@registered(np.tensordot)
def _tensordot(a: Operand, b: Operand, axes: Any = 2) -> Any:
    x, y = arrays(a, b)
    if isinstance(axes, int):
        axes = (range(x.ndim - axes, x.ndim), range(axes))
    ours, others = ([axis_of(i, z.ndim) for i in np.atleast_1d(chosen)] for z, chosen in zip((x, y), axes, strict=True))
    letters = iter(string.ascii_letters)
    first = [next(letters) for _ in range(x.ndim)]
    shared = dict(zip(others, (first[i] for i in ours), strict=True))
    second = [shared.get(i) or next(letters) for i in range(y.ndim)]
    kept = [c for i, c in enumerate(first) if i not in ours] + [c for i, c in enumerate(second) if i not in shared]
    return _einsum(f"{''.join(first)},{''.join(second)}->{''.join(kept)}", x, y)


@registered(np.einsum)
def _einsum(subscripts: str, *operands: Operand) -> Any:
    """Explicit or implicit, with ``...``; of several operands two at a time, from the left: a round each, if secret."""
    tensors = arrays(*operands)
    terms, result = _subscripts(subscripts, [x.ndim for x in tensors])
    pairs = [_diagonals(x, term) for x, term in zip(tensors, terms, strict=True)]
    (x, labels), *rest = pairs
    while rest:
        (y, others), *rest = rest
        wanted = set(result).union(*(label for _, label in rest))
        x, labels = _contracted(x, labels, y, others, wanted)
    x, labels = _summed(x, labels, set(result))
    return x.transpose([labels.index(c) for c in result]) if result else x


def _subscripts(text: str, ndims: Sequence[int]) -> tuple[list[str], str]:
    """Labels of each operand and of the result, without ``...``."""
    if not isinstance(text, str):
        raise UnsupportedError("einsum of a secret tensor takes its subscripts as text, as in 'ij,jk->ik'")
    given, arrow, result = text.replace(" ", "").partition("->")
    terms = given.split(",")
    if len(terms) != len(ndims):
        raise ShapeError(f"einsum subscripts {text!r} are of {len(terms)} operands, and there are {len(ndims)}")
    # Labels that nobody uses stand for the axes of '...', the last axis first.
    free = [c for c in string.ascii_uppercase + string.ascii_lowercase if c not in text]
    most = 0
    for i, (term, ndim) in enumerate(zip(terms, ndims, strict=True)):
        more = ndim - len(term.replace("...", ""))
        most = max(most, more if "..." in term else 0)
        terms[i] = term.replace("...", "".join(reversed(free[: max(0, more)])), 1)
        if len(terms[i]) != ndim or not all(c in string.ascii_letters for c in terms[i]):
            raise ShapeError(f"einsum subscripts {text!r} do not go with an operand of {ndim} axes")
    broadcast = "".join(reversed(free[:most]))
    if arrow:
        result = result.replace("...", broadcast, 1)
    else:
        letters = "".join(terms)
        result = broadcast + "".join(sorted(c for c in set(letters) - set(broadcast) if letters.count(c) == 1))
    if len(set(result)) != len(result) or not set(result) <= set("".join(terms)):
        raise ShapeError(f"einsum subscripts {text!r} have a result whose labels are not one of each operand's")
    return terms, result


def _diagonals(x: Any, labels: str) -> tuple[Any, str]:
    """Axes of one label become one."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            if x.shape[first] != x.shape[second]:
                raise ShapeError(f"einsum takes the diagonal of axes of {x.shape[first]} and {x.shape[second]}")
            x = x.diagonal(0, first, second)
            labels = "".join(c for i, c in enumerate(labels) if i not in (first, second)) + label
    return x, labels


def _summed(x: Any, labels: str, wanted: set[str]) -> tuple[Any, str]:
    """Without the axes that nobody wants."""
    axes = tuple(i for i, c in enumerate(labels) if c not in wanted)
    return (x.sum(axes) if axes else x), "".join(c for c in labels if c in wanted)


def _contracted(x: Any, labels: str, y: Any, others: str, wanted: set[str]) -> tuple[Any, str]:
    """The product of two, summed over what nobody wants."""
    x, labels = _summed(x, labels, wanted | set(others))
    y, others = _summed(y, others, wanted | set(labels))
    sizes: dict[str, int] = {}
    for label, n in (*zip(labels, x.shape, strict=True), *zip(others, y.shape, strict=True)):
        if sizes.setdefault(label, n) != n and 1 not in (sizes[label], n):
            raise ShapeError(f"einsum meets axes of {sizes[label]} and {n} under one label")
        sizes[label] = max(sizes[label], n) if n else 0
    shared = [c for c in labels if c in others]
    batch, inner = [c for c in shared if c in wanted], [c for c in shared if c not in wanted]
    ours, theirs = ([c for c in these if c not in shared] for these in (labels, others))
    x = _arranged(x, labels, [batch, ours, inner], sizes)
    y = _arranged(y, others, [batch, inner, theirs], sizes)
    product = x @ y if inner else x * y
    return product.reshape([sizes[c] for c in (*batch, *ours, *theirs)]), "".join((*batch, *ours, *theirs))


def _arranged(x: Any, labels: str, groups: Sequence[Sequence[str]], sizes: dict[str, int]) -> Any:
    """Axes in the order of the groups, each group as one axis."""
    x = x.transpose([labels.index(c) for group in groups for c in group]) if labels else x
    shape = tuple(sizes[c] for group in groups for c in group)
    x = x if x.shape == shape else broadcast(x, shape)
    return x.reshape([math.prod(sizes[c] for c in group) for group in groups])
