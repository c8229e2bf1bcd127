"""Whether values are where they are assumed to be, a bit each, without MACs: a table for each, and one bit opened.

Let x = E + a be masked, r = -a mod p, g = 2^d a *grain* and t an end.  For |x - t| < 2^K, K = d + k, bit K of
x - t + 2^K says whether x >= t, and with c = E - t + 2^K mod p it is found as in ``digits.py``, of grains alone: with r
in a table of one digit of k bits, shares of which the dealer has dealt, and c public, a party finds its share of

    s_t  =  bit k of floor(c / g) - floor(r / g)

without a message.  Borrows, and a wrap past p, add to x - t less than a grain and a raw unit: s_t is 1 if x >= t, and 0
if x < t - g.  The table is the same for both ends.  s_t is 1 for the upper one only where it is for the lower one, so
that 1 + s_low + s_high under XOR is a bit that says whether x is beyond (`Beyond`).  With low + g for the one end, and
high + 1 for the other, *all is beyond* that is not in [low, high], and *nothing is* that is nearer to neither end than
g; in the grains between, it depends on the mask.

Bits of all tensors are in one row, which is masked and opened once, when the last of them is there: t = bit + m, and
the bit is t + (1 - 2 t) m as a number, of dealt shares of m.  `Beyonds` adds them up, of each sample.

Security: nothing is opened here.  Tables are fresh and uniform, and what is opened next is a bit under a uniform one of
its own.  Types guarantee that |x - t| < 2^K; where they do not, an assumption before does not hold, and counts 1 in
the same sum, in which whatever is found here counts 0 or 1.
Cost: no round here, one for the opening, of a bit for each value.  Dealt are 2^k bits and an element for each.
Source: for tables that are read at public places, see ``digits.py``; with MACs the same is ``astray.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.errors import ProgramError
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import BITS, FIELD, Array, Rings, bits_of, field_of
from mpc.rings.bit_planes import packed
from mpc.tensor_type import MAX_SIZE, SLACK, TRUNCATION_BITS, Form, TensorType
from protocols.operations.bit_comparison import LiftedBits
from protocols.operations.digits import packed_type
from protocols.operations.mask import Mask

FEWEST, MOST = 3, 10
"""Bits of a table."""
MOST_TENSORS = 1 << 12


class Grains(Correlation, frozen=True):
    """The table of a mask: a row for each value."""

    size: int
    ignored: int
    bits: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.size, 1 << (self.bits - 3)), BITS),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        return (field.coarse_bits_table(field.reshape(field.negate(masks[0]), (self.size,)), self.ignored, self.bits),)


@register
class Beyond(Operation, frozen=True, tag="beyond"):
    """A packed bit of each element of a masked x: 0 where it is well inside; ends in raw units, of which one may be
    none.  Its second operand, if there is one, are such bits of other tensors, behind which these come.

    ``ignored``: d; ``bits``: k.
    """

    inner: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(1, 2)
    low: int | None
    high: int | None
    ignored: int
    bits: int

    @classmethod
    def of(cls, x: TensorType, low: float, high: float, bits: int) -> Beyond | None:
        """What watches [low, high], by grains of a 2^bits-th at most; an end that ``x`` cannot reach is not looked at.

        None if ``x`` may have values that are too far away, or can reach neither.
        """
        least, most = (math.ldexp(end, x.fraction_bits) for end in (low, high))
        first, last = math.ceil(least), math.floor(most)
        ignored = max((last - first).bit_length() - 1 - bits, 0)
        below = first + (1 << ignored) if x.low < low else None
        above = last + 1 if x.high > high else None
        for count in range(FEWEST, MOST + 1):
            found = cls(below, above, ignored, count)
            if found._ends and ignored + count < TRUNCATION_BITS and found._takes(x):
                return found
        return None

    @property
    def _ends(self) -> list[int]:
        return [end for end in (self.low, self.high) if end is not None]

    def _takes(self, x: TensorType) -> bool:
        """Whether ends are near enough to all that x may be."""
        least, most = (math.ldexp(end, x.fraction_bits) / SLACK for end in (min(x.low, 0.0), max(x.high, 0.0)))
        near = [
            most - end < 2.0**self.ignored * (2.0**self.bits - 1) and end - least <= 2.0 ** (self.ignored + self.bits)
            for end in self._ends
        ]
        return all(near)

    def result(self, *types: TensorType) -> TensorType:
        require(0 < len(types) < 3 and types[0].ring == FIELD and types[0].form is Form.MASKED, "takes a masked tensor")
        require(FEWEST <= self.bits <= MOST and self.ignored >= 0, f"tables have {FEWEST} to {MOST} bits")
        require(self.ignored + self.bits < TRUNCATION_BITS, f"compares less than {TRUNCATION_BITS} bits")
        require(bool(self._ends), "looks at an end, or both")
        require(self.low is None or self.high is None or self.low < self.high, "ends are in order")
        require(self._takes(types[0]), "ends are near enough to all values")
        before = [t.size for t in types[1:]]
        require(types[1:] == tuple(map(packed_type, before)), "takes packed bits")
        return packed_type(packed(types[0].size) + sum(before))

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Other bits, behind these, would be counted."""
        require(all(isinstance(y.operation, Beyond) for y in operands[1:]), "goes on behind what is beyond")

    def takes_share(self, operand: int) -> bool:
        return operand > 0

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Grains(types[0].size, self.ignored, self.bits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        before = [party.fold(value, t) for value, t in zip(inputs[1:], types[1:], strict=True)]
        found = self._found(party.rings, types[0], inputs[0].public, prepared[0], party.unit)
        return Value(None, bits_of(party.rings).concatenate([*before, found], 0))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        (dealt,) = self.correlations(*types)[0].make(rings, [field_of(rings).zeros(types[0].shape)])
        return bits_of(rings).concatenate([*inputs[1:], self._found(rings, types[0], inputs[0], dealt, 1)], 0)

    def _found(self, rings: Rings, x: TensorType, public: Array | None, dealt: Array, one: int) -> Array:
        field, bits = field_of(rings), bits_of(rings)
        flat = field.or_zeros(public, (x.size,))
        ends = [end - (1 << (self.ignored + self.bits)) for end in self._ends]
        found = field.coarse_bits(flat, ends, self.ignored, self.bits, dealt, one)
        # Beyond the lower end is what does not reach it.
        return found if self.low is None else bits.add(found, bits.full((packed(x.size),), 255 * one))


class MasksOfBits(LiftedBits, frozen=True):
    """Of the first operand."""

    @property
    def operands(self) -> tuple[int, ...]:
        return (0,)


@register
class Beyonds(Operation, frozen=True, tag="beyonds"):
    """How many values are beyond, by opened bits of `Beyond`, of tensors of these ``sizes``: of each of so many
    ``rows``."""

    takes_inner: ClassVar[range] = range(1)
    sizes: tuple[int, ...]
    rows: int

    def result(self, *types: TensorType) -> TensorType:
        require(0 < len(self.sizes) <= MOST_TENSORS and self.rows > 0, f"takes 1 to {MOST_TENSORS} tensors, in rows")
        require(all(0 < n <= MAX_SIZE and n % self.rows == 0 for n in self.sizes), "takes rows of some values")
        expected = packed_type(sum(map(packed, self.sizes))).replace(form=Form.MASKED)
        require(types == (expected,), "takes an opened bit of each value")
        return TensorType((self.rows,), 0, 0.0, float(sum(self.sizes) // self.rows), Form.SHARED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Of other bits that nobody sees this would be a number that somebody may."""
        (opened,) = operands
        require(isinstance(opened.operation, Mask), "takes opened bits")
        made: Operand | None = opened.inputs[0]
        for size in reversed(self.sizes):
            if made is None or not isinstance(made.operation, Beyond):
                raise ProgramError("counts what is beyond")
            require(made.inputs[0].type.size == size, "takes bits of as many values")
            made = made.inputs[1] if len(made.inputs) > 1 else None
        require(made is None, "counts all that is beyond")

    def takes_share(self, operand: int) -> bool:
        return False

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (MasksOfBits(8 * types[0].size, False, 0, False),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        opened = bits_of(party.rings).or_zeros(inputs[0].public, types[0].shape)
        return Value(*field.counted_bits(opened, prepared[0], self.sizes, self.rows))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field = field_of(rings)
        return field.counted_bits(inputs[0], field.zeros((8 * types[0].size,)), self.sizes, self.rows)[0]
