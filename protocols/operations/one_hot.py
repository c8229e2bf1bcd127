"""Which of a few numbers a masked one is, as a one-hot vector of shares: a function of it by table, without a round.

Let x = E + a with 0 <= x < count, and r = -a, so that x = E - r mod p.  The dealer deals the one-hot vector of r modulo
some M, in the field.  Whatever E is, each v that x may be belongs to one residue of r, and no two to the same
(``mpc/rings/places.py``): so the parties find shares of [x = v], for all v, at public places of what they hold.

A function is then T[x] = sum over v of T[v] [x = v]: local, exact, of any public table T, or of several, in the one
round in which x is opened, and in none where x is an input; of a secret table a product with the one-hot vector, which
is opened for that, a round more.

Security: nothing is opened here; dealt shares are fresh and uniform, and one-hot vectors of masks say nothing of x.
What is found is shares at places that E says, so of MACs it is MACs: nothing changes with them.
Cost: no round.  Dealt are M elements for each of x, M < 2 count + 2: 2,344 bytes for count = 256, 128 for 10; with MACs
twice that.  Of a secret table of rows of D: a round, ``count`` elements opened for each place that is looked up, and
one element dealt for each of the result.
Source: one-time truth tables: Ishai, Kushilevitz, Meldgaard, Orlandi and Paskin-Cherniavsky, TCC 2013; of an additive
mask: Damgard, Nielsen, Nielsen and Ranellucci, TinyTable, CRYPTO 2017.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.places import modulus
from mpc.tensor_type import Form, TensorType

MOST_PLACES = 1024


class Residues(Correlation, frozen=True):
    """One-hot vectors of what masks hide, modulo what tells so many places apart: a row each."""

    size: int
    count: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.size, modulus(self.count))),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        return (field.one_hot(field.negate(masks[0]), self.count),)


@register
class OneHot(Operation, frozen=True, tag="one_hot"):
    """A last axis more, of ``count``: 1 at the place that a whole number says, else 0."""

    count: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1, "takes one tensor")
        (x,) = types
        require(x.ring == FIELD and x.form is Form.MASKED and x.fraction_bits == 0, "takes masked whole numbers")
        require(0 < self.count <= MOST_PLACES, f"has 1 to {MOST_PLACES} places")
        require(x.low >= 0 and math.floor(x.high) < self.count, "takes numbers from 0 that have a place")
        return TensorType((*x.shape, self.count), 0, 0.0, 1.0, Form.SHARED)

    def takes_share(self, operand: int) -> bool:
        return False

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Residues(types[0].size, self.count),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        opened = field.or_zeros(inputs[0].public, types[0].shape)
        return Value(None, self._found(field, types[0], opened, prepared[0]))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        field = field_of(rings)
        (dealt,) = self.correlations(*types)[0].make(rings, [field.zeros(types[0].shape)])
        return self._found(field, types[0], inputs[0], dealt)

    def _found(self, field: PrimeField, x: TensorType, opened: Array, dealt: Array) -> Array:
        return field.reshape(field.differences(opened, self.count, dealt), (*x.shape, self.count))
