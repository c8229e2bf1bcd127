"""A caller's function, made safe to sample: on arrays, elementwise, real and finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation.fits import Reals, dense_grid

SPARSE = 97
"""Every so many points of the dense grid are evaluated again alone, to see that the function is elementwise."""


def checked(function: Callable[[Reals], object], low: float, high: float) -> Callable[[Reals], Reals]:
    """The function from float64 arrays (n,) to float64 arrays (n,).

    Raises UnsupportedError unless the interval is proper and the function is real, elementwise and finite on it.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UnsupportedError(f"[{low}, {high}] is not an interval to fit a function on: give low < high")
    where = f"on [{low:g}, {high:g}]"

    def on_arrays(x: Reals) -> Reals:
        # A copy, since the caller's function may write to its argument.
        with np.errstate(all="ignore"):
            try:
                values = np.asarray(function(x.copy()))
            except (TypeError, ValueError):
                values = _one_by_one(function, x, where)
        if values.dtype.kind not in "biuf":
            raise UnsupportedError(f"the function returns {values.dtype} {where}, not real numbers")
        if values.shape not in ((), x.shape):
            raise UnsupportedError(f"the function maps an array {x.shape} to {values.shape}: it must be elementwise")
        return np.broadcast_to(values.astype(np.float64), x.shape)

    x = dense_grid(low, high)
    values = on_arrays(x)
    if not np.isfinite(values).all():
        first = x[np.flatnonzero(~np.isfinite(values))[0]]
        raise UnsupportedError(
            f"the function is not finite everywhere {where}, for one at {first:g}: declare a tighter range with"
            " within(low, high), or give another interval"
        )
    if not np.allclose(on_arrays(x[::SPARSE]), values[::SPARSE], rtol=1e-6, atol=1e-9 * float(np.abs(values).max())):
        raise UnsupportedError("the function is not elementwise: a value depends on the other elements of the array")
    return on_arrays


def _one_by_one(function: Callable[[Reals], object], x: Reals, where: str) -> Reals:
    """For a function of one number, as ``math.erf``."""
    try:
        return np.array([function(v) for v in x.tolist()])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UnsupportedError(f"the function fails {where}: {error}") from error
