"""Functions of more orders of magnitude than there are digits: of which arguments less than three are left, and who is
told so.

It is looked at by computing: on points all over the declared range, in the fixed-point numbers that parties compute
with, beside float64.  So what is right is never warned of, however it is made; it takes some ten milliseconds, once for
each function, range and number of fraction bits.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mpc import fixed_point
from mpc.operation import Constant, Input, Linear, Stored
from mpc.program import Expression, Program
from mpc.tensor_type import Form, TensorType
from protocols.approximation.fits import Reals
from protocols.lowering.error import followed, rounding_of
from protocols.lowering.plan import lowered, plan
from protocols.lowering.planner import FRACTION_BITS
from protocols.lowering.precision import PrecisionWarning
from protocols.operations.mask import Mask
from protocols.operations.product import Product
from protocols.operations.quotient import Quotient
from protocols.operations.truncation import Truncate
from protocols.readings.clear import clear
from protocols.trace import mathematics as m
from protocols.trace.author import callers

WORSE = 2e-3
"""The part of a value that is warned of: a fit errs by half a thousandth, rounding by as much, and so does what the
argument has lost."""

POINTS = 96
"""Evenly spaced, and as many again by orders of magnitude."""

_EVEN = (Input, Stored, Constant, Linear, Mask, Truncate, Quotient)


@dataclass(frozen=True)
class PowerOf:
    """x to a power."""

    exponent: float

    def __call__(self, x: Reals) -> Reals:
        return np.asarray(x**self.exponent)


@dataclass(frozen=True)
class Made:
    """How a tensor is made of another one, by a method of it that warns of nothing, and what is meant by that."""

    name: str
    how: str
    options: tuple[object, ...]
    exact: Callable[[Reals], Reals]
    interval: tuple[float, float] | None = None
    coarse: float = 0.0
    """Of values below this, some are off by as much already by what ``exact`` is a fit of."""

    def of(self, x: Any) -> Any:
        return getattr(x, self.how)(*self.options)


class Thin(NamedTuple):
    """Arguments between which results are off by more than ``WORSE`` of themselves, or some are."""

    low: float
    high: float


def spanning(x: Any, made: Made) -> Any:
    """``made`` of ``x``; warns where values of the declared range come out with less than three digits.

    Not in a layer of a network: whoever imports one compares its results.
    """
    result = made.of(x)
    if x.label or not result.size:
        return result
    low, high = x.type.low, x.type.high
    if made.interval is not None:
        low, high = max(low, made.interval[0]), min(high, made.interval[1])
    # In steps, so that few are looked at.
    lost = _evenly_lost(lowered(x.node))
    lost = 2.0 ** math.ceil(math.log2(lost)) if lost else 0.0
    kind: Any = type(x)
    t = x.type.replace(shape=(), form=Form.MASKED, gain=None)
    thin = _thin(made, kind, t, (low, high), x.precision, lost) if low < high else None
    if thin is not None:
        warnings.warn(
            f"{made.name} on [{low:g}, {high:g}]: where its argument is from {thin.low:.4g} to {thin.high:.4g}, less"
            " than three digits are left of each value: declare the range that arguments have, with within(low, high),"
            " bound them with clip(low, high), or share them with more fraction_bits; where all orders of magnitude"
            " count, compute with logarithms",
            PrecisionWarning,
            stacklevel=callers(),
        )
    return result


def _evenly_lost(x: Expression) -> float:
    """What values have lost, whatever their size: by rounding, and linear operations.  A product of secrets has lost
    the less the smaller it is, and only its last digit is counted."""
    for each in Program.order([x]):
        operation = each.operation
        by_public = isinstance(operation, Product) and any(y.type.form is Form.PUBLIC for y in each.inputs)
        if not (by_public or isinstance(operation, _EVEN)):
            return rounding_of(x.type)
    return followed(x).usual


@functools.lru_cache(maxsize=512)
def _thin(
    made: Made, kind: Callable[..., Any], t: TensorType, ends: tuple[float, float], precision: int | None, lost: float
) -> Thin | None:
    """Of arguments of type ``t`` between ``ends``, which are off by ``lost``."""
    x = _points(*ends, 2.0**-t.fraction_bits)
    if not x.size:
        return None
    with np.errstate(all="ignore"):
        wanted = made.exact(x)
        near = [made.exact(np.clip(x + off, *ends)) for off in (-lost, lost)]
    secret = kind(m.Node(m.Secret(Input(x.shape, t.fraction_bits, t.low, t.high))), "", precision)
    program = plan(m.Graph((made.of(secret).node,), (), FRACTION_BITS if precision is None else precision))
    # What has more bits behind its point than the field has is small.
    beyond = max(0, t.fraction_bits - fixed_point.CAPACITY_BITS + 1)
    result, *_ = clear(program, [fixed_point.encode(x * 2.0**beyond, t.fraction_bits - beyond)])
    got = fixed_point.decode(result, program.nodes[program.outputs[0]].type.fraction_bits)
    sizes = np.maximum(np.abs(wanted), np.finfo(float).tiny)
    off = (np.abs(got - wanted) + np.max([np.abs(each - wanted) for each in near], axis=0)) / sizes
    worse = x[(off > WORSE) | (sizes < made.coarse)]
    return Thin(float(worse.min()), float(worse.max())) if worse.size else None


def _points(low: float, high: float, unit: float) -> Reals:
    """Over an interval, as they are encoded."""
    x = [np.linspace(low, high, POINTS)]
    for least, most, sign in ((low, high, 1.0), (-high, -low, -1.0)):
        if least > 0:
            x.append(sign * np.geomspace(least, most, POINTS))
    raw = np.unique(np.rint(np.concatenate(x) / unit))
    return np.asarray(raw[(raw >= math.ceil(low / unit)) & (raw <= math.floor(high / unit))] * unit)
