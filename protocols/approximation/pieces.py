"""Fits by pieces: any function that is continuous, and smooth but for a few places, on any interval.

Greedily, from the left: each piece is the longest on which a polynomial of a low degree reaches the goal, by
interpolation at Chebyshev points, which errs by hardly more than the best one.  Nothing is searched for: some hundred
interpolations for each piece are all there is to it.  What a function does on less than 1/20000 of its interval,
neither near 0 nor near an end, is not seen, here as in any other fit (``fine_grid``).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import Piece, PiecewiseFit, Reals, fine_grid
from protocols.approximation.goal import Goal

DEGREES = (1, 3, 5)
"""Of the polynomials of pieces; which of them is decided by what it costs in all."""

MOST_PIECES = 48
"""Each costs a comparison, ..."""
THRESHOLD = 12
"""... which is so many times what a coefficient costs."""

INSIDE = 17
"""Points of a piece, evenly spaced, at which it is judged beside those."""
SAMPLE = 512
"""Of many points, so many are looked at first."""

KEPT = (0.9, 0.5)
"""Of the allowed error, what pieces take: the rest is for what lies between those points, and if that is not enough,
more is."""

ROUNDED = 8
"""A centre is a multiple of this part of the piece, so that it is a short number."""

NARROWEST = 2.0**-28
"""Of a piece, as a part of where it starts, or where that is near 0, ..."""
NEAREST = 2.0**-48
"""... of the larger end of the interval.  What jumps finds no piece, and so no fit."""

SHORTEST = 80
"""Binary orders of magnitude below 1, or above, of what is half of a piece."""

PRECISE = 2.0**-10
"""Of its length, how precisely the end of a piece is found, ..."""
HALVINGS = 60
"""... in at most so many halvings of the interval in which it is looked for."""


def by_pieces(function: Callable[[Reals], Reals], low: float, high: float, goal: Goal) -> PiecewiseFit:
    """The cheapest fit by pieces that reaches the goal.  Raises UnsupportedError where it takes too many."""
    for kept in KEPT:
        cut = _Cut(function, low, high, goal, kept)
        ways = [pieces for degree in DEGREES if (pieces := cut.pieces(degree)) is not None]
        if not ways:
            break
        cheapest = min(ways, key=lambda pieces: len(pieces) * THRESHOLD + len(pieces[0].coefficients))
        made = goal.measured(PiecewiseFit(tuple(cheapest), low, high, 0.0), function)
        if goal.judge(made) <= goal.absolute or kept == KEPT[-1]:
            return made
    raise UnsupportedError(f"more than {MOST_PIECES} pieces")


def check_pieces(fit: PiecewiseFit) -> None:
    """Raises UnsupportedError for one that nobody could have made: it may come from a stranger."""
    numbers = [n for piece in fit.pieces for n in (piece.start, piece.centre, *piece.coefficients)]
    if not 1 <= len(fit.pieces) <= MOST_PIECES or not np.isfinite(numbers).all():
        raise UnsupportedError(f"a fit has 1 to {MOST_PIECES} pieces of finite numbers")
    if {len(piece.coefficients) - 1 for piece in fit.pieces} not in ({degree} for degree in DEGREES):
        raise UnsupportedError(f"pieces have one degree of {', '.join(map(str, DEGREES))}")
    starts = fit.starts
    if starts[0] != fit.low or starts[-1] >= fit.high or (np.diff(starts) <= 0).any():
        raise UnsupportedError("pieces start one after the other, the first at the low end")
    for piece, end in zip(fit.pieces, [*starts[1:].tolist(), fit.high], strict=True):
        if not -SHORTEST <= piece.log2 <= SHORTEST or np.abs(piece.place([piece.start, end])).max() > 1:
            raise UnsupportedError(f"a piece from {piece.start:g} to {end:g} is not around its centre")


class _Cut:
    """A function on its interval, of which pieces are cut."""

    def __init__(self, function: Callable[[Reals], Reals], low: float, high: float, goal: Goal, kept: float) -> None:
        self.function, self.low, self.high, self.goal, self.kept = function, low, high, goal, kept
        self.points = fine_grid(low, high)
        self.values = function(self.points)
        self.largest = float(np.abs(self.values).max())

    def pieces(self, degree: int) -> list[Piece] | None:
        """From the left, each as long as it can be; None if these are too many."""
        found: list[Piece] = []
        start, length = self.low, self.high - self.low
        while start < self.high:
            if len(found) == MOST_PIECES:
                return None
            end = self._end(start, 2.0 * length, degree)
            found.append(self._piece(start, end, degree))
            start, length = end, end - start
        return found

    def _end(self, start: float, guess: float, degree: int) -> float:
        """Where the longest piece from ``start`` ends."""
        narrowest = max(NARROWEST * abs(start), NEAREST * max(-self.low, self.high))
        good, bad = narrowest, self.high - start
        if bad <= good or self._is_good(start, self.high, degree):
            return self.high
        while good < guess < bad:
            if self._is_good(start, start + guess, degree):
                good, guess = guess, 2.0 * guess
            else:
                bad, guess = guess, guess / 8.0
        for _ in range(HALVINGS):
            if bad - good <= max(narrowest, PRECISE * good):
                break
            middle = (good + bad) / 2
            if self._is_good(start, start + middle, degree):
                good = middle
            else:
                bad = middle
        # A shorter one does as well: one that ends at a short number, such as 0, where functions have their corners.
        grain = 2.0 ** math.floor(math.log2(good * PRECISE))
        end = grain * math.floor((start + good) / grain)
        return end if end > start else start + good

    def _is_good(self, start: float, end: float, degree: int) -> bool:
        """Whether one piece does from ``start`` to ``end``."""
        piece = self._piece(start, end, degree)
        between = np.linspace(start, end, INSIDE)
        first, last = np.searchsorted(self.points, (start, end))
        step = max(1, (last - first) // SAMPLE)
        sample, rest = slice(first, last, step), slice(first, last)
        return (
            self._meets(piece, between, self.function(between))
            and self._meets(piece, self.points[sample], self.values[sample])
            and (step == 1 or self._meets(piece, self.points[rest], self.values[rest]))
        )

    def _meets(self, piece: Piece, x: Reals, values: Reals) -> bool:
        return bool(np.all(np.abs(piece(x) - values) <= self.kept * self.goal.allowed(values, self.largest)))

    def _piece(self, start: float, end: float, degree: int) -> Piece:
        """The polynomial that meets the function at Chebyshev points."""
        half = (end - start) / 2
        log2 = math.ceil(math.log2(half * (1 + 1 / ROUNDED)))
        grain = 2.0**log2 / ROUNDED
        piece = Piece(start, grain * round((start + half) / grain), log2, ())
        nodes = start + half - half * np.cos(math.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
        powers = np.vander(piece.place(nodes), increasing=True)
        coefficients = np.linalg.solve(powers, self.function(nodes))
        return Piece(start, piece.centre, log2, tuple(coefficients.tolist()))
