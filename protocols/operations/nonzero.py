"""Whether a count is 0, as one bit: the count times a number that nobody knows.

Of a masked count V = D + a and a coefficient s of which nobody but the dealer knows anything (`Coefficients`), V s is
D s + a s, of which the dealer deals a share of a s.  Revealed, it is 0 if V is, and else uniform: it does not tell what
V is, and says 0 of another V with a chance of 1/p.  That takes an s of its own for each: of two counts times the same
one, their quotient would be revealed (``Operation.blinds``).

`Nonzero` is for a client that it is revealed to, beside its results.  `Zero` is for the parties, who open it, and end
the run if it is not 0: where something is kept, which comes into use or does not, and so tells them anyway.

Security: all is linear in dealt shares, with a public factor.  `Zero` is opened without a mask, and nothing is learned
but the bit: shares of it are uniform subject to their sum, as a part of each was dealt for it alone.  With MACs it is
checked like all that is opened, before the run has an end.
Cost: one element dealt for each, besides the opening of V; of `Zero` a round more, in which one is opened for each.
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


def check_counts(count: TensorType, s: TensorType, size: int) -> None:
    """Raise ProgramError for what is not a masked row of whole numbers, and so many coefficients."""
    require(count.form is Form.MASKED and count.ring == FIELD, "counts are masked")
    require(count.fraction_bits == 0 and len(count.shape) == 1, "counts are whole numbers")
    require(s == TensorType((size,), 0, -(2.0**59), 2.0**59, Form.MASKED), "takes a coefficient for each")


class Scaling(Operation, frozen=True):
    """Of masked whole numbers, and as many `Coefficients`: 0 where they are 0, else uniform, which is read as 1."""

    takes_inner: ClassVar[range] = range(1)
    form: ClassVar[Form]

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 2, "takes counts and coefficients")
        counts, s = types
        check_counts(counts, s, counts.size)
        return TensorType(counts.shape, 0, 0.0, 1.0, self.form)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Times a number that somebody knows, the count would be revealed."""
        require(isinstance(operands[1].operation, Coefficients), "coefficients are nobody's")

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Scaled(types[0].size),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        opened, s = (field.or_zeros(p, types[0].shape) for p in (inputs[0].public, inputs[1].share))
        return Value(None, field.multiply_add(opened, s, prepared[0]))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field, shape = field_of(rings), types[0].shape
        return field.choose(field.below(inputs[0], 1), field.zeros(shape), field.full(shape, 1))


@register
class Nonzero(Scaling, frozen=True, tag="nonzero"):
    """To be revealed."""

    flags: ClassVar[bool] = True
    form: ClassVar[Form] = Form.SHARED


@register
class Zero(Scaling, frozen=True, tag="zero"):
    """Opened: if one is not 0 the run has no result."""

    opens: ClassVar[bool] = True
    bare: ClassVar[bool] = True
    settles: ClassVar[bool] = True
    form: ClassVar[Form] = Form.MASKED
