"""The fit a named function uses: shipped for the default intervals, made on the spot (and kept) elsewhere."""

from __future__ import annotations

import functools
import math
from importlib import resources
from typing import Literal, overload

import msgspec
import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.catalogue import FUNCTIONS, Function
from protocols.approximation.composite import exp_by_powers, three_cubics
from protocols.approximation.fits import CompositeFit, Fit, FourierFit, PolynomialFit, dense_grid, measured
from protocols.approximation.minimax import MAX_TERMS, TERMS, fewest, fit_fourier, fit_polynomial, fourier_within
from protocols.approximation.sampling import checked
from protocols.approximation.taylor import powers_of_x

METHODS = ("fourier", "minimax", "taylor", "composite")
DEGREE = 3
"""Of a polynomial when none is asked for: what fits one round."""

WORST = 100.0
"""A Fourier fit on another interval may miss its function's target error by this factor, and says so in ``error``."""

_SHIPPED = "default_fits.json"


@overload
def default_fit(
    name: str,
    method: Literal["fourier"] = "fourier",
    low: float | None = None,
    high: float | None = None,
    *,
    terms: int | None = None,
    degree: int | None = None,
) -> FourierFit: ...
@overload
def default_fit(
    name: str,
    method: str,
    low: float | None = None,
    high: float | None = None,
    *,
    terms: int | None = None,
    degree: int | None = None,
) -> Fit: ...
def default_fit(
    name: str,
    method: str = "fourier",
    low: float | None = None,
    high: float | None = None,
    *,
    terms: int | None = None,
    degree: int | None = None,
) -> Fit:
    """The approximation of a named function; with ``low`` and ``high`` another interval than its own.

    On another interval a Fourier fit takes the fewest terms that keep the function's target error, unless ``terms``
    says; where 32 do not keep it, the best there is (see its ``error``) unless that is 100 times the target.
    ``degree`` is that of a polynomial; a composite has its own.  Raises UnsupportedError naming what there is.
    """
    function = FUNCTIONS.get(name)
    if function is None:
        raise UnsupportedError(f"there is no function {name!r}: there are {', '.join(FUNCTIONS)}")
    if method not in METHODS:
        raise UnsupportedError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if (low is None) != (high is None):
        raise UnsupportedError("an interval has two ends: give `low` and `high`, or neither")
    if terms is not None and method != "fourier":
        raise UnsupportedError(f"`terms` goes with method 'fourier', not with {method!r}")
    if degree is not None and method not in ("minimax", "taylor"):
        raise UnsupportedError(
            f"`terms` goes with method 'fourier', `degree` with 'minimax' and 'taylor', not with {method!r}"
        )
    ends = (function.low, function.high) if low is None or high is None else (float(low), float(high))
    if method == "fourier" and terms in (None, function.terms) and ends == (function.low, function.high):
        return shipped_fits()[name]
    return _make(name, method, ends, terms, degree)


@functools.cache
def shipped_fits() -> dict[str, FourierFit]:
    """The default Fourier fits, by function: made by ``python -m protocols.approximation.generate``."""
    data = resources.files(__package__).joinpath(_SHIPPED).read_bytes()
    return msgspec.json.decode(data, type=dict[str, FourierFit])


@functools.lru_cache(maxsize=256)
def _make(name: str, method: str, ends: tuple[float, float], terms: int | None, degree: int | None) -> Fit:
    function = FUNCTIONS[name]
    low, high = ends
    size = DEGREE if degree is None else degree
    if method == "fourier":
        return make_fourier(function, low, high, terms)
    if method == "minimax":
        return fit_polynomial(function.exact, low, high, size, odd=function.odd and low == -high)
    if method == "taylor":
        return _taylor(function, low, high, size)
    return _composite(function, low, high)


def make_fourier(function: Function, low: float, high: float, terms: int | None) -> FourierFit:
    """A Fourier fit of ``terms``, or of as many as keep the function's target error."""
    odd = function.odd and low == -high
    if terms is not None:
        return fit_fourier(function.exact, low, high, terms, odd=odd)
    exact = function.exact
    # Of values below 1 it is relative to the largest.
    target = function.target * min(1.0, float(np.abs(checked(exact, low, high)(dense_grid(low, high))).max()))
    best = fewest(lambda n, error: fourier_within(error, exact, low, high, n, odd=odd), TERMS, target)
    if best.error > WORST * target:
        raise UnsupportedError(
            f"{function.name} on [{low:g}, {high:g}]: up to {MAX_TERMS} terms reach an error of {best.error:.2g}; the"
            " interval is too long for one round: scale the values down, or ask for `terms`"
        )
    return best


def _taylor(function: Function, low: float, high: float, degree: int) -> PolynomialFit:
    """The Taylor polynomial, in powers of x."""
    if function.taylor is None:
        known = ", ".join(f.name for f in FUNCTIONS.values() if f.taylor is not None)
        raise UnsupportedError(f"{function.name} has no Taylor polynomial here, only {known}: use method 'minimax'")
    coefficients = powers_of_x([function.taylor(k) for k in range(degree + 1)], function.about)
    values = checked(function.exact, low, high)
    return measured(PolynomialFit(coefficients, low, high, 0.0, "taylor"), values)


def _composite(function: Function, low: float, high: float) -> CompositeFit:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UnsupportedError(f"[{low}, {high}] is not an interval to fit a function on: give low < high")
    if function.name == "exp":
        return exp_by_powers(low, high)
    if function.name in ("sigmoid", "tanh") and low == -high:
        return three_cubics(function.exact, high, 0.5 if function.name == "sigmoid" else 0.0)
    raise UnsupportedError(
        "method 'composite' is for exp, and for sigmoid and tanh on intervals symmetric around 0, not for"
        f" {function.name} on [{low:g}, {high:g}]"
    )
