"""Truncation: x / 2^f of a masked x, exact but for one unit in the last place, with no statistical slack.

Write ``x = E + a`` and ``r = -a mod p``, uniform.  Let c = E + 2^59 mod p = x + 2^59 + r mod p, m = 1 if r >= H = 2^60
else 0, known to the dealer, and b = 1 if c < H else 0, public.  For |x| < 2^59 the sum wraps past p exactly when
m = b = 1, and then c = x + 2^59 + (r + 1) - 2^61.  So with r1 = floor(r / 2^f) and
w = m (2^(61-f) + floor(r / 2^f) - floor((r + 1) / 2^f)) dealt,

    [x / 2^f]  =  floor(c / 2^f) - 2^(59-f)  -  [r1]  +  b [w].

The result differs from the real quotient by less than one unit; its error has mean zero over r (stochastic rounding).

Security: nothing is opened here beyond E, which is uniform; the range |x| < 2^59 is the planner's to guarantee.  b is
public, so the formula is linear in shares and holds on MAC shares as it stands; r1 and w come with theirs.  Cost: no
round of its own; two dealt elements per element.
Source: truncation pairs of SecureML (Mohassel and Zhang 2017) and ABY3 (Mohassel and Rindal 2018), with the wrap made
exact for a Mersenne prime (without the r + 1 the error would sometimes be a whole unit, and biased); letting each party
shift its own share instead fails badly with probability |x| / p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, Rings, field
from mpc.rings.field import FieldArray
from mpc.tensor_type import TRUNCATION_BITS, Form, Shape, TensorType

HALF = 1 << 60
OFFSET = 1 << TRUNCATION_BITS


def check_truncatable(types: tuple[TensorType, ...], bits: int) -> TensorType:
    """The one operand of a truncation by ``bits``, or ProgramError."""
    require(len(types) == 1 and types[0].form is Form.MASKED, "takes one masked tensor")
    require(types[0].ring == FIELD, "truncates field elements: the wrap is that of p = 2^61 - 1")
    require(0 < bits < TRUNCATION_BITS, f"cannot truncate by {bits} bits")
    require(bits <= types[0].fraction_bits, "truncates no more than the fraction bits")
    require(types[0].fits(TRUNCATION_BITS), f"values of {types[0].bits:.1f} bits are too large to truncate")
    return types[0]


class MaskBits(NamedTuple):
    """Of r = -a: floor(r / 2^f), and what a wrap adds to the quotient, w; in the clear, at the dealer."""

    high: FieldArray
    wrap: FieldArray

    def __repr__(self) -> str:
        return "MaskBits(...)"


def mask_bits(mask: FieldArray, bits: int) -> MaskBits:
    r = field.negate(mask)
    low = np.uint64((1 << bits) - 1)
    added = np.uint64(1 << (61 - bits)) - ((r & low) == low).astype(np.uint64)
    return MaskBits(r >> np.uint64(bits), (r >= np.uint64(HALF)) * added)


class TruncationBits(Correlation, frozen=True):
    """r1 and w of a mask: what `Truncate` by ``bits`` needs."""

    shape: Shape
    bits: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.shape), Part(self.shape))

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return mask_bits(masks[0], self.bits)


class Opened(NamedTuple):
    """Of c = x + 2^59 + r: the public part of the quotient, and b."""

    quotient: FieldArray
    below_half: FieldArray


def opened_bits(opened: FieldArray, bits: int) -> Opened:
    c = field.add(opened, np.array(OFFSET, np.uint64))
    quotient = field.subtract(c >> np.uint64(bits), np.array(OFFSET >> bits, np.uint64))
    return Opened(quotient, (c < np.uint64(HALF)).astype(np.uint64))


def floor_quotient(x: FieldArray, bits: int) -> FieldArray:
    """floor(x / 2^bits) of signed values: what truncation means in the clear."""
    return field.from_signed(field.to_signed(x) >> np.int64(bits))


@register
class Truncate(Operation, frozen=True, tag="truncate"):
    """Drop ``bits`` fraction bits."""

    bits: int

    def result(self, *types: TensorType) -> TensorType:
        x = check_truncatable(types, self.bits)
        left = x.fraction_bits - self.bits
        unit = 2.0**-left
        return TensorType(x.shape, left, x.low - unit, x.high + unit, Form.SHARED)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (TruncationBits(types[0].shape, self.bits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        high, wrap = prepared
        x = inputs[0].public
        opened = opened_bits(field.zeros(types[0].shape) if x is None else x, self.bits)
        return Value(opened.quotient, field.subtract(field.multiply(opened.below_half, wrap), high))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return floor_quotient(inputs[0], self.bits)

    def tolerance(self, *types: TensorType) -> float:
        return 1.0
