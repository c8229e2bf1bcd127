"""How much an error goes on with in a product: at most, and usually."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mpc import fixed_point
from mpc.operation import Constant, Stored
from mpc.program import Expression
from mpc.tensor_type import Form, TensorType
from protocols.operations import product

SEEN = 4.0
"""Standard deviations that are seen among a million values."""


class Factors(NamedTuple):
    """Of an error: at most; usually, where elements of a sum are off alike; and where they are not."""

    most: float
    alike: float
    apart: float


def factor(operation: product.Product, x: Expression, other: Expression, side: str, layer: str) -> Factors:
    """What an error in ``x`` is multiplied by in a product with ``other``.

    Usually, the values of a secret one are independent, and spread over their range.  In a layer, weights have either
    sign, and what is between layers is far below its range.
    """
    types = (x.type, other.type) if side == "left" else (other.type, x.type)
    count, t = operation._inner(*types), other.type
    if isinstance(other.operation, Constant):
        if count == 1:
            return Factors(t.magnitude, t.magnitude, t.magnitude)
        return _norms(operation, other.operation, t, side, count)
    most = t.magnitude * count
    if side == "left" and t.gain is not None:
        most = min(most, t.gain)
    if layer and t.gain is not None:
        # The sum of squares is no more than that of magnitudes, times the largest.
        norm = min(most, math.sqrt(t.gain * t.magnitude))
        return Factors(most, norm, norm)
    if layer and not isinstance(x.operation, Stored):
        least = min(most, max(0.0, t.low, -t.high) * math.sqrt(count))
        return Factors(most, least, least)
    if x.type.form is Form.PUBLIC or x is other:
        # It meets the end of the other's range somewhere.
        return Factors(most, most, min(most, t.magnitude * math.sqrt(count)))
    usual = min(most, math.sqrt(count) * spread_over(t).apart)
    if layer or count == 1:
        return Factors(most, usual, usual)
    alike = count * abs(t.low + t.high) / 2 + SEEN * math.sqrt(count) * (t.high - t.low) / math.sqrt(12)
    return Factors(most, min(most, alike), usual)


def spread_over(t: TensorType) -> Factors:
    """Of one factor with values spread over their range, whose mean square counts."""
    usual = math.sqrt((t.low * t.low + t.low * t.high + t.high * t.high) / 3)
    return Factors(t.magnitude, usual, usual)


def _norms(operation: product.Product, constant: Constant, t: TensorType, side: str, count: int) -> Factors:
    """Of what an element of the result is summed with: the greatest sum of magnitudes, and root of that of squares."""
    values = np.abs(fixed_point.decode(constant.array(), t.fraction_bits))
    if isinstance(operation, product.Conv2d):
        if side == "right":
            return Factors(t.magnitude * count, t.magnitude * count, t.magnitude * math.sqrt(count))
        axes: tuple[int, ...] | int = (1, 2, 3)
    else:
        axes = -1 if side == "right" or values.ndim == 1 else -2
    sums, squares = values.sum(axis=axes), (values * values).sum(axis=axes)
    most = float(np.max(sums, initial=0.0))
    return Factors(most, most, math.sqrt(float(np.max(squares, initial=0.0))))
