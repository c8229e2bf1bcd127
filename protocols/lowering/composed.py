"""Fits that are made of others, to nodes of a program: roots by a guess and what is left, one after the other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import assert_never

import msgspec

from mpc.errors import RangeError
from mpc.program import Expression
from mpc.tensor_type import TRUNCATION_BITS
from protocols.approximation import (
    CompositeFit,
    Fit,
    FourierFit,
    PiecewiseFit,
    PolynomialFit,
    RootFit,
    TailedFit,
)
from protocols.approximation.fits import smallest
from protocols.approximation.search import SLACK, left
from protocols.lowering.functions import fourier, known, polynomial
from protocols.lowering.pieces import by_pieces
from protocols.lowering.planner import Planner
from protocols.lowering.tails import with_tails
from protocols.operations.linear import Declare, Subtract
from protocols.operations.product import Multiply

SCALED_BITS = 24
"""Fraction bits that a line keeps."""

CLOSER = 5
"""log2 of how much closer than a root its argument is kept, where it is cut for it."""

FEWEST_BITS = 16
"""Of what is left of a guess's correction, beside the guess."""


def apply(planner: Planner, x: Expression, fit: Fit, target: float = 0.0) -> Expression:
    """Evaluate a fit; rounding adds at most its own error, or ``target`` where that is larger."""
    match fit:
        case FourierFit():
            return known(planner, x, fit, fourier(planner, x, fit, target))
        case PolynomialFit():
            x = _declared(planner, x, fit.low, fit.high)
            if len(fit.coefficients) == 2:
                # The scale of what comes next, or of what came before: its digits are theirs.
                planner = replace(planner, fraction_bits=max(planner.fraction_bits, SCALED_BITS))
            # Away from the ends, all but the best fits have smaller errors.
            whole = fit.kind == "minimax" or (x.type.low <= fit.low and x.type.high >= fit.high)
            return polynomial(planner, x, fit.coefficients, fit.error, fit.error if whole else 0.0)
        case CompositeFit():
            # The last one answers for all.
            for stage in (*fit.stages[:-1], msgspec.structs.replace(fit.stages[-1], error=fit.error)):
                x = apply(planner, x, stage)
            return x
        case RootFit():
            return root(planner, _declared(planner, x, fit.low, fit.high), fit)
        case TailedFit():
            return with_tails(planner, x, fit, target)
        case PiecewiseFit():
            return by_pieces(planner, _declared(planner, x, fit.low, fit.high), fit)
    assert_never(fit)


def root(planner: Planner, x: Expression, fit: RootFit) -> Expression:
    """y P(1 - x y^order): three openings beside that of x, or four for a square root, and truncations where the field
    has no room without.

    y is cut before it is used at all: what is left is that of the very y that is multiplied, so how y was rounded does
    not count, and nothing is lost by it.
    """
    allowed = (fit.start.relative or 0.0) * smallest(fit.start) / 8
    y = fourier(planner, x, fit.start, rounding=allowed)
    # x y^order, of which only the first factors are known to the types to be no larger than it is.
    orders = math.log2(fit.high / fit.low) / fit.order
    needed = math.ceil(-math.log2(allowed))

    def room() -> int:
        """Fraction bits that x leaves for y."""
        left_over = TRUNCATION_BITS - 2 - x.type.bits + math.log2(x.type.magnitude)
        return math.floor((left_over - orders) / fit.order)

    # x has been opened for y: so what of its digits is finer than the function is right to is cut for no round.
    fewest = math.ceil(CLOSER - math.log2(fit.low * (fit.relative or SLACK)))
    if room() < needed:
        x = planner.truncated(x, max(fewest, x.type.fraction_bits - fit.order * (needed - room())))
    bits = min(y.type.fraction_bits, room())
    if bits < needed:
        raise RangeError(
            f"x^({fit.power}) on [{fit.low:g}, {fit.high:g}] of values with {x.type.fraction_bits} fraction bits leaves"
            f" {max(bits, 0)} for a guess: declare a tighter range with within(low, high), or share fewer bits"
        )
    y = planner.truncated(y, bits)
    ends = [end ** (-1 / fit.order) for end in (fit.high, fit.low)]
    off = 2.0 * (fit.start.relative or 0.0)
    y = as_it_is(planner, y, ends[0] * (1 - off), ends[1] * (1 + off))
    xy = planner.product(Multiply(), x, y)
    if fit.order == 2:
        xy = planner.make(Declare(fit.low**0.5 * (1 - off), fit.high**0.5 * (1 + off)), xy)
    product = xy if fit.order == 1 else planner.product(Multiply(), xy, y)
    rest = planner.sum(Subtract(), planner.constant(1.0), product)
    rest = planner.make(Declare(*left(fit.start, fit.order)), rest)
    factor = fourier(planner, rest, fit.correction, rounding=max(fit.relative or 0.0, SLACK / 8) / 4)
    guess = xy if fit.power == "1/2" else y
    guess = planner.truncated(guess, TRUNCATION_BITS - 1 - FEWEST_BITS - math.ceil(math.log2(guess.type.magnitude)))
    factor = planner.truncated(factor, math.floor(TRUNCATION_BITS - 1 - guess.type.bits))
    result = planner.product(Multiply(), guess, factor)
    exponent = 0.5 if fit.power == "1/2" else -1 / fit.order
    low, high = sorted((fit.low**exponent, fit.high**exponent))
    return planner.make(Declare(low * (1 - SLACK), high * (1 + SLACK)), result)


def as_it_is(planner: Planner, x: Expression, low: float, high: float) -> Expression:
    """``x``, of which is meant what is computed: nothing is lost."""
    # Not the node of whoever declares the same of x.
    return Expression(Declare(low, high), (x,), planner.label).lose(like={})


def _declared(planner: Planner, x: Expression, low: float, high: float) -> Expression:
    """Fixed-point layouts depend on the interval: take it from the fit where that is tighter."""
    if x.type.low >= low and x.type.high <= high:
        return x
    return planner.make(Declare(low, high), x)
