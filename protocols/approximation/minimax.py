"""Best approximation in the maximum norm, by linear programming: minimise t subject to |f - sum c_k b_k| <= t.

The grid starts as Chebyshev points and takes in the places where the error is largest (Remez' idea) until the maximum
on the grid and over the interval agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import FourierFit, PolynomialFit, Reals, dense_grid, measured

Function = Callable[[Reals], Reals]
Basis = Callable[[Reals], Reals]
"""Points (n,) to values of the basis functions (n, k)."""

MAX_TERMS = 32
MAX_DEGREE = 31
MAX_MULTIPLIER = 63
LARGEST_COEFFICIENT = 3.5
"""Of a Fourier fit: sine and cosine of one term together stay below 8, see ``protocols/fourier.py``."""

SHORTEST_PERIOD = 1.005
LONGEST_PERIOD = 2.5
"""Of a period, in lengths of the interval."""

CANDIDATES = 3
"""Periods that look best by least squares, and are worth a linear program."""

EXCHANGES = 4


def _solve(matrix: Reals, target: Reals, bound: float | None) -> Reals:
    """Coefficients of the best approximation on a grid."""
    from scipy.optimize import linprog

    points, size = matrix.shape
    ones = np.ones((points, 1))
    result = linprog(
        [0.0] * size + [1.0],
        A_ub=np.block([[matrix, -ones], [-matrix, -ones]]),
        b_ub=np.concatenate([target, -target]),
        bounds=[(None if bound is None else -bound, bound)] * size + [(0, None)],
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if result.status != 0:
        raise UnsupportedError(f"no fit was found: {result.message}")
    return np.asarray(result.x[:size])


def _best(basis: Basis, function: Function, low: float, high: float, bound: float | None) -> Reals:
    dense = dense_grid(low, high)
    dense_matrix, dense_target = basis(dense), function(dense)
    size = dense_matrix.shape[1]
    # Values that vary with the place most need points; Chebyshev's cluster where errors of fits are largest.
    count = 24 * size + 40
    nodes = (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, math.pi, count))
    grid = np.clip(nodes, low, high)
    coefficients = _solve(basis(grid), function(grid), bound)
    for _ in range(EXCHANGES):
        error = np.abs(dense_matrix @ coefficients - dense_target)
        inside = np.abs(basis(grid) @ coefficients - function(grid)).max()
        if error.max() <= inside * 1.0005:
            break
        peaks = np.flatnonzero((error[1:-1] >= error[:-2]) & (error[1:-1] >= error[2:])) + 1
        grid = np.union1d(grid, dense[peaks])
        coefficients = _solve(basis(grid), function(grid), bound)
    return coefficients


def check_function(function: Callable[[Reals], object], low: float, high: float) -> Function:
    """The function on arrays; UnsupportedError unless it is finite on a proper interval."""
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UnsupportedError(f"[{low}, {high}] is not an interval to fit a function on")

    def on_arrays(x: Reals) -> Reals:
        try:
            values = np.asarray(function(x), dtype=np.float64)
        except (TypeError, ValueError):
            # A function of one number, as `math.erf`.
            values = np.array([function(v) for v in x.tolist()], dtype=np.float64)
        return np.broadcast_to(values, x.shape)

    if not np.isfinite(on_arrays(dense_grid(low, high))).all():
        raise UnsupportedError(f"the function is not finite everywhere on [{low:g}, {high:g}]")
    return on_arrays


# -- Fourier ---------------------------------------------------------------------------------------------------------


def fit_fourier(
    function: Callable[[Reals], object], low: float, high: float, terms: int, *, odd: bool = False
) -> FourierFit:
    """The best trigonometric polynomial of ``terms`` terms among those of admissible periods.

    ``odd``: the function is odd about (0, f(0)) and the interval symmetric: sines alone, fitted on one half.
    """
    if not 1 <= terms <= MAX_TERMS:
        raise UnsupportedError(f"a Fourier fit has 1 to {MAX_TERMS} terms, not {terms}")
    if odd and low != -high:
        raise UnsupportedError("an odd fit needs an interval that is symmetric around 0")
    values = check_function(function, low, high)
    start = 0.0 if odd else low
    centre = float(values(np.zeros(1))[0]) if odd else 0.0

    def target(x: Reals) -> Reals:
        return values(x) - centre

    def basis(period: float) -> Basis:
        return lambda x: _waves(x * (2 * math.pi / period), terms, odd)

    x = dense_grid(start, high)[::37]
    ranked: list[tuple[float, int, int]] = []
    for multiplier, log2 in admissible_periods(high - low):
        matrix = basis(2.0**log2 / multiplier)(x)
        # A touch of ridge: coefficients that cancel would be fine here and useless in fixed point.
        ridge = np.vstack([matrix, 1e-7 * np.eye(matrix.shape[1])])
        solution = np.linalg.lstsq(ridge, np.concatenate([target(x), np.zeros(matrix.shape[1])]), rcond=None)[0]
        if np.abs(solution[1:] if not odd else solution).max() < LARGEST_COEFFICIENT:
            ranked.append((float(np.abs(matrix @ solution - target(x)).max()), multiplier, log2))
    if not ranked:
        raise UnsupportedError(f"no period suits the function on [{low:g}, {high:g}]")
    fits = []
    for _, multiplier, log2 in sorted(ranked)[:CANDIDATES]:
        solution = _best(basis(2.0**log2 / multiplier), target, start, high, LARGEST_COEFFICIENT)
        numbers = [float(v) for v in solution]
        constant, cosines, sines = (
            (centre, (), tuple(numbers))
            if odd
            else (numbers[0], tuple(numbers[1 : terms + 1]), tuple(numbers[terms + 1 :]))
        )
        fit = measured(FourierFit(multiplier, log2, constant, cosines, sines, low, high, 0.0), values)
        assert isinstance(fit, FourierFit)  # noqa: S101 - for the type checker
        fits.append(fit)
    return min(fits, key=lambda fit: fit.error)


def admissible_periods(length: float) -> list[tuple[int, int]]:
    """(multiplier, log2) of the periods 2^log2 / multiplier a little above the interval's length."""
    found: list[tuple[int, int]] = []
    for multiplier in range(1, MAX_MULTIPLIER + 1, 2):
        low, high = (math.log2(length * multiplier * r) for r in (SHORTEST_PERIOD, LONGEST_PERIOD))
        found.extend((multiplier, log2) for log2 in range(math.ceil(low), math.floor(high) + 1))
    return found


def _waves(angles: Reals, terms: int, odd: bool) -> Reals:
    multiples = np.outer(angles, np.arange(1, terms + 1))
    if odd:
        return np.asarray(np.sin(multiples))
    return np.hstack([np.ones((len(angles), 1)), np.cos(multiples), np.sin(multiples)])


# -- polynomials -----------------------------------------------------------------------------------------------------


def fit_polynomial(
    function: Callable[[Reals], object], low: float, high: float, degree: int, *, odd: bool = False
) -> PolynomialFit:
    """The best polynomial of ``degree`` on the interval; ``odd``: odd powers and a constant alone."""
    if not 1 <= degree <= MAX_DEGREE:
        raise UnsupportedError(f"a polynomial fit has degree 1 to {MAX_DEGREE}, not {degree}")
    values = check_function(function, low, high)
    middle, half = (low + high) / 2, (high - low) / 2
    kept = [k for k in range(degree + 1) if not odd or k % 2 or k == 0]

    def basis(x: Reals) -> Reals:
        return np.asarray(np.polynomial.chebyshev.chebvander((x - middle) / half, degree)[:, kept])

    full = np.zeros(degree + 1)
    full[kept] = _best(basis, values, low, high, None)
    series = np.polynomial.Chebyshev(full, domain=[low, high]).convert(kind=np.polynomial.Polynomial)
    coefficients = [float(c) for c in series.coef]
    coefficients += [0.0] * (degree + 1 - len(coefficients))
    if odd and middle == 0:
        coefficients = [c if k in kept else 0.0 for k, c in enumerate(coefficients)]
    fit = measured(PolynomialFit(tuple(coefficients), low, high, 0.0), values)
    assert isinstance(fit, PolynomialFit)  # noqa: S101 - for the type checker
    return fit


def fit(
    function: Callable[[Reals], object], low: float, high: float, error: float, *, method: str = "fourier"
) -> FourierFit | PolynomialFit:
    """Fit any function of one real number on [low, high] to a maximal error: the fewest terms that reach it.

    ``function`` takes a float64 array (or, failing that, one number).  ``method`` is ``"fourier"`` (one round) or
    ``"minimax"`` (a polynomial).  ``SecretTensor.apply`` evaluates the result.  Raises UnsupportedError, saying how
    near it came, when 32 terms, or degree 31, do not reach the error.
    """
    if not error > 0:
        raise UnsupportedError(f"the error to reach must be positive, not {error}")
    makers: dict[str, tuple[Callable[[int], FourierFit | PolynomialFit], Sequence[int]]] = {
        "fourier": (
            lambda n: fit_fourier(function, low, high, n),
            (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 28, 32),
        ),
        "minimax": (
            lambda n: fit_polynomial(function, low, high, n),
            (1, 2, 3, 5, 7, 9, 11, 15, 19, 23, 27, 31),
        ),
    }
    if method not in makers:
        raise UnsupportedError(f"method {method!r} is not one of {', '.join(makers)}")
    make, sizes = makers[method]
    best: FourierFit | PolynomialFit | None = None
    previous = 0
    for size in sizes:
        made = make(size)
        best = made if best is None or made.error < best.error else best
        if made.error <= error:
            # The steps are coarse: one of those in between may do.
            between = (make(n) for n in range(previous + 1, size))
            return next((smaller for smaller in between if smaller.error <= error), made)
        previous = size
    reached = math.inf if best is None else best.error
    unit = "terms" if method == "fourier" else "powers"
    raise UnsupportedError(
        f"{sizes[-1]} {unit} reach {reached:.2g}, not {error:.2g}: allow a larger one or a shorter interval"
    )
