"""A comparison with MACs: the signs of digits are weighed and added up, and of the sum no more is shown, to who knows a
secret factor, than whether it is a square.

What is compared, and its mask's r, are cut into digits (``digits.py``), and these into a few *nodes*, lowest first.  Of
a node's digits t_j = 1, 0 or -1, weighed, and of the borrow B from the node before, a small number Z is negative where
there is a borrow from this node, and in the last where x is (``mpc/rings/characters.py``).  There is a public R for
which R + Z is a square modulo p where Z is negative, and no other is.  So the dealer makes a secret factor s for each
value and node (`Factors`), and deals shares of s times all that Z is made of: linear in these, each party finds without
a message its share of

    u  =  2 s (R + Z),

which is opened as it is (`Residue`).  Whether that is a square is public; whether s is, the dealer knows: the sign of Z
is the product of both.  So B of the next node, times its s, is (s - chi(u) chi' s) / 2, where the dealer deals chi' s;
and of the last node, sign and sign times mask of what it lets through are dealt likewise (`Residuosity`).

Security.  u is the only thing that is opened.  R + Z is not 0, whatever c is, as Z is in its range for all digits and
either B; so u is as uniform as s is, and independent of Z, of all other u, each of which has an s of its own, and of E:
perfect but for s = 0, which would hide nothing and decide nothing, and for which another s is taken: a distance of 1/p
for each, as of MACs.  A factor serves one u (``Operation.blinds``): of two, the quotient would be shown.  Shares of u
are uniform subject to their sum, as a part of each, of every entry, was dealt for it alone.  Opened optimistically,
with an error it is another square or none: a B or a result that is the wrong bit, but a bit, so that what is opened
next is as uniform; and u has a MAC, from tables times the key, that is checked before anything leaves.  Of u = 0 the
bit is that of a square.  Factors themselves have no MAC, and parties no share of them: they serve what is dealt alone.

Many thresholds of one x have tables each of their own: entries times one s are no entries for another.  Where that is
more than ``comparison.py`` takes, whose tables all thresholds share, planning goes by that.
Cost: a round for each node, in which an element is opened for each value, and no mask is; dealt are 2^w - 1 elements
for a digit of w bits, one more for the highest; but one for all digits of one bit that follow the lowest of a node; two
for a node, and two in the end.  The lowest node has five digits, others four.  With MACs, of elements twice 8 bytes:

    bits     in two rounds   three    four    five    bytes for a ReLU
    20               1,264     656     496     368
    30               5,104   1,488   1,008     800

More digits would take a longer run of squares with as many others behind it; one of 2^6 is none that could be found.
*Equality*: Z is minus the number of digits that differ, so up to 15 digits go into a node.
Source: the quadratic character of a small number as its sign: Yu, Sign Modules in Secure Arithmetic Circuits, ePrint
2011/539; of a product with a secret, which hides all else: Feige, Kilian and Naor, STOC 1994; tables that are read at
public places: see ``digits.py``.  That signs of digits are weighed, and tables multiplied by what hides their sum, is
of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import Array, PrimeField, Rings, field_of
from mpc.rings.characters import Node
from mpc.rings.prime_field import HALF
from mpc.tensor_type import MAX_SIZE, Form, TensorType
from protocols.operations.comparison import HalfSigned
from protocols.operations.digits import MOST_BITS, Window
from protocols.operations.passing import SaidOfMasks


def _elements(size: int) -> TensorType:
    """Uniform ones."""
    return TensorType((size,), 0, -(2.0**59), 2.0**59, Form.MASKED)


class ScaledTable(Correlation, frozen=True):
    """The table of a node's digits of a mask's r, times what factors stand for."""

    size: int
    ignored: int
    widths: tuple[int, ...]
    first: int
    count: int
    equal: bool

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1, 2) if self.first else (0, 1)

    @property
    def node(self) -> Node:
        end, shift = self.first + self.count, Window(self.ignored, self.widths).shift
        below = shift + sum(self.widths[: self.first])
        return Node(below, self.widths[self.first : end], not self.first, end == len(self.widths), self.equal)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.size, self.node.entries)),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, (x, own, *before) = field_of(rings), masks
        hidden = Window(self.ignored, self.widths).hidden(field, x)
        return (field.scaled_table(hidden, own, before[0] if before else None, self.node),)


@register
class Factors(Operation, frozen=True, tag="factors"):
    """So many uniform elements that nobody but the dealer knows, or has a share of: masks of nothing."""

    hides: ClassVar[bool] = True
    blinds: ClassVar[bool] = True
    authenticated: ClassVar[bool] = False
    count: int

    def result(self, *types: TensorType) -> TensorType:
        require(not types, "has no operands")
        require(0 <= self.count <= MAX_SIZE, "a number of elements")
        return _elements(self.count)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0, which stands for 1."""
        return field_of(rings).zeros((self.count,))


@register
class Residue(Operation, frozen=True, tag="residue"):
    """Opens u of each element of a masked x, of `Factors`, and of the u of the node before, if there is one.

    ``ignored`` and ``widths`` are as of `Digits`, of all nodes; this one has ``count`` digits from the ``first`` on.
    ``equal``: of digits that are the same.  Its mask, for what the dealer makes of it, are the factors.
    """

    opens: ClassVar[bool] = True
    bare: ClassVar[bool] = True
    inner: ClassVar[bool] = True
    varies: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(2, 3)
    ignored: int
    widths: tuple[int, ...]
    first: int
    count: int
    equal: bool = False

    def takes_share(self, operand: int) -> bool:
        return False

    @property
    def last(self) -> bool:
        return self.first + self.count == len(self.widths)

    def _scaled(self, size: int) -> ScaledTable:
        return ScaledTable(size, self.ignored, self.widths, self.first, self.count, self.equal)

    def result(self, *types: TensorType) -> TensorType:
        require(self.first >= 0 and self.count > 0, "a node has digits")
        require(self.first + self.count <= len(self.widths), "a node has digits that there are")
        require(len(types) == (3 if self.first else 2), "takes a tensor, factors, and what digits below have shown")
        x, factors, *before = types
        window = Window(self.ignored, self.widths)
        window.check(x, self.equal, MOST_BITS)
        require(window.weighs(x, self.equal), "values are too large for the highest digit to be told by its sign")
        node = self._scaled(x.size).node
        require(self.count <= node.most, f"such a node has up to {node.most} digits")
        require(all(t == _elements(x.size) for t in (factors, *before)), "takes one for each value")
        return _elements(x.size)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Factors that are known would show Z; other digits tell how public numbers compare with masks."""
        x, factors, *before = operands
        require(isinstance(factors.operation, Factors), "factors are nobody's")
        for made in before:
            below = made.operation
            alike = isinstance(below, Residue) and below.alike(self) and below.first + below.count == self.first
            require(alike and made.inputs[0].number == x.number, "takes what the digits below have shown")

    def alike(self, other: Residue) -> bool:
        """Whether both are of one comparison."""
        return (self.ignored, self.widths, self.equal) == (other.ignored, other.widths, other.equal)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (self._scaled(types[0].size),)

    def on_masks(
        self, rings: Rings, types: Sequence[TensorType], masks: Sequence[Array | None], public: Sequence[Array | None]
    ) -> Array:
        return field_of(rings).or_zeros(masks[1], types[1].shape)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        public = field.or_zeros(inputs[0].public, types[0].shape)
        signs = shown(field, inputs[2], types[2]) if self.first else None
        return Value(None, self._sum(field, public, signs, prepared[0]))

    def _sum(self, field: PrimeField, public: Array, signs: Array | None, dealt: Array) -> Array:
        opened = Window(self.ignored, self.widths).opened(field, public, self.equal)
        return field.scaled_sum(opened, signs, self._scaled(0).node, dealt)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With masks of 0."""
        field, size = field_of(rings), types[0].size
        zeros = [field.zeros((size,)) for _ in types]
        (dealt,) = self._scaled(size).make(rings, zeros)
        return self._sum(field, inputs[0], field.character(inputs[2]) if self.first else None, dealt)


def shown(field: PrimeField, u: Value, t: TensorType) -> Array:
    """1 for each opened u that is a square, else -1: the same of values and of their MACs."""
    found: Array = u.once("character", lambda: field.character(field.or_zeros(u.public, t.shape)))
    return found


class FactorSigns(SaidOfMasks, frozen=True):
    """Half the sign that is to be multiplied by that of u."""

    def said(self, field: PrimeField, mask: Array) -> Array:
        return field.half_signs(mask)


@register
class Residuosity(HalfSigned, frozen=True, tag="residuosity"):
    """Its second operand is the u of the last node."""

    def takes_share(self, operand: int) -> bool:
        return operand != 1 and super().takes_share(operand)

    def _goes_with(self, x: TensorType, digits: TensorType) -> bool:
        return digits == _elements(x.size)

    def _digits_of(self, opened: Operand) -> Operand:
        made = opened.operation
        require(isinstance(made, Residue) and made.last, "takes what all digits have shown")
        return opened

    def _bit(self, rings: Rings, types: Sequence[TensorType], digits: Array) -> Array:
        field, shape = field_of(rings), types[1].shape
        half = field.multiply(field.character(digits), field.half_signs(field.zeros(shape)))
        return field.add(field.full(shape, HALF), half)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (FactorSigns(types[0].size, len(types) == 3, self.dropped, self.own),)

    def _shown(self, rings: Rings, types: Sequence[TensorType], opened: Value) -> Array:
        return shown(field_of(rings), opened, types[1])

    def _signed(self, rings: Rings, types: Sequence[TensorType], shown: Array, dealt: Array) -> Array:
        return field_of(rings).multiply(shown, dealt)
