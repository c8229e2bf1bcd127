"""The larger of two values, by one gate, and what is chosen by comparisons."""

from __future__ import annotations

import math
from functools import partial, reduce

from mpc.program import Expression
from protocols.lowering.comparison import gated, passed, relu
from protocols.lowering.error import Loss, since
from protocols.lowering.planner import Planner
from protocols.operations.linear import Add, Declare, Divide, Subtract
from protocols.operations.product import Multiply
from protocols.trace.mathematics import Normalise


def maximum(planner: Planner, x: Expression, y: Expression) -> Expression:
    """y + relu(x - y): two rounds, one where the difference needs no opening."""
    x, y = planner.aligned((x, y))
    gained = relu(planner, _difference(planner, x, y))
    # It is one of the two, and where it is not the larger, it is by less than what relu may be off.
    low = max(x.type.low, y.type.low) + min(gained.type.low, 0.0)
    return planner.make(Declare(low, max(x.type.high, y.type.high)), planner.make(Add(), y, gained))


def _difference(planner: Planner, x: Expression, y: Expression) -> Expression:
    """x - y, once: who asks for the gradient of the larger compares with the same bits."""
    return x.once((Subtract(), y), lambda: planner.make(Subtract(), x, y))


def let_through(planner: Planner, g: Expression, x: Expression, *than: Expression) -> Expression:
    """g where ``relu`` lets x through, or x less another, by the bit that it does it by; else 0."""
    if than:
        x = _difference(planner, *planner.aligned((x, *than)))
    return passed(planner, x, g)


def ranked(planner: Planner, x: Expression, of: Expression) -> Expression:
    """``x``, known to be order statistics of values of ``of``."""
    # The k-th of values that are each off by so much is off by no more, whichever it is.
    return Expression(Declare(of.type.low, of.type.high), (x,), planner.label).lose(like={of: 1.0})


def normalised(planner: Planner, by: Normalise, x: Expression, *reached: Expression) -> Expression:
    """``x`` divided by ``by.low``, and by the power of ``by.step`` that as many thresholds say as it has reached: no
    round, and no digit less than the field has room for.

    What each threshold lets through is opened already, and the difference of two is x or 0, in a range as short as that
    of what is divided; so is what each loses, once all are divided and summed.
    """
    # Whatever each bit is, what it lets through is what it is to be.
    least = [(gated(planner, bit, x) or planner.product(Multiply(), bit, x)).lose(like={}) for bit in reached]
    exact = {x: Loss(0.0, 0.0)}
    unit = 2.0**-x.type.fraction_bits
    top = by.low * by.step * (1 + by.tolerance)
    lowest, steps = round(math.log2(by.low)), round(math.log2(by.step))
    parts = []
    for k, (part, above) in enumerate(zip((x, *least), (*least, None), strict=True)):
        # A threshold is between values: what is below it may be above by less than a unit.
        most = min(x.type.high, top * by.step**k + unit)
        only = planner.sum(Subtract(), part, above) if above is not None else part
        parts.append(_halved(planner, planner.make(Declare(0.0, most), only), lowest + steps * k))
    total = reduce(partial(planner.sum, Add()), parts)
    # The last bit of the threshold, and that of each part that the field had no room for.
    own = since(total, exact)
    # Values that are spread over their range are in the last part.
    like = {x: (1.0 / by.low, 1.0 / by.low / by.step ** len(reached))}
    low, high = min(x.type.low / by.low, 1 - by.tolerance), (top + unit) / by.low
    result = Expression(Declare(low, high), (total,), planner.label)
    return result.lose(own.most, own.usual, like=like)


def _halved(planner: Planner, x: Expression, times: int) -> Expression:
    """``x`` divided by 2^``times``, or multiplied where that is below 0: what it is counted in."""
    if times >= 0:
        return planner.divided(x, 1 << times)
    x = planner.raised(x, max(0, -times - x.type.fraction_bits))
    return planner.make(Divide(times), x)
