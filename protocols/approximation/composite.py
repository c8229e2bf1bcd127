"""Chains of low-degree polynomials: high degree in few rounds.

* exp(x) = exp(x / 16)^16: the best quartic of exp(x / 16), then two fourth powers.  As many stages as the textbook's
  (1 + x / 64)^64, and on [-8, 0] an error of 6e-6 instead of 4e-3.
* Odd saturating functions as three odd cubics, of degree 27, fitted together by least squares with weights that grow
  where the error is largest (Lawson).  They pay where the function is steep for the length of its interval; where it
  is not, a single polynomial has the smaller error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import CompositeFit, PolynomialFit, Reals, dense_grid, measured
from protocols.approximation.minimax import fit_polynomial

FOURTH_POWERS = 2
LAWSON_STEPS = 25
MARGIN = 2.0**-10
"""Stages are declared on intervals this much wider than the values before them: those will be rounded."""


def exp_by_powers(low: float, high: float) -> CompositeFit:
    """exp on [low, high] by a quartic and fourth powers."""
    scale = 4.0**-FOURTH_POWERS
    if max(abs(low), abs(high)) * scale > 2.0:
        raise UnsupportedError(
            f"exp by {FOURTH_POWERS} fourth powers is for values between {-2 / scale:g} and {2 / scale:g},"
            f" not [{low:g}, {high:g}]: use a shorter interval"
        )
    quartic = fit_polynomial(lambda x: np.exp(x * scale), low, high, 4)
    powers = [(0.0, 0.0, 0.0, 0.0, 1.0)] * FOURTH_POWERS
    return _chain([quartic.coefficients, *powers], low, high, np.exp)


def three_cubics(function: Callable[[Reals], Reals], high: float, centre: float) -> CompositeFit:
    """``function``, odd about (0, centre), on [-high, high] as centre + p3(p2(p1(x)))."""
    from scipy.optimize import least_squares

    x = high * (1 - np.cos(np.linspace(0, math.pi / 2, 400)))
    target = function(x) - centre

    def chain(p: Reals) -> Reals:
        y = x / high
        for a, b in p.reshape(3, 2):
            y = a * y + b * y**3
        return np.asarray(y)

    def weighted(p: Reals, weights: Reals) -> Reals:
        return np.asarray(np.sqrt(weights) * (chain(p) - target))

    weights = np.ones_like(x)
    # Start from maps of [-1, 1] to itself that steepen the middle: y -> (3 y - y^3) / 2.
    p = np.array([2.2, -1.2, 1.5, -0.5, 1.5 * target[-1], -0.5 * target[-1]])
    best, best_error = p, math.inf
    for _ in range(LAWSON_STEPS):
        p = least_squares(weighted, p, method="lm", args=(weights,)).x
        error = np.abs(chain(p) - target)
        if error.max() < best_error:
            best, best_error = p, float(error.max())
        weights = weights * (0.2 + error / error.max())
        weights /= weights.mean()
    (a1, b1), (a2, b2), (a3, b3) = best.reshape(3, 2).tolist()
    cubics = [(0.0, a1 / high, 0.0, b1 / high**3), (0.0, a2, 0.0, b2), (centre, a3, 0.0, b3)]
    return _chain(cubics, -high, high, function)


def _chain(
    polynomials: Sequence[tuple[float, ...]], low: float, high: float, function: Callable[[Reals], Reals]
) -> CompositeFit:
    """The polynomials in turn, each on the interval of the values that reach it."""
    stages: list[PolynomialFit] = []
    values, margin = dense_grid(low, high), 0.0
    for coefficients in polynomials:
        first, last = float(values.min()) - margin, float(values.max()) + margin
        stages.append(PolynomialFit(coefficients, first, last, 0.0, "composite"))
        values = stages[-1](values)
        margin = MARGIN * float(np.ptp(values))
    return measured(CompositeFit(tuple(stages), low, high, 0.0), function)
