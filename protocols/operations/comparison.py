"""A comparison with MACs: the chain of digits (``digits.py``) in the field, at once or over a level of nodes.

Once digits are opened, a_j = u_j + alpha_j and b_j = v_j + beta_j, the chain

    a_J + b_J (a_(J-1) + b_(J-1) (... (a_2 + b_2 a_1)))

is a polynomial in their masks alpha and beta, with public coefficients.  Of its monomials the masks themselves are
shared already, and the dealer deals the products.  `Compare` evaluates it without a message; of a masked y = D + b it
finds y times the bit likewise, from shares of all monomials times b besides, in the same rounds.

A chain of many digits has many monomials, 3 2^(J-1) - 2.  So `Join` makes few digits of many: those of a group become
one, a = the group's chain, b = the product of its b's, which are masked and opened again: a round more for less than
half of the elements.

Security: nothing is opened here.  All is linear in shares, with public coefficients: on MAC shares it gives shares of
the result's MAC.  Why not bits with MACs in GF(2^64), of 8 bytes each: they take a check of their own, and an element
here, with its MAC, takes 16; k = 20 bits are 1,264 bytes dealt for a ReLU, so that there is little to gain.
Cost: no round of its own; sum over a group's digits j of 3 2^(j-1) - 2 products; as many and twice J - 1 more for what
a bit lets through.
Source: see ``digits.py``; products of masks for all monomials: Damgard, Fitzi, Kiltz, Nielsen and Toft, TCC 2006.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, islice, pairwise
from typing import Any, NamedTuple

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.bit_chains import monomials
from mpc.tensor_type import Form, TensorType
from protocols.operations.digits import EXACTLY, MOST_BITS, MOST_DIGITS, digits_type
from protocols.operations.passing import passed, passed_made, passed_parts
from protocols.operations.truncation import check_truncatable

MOST_JOINED = 8
"""Digits that one chain has: the monomials double with each."""


class Chain(NamedTuple):
    """What a chain is made of, lowest digit first: one a for each, or none but the first, and b's for all others."""

    a: Sequence[Array]
    b: Sequence[Array]

    def monomials(self, field: PrimeField) -> tuple[list[Array], list[Array]]:
        """Of masks: all, without the 1, and those of them that are products."""
        found, products = [self.a[0]], []
        for j, b in enumerate(self.b, start=1):
            made = [field.multiply(one, b) for one in found]
            products += made
            found += [b, *made, *self.a[j : j + 1]]
        return found, products

    def shares(self, products: Sequence[Array]) -> list[Array]:
        """Of all monomials, from shares of the masks and of products."""
        found, dealt = [self.a[0]], iter(products)
        for j, b in enumerate(self.b, start=1):
            found += [b, *islice(dealt, len(found)), *self.a[j : j + 1]]
        return found

    def factors(self, field: PrimeField) -> tuple[Array, list[Array | None]]:
        """Of what is opened: the public part, and the monomials' coefficients; None stands for 1."""
        known: Array = self.a[0]
        found: list[Array | None] = [None]
        for j, v in enumerate(self.b, start=1):
            found = [*(v if c is None else field.multiply(v, c) for c in found), known, *found]
            known = field.multiply(v, known)
            if j < len(self.a):
                known = field.add(known, self.a[j])
                found.append(None)
        return known, found


def _sum(field: PrimeField, factors: Sequence[Array | None], shares: Sequence[Array]) -> Array:
    total: Array | None = None
    for factor, share in zip(factors, shares, strict=True):
        if total is None:
            total = share if factor is None else field.multiply(share, factor)
        elif factor is None:
            total = field.add(total, share)
        else:
            total = field.multiply_add(share, factor, total)
    if total is None:
        raise ValueError("a chain has a digit")
    return total


def _rows(field: PrimeField, digits: Array, count: int) -> Chain:
    """The chain of all digits of a tensor of so many."""
    rows = [field.index(digits, (slice(k, k + 1), slice(None))) for k in range(2 * count - 1)]
    return Chain(rows[:count], rows[count:])


def _or_zeros(field: PrimeField, part: Array | None, t: TensorType) -> Array:
    return field.zeros(t.shape) if part is None else part


def _split(field: PrimeField, rows: Array) -> list[Array]:
    return [field.index(rows, (slice(k, k + 1), slice(None))) for k in range(rows.shape[0])]


def _groups(whole: Chain, sizes: Sequence[int]) -> list[Chain]:
    """The chains of groups of digits; after the lowest group's, each is followed by that of the product of its b's."""
    found = []
    for start, end in pairwise((0, *accumulate(sizes))):
        found.append(Chain(whole.a[start:end], whole.b[start : end - 1]))
        if start:
            found.append(Chain(whole.b[start - 1 : start], whole.b[start : end - 1]))
    return found


class Products(Correlation, frozen=True):
    """Products of the masks of digits, of the chains of groups of them."""

    size: int
    groups: tuple[int, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((products_of(self.groups), self.size)),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        chains = _groups(_rows(field, masks[0], sum(self.groups)), self.groups)
        made = [product for chain in chains for product in chain.monomials(field)[1]]
        return (field.concatenate(made, 0) if made else field.zeros((0, self.size)),)


class Gated(Correlation, frozen=True):
    """All monomials of a chain of so many ``digits``, times another mask; its operands are the digits, and that.

    ``dropped``: bits of what is let through (``passing.py``).
    """

    size: int
    digits: int
    dropped: int

    @property
    def operands(self) -> tuple[int, ...]:
        return (1, 2)

    @property
    def parts(self) -> tuple[Part, ...]:
        return passed_parts((monomials(self.digits), self.size), self.size, self.dropped)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        found, _ = _rows(field, masks[0], self.digits).monomials(field)
        return passed_made(field, field.concatenate(found, 0), masks[1], self.dropped)


def products_of(groups: Sequence[int]) -> int:
    """How many products of masks are dealt for the chains of groups of so many digits."""
    chains = [sum(monomials(j) for j in range(1, size)) for size in groups]
    # Those of b's alone: all subsets but the single ones.
    return sum(chains) + sum((1 << size) - 1 - size for size in groups[1:])


@register
class Join(Operation, frozen=True, tag="join"):
    """Of masked digits, fewer: one of each group of so many, lowest first."""

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
        field, count = field_of(party.rings), sum(self.groups)
        opened, own = (_or_zeros(field, part, types[0]) for part in (inputs[0].public, inputs[0].share))
        dealt = iter(_split(field, prepared[0]))
        public, shares = [], []
        both = zip(*(_groups(_rows(field, part, count), self.groups) for part in (opened, own)), strict=True)
        for of_opened, of_own in both:
            known, factors = of_opened.factors(field)
            # As many as the chain has, of all that is dealt.
            needed = len(factors) - len(of_own.a) - len(of_own.b)
            public.append(known)
            shares.append(_sum(field, factors, of_own.shares(list(islice(dealt, needed)))))
        return Value(self._ordered(field, public), self._ordered(field, shares))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field = field_of(rings)
        chains = _groups(_rows(field, inputs[0], sum(self.groups)), self.groups)
        return self._ordered(field, [chain.factors(field)[0] for chain in chains])

    def _ordered(self, field: PrimeField, rows: Sequence[Array]) -> Array:
        """All a's, then all b's, of what comes in pairs after the first."""
        return field.concatenate([rows[0], *rows[1::2], *rows[2::2]], 0)


class Comparison(Operation, frozen=True):
    """What ends a comparison: 1 where x >= 0, else 0; if ``equal``, where x = 0; if ``below``, the other way round.

    Operands: x, what is opened of its digits, and if there is a third, y of the same shape (maybe the same tensor): the
    result is y or 0 then, without the ``dropped`` lowest fraction bits of y.  ``ignored`` is as in `Digits`.
    """

    ignored: int
    below: bool
    equal: bool
    dropped: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) in (2, 3), "takes what is compared, its digits, and maybe what is let through")
        x, digits, *through = types
        require(x.form is Form.MASKED and x.ring == FIELD, "compares a masked tensor")
        require(EXACTLY <= self.ignored < MOST_BITS, f"ignores up to {MOST_BITS} bits")
        require(digits.form is Form.MASKED and self._goes_with(x, digits), "takes what is opened of its digits")
        if not through:
            require(self.dropped == 0, "a bit has no fraction bits to drop")
            return TensorType(x.shape, 0, 0.0, 1.0, Form.SHARED)
        (y,) = through
        require(y.form is Form.MASKED and y.ring == FIELD and y.shape == x.shape, "lets a masked tensor through")
        bits, low, high = y.fraction_bits, y.low, y.high
        if self.dropped:
            check_truncatable((y,), self.dropped)
            bits -= self.dropped
            low, high = low - 2.0**-bits, high + 2.0**-bits
        return TensorType(y.shape, bits, min(low, 0.0), max(high, 0.0), Form.SHARED)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field, shape = field_of(rings), types[0].shape
        through = inputs[2] if len(inputs) == 3 else field.full(shape, 1)
        if self.dropped:
            through = field.quotient_signed(through, 1 << self.dropped)
        where, zeros = field.below(inputs[0], 1 if self.equal else 1 << MOST_BITS), field.zeros(shape)
        return field.choose(where, *((zeros, through) if self.below else (through, zeros)))

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

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        size, digits = types[0].size, _count(types)
        return (OfDigits(size, (digits,)), *([Gated(size, digits, self.dropped)] if len(types) == 3 else []))

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, count, shape = field_of(party.rings), _count(types), types[0].shape
        opened, own = (_or_zeros(field, part, types[1]) for part in (inputs[1].public, inputs[1].share))
        known, factors = _rows(field, opened, count).factors(field)
        shares = _rows(field, own, count).shares(_split(field, prepared[0]))
        known, share = (field.reshape(part, shape) for part in (known, _sum(field, factors, shares)))
        if len(inputs) == 2:
            return self._turned(field, Value(field.full(shape, 1), field.zeros(shape)), Value(known, share))
        # (known + share) (D + b), of which share b is dealt monomial by monomial.
        y = passed(field, types[2], inputs[2], prepared[1:], self.dropped)
        gated = field.reshape(_sum(field, factors, _split(field, y.products)), shape)
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
