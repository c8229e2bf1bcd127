"""Functions of values over many orders of magnitude: comparison brings them between 1 and 16, where a short fit holds.

With thresholds 16^k times a base below the lowest value, one comparison each, the number of those that x reaches says
by which power of 16 it is to be divided.  Each comparison lets x through, so that x is cut into one part for each
number, of which all but one are 0: a part is below its next threshold, so that dividing it by its power, of 2 too, is
exact, and their sum has all digits of x.  What undoes it in the result, 16^-k for 1 / x, 4^k and 4^-k for the roots,
and k log 16, which is added, for the logarithm, is linear in the comparisons' bits.

A threshold may be off by a sixteenth of itself, which the fits have room for: the bits below that are not compared.
Fits are those of ``NORMAL``, which ship, and err by a millionth: so of each value, a relative 2e-5 is lost at most by
them (of 1 / x, else less), and what the field has no digits for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec

from mpc.errors import UnsupportedError
from mpc.tensor_type import TRUNCATION_BITS
from protocols.approximation import FourierFit
from protocols.approximation.defaults import normal_fits
from protocols.trace.mathematics import Called, Known, Normalise, Reach

STEP = 16.0

TOLERANCE = 2.0**-4
"""Of a threshold, as a part of it."""

MOST = 15
"""Thresholds: beyond, no field has the bits."""

EXPONENTS = {"reciprocal": -1.0, "sqrt": 0.5, "rsqrt": -0.5}

NORMALISED = (*EXPONENTS, "log")

SLACK = 2.0**-10
"""By which results may be beyond those of the range, as a part of each; of logarithms, by themselves."""

FEWEST_BITS = 12
"""Of a function, before it is multiplied by the power that undoes what was done to its argument."""


@dataclass(frozen=True)
class Normal:
    """A tensor above 0: ``inside`` 16^k ``base``, inside about from 1 to 16; ``reached``: k >= 1, k >= 2, ..."""

    inside: Any
    reached: tuple[Any, ...]
    base: float

    @staticmethod
    def of(x: Any, low: float) -> Normal:
        """``x``, of which nothing that counts is below ``low``.

        The rounds of a comparison.  Raises UnsupportedError for more orders of magnitude than there are bits.
        """
        high = x.type.high
        if not 0 < low <= high:
            raise UnsupportedError(f"values from {low:g} to {high:g}: declare a range above 0 with within(low, high)")
        base, count = thresholds_of(max(low, 2.0**-x.type.fraction_bits), high)
        if count > MOST:
            raise UnsupportedError(
                f"values from {low:g} to {high:g} are of more orders of magnitude than there are bits: declare a"
                " tighter range with within(low, high)"
            )
        reached = tuple(x._new(Reach(base * STEP**k, TOLERANCE)) for k in range(1, count + 1))
        return Normal(x._joined(Normalise(base, int(STEP), TOLERANCE), x, *reached), reached, base)

    def chosen(self, first: float, ratio: float) -> Any:
        """``first`` times ``ratio``^k; a number, where there is no threshold."""
        if not self.reached:
            return first
        powers = [first * ratio**k for k in range(len(self.reached) + 1)]
        steps = [bit * (b - a) for bit, a, b in zip(self.reached, powers, powers[1:], strict=False)]
        total = sum(steps[1:], steps[0]) + first
        return total._new(Known(min(powers), max(powers), as_it_is=True))

    def power(self, exponent: float) -> Any:
        """What ``inside`` to this power is to be multiplied by: powers of 2, for 1 / x and both roots."""
        return self.chosen(self.base**exponent, STEP**exponent)

    def fitted(self, name: str, factor: float = 1.0) -> Any:
        """A function of ``inside``, times a public factor near 1: one round."""
        return self.inside.apply(_times(normal_fits()[name], factor))


def _times(fit: FourierFit, factor: float) -> FourierFit:
    if factor == 1.0:
        return fit
    cosines, sines = (tuple(factor * c for c in waves) for waves in (fit.cosines, fit.sines))
    return msgspec.structs.replace(
        fit, constant=factor * fit.constant, cosines=cosines, sines=sines, error=factor * fit.error
    )


def thresholds_of(low: float, high: float) -> tuple[float, int]:
    """``base`` of values from ``low`` to ``high``, and how many thresholds it takes above it."""
    # A power of 4, so that it and its root are exact.
    base = 4.0 ** math.floor(math.log(low / (1 - TOLERANCE), 4.0))
    return base, max(0, math.ceil(math.log(high / (base * (1 + TOLERANCE)), STEP)) - 1)


def normalised(x: Any, name: str) -> Any:
    """A function of ``NORMALISED`` of a secret tensor above 0, relative to each value; of the logarithm, absolute.

    The rounds of a comparison and of a short fit, and one or two of a product but for the logarithm.  Raises
    UnsupportedError for more orders of magnitude than there are bits.
    """
    result = _of_parts(x, name)
    return result._joined(Called(name), result, x)


def _of_parts(x: Any, name: str) -> Any:
    low, high = x.type.low, x.type.high
    parts = Normal.of(x, low)
    result = parts.fitted(name)
    if name == "log":
        result = result + (_number(parts) * math.log(STEP) + math.log(parts.base))
        return result._new(Known(math.log(low) - SLACK, math.log(high) + SLACK))
    power = parts.power(EXPONENTS[name])
    if parts.reached:
        # Of the power, no digit may be cut: it is all that small results have.
        room = math.floor(TRUNCATION_BITS - 1 - power.type.bits - math.log2(result.type.magnitude))
        result = result.truncate(max(FEWEST_BITS, min(room, result.type.fraction_bits)))
    least, most = sorted((low ** EXPONENTS[name], high ** EXPONENTS[name]))
    return (result * power)._new(Known(least * (1 - SLACK), most * (1 + SLACK)))


def _number(parts: Normal) -> Any:
    """k."""
    if not parts.reached:
        return 0.0
    total = sum(parts.reached[1:], parts.reached[0])
    return total._new(Known(0.0, float(len(parts.reached)), as_it_is=True))
