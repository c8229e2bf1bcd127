"""Which fit a function gets on an interval: one round where that is enough, else a long interval is made a short one.

``found`` picks.  Beside a Fourier fit of one round there are, for named functions and any others:

* ``by_root``: 1 / x and 1 / sqrt(x) by relative error, from a rough fit and a fit of what is left of it (``RootFit``);
* ``of_root``: what is smooth in log x (powers, logarithms, ...) as a fit of s = 1 / sqrt(x), whose interval has half of
  the orders of magnitude of x's;
* ``by_powers``: exp(x) = exp(x / 2^k)^(2^k), by squaring;
* ``by_turns``: sines and cosines of any number of turns, as one exact wave of x / 2 pi;
* ``pieces``: any continuous function, by comparison (``protocols/approximation/pieces.py``).

Where these have too few digits, ``found`` refuses, saying what is possible.  1 / x, roots and logarithms of secret
tensors take none of them where one round is not enough, but comparison (``protocols/trace/normalised.py``).
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from mpc.errors import UnsupportedError
from protocols.approximation.fits import (
    CompositeFit,
    Fit,
    FourierFit,
    PiecewiseFit,
    PolynomialFit,
    Reals,
    RootFit,
    dense_grid,
)
from protocols.approximation.goal import Goal
from protocols.approximation.minimax import MAX_TERMS, Fourier
from protocols.approximation.pieces import by_pieces
from protocols.approximation.sampling import checked

ONE_ROUND = 2.0**9
"""Between the largest value and the smallest, of functions judged by relative error: a Fourier fit's result has not the
digits for more."""

Power = Literal["-1", "-1/2", "1/2"]

_POWERS: dict[Power, float] = {"-1": -1.0, "-1/2": -0.5, "1/2": 0.5}

TINY = 1e-300

ROUGH = 2.0**-4
"""The relative error of a guess at a root that is good enough, ..."""
ROUGHEST = 0.2
"""... and the largest that will do."""
SPARE = 1.5
"""By which what is left of a guess may exceed what it is left by the fit: the guess is rounded, too."""
ONE_ROOT = 64.0
"""Between the ends of an interval, for 1 / x by a guess at it: beyond, one at 1 / sqrt(x) is better."""

POWERS = 6.0
"""Binary orders of magnitude that exp may span before it is squared, ..."""
MOST_POWERS = 9
"""... and how often: each time doubles the relative error."""

FARTHEST = 2.0**12
"""Of the values whose sine is taken: beyond, the field has no room for x / 2 pi with all its digits."""

SLACK = 2.0**-10
"""By which the interval of a later stage exceeds the values that reach it: those are rounded, and fitted."""

SLOW = 1.0
"""Seconds after which is said what is going on."""


@dataclass(frozen=True)
class Wanted:
    """A function, where it is to be fitted, and how well."""

    function: Callable[[Reals], object]
    low: float
    high: float
    goal: Goal
    odd: bool = False
    name: str = "the function"

    def __str__(self) -> str:
        return f"{self.name} on [{self.low:g}, {self.high:g}]"


Way = Callable[[Wanted], Fit]


def found(wanted: Wanted, ways: tuple[Way, ...]) -> Fit:
    """A fit that reaches the goal, by the first of these ways that does: one round is tried first.

    Raises UnsupportedError, saying how near the best came and what would help.
    """
    checked(wanted.function, wanted.low, wanted.high)
    best: Fit | None = None
    # Matrices are small: threads of BLAS would only wait for each other, on a busy machine for seconds.
    with threadpool_limits(1, user_api="blas"), _Progress(f"fitting {wanted}"):
        for way in (one_round, *ways):
            try:
                made = way(wanted)
            except UnsupportedError:
                continue
            if wanted.goal.judge(made) <= wanted.goal.absolute:
                return made
            if best is None or wanted.goal.judge(made) < wanted.goal.judge(best):
                best = made
    came = "none comes near it" if best is None else f"the best there is errs by {best.error:.2g}{_relatively(best)}"
    relatively = "" if wanted.goal.relative is None else f" and {wanted.goal.relative:.1g} of the value"
    raise UnsupportedError(
        f"{wanted}: no fit errs by at most {wanted.goal.absolute:.2g}{relatively}, {came}. Declare a tighter range with"
        " within(low, high), or give a shorter interval=(low, high) if values stay inside; or take one round as good as"
        f" it gets with terms={MAX_TERMS}. What jumps is written with comparisons: (x >= 0).where(a, b)"
    )


def _relatively(fit: Fit) -> str:
    return "" if fit.relative is None else f", {fit.relative:.1g} of the value"


def one_round(wanted: Wanted) -> FourierFit:
    """The Fourier fit of fewest terms."""
    if wanted.goal.relative is not None:
        sizes = np.abs(checked(wanted.function, wanted.low, wanted.high)(dense_grid(wanted.low, wanted.high)))
        if float(sizes.max()) > ONE_ROUND * float(sizes.min()):
            raise UnsupportedError("more orders of magnitude than one round has digits for")
    fits = Fourier(wanted.function, wanted.low, wanted.high, wanted.odd, wanted.goal)
    return fits.fewest(wanted.goal.absolute)


# -- above 0 -----------------------------------------------------------------------------------------------------------


def by_root(wanted: Wanted, power: Power) -> RootFit:
    """x to the power of -1, -1/2 or 1/2, by relative error."""
    low, high = wanted.low, wanted.high
    if low <= 0:
        raise UnsupportedError("a root of what may be 0")
    order = 1 if power == "-1" else 2

    def root(x: Reals) -> Reals:
        return np.asarray(x ** (-1.0 / order))

    start = Fourier(root, low, high, goal=Goal(low ** (-1.0 / order), ROUGH)).enough(low ** (-1.0 / order))
    if start.relative is None or start.relative > ROUGHEST:
        raise UnsupportedError("too many orders of magnitude for a guess")
    correction = Fourier(lambda e: (1.0 - e) ** (-1.0 / order), *left(start, order)).enough(_relative(wanted) / 4)
    made = RootFit(power, start, correction, low, high, 0.0)
    return Goal(1.0, 1.0).measured(made, lambda x: x ** _POWERS[power])


def left(start: FourierFit, order: int) -> tuple[float, float]:
    """Where 1 - x y^order lies, for y a guess at x^(-1/order) by this fit, and rounded."""
    off = SPARE * (start.relative or 0.0)
    return 1.0 - (1.0 + off) ** order, 1.0 - (1.0 - off) ** order


def _relative(wanted: Wanted) -> float:
    """The relative error that reaches the goal everywhere."""
    largest = float(
        np.abs(checked(wanted.function, wanted.low, wanted.high)(dense_grid(wanted.low, wanted.high))).max()
    )
    return min(wanted.goal.relative or 1.0, wanted.goal.absolute / max(largest, TINY))


def of_root(wanted: Wanted) -> CompositeFit:
    """Any function of x > 0 as one of s = 1 / sqrt(x); where that spans too much still, as a power of one."""
    low, high = wanted.low, wanted.high
    root = by_root(_guess(wanted), "-1/2")
    values = checked(wanted.function, low, high)
    inside = low + 1e-6 * (high - low), high - 1e-6 * (high - low)
    ends = [(low, _slope(values, low, inside[0])), (high, _slope(values, high, inside[1]))]

    def beyond(x: Reals) -> Reals:
        """The function, and beyond its interval, where it may not be defined, a line."""
        inner = np.clip(x, low, high)
        (first, falling), (last, rising) = ends
        return np.asarray(values(inner) + falling * np.minimum(x - first, 0.0) + rising * np.maximum(x - last, 0.0))

    sizes = np.abs(values(dense_grid(low, high)))
    spans = wanted.goal.relative is not None and float(sizes.max()) > ONE_ROUND * float(sizes.min())
    orders = math.log2(float(sizes.max()) / float(sizes.min())) if spans else 0.0
    times = math.ceil(math.log2(orders / POWERS)) if spans else 0
    sign = 1.0 if not spans or values(np.array([low]))[0] > 0 else -1.0

    def of_s(s: Reals) -> Reals:
        made = beyond(s**-2.0)
        return np.asarray((sign * made) ** 0.5**times) if times else made

    goal = _half(wanted.goal)
    if times:
        relative = _relative(wanted) / 2.0 ** (times + 2)
        goal = Goal(relative * float(sizes.max()) ** 0.5**times, relative)
    rest = one_round(
        replace(
            wanted,
            function=of_s,
            low=high**-0.5 * (1 - SLACK),
            high=low**-0.5 * (1 + SLACK),
            odd=False,
            goal=goal,
        )
    )
    stages = _squares(float(sizes.min()) ** 0.5**times, float(sizes.max()) ** 0.5**times, times)
    last = (PolynomialFit((0.0, -1.0), 0.0, float(sizes.max()) * (1 + SLACK), 2.0**-50),) if sign < 0 else ()
    return _measured(wanted, (root, rest, *stages, *last))


def _squares(low: float, high: float, times: int) -> list[PolynomialFit]:
    """Squares of squares, from values in [low, high] on."""
    return [
        PolynomialFit((0.0, 0.0, 1.0), low ** (2**k) * (1 - SLACK), high ** (2**k) * (1 + SLACK), 2.0**-50)
        for k in range(times)
    ]


def _slope(values: Callable[[Reals], Reals], end: float, inside: float) -> float:
    at_end, at_inside = values(np.array([end, inside])).tolist()
    return float(at_end - at_inside) / (end - inside)


def reciprocal(wanted: Wanted) -> Fit:
    """1 / x of x > 0."""
    if wanted.high <= ONE_ROOT * wanted.low:
        return by_root(wanted, "-1")
    root = by_root(_guess(wanted), "-1/2")
    square = PolynomialFit((0.0, 0.0, 1.0), wanted.high**-0.5 * (1 - SLACK), wanted.low**-0.5 * (1 + SLACK), 2.0**-50)
    return _measured(wanted, (root, square))


def _guess(wanted: Wanted) -> Wanted:
    """1 / sqrt(x), well enough for a function of it."""
    relative = (wanted.goal.relative or 2.0**-10) / 8
    return replace(wanted, function=lambda x: x**-0.5, goal=Goal(max(wanted.low, TINY) ** -0.5, relative))


def rsqrt(wanted: Wanted) -> Fit:
    """1 / sqrt(x) of x > 0."""
    return by_root(wanted, "-1/2")


def sqrt(wanted: Wanted) -> Fit:
    """The square root of x > 0."""
    return by_root(wanted, "1/2")


def pieces(wanted: Wanted) -> PiecewiseFit:
    """Any continuous function, by comparison."""
    return by_pieces(checked(wanted.function, wanted.low, wanted.high), wanted.low, wanted.high, wanted.goal)


# -- the exponential, sine and cosine --------------------------------------------------------------------------------


def by_powers(wanted: Wanted) -> CompositeFit:
    """exp(x) = 2^m (e^((x - m log 2) / 2^k))^(2^k), m so that the power is at most 1: nothing is rounded by 2^m."""
    low, high = wanted.low, wanted.high
    times = max(1, math.ceil(math.log2((high - low) / math.log(2.0) / POWERS)))
    if times > MOST_POWERS:
        raise UnsupportedError("too long for squaring")
    part = 2.0**-times
    top = math.ceil(high / math.log(2.0))
    relative = _relative(wanted) * part / 16
    goal = Goal(relative, relative)

    def root(x: Reals) -> Reals:
        return np.asarray(np.exp((x - top * math.log(2.0)) * part))

    stages: list[PolynomialFit | FourierFit | RootFit] = [Fourier(root, low, high, goal=goal).enough(relative)]
    least, most = root(np.array([low, high])).tolist()
    stages += _squares(least, most, times)
    if top:
        stages.append(PolynomialFit((0.0, 2.0**top), 0.0, 1.0 + SLACK, 2.0**-50))
    return _measured(wanted, tuple(stages))


def by_turns(wanted: Wanted) -> CompositeFit:
    """A sine or cosine: of x / 2 pi its period is 1, which an angle of the field has exactly."""
    if max(-wanted.low, wanted.high) > FARTHEST:
        raise UnsupportedError("more turns than angles have digits for")
    low, high = (end / (2 * math.pi) for end in (wanted.low, wanted.high))
    values = checked(wanted.function, wanted.low, wanted.high)
    sine, cosine = (float(values(np.array([at]))[0]) for at in (_near(wanted, math.pi / 2), _near(wanted, 0.0)))
    wave = FourierFit(1, 0, 0.0, (cosine,), (sine,), low - SLACK, high + SLACK, wanted.goal.absolute / 2)
    return _measured(wanted, (PolynomialFit((0.0, 1 / (2 * math.pi)), wanted.low, wanted.high, 2.0**-50), wave))


def _near(wanted: Wanted, phase: float) -> float:
    """A point of this phase, inside the interval."""
    turns = math.ceil((wanted.low - phase) / (2 * math.pi))
    return min(phase + turns * 2 * math.pi, wanted.high)


def _half(goal: Goal) -> Goal:
    return Goal(goal.absolute / 2, None if goal.relative is None else goal.relative / 2)


def _measured(wanted: Wanted, stages: tuple[PolynomialFit | FourierFit | RootFit, ...]) -> CompositeFit:
    values = checked(wanted.function, wanted.low, wanted.high)
    return wanted.goal.measured(CompositeFit(stages, wanted.low, wanted.high, 0.0), values)


class _Progress:
    """Says on the terminal, after a second and each second, what takes so long."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            self._thread = threading.Thread(target=self._say, daemon=True)
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _say(self) -> None:
        began = time.monotonic()
        said = False
        while not self._done.wait(SLOW):
            print(f"\r{self._doing}: {time.monotonic() - began:.0f} s", end="", file=sys.stderr, flush=True)
            said = True
        if said:
            print(file=sys.stderr)
