"""How far a result may be from what is meant: rounding and fits, followed through the operations of a program.

Two figures of each node, both absolute, in the units of its values:

* ``most``: a bound.  |computed - meant| is never more, whatever the values, the masks and the number of parties, where
  values lie in the ranges that are declared, and fits are as good as their ``error`` says.  It takes the worst of
  everything at once, so after many layers it can be far above what is seen.
* ``sure``: about what is lost where values are spread over their ranges: an error goes on with the usual factor, not
  with the greatest, and errors of several elements add up like independent ones.  In a layer of a network, where values
  are far below what they could be, it goes on with the least factor there is.  It is never more than ``most``; where it
  is much of what a value can be, little of that is left, and no pessimism says so.

Rules are one for each operation: its own loss, and what it makes of its operands'.  ``Expression.lost`` is what the
planner says that an operation of its makes differs from what was meant, beside: constants that are rounded, fits; and
``Expression.like`` what it says to be off as something else is, and not as the operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpc import fixed_point
from mpc.errors import UnsupportedError
from mpc.operation import Constant, Input, Operation, Stored
from mpc.program import Expression
from mpc.tensor_type import Form, TensorType
from protocols.lowering.series_error import series_rounding, series_slope
from protocols.operations import (
    assume,
    astray,
    bit_comparison,
    comparison,
    decomposed,
    digits,
    draw,
    fourier,
    gate,
    in_range,
    keep,
    linear,
    mask,
    nonzero,
    one_hot,
    polynomial,
    product,
    quotient,
    truncated_product,
    truncation,
)

USELESS = 2.0**10
"""Times what a value can be: a bound on its error that says nothing, nor any of a polynomial of it."""

FLOAT_BITS = 53
"""Of larger raw values a float64 has not all digits."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one node; ``source`` is the operation that most of the bound comes from, its share of it ``part``."""

    most: float
    sure: float
    source: Expression | None = None
    part: float = 0.0

    def times(self, most: float, sure: float | None = None) -> Loss:
        """Through a map that multiplies errors by at most, and about, so much."""
        sure = most if sure is None else sure
        return Loss(_times(self.most, most), _times(self.sure, sure), self.source, _times(self.part, most))


def _times(error: float, factor: float) -> float:
    """Of an error that may be infinite."""
    return error * factor if factor else 0.0


Rule = Callable[[Any, Expression, Sequence[Loss]], Loss]
"""Of an operation, the node that it makes, and what its operands have lost."""

_RULES: dict[type[Operation], Rule] = {}


def followed(x: Expression) -> Loss:
    """What is lost on the way to ``x``.  Kept with it, and with all that it depends on.

    Raises UnsupportedError for an operation without a rule.
    """
    return follow(x, lambda each: each.loss, lambda each, loss: setattr(each, "loss", loss))


def since(x: Expression, known: dict[Expression, Loss]) -> Loss:
    """As ``followed``, were some nodes what is meant, or so far from it as is ``known``; there it is noted down."""
    return follow(x, known.get, known.__setitem__)


def follow(
    x: Expression,
    found: Callable[[Expression], Loss | None],
    note: Callable[[Expression, Loss], None],
    of: Callable[[Expression, Sequence[Loss]], Loss] | None = None,
) -> Loss:
    """What is lost on the way to ``x``, where what is ``found`` goes on from there, and all else is noted.

    ``of`` says what a node loses, of what its operands have lost: `loss_of`, if it is not given.
    """
    of = loss_of if of is None else of
    stack = [x]
    while True:
        each = stack[-1]
        loss = found(each)
        if loss is None:
            operands = each.inputs if each.like is None else tuple(each.like)
            losses = [one for y in operands if (one := found(y)) is not None]
            if len(losses) < len(operands):
                stack.extend(y for y in operands if found(y) is None)
                continue
            loss = of(each, losses)
            note(each, loss)
        stack.pop()
        if not stack:
            return loss


def loss_of(x: Expression, losses: Sequence[Loss]) -> Loss:
    """Of one node, by what is said of it, or by its operation's rule."""
    if x.like is not None:
        factors = [factor if isinstance(factor, tuple) else (factor, factor) for factor in x.like.values()]
        passed = [loss.times(*factor) for loss, factor in zip(losses, factors, strict=True)]
        return _with(x, 0.0, *passed) if x.lost or len(passed) > 1 else next(iter(passed), Loss(0.0, 0.0))
    rule = _RULES.get(type(x.operation))
    if rule is None:
        raise UnsupportedError(f"what {x.operation.name} loses is not known: protocols/lowering/error.py has no rule")
    return rule(x.operation, x, losses)


def rounding_of(t: TensorType) -> float:
    """What a value loses that is encoded so; without fraction bits, values are whole numbers, and lose nothing."""
    return 2.0 ** -(t.fraction_bits + 1) if t.fraction_bits else 0.0


def _with(x: Expression, own: float, *operands: Loss, sure: float | None = None) -> Loss:
    """The sum of what the operation loses by itself, what the planner says, and what comes of the operands."""
    likely = math.hypot((own if sure is None else sure) + x.surely, *(each.sure for each in operands))
    own += x.lost
    most = own + sum(each.most for each in operands)
    # Of the floats that bounds are computed in, and that what is meant is compared in.
    if most or x.type.bits > FLOAT_BITS:
        most += 2.0**-48 * x.type.magnitude
    worst = max(operands, key=lambda each: each.part, default=Loss(0.0, 0.0))
    source, part = (worst.source, worst.part) if worst.part > own else (x, own)
    return Loss(most, min(likely, most), source, part)


def _rule(*kinds: type[Operation]) -> Callable[[Rule], Rule]:
    def known(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(kinds, rule))
        return rule

    return known


# -- leaves, and what moves values -------------------------------------------------------------------------------------


@_rule(Input, Stored)
def _source(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    return _with(x, rounding_of(x.type))


@_rule(Constant)
def _constant(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    return _with(x, 0.0)


@_rule(
    mask.Mask, keep.Keep, linear.Negate, linear.Raise, linear.Declare, linear.Reshape, linear.Transpose,
    linear.Broadcast, linear.Index, linear.Take, linear.Pad, assume.Assume, gate.Gate,
)  # fmt: skip
def _same(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    return _with(x, 0.0, losses[0]) if x.lost else losses[0]


@_rule(linear.Concatenate)
def _joined(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    worst = max(losses, key=lambda loss: loss.most)
    return replace(worst, sure=max(loss.sure for loss in losses))


# -- sums --------------------------------------------------------------------------------------------------------------


@_rule(linear.Add, linear.Subtract)
def _sum(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    if not _is_one_of_two(x):
        return _with(x, 0.0, *losses)
    # Off by what the one or the other is, and not by both and one of them once more.
    one, gate = losses
    other = replace(gate, most=gate.most - one.most, sure=math.sqrt(max(0.0, gate.sure**2 - one.sure**2)))
    worse = max(one, other, key=lambda loss: loss.most)
    # Where y and what is let through have lost a unit each.
    unit = 2.0**-x.type.fraction_bits if isinstance(x.inputs[0].operation, truncation.Truncate) else 0.0
    return _with(x, unit, replace(worse, sure=max(one.sure, other.sure)), sure=0.0)


def _is_one_of_two(x: Expression) -> bool:
    """y + gate(z - y), or z - gate(z - y): y or z."""
    one, gate = x.inputs
    gate = gate.inputs[0] if isinstance(gate.operation, linear.Declare) else gate
    if not isinstance(gate.operation, comparison.Comparison) or len(gate.inputs) < 3:
        return False
    if gate.operation.dropped and isinstance(one.operation, truncation.Truncate):
        one = _unmasked(one.inputs[0])
    passed = _unmasked(gate.inputs[2])
    if not isinstance(passed.operation, linear.Subtract):
        return False
    return passed.inputs[1 if isinstance(x.operation, linear.Add) else 0] is one


def _unmasked(x: Expression) -> Expression:
    return x.inputs[0] if isinstance(x.operation, mask.Mask) else x


@_rule(linear.Divide)
def _divided(operation: linear.Divide, x: Expression, losses: Sequence[Loss]) -> Loss:
    return _with(x, 0.0, losses[0].times(2.0**-operation.bits))


@_rule(linear.Sum, linear.RunningSum, linear.SumPool2d)
def _reduced(
    operation: linear.Sum | linear.RunningSum | linear.SumPool2d, x: Expression, losses: Sequence[Loss]
) -> Loss:
    shape = x.inputs[0].type.shape
    match x.operation:
        case linear.Sum(axes=axes):
            count = math.prod(shape[axis] for axis in axes)
        case linear.RunningSum(axis=axis):
            count = shape[axis]
        case linear.SumPool2d(kernel=kernel):
            count = math.prod(kernel)
        case _:
            raise UnsupportedError(f"{x.operation.name} is no sum")
    return _with(x, 0.0, losses[0].times(count, math.sqrt(count)))


# -- products ----------------------------------------------------------------------------------------------------------


@_rule(product.Multiply, product.Matmul, product.Conv2d)
def _product(operation: product.Product, x: Expression, losses: Sequence[Loss]) -> Loss:
    """x' y' - x y = (x' - x) y' + x (y' - y), of computed values that are in their ranges; x is as far out as its error
    says."""
    left, right = x.inputs
    of_left = _factor(operation, left, right, "left", x.label)
    of_right = _factor(operation, right, left, "right", x.label)
    second_order = Loss(operation._inner(left.type, right.type) * _times(losses[0].most, losses[1].most), 0.0)
    return _with(x, 0.0, losses[0].times(*of_left), losses[1].times(*of_right), second_order)


def _factor(operation: product.Product, x: Expression, other: Expression, side: str, layer: str) -> tuple[float, float]:
    """How much an error in ``x`` is multiplied by, at most and surely, in a product with ``other``."""
    types = (x.type, other.type) if side == "left" else (other.type, x.type)
    count, t = operation._inner(*types), other.type
    if isinstance(other.operation, Constant):
        if count == 1:
            return t.magnitude, t.magnitude
        return _norms(operation, other.operation, t, side, count)
    most = t.magnitude * count
    if side == "left" and t.gain is not None:
        most = min(most, t.gain)
    # What is public meets the end of the other's range somewhere.
    usual = t.magnitude if x.type.form is Form.PUBLIC else _usual(t, layer)
    return most, min(most, usual * math.sqrt(count))


def _usual(t: TensorType, layer: str) -> float:
    """The root of the mean square of values that are spread over their range; in a layer, the least magnitude: weights,
    and what is between layers, are far below theirs."""
    if layer:
        return max(0.0, t.low, -t.high)
    return math.sqrt((t.low * t.low + t.low * t.high + t.high * t.high) / 3)


def _rise(x: Expression, slope: float) -> float:
    """No more than the mean slope of the curve from which ``x`` comes, by what it spans; in a layer it may be flat."""
    width = x.inputs[0].type.high - x.inputs[0].type.low
    return min(slope, (x.type.high - x.type.low) / width) if width and not x.label else 0.0


def _norms(operation: product.Product, constant: Constant, t: TensorType, side: str, count: int) -> tuple[float, float]:
    """Of what an element of the result is summed with: the greatest sum of magnitudes, and root of that of squares."""
    values = np.abs(fixed_point.decode(constant.array(), t.fraction_bits))
    if isinstance(operation, product.Conv2d):
        if side == "right":
            return t.magnitude * count, t.magnitude * math.sqrt(count)
        axes: tuple[int, ...] | int = (1, 2, 3)
    else:
        axes = -1 if side == "right" or values.ndim == 1 else -2
    sums, squares = values.sum(axis=axes), (values * values).sum(axis=axes)
    return float(np.max(sums, initial=0.0)), math.sqrt(float(np.max(squares, initial=0.0)))


# -- truncations and curves --------------------------------------------------------------------------------------------


@_rule(truncation.Truncate)
def _truncated(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    unit = 2.0**-x.type.fraction_bits
    return _with(x, unit, losses[0], sure=unit / 2)


@_rule(truncated_product.TruncatedMultiply)
def _truncated_product(operation: truncated_product.TruncatedMultiply, x: Expression, losses: Sequence[Loss]) -> Loss:
    """A unit more of each factor that is truncated, and then as of a product."""
    cut = []
    for y, bits, loss in zip(x.inputs, operation.bits, losses, strict=True):
        unit = 2.0 ** (bits - y.type.fraction_bits) if bits else 0.0
        cut.append(replace(loss, most=loss.most + unit, sure=math.hypot(loss.sure, unit / 2)))
    of = [(y.type.magnitude, _usual(y.type, x.label)) for y in reversed(x.inputs)]
    second_order = Loss(_times(cut[0].most, cut[1].most), 0.0)
    return _with(x, 0.0, cut[0].times(*of[0]), cut[1].times(*of[1]), second_order)


@_rule(quotient.Quotient)
def _quotient(operation: quotient.Quotient, x: Expression, losses: Sequence[Loss]) -> Loss:
    unit = 2.0**-x.type.fraction_bits
    return _with(x, unit, losses[0].times(1 / operation.divisor), sure=unit / 2)


@_rule(polynomial.Polynomial, polynomial.TruncatedPolynomial)
def _polynomial(
    operation: polynomial.Polynomial | polynomial.TruncatedPolynomial, x: Expression, losses: Sequence[Loss]
) -> Loss:
    """The slope, wherever the computed and the meant value may be, times the error; the coefficients' is for what the
    computed value may be."""
    t = x.inputs[0].type
    dropped = operation.bits if isinstance(operation, polynomial.TruncatedPolynomial) else 0
    unit = 2.0 ** -(t.fraction_bits - dropped) if dropped else 0.0
    real = tuple(c * 2.0**-operation.coefficient_bits for c in operation.coefficients)
    around = losses[0].most + unit
    if around > USELESS * max(t.magnitude, unit):
        return Loss(math.inf, math.hypot(x.surely, losses[0].sure), losses[0].source, math.inf)
    slope = polynomial.polynomial_slope(real, t.low - around, t.high + around)
    beyond = (1 + around / t.magnitude) ** operation.degree - 1 if t.magnitude else 0.0
    own = slope * unit + x.lost * beyond
    return _with(x, own, losses[0].times(slope, _rise(x, slope)))


@_rule(
    digits.Tables, digits.Digits, comparison.Join, bit_comparison.Sign, in_range.Ends, in_range.Within,
    decomposed.Decomposed, decomposed.Recomposed, astray.Astray, nonzero.Nonzero, nonzero.Zero,
)  # fmt: skip
def _of_digits(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    """On the way to a comparison, of which it is the end that counts; or to no value at all."""
    return _with(x, 0.0, *(loss.times(0.0) for loss in losses))


@_rule(in_range.Coefficients)
def _coefficients(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    return Loss(0.0, 0.0)


@_rule(comparison.Compare, bit_comparison.Signed, bit_comparison.Lifted)
def _compared(operation: comparison.Comparison, x: Expression, losses: Sequence[Loss]) -> Loss:
    """Right of what is computed exactly; else the other bit is found, at worst, and what it is to let through is not.

    Of what is let through by its own sign, no more is lost than what is so near to 0; if bits are dropped, a unit
    besides.
    """
    compared, passed = x.inputs[0], x.inputs[2:]
    ignored = ignored_by(operation, compared)
    certain = not (ignored or losses[0].most)
    if not passed:
        return _with(x, 0.0 if certain else 1.0, sure=0.0)
    own = passed[0].type.magnitude
    if certain or passed[0] is compared:
        own = ignored
    elif isinstance(passed[0].operation, product.Multiply) and compared in passed[0].inputs:
        # Times a public number.
        own = ignored * math.prod(y.type.magnitude for y in passed[0].inputs if y is not compared)
    unit = 2.0**-x.type.fraction_bits if operation.dropped else 0.0
    return _with(x, own + unit, losses[2], sure=unit / 2)


def ignored_by(operation: comparison.Comparison, compared: Expression) -> float:
    """How far apart values may be that compare as equal, beside what they are off by."""
    return 2.0 ** (operation.ignored - compared.type.fraction_bits) if operation.ignored >= 0 else 0.0


@_rule(draw.Draw, draw.Bits)
def _drawn(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    return _with(x, 0.0)


@_rule(one_hot.OneHot)
def _placed(operation: one_hot.OneHot, x: Expression, losses: Sequence[Loss]) -> Loss:
    return _with(x, 1.0 if losses[0].most else 0.0, sure=0.0)


@_rule(fourier.Fourier)
def _fourier(operation: fourier.Fourier, x: Expression, losses: Sequence[Loss]) -> Loss:
    t = x.inputs[0].type
    period = 2.0 ** (operation.period_bits - t.fraction_bits) / operation.multiplier
    # Steps of powers of two, so that few intervals are looked at.
    around = 2.0 ** math.ceil(math.log2(max(min(losses[0].most, period), 2.0**-60)))
    slope = series_slope(operation, period, t.low - around, t.high + around)
    own = series_rounding(operation)
    return _with(x, own, losses[0].times(slope, _rise(x, slope)), sure=own / 4)
