"""A comparison with MACs, of many thresholds: the chain of digits (``digits.py``) in the field, at once or over nodes.

Once digits are opened, a_j = u_j + alpha_j and b_j = v_j + beta_j, the chain

    a_J + b_J (a_(J-1) + b_(J-1) (... (a_2 + b_2 a_1)))

is a polynomial in their masks alpha and beta, with public coefficients.  Of its monomials the masks themselves are
shared already, and the dealer deals the products.  `Compare` evaluates it without a message; of a masked y = D + b it
finds y times the bit likewise, from shares of all monomials times b besides, in the same rounds.

A chain of many digits has many monomials, 3 2^(J-1) - 2, which a round is worth for few values alone.  So `Join` makes
few digits of many: those of a group become one, a = the group's chain, b = the product of its b's, which are masked and
opened again: a round more for less than half of the elements.

Security: nothing is opened here.  All is linear in shares, with public coefficients: on MAC shares it gives shares of
the result's MAC.  Tables tell nothing but of masks, so many thresholds of one x share them: it is for these; of one
alone the signs of digits are cheaper (``residues.py``).
Cost: no round of its own; sum over a group's digits j of 3 2^(j-1) - 2 products; as many and twice J - 1 more for what
a bit lets through.
Source: see ``digits.py``; products of masks for all monomials: Damgard, Fitzi, Kiltz, Nielsen and Toft, TCC 2006.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.bit_chains import monomials
from mpc.rings.field_chains import Chain
from mpc.rings.prime_field import HALF, Bits
from mpc.tensor_type import Form, TensorType
from protocols.operations.digits import EXACTLY, MOST_BITS, MOST_DIGITS, Digits, digits_type
from protocols.operations.mask import Mask
from protocols.operations.passing import passed, passed_made, passed_parts
from protocols.operations.truncation import check_truncatable

MOST_JOINED = 8
"""Digits that one chain has: the monomials double with each."""


def monomials_of(field: PrimeField, masks: Array, chain: Chain) -> tuple[list[Array], list[Array]]:
    """Of masks, a row each: all but the 1, and those of them that are products."""
    found, products = [_row(field, masks, chain.a[0])], []
    for j, b in enumerate(chain.b, start=1):
        beta = _row(field, masks, b)
        made = [field.multiply(one, beta) for one in found]
        products += made
        found += [beta, *made, *(_row(field, masks, a) for a in chain.a[j : j + 1])]
    return found, products


def _row(field: PrimeField, rows: Array, place: int) -> Array:
    return field.index(rows, (slice(place, place + 1), slice(None)))


def whole_chain(digits: int) -> Chain:
    """The chain of all of so many digits."""
    return Chain(tuple(range(digits)), tuple(range(digits, 2 * digits - 1)))


def _opened(x: Operand) -> Operand:
    """What a masked tensor is opened of."""
    require(isinstance(x.operation, Mask), "takes opened digits")
    return x.inputs[0]


def _known(field: PrimeField, digits: Value, opened: Array, some: Sequence[Chain]) -> Array:
    """Public parts of chains: the same of values and of their MACs."""
    found: Array = digits.once(f"chains {some}", lambda: field.known_chains(opened, some))
    return found


def _groups(sizes: Sequence[int]) -> list[Chain]:
    """The chains of groups of digits; then of all groups but the lowest, those of the products of their b's."""
    whole = whole_chain(sum(sizes))
    ends = list(pairwise((0, *accumulate(sizes))))
    joined = [Chain(whole.a[start:end], whole.b[start : end - 1]) for start, end in ends]
    return joined + [Chain(whole.b[start - 1 : start], whole.b[start : end - 1]) for start, end in ends[1:]]


class Products(Correlation, frozen=True):
    """Products of the masks of digits, of the chains of groups of them."""

    size: int
    groups: tuple[int, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((products_of(self.groups), self.size)),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        made = [product for chain in _groups(self.groups) for product in monomials_of(field, masks[0], chain)[1]]
        return (field.concatenate(made, 0) if made else field.zeros((0, self.size)),)


class Gated(Correlation, frozen=True):
    """All monomials of a chain of so many ``digits``, times another mask; its operands are the digits, and that.

    ``dropped``: bits of what is let through, which may be what is compared, its ``own`` (``passing.py``).
    """

    size: int
    digits: int
    dropped: int
    own: bool

    @property
    def operands(self) -> tuple[int, ...]:
        return (1, 2)

    @property
    def parts(self) -> tuple[Part, ...]:
        return passed_parts((monomials(self.digits), self.size), self.size, self.dropped, self.own)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        found, _ = monomials_of(field, masks[0], whole_chain(self.digits))
        return passed_made(field, field.concatenate(found, 0), masks[1], self.dropped, self.own)


def products_of(groups: Sequence[int]) -> int:
    """How many products of masks are dealt for the chains of groups of so many digits."""
    chains = [sum(monomials(j) for j in range(1, size)) for size in groups]
    # Those of b's alone: all subsets but the single ones.
    return sum(chains) + sum((1 << size) - 1 - size for size in groups[1:])


@register
class Join(Operation, frozen=True, tag="join"):
    """Of masked digits, fewer: one of each group of so many, lowest first."""

    inner: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(1)
    groups: tuple[int, ...]

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].form is Form.MASKED and types[0].ring == FIELD, "takes opened digits")
        require(0 < len(self.groups) <= MOST_DIGITS, f"makes 1 to {MOST_DIGITS} digits")
        require(all(0 < size <= MOST_JOINED for size in self.groups), f"joins 1 to {MOST_JOINED} digits")
        shape = types[0].shape
        require(len(shape) == 2 and shape[0] == 2 * sum(self.groups) - 1, "joins all digits")
        return digits_type(shape[1], len(self.groups), FIELD)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Products(types[0].shape[1], self.groups),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        opened, own = (field.or_zeros(part, types[0].shape) for part in (inputs[0].public, inputs[0].share))
        groups = _groups(self.groups)
        return Value(_known(field, inputs[0], opened, groups), field.shared_chains(opened, own, prepared[0], groups))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return field_of(rings).known_chains(inputs[0], _groups(self.groups))


class Comparison(Operation, frozen=True):
    """What ends a comparison: 1 where x >= 0, else 0; if ``equal``, where x = 0; if ``below``, the other way round.

    Operands: x, what is opened of its digits, and if there is a third, y of the same shape (maybe the same tensor): the
    result is y or 0 then, without the ``dropped`` lowest fraction bits of y, which is x if they are dropped of its
    ``own``.  ``ignored`` is as in `Digits`.
    """

    takes_inner: ClassVar[range] = range(1, 2)
    ignored: int
    below: bool
    equal: bool
    dropped: int
    own: bool

    def takes_share(self, operand: int) -> bool:
        """Of x none; of what is let through, if nothing is dropped of it."""
        return operand == 1 or (operand == 2 and not self.dropped)

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) in (2, 3), "takes what is compared, its digits, and maybe what is let through")
        x, digits, *through = types
        require(x.form is Form.MASKED and x.ring == FIELD, "compares a masked tensor")
        require(EXACTLY <= self.ignored < MOST_BITS, f"ignores up to {MOST_BITS} bits")
        require(digits.form is Form.MASKED and self._goes_with(x, digits), "takes what is opened of its digits")
        require(not self.own or not (self.below or self.equal), "x lets itself through where it is not negative")
        if not through:
            require(self.dropped == 0 and not self.own, "a bit has no fraction bits to drop")
            return TensorType(x.shape, 0, 0.0, 1.0, Form.SHARED)
        (y,) = through
        require(y.form is Form.MASKED and y.ring == FIELD and y.shape == x.shape, "lets a masked tensor through")
        bits, low, high = y.fraction_bits, y.low, y.high
        if self.dropped:
            check_truncatable((y,), self.dropped)
            bits -= self.dropped
            low, high = low - 2.0**-bits, high + 2.0**-bits
        return TensorType(y.shape, bits, min(low, 0.0), max(high, 0.0), Form.SHARED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """That digits are those of this comparison: others tell how public numbers compare with masks."""
        made = self._digits_of(operands[1])
        digits: Any = made.operation
        require(made.inputs[0].number == operands[0].number, "takes the digits of what is compared")
        alike = (digits.ignored, digits.equal) == (self.ignored, self.equal)
        require(alike, "takes the digits of such a comparison")
        require(not self.own or operands[2].number == operands[0].number, "lets what it compares through")

    def _digits_of(self, opened: Operand) -> Operand:
        """The digits that it is opened of, once or twice.  Raises ProgramError."""
        made = _opened(opened)
        if not isinstance(made.operation, Digits):
            require(made.operation.inner and len(made.inputs) == 1, "takes digits")
            made = _opened(made.inputs[0])
        require(isinstance(made.operation, Digits), "takes digits")
        return made

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field = field_of(rings)
        return self._ended(field, types, inputs, field.below(inputs[0], 1 if self.equal else 1 << MOST_BITS))

    def by_digits(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """As ``clear``, by what parties compute: of x out of its range that is another bit than its sign's."""
        field = field_of(rings)
        bit = field.reshape(self._bit(rings, types, inputs[1]), types[0].shape)
        return self._ended(field, types, inputs, field.below(field.subtract(field.full(bit.shape, 1), bit), 1))

    def _ended(self, field: PrimeField, types: Sequence[TensorType], inputs: Sequence[Array], where: Bits) -> Array:
        shape = types[0].shape
        through = inputs[2] if len(inputs) == 3 else field.full(shape, 1)
        if self.dropped:
            through = field.quotient_signed(through, 1 << self.dropped)
        zeros = field.zeros(shape)
        return field.choose(where, *((zeros, through) if self.below else (through, zeros)))

    def _bit(self, rings: Rings, types: Sequence[TensorType], digits: Array) -> Array:
        """Of plain digits, what their chain says: 0 or 1 of each."""
        raise NotImplementedError

    def tolerance(self, *types: TensorType) -> float:
        """Of values within 2^``ignored`` units of 0 the sign may be wrong; and a unit, if bits are dropped."""
        unit = 1.0 if self.dropped else 0.0
        if self.ignored < 0:
            return unit
        return unit + (
            1.0 if len(types) == 2 else math.ldexp(types[2].magnitude, types[2].fraction_bits - self.dropped)
        )

    def _goes_with(self, x: TensorType, digits: TensorType) -> bool:
        """Whether these can be its digits."""
        raise NotImplementedError

    def _turned(self, field: PrimeField, whole: Value, part: Value) -> Value:
        """``part`` of what is ``whole``, or the rest."""
        if not self.below:
            return part
        rest = [
            p if w is None or p is None else field.subtract(w, p)
            for w, p in ((whole.public, part.public), (whole.share, part.share))
        ]
        return Value(*rest)


class HalfSigned(Comparison, frozen=True):
    """By half the sign of x, and half that times what masks what is let through: dealt, and chosen, or turned, by what
    is opened."""

    def _shown(self, rings: Rings, types: Sequence[TensorType], opened: Value) -> Array:
        """What is known by what is opened of the second operand."""
        raise NotImplementedError

    def _signed(self, rings: Rings, types: Sequence[TensorType], shown: Array, dealt: Array) -> Array:
        """A share of it, flat, by what is known, from what is dealt."""
        raise NotImplementedError

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, shape = field_of(party.rings), types[0].shape
        shown = self._shown(party.rings, types, inputs[1])
        # 1/2 + s for half the sign s, and y / 2 + (D s + b s).
        sign = self._signed(party.rings, types, shown, prepared[0])
        if len(inputs) == 2:
            sign = field.reshape(sign, shape)
            return Value(field.full(shape, HALF), field.negate(sign) if self.below else sign)
        y = passed(field, types[2], inputs[2], prepared[1:], self.dropped, self.own)
        products = [self._signed(party.rings, types, shown, dealt) for dealt in y.dealt]
        product = products[0] if len(products) == 1 else field.choose(y.second, *products[::-1])
        known, share = field.halve(y.public, y.share, sign, product, self.below)
        share = y.wrapped(field, share)
        return Value(field.reshape(known, shape), field.reshape(share, shape))


@register
class Compare(Comparison, frozen=True, tag="compare"):
    """In the field: digits of `Digits`, or of a `Join` of them."""

    def _goes_with(self, x: TensorType, digits: TensorType) -> bool:
        return (
            digits.ring == FIELD
            and len(digits.shape) == 2
            and digits.shape[1] == x.size
            and digits.shape[0] % 2 == 1
            and digits.shape[0] < 2 * MOST_JOINED
        )

    def _bit(self, rings: Rings, types: Sequence[TensorType], digits: Array) -> Array:
        return field_of(rings).known_chains(digits, [whole_chain(_count(types))])

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        size, digits = types[0].size, _count(types)
        return (OfDigits(size, (digits,)), *([Gated(size, digits, self.dropped, self.own)] if len(types) == 3 else []))

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, count, shape = field_of(party.rings), _count(types), types[0].shape
        opened, own = (field.or_zeros(part, types[1].shape) for part in (inputs[1].public, inputs[1].share))
        chain = whole_chain(count)
        parts = _known(field, inputs[1], opened, [chain]), field.shared_chains(opened, own, prepared[0], [chain])
        known, share = (field.reshape(part, shape) for part in parts)
        if len(inputs) == 2:
            return self._turned(field, Value(field.full(shape, 1), field.zeros(shape)), Value(known, share))
        # (known + share) (D + b), of which share b is dealt monomial by monomial.
        y = passed(field, types[2], inputs[2], prepared[1:], self.dropped, self.own)
        gated = field.reshape(field.chain_times(opened, y.products(field), chain), (types[0].size,))
        gated = field.reshape(y.wrapped(field, gated), shape)
        public, mask = (field.reshape(part, shape) for part in (y.public, y.share))
        product = field.multiply_add(public, share, field.multiply_add(known, mask, gated))
        return self._turned(field, Value(public, mask), Value(field.multiply(known, public), product))


class OfDigits(Products, frozen=True):
    """`Products` of the second operand's masks."""

    @property
    def operands(self) -> tuple[int, ...]:
        return (1,)


def _count(types: Sequence[TensorType]) -> int:
    """Of the digits that are compared."""
    return (types[1].shape[0] + 1) // 2
