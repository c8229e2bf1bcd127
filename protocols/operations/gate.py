"""Results that are given where a count is 0, and are else uniform: each plus the count times a number nobody knows.

Of a masked count c = E + a, and a coefficient R for each element of y of which nobody but the dealer knows anything
(`Coefficients`), the gated y is

    y + c R  =  y + E R + a R,

of which the dealer deals shares of a R.  If c is 0 that is y, exactly.  Else, and c is no multiple of p, c R is uniform
whatever c is, and so is the sum, whatever y is; elements are independent of each other, and of all else, since each has
an R of its own that serves nothing else (``Operation.blinds``).

A count is for all of y, or each of several for as many rows of it, which are its first axis.

Security: nothing is opened here; all is linear in dealt shares, with a public factor, and so it is on MAC shares.
Parties learn nothing: E is the opening of c, under a mask of its own.  Who is revealed the result learns y where c is
0, and else a uniform number: nothing but, if it has other knowledge of y, that c is not 0.
Cost: no round, and no opening besides that of c; a dealt element for each element of y.
Source: folklore; for whether c is 0, see ``nonzero.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, Rings, field_of
from mpc.tensor_type import Form, Shape, TensorType
from protocols.operations.in_range import Coefficients
from protocols.operations.nonzero import check_counts


class Spread(Correlation, frozen=True):
    """The masks of counts times those of coefficients, as many in a row for each count."""

    counts: int
    size: int

    @property
    def operands(self) -> tuple[int, ...]:
        return (1, 2)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(_rows(self.counts, self.size)),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, (count, s) = field_of(rings), masks
        rows = field.reshape(s, _rows(self.counts, self.size))
        return (field.multiply(rows, field.reshape(count, (self.counts, 1))),)


def _rows(counts: int, size: int) -> Shape:
    return (counts, size // max(counts, 1))


@register
class Gate(Operation, frozen=True, tag="gate"):
    """Of y, of masked whole numbers, and of a `Coefficients` for each element: y where they are 0, else uniform."""

    gates: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(1, 2)

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 3, "takes a result, counts and coefficients")
        y, count, s = types
        require(y.ring == FIELD and y.form is not Form.PUBLIC, "takes secrets of the field")
        check_counts(count, s, y.size)
        require(count.size == 1 or y.shape[:1] == count.shape, "takes a count for all, or for each row")
        return y.replace(form=Form.SHARED, gain=None)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Less a number that somebody knows, times a count that is small, the result would be revealed."""
        require(isinstance(operands[2].operation, Coefficients), "coefficients are nobody's")

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Spread(types[1].size, types[0].size),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, (y, counts, _) = field_of(party.rings), types
        rows = _rows(counts.size, y.size)
        own = field.or_zeros(inputs[0].share, y.shape)
        opened = field.or_zeros(inputs[1].public, (counts.size, 1))
        s = field.or_zeros(inputs[2].share, rows)
        added = field.multiply_add(s, opened, prepared[0])
        return Value(inputs[0].public, field.add(own, field.reshape(added, y.shape)))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With coefficients of 0, as theirs are: what is given if it is given."""
        return inputs[0]
