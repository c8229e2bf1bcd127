"""How far apart values must be so that comparing them, not quite exact as they are, gives what is meant.

A bound on a bit of a comparison says nothing: where both values are nearly equal it may be the other bit.  What can be
said is what is lost where all differences that are compared are greater than what they are off by (the margin): there
every comparison is right, and only what it is made of has an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from mpc.program import Expression
from protocols.lowering.error import Loss, follow, ignored_by, loss_of
from protocols.operations.comparison import Comparison


class Apart(NamedTuple):
    """``most`` is the bound where whatever is compared differs by more than ``margin``, in the units of what is."""

    margin: float
    most: float


def apart(x: Expression) -> Apart | None:
    """Of what ``x`` is revealed as; None if no comparison on the way to it can be wrong.

    Raises UnsupportedError where an operation does not say what it loses.
    """
    known: dict[Expression, Loss] = {}
    margin = 0.0

    def right(each: Expression, losses: Sequence[Loss]) -> Loss:
        nonlocal margin
        operation = each.operation
        if each.like is not None or not isinstance(operation, Comparison):
            return loss_of(each, losses)
        compared, passed = each.inputs[0], each.inputs[2:]
        if passed and passed[0] is compared:
            # What is let through by its own sign is as near to 0 as the sign is uncertain.
            return loss_of(each, losses)
        margin = max(margin, losses[0].most + ignored_by(operation, compared))
        if not passed:
            return Loss(0.0, 0.0)
        unit = 2.0**-each.type.fraction_bits if operation.dropped else 0.0
        return replace(losses[2], most=losses[2].most + unit)

    most = follow(x, known.get, known.__setitem__, right).most
    return Apart(margin, most) if margin else None
