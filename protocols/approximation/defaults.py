"""The fit a named function uses: shipped for the default intervals, made on the spot (and kept) for others."""

from __future__ import annotations

import functools
from importlib import resources
from typing import Literal, overload

import msgspec

from mpc.errors import UnsupportedError
from protocols.approximation.catalogue import FUNCTIONS, Function
from protocols.approximation.composite import exp_by_powers, three_cubics
from protocols.approximation.fits import CompositeFit, Fit, FourierFit, PolynomialFit, measured
from protocols.approximation.minimax import MAX_TERMS, fit_fourier, fit_polynomial

METHODS = ("fourier", "minimax", "taylor", "composite")
DEGREE = 3
"""Of a polynomial when none is asked for: what fits one round."""

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

    On another interval a Fourier fit takes as many terms as it needs to keep the function's target error, unless
    ``terms`` says.  Raises UnsupportedError naming what there is.
    """
    function = FUNCTIONS.get(name)
    if function is None:
        raise UnsupportedError(f"there is no function {name!r}: there are {', '.join(FUNCTIONS)}")
    if method not in METHODS:
        raise UnsupportedError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if (low is None) != (high is None):
        raise UnsupportedError("an interval has two ends")
    if (degree is not None and method == "fourier") or (terms is not None and method != "fourier"):
        raise UnsupportedError("`terms` goes with method 'fourier', `degree` with polynomials")
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
    if method == "fourier":
        return make_fourier(function, low, high, terms)
    if method == "minimax":
        return fit_polynomial(function.exact, low, high, degree or DEGREE, odd=function.odd and low == -high)
    if method == "taylor":
        return _taylor(function, low, high, degree or DEGREE)
    return _composite(function, low, high)


def make_fourier(function: Function, low: float, high: float, terms: int | None) -> FourierFit:
    """A Fourier fit of ``terms``, or of as many as keep the function's target error."""
    odd = function.odd and low == -high
    if terms is not None:
        return fit_fourier(function.exact, low, high, terms, odd=odd)
    # The number of terms grows with the interval: start from the default's share of it.
    share = (high - low) / (function.high - function.low)
    count = min(MAX_TERMS, max(2, round(function.terms * share)))
    best = fit_fourier(function.exact, low, high, count, odd=odd)
    while best.error > function.target and count < MAX_TERMS:
        count = min(MAX_TERMS, count + max(1, count // 6))
        best = min(best, fit_fourier(function.exact, low, high, count, odd=odd), key=lambda fit: fit.error)
    if best.error > 100 * function.target:
        raise UnsupportedError(
            f"{function.name} on [{low:g}, {high:g}]: {MAX_TERMS} terms reach {best.error:.2g}: the interval is"
            " too long for one round; scale the values down, or ask for `terms`"
        )
    return best


def _taylor(function: Function, low: float, high: float, degree: int) -> PolynomialFit:
    """The Taylor polynomial, in powers of x."""
    if function.taylor is None:
        raise UnsupportedError(f"{function.name} has no Taylor polynomial here: use method 'minimax'")
    if not 1 <= degree <= 31:
        raise UnsupportedError(f"a Taylor polynomial has degree 1 to 31, not {degree}")
    # In powers of (x - about), expanded exactly.
    coefficients = [function.taylor(k) for k in range(degree + 1)]
    about = int(function.about)
    shifted = coefficients[-1:]
    for c in reversed(coefficients[:-1]):
        raised = [c, *shifted]
        for k, s in enumerate(shifted):
            raised[k] -= about * s
        shifted = raised
    fit = PolynomialFit(tuple(float(c) for c in shifted), low, high, 0.0, "taylor")
    result = measured(fit, function.exact)
    assert isinstance(result, PolynomialFit)  # noqa: S101 - for the type checker
    return result


def _composite(function: Function, low: float, high: float) -> CompositeFit:
    if function.name == "exp":
        return exp_by_powers(low, high)
    if function.odd and low == -high and function.name in ("sigmoid", "tanh"):
        return three_cubics(function.exact, high, 0.5 if function.name == "sigmoid" else 0.0)
    raise UnsupportedError(
        f"method 'composite' is for exp, and for sigmoid and tanh on symmetric intervals, not {function.name}"
    )
