"""That values which a client sends lie in their range, with MACs: it sends their bits as well, and these are right.

Let L and W be the low end and the width of the range of an input x = E + a, in raw units, w_0 ... w_(l-1) the powers
of two below the highest bit of W, and what is missing to W of their sum.  Sums of some of these are all integers from 0
to W, and nothing else.  So x is in its range if and only if there are bits d with x - L = sum of w_k d_k.  Who knows x
knows such bits, and sends e_k = d_k xor m_k to every party, for bits m_k that the dealer made for it, as the mask a
(`Decomposed`): whatever is sent, e_k + (1 - 2 e_k) m_k *is* a bit.  Nobody has to show that.  What is left to be seen
is that the bits are those of x, which is linear in a and m, with public coefficients.  With uniform coefficients s that
nobody but the dealer knows (``in_range.py``), `Recomposed` opens

    V = sum over all values of s (E - L - sum of w_k e_k)  +  s a  -  sum of w_k (1 - 2 e_k) s m_k

from shares of s, of all s m_k, and of the sum of s a, which are dealt.  V is the sum of s t, where t is by how much a
value's bits miss it: 0 if all of them are right, and else uniform.  If it is not 0 the run ends, and nothing has left
the parties that depends on its inputs without a mask.

Security.  *Of an honest client* nothing is learned: e are its bits under uniform ones of their own, and V is 0; the
shares of V are uniform subject to their sum, as a part of each was dealt for it alone.  *A client that cheats* chooses
E and e, and so t, before anything of the run is known: with a t that is not 0, V is 0 with a chance of 1/p.  All
parties must have been sent the same, which they compare, and the masks that were dealt, whose digest the dealer tells.
*With parties that cheat* beside it, up to n - 1, it knows t and all shares of s but an honest party's, which is uniform
to it: what V is remains unknown, so no error that is added to a share makes 0 of it, and V is checked like all
that is opened: any error fails the MAC check.  *An honest client cannot be blamed*: its V is 0, and another number for
V has a wrong MAC; whoever is blamed is so after the MAC check.  e and m have no MACs, and need none: e is public, and
parties take it from the client's message, which is signed; m enters by what the dealer makes of it, which has MACs.
Cost: l bits from the client to each party for each value, for a W of l bits, and one element opened in the first round:
no round of its own.  Dealt are 16 l + 8 bytes for a value with its MACs, and 16 for all: 280 for one in [0, 1] with 16
fraction bits.
Sources: bits that are known to be bits by the masks that were dealt for them: as of ``draw.py``; weights that sum up to
any W: Lipmaa, Asokan and Niemi, FC 2002; one random combination for many values that should vanish: folklore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Input, Operand, Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, Rings, bits_of, field_of
from mpc.rings.bit_planes import packed
from mpc.tensor_type import Form, TensorType
from protocols.operations.digits import packed_type
from protocols.operations.in_range import Coefficients, Ranged


def weights(width: int) -> tuple[int, ...]:
    """w, lowest first: a bit at least."""
    count = max(width.bit_length(), 1)
    powers = tuple(1 << k for k in range(count - 1))
    return (*powers, width - sum(powers))


def _bits_type(x: TensorType) -> TensorType:
    """A plane of packed bits for each weight."""
    return packed_type(len(weights(Ranged.of(x).width)), packed(x.size)).replace(form=Form.MASKED)


@register
class Decomposed(Operation, frozen=True, tag="decomposed"):
    """The bits d of each value of an input, as the client that knows it sends them: masked, and all of them bits."""

    hides: ClassVar[bool] = True
    supplied: ClassVar[bool] = True
    authenticated: ClassVar[bool] = False
    inner: ClassVar[bool] = True

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].ring == FIELD and types[0].form is Form.MASKED, "takes a masked tensor")
        return _bits_type(types[0])

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Of anything else a client knows no bits."""
        require(isinstance(operands[0].operation, Input), "what a client sends the bits of is its input")

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """Of a value out of its range: bits that are not its own."""
        field, (low, width) = field_of(rings), Ranged.of(types[0])
        *powers, last = weights(width)
        y = field.reshape(field.subtract(inputs[0], field.full((), low)), (types[0].size,))
        ones = field.full(y.shape, 1)
        high = field.subtract(ones, field.select(field.below(y, 1 << len(powers)), ones))
        rest = field.subtract(y, field.scale(high, last))
        return field.packed_bits(field.add(rest, field.scale(high, 1 << len(powers))), len(powers) + 1)


class WeighedBits(Correlation, frozen=True):
    """Coefficients times each of the bits that mask bits, and the sum of them times the masks of values."""

    size: int
    count: int

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1, 2)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.count, self.size)), Part(()))

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, bits, s = field_of(rings), bits_of(rings), field_of(rings).reshape(masks[1], (1, self.size))
        planes = [bits.index(masks[2], (slice(k, k + 1), slice(None))) for k in range(self.count)]
        of_values = field.multiply(field.reshape(masks[0], (self.size,)), masks[1])
        return field.concatenate([field.kept(plane, s) for plane in planes], 0), field.total(of_values)


@register
class Recomposed(Operation, frozen=True, tag="recomposed"):
    """Opens V of an input, of coefficients, and of the `Decomposed` input."""

    opens: ClassVar[bool] = True
    bare: ClassVar[bool] = True
    settles: ClassVar[bool] = True
    checks: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(2, 3)

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 3 and all(t.form is Form.MASKED for t in types), "takes three masked tensors")
        x, s, bits = types
        require(x.ring == FIELD and s.shape == (x.size,), "takes a coefficient for each value")
        require(bits == _bits_type(x), "takes the bits of each value")
        return TensorType((), 0, 0.0, 1.0, Form.MASKED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """That bits are said to be those of ``x``."""
        x, s, bits = operands
        require(isinstance(s.operation, Coefficients), "coefficients are nobody's")
        require(isinstance(bits.operation, Decomposed), "takes bits that a client sends")
        require(bits.inputs[0].number == x.number, "bits are of what is checked")

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (WeighedBits(types[0].size, types[2].shape[0]),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, (low, width), size = field_of(party.rings), Ranged.of(types[0]), types[0].size
        of_bits, of_values = prepared
        public = field.or_zeros(inputs[0].public, (size,))
        sent = bits_of(party.rings).or_zeros(inputs[2].public, types[2].shape)
        s = field.or_zeros(inputs[1].share, (size,))
        whole = field.weighed_bits(sent, size, weights(width))
        missing = field.subtract(field.subtract(public, field.full((), low)), whole)
        known = field.total(field.multiply(missing, s))
        hidden = field.turned_total(sent, of_bits, weights(width))
        return Value(None, field.add(of_values, field.subtract(known, hidden)))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """0 or 1."""
        field = field_of(rings)
        return field.full((), 0 if Ranged.of(types[0]).holds(field, inputs[0]) else 1)
