"""Where secrets lie among public marks: one-hot vectors, positions, counts, and look-ups at secret places.

Each mark is a comparison; all of a call are made at once, so rounds do not grow with their number.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import RangeError, ShapeError, UnsupportedError, UsageError
from protocols.operations.one_hot import MOST_PLACES
from protocols.trace import mathematics as m
from protocols.trace.arguments import axis_of, numbers, whole
from protocols.trace.ordering import Ordering

MOST_MARKS = 1 << 16


class Counting(Ordering):
    """Base of ``SecretTensor``."""

    __slots__ = ()

    def one_hot(self, depth: int) -> Self:
        """A last axis of ``depth`` more: 1 at the position that this says, else 0; all 0 for one beyond the last.

        Of secret whole numbers from 0 (UnsupportedError else).  Of those up to 1,023, about 8 bytes are dealt for each
        that it can be, 2,344 for 256, and it takes one round, none where the number is an input.  Of larger ones, or
        where ``depth`` is less than a fourth of them, it takes ``depth`` - 1 comparisons.
        """
        depth = whole(depth, "depth")
        _check_whole(self, "one_hot()")
        if not 0 < depth <= MOST_MARKS:
            raise ShapeError(f"a one-hot vector of {depth}")
        places = int(self.type.high) + 1
        count = min(depth, places)
        if places <= min(MOST_PLACES, 4 * depth):
            hot: Any = self._new(m.OneHot(places))
            return _padded(hot[..., :count], depth)  # type: ignore[no-any-return]
        x = _beside(self)
        reached = (x >= np.arange(1.0, min(depth, int(self.type.high)) + 1)) if self.type.high >= 1 else None
        return _padded(_steps(reached, x, count), depth)  # type: ignore[no-any-return]

    def chosen_from(self, table: Any, axis: int = 0) -> Self:
        """What lies at these secret places, whole numbers, of an axis of ``table``; shapes as with ``numpy.take``.

        Any function of small whole numbers is a public table of its values: exact, and one round, in which the number
        is opened, none where it is an input; what is dealt is that for ``one_hot``, whatever the table.  A secret table
        is multiplied: a round more, in which the one-hot vectors are opened; ``np.take(table, places, axis)`` and
        ``table.take(places, axis)`` are the same of it.  Places beyond the axis' end give 0.
        """
        if not isinstance(table, Ordering):
            table = numbers(table)
        axis = axis_of(axis, table.ndim)
        if not table.shape[axis]:
            raise ShapeError("there is nothing to choose from")
        rest = [i for i in range(table.ndim) if i != axis]
        rows = table.transpose([axis, *rest]).reshape((table.shape[axis], -1))
        places: Any = self
        found = places.one_hot(table.shape[axis]).reshape((-1, table.shape[axis])) @ rows
        if rows.size:
            low, high = _ends(rows, 2.0**-found.type.fraction_bits)
            # Nothing lies beyond the end, or 0.
            beyond = self.type.high >= table.shape[axis]
            ends = m.Declare(min(low, 0.0) if beyond else low, max(high, 0.0) if beyond else high)
            found = found._new(ends)
        shape = [table.shape[i] for i in rest]
        found = found.reshape((*places.shape, *shape))
        order = list(range(places.ndim, places.ndim + axis)) + list(range(places.ndim))
        return found.transpose([*order, *range(places.ndim + axis, found.ndim)])  # type: ignore[no-any-return]

    def searchsorted(self, edges: npt.ArrayLike, side: str = "left") -> Self:
        """How many of the public ascending ``edges`` are below each value; ``side="right"``: not above it.  Exact."""
        marks, x = _edges(edges), _beside(self)
        if side not in ("left", "right"):
            raise UsageError("side is 'left' or 'right'")
        return (x > marks if side == "left" else x >= marks).sum(-1)  # type: ignore[no-any-return]

    def histogram(self, bins: npt.ArrayLike) -> Self:
        """How many of all values lie between neighbours of the public ``bins``, edges in ascending order.

        As NumPy counts: each bin with its lower edge and without its upper one, but for the last, which has both.
        """
        marks, x = _edges(bins), _beside(self)
        if marks.size < 2:
            raise UsageError("bins are two edges at least")
        # A unit beyond the last edge, which is its bin's, too: all edges are compared by the same tables.
        unit = 2.0**-self.type.fraction_bits
        beyond = (np.floor(np.clip(marks[-1], self.type.low - unit, self.type.high) / unit) + 1) * unit
        reached = (x >= np.append(marks[:-1], beyond)).reshape((-1, marks.size)).sum(0)
        counted: Any = reached[:-1] - reached[1:]
        return counted.within(0.0, float(self.type.size))  # type: ignore[no-any-return]

    def value_counts(self, candidates: npt.ArrayLike) -> Self:
        """How often each of the public ``candidates`` is among all values; one comparison each, by the same tables."""
        wanted, x = numbers(candidates), _beside(self)
        if wanted.ndim != 1 or not 0 < wanted.size <= MOST_MARKS:
            raise UsageError(f"candidates are 1 to {MOST_MARKS} numbers")
        return (x == wanted).reshape((-1, wanted.size)).sum(0)  # type: ignore[no-any-return]

    def bincount(self, minlength: int) -> Self:
        """How often each of 0, 1, ... ``minlength`` - 1 is among secret whole numbers; larger ones do not count."""
        x: Any = self
        return x.reshape(-1).one_hot(minlength).sum(0)  # type: ignore[no-any-return]


def _ends(table: Any, unit: float) -> tuple[float, float]:
    """Of a table's numbers, secret or public, which are rounded to the unit unless all are whole."""
    if isinstance(table, Ordering):
        whole = not table.type.fraction_bits
        low, high = table.type.low, table.type.high
    else:
        whole = bool((np.rint(table) == table).all())
        low, high = float(table.min()), float(table.max())
    off = 0.0 if whole and unit == 1.0 else unit
    return low - off, high + off


def _padded(found: Any, depth: int) -> Any:
    """With zeros up to ``depth`` along the last axis."""
    missing = depth - found.shape[-1]
    return found.pad([(0, 0)] * (found.ndim - 1) + [(0, missing)]) if missing else found


def _beside(x: Any) -> Any:
    """With a last axis for the marks."""
    return x.expand_dims(-1)


def _steps(reached: Any, x: Any, count: int) -> Any:
    """From [x >= 1], [x >= 2], ... to [x = 0], [x = 1], ..., ``count`` of them."""
    if reached is None:
        return (x * 0 + 1.0).within(1.0, 1.0)
    none = [(0, 0)] * (reached.ndim - 1)
    # [x >= 0] is 1; of a last one that stands for all above it, nothing is taken.
    former = np.pad(reached, [*none, (1, 0)]) + (np.arange(reached.shape[-1] + 1) == 0)
    steps = former - np.pad(reached, [*none, (0, 1)])
    return steps.within(0.0, 1.0)[..., :count]


def _edges(edges: npt.ArrayLike) -> npt.NDArray[np.float64]:
    marks = numbers(edges)
    if marks.ndim != 1 or not 0 < marks.size <= MOST_MARKS or (np.diff(marks) < 0).any():
        raise UsageError(f"edges are 1 to {MOST_MARKS} numbers in ascending order")
    return marks


def _check_whole(x: Ordering, what: str) -> None:
    if x.type.fraction_bits:
        raise UnsupportedError(f"{what} takes secret whole numbers: share them with fraction_bits=0")
    if x.type.low < 0:
        raise RangeError(f"{what} takes whole numbers from 0, not from {x.type.low:g}: declare a tighter range")
