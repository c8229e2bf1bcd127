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

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.prime_field import Bits
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


class MaskQuotient(NamedTuple):
    """Of r = -a: floor(r / d), and what a wrap adds to the quotient, w; in the clear, at the dealer."""

    down: Array
    wrap: Array

    def __repr__(self) -> str:
        return "MaskQuotient(...)"


def mask_quotient(field: PrimeField, mask: Array, divisor: int) -> MaskQuotient:
    down = field.quotient(field.negate(mask), divisor)
    # p - r = a, so w = m (floor(r / d) + ceil(a / d)).  m = 1 is 0 < a < H, where nothing wraps around; the sum is 0
    # where a is.
    up = field.quotient(field.add(mask, field.full((), divisor - 1)), divisor)
    return MaskQuotient(down, field.select(field.below(mask, HALF), field.add(down, up)))


def mask_quotients(field: PrimeField, mask: Array, divisor: int) -> tuple[Array, Array]:
    """Both values that the shared part of a quotient may have: s_0 = -r1 and s_1 = w - r1; in the clear."""
    down, wrap = mask_quotient(field, mask, divisor)
    return field.negate(down), field.subtract(wrap, down)


class TruncationBits(Correlation, frozen=True):
    """r1 and w of a mask: what `Truncate` by ``bits`` needs."""

    shape: Shape
    bits: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.shape), Part(self.shape))

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return mask_quotient(field_of(rings), masks[0], 1 << self.bits)


class OpenedQuotient(NamedTuple):
    """Of c = x + K + r, K the largest multiple of d up to 2^59: the public part of the quotient, and b."""

    quotient: Array
    below_half: Bits


def opened_quotient(field: PrimeField, opened: Array, divisor: int) -> OpenedQuotient:
    multiple = OFFSET // divisor
    c = field.add(opened, field.full((), multiple * divisor))
    quotient = field.subtract(field.quotient(c, divisor), field.full((), multiple))
    return OpenedQuotient(quotient, field.below(c, HALF))


def quotient_of(party: PartyContext, x: TensorType, value: Value, shares: Sequence[Array], divisor: int) -> Value:
    """x / d, from the party's ``shares`` of what `mask_quotient` makes."""
    field, (down, wrap) = field_of(party.rings), shares
    public = field.or_zeros(value.public, x.shape)
    opened = opened_quotient(field, public, divisor)
    return Value(opened.quotient, field.subtract(field.select(opened.below_half, wrap), down))


@register
class Truncate(Operation, frozen=True, tag="truncate"):
    """Drop ``bits`` fraction bits."""

    bits: int

    def result(self, *types: TensorType) -> TensorType:
        x = check_truncatable(types, self.bits)
        left = x.fraction_bits - self.bits
        unit = 2.0**-left
        return TensorType(x.shape, left, x.low - unit, x.high + unit, Form.SHARED)

    def takes_share(self, operand: int) -> bool:
        return False

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (TruncationBits(types[0].shape, self.bits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        return quotient_of(party, types[0], inputs[0], prepared, 1 << self.bits)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return field_of(rings).quotient_signed(inputs[0], 1 << self.bits)

    def tolerance(self, *types: TensorType) -> float:
        return 1.0
