"""``fit``: any function of one real number, on any interval, to any error that can be reached."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import SMALLEST_ERROR, Fit, PolynomialFit, Reals, fine_grid
from protocols.approximation.goal import RELATIVE, Goal
from protocols.approximation.minimax import DEGREES, MAX_DEGREE, fewest, fit_polynomial
from protocols.approximation.sampling import checked
from protocols.approximation.search import Wanted, found, of_root, pieces

ERROR = 1e-4
"""The error to reach where none is said, as a part of the largest value."""

SPANS = 8.0
"""A function of one sign spans orders of magnitude if its largest value is so many times its smallest."""

WAYS = (of_root, pieces)


def fit(
    function: Callable[[Reals], object], low: float, high: float, error: float | None = None, *, method: str = "fourier"
) -> Fit:
    """Fit any function of one real number on [low, high] to a maximal error: the fewest terms that reach it.

    ``function`` takes a float64 array (or, failing that, one number).  Without an ``error``, 1e-4 of the largest value
    is reached, and half a thousandth of each value, down to a millionth of the largest, where the function has one sign
    and spans orders of magnitude; the fit says both (``error``, ``relative``).  ``method`` is ``"fourier"``: one round,
    or where that is not enough several, or polynomials of pieces that comparisons choose among; or ``"minimax"``: a
    polynomial.  ``SecretTensor.apply`` evaluates the result.  Takes a second or two, and says on the terminal what
    takes longer.  Raises UnsupportedError, saying how near it came, for what jumps or turns too often.
    """
    if error is not None and not (error > 0 and math.isfinite(error)):
        raise UnsupportedError(f"the error to reach must be positive, not {error}")
    if method == "minimax":
        return _polynomial(function, low, high, _size(function, low, high) * ERROR if error is None else error)
    if method != "fourier":
        raise UnsupportedError(f"method {method!r} is not one of fourier, minimax")
    if error is not None:
        return found(Wanted(function, low, high, Goal(error)), WAYS)
    sizes = checked(function, low, high)(fine_grid(low, high))
    if sizes.min() == sizes.max():
        return PolynomialFit((float(sizes[0]),), low, high, SMALLEST_ERROR)
    absolute = _size(function, low, high) * ERROR
    if sizes.min() * sizes.max() > 0 and np.abs(sizes).max() > SPANS * np.abs(sizes).min():
        try:
            return found(Wanted(function, low, high, Goal(absolute, RELATIVE)), WAYS)
        except UnsupportedError:
            pass  # as near 0 as it comes, only the absolute error counts
    return found(Wanted(function, low, high, Goal(absolute)), WAYS)


def _size(function: Callable[[Reals], object], low: float, high: float) -> float:
    """The largest value, or 1 of a function that is 0."""
    return float(np.abs(checked(function, low, high)(fine_grid(low, high))).max()) or 1.0


def _polynomial(function: Callable[[Reals], object], low: float, high: float, error: float) -> PolynomialFit:
    made = fewest(lambda n, _: fit_polynomial(function, low, high, n), DEGREES, error)
    if made.error <= error:
        return made
    raise UnsupportedError(
        f"up to degree {MAX_DEGREE} reach an error of {made.error:.2g}, not {error:.2g}: allow a larger error=, a"
        ' shorter interval, or method="fourier"'
    )
