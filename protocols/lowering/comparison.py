"""From comparisons to nodes of a program: which bits are compared, and in how many digits."""

from __future__ import annotations

import functools
import math

from mpc.errors import RangeError
from mpc.program import Expression
from mpc.tensor_type import TRUNCATION_BITS, Form, TensorType
from protocols.lowering.planner import Planner, constant
from protocols.operations.comparison import (
    EXACTLY,
    MOST_BITS,
    MOST_DIGIT,
    MOST_DIGITS,
    Compare,
    Digits,
    Gate,
    Window,
    monomials,
    thresholds,
)
from protocols.operations.linear import Add, Broadcast, Declare, Negate, broadcast
from protocols.operations.product import Multiply


def compared(planner: Planner, x: Expression, *, negated: bool, below: bool) -> Expression:
    """1 where x >= 0 (of -x if ``negated``), else 0, or the other way round if ``below``; two rounds, one if masked."""
    low, high = (-x.type.high, -x.type.low) if negated else (x.type.low, x.type.high)
    if low >= 0 or high < 0:
        # Known from the range; a constant is no secret, and so no result.
        zero = planner.product(Multiply(), x, constant(0.0))
        return planner.sum(Add(), zero, constant(float((low >= 0) != below)))
    x = planner.masked(x)
    x = planner.make(Negate(), x) if negated else x
    window = _window(x.type, EXACTLY)
    return planner.make(Compare(*window, below), x, _digits(planner, x, window))


def gated(planner: Planner, x: Expression, y: Expression) -> Expression | None:
    """The product, if one factor is a comparison's bit and the other can be let through by it, else None."""
    if not isinstance(x.operation, Compare):
        x, y = y, x
    bit = x.operation
    if not isinstance(bit, Compare) or isinstance(y.operation, Compare) or y.type.form is Form.PUBLIC:
        return None
    if broadcast(x.type.shape, y.type.shape) != x.type.shape:
        return None
    y = planner.masked(y)
    y = y if y.type.shape == x.type.shape else planner.make(Broadcast(x.type.shape), y)
    return planner.make(Gate(bit.ignored, bit.widths, bit.below), *x.inputs, y)


def relu(planner: Planner, x: Expression) -> Expression:
    """x where x >= 0, else 0: exact, or off by one unit of what the computation keeps of x."""
    if x.type.low >= 0:
        return x
    if x.type.high <= 0:
        return planner.product(Multiply(), x, constant(0.0))
    spare = x.type.fraction_bits - planner.kept(x.type.magnitude)
    x = planner.masked(x)
    window = _window(x.type, spare if spare > 0 else EXACTLY)
    result = planner.make(Gate(*window, False), x, _digits(planner, x, window), x)
    unit = math.ldexp(1.0, spare - x.type.fraction_bits) if spare > 0 else 0.0
    return planner.make(Declare(-min(unit, -x.type.low), x.type.high), result)


def _digits(planner: Planner, x: Expression, window: Window) -> Expression:
    """Opened; once for all that compares the same bits of x."""
    return planner.masked(planner.make(Digits(*window), x))


def _window(x: TensorType, ignored: int) -> Window:
    """The bits of x to compare, so many that its sign is told; their digits are those for which least is dealt.

    Raises RangeError for what is too large.
    """
    for bits in range(1, MOST_BITS + 1 - max(ignored, 0)):
        window = Window(ignored, _widths(bits))
        if window.takes(x):
            return window
    raise RangeError(
        f"values up to {x.magnitude:g} with {x.fraction_bits} fraction bits are too large to compare"
        f" ({TRUNCATION_BITS} bits): declare a tighter range"
    )


@functools.cache
def _widths(bits: int) -> tuple[int, ...]:
    """The digits of which the fewest elements are dealt, for a comparison that lets a value through."""
    fewest = -(-bits // MOST_DIGIT)
    choices = [_cut(bits, count) for count in range(fewest, min(bits, MOST_DIGITS) + 1)]
    return min(choices, key=lambda widths: thresholds(widths) + 2 * monomials(len(widths)))


def _cut(bits: int, count: int) -> tuple[int, ...]:
    """Into so many digits of almost the same width."""
    return tuple((bits + k) // count for k in range(count))
