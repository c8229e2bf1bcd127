"""The larger of values: of two, by one gate; of many, by a tournament of as many levels as their number has bits."""

from __future__ import annotations

import math

from mpc.program import Expression
from protocols.lowering.comparison import relu
from protocols.lowering.planner import Planner, constant
from protocols.operations.linear import Add, Declare, Index, Pad, Subtract, check_windows, window_output

Pair = tuple[int, int]


def maximum(planner: Planner, x: Expression, y: Expression) -> Expression:
    """y + relu(x - y): two rounds, one where the difference needs no opening."""
    x, y = planner.aligned((x, y))
    gained = relu(planner, planner.make(Subtract(), x, y))
    # It is one of the two, and where it is not the larger, it is by less than what relu may be off.
    low = max(x.type.low, y.type.low) + min(gained.type.low, 0.0)
    return planner.make(Declare(low, max(x.type.high, y.type.high)), planner.make(Add(), y, gained))


def largest(planner: Planner, xs: list[Expression]) -> Expression:
    """Of tensors of one shape, elementwise: two rounds a level of the tournament."""
    while len(xs) > 1:
        odd = xs[len(xs) // 2 * 2 :]
        xs = [maximum(planner, x, y) for x, y in zip(xs[::2], xs[1::2], strict=False)] + odd
    return xs[0]


def ranked(planner: Planner, x: Expression, of: Expression) -> Expression:
    """``x``, known to be order statistics of values of ``of``."""
    result = Expression(Declare(of.type.low, of.type.high), (x,), planner.label)
    result.ranked = of
    return result


def max_pool2d(planner: Planner, x: Expression, kernel: Pair, stride: Pair, padding: Pair) -> Expression:
    """Maxima of columns, then of rows of them: windows that overlap share columns."""
    check_windows(x.type, kernel, padding)
    size = window_output(x.type.shape[2:], kernel, stride, padding)
    # Zeros around lose against everything, once nothing is below them: each window has something of the image.
    lowest = min(0.0, math.ldexp(math.floor(math.ldexp(x.type.low, x.type.fraction_bits)), -x.type.fraction_bits))
    if not any(padding):
        lowest = 0.0
    if lowest:
        x = planner.sum(Subtract(), x, constant(lowest, x.type.fraction_bits))
    if any(padding):
        x = planner.make(Pad(((0, 0), (0, 0), *((n, n) for n in padding))), x)
    for axis, wide, step, count in zip((2, 3), kernel, stride, size, strict=True):
        x = largest(planner, [_strided(planner, x, axis, start, step, count) for start in range(wide)])
    return planner.sum(Add(), x, constant(lowest, x.type.fraction_bits)) if lowest else x


def _strided(planner: Planner, x: Expression, axis: int, start: int, step: int, count: int) -> Expression:
    """Every ``step``-th along an axis, ``count`` of them."""
    slices = [(0, 1, n) for n in x.type.shape]
    slices[axis] = (start, step, count)
    return planner.make(Index(tuple(slices)), x)
