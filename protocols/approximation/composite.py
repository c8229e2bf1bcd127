"""Chains of low-degree polynomials: high degree in few rounds.

* exp(x) ~ (1 + x / 4^k)^(4^k): k fourth powers, one round each (the textbook's limit; the error of k = 3 on [-8, 8/64]
  is what it is, and the Fourier fit is better in one round);
* odd saturating functions as three odd cubics, of degree 27, fitted together by least squares with weights that grow
  where the error is largest (Lawson).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import CompositeFit, PolynomialFit, Reals, dense_grid, measured

LAWSON_STEPS = 25


def exp_by_powers(low: float, high: float, stages: int = 3) -> CompositeFit:
    """(1 + x / 4^k)^(4^k) with k = ``stages``; error about x^2 exp(x) / (2 4^k)."""
    scale = 4.0**-stages
    if 1.0 + low * scale <= 0:
        raise UnsupportedError(f"exp by {stages} fourth powers needs values above {-1 / scale:g}")
    # (1 + s x)^4, then y^4 again and again.
    first = tuple(math.comb(4, k) * scale**k for k in range(5))
    chain = [PolynomialFit(first, low, high, 0.0, "composite")]
    bounds = (1.0 + low * scale) ** 4, (1.0 + high * scale) ** 4
    for _ in range(stages - 1):
        chain.append(PolynomialFit((0.0, 0.0, 0.0, 0.0, 1.0), *bounds, 0.0, "composite"))
        bounds = bounds[0] ** 4, bounds[1] ** 4
    fit = measured(CompositeFit(tuple(chain), low, high, 0.0), np.exp)
    assert isinstance(fit, CompositeFit)  # noqa: S101 - for the type checker
    return fit


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

    weights = np.ones_like(x)
    # Start from maps of [-1, 1] to itself that steepen the middle: y -> (3 y - y^3) / 2.
    p = np.array([2.2, -1.2, 1.5, -0.5, 1.5 * target[-1], -0.5 * target[-1]])
    best, best_error = p, math.inf
    for _ in range(LAWSON_STEPS):
        roots = np.sqrt(weights)
        p = least_squares(lambda q, roots=roots: roots * (chain(q) - target), p, method="lm").x
        error = np.abs(chain(p) - target)
        if error.max() < best_error:
            best, best_error = p, float(error.max())
        weights = weights * (0.2 + error / error.max())
        weights /= weights.mean()
    (a1, b1), (a2, b2), (a3, b3) = best.reshape(3, 2).tolist()
    polynomials = [(0.0, a1 / high, 0.0, b1 / high**3), (0.0, a2, 0.0, b2), (centre, a3, 0.0, b3)]
    stages, grid = [], dense_grid(-high, high)
    for coefficients in polynomials:
        stage = PolynomialFit(coefficients, float(grid.min()), float(grid.max()), 0.0, "composite")
        stages.append(stage)
        grid = stage(grid)
    fit = measured(CompositeFit(tuple(stages), -high, high, 0.0), function)
    assert isinstance(fit, CompositeFit)  # noqa: S101 - for the type checker
    return fit
