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
from protocols.approximation.fits import CompositeFit, Fit, FourierFit, PolynomialFit, Reals, dense_grid, measured
from protocols.approximation.goal import RELATIVE, Goal
from protocols.approximation.minimax import Fourier, fit_polynomial
from protocols.approximation.sampling import checked
from protocols.approximation.search import Wanted, found, of_root, pieces
from protocols.approximation.taylor import powers_of_x

METHODS = ("fourier", "minimax", "taylor", "composite")
DEGREE = 3
"""Of a polynomial when none is asked for: what fits one round."""

POWER_TARGET = 5e-5
"""The error of a power, as a part of the largest value."""

USUAL = 16.0
"""The largest values that targets are meant for as they are: those of the default intervals."""

STEEP = 8.0
"""The same of functions that span orders of magnitude."""

_SHIPPED = "default_fits.json"
_NORMAL = "normal_fits.json"


@overload
def default_fit(
    name: str,
    method: Literal["fourier"] = "fourier",
    low: None = None,
    high: None = None,
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
    says; where one round cannot keep it, several fits make one (``protocols/approximation/search.py``).  The target is
    in parts of the largest value, for values beyond 8 or below 1; a function that spans orders of magnitude errs by at
    most half a thousandth of each value, too.  ``degree`` is that of a polynomial; a composite has its own.  Raises
    UnsupportedError naming what there is, or how near the best fit comes.
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


@functools.lru_cache(maxsize=256)
def power_fit(exponent: float, low: float, high: float) -> Fit:
    """x to a real power on an interval above 0, by relative error.  Raises UnsupportedError as ``default_fit``."""
    named = {-1.0: "reciprocal", -0.5: "rsqrt", 0.5: "sqrt"}.get(exponent)
    if named is not None:
        return default_fit(named, "fourier", low, high)

    def power(x: Reals) -> Reals:
        return np.asarray(x**exponent)

    largest = float(np.abs(checked(power, low, high)(dense_grid(low, high))).max())
    wanted = Wanted(power, low, high, Goal(POWER_TARGET * largest, RELATIVE), name=f"x^{exponent:g}")
    return found(wanted, (of_root, pieces))


@functools.cache
def shipped_fits() -> dict[str, FourierFit]:
    """The default Fourier fits, by function: made by ``python -m protocols.approximation.generate``."""
    return _read(_SHIPPED)


@functools.cache
def normal_fits() -> dict[str, FourierFit]:
    """Those of ``NORMAL``, made by the same."""
    return _read(_NORMAL)


def _read(name: str) -> dict[str, FourierFit]:
    data = resources.files(__package__).joinpath(name).read_bytes()
    return msgspec.json.decode(data, type=dict[str, FourierFit])


@functools.lru_cache(maxsize=256)
def _make(name: str, method: str, ends: tuple[float, float], terms: int | None, degree: int | None) -> Fit:
    function = FUNCTIONS[name]
    low, high = ends
    size = DEGREE if degree is None else degree
    if method == "fourier":
        return make_fit(function, low, high, terms)
    if method == "minimax":
        return fit_polynomial(function.exact, low, high, size, odd=function.odd and low == -high)
    if method == "taylor":
        return _taylor(function, low, high, size)
    return _composite(function, low, high)


def make_fit(
    function: Function, low: float, high: float, terms: int | None = None, *, error: float | None = None
) -> Fit:
    """A Fourier fit of ``terms``, or what keeps the function's target error, or this absolute one."""
    if terms is not None:
        return make_fourier(function, low, high, terms)
    odd = function.odd and low == -high
    goal = goal_of(function, low, high) if error is None else Goal(error)
    return found(Wanted(function.exact, low, high, goal, odd, function.name), function.ways)


def make_fourier(function: Function, low: float, high: float, terms: int) -> FourierFit:
    """The best Fourier fit of so many terms."""
    odd = function.odd and low == -high
    return Fourier(function.exact, low, high, odd, goal_of(function, low, high)).best(terms)


def goal_of(function: Function, low: float, high: float) -> Goal:
    """Of values below 1, or beyond ``USUAL``, the target is a part of the largest."""
    largest = float(np.abs(checked(function.exact, low, high)(dense_grid(low, high))).max())
    if function.relative:
        return Goal(function.target * max(min(1.0, largest), largest / STEEP), RELATIVE)
    return Goal(function.target * max(min(1.0, largest), largest / USUAL))


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
