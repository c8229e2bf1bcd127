"""Whether some value has left the interval that a function was declared to hold on: one bit, beside the results.

A fit that does not cover the range of what it is applied to is wrong outside of its interval.  What it opens anyway is
compared with both ends there, moved inwards by a thousandth of the interval: so whatever is beyond counts, few bits are
compared, and what comes that close to an end may count as well.  The bits are added up, over all functions and values,
and the client alone learns whether their sum is 0 (`protocols.operations.nonzero`).
Cost: one round more at most, where something is opened one round before the end; where there is time, comparisons take
a round more and fewer bytes.  With MACs a bit takes 16 bytes, and intervals of functions are not watched.

An *assumption* (``SecretTensor.assumed``) is watched in the same way, and always: its range takes the place of what
types know, so what is computed from it may not fit the field where it does not hold.  What is compared is known to lie
in the wider range that follows from assumptions before it.  So the first that does not hold is seen, whatever later
ones show: their bits are 0 or 1 each, and undo nothing.

Security: the bit is for the client, against mistakes, and not against it.  Results are revealed beside it, so a client
that does not mind it has numbers that a function makes of values beyond its interval, or that came of more than the
field holds: functions of weights and inputs as results are, no more numbers of them, but others than were meant.  Only
ranges of inputs are checked before anything is revealed (``in_range.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mpc.objective import ANY, Objective
from mpc.program import Expression, Program
from mpc.security import Security
from protocols.lowering.comparison import ended
from protocols.lowering.planner import Planner, constant
from protocols.operations.digits import EXACTLY
from protocols.operations.fourier import Fourier
from protocols.operations.in_range import Coefficients
from protocols.operations.linear import Add, Raise, Reshape, Subtract, Sum
from protocols.operations.mask import Mask
from protocols.operations.nonzero import Nonzero
from protocols.operations.product import Multiply
from protocols.operations.truncation import Truncate

LABEL = "interval check"
"""What it is counted under."""
_PARTS = 11
"""log2 of the parts of an interval by one of which ends are moved."""


class Interval(NamedTuple):
    """Of what a fit is applied to, or an assumption is made of: that, what becomes of it, and the ends."""

    x: Expression
    made: Expression
    low: float
    high: float


def watched(intervals: Sequence[Interval], outputs: Iterable[Expression], security: Security) -> Expression | None:
    """A bit that is 0 if all is in its interval; None if it must be.  ``outputs``: beside which this is."""
    depths = _depths([*outputs, *(each for i in intervals for each in (i.x, i.made))])
    last = max(depths.values())
    total: Expression | None = None
    for x, made, least, most in intervals:
        low, high = (least if x.type.low < least else None), (most if x.type.high > most else None)
        if (low is None and high is None) or not x.type.size:
            continue
        opened = _opened(x, made)
        later = depths.get(opened, depths[x] + 1) + 2 <= last
        planner = Planner(LABEL, objective=Objective(0 if later else ANY, security))
        count = _beyond(planner, planner.masked(opened), low, high, math.ldexp(most - least, -_PARTS))
        total = count if total is None else planner.sum(Add(), total, count)
    if total is None:
        return None
    planner = Planner(LABEL)
    return Expression(Nonzero(), (planner.masked(total), Expression(Coefficients(1), (), LABEL)), LABEL)


def _beyond(planner: Planner, x: Expression, low: float | None, high: float | None, margin: float) -> Expression:
    """How many values of a masked x lie below ``low``, or above ``high``, or no more than twice the margin inside."""
    bits, size = x.type.fraction_bits, x.type.size
    ignored = max(math.floor(math.log2(margin) + bits), 0)
    step = math.ldexp(1.0, ignored - bits)
    ends = [] if low is None else [(math.floor(low / step) + 1) * step]
    ends += [] if high is None else [(math.ceil(high / step) - 1) * step]
    rows = planner.make(Reshape((size, 1)), x)
    moved = planner.sum(Subtract(), rows, constant(np.array([ends]), bits))
    reached = ended(planner, moved, ignored or EXACTLY)
    signs = np.array([[*([] if low is None else [-1.0]), *([] if high is None else [1.0])]])
    count = planner.make(Sum((0, 1), False), planner.product(Multiply(), reached, constant(signs)))
    count = planner.make(Reshape((1,)), count)
    return count if low is None else planner.sum(Add(), count, constant(np.array([float(size)])))


def _opened(x: Expression, made: Expression) -> Expression:
    """What is opened of ``x`` where a series of it is evaluated; or else x.

    Not what a series of something else opens, nor what is declared to be in the interval already.
    """
    each = made
    while each is not x and each.inputs:
        if isinstance(each.operation, Fourier) and _is_of(each.inputs[0], x):
            return each.inputs[0]
        each = each.inputs[0]
    return x


def _is_of(opened: Expression, x: Expression) -> bool:
    """Whether it is x, in other digits."""
    while opened is not x and isinstance(opened.operation, Mask | Raise | Truncate):
        (opened,) = opened.inputs
    return opened is x


def _depths(targets: Iterable[Expression]) -> Mapping[Expression, int]:
    """How many openings lie on the way to each."""
    found: dict[Expression, int] = {}
    for x in Program.order(targets):
        found[x] = max((found[y] for y in x.inputs), default=0) + x.operation.opens
    return found
