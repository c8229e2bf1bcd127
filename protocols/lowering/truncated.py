"""Products whose factors are truncated by the openings that they are multiplied by, and truncated multiples."""

from __future__ import annotations

import math

from mpc.program import Expression
from mpc.tensor_type import FIELD_BITS, TRUNCATION_BITS, Form
from protocols.lowering.cuts import cut
from protocols.lowering.planner import MOST_BITS, Planner, constant, leading_zeros
from protocols.operations.linear import Divide
from protocols.operations.product import Multiply
from protocols.operations.quotient import MAX_DIVISOR, Quotient, fits
from protocols.operations.truncated_product import TruncatedMultiply

SLOPE_BITS = 11
"""Behind its leading zeros, of a slope that a gradient is multiplied by."""
DIVISOR_BITS = 24
"""Of a divisor in the place of a factor: from there on, to round it counts for nothing."""


def multiplied(planner: Planner, x: Expression, y: Expression, *, by_slope: bool = False) -> Expression | None:
    """The product, where a secret factor has to be truncated for it and comparisons do not do it anyway; else None."""
    if x is y or Form.PUBLIC in (x.type.form, y.type.form):
        return None
    operands, dropped = [], []
    most = (planner.kept(x.type.magnitude), SLOPE_BITS + leading_zeros(y.type.magnitude))
    for one, bits, count in zip((x, y), planner.fitted_bits(x, y), most, strict=True):
        drop = max(0, one.type.fraction_bits - (min(bits, count) if by_slope else bits))
        made = cut(planner, one, drop) if drop and one.type.form is Form.SHARED else None
        operands.append(planner.masked(one if made is None else made))
        dropped.append(drop if made is None else 0)
    return planner.make(TruncatedMultiply((dropped[0], dropped[1])), *operands) if any(dropped) else None


def multiple(planner: Planner, x: Expression, factor: float, fraction_bits: int) -> Expression:
    """``factor``, above 0, times ``x``, with at most so many fraction bits; one opening, which others of ``x`` share.

    Where the field has no room for the product, x is divided by a whole number instead, whose quotient counts with the
    fraction bits that are wanted.
    """
    number = constant(factor, most=2 * MOST_BITS)
    drop = x.type.fraction_bits - fraction_bits
    divisor = round(math.ldexp(1 / factor, drop))
    digits = x.type.fraction_bits + number.type.fraction_bits
    room = digits <= FIELD_BITS and x.type.bits + number.type.bits <= TRUNCATION_BITS - 1
    if room or not 1 << DIVISOR_BITS <= divisor <= MAX_DIVISOR or not fits(x.type, divisor):
        product = planner.product(Multiply(), *((planner.masked(x), number) if room else planner.scaling(x, factor)))
        return planner.truncated(product, fraction_bits)
    return planner.make(Divide(-drop), planner.make(Quotient(divisor), planner.masked(x)))
