"""Fits with the least maximal error: trigonometric polynomials and polynomials, of a size or to an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import FourierFit, PolynomialFit, Reals, dense_grid, measured
from protocols.approximation.goal import ABSOLUTE, Goal
from protocols.approximation.linear_program import Basis, best
from protocols.approximation.sampling import checked

MAX_TERMS = 32
MAX_DEGREE = 31
MAX_MULTIPLIER = 63
LARGEST_COEFFICIENT = 7.9
"""Of a Fourier fit: sine and cosine of one term together stay below 8, see ``protocols/operations/fourier.py``."""

GAIN_PRICE = 2.0**-24
"""The dealt sines have up to 24 fraction bits: what their rounding adds to the error, per unit of a coefficient."""

SHORTEST_PERIOD = 1.005
LONGEST_PERIOD = 2.5
"""Of a period, in lengths of the interval."""

CANDIDATES = 3
"""Periods that look best by least squares, and are worth a linear program: up to ``FEW`` terms, and beyond it one."""

FEW = 16

STRIDE = 4
"""Periods of which one is looked at, before those around the best."""

SAMPLES = 60
SAMPLES_EACH = 6
"""Points of least squares, and more of them for each coefficient."""

WORTH_A_PROGRAM = 4.0
"""Least squares that miss the error by more are not worth a linear program: it gains a factor of 3 at most."""

RIDGES = (1e-7, 1e-4, 1e-2, 1.0)
"""Strengths that keep the coefficients of those least squares small: the first that keeps them small enough."""

NEARLY = 0.99
"""What is shown on a sample is taken for shown of the interval up to this factor."""

DEGREES = (1, 2, 3, 5, 7, 9, 11, 15, 19, 23, 27, MAX_DEGREE)
"""Sizes tried in turn, before those in between."""

_AnyFit = TypeVar("_AnyFit", FourierFit, PolynomialFit)


def fit_fourier(
    function: Callable[[Reals], object], low: float, high: float, terms: int, *, odd: bool = False
) -> FourierFit:
    """The best trigonometric polynomial of ``terms`` terms among those of admissible periods.

    ``odd``: the function is odd about (0, f(0)) and the interval symmetric: sines alone, fitted on one half.
    Raises UnsupportedError for a function or an interval that cannot be fitted.
    """
    return Fourier(function, low, high, odd).best(terms)


def fourier_within(
    error: float,
    function: Callable[[Reals], object],
    low: float,
    high: float,
    terms: int,
    *,
    odd: bool = False,
    goal: Goal = ABSOLUTE,
) -> FourierFit | None:
    """As ``fit_fourier``, best by ``goal``; None, at little cost, if least squares show that none of so many terms
    comes as near as ``error``."""
    return Fourier(function, low, high, odd, goal).within(error, terms)


class Fourier:
    """Fourier fits of one function on one interval, best by ``goal``.  Raises UnsupportedError as ``fit_fourier``."""

    def __init__(
        self, function: Callable[[Reals], object], low: float, high: float, odd: bool = False, goal: Goal = ABSOLUTE
    ) -> None:
        self.values = checked(function, low, high)
        if odd:
            _check_odd(self.values, low, high)
        self.low, self.high, self.odd, self.goal = low, high, odd, goal
        self._start = 0.0 if odd else low
        self._centre = float(self.values(np.zeros(1))[0]) if odd else 0.0
        self._points = dense_grid(self._start, high)
        at_points = self.values(self._points)
        self._scale = _scale(float(np.abs(at_points[::37]).max()))
        self._target = (at_points - self._centre) / self._scale
        self._weights = goal.weights(at_points)
        self._price = GAIN_PRICE * float(self._weights.max())
        self._periods = sorted(admissible_periods(high - low), key=lambda p: 2.0 ** p[1] / p[0])
        self._best_place: int | None = None
        self._looked_at: dict[int, dict[tuple[int, int], tuple[float, float]]] = {}

    def least(self, terms: int) -> float:
        """What no fit of so many terms errs by less than, by least squares."""
        return NEARLY * self._scale * min(least for least, _ in self._look(terms).values())

    def near(self, terms: int) -> float:
        """What one of so many terms errs by at the most, and the best one perhaps a third of."""
        return self._scale * min(most for _, most in self._look(terms).values())

    def within(self, error: float, terms: int) -> FourierFit | None:
        """As ``fourier_within``."""
        if not 1 <= terms <= MAX_TERMS:
            raise UnsupportedError(f"a Fourier fit has 1 to {MAX_TERMS} terms, not {terms}")
        if self.least(terms) > error:
            return None
        looked_at = self._look(terms)
        promising = sorted(looked_at, key=lambda p: looked_at[p][1])
        fits = [self._solved(period, terms) for period in promising[: CANDIDATES if terms <= FEW else 1]]
        return min(fits, key=lambda fit: self.goal.judge(fit) + self._price * fit.gain)

    def fewest(self, error: float) -> FourierFit:
        """The smallest fit that errs by at most ``error``, or one term more; where none does, the largest."""
        made = self.enough(error)
        while self.goal.judge(made) <= error and made.terms > 1 and self._may_do(made.terms - 1, error):
            smaller = self.within(error, made.terms - 1)
            if smaller is None or self.goal.judge(smaller) > error:
                break
            made = smaller
        return made

    def enough(self, error: float) -> FourierFit:
        """As ``fewest``, but with a few terms more: as least squares take."""
        first, last = 1, MAX_TERMS
        while first < last:
            middle = (first + last) // 2
            first, last = (first, middle) if self.near(middle) <= error else (middle + 1, last)
        return self.best(first)

    def best(self, terms: int) -> FourierFit:
        """That of so many terms."""
        made = self.within(math.inf, terms)
        if made is None:
            raise UnsupportedError("no period is admissible for this interval")
        return made

    def _may_do(self, terms: int, error: float) -> bool:
        return self.least(terms) <= error and self.near(terms) <= WORTH_A_PROGRAM * error

    def _look(self, terms: int) -> dict[tuple[int, int], tuple[float, float]]:
        """By period, what least squares say: few periods first, then those around the best of them."""
        if terms not in self._looked_at:
            size = 2 * terms + 1
            step = max(1, len(self._points) // (SAMPLES_EACH * size + SAMPLES))
            part = slice(None, None, step)
            sample, target, weights = self._points[part], self._target[part], self._weights[part]

            def look(places: Iterable[int]) -> None:
                for place in places:
                    period = self._periods[place]
                    if period not in found:
                        found[period] = _least_squares(self._basis(period, terms), sample, target, weights)

            found: dict[tuple[int, int], tuple[float, float]] = {}
            count = len(self._periods)
            # The error has one minimum, or nearly, and at much the same period for other numbers of terms.
            middle, reach, stride = (0, count, STRIDE) if self._best_place is None else (self._best_place, STRIDE, 2)
            look(range(max(0, middle - reach), min(count, middle + reach + 1), stride))
            near = self._periods.index(min(found, key=lambda p: found[p][1]))
            look(range(max(0, near - stride + 1), min(count, near + stride)))
            self._best_place = self._periods.index(min(found, key=lambda p: found[p][1]))
            self._looked_at[terms] = found
        return self._looked_at[terms]

    def _basis(self, period: tuple[int, int], terms: int) -> Basis:
        return _fourier_basis(2.0 ** period[1] / period[0], terms, self.odd, self._price)

    def _solved(self, period: tuple[int, int], terms: int) -> FourierFit:
        found = best(self._basis(period, terms), self._points, self._target, self._weights)
        numbers = tuple((found * self._scale).tolist())
        if self.odd:
            constant, cosines, sines = self._centre, (), numbers
        else:
            constant, cosines, sines = numbers[0], numbers[1 : terms + 1], numbers[terms + 1 :]
        made = FourierFit(*period, constant, cosines, sines, self.low, self.high, 0.0)
        return self.goal.measured(made, self.values)


def _scale(largest: float) -> float:
    """What a function of values up to ``largest`` is divided by before it is fitted, a power of 2: the bound of its
    coefficients leaves large values no room, and is no use to small ones."""
    return 1.0 if 2.0**-4 < largest <= LARGEST_COEFFICIENT or not largest else 2.0 ** math.ceil(math.log2(largest))


def admissible_periods(length: float) -> list[tuple[int, int]]:
    """(multiplier, log2) of the periods 2^log2 / multiplier a little above the interval's length, each once."""
    found: list[tuple[int, int]] = []
    for multiplier in range(1, MAX_MULTIPLIER + 1, 2):
        low, high = (math.log2(length * multiplier * r) for r in (SHORTEST_PERIOD, LONGEST_PERIOD))
        found.extend((multiplier, log2) for log2 in range(math.ceil(low), math.floor(high) + 1))
    return found


def _fourier_basis(period: float, terms: int, odd: bool, price: float) -> Basis:
    def columns(x: Reals) -> Reals:
        angles = np.outer(x * (2 * math.pi / period), np.arange(1, terms + 1))
        if odd:
            return np.asarray(np.sin(angles))
        return np.hstack([np.ones((len(x), 1)), np.cos(angles), np.sin(angles)])

    both = ((0,), *((j, j + terms) for j in range(1, terms + 1)))
    return Basis(columns, tuple((j,) for j in range(terms)) if odd else both, LARGEST_COEFFICIENT, price)


def _least_squares(basis: Basis, x: Reals, target: Reals, weights: Reals) -> tuple[float, float]:
    """Of solutions by least squares: what none errs by less than, in the mean and so at the most; and the maximal error
    of one with small coefficients, which is enough to compare periods.  Errors count times ``weights`` (n,)."""
    matrix, target = basis.columns(x) * weights[:, None], target * weights
    size = matrix.shape[1]
    # The last number of the triangle is what is left of the target beside the columns.
    triangle = np.asarray(np.linalg.qr(np.column_stack([matrix, target]), mode="r"))
    left, sizes, right = np.linalg.svd(triangle[:size, :size])
    parts = left.T @ triangle[:size, size]
    least = abs(float(triangle[size, size])) / math.sqrt(len(x))
    error = math.inf
    for ridge in RIDGES:
        solution = right.T @ (parts * sizes / (sizes**2 + ridge**2 * len(x)))
        error = float(np.abs(matrix @ solution - target).max())
        if max(float(np.abs(solution[list(group)]).sum()) for group in basis.groups) < basis.limit:
            break
    return least, error


def fit_polynomial(
    function: Callable[[Reals], object], low: float, high: float, degree: int, *, odd: bool = False
) -> PolynomialFit:
    """The best polynomial of ``degree`` on the interval; ``odd``: odd powers and a constant alone.

    Coefficients are in powers of x, in float64: where the interval is long or far from 0 a high degree loses digits to
    cancellation, and the measured ``error`` says so.  Raises UnsupportedError as ``fit_fourier``.
    """
    if not 1 <= degree <= MAX_DEGREE:
        raise UnsupportedError(f"a polynomial fit has degree 1 to {MAX_DEGREE}, not {degree}")
    values = checked(function, low, high)
    if odd:
        _check_odd(values, low, high)
    middle, half = (low + high) / 2, (high - low) / 2
    skipped = range(2, degree + 1, 2) if odd else ()
    kept = [k for k in range(degree + 1) if k not in skipped]

    def columns(x: Reals) -> Reals:
        return np.asarray(np.polynomial.chebyshev.chebvander((x - middle) / half, degree)[:, kept])

    full = np.zeros(degree + 1)
    dense = dense_grid(low, high)
    full[kept] = best(Basis(columns), dense, values(dense))
    series = np.polynomial.Chebyshev(full, domain=[low, high]).convert(kind=np.polynomial.Polynomial)
    coefficients = np.zeros(degree + 1)
    coefficients[: len(series.coef)] = series.coef
    coefficients[list(skipped)] = 0.0
    return measured(PolynomialFit(tuple(coefficients.tolist()), low, high, 0.0), values)


def _check_odd(values: Callable[[Reals], Reals], low: float, high: float) -> None:
    if low != -high:
        raise UnsupportedError(f"an odd fit needs an interval symmetric around 0, not [{low:g}, {high:g}]")
    x = np.linspace(0.0, high, 257)
    right = values(x)
    if np.abs(right + values(-x) - 2 * right[0]).max() > 1e-9 * max(1.0, float(np.abs(right).max())):
        raise UnsupportedError(f"the function is not odd about (0, {right[0]:g}): fit it without `odd`")


def fewest(make: Callable[[int, float], _AnyFit | None], sizes: Sequence[int], error: float) -> _AnyFit:
    """The smallest fit whose error is at most ``error``; where none is, the best there is.

    ``make`` is given a size and an error, and gives None where it is plain that the fit's would be larger.
    """
    made: dict[int, _AnyFit | None] = {}
    previous = 0
    for size in sizes:
        found = made[size] = make(size, error)
        if found is not None and found.error <= error:
            # The steps are coarse: one of those in between may do.
            between = (make(n, error) for n in range(previous + 1, size))
            return next((smaller for smaller in between if smaller is not None and smaller.error <= error), found)
        previous = size
    nearest: _AnyFit | None = None
    for size in reversed(sizes):
        # Most often the largest size is the best, and shows at little cost that the smaller ones are not.
        found = made[size] or make(size, math.inf if nearest is None else nearest.error)
        if nearest is None or (found is not None and found.error <= nearest.error):
            nearest = found
    if nearest is None:
        raise UnsupportedError("no sizes to choose from")
    return nearest
