"""How far a result may be from what is meant: rounding and fits, followed through the operations of a program.

Two figures of each node, both absolute, in the units of its values:

* ``most``: a bound.  |computed - meant| is never more, whatever the values, the masks and the number of parties, where
  values lie in the ranges that are declared, and fits are as good as their ``error`` says.  It takes the worst of
  everything at once, so after many layers it can be far above what is seen.
* ``usual``: about what is seen at most, where values are spread over their ranges.  It has two parts, which go on
  otherwise: ``alike``, of what elements may have in common (the same number is encoded alike everywhere, a fit errs at
  the same places), so that it adds up in sums; and ``apart``, of truncations, whose masks are independent, so that
  their squares add up.  Both go on with the steepest slope of a curve, and the usual size of a secret factor
  (``factors.py``).

Rules are one for each operation: its own loss, and what it makes of its operands'.  ``Expression.lost`` is what the
planner says that an operation of its makes differs from what was meant, beside: constants that are rounded, fits; and
``Expression.like`` what it says to be off as something else is, and not as the operands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mpc.errors import UnsupportedError
from mpc.operation import Constant, Input, Operation, Stored
from mpc.program import Expression
from mpc.tensor_type import Form, TensorType
from protocols.lowering.factors import SEEN, factor, spread_over
from protocols.lowering.series_error import series_rounding, series_slope
from protocols.operations import (
    assume,
    astray,
    beyond,
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
    residues,
    shuffle,
    truncated_product,
    truncation,
    weighed,
)

USELESS = 2.0**10
"""Times what a value can be: a bound on its error that says nothing, nor any of a polynomial of it."""

FLOAT_BITS = 53
"""Of larger raw values a float64 has not all digits."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one node; ``source`` is the operation that most of the bound comes from, its share of it ``part``."""

    most: float
    alike: float
    apart: float = 0.0
    source: Expression | None = None
    part: float = 0.0

    @property
    def usual(self) -> float:
        """Of both parts; never more than ``most``."""
        return min(self.alike + SEEN * self.apart, self.most)

    def times(self, most: float, alike: float | None = None, apart: float | None = None) -> Loss:
        """Through a map that multiplies errors by at most, and about, so much."""
        alike = most if alike is None else alike
        apart = alike if apart is None else apart
        factors = _times(self.most, most), _times(self.alike, alike), _times(self.apart, apart)
        return Loss(*factors, self.source, _times(self.part, most))


def _added(*parts: float) -> float:
    return sum(parts)


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


def _with(
    x: Expression,
    own: float,
    *operands: Loss,
    alike: float | None = None,
    apart: float = 0.0,
    together: Callable[..., float] = math.hypot,
) -> Loss:
    """The sum of what the operation loses by itself, what the planner says, and what comes of the operands.

    ``alike`` is that part of ``own`` which elements may have in common, by default all of it.
    """
    off = together(*(each.alike for each in operands))
    off += x.surely + (own if alike is None else alike)
    apart = math.hypot(apart, *(each.apart for each in operands))
    own += x.lost
    most = own + sum(each.most for each in operands)
    # Of the floats that bounds are computed in, and that what is meant is compared in.
    if most or x.type.bits > FLOAT_BITS:
        most += 2.0**-48 * x.type.magnitude
    worst = max(operands, key=lambda each: each.part, default=Loss(0.0, 0.0))
    source, part = (worst.source, worst.part) if worst.part > own else (x, own)
    return Loss(most, min(off, most), min(apart, most), source, part)


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


@_rule(shuffle.Shuffled)
def _shuffled(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    return losses[0]


@_rule(linear.Concatenate)
def _joined(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    worst = max(losses, key=lambda loss: loss.most)
    return replace(worst, alike=max(loss.alike for loss in losses), apart=max(loss.apart for loss in losses))


# -- sums --------------------------------------------------------------------------------------------------------------


@_rule(linear.Add, linear.Subtract)
def _sum(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    if not _is_one_of_two(x):
        return _with(x, 0.0, *losses, together=_added)
    # Off by what the one or the other is, and not by both and one of them once more.
    one, gate = losses
    alike, apart = max(0.0, gate.alike - one.alike), math.sqrt(max(0.0, gate.apart**2 - one.apart**2))
    other = replace(gate, most=gate.most - one.most, alike=alike, apart=apart)
    worse = max(one, other, key=lambda loss: loss.most)
    # Where y and what is let through have lost a unit each.
    unit = 2.0**-x.type.fraction_bits if isinstance(x.inputs[0].operation, truncation.Truncate) else 0.0
    worse = replace(worse, alike=max(one.alike, alike), apart=max(one.apart, apart))
    return _with(x, unit, worse, alike=0.0, apart=unit / 2)


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
    return _with(x, 0.0, losses[0].times(count, count, math.sqrt(count)))


# -- products ----------------------------------------------------------------------------------------------------------


@_rule(product.Multiply, product.Matmul, product.Conv2d)
def _product(operation: product.Product, x: Expression, losses: Sequence[Loss]) -> Loss:
    """x' y' - x y = (x' - x) y' + x (y' - y), of computed values that are in their ranges; x is as far out as its error
    says."""
    left, right = x.inputs
    of_left = factor(operation, left, right, "left", x.label)
    of_right = factor(operation, right, left, "right", x.label)
    second_order = Loss(operation._inner(left.type, right.type) * _times(losses[0].most, losses[1].most), 0.0)
    both = losses[0].times(*of_left), losses[1].times(*of_right)
    unlike = left is not right and Form.PUBLIC not in (left.type.form, right.type.form)
    return _with(x, 0.0, *both, second_order, together=math.hypot if unlike else _added)


# -- truncations and curves --------------------------------------------------------------------------------------------


@_rule(truncation.Truncate)
def _truncated(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    unit = 2.0**-x.type.fraction_bits
    return _with(x, unit, losses[0], alike=0.0, apart=unit / 2)


@_rule(truncated_product.TruncatedMultiply)
def _truncated_product(operation: truncated_product.TruncatedMultiply, x: Expression, losses: Sequence[Loss]) -> Loss:
    """A unit more of each factor that is truncated, and then as of a product."""
    cut = []
    for y, bits, loss in zip(x.inputs, operation.bits, losses, strict=True):
        unit = 2.0 ** (bits - y.type.fraction_bits) if bits else 0.0
        cut.append(replace(loss, most=loss.most + unit, apart=math.hypot(loss.apart, unit / 2)))
    of = [spread_over(y.type) for y in reversed(x.inputs)]
    second_order = Loss(_times(cut[0].most, cut[1].most), 0.0)
    return _with(x, 0.0, cut[0].times(*of[0]), cut[1].times(*of[1]), second_order)


@_rule(quotient.Quotient)
def _quotient(operation: quotient.Quotient, x: Expression, losses: Sequence[Loss]) -> Loss:
    unit = 2.0**-x.type.fraction_bits
    return _with(x, unit, losses[0].times(1 / operation.divisor), alike=0.0, apart=unit / 2)


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
        return Loss(math.inf, losses[0].alike + x.surely, losses[0].apart, losses[0].source, math.inf)
    slope = polynomial.polynomial_slope(real, t.low - around, t.high + around)
    beyond = (1 + around / t.magnitude) ** operation.degree - 1 if t.magnitude else 0.0
    usual = polynomial.polynomial_slope(real, t.low, t.high)
    own = slope * unit + x.lost * beyond
    return _with(x, own, losses[0].times(slope, usual), alike=0.0, apart=usual * unit / 2)


@_rule(
    digits.Tables, digits.Digits, weighed.Steps, weighed.Weighed, weighed.SignBits, comparison.Join,
    bit_comparison.Sign, in_range.Ends,
    in_range.Within, residues.Residue,
    decomposed.Decomposed, decomposed.Recomposed, astray.Astray, beyond.Beyond, beyond.Beyonds, nonzero.Nonzero,
    nonzero.Zero, fourier.Waves,
)  # fmt: skip
def _of_digits(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    """On the way to a comparison, or to a series, of which it is the end that counts; or to no value at all."""
    return _with(x, 0.0, *(loss.times(0.0) for loss in losses))


@_rule(in_range.Coefficients, residues.Factors)
def _coefficients(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    return Loss(0.0, 0.0)


@_rule(comparison.Compare, residues.Residuosity, weighed.Signed, bit_comparison.Lifted)
def _compared(operation: comparison.Comparison, x: Expression, losses: Sequence[Loss]) -> Loss:
    """Right of what is computed exactly; else the other bit is found, at worst, and what it is to let through is not.

    Of what is let through by its own sign, no more is lost than what is so near to 0; if bits are dropped, a unit
    besides.
    """
    compared, passed = x.inputs[0], x.inputs[2:]
    ignored = ignored_by(operation, compared)
    certain = not (ignored or losses[0].most)
    if not passed:
        return _with(x, 0.0 if certain else 1.0, alike=0.0)
    own = passed[0].type.magnitude
    if certain or passed[0] is compared:
        own = ignored
    elif isinstance(passed[0].operation, product.Multiply) and compared in passed[0].inputs:
        # Times a public number.
        own = ignored * math.prod(y.type.magnitude for y in passed[0].inputs if y is not compared)
    unit = 2.0**-x.type.fraction_bits if operation.dropped else 0.0
    return _with(x, own + unit, losses[2], alike=0.0, apart=unit / 2)


def ignored_by(operation: comparison.Comparison, compared: Expression) -> float:
    """How far apart values may be that compare as equal, beside what they are off by."""
    return math.ldexp(digits.mistaken(operation.ignored), -compared.type.fraction_bits)


@_rule(draw.Draw, draw.Bits, shuffle.Order, shuffle.Places)
def _drawn(operation: Operation, x: Expression, losses: Sequence[Loss]) -> Loss:
    return _with(x, 0.0)


@_rule(one_hot.OneHot)
def _placed(operation: one_hot.OneHot, x: Expression, losses: Sequence[Loss]) -> Loss:
    return _with(x, 1.0 if losses[0].most else 0.0, alike=0.0)


@_rule(fourier.Fourier)
def _fourier(operation: fourier.Fourier, x: Expression, losses: Sequence[Loss]) -> Loss:
    t = x.inputs[0].type
    period = 2.0 ** (operation.period_bits - t.fraction_bits) / operation.multiplier
    # Steps of powers of two, so that few intervals are looked at.
    around = 2.0 ** math.ceil(math.log2(max(min(losses[0].most, period), 2.0**-60)))
    slope = series_slope(operation, period, t.low - around, t.high + around)
    own, usual = series_rounding(operation), series_slope(operation, period, t.low, t.high)
    return _with(x, own, losses[0].times(slope, usual), alike=0.0, apart=own / 8)
