"""Whether a count is 0, as one bit for whoever is revealed it: the count times a number that nobody knows.

Of a masked count V = D + a and a coefficient s of which nobody but the dealer knows anything (`Coefficients`), V s is
D s + a s, of which the dealer deals a share of a s.  Revealed, it is 0 if V is, and else uniform: it does not tell what
V is, and says 0 of another V with a chance of 1/p.  That takes an s of its own for each: of two counts times the same
one, their quotient would be revealed (``Operation.blinds``).

Security: nothing is opened here; all is linear in dealt shares, with a public factor.
Cost: no round of its own besides the opening of V; one element dealt for each.
Source: folklore.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, Rings, field_of
from mpc.tensor_type import Form, TensorType
from protocols.operations.in_range import Coefficients


class Scaled(Correlation, frozen=True):
    """The product of two masks."""

    size: int

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.size,)),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return (field_of(rings).multiply(*masks),)


@register
class Nonzero(Operation, frozen=True, tag="nonzero"):
    """Of masked whole numbers, and as many `Coefficients`: 0 where they are 0, else uniform, which is read as 1."""

    flags: ClassVar[bool] = True

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 2 and all(t.form is Form.MASKED for t in types), "takes two masked tensors")
        count, s = types
        require(count.ring == FIELD and count.fraction_bits == 0 and len(count.shape) == 1, "counts are whole numbers")
        require(s == TensorType(count.shape, 0, -(2.0**59), 2.0**59, Form.MASKED), "takes a coefficient for each")
        return TensorType(count.shape, 0, 0.0, 1.0, Form.SHARED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Times a number that somebody knows, the count would be revealed."""
        require(isinstance(operands[1].operation, Coefficients), "coefficients are nobody's")

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Scaled(types[0].size),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        opened, s = (field.zeros(types[0].shape) if p is None else p for p in (inputs[0].public, inputs[1].share))
        return Value(None, field.multiply_add(opened, s, prepared[0]))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field, shape = field_of(rings), types[0].shape
        return field.choose(field.below(inputs[0], 1), field.zeros(shape), field.full(shape, 1))
