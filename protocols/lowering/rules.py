"""The rules: one for each operation of mathematics, to the operations of a program.

A rule sees its operands lowered, but for public numbers: those take as many fraction bits as what they meet needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from mpc.errors import ShapeError
from mpc.program import Expression
from mpc.tensor_type import Shape, TensorType
from protocols.approximation import Fit
from protocols.lowering import comparison, composed, functions, norms, selection, slopes, truncated
from protocols.lowering.intervals import ASSUMED, ROUGHLY, fineness
from protocols.lowering.planner import Planner
from protocols.operations import assume, draw, keep, linear, one_hot, product, shuffle
from protocols.trace import mathematics as m

Operand = Expression | m.Reals


def lower(planner: Planner, operation: m.Mathematics, operands: Sequence[Operand]) -> Expression:
    """``operation`` of ``operands`` as a node of a program.

    Raises RangeError for what cannot be shown to fit the field, ShapeError for operands that do not go together.
    """
    match operation:
        case m.Secret():
            return Expression(operation.source).lose(operation.lost)
        case m.Public():
            return planner.constant(operation.values)
        case m.Draw():
            return planner.make(draw.Bits(operation.bits), Expression(draw.Draw(operation.shape, operation.bits)))
        case m.Order():
            return Expression(shuffle.Order(operation.rows))
        case m.Shuffle():
            return _shuffled(planner, *_terms(planner, operands))
        case m.Add():
            return planner.sum(linear.Add(), *_terms(planner, operands))
        case m.Subtract():
            return planner.sum(linear.Subtract(), *_terms(planner, operands))
        case m.Concatenate():
            parts = _terms(planner, operands)
            aligned = planner.aligned(parts, max(x.type.magnitude for x in parts))
            return planner.make(linear.Concatenate(operation.axis), *aligned)
        case m.Multiply():
            factors = _factors(planner, operands)
            gated = comparison.gated(planner, *factors)
            if gated is None and operation.at_once:
                gated = truncated.multiplied(planner, *factors, by_slope=operation.by_slope)
            return gated or planner.product(product.Multiply(), *factors, within=operation.within)
        case m.Maximum():
            return selection.maximum(planner, *_terms(planner, operands))
        case m.Ranked():
            return selection.ranked(planner, *_terms(planner, operands))
        case m.Like():
            return norms.like(planner, operation, *_terms(planner, operands))
        case m.Normalise():
            return selection.normalised(planner, operation, *_terms(planner, operands))
        case m.LetThrough():
            return selection.let_through(planner, *_terms(planner, operands))
        case m.Called() | m.Sloped():
            return _terms(planner, operands)[0]
        case m.Slope():
            x, y = _terms(planner, operands)
            return slopes.slope(planner, operation.function, operation.fit, _in_interval(planner, x, operation.fit), y)
        case m.Matmul():
            return _matmul(planner, operation, operands)
        case m.Conv2d():
            return _conv2d(planner, operation, operands)
    (x,) = _terms(planner, operands)
    match operation:
        case m.Negate():
            return planner.make(linear.Negate(), x)
        case m.Divide():
            return planner.divided(x, operation.divisor)
        case m.Sum():
            return _sum(planner, operation, x)
        case m.SumOfSquares():
            return norms.sum_of_squares(planner, x, operation.axes)
        case m.Mean():
            return planner.divided(_sum(planner, operation, x), _count(operation, x))
        case m.RunningSum():
            return planner.reduced(linear.RunningSum(operation.axis), x, max(1, x.type.shape[operation.axis]))
        case m.AveragePool2d():
            window = math.prod(operation.kernel)
            sums = linear.SumPool2d(operation.kernel, operation.stride, operation.padding)
            return planner.divided(planner.reduced(sums, x, window), window)
        case m.Reshape():
            return planner.make(linear.Reshape(operation.shape), x)
        case m.Transpose():
            return planner.make(linear.Transpose(operation.axes), x)
        case m.Broadcast():
            return planner.make(linear.Broadcast(operation.shape), x)
        case m.Index():
            return planner.make(linear.Index(operation.slices), x)
        case m.Take():
            return planner.make(linear.Take(operation.axis, operation.positions), x)
        case m.Pad():
            return planner.make(linear.Pad(operation.widths), x)
        case m.Polynomial():
            return functions.polynomial(planner, x, operation.coefficients)
        case m.Apply():
            return composed.apply(planner, _in_interval(planner, x, operation.fit), operation.fit, operation.target)
        case m.Compare():
            return comparison.compared(planner, x, strictly=operation.strictly, below=operation.below)
        case m.OneHot():
            return planner.make(one_hot.OneHot(operation.count), planner.masked(x))
        case m.Equal():
            return comparison.equal(planner, x, below=operation.below)
        case m.Reach():
            return comparison.reached(planner, x, operation.threshold, operation.tolerance)
        case m.Relu():
            return comparison.relu(planner, x)
        case m.Declare() | m.Known():
            if isinstance(operation, m.Known) and operation.as_it_is:
                return composed.as_it_is(planner, x, operation.low, operation.high)
            return planner.make(linear.Declare(operation.low, operation.high), x)
        case m.Assume():
            return _assumed(planner, x, operation.low, operation.high, ROUGHLY if operation.roughly else ASSUMED)
        case m.Truncate():
            if operation.factor != 1.0:
                return truncated.multiple(planner, x, operation.factor, operation.fraction_bits)
            return planner.truncated(x, operation.fraction_bits)
        case m.Masked():
            return planner.masked(x)
        case m.Keep():
            return planner.make(keep.Keep(operation.tensor), x)
    assert_never(operation)


BLOCK = 1 << 20
"""Elements of an order's matrix that are dealt at a time."""


def _shuffled(planner: Planner, x: Expression, order: Expression) -> Expression:
    """In blocks of rows, so that nobody has to hold all of the matrix."""
    x, rows = planner.masked(x), order.type.size
    block = max(1, BLOCK // rows)
    parts = []
    for start in range(0, rows, block):
        places = shuffle.Places(start, min(rows, start + block))
        of_order = order.derive(places, planner.label)
        parts.append(planner.make(shuffle.Shuffled(places.start, places.stop), x, order, of_order))
    return parts[0] if len(parts) == 1 else planner.make(linear.Concatenate(0), *parts)


def _in_interval(planner: Planner, x: Expression, fit: Fit) -> Expression:
    """``x``, taken to lie where a fit holds."""
    return _assumed(planner, x, fit.low, fit.high, fineness(fit.low, fit.high))


def _assumed(planner: Planner, x: Expression, low: float, high: float, bits: int) -> Expression:
    """``x``, taken to lie in [low, high], if it is not known to."""
    if low <= x.type.low and x.type.high <= high:
        return x
    # Of what is opened more is known than of what is compared with its ends.
    return planner.make(assume.Assume(low, high, bits), planner.masked(x))


def _terms(planner: Planner, operands: Sequence[Operand]) -> list[Expression]:
    """Operands of a sum, public ones as constants with as many digits as the others have."""
    digits = max((x.type.fraction_bits for x in operands if isinstance(x, Expression)), default=0)
    return [x if isinstance(x, Expression) else planner.constant(x, digits) for x in operands]


def _factors(planner: Planner, operands: Sequence[Operand], count: int = 1) -> tuple[Expression, Expression]:
    """Operands of a product, of which ``count`` are summed: a public one with the digits that count, and the other cut
    to make room for them."""
    x, y = operands
    if isinstance(x, Expression):
        return (x, y) if isinstance(y, Expression) else planner.scaling(x, y, count)
    if isinstance(y, Expression):
        scaled, factor = planner.scaling(y, x, count)
        return factor, scaled
    return planner.constant(x), planner.constant(y)


def _matmul(planner: Planner, operation: m.Matmul, operands: Sequence[Operand]) -> Expression:
    shapes = [_shape(x) for x in operands]
    if not all(shapes):
        raise ShapeError("matmul takes tensors of at least one axis: use * for scalars")
    x, y = _factors(planner, operands, shapes[0][-1])
    return planner.product(product.Matmul(), x, y, _growth(y.type, shapes[0][-1]), within=operation.within)


def _conv2d(planner: Planner, operation: m.Conv2d, operands: Sequence[Operand]) -> Expression:
    image, weight = (_shape(x) for x in operands)
    if len(image) != 4 or len(weight) != 4:
        raise ShapeError(f"conv2d takes (N, C, H, W) and (O, C / groups, kh, kw), not {image} and {weight}")
    convolution = product.Conv2d(operation.stride, operation.padding, operation.groups)
    x, w = _factors(planner, operands, math.prod(weight[1:]))
    return planner.product(convolution, x, w, _growth(w.type, math.prod(weight[1:])), within=operation.within)


def _shape(x: Operand) -> Shape:
    return x.type.shape if isinstance(x, Expression) else x.shape


def _growth(w: TensorType, inner: int) -> float:
    """How much larger a sum of ``inner`` products with weights ``w`` can be than one of them."""
    if w.gain is not None and w.magnitude > 0:
        return min(float(inner), w.gain / w.magnitude)
    return float(inner)


def _sum(planner: Planner, operation: m.Sum | m.Mean, x: Expression) -> Expression:
    return planner.reduced(linear.Sum(operation.axes, operation.keepdims), x, _count(operation, x))


def _count(operation: m.Sum | m.Mean, x: Expression) -> int:
    """How many elements each element of the result is made of."""
    return math.prod(x.type.shape[axis] for axis in operation.axes)
