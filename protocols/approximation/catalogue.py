"""The named functions: the true function, its interval, and what happens outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from protocols.approximation import taylor
from protocols.approximation.fits import Reals
from protocols.approximation.search import Way, by_powers, by_turns, of_root, pieces, reciprocal, rsqrt, sqrt

Line = tuple[float, float]
"""(constant, slope)."""


@dataclass(frozen=True)
class Function:
    """A named function and its default Fourier fit: ``terms`` are the fewest whose error is at most ``target``."""

    name: str
    exact: Callable[[Reals], Reals]
    low: float
    high: float
    terms: int
    target: float
    outside: str
    """What the Fourier fit does outside its interval, beside having a period."""
    odd: bool = False
    """About (0, f(0))."""
    taylor: Callable[[int], Fraction] | None = None
    """The coefficient of (x - about)^k."""
    about: int = 0
    relative: bool = False
    """Whether it spans orders of magnitude, and is judged by its relative error too."""
    ways: tuple[Way, ...] = (pieces,)
    """How it is evaluated where one round is not enough."""
    tails: tuple[Line, Line] | None = None
    """The lines that it comes ever nearer to, far to the left and far to the right, if it does."""


def sigmoid(x: Reals) -> Reals:
    """Accurate in the relative sense far below 0 too."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(x)))


def silu(x: Reals) -> Reals:
    return np.asarray(x * sigmoid(x))


def gelu(x: Reals) -> Reals:
    """x Phi(x), the exact form."""
    # Only those who make fits, or compare with the true function, need scipy.
    from scipy.special import ndtr

    return np.asarray(x * ndtr(x))


def gelu_tanh(x: Reals) -> Reals:
    """GELU's other form, by tanh: 2 sigmoid(2 y) = 1 + tanh(y)."""
    return np.asarray(x * sigmoid(2.0 * math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def softplus(x: Reals) -> Reals:
    return np.logaddexp(0.0, x)


def erf(x: Reals) -> Reals:
    from scipy.special import erf as exact

    return np.asarray(exact(x))


def mish(x: Reals) -> Reals:
    return np.asarray(x * np.tanh(softplus(x)))


def _rsqrt(x: Reals) -> Reals:
    return np.asarray(x**-0.5)


_TURNS_BACK = "keeps its bounds but turns back beyond half a period"
_RAMP = "falls from its largest value back to 0, and repeats"
_STEP: tuple[Line, Line] = (-1.0, 0.0), (1.0, 0.0)
_RISE: tuple[Line, Line] = (0.0, 0.0), (0.0, 1.0)

FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function("sigmoid", sigmoid, -8, 8, 9, 1e-4, _TURNS_BACK, True, taylor.sigmoid,
            tails=((0.0, 0.0), (1.0, 0.0))),
        Function("tanh", np.tanh, -8, 8, 15, 2e-4, _TURNS_BACK, True, taylor.tanh, tails=_STEP),
        Function("erf", erf, -4, 4, 9, 1e-4, _TURNS_BACK, True, tails=_STEP),
        Function(
            "exp", np.exp, -8, 0, 9, 1e-5, "does not vanish below: it rises again",
            taylor=taylor.exp, relative=True, ways=(by_powers,),
        ),
        Function("silu", silu, -8, 8, 10, 1e-4, _RAMP, taylor=taylor.silu, tails=_RISE),
        Function("gelu", gelu, -8, 8, 12, 1e-4, _RAMP, tails=_RISE),
        Function("gelu_tanh", gelu_tanh, -8, 8, 12, 1e-4, _RAMP, tails=_RISE),
        Function("mish", mish, -8, 8, 12, 1e-4, _RAMP, tails=_RISE),
        Function("softplus", softplus, -8, 8, 8, 1e-4, _RAMP, taylor=taylor.softplus, tails=_RISE),
        Function(
            "reciprocal", np.reciprocal, 0.5, 8, 15, 1e-4, "has neither pole nor sign change at 0",
            taylor=taylor.reciprocal, about=1, relative=True, ways=(reciprocal,),
        ),
        Function(
            "log", np.log, 0.02, 1, 15, 1e-3, "has no pole at 0: it falls, turns and repeats",
            taylor=taylor.log, about=1, ways=(of_root,),
        ),
        Function(
            "sqrt", np.sqrt, 0.02, 1, 10, 1e-4, "turns back beyond half a period", relative=True, ways=(sqrt,)
        ),
        Function(
            "rsqrt", _rsqrt, 0.5, 8, 11, 1e-4, "has neither pole nor sign change at 0", relative=True, ways=(rsqrt,)
        ),
        # The targets of these two are as low as fixed-point arithmetic has a use for.
        Function("sin", np.sin, -math.pi, math.pi, 5, 5e-6, "drifts away: the period is not 2 pi", True,
            taylor.sin, ways=(by_turns,)),
        Function("cos", np.cos, -math.pi, math.pi, 4, 5e-6, "drifts away: the period is not 2 pi", taylor=taylor.cos,
            ways=(by_turns,)),
    )
}  # fmt: skip

_BEYOND = "is not for values outside"

NORMAL: dict[str, Function] = {
    f.name: f
    for f in (
        Function("exp", np.exp, -16, 0, 14, 5e-7, _BEYOND),
        Function("reciprocal", np.reciprocal, 15 / 16, 17, 24, 1.2e-6, _BEYOND),
        Function("log", np.log, 15 / 16, 17, 18, 1.2e-6, _BEYOND),
        Function("sqrt", np.sqrt, 15 / 16, 17, 14, 1e-6, _BEYOND),
        Function("rsqrt", _rsqrt, 15 / 16, 17, 20, 1e-6, _BEYOND),
    )
}
"""On intervals to which values are brought before: from 1 to 16, but for what a threshold may be off by, where there
are many orders of magnitude, and below the largest (``protocols/trace/normalised.py``, ``softmax.py``)."""
