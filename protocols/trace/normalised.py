"""Functions of values over many orders of magnitude: comparison brings them into two of these, where a short fit holds.

With thresholds 16^k times the lowest value, one comparison each, the number of those that x reaches says by which power
of 16 it is to be divided.  Each comparison lets x through, so that x is cut into one part for each number, of which all
but one are 0: a part is below its next threshold, so that dividing it by its power, of 2 too, is exact, and their sum
has all digits of x.  What undoes it in the result, 16^-k for 1 / x, 4^k and 4^-k for the roots, and k log 16, which is
added, for the logarithm, is linear in the comparisons' bits.
"""

from __future__ import annotations

import math
from typing import Any

from mpc.errors import UnsupportedError
from protocols.approximation import FUNCTIONS, default_fit
from protocols.trace.mathematics import Declare, Normalise

STEP = 16.0

MOST = 12
"""Thresholds: beyond, no field has the bits."""

_EXPONENTS = {"reciprocal": -1.0, "sqrt": 0.5, "rsqrt": -0.5}

NORMALISED = (*_EXPONENTS, "log")


def normalised(x: Any, name: str) -> Any:
    """A function of ``NORMALISED`` of a secret tensor above 0, relative to each value; of the logarithm, absolute.

    The rounds of a comparison and of a short fit, and one of a product but for the logarithm.  Raises UnsupportedError
    for more orders of magnitude than there are bits.
    """
    low, high = x.type.low, x.type.high
    count = math.ceil(math.log(high / low, STEP)) - 1
    if not 0 < count <= MOST:
        raise UnsupportedError(f"{name} of values from {low:g} to {high:g}")
    reached = [x >= low * STEP**k for k in range(1, count + 1)]

    def chosen(value: Any) -> Any:
        """``value`` (k) of the number k of thresholds that were reached."""
        steps = [bit * (value(k) - value(k - 1)) for k, bit in enumerate(reached, start=1)]
        return sum(steps[1:], steps[0]) + value(0)

    # A power of 4 next to the lowest value, so that it and its root are exact.
    scale = 4.0 ** -math.floor(math.log(low, 4.0))
    inside = x._joined(Normalise(low, int(STEP)), x, *reached) * scale
    fit = default_fit(name, "fourier", inside.type.low, inside.type.high)
    result = inside.apply(fit, target=0.0 if fit.relative is not None else FUNCTIONS[name].target)
    if name == "log":
        number = chosen(float)._new(Declare(0.0, float(count), as_it_is=True))
        return result + (number * math.log(STEP) - math.log(scale))
    exponent = _EXPONENTS[name]

    def undone(k: float) -> float:
        return float((STEP**k / scale) ** exponent)

    low, high = sorted((undone(0), undone(count)))
    return result * chosen(undone)._new(Declare(low, high, as_it_is=True))
