"""Fits with the least maximal error: trigonometric polynomials and polynomials, of a size or to an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import FourierFit, PolynomialFit, Reals, dense_grid, measured
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
"""Periods that look best by least squares, and are worth a linear program."""

RIDGES = (1e-7, 1e-4, 1e-2, 1.0)
"""Strengths that keep the coefficients of those least squares small: the first that keeps them small enough."""

NEARLY = 0.99
"""What is shown on a sample is taken for shown of the interval up to this factor."""

TERMS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, MAX_TERMS)
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
    made = fourier_within(math.inf, function, low, high, terms, odd=odd)
    if made is None:
        raise UnsupportedError("no period is admissible for this interval")
    return made


def fourier_within(
    error: float, function: Callable[[Reals], object], low: float, high: float, terms: int, *, odd: bool = False
) -> FourierFit | None:
    """As ``fit_fourier``; None, at little cost, if least squares show that none of so many terms comes that near."""
    if not 1 <= terms <= MAX_TERMS:
        raise UnsupportedError(f"a Fourier fit has 1 to {MAX_TERMS} terms, not {terms}")
    values = checked(function, low, high)
    if odd:
        _check_odd(values, low, high)
    start = 0.0 if odd else low
    centre = float(values(np.zeros(1))[0]) if odd else 0.0
    sample = dense_grid(start, high)[::37]
    scale = _scale(float(np.abs(values(sample)).max()))

    def target(x: Reals) -> Reals:
        return (values(x) - centre) / scale

    bases = {p: _fourier_basis(2.0 ** p[1] / p[0], terms, odd) for p in admissible_periods(high - low)}
    at_sample = target(sample)
    looked_at = {p: _least_squares(basis, sample, at_sample) for p, basis in bases.items()}
    if all(NEARLY * least * scale > error for least, _ in looked_at.values()):
        return None
    promising = sorted(bases, key=lambda p: looked_at[p][1])
    fits = []
    for multiplier, log2 in promising[:CANDIDATES]:
        numbers = tuple((best(bases[multiplier, log2], target, start, high) * scale).tolist())
        if odd:
            constant, cosines, sines = centre, (), numbers
        else:
            constant, cosines, sines = numbers[0], numbers[1 : terms + 1], numbers[terms + 1 :]
        fits.append(measured(FourierFit(multiplier, log2, constant, cosines, sines, low, high, 0.0), values))
    return min(fits, key=lambda fit: fit.error + GAIN_PRICE * fit.gain)


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


def _fourier_basis(period: float, terms: int, odd: bool) -> Basis:
    def columns(x: Reals) -> Reals:
        angles = np.outer(x * (2 * math.pi / period), np.arange(1, terms + 1))
        if odd:
            return np.asarray(np.sin(angles))
        return np.hstack([np.ones((len(x), 1)), np.cos(angles), np.sin(angles)])

    both = ((0,), *((j, j + terms) for j in range(1, terms + 1)))
    return Basis(columns, tuple((j,) for j in range(terms)) if odd else both, LARGEST_COEFFICIENT, GAIN_PRICE)


def _least_squares(basis: Basis, x: Reals, target: Reals) -> tuple[float, float]:
    """Of solutions by least squares: what none errs by less than, in the mean and so at the most; and the maximal error
    of one with small coefficients, which is enough to compare periods."""
    matrix = basis.columns(x)
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
    full[kept] = best(Basis(columns), values, low, high)
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


def fit(
    function: Callable[[Reals], object], low: float, high: float, error: float, *, method: str = "fourier"
) -> FourierFit | PolynomialFit:
    """Fit any function of one real number on [low, high] to a maximal error: the fewest terms that reach it.

    ``function`` takes a float64 array (or, failing that, one number).  ``method`` is ``"fourier"`` (one round) or
    ``"minimax"`` (a polynomial).  ``SecretTensor.apply`` evaluates the result.  Raises UnsupportedError, saying how
    near it came, when 32 terms, or degree 31, do not reach the error.
    """
    if not (error > 0 and math.isfinite(error)):
        raise UnsupportedError(f"the error to reach must be positive, not {error}")
    made: FourierFit | PolynomialFit
    if method == "fourier":
        made = fewest(lambda n, error: fourier_within(error, function, low, high, n), TERMS, error)
        most = f"{MAX_TERMS} terms"
    elif method == "minimax":
        made = fewest(lambda n, _: fit_polynomial(function, low, high, n), DEGREES, error)
        most = f"degree {MAX_DEGREE}"
    else:
        raise UnsupportedError(f"method {method!r} is not one of fourier, minimax")
    if made.error <= error:
        return made
    raise UnsupportedError(
        f"up to {most} reach an error of {made.error:.2g}, not {error:.2g}: allow a larger error, or a shorter interval"
    )
