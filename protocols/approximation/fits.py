"""What a fit is: coefficients, the interval they were made for, and the maximal error measured over it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

DENSE = 20_001
"""Points at which an error is measured, twice: equally spaced, and clustered at the ends."""

OCTAVES = 24
"""Below the length of an interval, that are looked at around 0 and at the ends, ..."""
EACH = 24
"""... with so many points each."""

POINTS_OF_PIECE = 33
"""More of them, in each piece."""

SMALLEST_ERROR = 2.0**-50
"""Stated where less is measured: the measurement's own rounding.  Fraction bits follow from errors, so never 0."""


class FourierFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="fourier"):
    """``constant + sum_j cosines[j] cos(2 pi j x / period) + sines[j] sin(...)``, j from 1.

    The period is ``2^period_log2 / multiplier``: that is what the angle of a field element can have.
    Outside [low, high] the function goes on with this period, and is not the one that was fitted.
    """

    multiplier: int
    period_log2: int
    constant: float
    cosines: tuple[float, ...]
    sines: tuple[float, ...]
    low: float
    high: float
    error: float
    relative: float | None = None
    """The largest error relative to the function, where that counts: see ``goal.py``."""
    coarse: float = 0.0
    """Of a function that is judged so: the largest magnitude of values that err by more than two thousandths
    of themselves."""

    @property
    def period(self) -> float:
        """In units of x."""
        return 2.0**self.period_log2 / self.multiplier

    @property
    def terms(self) -> int:
        """Frequencies, without the constant."""
        return max(len(self.cosines), len(self.sines))

    @property
    def gain(self) -> float:
        """Sum of the coefficients' magnitudes: what rounding of the dealt waves is multiplied by."""
        return math.fsum(abs(c) for c in (*self.cosines, *self.sines))

    def __call__(self, x: npt.ArrayLike) -> Reals:
        angle = np.asarray(x, dtype=np.float64) * (2 * math.pi / self.period)
        value = np.full(angle.shape, self.constant)
        for j, c in enumerate(self.cosines, start=1):
            value += c * np.cos(j * angle)
        for j, s in enumerate(self.sines, start=1):
            value += s * np.sin(j * angle)
        return value

    def range(self) -> tuple[float, float]:
        """Bounds over a whole period, and so for every x: samples, widened by what the slope allows between."""
        return _range(self)


@functools.lru_cache(1024)
def _range(fit: FourierFit) -> tuple[float, float]:
    """Takes some milliseconds, and a network is planned again and again."""
    values = fit(np.linspace(0.0, fit.period, DENSE))
    slope = sum(
        2 * math.pi / fit.period * j * abs(c) for part in (fit.cosines, fit.sines) for j, c in enumerate(part, start=1)
    )
    slack = slope * fit.period / (2 * (DENSE - 1))
    return float(values.min()) - slack, float(values.max()) + slack


class PolynomialFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="polynomial"):
    """``coefficients[0] + coefficients[1] x + ...`` on [low, high]; outside, it grows without bound."""

    coefficients: tuple[float, ...]
    low: float
    high: float
    error: float
    kind: str = "minimax"
    relative: float | None = None
    coarse: float = 0.0

    @property
    def degree(self) -> int:
        """The highest power."""
        return len(self.coefficients) - 1

    def __call__(self, x: npt.ArrayLike) -> Reals:
        points = np.asarray(x, dtype=np.float64)
        value = np.zeros_like(points)
        for c in reversed(self.coefficients):
            value = value * points + c
        return value


class RootFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="root"):
    """x to the power of -1, -1/2 or 1/2 on an interval above 0, by relative error: a rough y of x^(-1/order) by a fit,
    and a second fit of what is left of it, e = 1 - x y^order, which is small: y P(e), or x y P(e) for the square root.

    Rounding of y does not count, since e is that of the y that there is.  One such step is Newton's iteration, of as
    high an order as the second fit has terms.
    """

    power: Literal["-1", "-1/2", "1/2"]
    start: FourierFit
    correction: FourierFit
    """Of (1 - e)^(-1/order)."""
    low: float
    high: float
    error: float
    relative: float | None = None
    coarse: float = 0.0

    @property
    def order(self) -> int:
        """Of the root that is guessed at."""
        return 1 if self.power == "-1" else 2

    def __call__(self, x: npt.ArrayLike) -> Reals:
        points = np.asarray(x, dtype=np.float64)
        y = self.start(points)
        root = y * self.correction(1.0 - points * y**self.order)
        return np.asarray(points * root if self.power == "1/2" else root)


class CompositeFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="composite"):
    """Fits one after the other, a round each or a few: polynomials of low degree make one of a high degree, and a long
    interval becomes a short one."""

    stages: tuple[PolynomialFit | FourierFit | RootFit, ...]
    low: float
    high: float
    error: float
    relative: float | None = None
    coarse: float = 0.0

    @property
    def degree(self) -> int:
        """The highest power, were its polynomials written as one."""
        return math.prod(stage.degree for stage in self.stages if isinstance(stage, PolynomialFit))

    def __call__(self, x: npt.ArrayLike) -> Reals:
        value = np.asarray(x, dtype=np.float64)
        for stage in self.stages:
            value = stage(value)
        return value


class TailedFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="tails"):
    """Fits side by side, from left to right, so that the function is right on everything: a middle, and lines outside.

    Neighbours overlap: between ``low`` of the one and ``high`` of the other both are right, and either will do, so that
    which of them is taken may be compared roughly, in the fewer bits the longer they overlap.  Where they only touch it
    is compared to the last bit that counts.  ``whole``: fits of one round, from the shortest interval on, any of which
    may be taken in place of the pieces where values stay in it.
    """

    pieces: tuple[FourierFit | PolynomialFit, ...]
    error: float
    relative: float | None = None
    whole: tuple[FourierFit, ...] = ()
    coarse: float = 0.0

    @property
    def low(self) -> float:
        return self.pieces[0].low

    @property
    def high(self) -> float:
        return self.pieces[-1].high

    @property
    def seams(self) -> tuple[tuple[float, float], ...]:
        """From where to where neighbours are both right."""
        return tuple((after.low, before.high) for before, after in pairwise(self.pieces))

    def __call__(self, x: npt.ArrayLike) -> Reals:
        points = np.asarray(x, dtype=np.float64)
        value = self.pieces[0](points)
        for (first, last), piece in zip(self.seams, self.pieces[1:], strict=True):
            value = np.where(points >= (first + last) / 2, piece(points), value)
        return value


class Piece(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A polynomial in t = (x - centre) / 2^log2, which is in [-1, 1] from ``start`` to where the next piece starts."""

    start: float
    centre: float
    log2: int
    coefficients: tuple[float, ...]

    def __call__(self, x: npt.ArrayLike) -> Reals:
        t = self.place(x)
        value = np.zeros_like(t)
        for c in reversed(self.coefficients):
            value = value * t + c
        return value

    def place(self, x: npt.ArrayLike) -> Reals:
        """t, to which x is brought."""
        return np.asarray((np.asarray(x, dtype=np.float64) - self.centre) * 2.0**-self.log2)


class PiecewiseFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="pieces"):
    """Polynomials of one low degree, each from its start to the next one's: comparisons say which.

    The first one starts at ``low``.
    """

    pieces: tuple[Piece, ...]
    low: float
    high: float
    error: float
    relative: float | None = None
    coarse: float = 0.0

    @property
    def starts(self) -> Reals:
        """Of all pieces, ascending."""
        return np.array([piece.start for piece in self.pieces])

    @property
    def degree(self) -> int:
        """Of every piece."""
        return len(self.pieces[0].coefficients) - 1

    def __call__(self, x: npt.ArrayLike) -> Reals:
        points = np.asarray(x, dtype=np.float64)
        which = np.searchsorted(self.starts[1:], points, side="right")
        centres = np.array([piece.centre for piece in self.pieces])
        scales = np.exp2([-float(piece.log2) for piece in self.pieces])
        t = (points - centres[which]) * scales[which]
        value: Reals = np.zeros_like(t)
        for column in np.array([piece.coefficients for piece in self.pieces]).T[::-1]:
            value = value * t + column[which]
        return value


Fit = FourierFit | PolynomialFit | CompositeFit | RootFit | PiecewiseFit | TailedFit

AnyFit = TypeVar("AnyFit", FourierFit, PolynomialFit, CompositeFit, RootFit, PiecewiseFit, TailedFit)


def measured(fit: AnyFit, function: Callable[[Reals], Reals]) -> AnyFit:
    """The fit with its maximal error over its interval, measured on a dense grid."""
    x = grid(fit)
    error = float(np.abs(fit(x) - function(x)).max())
    return msgspec.structs.replace(fit, error=max(error, SMALLEST_ERROR))


@functools.lru_cache(maxsize=256)
def slope(fit: Fit) -> float:
    """The largest slope of a fit on its interval: what an error of x is multiplied by at most."""
    if isinstance(fit, PiecewiseFit):
        ends = [*fit.starts[1:].tolist(), fit.high]
        return max(_steepest(piece, end) for piece, end in zip(fit.pieces, ends, strict=True))
    x = dense_grid(fit.low, fit.high)
    x = x[np.concatenate([[True], np.diff(x) > 1e-9 * (fit.high - fit.low)])]
    # The grid has hundreds of points for the shortest of the waves: between them the slope is hardly larger.
    return 1.01 * float(np.abs(np.diff(fit(x)) / np.diff(x)).max())


@functools.lru_cache(maxsize=256)
def attained(fit: Fit) -> tuple[float, float]:
    """The smallest and the largest value of a fit on its interval, on a dense grid."""
    values = fit(grid(fit))
    return float(values.min()), float(values.max())


def smallest(fit: Fit) -> float:
    """The smallest magnitude of a fit's values on its interval."""
    low, high = attained(fit)
    return max(low, -high, 0.0)


def _steepest(piece: Piece, end: float) -> float:
    """The largest slope of a piece up to ``end``."""
    rise = np.polynomial.Polynomial(piece.coefficients).deriv()
    t = piece.place(np.linspace(piece.start, end, POINTS_OF_PIECE))
    return 1.01 * 2.0**-piece.log2 * float(np.abs(rise(t)).max())


def grid(fit: Fit) -> Reals:
    """Points at which a fit is judged: the fine grid, and some of each of its pieces."""
    fine = fine_grid(fit.low, fit.high)
    if not isinstance(fit, PiecewiseFit):
        return fine
    ends = np.append(fit.starts, fit.high)
    inside = [np.linspace(a, np.nextafter(b, a), POINTS_OF_PIECE) for a, b in pairwise(ends)]
    return np.unique(np.concatenate([fine, *inside]))


@functools.lru_cache(maxsize=32)
def fine_grid(low: float, high: float) -> Reals:
    """The dense grid, and by octaves what is near 0 and near the ends: of a long interval, where functions change."""
    steps = np.exp2(-np.arange(OCTAVES * EACH) / EACH)
    longest, length = max(-low, high), high - low
    fine = np.concatenate([longest * steps, -longest * steps, low + length * steps, high - length * steps])
    grid = np.union1d(dense_grid(low, high), fine[(fine >= low) & (fine <= high)])
    grid.flags.writeable = False
    return grid


@functools.lru_cache(maxsize=32)
def dense_grid(low: float, high: float) -> Reals:
    """Equally spaced and clustered at the ends, where errors of fits are largest."""
    even = np.linspace(low, high, DENSE)
    clustered = (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, math.pi, DENSE))
    grid = np.unique(np.clip(np.concatenate([even, clustered]), low, high))
    grid.flags.writeable = False
    return grid
