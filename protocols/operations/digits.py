"""The digits of a masked number, compared with those of its mask: what a sign follows from, and one opening more.

Let x = E + a be masked, r = -a mod p and c = E + 2^K mod p, so that x + 2^K = c - r mod p.  For |x| < 2^K - 1, bit K of
that says whether x >= 0.  p = 2^61 - 1 is -1 modulo 2^(K+1), so whether or not c - r wraps past p changes it by one raw
unit at most, and there is no wrap bit to find: subtracting the low K + 1 bits of r from those of c, with borrows, will
do.

*Exactly*: 2 x is compared in place of x (E and a are doubled alike), and a unit more makes no negative 2 x anything
else.  *By units of 2^d*: the d lowest bits of c and r are ignored, and the sign may be wrong where |x| <= 2^d.  Fewer
bits k = K - d are what is cheaper.

The bits are cut into J *digits*.  The dealer deals tables of r's digits, and with c public each party finds in its
shares of them, without a message, shares of a_j = [digit of c < digit of r] and b_j = [the same digit]; of the highest,
with the sign's bit in it, of a_J = the sign's bit of the difference and of b_J = what a borrow from below adds to it
(``mpc/rings/digits.py``).  Then

    [x >= 0]  =  a_J + b_J (a_(J-1) + b_(J-1) (... (a_2 + b_2 a_1))),

a *chain*.  With MACs all of this is in the field; without, tables, a and b are packed bits under XOR, where the same
chain holds.  What `Digits` finds is masked and opened like any tensor, a_j = u_j + alpha_j and b_j = v_j + beta_j, and
then the chain is a polynomial of masks with public coefficients, linear in dealt shares of their products: three ways
to go on from there are in ``comparison.py`` and ``bit_comparison.py``.

Security: nothing is opened here beyond E, which is uniform; dealt tables are fresh and uniform, and looking up at
public places is linear in them, so on MAC shares it gives shares of MACs.  The u and v that are opened next are uniform
under masks of their own: perfect, whatever is compared, for any n - 1 parties.  Types guarantee the range of x.
Cost: no round of its own; dealt are 2^w - 1 entries for a digit of w bits, one more for the highest; elements of the
field, or bits.
Source: comparing digit by digit from the highest: Damgard, Fitzi, Kiltz, Nielsen and Toft, TCC 2006; dealt tables that
are read at public places: Ishai, Kushilevitz, Meldgaard, Orlandi and Paskin-Cherniavsky, TCC 2013; the sign of a masked
number with a dealer: Boyle, Gilboa and Ishai, EUROCRYPT 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import BITS, FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.bit_planes import packed
from mpc.rings.digits import entries
from mpc.tensor_type import SLACK, Form, RingName, TensorType

EXACTLY = -1
"""In place of the number of bits that are ignored: none are, and ties count."""
MOST_BITS = 60
MOST_DIGIT = 10
MOST_DIGITS = 20


class Window(NamedTuple):
    """Which bits are compared: of x, without the ``ignored`` lowest ones, cut into digits, lowest first."""

    ignored: int
    widths: tuple[int, ...]

    @property
    def bits(self) -> int:
        """k, below the sign's."""
        return sum(self.widths)

    @property
    def shift(self) -> int:
        """d."""
        return max(self.ignored, 0)

    def takes(self, x: TensorType) -> bool:
        """Whether the sign of any such value can be told: |x| < 2^d (2^k - 1) raw units, d = -1 if exactly."""
        raw = math.ldexp(x.magnitude, x.fraction_bits) / SLACK
        return raw < math.ldexp(1.0, self.ignored) * (math.ldexp(1.0, self.bits) - 1.0)

    def check(self, x: TensorType) -> None:
        """Raise ProgramError unless it goes with a masked ``x``."""
        widths = self.widths
        require(x.ring == FIELD, "compares field elements: p = 2^61 - 1 is what lets it do without wraps")
        require(x.form is Form.MASKED, "compares a masked tensor")
        require(0 < len(widths) <= MOST_DIGITS, f"compares 1 to {MOST_DIGITS} digits")
        require(all(0 < width <= MOST_DIGIT for width in widths), f"digits have 1 to {MOST_DIGIT} bits")
        require(self.ignored >= EXACTLY and self.bits + self.shift <= MOST_BITS, f"compares up to {MOST_BITS} bits")
        require(self.takes(x), f"values of {x.bits:.1f} bits are too large for {self.bits} bits to tell their sign")

    def opened(self, field: PrimeField, public: Array) -> Array:
        """c, of what is opened of x."""
        scaled = field.scale(public, 2) if self.ignored < 0 else public
        return field.add(scaled, field.full((), 1 << (self.bits + self.shift)))

    def hidden(self, field: PrimeField, mask: Array) -> Array:
        """r, of a mask."""
        return field.scale(mask, -2 if self.ignored < 0 else -1)


class Table(Correlation, frozen=True):
    """The table of a mask's r: a row an element, of field elements; or a plane an entry, of packed bits."""

    size: int
    ignored: int
    widths: tuple[int, ...]
    ring: RingName

    @property
    def parts(self) -> tuple[Part, ...]:
        count = entries(self.widths)
        return (Part((self.size, count) if self.ring == FIELD else (count, packed(self.size)), self.ring),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, window = field_of(rings), Window(self.ignored, self.widths)
        hidden = window.hidden(field, masks[0])
        tabled = field.table if self.ring == FIELD else field.packed_table
        return (tabled(hidden, window.shift, self.widths),)


@register
class Digits(Operation, frozen=True, tag="digits"):
    """a_1 ... a_J, b_2 ... b_J of each element: in the ``ring`` of the field a row each, else a plane of packed bits.

    ``ignored``: how many low bits do not count, or -1 to compare exactly.  ``widths``: bits of each digit, lowest
    first.
    """

    varies: ClassVar[bool] = True

    ignored: int
    widths: tuple[int, ...]
    ring: RingName

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1, "takes one tensor")
        self._window.check(types[0])
        require(self.ring in (FIELD, BITS), "digits are of the field, or packed bits")
        return digits_type(types[0].size, len(self.widths), self.ring)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Table(types[0].size, self.ignored, self.widths, self.ring),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        return Value(None, self._look_up(field, types[0], inputs[0].public, prepared[0], party.unit))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        field = field_of(rings)
        (dealt,) = self.correlations(*types)[0].make(rings, [field.zeros(types[0].shape)])
        return self._look_up(field, types[0], inputs[0], dealt, 1)

    def _look_up(self, field: PrimeField, x: TensorType, public: Array | None, dealt: Array, one: int) -> Array:
        opened = self._window.opened(field, field.zeros(x.shape) if public is None else public)
        found = field.look_up if self.ring == FIELD else field.packed_look_up
        return found(opened, self._window.shift, self.widths, dealt, one)

    @property
    def _window(self) -> Window:
        return Window(self.ignored, self.widths)


def digits_type(size: int, digits: int, ring: str) -> TensorType:
    """What the digits of so many numbers are, of one of the two rings."""
    if ring == FIELD:
        # The highest b is a difference of bits.
        return TensorType((2 * digits - 1, size), 0, -1.0, 1.0, Form.SHARED)
    return packed_type(2 * digits - 1, packed(size))


def packed_type(*shape: int) -> TensorType:
    """Packed bits, in planes of so many bytes."""
    return TensorType(shape, 0, 0.0, 255.0, Form.SHARED, ring=BITS)
