"""Division of a masked x by a public whole number d, exact but for one unit in the last place.

As a truncation (``truncation.py``), with d in the place of 2^f.  Write ``x = E + a`` and ``r = -a mod p``, uniform.
Let K be the largest multiple of d up to 2^59, c = x + K + r mod p, m = 1 if r >= H = 2^60 else 0, and b = 1 if c < H
else 0.  For -K <= x < 2^59 the sum wraps past p exactly when m = b = 1.  Where it does not, x + K = c - r; where it
does, x + K = c + (p - r), and p - r = a.  So with r1 = floor(r / d) and w = m (ceil(a / d) + floor(r / d)) dealt,

    [x / d]  =  floor(c / d) - K / d  -  [r1]  +  b [w],

which differs from the real quotient by less than one unit: either two floors are subtracted, or a floor and a ceiling
are added.

A multiplication by 1 / d takes no opening, but loses what the constant has no room for; this loses a unit, whatever the
size of x.

Security, cost and source: as a truncation's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, Rings, field_of
from mpc.tensor_type import SLACK, TRUNCATION_BITS, Form, Shape, TensorType
from protocols.operations.truncation import OFFSET, mask_quotient, quotient_of

MAX_DIVISOR = 1 << 58


def fits(x: TensorType, divisor: int) -> bool:
    """Whether no value is below -K or from 2^59 on: of what fits at all, none is, up to divisors of 2^39."""
    largest = OFFSET // divisor * divisor
    return x.fits(TRUNCATION_BITS) and (
        divisor <= 1 << 39 or math.ldexp(x.magnitude, x.fraction_bits) <= largest * SLACK
    )


class QuotientShares(Correlation, frozen=True):
    """r1 and w of a mask: what ``Quotient`` by ``divisor`` needs."""

    shape: Shape
    divisor: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.shape), Part(self.shape))

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return mask_quotient(field_of(rings), masks[0], self.divisor)


@register
class Quotient(Operation, frozen=True, tag="quotient"):
    """x / ``divisor``, with the fraction bits of x."""

    divisor: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].form is Form.MASKED, "takes one masked tensor")
        x = types[0]
        require(x.ring == FIELD, "divides field elements: the wrap is that of p = 2^61 - 1")
        require(1 < self.divisor <= MAX_DIVISOR, f"divides by 2 to {MAX_DIVISOR}")
        require(fits(x, self.divisor), f"values of {x.bits:.1f} bits are too large to divide by {self.divisor}")
        unit = 2.0**-x.fraction_bits
        low, high = x.low / self.divisor - unit, x.high / self.divisor + unit
        return TensorType(x.shape, x.fraction_bits, low, high, Form.SHARED)

    def takes_share(self, operand: int) -> bool:
        return False

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (QuotientShares(types[0].shape, self.divisor),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        return quotient_of(party, types[0], inputs[0], prepared, self.divisor)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return field_of(rings).quotient_signed(inputs[0], self.divisor)

    def tolerance(self, *types: TensorType) -> float:
        return 1.0
