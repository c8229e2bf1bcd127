"""Random numbers that nobody knows.

Every party draws an element of the field, and all open the sum E of what they drew, as they would open shares of a
masked tensor; the dealer has picked a mask a as for any.  A *draw* is the number u of k bits that are those of E turned
round by those of a, u = (E xor a) mod 2^k (`Draw`).  The dealer deals shares of a's bits r_j, and then, E being public,

    u  =  sum over j of 2^j (E_j + (1 - 2 E_j) r_j)

is local (`Bits`).

Security: u is uniform, up to 2^-61 in statistical distance (a is uniform below p = 2^61 - 1, so that its k lowest bits
are so up to that), whatever up to n - 1 parties know or do: they know nothing of a.  So a party gains nothing by
drawing last, after it has seen what others drew, or by a draw that is not random: E is whatever it wants, and u as
uniform as before, and as unknown to it.  No commitment, and no round for one, is needed.  The dealer knows a, and
nothing of E, to which an honest party's draw is a one-time pad; it must not collude with any party, here as elsewhere.
The client learns neither.  With MACs a share of E's MAC is alpha_i E, so what is dealt authenticates u, and the hash of
everything opened shows a party that told others different draws; without, parties keep to the protocol.
Cost: the round of an opening, the first, beside others; 8 bytes opened and k elements dealt, with MACs twice as many.
Source: a dealer's coins and the parties', added up, are folklore; distributions from coins that nobody knows, digit by
digit: Dwork, Kenthapadi, McSherry, Mironov and Naor, EUROCRYPT 2006.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, Rings, field_of
from mpc.tensor_type import Form, Shape, TensorType, exactly

MOST_DRAWN = 58
"""Bits of a draw: a number of so many can be compared."""


@register
class Draw(Operation, frozen=True, tag="draw"):
    """Opens the sum of what the parties draw.  Its value is the number of ``bits`` bits that E and the mask say, to
    `Bits` alone: to all else it would be E + a, of any size, which with E tells a."""

    opens: ClassVar[bool] = True
    hides: ClassVar[bool] = True
    inner: ClassVar[bool] = True

    shape: Shape
    bits: int

    def __post_init__(self) -> None:
        exactly(self)

    def result(self, *types: TensorType) -> TensorType:
        require(not types, "a draw has no operands")
        require(0 < self.bits <= MOST_DRAWN, f"draws 1 to {MOST_DRAWN} bits")
        return TensorType(self.shape, 0, 0.0, 2.0**self.bits - 1.0, Form.MASKED)


class MaskBits(Correlation, frozen=True):
    """The lowest bits of each mask: a row a bit."""

    size: int
    count: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.count, self.size)),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return (field_of(rings).bits(masks[0], self.count),)


@register
class Bits(Operation, frozen=True, tag="bits"):
    """A draw of as many ``bits``, as a number."""

    takes_inner: ClassVar[range] = range(1)

    bits: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1, "takes a draw")
        (drawn,) = types
        require(0 < self.bits <= MOST_DRAWN, f"draws 1 to {MOST_DRAWN} bits")
        expected = TensorType(drawn.shape, 0, 0.0, 2.0**self.bits - 1.0, Form.MASKED)
        require(drawn == expected and drawn.ring == FIELD, "takes a draw of as many bits")
        return drawn.replace(form=Form.SHARED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Of a number of somebody's, E xor a would tell it, beside E, and bits of its mask."""
        require(isinstance(operands[0].operation, Draw), "takes a draw")

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (MaskBits(types[0].size, self.bits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, shape = field_of(party.rings), types[0].shape
        opened = field.or_zeros(inputs[0].public, shape)
        return Value(field.low_bits(opened, self.bits), field.turned_bits(opened, self.bits, prepared[0]))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """A draw's value is the number already: it is given to this reading, as coins of its own."""
        return inputs[0]
