"""Best approximation in the maximum norm, by linear programming: minimise t subject to |f - sum_k c_k b_k| <= t.

The grid starts as Chebyshev points and takes in the places where the error is largest (Remez' idea) until the maximum
on the grid and over the interval agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import Reals

EXCHANGES = 12
TINY = 1e-200
AGREED = 1.0005
"""The maximum over the interval may be this many times that on the grid."""

_TOLERANCES = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@dataclass(frozen=True)
class Basis:
    """The functions that are combined, and what their coefficients may be."""

    columns: Callable[[Reals], Reals]
    """Points (n,) to values of the basis functions (n, size)."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Columns whose coefficients' magnitudes together are at most ``limit``; none: any coefficients will do."""
    limit: float = math.inf
    price: float = 0.0
    """Added to the error for every unit of a coefficient in a group."""


def best(basis: Basis, points: Reals, target: Reals, weights: Reals | None = None) -> Reals:
    """Coefficients (size,) of the best approximation of ``target`` at ``points`` (n,), which lie densely and in order,
    up to a factor of ``AGREED`` in the error.  Errors count times ``weights`` (n,)."""
    matrix = basis.columns(points)
    if weights is not None:
        matrix, target = matrix * weights[:, None], target * weights
    # The solver's tolerances are absolute.  A function that is all but 0 stays so: there is nothing to divide by.
    largest = float(np.abs(target).max())
    scale = largest if largest > TINY else 1.0
    target = target / scale
    low, high = float(points[0]), float(points[-1])
    nodes = np.linspace(0, math.pi, 6 * matrix.shape[1] + 20)
    chosen = np.unique(np.searchsorted(points, (low + high) / 2 - (high - low) / 2 * np.cos(nodes)))
    chosen = chosen.clip(0, len(points) - 1)
    for _ in range(EXCHANGES):
        coefficients = _solve(basis, matrix[chosen], target[chosen], basis.limit / scale)
        error = np.abs(matrix @ coefficients - target)
        if error.max() <= error[chosen].max() * AGREED + 1e-13:
            break
        inner = (error[1:-1] >= error[:-2]) & (error[1:-1] >= error[2:])
        peaks = np.flatnonzero(inner & (error[1:-1] > error[chosen].max())) + 1
        chosen = np.union1d(chosen, np.union1d(peaks, [int(error.argmax())]))
    return coefficients * scale


def _solve(basis: Basis, matrix: Reals, target: Reals, limit: float) -> Reals:
    """On the grid alone.  With groups, coefficients are split into their positive and negative parts."""
    from scipy.optimize import linprog

    points, size = matrix.shape
    ones = np.ones((points, 1))
    rows, bounds = [matrix, -matrix], [target, -target]
    parts, price = 1, np.zeros(size)
    if basis.groups:
        parts = 2
        rows = [np.hstack([row, -row]) for row in rows]
        price[[k for group in basis.groups for k in group]] = basis.price
    constraints = [np.hstack([row, -ones]) for row in rows]
    for group in basis.groups:
        row = np.zeros((1, 2 * size + 1))
        row[0, [k + half for k in group for half in (0, size)]] = 1.0
        constraints.append(row)
        bounds.append(np.array([limit]))
    result = linprog(
        np.concatenate([*[price] * parts, [1.0]]),
        A_ub=np.vstack(constraints),
        b_ub=np.concatenate(bounds),
        bounds=[(0, None) if basis.groups else (None, None)] * (size * parts) + [(0, None)],
        method="highs",
        options=_TOLERANCES,
    )
    if result.x is None:
        raise UnsupportedError(f"no fit was found: {result.message}; ask for fewer terms or a lower degree")
    if basis.groups:
        return np.asarray(result.x[:size] - result.x[size : 2 * size], dtype=np.float64)
    return np.asarray(result.x[:size], dtype=np.float64)
