"""Rows in an order that nobody knows, in no round.

Uniform numbers that nobody but the dealer knows, one for each of N rows (`Order`), say an order: that in which they
rise.  It is a permutation pi, of which the dealer deals its matrix P, one-hot rows (`Places`).  Of a masked tensor
x = E + a, whose rows are to lie so, it deals the mask in that order, pi(a); and then, E being public,

    [pi(x)]  =  [P] E + [pi(a)]

is local (`Shuffled`).  Tensors that share an order are shuffled alike, by one P: rows and their labels.

Security: nothing is opened here.  E was opened once, as a masked tensor's, before anything depended on pi, and is
uniform whatever x is.  Shares of P and of pi(a) are fresh and uniform, so any n - 1 parties hold numbers that are
independent of pi and of x; what is made of them is shares, and whatever is opened of those later has a mask of its own
(``mask.py``), which does not depend on pi either.  So nobody learns anything of the order, whoever draws, sees E, or
knows x: all orders are equally likely, but for two numbers that are the same, N^2 / 2^62 in total variation.  The
dealer knows pi and sees no data; it must not collude with any party, here as elsewhere.

Malicious security: P and pi(a) are dealt with MACs, and the formula is linear in shares with a public factor, so on
MAC shares it gives shares of the result's MAC.  No party chooses a part of the order, so there is none that it could
choose otherwise than it should: whoever changes its share of the result, be it to that of another order, changes what
is opened of it by an error that the check finds, as of any.

Cost: no round, and nothing opened.  Dealt are N^2 elements, once for all tensors that share the order, and one for each
element of x; with MACs twice that.  N numbers times N^2 of them are multiplied at each party for each column of x.
Source: permutations as matrices that are dealt, as one-time truth tables are: Ishai, Kushilevitz, Meldgaard, Orlandi
and Paskin-Cherniavsky, TCC 2013.  With the order cut among the parties it is n rounds and no matrix, and what each did
is to be proved: Chase, Ghosh and Poburinnaya, Secret-Shared Shuffle, ASIACRYPT 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, Rings, field_of
from mpc.tensor_type import Form, Shape, TensorType

MOST_ROWS = 1 << 13
"""Of which P has 512 MiB."""


@register
class Order(Operation, frozen=True, tag="order"):
    """A uniform number for each row, that nobody but the dealer knows: what they rise by is an order of the rows."""

    hides: ClassVar[bool] = True
    authenticated: ClassVar[bool] = False
    inner: ClassVar[bool] = True

    rows: int

    def result(self, *types: TensorType) -> TensorType:
        require(not types, "an order has no operands")
        require(0 < self.rows <= MOST_ROWS, f"orders 1 to {MOST_ROWS} rows")
        return TensorType((self.rows,), 0, -(2.0**59), 2.0**59, Form.MASKED)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0: rows stay where they are."""
        return field_of(rings).zeros((self.rows,))


def positions(rings: Rings, order: Array, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Of the rows that come to lie at these places."""
    return np.argsort(field_of(rings).to_signed(order), kind="stable")[start:stop].astype(np.int64)


class PlacesOfMask(Correlation, frozen=True):
    """Rows ``start`` to ``stop`` of the matrix of the order that a mask says."""

    rows: int
    start: int
    stop: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.stop - self.start, self.rows)),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        found = positions(rings, masks[0], self.start, self.stop)
        return (field_of(rings).from_signed((found[:, None] == np.arange(self.rows)).astype(np.int64)),)


class Reordered(Correlation, frozen=True):
    """Rows ``start`` to ``stop`` of a mask, in the order that another one says."""

    shape: Shape
    start: int
    stop: int

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.stop - self.start, *self.shape[1:])),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        x, order = masks
        return (field_of(rings).take(x, positions(rings, order, self.start, self.stop), 0),)


@register
class Places(Operation, frozen=True, tag="places"):
    """Of an `Order`, where the rows come from that lie at places ``start`` to ``stop``: one-hot rows."""

    inner: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(1)

    start: int
    stop: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1, "takes an order")
        (order,) = types
        require(order.form is Form.MASKED and order.ring == FIELD and len(order.shape) == 1, "takes an order")
        require(0 <= self.start < self.stop <= order.size, "has places that there are")
        return TensorType((self.stop - self.start, order.size), 0, 0.0, 1.0, Form.SHARED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Of numbers of somebody's, the order of their masks would tell of them."""
        require(isinstance(operands[0].operation, Order), "takes an order that nobody knows")

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (PlacesOfMask(types[0].size, self.start, self.stop),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        return Value(None, prepared[0])

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        (made,) = self.correlations(*types)[0].make(rings, inputs)
        return made


@register
class Shuffled(Operation, frozen=True, tag="shuffled"):
    """Rows of a masked tensor, an `Order` of them, and its `Places`: the rows that come to lie there."""

    takes_inner: ClassVar[range] = range(1, 3)

    start: int
    stop: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 3, "takes rows, an order of them, and places")
        x, order, places = types
        require(x.ring == FIELD and x.form is Form.MASKED and len(x.shape) > 0, "takes masked rows")
        require(order.shape == x.shape[:1], "takes an order of as many rows")
        require(places.form is Form.SHARED and places.ring == FIELD, "takes places of rows")
        require(0 <= self.start < self.stop <= order.size, "has places that there are")
        require(places.shape == (self.stop - self.start, order.size), "takes places of as many rows")
        return TensorType((places.shape[0], *x.shape[1:]), x.fraction_bits, x.low, x.high, Form.SHARED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """Of another order, E and a would not be of the same row, and tell each other."""
        _, order, places = operands
        require(places.operation == Places(self.start, self.stop), "takes the places of an order")
        require(places.inputs[0].number == order.number, "takes an order, and its own places")

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Reordered(types[0].shape, self.start, self.stop),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        x, _, places = types
        field, (count, rows) = field_of(party.rings), places.shape
        opened = field.reshape(field.or_zeros(inputs[0].public, x.shape), (rows, math.prod(x.shape[1:])))
        moved = field.matmul(field.or_zeros(inputs[2].share, places.shape), opened)
        return Value(None, field.add(field.reshape(moved, (count, *x.shape[1:])), prepared[0]))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        x, _, places = types
        field, (count, rows) = field_of(rings), places.shape
        flat = field.reshape(inputs[0], (rows, math.prod(x.shape[1:])))
        return field.reshape(field.matmul(inputs[2], flat), (count, *x.shape[1:]))
