"""That values which somebody has sent lie in the range that the program says: checked on shares, as one public bit.

A masked tensor x = E + a comes from a client or an owner, and what it stands for may be any element of the field.  Let
L and H be the ends of its range in raw units, W = H - L < 2^59, c = E - L and r = -a, so that y = x - L = c - r mod p;
x is in its range if y, in [0, p), is at most W.  Take m bits with 2^m > W, and the integer

    y' = c - r + z p,    z = [c < W] [r >= 2^60],

which is y modulo p.  If y <= W then y' = y: c - r wraps only where c < W, and then r > p - W; without a wrap r <= c.
So x is in its range if and only if 0 <= y' <= W, which is if T = floor(y' / 2^m) and T' = floor((y' - W - 1) / 2^m) + 1
are both 0; or if T + T' = 0, since T' is T or T + 1.  And z p is z 2^61 - z.  So with h = floor(r / 2^m), and ``low``
the m lowest bits,

    T = floor(c / 2^m) - h - B + z 2^(61-m),
    B = [low(c) - z < low(r)] = [2 low(c) + [c >= W] < 2 low(r) + [r >= 2^60]],

and T' likewise, of c + 2^m - W - 1.  Only h, [r >= 2^60] and both B are secret.  B compares a public with a hidden
number of m + 1 bits by their digits (``digits.py``); one table serves both ends (`Ends`).  With uniform coefficients s
that nobody but the dealer knows (`Coefficients`), `Within` opens

    V = sum over all values of s (T + T'),

for which the dealer deals shares of s times what s is to be multiplied by.  V is 0 if all values are in their range,
and else uniform: 0 with a chance of 1/p.  If it is not 0 the run ends, and nothing has left the parties that depends on
its inputs without a mask (``readings/party.py``).

Security.  E, digits and bits are opened under masks of their own.  V is opened without one, and nothing is learned but
V: shares of it are uniform subject to their sum, as a part of each was dealt for it alone.  It tells the parties
whether all values are in their range.  Those of an honest sender are, so of these it tells nothing.  Nothing but
outputs has to wait for it: what is opened is uniform whatever the values are, and it is a result that could tell of a
weight more than results are to tell.  Malicious: V is checked like all that is opened, before anybody is blamed for it;
who adds something to V, be it to make 0 of it, fails the MAC check.
Of an input, with MACs, the client's own bits are cheaper (``decomposed.py``).
Cost: in three rounds, beside others, 2 (2 J - 1) and 2 bits for each value, then one element in all; with MACs as many
elements, or fewer of a level of nodes (``comparison.py``).  Dealt are 43 bytes for a value in [-1, 1] with 16 fraction
bits, where J is 4.
Source: for comparing, see ``digits.py``; one random combination for many values that should vanish: folklore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from mpc.correlation import Correlation, Part
from mpc.errors import RangeError
from mpc.operation import Input, Operand, Operation, PartyContext, Stored, Value, register, require
from mpc.rings import BITS, FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.bit_chains import monomials
from mpc.rings.bit_planes import packed
from mpc.tensor_type import MAX_SIZE, Form, RingName, TensorType
from protocols.operations.bit_comparison import Sign
from protocols.operations.comparison import MOST_JOINED, Join, monomials_of, whole_chain
from protocols.operations.digits import (
    MOST_DIGIT,
    MOST_DIGITS,
    digits_type,
    packed_type,
    table_parts,
    tabled,
)
from protocols.operations.mask import Mask

MOST_BITS = 59
"""Of a range: the differences of its ends are below 2^59 raw units."""
_FEWEST = 3
"""So that the sum of both quotients is below p."""
_TOP = 60
"""The highest bit of an element."""


class Ranged(NamedTuple):
    """A range in raw units: from ``low`` to ``low + width``."""

    low: int
    width: int

    @classmethod
    def of(cls, x: TensorType) -> Ranged:
        """Of all raw values that ``x`` can have.  Raises RangeError for one that is too wide to be checked."""
        low, high = math.ceil(math.ldexp(x.low, x.fraction_bits)), math.floor(math.ldexp(x.high, x.fraction_bits))
        if high - low >= 1 << MOST_BITS:
            raise RangeError(
                f"values in [{x.low:g}, {x.high:g}] with {x.fraction_bits} fraction bits take a range of more than"
                f" {MOST_BITS} bits, which parties cannot check: declare a tighter one"
            )
        return cls(low, max(high - low, 0))

    @property
    def bits(self) -> int:
        """m."""
        return max(self.width.bit_length(), _FEWEST)

    @property
    def cut(self) -> tuple[int, int, int]:
        """Where both ends lie, and m."""
        return self.low, self.width, self.bits

    def hidden(self, field: PrimeField, mask: Array) -> tuple[Array, Array, Array]:
        """Of a mask: what its table is made of; h; and whether r has the highest bit, as 0 or 1."""
        r = field.negate(mask)
        high = field.quotient(r, 1 << self.bits)
        top = field.select(field.bit(r, _TOP), field.full(r.shape, 1))
        low = field.subtract(r, field.scale(high, 1 << self.bits))
        return field.add(field.scale(low, 2), top), high, top

    def holds(self, field: PrimeField, x: Array) -> bool:
        """Whether all of these are in it."""
        c, ones = field.subtract(x, field.full((), self.low)), field.full(x.shape, 1)
        return field.is_zero(field.subtract(ones, field.select(field.below(c, self.width + 1), ones)))


class EndsTable(Correlation, frozen=True):
    """The table of a mask's r and of its highest bit, for both ends of a range of so many bits."""

    size: int
    low: int
    width: int
    widths: tuple[int, ...]
    ring: RingName

    @property
    def parts(self) -> tuple[Part, ...]:
        return table_parts(self.size, self.widths, self.ring)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        hidden, _, _ = Ranged(self.low, self.width).hidden(field, field.reshape(masks[0], (self.size,)))
        return (tabled(field, self.ring, hidden, 0, self.widths),)


@register
class Ends(Operation, frozen=True, tag="ends"):
    """Digits of each value at the lower end of its range, then at the upper end: as of `Digits`, of two thresholds."""

    inner: ClassVar[bool] = True
    widths: tuple[int, ...]
    ring: RingName

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].ring == FIELD and types[0].form is Form.MASKED, "takes a masked tensor")
        require(0 < len(self.widths) <= MOST_DIGITS, f"compares 1 to {MOST_DIGITS} digits")
        require(all(0 < width <= MOST_DIGIT for width in self.widths), f"digits have 1 to {MOST_DIGIT} bits")
        require(sum(self.widths) == Ranged.of(types[0]).bits + 1, "compares as many bits as the range has")
        require(self.ring in (FIELD, BITS), "digits are of the field, or packed bits")
        return digits_type(2 * types[0].size, len(self.widths), self.ring)

    def takes_share(self, operand: int) -> bool:
        return False

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (EndsTable(types[0].size, *Ranged.of(types[0]), self.widths, self.ring),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        return Value(None, self._look_up(party.rings, types[0], inputs[0].public, prepared[0], party.unit))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        (dealt,) = self.correlations(*types)[0].make(rings, [field_of(rings).zeros(types[0].shape)])
        return self._look_up(rings, types[0], inputs[0], dealt, 1)

    def _look_up(self, rings: Rings, x: TensorType, public: Array | None, dealt: Array, one: int) -> Array:
        field = field_of(rings)
        looked_up = field.ends_left_over(field.or_zeros(public, (x.size,)), *Ranged.of(x).cut)
        found = field.look_up if self.ring == FIELD else field.packed_look_up
        return found(looked_up, 0, self.widths, dealt, one, 2, False)


@register
class Coefficients(Operation, frozen=True, tag="coefficients"):
    """So many uniform elements that nobody but the dealer knows: masks of nothing."""

    hides: ClassVar[bool] = True
    blinds: ClassVar[bool] = True
    count: int

    def result(self, *types: TensorType) -> TensorType:
        require(not types, "has no operands")
        require(0 <= self.count <= MAX_SIZE, "a number of elements")
        return TensorType((self.count,), 0, -(2.0**59), 2.0**59, Form.MASKED)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        return field_of(rings).zeros((self.count,))


class Weighed(Correlation, frozen=True):
    """Coefficients times [r >= 2^60]; times all monomials of the masks of digits of both ends, or the masks of their
    signs; and the sum of them times -2 h.
    """

    size: int
    low: int
    width: int
    digits: int

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1, 2)

    @property
    def parts(self) -> tuple[Part, ...]:
        rows = monomials(self.digits) if self.digits else 1
        return (Part((self.size,)), Part((rows, 2 * self.size)), Part(()))

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        s = masks[1]
        _, high, top = Ranged(self.low, self.width).hidden(field, field.reshape(masks[0], (self.size,)))
        if self.digits:
            found, _ = monomials_of(field, masks[2], whole_chain(self.digits))
        else:
            found = [field.reshape(field.unpacked(masks[2], 2 * self.size), (1, 2 * self.size))]
        twice = field.reshape(_twice(field, s, s), (1, 2 * self.size))
        rows = field.concatenate([field.multiply(row, twice) for row in found], 0)
        return field.multiply(s, top), rows, field.scale(field.total(field.multiply(s, high)), -2)


@register
class Within(Operation, frozen=True, tag="within"):
    """Opens V of a masked x, of coefficients, and of what is opened of the `Ends` of x: their `Sign`, or, in the field,
    the digits themselves or a `Join` of them.

    ``digits``: how many there are then, or 0 for signs.
    """

    opens: ClassVar[bool] = True
    bare: ClassVar[bool] = True
    settles: ClassVar[bool] = True
    checks: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(2, 3)
    digits: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 3 and all(t.form is Form.MASKED for t in types), "takes three masked tensors")
        x, s, opened = types
        require(x.ring == FIELD and 0 <= self.digits <= MOST_JOINED, f"takes up to {MOST_JOINED} digits")
        require(s.shape == (x.size,), "takes a coefficient for each value")
        size = 2 * x.size
        expected = digits_type(size, self.digits, FIELD) if self.digits else packed_type(packed(size))
        require(opened.replace(form=Form.SHARED) == expected, "takes what is opened of both ends")
        return TensorType((), 0, 0.0, 1.0, Form.MASKED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """That what they are said to be of is ``x``: a source, of which nothing is known but its range."""
        x, s, opened = operands
        require(isinstance(x.operation, Input | Stored), "what is checked is somebody's secret")
        require(isinstance(s.operation, Coefficients), "coefficients are nobody's")
        require(isinstance(opened.operation, Mask), "digits are opened")
        (made,) = opened.inputs
        if isinstance(made.operation, Sign if not self.digits else Join):
            require(isinstance(made.inputs[0].operation, Mask), "digits are opened")
            (made,) = made.inputs[0].inputs
        require(isinstance(made.operation, Ends) and made.inputs[0].number == x.number, "digits are of what is checked")

    def takes_share(self, operand: int) -> bool:
        return operand == 1

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Weighed(types[0].size, *Ranged.of(types[0]), self.digits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, x = field_of(party.rings), types[0]
        of_top, of_signs, of_high = prepared
        s = field.or_zeros(inputs[1].share, (x.size,))
        weighted = field.ends_sum(field.or_zeros(inputs[0].public, (x.size,)), *Ranged.of(x).cut, s, of_top)
        signs = self._signs(party.rings, types[2], inputs[2].public, s, of_signs)
        return Value(None, field.add(of_high, field.subtract(weighted, signs)))

    def _signs(self, rings: Rings, t: TensorType, public: Array | None, s: Array, dealt: Array) -> Array:
        """A share of the sum of coefficients times each B."""
        field, opened = field_of(rings), rings[t.ring].or_zeros(public, t.shape)
        if not self.digits:
            # t + (1 - 2 t) m.
            return field.weighed_pairs(opened, s, dealt)
        chain = whole_chain(self.digits)
        known = field.known_chains(opened, [chain])
        row = field.reshape(_twice(field, s, s), (1, t.shape[1]))
        return field.total(field.multiply_add(known, row, field.chain_times(opened, dealt, chain)))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """0 or 1."""
        field = field_of(rings)
        return field.full((), 0 if Ranged.of(types[0]).holds(field, inputs[0]) else 1)


def _twice(field: PrimeField, lower: Array, upper: Array) -> Array:
    """A row for each value: of the lower end, and of the upper one."""
    return field.concatenate([field.reshape(one, (-1, 1)) for one in (lower, upper)], 1)
