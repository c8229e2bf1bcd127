"""Functions in pieces, right on everything: fitted in the middle, and beyond it what they nearly are, lines.

A tail begins where the function has come as near to its line as the stated error: that is what ``catalogue.py`` says,
by its lines and its target, and ``made`` finds out.  Middles ship, so that nothing is searched for: the same program is
made everywhere.  Which piece is taken is compared on secrets; ``protocols/lowering/tails.py`` does it.
"""

from __future__ import annotations

import functools
import math
from importlib import resources

import msgspec
import numpy as np

from mpc.errors import RangeError, UnsupportedError
from protocols.approximation.catalogue import Function, Line
from protocols.approximation.defaults import default_fit
from protocols.approximation.fits import SMALLEST_ERROR, FourierFit, PolynomialFit, TailedFit
from protocols.approximation.goal import FLOOR, Goal
from protocols.approximation.minimax import Fourier

EVERYWHERE = 2.0**60
"""No value of the field lies beyond."""

OVERLAP = 1.0
"""Of a middle and a tail: how near a threshold has to be found."""

GRID = 16
"""Ends of middles are multiples of one part of so many."""

FARTHEST = 64.0
"""No middle reaches further."""

WIDER = (1.5, 2.0)
"""Times the middle: intervals with a fit of one round of their own, if one keeps the target."""

NEAR = 5e-5
"""What the two sides of ELU may differ by at 0, when the one is taken for the other."""

SMALL = 2.0**-4
"""What values ELU is a polynomial of."""

LENGTH = 6.0
"""Of a piece of exp: e^6 orders of magnitude have the digits for a thousandth of each value."""
BELOW = 0.5
"""By which one reaches below its own."""
DEEPEST = FLOOR / 1024
"""As a part of the largest value, or of 1 where that is less: what is below counts as nothing, which is a thousandth of
what is told apart relatively."""
HIGHEST = 44.0
"""Of what exp is taken of: no value of the field is larger than that of a larger one."""

_SHIPPED = "tails.json"


class Shipped(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tailed: dict[str, TailedFit]
    """By function."""
    expm1: FourierFit
    """exp(x) - 1, on what is not nearly -1, and below 0."""
    exp: FourierFit
    """On [-LENGTH - BELOW, 0], by relative error."""


@functools.cache
def shipped() -> Shipped:
    """Made by ``python -m protocols.approximation.generate``."""
    return msgspec.json.decode(resources.files(__package__).joinpath(_SHIPPED).read_bytes(), type=Shipped)


def tailed(name: str) -> TailedFit:
    """A named function on everything.  Raises UnsupportedError for one without tails."""
    found = shipped().tailed.get(name)
    if found is None:
        raise UnsupportedError(f"{name} is nearly a line nowhere: there are {', '.join(shipped().tailed)}")
    return found


def clipped(low: float, high: float) -> TailedFit:
    """x, but no less than ``low`` and no more than ``high``: exact."""
    return TailedFit((_line((low, 0.0), -EVERYWHERE, low), _line((0.0, 1.0), low, high), _line((high, 0.0), high)), 0.0)


@functools.lru_cache(maxsize=64)
def elu(alpha: float, largest: float = 1.0) -> TailedFit:
    """x where x >= 0, else alpha (exp(x) - 1), of values up to ``largest``.  Errs by 1e-4, or as much times alpha where
    that is more; of values that are small by as much of the largest: a polynomial is enough of those."""
    middle, size = shipped().expm1, min(largest, 1.0)
    near = middle.high
    # So near to 0 the one will do for the other.
    while (off := abs(alpha - 1.0) * near + alpha * near**2 * math.exp(near) / 2) > NEAR * size:
        near /= 2
    line = _line((0.0, 1.0), -near, error=off)
    if size <= SMALL:
        powers = (0.0, alpha, alpha / 2, alpha / 6)
        left = alpha * size**4 / 24
        return TailedFit((PolynomialFit(powers, -size, near, max(left, off), "taylor"), line), max(left, off))
    scaled = msgspec.structs.replace(
        middle,
        constant=alpha * middle.constant,
        cosines=tuple(alpha * c for c in middle.cosines),
        sines=tuple(alpha * c for c in middle.sines),
        high=near,
        error=max(alpha * middle.error + off, SMALLEST_ERROR),
    )
    tail = _line((-alpha, 0.0), -EVERYWHERE, middle.low + OVERLAP, alpha * math.exp(middle.low + OVERLAP))
    return TailedFit((tail, scaled, line), max(tail.error, scaled.error))


@functools.lru_cache(maxsize=256)
def exponential(low: float, high: float) -> TailedFit:
    """exp(x) on an interval, by relative error down to ``DEEPEST``, 0 below it; as many pieces as that takes."""
    if not -HIGHEST <= high <= HIGHEST:
        raise RangeError(f"exp of values up to {high:g}: declare a tighter range with within(low, high)")
    one = shipped().exp
    deepest = min(1.0, math.exp(high)) * DEEPEST
    ends = [high]
    while ends[-1] > low and math.exp(ends[-1]) > deepest:
        ends.append(ends[-1] - LENGTH)
    pieces: list[FourierFit | PolynomialFit] = [_moved(one, end) for end in reversed(ends[:-1])]
    if ends[-1] > low:
        pieces.insert(0, _line((0.0, 0.0), low, ends[-1], math.exp(ends[-1])))
    coarse = math.exp(ends[-1]) if ends[-1] > low else 0.0
    return TailedFit(tuple(pieces), max(piece.error for piece in pieces), one.relative, coarse=coarse)


def _moved(fit: FourierFit, end: float) -> FourierFit:
    """That of exp on an interval that ends here: e^end times that of x - end."""
    turn, size = 2 * math.pi / fit.period, math.exp(end)
    cosines, sines = [], []
    for j, (c, s) in enumerate(zip(fit.cosines, fit.sines, strict=True), start=1):
        cosine, sine = math.cos(turn * j * end), math.sin(turn * j * end)
        cosines.append(size * (c * cosine - s * sine))
        sines.append(size * (c * sine + s * cosine))
    return msgspec.structs.replace(
        fit,
        constant=size * fit.constant,
        cosines=tuple(cosines),
        sines=tuple(sines),
        low=fit.low + end,
        high=end,
        error=size * fit.error,
    )


def _line(line: Line, low: float, high: float = EVERYWHERE, error: float = 0.0) -> PolynomialFit:
    constant, slope = line
    return PolynomialFit((constant, slope) if slope else (constant,), low, high, error, "line")


# -- making what ships -------------------------------------------------------------------------------------------------


def made(function: Function) -> TailedFit:
    """A function with tails: its middle with the fewest terms that keep its target, and wider ones of one round."""
    if function.tails is None:
        raise UnsupportedError(f"{function.name} is nearly a line nowhere")
    left, right = function.tails
    begins, ends = -_away(function, left, -1.0), _away(function, right, 1.0)
    low, high = math.floor((begins - OVERLAP) * GRID) / GRID, math.ceil((ends + OVERLAP) * GRID) / GRID
    goal = Goal(function.target)

    def fitted(times: float) -> FourierFit:
        return Fourier(function.exact, low * times, high * times, function.odd, goal).fewest(function.target)

    middle = fitted(1.0)
    first, last = _off(function, _line(left, -EVERYWHERE, begins)), _off(function, _line(right, ends))
    wider = (fit for fit in map(fitted, WIDER) if fit.error <= function.target)
    whole = sorted((default_fit(function.name), *wider), key=lambda fit: fit.high)
    error = max(first.error, middle.error, last.error, *(fit.error for fit in whole))
    return TailedFit((first, middle, last), error, None, tuple(whole))


def _away(function: Function, line: Line, side: float) -> float:
    """How far from 0 a function is as near to its line as its target, and stays so."""
    x = np.linspace(0.0, FARTHEST, 1 << 20)
    off = np.abs(function.exact(side * x) - line[0] - line[1] * side * x)
    return float(x[np.flatnonzero(off > function.target)[-1] + 1])


def _off(function: Function, tail: PolynomialFit) -> PolynomialFit:
    x = np.linspace(max(tail.low, -FARTHEST), min(tail.high, FARTHEST), 1 << 16)
    return msgspec.structs.replace(tail, error=float(np.abs(tail(x) - function.exact(x)).max()))
