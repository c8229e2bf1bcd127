"""The digits of a masked number, compared with those of its mask: what a sign follows from, and one opening more.

Let x = E + a be masked, r = -a mod p and c = E + 2^K mod p, so that x + 2^K = c - r mod p.  For |x| < 2^K - 1, bit K of
that says whether x >= 0.  p = 2^61 - 1 is -1 modulo 2^(K+1), so whether or not c - r wraps past p changes it by one raw
unit at most, and there is no wrap bit to find: subtracting the low K + 1 bits of r from those of c, with borrows, will
do.

*Exactly*: 2 x is compared in place of x (E and a are doubled alike), and a unit more makes no negative 2 x anything
else.  *By units of 2^d*: the d lowest bits of c and r are ignored, which adds 2^d at most to the difference; so x less
half of it is compared, and the sign may be wrong where |x| <= 2^(d-1), or 1 if d = 0.  Fewer bits k = K - d are what is
cheaper.

The bits are cut into J *digits*.  The dealer deals tables of r's digits, and with c public each party finds in its
shares of them, without a message, shares of a_j = [digit of c < digit of r] and b_j = [the same digit]; of the highest,
with the sign's bit in it, of a_J = the sign's bit of the difference and of b_J = what a borrow from below adds to it
(``mpc/rings/digits.py``).  Then

    [x >= 0]  =  a_J + b_J (a_(J-1) + b_(J-1) (... (a_2 + b_2 a_1))),

a *chain*.  With MACs all of this is in the field; without, tables, a and b are packed bits under XOR, where the same
chain holds.  What `Digits` finds is masked and opened like any tensor, a_j = u_j + alpha_j and b_j = v_j + beta_j, and
then the chain is a polynomial of masks with public coefficients, linear in dealt shares of their products: two ways to
go on from there are in ``comparison.py`` and ``bit_comparison.py``.  In fewer rounds, or for fewer bytes with MACs,
digits are added up in place of chained: ``weighed.py`` and ``residues.py``.

Security: nothing is opened here beyond E, which is uniform; dealt tables are fresh and uniform, and looking up at
public places is linear in them, so on MAC shares it gives shares of MACs.  The u and v that are opened next are uniform
under masks of their own: perfect, whatever is compared, for any n - 1 parties.  Types guarantee the range of x.

*Many thresholds.*  x - t for a public t has the mask of x, and so the same r; only c is another.  So x is masked and
opened once, however many t it is compared with, and its tables (`Tables`) are dealt once; each threshold has digits of
its own.  Security: an entry of a table may be found by several thresholds, or the difference of two, and so shares of
the digits of different thresholds depend on each other; but no share of a digit is ever sent.  What is opened of each
is u or v, under alpha or beta of its own, uniform and independent of all others and of the tables: what all openings
show together is uniform as well.

*Equality.*  x = 0 is c = r, for c = 2 E; and where 2 x, or with a wrap 2 x + 1, is 0 modulo 2^k, |2 x| < 2^k, x is 0.
So the products of eq of all digits are that, from the same tables, and the same chain with a_1 = [the same digit] and
a_j = 0 for all others finds it.

Cost: no round of its own; dealt are 2^w - 1 entries for a digit of w bits, one more for the highest; elements of the
field, or bits.  A threshold more costs what is opened of its digits and what ends its comparison: bytes
dealt for each, alone, and of several of one x in one tensor,

    bits  for           alone  of 2  of 4  of 8  of 64
    20    two rounds      144    88    60    46     24
    20    three            23    19    15    13     10
    20    MACs            640   704   704   546    200
    30    two rounds      288   212   138   101     48
    30    three            43    31    24    19     12
    30    MACs          1,472 1,472   920   726    487

and 8 bytes opened for x, for all of them together.
Source: comparing digit by digit from the highest: Damgard, Fitzi, Kiltz, Nielsen and Toft, TCC 2006; dealt tables that
are read at public places: Ishai, Kushilevitz, Meldgaard, Orlandi and Paskin-Cherniavsky, TCC 2013; the sign of a masked
number with a dealer: Boyle, Gilboa and Ishai, EUROCRYPT 2019.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.program import Expression
from mpc.rings import BITS, FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.bit_planes import packed
from mpc.rings.digits import entries
from mpc.tensor_type import SLACK, Form, RingName, Shape, TensorType
from protocols.operations.linear import Add, Broadcast, Reshape, Subtract
from protocols.operations.mask import OfMask

AnyNode = TypeVar("AnyNode", Expression, Operand)

EXACTLY = -1
"""In place of the number of bits that are ignored: none are, and ties count."""


def mistaken(ignored: int) -> float:
    """Raw units within which of 0 the sign may be wrong: no less than one, which a wrap adds."""
    return max(math.ldexp(0.5, ignored), 1.0) if ignored >= 0 else 0.0


MOST_BITS = 60
MOST_DIGIT = 10
MOST_DIGITS = 20
MOST_BASES = 16
"""That are looked at, of a program that may be a stranger's."""


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

    def takes(self, x: TensorType, equal: bool = False) -> bool:
        """Whether the sign of any such value can be told: -2^(d + k) <= x < 2^d (2^k - 1) raw units, d = -1 if exactly.

        ``equal``: whether it is 0 can be, -2^(k-1) < x < 2^(k-1).
        """
        return self._reaches(x, equal, 0.0)

    def weighs(self, x: TensorType, equal: bool = False) -> bool:
        """Whether the signs of digits, weighed, tell it, too (``weighed.py``): highest digits are not far apart."""
        spared = len(self.widths) > 1 and not equal
        return self._reaches(x, equal, math.ldexp(1.0, self.bits + self.ignored - self.widths[-1]) if spared else 0.0)

    def _reaches(self, x: TensorType, equal: bool, spared: float) -> bool:
        low, high = (math.ldexp(end, x.fraction_bits) / SLACK for end in (x.low, x.high))
        most = math.ldexp(1.0, self.ignored) * (math.ldexp(1.0, self.bits) - 1.0) - spared
        # A wrap adds a unit, and takes none away.
        least = most if equal else math.ldexp(1.0, self.bits + self.ignored) + 0.5 - self.moved - spared
        return high < most and -low < least

    @property
    def moved(self) -> int:
        """Half of what is ignored: so much less is compared, for values on both sides of 0 to be told alike."""
        return (1 << self.shift) >> 1

    def check(self, x: TensorType, equal: bool = False, most: int = MOST_DIGITS) -> None:
        """Raise ProgramError unless it goes with a masked ``x``, and has up to so many digits."""
        widths = self.widths
        require(x.ring == FIELD, "compares field elements: p = 2^61 - 1 is what lets it do without wraps")
        require(x.form is Form.MASKED, "compares a masked tensor")
        require(0 < len(widths) <= most, f"compares 1 to {most} digits")
        require(all(0 < width <= MOST_DIGIT for width in widths), f"digits have 1 to {MOST_DIGIT} bits")
        require(self.ignored >= EXACTLY and self.bits + self.shift <= MOST_BITS, f"compares up to {MOST_BITS} bits")
        require(not equal or self.ignored == EXACTLY, "what ignores bits is equal to nothing")
        require(
            self.takes(x, equal), f"values of {x.bits:.1f} bits are too large for {self.bits} bits to tell their sign"
        )

    def opened(self, field: PrimeField, public: Array, equal: bool) -> Array:
        """c, of what is opened of x."""
        scaled = field.scale(public, 2) if self.ignored < 0 else public
        added = (1 << (self.bits + self.shift)) - self.moved
        return scaled if equal else field.add(scaled, field.full((), added))

    def hidden(self, field: PrimeField, mask: Array) -> Array:
        """r, of a mask."""
        return field.scale(mask, -2 if self.ignored < 0 else -1)


def table_parts(size: int, widths: tuple[int, ...], ring: RingName) -> tuple[Part, ...]:
    """What is dealt of `tabled`."""
    t = tables_type(size, widths, ring)
    return (Part(t.shape, t.ring),)


def tabled(field: PrimeField, ring: RingName, hidden: Array, shift: int, widths: tuple[int, ...]) -> Array:
    """The table of what is hidden, from bit ``shift`` on: of field elements or of packed bits."""
    made = field.table if ring == FIELD else field.packed_table
    return made(hidden, shift, widths)


class Table(Correlation, frozen=True):
    """The table of a mask's r: a row an element, of field elements; or a plane an entry, of packed bits."""

    size: int
    ignored: int
    widths: tuple[int, ...]
    ring: RingName

    @property
    def parts(self) -> tuple[Part, ...]:
        return table_parts(self.size, self.widths, self.ring)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, window = field_of(rings), Window(self.ignored, self.widths)
        return (tabled(field, self.ring, window.hidden(field, masks[0]), window.shift, self.widths),)


class Cut(Operation, frozen=True):
    """Of a masked x: ``ignored`` low bits do not count, or -1 to compare exactly; ``widths``: bits of each
    digit, lowest first; ``ring``: of the field, or packed bits.
    """

    varies: ClassVar[bool] = True

    ignored: int
    widths: tuple[int, ...]
    ring: RingName

    @property
    def _window(self) -> Window:
        return Window(self.ignored, self.widths)


class MaskTables(OfMask, Cut, frozen=True):
    """Of masks, cut."""


@register
class Tables(MaskTables, frozen=True, tag="tables"):
    """The tables of the mask of each element of x."""

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1, "takes one tensor")
        self._window.check(types[0])
        require(self.ring in (FIELD, BITS), "digits are of the field, or packed bits")
        return tables_type(types[0].size, self.widths, self.ring)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Table(types[0].size, self.ignored, self.widths, self.ring),)


@register
class Digits(Cut, frozen=True, tag="digits"):
    """a_1 ... a_J, b_2 ... b_J of each element of x: in the field a row each, else a plane of packed bits.

    Its second operand is the `Tables` of x, or of what x is made of by adding public numbers and repeating each element
    ``thresholds`` times in a row: by no others, which would tell how public numbers compare with another's mask.
    ``equal``: digits whose chain is 1 where x = 0.
    """

    inner: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(1, 2)
    thresholds: int = 1
    equal: bool = False

    def takes_share(self, operand: int) -> bool:
        return operand > 0

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 2, "takes a tensor, and its tables")
        x, tables = types
        self._window.check(x, self.equal)
        require(self.ring in (FIELD, BITS), "digits are of the field, or packed bits")
        rows = self._rows(x)
        require(tables == tables_type(rows, self.widths, self.ring), "takes the tables of such digits")
        return digits_type(x.size, len(self.widths), self.ring)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """That the tables are of the mask of x, cut alike, and one for each so many elements: types do not say so."""
        x, tables = operands
        self._check_tables(x, tables, Tables(self.ignored, self.widths, self.ring))

    def _rows(self, x: TensorType) -> int:
        """Of tables."""
        require(self.thresholds > 0 and x.size % self.thresholds == 0, "takes a table for each few elements in a row")
        return x.size // self.thresholds

    def _check_tables(self, x: Operand, tables: Operand, wanted: Operation) -> None:
        require(tables.operation == wanted, "takes tables that are cut alike")
        (base,) = tables.inputs
        require(base.type.size * self.thresholds == x.type.size, "takes a table for each few elements in a row")
        require(any(made.number == base.number for made in bases(x)), "takes the tables of what is compared")

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        public = field.or_zeros(inputs[0].public, types[0].shape)
        tables = party.ring(types[1]).or_zeros(inputs[1].share, types[1].shape)
        return Value(None, self._look_up(field, public, tables, party.unit))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        return self._look_up(field_of(rings), inputs[0], inputs[1], 1)

    def _look_up(self, field: PrimeField, public: Array, tables: Array, one: int) -> Array:
        window = self._window
        opened = window.opened(field, public, self.equal)
        found = field.look_up if self.ring == FIELD else field.packed_look_up
        return found(opened, window.shift, self.widths, tables, one, self.thresholds, self.equal)


def bases(x: AnyNode) -> Iterator[AnyNode]:
    """A masked x, and what has its mask, element by element or of several in a row: the nearest, so many at most."""
    found: AnyNode | None = x
    for _ in range(MOST_BASES):
        if found is None:
            return
        yield found
        found = _beneath(found)


def _beneath(x: AnyNode) -> AnyNode | None:
    """The masked operand whose mask is that of x, element by element or of several in a row; None if there is none."""
    match x.operation:
        case Reshape():
            return x.inputs[0]
        case Broadcast():
            inner = x.inputs[0]
        case Subtract():
            inner, public = x.inputs
            if public.type.form is not Form.PUBLIC:
                return None
        case Add():
            inner, public = sorted(x.inputs, key=lambda y: y.type.form is Form.PUBLIC)
            if public.type.form is not Form.PUBLIC:
                return None
        case _:
            return None
    return inner if _in_rows(inner.type.shape, x.type.shape) else None


def _in_rows(shape: Shape, wanted: Shape) -> bool:
    """Whether broadcasting repeats elements in a row, each as often."""
    padded = (1,) * (len(wanted) - len(shape)) + shape
    kept = next((i for i, (n, w) in enumerate(zip(padded, wanted, strict=True)) if n != w), len(wanted))
    return all(n == 1 for n in padded[kept:])


def tables_type(rows: int, widths: Sequence[int], ring: str) -> TensorType:
    """What the tables of so many numbers are, of one of the two rings."""
    count = entries(widths)
    if ring == FIELD:
        return TensorType((rows, count), 0, 0.0, 1.0, Form.SHARED)
    return packed_type(count, packed(rows))


def digits_type(size: int, digits: int, ring: str) -> TensorType:
    """What the digits of so many numbers are, of one of the two rings."""
    if ring == FIELD:
        # The highest b is a difference of bits.
        return TensorType((2 * digits - 1, size), 0, -1.0, 1.0, Form.SHARED)
    return packed_type(2 * digits - 1, packed(size))


def packed_type(*shape: int) -> TensorType:
    """Packed bits, in planes of so many bytes."""
    return TensorType(shape, 0, 0.0, 255.0, Form.SHARED, ring=BITS)
