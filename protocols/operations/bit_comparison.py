"""A comparison without MACs in three rounds: the chain of digits (``digits.py``) in packed bits.

Digits are opened as bits: a_j = u_j xor alpha_j and b_j = v_j xor beta_j.  The chain is a polynomial in the bits alpha
and beta, with public coefficients, and so, under XOR, linear in dealt bits, the monomials (`Sign`).  The bit is masked
and opened like any, t = bit xor m, and is t + (1 - 2 t) m with shares of m in the field (`Lifted`); of m b for a masked
y = D + b that the bit lets through.

Security: nothing is opened here; what is opened next is a bit under a uniform one of its own.  Everything is linear in
dealt shares, fresh and uniform, with public coefficients.
Cost: no round of its own.  Dealt are 3 2^(J-1) - 2 bits, and then an element for a bit, or two for what it lets
through.  At k = 20 bits a ReLU takes 31 bytes with five digits, of which the tables are 10.
Source: see ``digits.py``; a shared bit of a dealt random one: Damgard et al., TCC 2006, and folklore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import BITS, Array, PrimeField, Rings, bits_of, field_of
from mpc.rings.bit_chains import monomials
from mpc.rings.bit_planes import packed
from mpc.tensor_type import MAX_SIZE, Form, TensorType
from protocols.operations.comparison import Comparison
from protocols.operations.digits import digits_type, packed_type
from protocols.operations.passing import SaidOfMasks, passed

MOST_CHAINED = 9
"""Digits of a chain: the monomials double with each."""


class ChainBits(Correlation, frozen=True):
    """The monomials of the masks of ``size`` numbers' digits: bits, a plane each."""

    size: int
    digits: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((monomials(self.digits), packed(self.size)), BITS),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return (bits_of(rings).monomials(masks[0]),)


@register
class Sign(Operation, frozen=True, tag="sign"):
    """The chain of ``size`` numbers' opened digits, each of as many: a packed bit each."""

    inner: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(1)
    size: int
    digits: int

    def result(self, *types: TensorType) -> TensorType:
        require(0 <= self.size <= MAX_SIZE and 0 < self.digits <= MOST_CHAINED, f"has 1 to {MOST_CHAINED} digits")
        expected = digits_type(self.size, self.digits, BITS).replace(form=Form.MASKED)
        require(types == (expected,), "takes opened digits")
        return packed_type(packed(self.size))

    def takes_share(self, operand: int) -> bool:
        return False

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (ChainBits(self.size, self.digits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        bits = bits_of(party.rings)
        opened = bits.or_zeros(inputs[0].public, types[0].shape)
        return Value(bits.chain(opened, None), bits.chain(opened, prepared[0]))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return bits_of(rings).chain(inputs[0], None)


class LiftedBits(SaidOfMasks, frozen=True):
    """The masks of packed bits as numbers."""

    def said(self, field: PrimeField, mask: Array) -> Array:
        return field.unpacked(mask, self.size)


@register
class Lifted(Comparison, frozen=True, tag="lifted"):
    """In three rounds: the second operand is the opened `Sign` of the first."""

    def takes_share(self, operand: int) -> bool:
        return operand != 1 and super().takes_share(operand)

    def _goes_with(self, x: TensorType, digits: TensorType) -> bool:
        return digits.replace(form=Form.SHARED) == packed_type(packed(x.size))

    def _bit(self, rings: Rings, types: Sequence[TensorType], digits: Array) -> Array:
        return field_of(rings).unpacked(digits, types[0].size)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (LiftedBits(types[0].size, len(types) == 3, self.dropped, self.own),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, shape = field_of(party.rings), types[0].shape
        opened = bits_of(party.rings).or_zeros(inputs[1].public, types[1].shape)
        # t + (1 - 2 t) m, and t (D + b) + (1 - 2 t) (m D + m b).
        if len(inputs) == 2:
            bit = field.reshape(field.unpacked(opened, types[0].size), shape)
            ends = Value(field.full(shape, 1), field.zeros(shape))
            return self._turned(field, ends, Value(bit, field.turned(opened, field.reshape(prepared[0], shape))))
        y = passed(field, types[2], inputs[2], prepared[1:], self.dropped, self.own)
        through = field.turned(opened, field.multiply_add(y.public, prepared[0], y.products(field)))
        known, share = field.kept(opened, y.public), field.add(field.kept(opened, y.share), through)
        share = y.wrapped(field, share)
        whole, part = ((field.reshape(one, shape) for one in two) for two in ((y.public, y.share), (known, share)))
        return self._turned(field, Value(*whole), Value(*part))
