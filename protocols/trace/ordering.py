"""Order among secrets: the largest and where it is, sorting, medians.  NumPy's names, axes and ties.

Few values are compared all with all, at once: how many come before each is its *rank*, and who has which rank is a
second comparison, whatever their number.  Many go through Batcher's network of compare-and-swap (Sorting networks and
their applications, AFIPS 1968): about (log2 n)^2 / 2 levels, but n (log2 n)^2 / 4 comparisons in place of n^2 / 2.
Either way nothing but masked values is opened, and which they are does not depend on any value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from protocols.trace import mathematics as m
from protocols.trace.arguments import Axis, axis_of, numbers, reduced_axes, reduced_shape, whole
from protocols.trace.selection import Selection
from protocols.trace.sizes import MAX_MOVED

MOST_RANKED = 16
"""Values along an axis that are sorted by comparing all with all."""
MOST_AT_ONCE = 8
"""Likewise, of which the largest is found so: in four rounds; of more, by a tournament."""


class TopK(NamedTuple):
    """The largest values along an axis, from the largest on, and their positions."""

    values: Any
    indices: Any


class Ordering(Selection):
    """Base of ``SecretTensor``."""

    __slots__ = ()

    def max(self, axis: Axis = None, keepdims: bool = False) -> Self:
        """The largest value along some axes, by default of all; four rounds for up to 8, else two for each doubling."""
        largest: Self = _extreme(self, axis, keepdims)
        return largest

    def min(self, axis: Axis = None, keepdims: bool = False) -> Self:
        """The smallest value along some axes, as `max`."""
        largest: Self = _extreme(-self, axis, keepdims)
        return -largest

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Self:
        """The position of the largest value along an axis, of several the first; four rounds.

        Of all elements in order where there is no axis.  n (n - 1) / 2 comparisons of n values.
        """
        position: Self = _position(self, axis, keepdims)
        return position

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Self:
        """The position of the smallest value along an axis, of several the first; as `argmax`."""
        position: Self = _position(-self, axis, keepdims)
        return position

    def sort(self, axis: int | None = -1) -> Self:
        """In ascending order along an axis, or all in one; unlike an array's, this makes a new tensor.

        Four rounds for up to 16 values, else two for each of about (log2 n)^2 / 2 levels.
        """
        values: Self = _sorted(self, axis)[0]
        return values

    def argsort(self, axis: int | None = -1) -> Self:
        """Positions in ascending order of the values there, equal ones in their own order."""
        places: Self = _sorted(self, axis, positions=True)[1]
        return places

    def topk(self, k: int, axis: int = -1) -> TopK:
        """The ``k`` largest values along an axis, from the largest on, and their positions; of equal ones the first."""
        x: Any = self
        axis, k = axis_of(axis, x.ndim), whole(k, "k")
        if not 0 <= k <= x.shape[axis]:
            raise ShapeError(f"the {k} largest of {x.shape[axis]} values")
        values, indices = _sorted(-self, axis, positions=True)
        first = (slice(None),) * axis + (slice(k),)
        return TopK(-values[first], indices[first])

    def median(self, axis: int | None = None, keepdims: bool = False) -> Self:
        """The value in the middle, or the mean of the two that are; sorts."""
        return self.quantile(0.5, axis, keepdims)

    def quantile(self, q: Any, axis: int | None = None, keepdims: bool = False) -> Self:
        """Below which a part ``q`` of the values lies, public, between 0 and 1; linear between two values; sorts."""
        x: Any = self if axis is not None else _flat(self, keepdims)
        kept = axis_of(-1 if axis is None else axis, x.ndim)
        parts = numbers(q)
        if not parts.size or not (parts.min() >= 0 and parts.max() <= 1):
            raise UnsupportedError("quantiles are from 0 to 1, one at least")
        count = x.shape[kept]
        if not count:
            raise ShapeError("the quantile of no values")
        place = parts.reshape(-1) * (count - 1)
        weights = np.zeros((count, place.size))
        below = np.minimum(np.floor(place).astype(int), max(count - 2, 0))
        at = np.arange(place.size)
        weights[below, at] += 1 - (place - below)
        weights[np.minimum(below + 1, count - 1), at] += place - below
        ordered = x.sort(kept) if count > 1 else x
        # With a row for each quantile in place of the axis.
        result = _along(ordered, kept, weights)
        moved = [kept, *(i for i in range(x.ndim) if i != kept)]
        shape = (*parts.shape, *reduced_shape(x.shape, (kept,), keepdims))
        return result.transpose(moved).reshape(shape)  # type: ignore[no-any-return]


def _flat(x: Any, keepdims: bool) -> Any:
    return x.reshape((1,) * (x.ndim - 1) + (-1,)) if keepdims and x.ndim else x.reshape(-1)


def _along(x: Any, axis: int, weights: np.ndarray[Any, Any]) -> Any:
    """Sums along an axis, weighted: exactly where a weight is 1."""
    rows = []
    for column in weights.T:
        taken = np.flatnonzero(column)
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        part = x.take(taken, axis)
        exact = column[taken] == 1.0
        rows.append((part if exact.all() else part * column[taken].reshape(shape)).sum(axis, keepdims=True))
    return np.concatenate(rows, axis)


def _last(x: Any, axes: Sequence[int]) -> Any:
    """These axes as one, the last."""
    others = [i for i in range(x.ndim) if i not in axes]
    count = math.prod(x.shape[i] for i in axes)
    return x.transpose([*others, *axes]).reshape((*(x.shape[i] for i in others), count))


def _extreme(x: Any, axis: Axis, keepdims: bool) -> Any:
    axes = reduced_axes(axis, x.ndim)
    rows = _last(x, axes)
    count = rows.shape[-1]
    if not count:
        raise ShapeError("the largest of no values")
    if 4 < count <= MOST_AT_ONCE:
        largest = _ranked((rows * _first(rows)).sum(-1), x)
    else:
        while (half := rows.shape[-1] // 2) > 0:
            winners = rows[..., :half].maximum(rows[..., half : 2 * half])
            rows = np.concatenate([winners, rows[..., 2 * half :]], -1)
        largest = rows[..., 0]
    return largest.reshape(reduced_shape(x.shape, axes, keepdims))


def _position(x: Any, axis: int | None, keepdims: bool) -> Any:
    axes = reduced_axes(axis, x.ndim)
    rows = _last(x, axes)
    count = rows.shape[-1]
    if not count:
        raise ShapeError("the position of the largest of no values")
    found = _first(rows) if count > 1 else rows * 0 + 1.0
    position = (found * np.arange(float(count))).sum(-1).within(0.0, count - 1.0)
    return position.reshape(reduced_shape(x.shape, axes, keepdims))


def _ranked(values: Any, x: Any) -> Any:
    return values._joined(m.Ranked(), values, x)


def _first(rows: Any) -> Any:
    """1 where the largest of the last axis is, of several the first; else 0."""
    return _ranks(-rows) <= 0


def _ranks(rows: Any) -> Any:
    """How many along the last axis come before each: smaller ones, and equal ones that stand before it."""
    count = rows.shape[-1]
    former, later = np.triu_indices(count, 1)
    in_order = rows.take(former, -1) <= rows.take(later, -1)
    # A pair in order comes before the later one; one out of order, before the former one.
    signs = np.zeros((len(former), count))
    signs[np.arange(len(former)), later] = 1.0
    signs[np.arange(len(former)), former] = -1.0
    counted = (in_order @ signs) + np.bincount(former, minlength=count).astype(float)
    return counted.within(0.0, count - 1.0)


def _sorted(x: Any, axis: int | None, *, positions: bool = False) -> tuple[Any, Any]:
    """Sorted, and if asked for, where each came from."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    axis = axis_of(axis, x.ndim)
    rows = _last(x, (axis,))
    count = rows.shape[-1]
    if count <= 1:
        values, places = rows, rows * 0
    elif count <= MOST_RANKED:
        values, places = _by_rank(rows, positions)
    else:
        values, places = _by_network(rows, positions)
    back = list(range(x.ndim - 1))
    back.insert(axis, x.ndim - 1)
    values = _ranked(values, x).transpose(back)
    return values, places.within(0.0, max(count - 1.0, 0.0)).transpose(back) if positions else None


def _by_rank(rows: Any, positions: bool) -> tuple[Any, Any]:
    count = rows.shape[-1]
    ranks = _ranks(rows).expand_dims(-1)
    # A row for each value: whether it comes at place k, or later.
    reached = ranks >= np.arange(1.0, count)
    let = reached * rows.expand_dims(-1)
    none = (0, 0)
    widths = [none] * (rows.ndim - 1)
    before, after = ([*widths, none, pair] for pair in ((1, 0), (0, 1)))
    first = np.pad(rows.expand_dims(-1), [*widths, none, (0, count - 1)])
    values = (np.pad(let, before) + first - np.pad(let, after)).sum(-2)
    if not positions:
        return values, None
    where = np.arange(float(count)).reshape(-1, 1)
    found = (reached * where).sum(-2)
    total = count * (count - 1) / 2
    return values, np.pad(found, [*widths, (1, 0)]) - np.pad(found, [*widths, (0, 1)]) + total * (np.arange(count) == 0)


def _by_network(rows: Any, positions: bool) -> tuple[Any, Any]:
    """Batcher's odd-even merge sort.  What is compared has its position below its last digit, if positions are asked
    for: no two are equal then, and what is carried along with it is moved by the same bits."""
    count = rows.shape[-1]
    levels = (count - 1).bit_length()
    if count * levels * (levels + 1) > MAX_MOVED:
        raise UnsupportedError(
            f"a sort of {count:,} values: its {levels * (levels + 1) // 2} levels have more places than the"
            f" {MAX_MOVED:,} that a program holds; sort parts, or count with histogram(edges)"
        )
    carried = [rows]
    if positions:
        where, zeros = np.arange(float(count)), (rows * 0).within(0.0, 0.0)
        keys = rows * 2.0 ** (count - 1).bit_length() + where * 2.0**-rows.type.fraction_bits
        carried = [keys, rows, zeros + where]
    for lower, upper in _levels(count):
        carried = _exchanged(carried, lower, upper)
    return (carried[1], carried[2]) if positions else (carried[0], None)


def _exchanged(carried: Sequence[Any], lower: Sequence[int], upper: Sequence[int]) -> list[Any]:
    """Each pair of places in order by the first of what is carried, all at once."""
    count = carried[0].shape[-1]
    untouched = sorted({*range(count)} - {*lower, *upper})
    places = np.argsort([*lower, *upper, *untouched])
    swapped: Any = None
    found = []
    for each in carried:
        below, above = each.take(lower, -1), each.take(upper, -1)
        difference = below - above
        swapped = difference > 0 if swapped is None else swapped
        moved = swapped * difference
        parts = [below - moved, above + moved, each.take(untouched, -1)]
        joined = np.concatenate([part.within(each.type.low, each.type.high) for part in parts], -1)
        found.append(joined.take(places, -1))
    return found


def _levels(count: int) -> list[tuple[list[int], list[int]]]:
    """The comparators of each level: places of the lower and of the upper value."""
    levels = []
    width = 1
    while width < count:
        step = width
        while step:
            lower: list[int] = []
            start = step % width
            for first in range(start, count - step, 2 * step):
                places = range(first, min(first + step, count - step))
                lower += [i for i in places if i // (2 * width) == (i + step) // (2 * width)]
            if lower:
                levels.append((lower, [i + step for i in lower]))
            step //= 2
        width *= 2
    return levels
