"""A comparison without MACs: the chain of digits (``digits.py``) in packed bits, in two rounds or in three.

Digits are opened as bits: a_j = u_j xor alpha_j and b_j = v_j xor beta_j.  The chain is a polynomial in the bits alpha
and beta, with public coefficients.

* *In two rounds* (`Signed`): as numbers, a bit is u + (1 - 2 u) alpha, so that with s = (-1)^(alpha_J)

      (-1)^[x >= 0]  =  (-1)^(u_J) s (1 - 2 b_J (a_(J-1) + b_(J-1) (...)))

  is linear in s times 1 and the monomials of all but alpha_J, of which the dealer deals shares in the field; and of all
  of these times b, for a masked y = D + b that the bit lets through.
* *In three* (`Sign`, then `Lifted`): under XOR the chain is linear in dealt bits, the monomials; the bit is masked and
  opened like any, t = bit xor m, and is t + (1 - 2 t) m with shares of m in the field; of m b for a masked y.

Security: nothing is opened here; what is opened next is a bit under a uniform one of its own.  Everything is linear in
dealt shares, fresh and uniform, with public coefficients.
Cost: no round of its own.  Dealt are, for a bit and for what it lets through alike, 2 (3 2^(J-2) - 1) elements in two
rounds; in three, 3 2^(J-1) - 2 bits, and then an element.  At k = 20 bits a ReLU takes 200 bytes with
three digits in two rounds, and 31 with five in three, of which the tables are 40 and 10.
Source: see ``digits.py``; a shared bit of a dealt random one: Damgard et al., TCC 2006, and folklore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import BITS, Array, Rings, bits_of, field_of
from mpc.rings.bit_chains import monomials, signed_monomials
from mpc.rings.bit_planes import packed
from mpc.rings.field import P
from mpc.tensor_type import MAX_SIZE, Form, TensorType
from protocols.operations.comparison import Comparison
from protocols.operations.digits import digits_type, packed_type
from protocols.operations.passing import passed, passed_made, passed_parts

HALF = (P + 1) // 2
"""1 / 2."""
MOST_CHAINED = 9
"""Digits of a chain: the monomials double with each."""


class SignedMonomials(Correlation, frozen=True):
    """(-1)^alpha_J / 2 times 1 and the monomials of the masks of digits; if ``gated``, times a third mask besides, of
    which so many bits are ``dropped``, and which may be that of what is compared, ``own`` (``passing.py``)."""

    size: int
    digits: int
    gated: bool
    dropped: int
    own: bool

    @property
    def operands(self) -> tuple[int, ...]:
        return (1, 2) if self.gated else (1,)

    @property
    def parts(self) -> tuple[Part, ...]:
        rows = (signed_monomials(self.digits), self.size)
        return (Part(rows), *(passed_parts(rows, self.size, self.dropped, self.own) if self.gated else ()))

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        signed = field.signed_monomials(masks[0], self.size)
        through = [passed_made(field, signed, mask, self.dropped, self.own) for mask in masks[1:]]
        return (signed, *(one for made in through for one in made))


@register
class Signed(Comparison, frozen=True, tag="signed"):
    """In two rounds, of as many packed ``digits``."""

    digits: int

    def _goes_with(self, x: TensorType, digits: TensorType) -> bool:
        return 0 < self.digits <= MOST_CHAINED and digits.replace(form=Form.SHARED) == digits_type(
            x.size, self.digits, BITS
        )

    def _bit(self, rings: Rings, types: Sequence[TensorType], digits: Array) -> Array:
        return field_of(rings).unpacked(bits_of(rings).chain(digits, None), types[0].size)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (SignedMonomials(types[0].size, self.digits, len(types) == 3, self.dropped, self.own),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, shape = field_of(party.rings), types[0].shape
        opened = bits_of(party.rings).or_zeros(inputs[1].public, types[1].shape)
        # (1 - s) / 2, and y (1 - s) / 2 = y / 2 - (D s / 2 + b s / 2).
        if len(inputs) == 2:
            (sign,) = field.signed_sums(opened, types[0].size, prepared)
            sign = field.reshape(sign, shape)
            return Value(field.full(shape, HALF), sign if self.below else field.negate(sign))
        y = passed(field, types[2], inputs[2], prepared[1:], self.dropped, self.own)
        if len(y.dealt) > 1:
            (sign,) = field.signed_sums(opened, types[0].size, prepared[:1])
            signs = [sign, field.chosen_sums(opened, types[0].size, y.second, *y.dealt[::-1])]
        else:
            signs = field.signed_sums(opened, types[0].size, [prepared[0], *y.dealt])
        known, share = (field.scale(part, HALF) for part in (y.public, y.share))
        product = field.multiply_add(y.public, *signs)
        share = y.wrapped(field, field.add(share, product) if self.below else field.subtract(share, product))
        return Value(field.reshape(known, shape), field.reshape(share, shape))


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
    takes_inner: ClassVar[int | None] = 0
    size: int
    digits: int

    def result(self, *types: TensorType) -> TensorType:
        require(0 <= self.size <= MAX_SIZE and 0 < self.digits <= MOST_CHAINED, f"has 1 to {MOST_CHAINED} digits")
        expected = digits_type(self.size, self.digits, BITS).replace(form=Form.MASKED)
        require(types == (expected,), "takes opened digits")
        return packed_type(packed(self.size))

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


class LiftedBits(Correlation, frozen=True):
    """The masks of packed bits as numbers; if ``gated``, times a third mask besides, of which so many bits are
    ``dropped``, and which may be that of what is compared, ``own`` (``passing.py``)."""

    size: int
    gated: bool
    dropped: int
    own: bool

    @property
    def operands(self) -> tuple[int, ...]:
        return (1, 2) if self.gated else (1,)

    @property
    def parts(self) -> tuple[Part, ...]:
        rows = (self.size,)
        return (Part(rows), *(passed_parts(rows, self.size, self.dropped, self.own) if self.gated else ()))

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        lifted = field.unpacked(masks[0], self.size)
        through = [passed_made(field, lifted, mask, self.dropped, self.own) for mask in masks[1:]]
        return (lifted, *(one for made in through for one in made))


@register
class Lifted(Comparison, frozen=True, tag="lifted"):
    """In three rounds: the second operand is the opened `Sign` of the first."""

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
