"""Whether some value has left the interval that a function was declared to hold on: one bit, beside the results.

A fit that does not cover the range of what it is applied to is wrong outside of its interval.  What it opens anyway is
compared with both ends there, moved inwards by a thousandth of the interval: so whatever is beyond counts, few bits are
compared, and what comes that close to an end may count as well.  The bits are added up, over all functions and values,
and the client alone learns whether their sum is 0 (`protocols.operations.nonzero`).
Cost: one round more at most, where something is opened one round before the end; where there is time, comparisons take
a round more and fewer bytes.  With MACs a bit takes 16 bytes, and intervals are not watched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mpc.objective import LATENCY, TRAFFIC
from mpc.program import Expression, Program
from protocols.approximation import Fit
from protocols.lowering.comparison import ended
from protocols.lowering.planner import Planner, constant
from protocols.operations.digits import EXACTLY
from protocols.operations.fourier import Fourier
from protocols.operations.in_range import Coefficients
from protocols.operations.linear import Add, Reshape, Subtract, Sum
from protocols.operations.nonzero import Nonzero
from protocols.operations.product import Multiply

LABEL = "interval check"
"""What it is counted under."""
_PARTS = 11
"""log2 of the parts of an interval by one of which ends are moved."""


def watched(applied: Sequence[tuple[Expression, Expression, Fit]], outputs: Iterable[Expression]) -> Expression | None:
    """A bit that is 0 if all is in its interval; None if it must be.

    ``applied``: what each fit is applied to, and what that becomes; ``outputs``: beside which this is.
    """
    depths = _depths([*outputs, *(each for x, made, _ in applied for each in (x, made))])
    last = max(depths.values())
    total: Expression | None = None
    for x, made, fit in applied:
        low, high = (fit.low if x.type.low < fit.low else None), (fit.high if x.type.high > fit.high else None)
        if (low is None and high is None) or not x.type.size:
            continue
        opened = _opened(x, made)
        later = depths.get(opened, depths[x] + 1) + 2 <= last
        planner = Planner(LABEL, objective=TRAFFIC if later else LATENCY)
        count = _beyond(planner, planner.masked(opened), low, high, math.ldexp(fit.high - fit.low, -_PARTS))
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
    """What is opened of ``x`` where a series is evaluated; or else x."""
    each = made
    while each is not x and each.inputs:
        if isinstance(each.operation, Fourier):
            return each.inputs[0]
        each = each.inputs[0]
    return x


def _depths(targets: Iterable[Expression]) -> Mapping[Expression, int]:
    """How many openings lie on the way to each."""
    found: dict[Expression, int] = {}
    for x in Program.order(targets):
        found[x] = max((found[y] for y in x.inputs), default=0) + x.operation.opens
    return found
