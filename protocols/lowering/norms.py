"""Sums of squares with all digits that they have room for, and what is known of results that are divided by them."""

from __future__ import annotations

import math

from mpc.errors import RangeError
from mpc.program import Expression
from protocols.lowering.planner import Planner
from protocols.operations.linear import Declare, Sum
from protocols.operations.polynomial import Polynomial, TruncatedPolynomial
from protocols.trace.mathematics import Like

FEWEST_BITS = 8
"""Of a value that is squared: fewer would be noise."""

SQUARE = (0, 0, 1)


def sum_of_squares(planner: Planner, x: Expression, axes: tuple[int, ...]) -> Expression:
    """No round but the opening of x, whose last bits are dropped as it is squared."""
    count = math.prod(x.type.shape[axis] for axis in axes)
    bits = x.type.fraction_bits
    if x.type.magnitude:
        # A value that is cut may be larger by a unit.
        bits = min(bits, (planner.room(count * x.type.magnitude**2) - 1) // 2)
    if bits < min(FEWEST_BITS, x.type.fraction_bits):
        raise RangeError(
            f"the squares of {count} values up to {x.type.magnitude:g} leave {max(bits, 0)} fraction bits of each:"
            " declare a tighter range with within(low, high)"
        )
    dropped = x.type.fraction_bits - bits
    operation = TruncatedPolynomial(SQUARE, 0, dropped) if dropped else Polynomial(SQUARE, 0)
    squares = planner.make(operation, planner.masked(x))
    total = planner.make(Sum(axes, True), squares)
    return planner.make(Declare(0.0, max(total.type.high, 0.0)), total)


def like(planner: Planner, by: Like, x: Expression, *others: Expression) -> Expression:
    """``x``, of which is known how far it is off."""
    off: dict[Expression, float | tuple[float, float]] = {x: 1.0, **dict(zip(others, by.factors, strict=True))}
    return Expression(Declare(x.type.low, x.type.high), (x,), planner.label).lose(by.lost, by.surely, like=off)
