"""A comparison without MACs in two rounds: the signs of digits, weighed and added up to a small number.

What is compared, and its mask's r, are cut into J digits (``digits.py``).  Each digit of c is greater than r's, the
same or less, t_j = 1, 0 or -1, and

    Z  =  t_1 + t_2 + 2 t_3 + ... + 2^(J-2) t_J    is in [-2^(J-1), 2^(J-1)), and negative where x is

(``mpc/rings/steps.py``).  The highest digits, the sign's bit in them, differ by their 2^w modulo 2^(w+1) where x is
near 0; that they are the same, which would be near the ends of what k bits hold, ranges rule out (`Window.weighs`).
Each party finds a share of Z modulo 2^J, without a message, in shares of tables (`Steps`): a digit of weight 2^i has
one of numbers modulo 2^(J-i).  Z is masked and opened like any tensor, z = Z - rho mod 2^J, and of the sign that z +
rho has, for each z that there may be, the dealer deals shares in the field (`Signed`): for half of them, as half a turn
further signs are the others.  Public z says which one is taken.  Of a masked y = D + b that the sign lets through, the
dealer deals shares of these times b besides, and one is taken likewise.

*The bit itself*, for what is let through later, as a gradient is by the bit of its ReLU: of the sign's bits, for each
z that there may be, the dealer deals XOR shares (`SignBits`), and the one that is taken is masked and opened like that
of a chain of digits, with which nothing more is dealt but for its mask (``bit_comparison.py``): a round later, which it
is where what is let through follows from what the sign was for.

Security: nothing is opened here beyond z, which is uniform under a mask of its own: perfect, for any n - 1 parties.
All else is dealt, fresh and uniform, and taken by public numbers.  Of many thresholds of one x, see ``digits.py``.
With MACs there are none of numbers modulo 2^J; a sum is shown there by another sign of it (``residues.py``).
Cost: J bits are opened for a value.  Dealt are 2^w - 1 numbers for a digit of w bits, one more for the highest, of J
bits, J, J - 1, ... 2; and 2^(J-1) elements for a bit, as many more for what it lets through.  At k = 19 bits a ReLU
takes 144 bytes with three digits, of which the tables are 80; digits in packed bits would have 10 elements in place of
4 for each of both (``bit_comparison.py``), as they depend on 2 J - 1 masks, and not on one.
Of the bit by itself, 2^(J-1) bits are dealt, and one is opened.
Source: tables that are read at public places, ``digits.py``; of a masked small number: Ishai, Kushilevitz, Meldgaard,
Orlandi and Paskin-Cherniavsky, TCC 2013.  That signs of digits are weighed and added up is of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import BITS, Array, PrimeField, Rings, field_of
from mpc.rings.bit_planes import packed
from mpc.rings.prime_field import HALF
from mpc.rings.small import MOST_BITS, small, words
from mpc.rings.steps import entries, entry_bits
from mpc.tensor_type import MAX_SIZE, Form, RingName, Shape, TensorType
from protocols.operations.comparison import HalfSigned
from protocols.operations.digits import Digits, MaskTables, Window, packed_type
from protocols.operations.mask import Mask
from protocols.operations.passing import SaidOfMasks

MOST_WEIGHED = MOST_BITS
"""Digits of a sum: what is dealt doubles with each."""


def _words_type(ring: RingName, *shape: int) -> TensorType:
    """Of packed numbers, which are none to compute with."""
    return TensorType(shape, 0, -(2.0**63), 2.0**63, Form.SHARED, ring=ring)


def steps_type(rows: int, widths: Sequence[int], place: int) -> TensorType:
    """What the tables of a digit of so many numbers are."""
    bits = entry_bits(len(widths), place)
    return _words_type(small(bits), rows, words(entries(widths[place], place == len(widths) - 1), bits))


def weighed_type(size: int, digits: int) -> TensorType:
    """What the sums of so many numbers' digits are."""
    return _words_type(small(digits), words(size, digits))


class Step(Correlation, frozen=True):
    """The tables of the digit at ``place`` of a mask's r."""

    size: int
    ignored: int
    widths: tuple[int, ...]
    place: int

    @property
    def parts(self) -> tuple[Part, ...]:
        t = steps_type(self.size, self.widths, self.place)
        return (Part(t.shape, t.ring),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, window, count = field_of(rings), Window(self.ignored, self.widths), len(self.widths)
        below, highest = window.shift + sum(self.widths[: self.place]), self.place == count - 1
        hidden, bits = window.hidden(field, masks[0]), entry_bits(count, self.place)
        return (field.steps(hidden, below, self.widths[self.place], highest, bits),)


@register
class Steps(MaskTables, frozen=True, tag="steps"):
    """The tables of the digit at ``place`` of the mask of each element of x."""

    place: int = 0

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1, "takes one tensor")
        self._window.check(types[0])
        require(len(self.widths) <= MOST_WEIGHED, f"weighs 1 to {MOST_WEIGHED} digits")
        require(0 <= self.place < len(self.widths), "is of one of the digits")
        t = steps_type(types[0].size, self.widths, self.place)
        require(self.ring == t.ring, "is of numbers of as many bits as are weighed")
        return t

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Step(types[0].size, self.ignored, self.widths, self.place),)


@register
class Weighed(Digits, frozen=True, tag="weighed"):
    """Z of each element of x, packed; its other operands are the `Steps` of each digit, lowest first, of x or of what
    it is made of, as those of `Digits` are.  ``equal``: 0 where x = 0, and else negative."""

    takes_inner: ClassVar[range] = range(1, 1 + MOST_WEIGHED)

    def result(self, *types: TensorType) -> TensorType:
        count = len(self.widths)
        require(0 < count <= MOST_WEIGHED, f"weighs 1 to {MOST_WEIGHED} digits")
        require(len(types) == 1 + count, "takes a tensor, and tables of each digit")
        x, *tables = types
        self._window.check(x, self.equal)
        require(self._window.weighs(x, self.equal), "values are too large for the highest digit to be told by its sign")
        rows = self._rows(x)
        require(self.ring == small(count), "is of numbers of as many bits as there are digits")
        expected = [steps_type(rows, self.widths, j) for j in range(count)]
        require(list(tables) == expected, "takes the tables of such digits")
        return weighed_type(x.size, count)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        x, *tables = operands
        for j, made in enumerate(tables):
            ring = small(entry_bits(len(self.widths), j))
            self._check_tables(x, made, Steps(self.ignored, self.widths, ring, j))
        require(len({made.inputs[0].number for made in tables}) == 1, "takes tables of one tensor")

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        public = field_of(party.rings).or_zeros(inputs[0].public, types[0].shape)
        tables = [party.ring(t).or_zeros(v.share, t.shape) for t, v in zip(types[1:], inputs[1:], strict=True)]
        return Value(None, self._weigh(party.rings, public, tables, party.unit))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        return self._weigh(rings, inputs[0], inputs[1:], 1)

    def _weigh(self, rings: Rings, public: Array, tables: Sequence[Array], one: int) -> Array:
        field, window = field_of(rings), self._window
        opened = window.opened(field, public, self.equal)
        return field.weighed_steps(opened, window.shift, self.widths, tables, one, self.thresholds, self.equal)


class SmallSigns(SaidOfMasks, frozen=True):
    """Half the sign of z + rho, for each z that a sum of so many ``digits`` may be."""

    digits: int

    @property
    def rows(self) -> Shape:
        return (1 << (self.digits - 1), self.size)

    def said(self, field: PrimeField, mask: Array) -> Array:
        return field.small_signs(mask, self.digits, self.size)


@register
class Signed(HalfSigned, frozen=True, tag="signed"):
    """Its second operand is the opened sum of as many ``digits``."""

    digits: int

    def takes_share(self, operand: int) -> bool:
        return operand != 1 and super().takes_share(operand)

    def _goes_with(self, x: TensorType, digits: TensorType) -> bool:
        return 0 < self.digits <= MOST_WEIGHED and digits.replace(form=Form.SHARED) == weighed_type(x.size, self.digits)

    def _bit(self, rings: Rings, types: Sequence[TensorType], digits: Array) -> Array:
        field, size = field_of(rings), types[0].size
        none = rings[types[1].ring].zeros(types[1].shape)
        sign = field.small_sign(digits, self.digits, size, field.small_signs(none, self.digits, size))
        return field.add(field.full((size,), HALF), sign)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (SmallSigns(types[0].size, len(types) == 3, self.dropped, self.own, self.digits),)

    def _shown(self, rings: Rings, types: Sequence[TensorType], opened: Value) -> Array:
        return rings[types[1].ring].or_zeros(opened.public, types[1].shape)

    def _signed(self, rings: Rings, types: Sequence[TensorType], shown: Array, dealt: Array) -> Array:
        return field_of(rings).small_sign(shown, self.digits, types[0].size, dealt)


class SmallSignBits(Correlation, frozen=True):
    """Whether z + rho is not negative, for each z that a sum of so many ``digits`` may be: bits, a plane each."""

    size: int
    digits: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((1 << (self.digits - 1), packed(self.size)), BITS),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return (field_of(rings).sign_planes(masks[0], self.digits, self.size),)


@register
class SignBits(Operation, frozen=True, tag="sign_bits"):
    """Of the opened sums of ``size`` numbers' digits, as many of each: a packed bit each, 1 where it is not negative.

    It stands where the `Sign` of a chain of digits does.
    """

    inner: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(1)
    size: int
    digits: int

    def result(self, *types: TensorType) -> TensorType:
        require(0 <= self.size <= MAX_SIZE and 0 < self.digits <= MOST_WEIGHED, f"has 1 to {MOST_WEIGHED} digits")
        require(types == (weighed_type(self.size, self.digits).replace(form=Form.MASKED),), "takes opened sums")
        return packed_type(packed(self.size))

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Of fewer numbers it would not be what signs are said to be."""
        (opened,) = operands
        require(isinstance(opened.operation, Mask), "takes opened sums")
        made = opened.inputs[0]
        require(isinstance(made.operation, Weighed), "takes sums of digits")
        require(made.inputs[0].type.size == self.size, "takes sums of as many numbers")

    def takes_share(self, operand: int) -> bool:
        return False

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (SmallSignBits(self.size, self.digits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        opened = party.ring(types[0]).or_zeros(inputs[0].public, types[0].shape)
        found = field_of(party.rings).sign_plane(opened, self.digits, self.size, prepared[0], party.unit)
        return Value(None, found)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        field = field_of(rings)
        planes = field.sign_planes(rings[types[0].ring].zeros(types[0].shape), self.digits, self.size)
        return field.sign_plane(inputs[0], self.digits, self.size, planes, 1)
