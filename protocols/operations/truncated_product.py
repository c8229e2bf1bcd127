"""Truncations and a product in one opening: x / 2^f times y / 2^g, of a masked x and a masked y.

With the notation of ``truncation.py``, x / 2^f is u + b [w] - [r1], where u and b are public once x is opened, and r1
and w were dealt; likewise y / 2^g = v + c [z] - [s1], or, of a factor that is not truncated, D + [t].  Then

    [x / 2^f  y / 2^g]  =  u (v + c [z] - [s1])  +  v (b [w] - [r1])  +  b c [w z] - b [w s1] - c [r1 z] + [r1 s1],

so that, with the products of what is dealt for the one and for the other dealt as well, no truncated value needs to be
opened under a mask of its own before it is multiplied: an opening and a round less.

Security: nothing is opened here.  x and y were opened once each, under masks of their own; all that is dealt is dealt
anew, as uniform shares, for each product.  b and c are public, so the formula is linear in shares, and holds on MAC
shares as it stands.
Cost: no round; two dealt elements for each element of a factor that is truncated, and two for each of the result, four
where both are.
Source: as of ``truncation.py``; a dealer that knows both masks can deal any product of what follows from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, PrimeField, Rings, field_of
from mpc.tensor_type import Form, Shape, TensorType
from protocols.operations.linear import broadcast
from protocols.operations.truncation import check_truncatable, mask_quotient, opened_quotient


class Factor(NamedTuple):
    """Of a factor once it is opened: its public part, its share, and 0 or 1 for whether a wrap counts, if it may."""

    public: Array
    share: Array
    wrapped: Array | None

    def __repr__(self) -> str:
        return "Factor(...)"


class TruncationProducts(Correlation, frozen=True):
    """r1 and w of each mask that is truncated, and all products of the one's and the other's, or of a mask itself."""

    x: Shape
    y: Shape
    bits: tuple[int, int]

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def parts(self) -> tuple[Part, ...]:
        own = [Part(shape) for shape, bits in zip((self.x, self.y), self.bits, strict=True) if bits for _ in range(2)]
        products = (2 if self.bits[0] else 1) * (2 if self.bits[1] else 1)
        return (*own, *[Part(broadcast(self.x, self.y))] * products)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        own = [
            mask_quotient(field, mask, 1 << bits) if bits else (mask,)
            for mask, bits in zip(masks, self.bits, strict=True)
        ]
        dealt = [part for parts, bits in zip(own, self.bits, strict=True) if bits for part in parts]
        return (*dealt, *(field.multiply(first, second) for first in own[0] for second in own[1]))


@register
class TruncatedMultiply(Operation, frozen=True, tag="truncated_multiply"):
    """Elementwise, with broadcasting, of two factors, of which so many fraction bits are dropped, of one at least."""

    bits: tuple[int, int]

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 2, "takes two tensors")
        require(any(self.bits), "truncates one factor at least")
        ends = []
        for t, bits in zip(types, self.bits, strict=True):
            require(t.form is Form.MASKED and t.ring == FIELD, "factors are masked, and of the field")
            if bits:
                check_truncatable((t,), bits)
            unit = 2.0 ** (bits - t.fraction_bits) if bits else 0.0
            ends.append((t.low - unit, t.high + unit))
        corners = [u * v for u in ends[0] for v in ends[1]]
        left = sum(t.fraction_bits for t in types) - sum(self.bits)
        return TensorType(broadcast(types[0].shape, types[1].shape), left, min(corners), max(corners), Form.SHARED)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (TruncationProducts(types[0].shape, types[1].shape, self.bits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, dealt = field_of(party.rings), list(prepared)
        x, y = (
            _factor(field, t, value, [dealt.pop(0) for _ in range(2 if bits else 0)], bits)
            for t, value, bits in zip(types, inputs, self.bits, strict=True)
        )
        share = field.multiply_add(x.public, y.share, field.multiply(x.share, y.public))
        for first in _counted(x.wrapped):
            for second in _counted(y.wrapped):
                term = dealt.pop(0)
                negative = False
                for wrapped, counted in ((x.wrapped, first), (y.wrapped, second)):
                    if wrapped is None:
                        continue
                    negative ^= not counted
                    term = field.multiply(term, wrapped) if counted else term
                share = field.subtract(share, term) if negative else field.add(share, term)
        return Value(field.multiply(x.public, y.public), share)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field = field_of(rings)
        x, y = (
            field.quotient_signed(one, 1 << bits) if bits else one for one, bits in zip(inputs, self.bits, strict=True)
        )
        return field.multiply(x, y)

    def tolerance(self, *types: TensorType) -> float:
        """A unit of each that is truncated."""
        raw = [t.magnitude * 2.0 ** (t.fraction_bits - bits) for t, bits in zip(types, self.bits, strict=True)]
        first, second = (1.0 if bits else 0.0 for bits in self.bits)
        return first * (raw[1] + second) + second * raw[0]


def _factor(field: PrimeField, t: TensorType, value: Value, dealt: Sequence[Array], bits: int) -> Factor:
    public = field.or_zeros(value.public, t.shape)
    if not bits:
        return Factor(public, field.or_zeros(value.share, t.shape), None)
    down, wrap = dealt
    opened = opened_quotient(field, public, 1 << bits)
    wrapped = field.select(opened.below_half, field.full(t.shape, 1))
    return Factor(opened.quotient, field.subtract(field.multiply(wrap, wrapped), down), wrapped)


def _counted(wrapped: Array | None) -> tuple[bool, ...]:
    """Of the products that were dealt with r1, then with w, whether they are those with w."""
    return (False,) if wrapped is None else (False, True)
