"""Softmax and its logarithm: of any values, since the largest is taken off first.

exp(x - max) / sum.  What is more than `DEEPEST` below the largest counts as that, which is less than is told apart, so
that exp and 1 / x have short intervals whatever the range, and fits that ship: 4e-7 of exp, 1e-6 of 1 / x and log.
Rounds: those of the maximum, one of exp, and one of 1 / x or log, more where more than 16 are summed, and a product.

Of values that are assumed to be near to their mean, that is taken off, which is free, and no maximum is looked for: in
attention to 128 tokens, 4 rounds are left of 25, and half of what is opened and dealt.  By Jensen's inequality the sum
of so many exponentials is no less than as many of their mean's, so 1 / x has a short interval here, too.  Where values
are relative to one of them they are assumed to be small first, of what is opened: then the field has room for the mean
of what is masked, with all its digits, and that takes no round of its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from protocols.approximation.defaults import normal_fits
from protocols.trace import mathematics as m
from protocols.trace.arguments import Axis, numbers, real, reduced_axes, reduced_shape
from protocols.trace.comparisons import check_bits
from protocols.trace.counting import Counting
from protocols.trace.normalised import TOLERANCE, normalised, thresholds_of

DEEPEST = 16.0
FEW = 16
"""Values that are summed: of more, exp is the square of that of their halves, a round more."""
OFF = 2.0**-6
"""What the largest's exponential may be off from 1, at most: rounding."""
FINER = 4
"""Bits that a factor which makes a mean of a sum may have beyond those of their number."""
UNIT = 2.0**-16
"""By which parts may exceed 0 and 1: more than what they are off by."""

NEAR = 10.0
"""An interval of exp that is no longer needs no square: a millionth of 1 is a hundredth of a thousandth of the rest."""
PRECISE = 24
"""Fraction bits of exponentials that no 1 is among."""
EXP_ERROR = 2.0**-19
"""Of them, before they are squared: of the fit, and rounding."""
FURTHEST = 8.0
"""From the mean: of values further below the largest that may be, fixed-point numbers have too few digits left."""


class Exponentials(NamedTuple):
    """exp(x - largest), their sum, x - largest, and the largest."""

    values: Any
    total: Any
    below: Any
    largest: Any
    axes: tuple[int, ...]


class Softmax(Counting):
    """Base of ``SecretTensor``."""

    __slots__ = ()

    def softmax(
        self,
        axis: Axis = -1,
        where: npt.ArrayLike | None = None,
        *,
        reach: float | None = None,
        relative: bool = False,
    ) -> Self:
        """exp(x) over its sum along some axes; off by about 1e-5 at most.

        ``where``: public 0 and 1, which broadcast to x: what is 0 has no part.  ``reach``, up to 8: x is taken to be
        no further from its mean, as by ``assumed``, with fewer rounds; off by 1e-4 then.  ``relative``, with it: of x
        what has a part is less one of its values, so it is taken to be no further than twice that from 0: two rounds
        less, since a mean of values that are known to be small is exact.
        """
        seen = None if where is None else numbers(where)
        if reach is None:
            found = _exponentials(self, axis, seen)
            parts: Any = (found.values * normalised(found.total, "reciprocal")).within(-UNIT, 1.0 + UNIT)
        else:
            parts, found = _about_mean(self, axis, seen, real(reach, "reach"), relative=relative)
        return parts._joined(m.Called("softmax", found.axes), parts, self)  # type: ignore[no-any-return]

    def log_softmax(self, axis: Axis = -1) -> Self:
        """The logarithm of `softmax`."""
        found = _exponentials(self, axis)
        logs = found.below - normalised(found.total, "log")
        return logs._joined(m.Called("log_softmax", found.axes), logs, self, found.values, found.total)  # type: ignore[no-any-return]

    def logsumexp(self, axis: Axis = None, keepdims: bool = False) -> Self:
        """The logarithm of the sum of exp(x) along some axes, by default all."""
        found = _exponentials(self, axis)
        x: Any = self
        axes = reduced_axes(axis, x.ndim)
        logs = normalised(found.total, "log") + found.largest
        logs = logs._joined(m.Called("logsumexp", axes), logs, x, found.values, found.total)
        return logs.reshape(reduced_shape(x.shape, axes, keepdims))  # type: ignore[no-any-return]


def exponentials(x: Any, axis: Axis) -> Exponentials:
    """Of values whose declared range is short, less their mean, which is free, and not their maximum: so their sum is
    known to lie where one fit of 1 / x holds, without a comparison.  Of others as for `softmax`.

    The exponentials are opened here, so that their sum needs no opening of its own.
    """
    axes = reduced_axes(axis, x.ndim)
    count = math.prod(x.shape[i] for i in axes)
    span = x.type.high - x.type.low
    # Any number that is near to the mean will do; the fewer bits a factor has, the more room there is for x.
    for bits in range(count.bit_length() + FINER):
        factor = math.ldexp(round(math.ldexp(1.0, bits) / count), -bits)
        sums = _sums(span, count, abs(factor * count - 1.0) * x.type.magnitude)
        if sums is not None:
            less, lowest, low, high = sums
            below = (x - x.sum(axes, keepdims=True) * factor - less).within(lowest, 0.0)
            values = below.apply(normal_fits()["exp"], function="exp")._new(m.Masked())
            return Exponentials(values, values.sum(axes, keepdims=True).within(low, high), below, 0.0, axes)
    return _exponentials(x, axis)


def _sums(span: float, count: int, off: float) -> tuple[float, float, float, float] | None:
    """Of ``count`` values in a range of this length, less what is ``off`` their mean at most: what else to take off, so
    that none is above 0, the lowest then, and from where to where the sum of their exponentials goes.  None where that
    is too far.
    """
    top, step = span * (count - 1) / count + off, span / count
    if 2 * top > DEEPEST:
        return None
    # Of k at the upper end and the others at the lower one.
    most = max(k * math.exp(step * (1 - k)) + (count - k) * math.exp(-top - step * k) for k in range(1, count + 1))
    low, high = count * math.exp(-top - off) * (1 - UNIT), most * (1 + UNIT)
    # As much less as has sums begin where the interval of the fit of 1 / x does.
    base, _ = thresholds_of(low, high)
    less = max(0.0, math.log(low / (base * (1 - TOLERANCE))) - UNIT)
    low, high = low * math.exp(-less), high * math.exp(-less)
    lowest = -2 * top - less
    return None if thresholds_of(low, high)[1] or lowest < -DEEPEST else (top + less, lowest, low, high)


def _exponentials(x: Any, axis: Axis, where: npt.NDArray[np.float64] | None = None) -> Exponentials:
    axes = reduced_axes(axis, x.ndim)
    count = math.prod(x.shape[i] for i in axes)
    span = x.type.high - x.type.low
    if where is not None:
        where = _checked(where, x.shape, axes)
        # As low as any: not the largest, unless all are.
        x = x * where + (1.0 - where) * x.type.low
    largest = x.max(axes, keepdims=True)
    below = (x - largest).within(-span, 0.0)
    # Of many, what each is off by adds up: that of a square is small where it is small.
    times = 1 if count <= FEW else 2
    # What is cut on the way may be beyond by a unit.
    seen = below.maximum(-DEEPEST * times).within(-DEEPEST * times, 0.0) if span > DEEPEST * times else below
    values = (seen / times).apply(normal_fits()["exp"]) ** times
    values = values if where is None else values * where
    # The largest's own is 1, whatever it is off by itself; so no sum is less than about that.
    total = values.sum(axes, keepdims=True).within(1.0 - OFF, count * (1.0 + OFF))
    return Exponentials(values, total, below, largest, axes)


def _about_mean(
    x: Any, axis: Axis, where: npt.NDArray[np.float64] | None, reach: float, *, relative: bool
) -> tuple[Any, Exponentials]:
    """The softmax of values that are assumed to be no further than ``reach`` from the mean of those that have a part;
    and what it is made of.  Raises UnsupportedError."""
    if not 0 < reach <= FURTHEST:
        raise UnsupportedError(f"values may be up to {FURTHEST:g} from their mean, not {reach:g}")
    axes = reduced_axes(axis, x.ndim)
    where = None if where is None else _checked(where, x.shape, axes)
    given = x
    shown = x if where is None else x * where
    if relative:
        # Both are watched: beyond twice the reach a mean might wrap, and be taken for a small one.
        x = shown = shown.assumed(-2 * reach, 2 * reach)
    counts = np.full((1,) * x.ndim, float(math.prod(x.shape[i] for i in axes)))
    counts = counts if where is None else where.sum(axes, keepdims=True)
    number = float(counts.max())
    # What makes up for sums of fewer, up to a half: exact.
    factor = np.exp2(np.floor(np.log2(number / counts)))
    same = bool((factor == 1.0).all())
    sums = shown.sum(axes, keepdims=True)
    if relative and not same:
        # Now all are of about as many, so that what makes a mean of them has as many digits of the field as they need.
        most = number * x.type.magnitude
        sums, parts_of = (sums * factor)._new(m.Known(-most, most, as_it_is=True)), counts * factor
    else:
        parts_of = counts
    # So that what is taken for the mean is hardly off it, whatever values are.
    bits = math.frexp(number * max(x.type.magnitude, 1.0) / OFF)[1]
    shares = np.ldexp(np.round(np.ldexp(1.0, bits) / parts_of), -bits)
    off = float(np.abs(shares * parts_of - 1.0).max()) * x.type.magnitude + UNIT
    mean = sums * shares
    if relative:
        most = x.type.magnitude + off
        mean = mean._new(m.Known(-most, most, as_it_is=True))
    near = x - mean
    near = (near if where is None else near * where).assumed(-reach, reach)
    near = near._new(m.Known(-reach, reach, as_it_is=True))
    # Sums are of so many on average, and as much less as lets them begin where the interval of the fit of 1 / x does.
    fewest = float((counts * factor).min())
    low, high = (number * math.exp(end - reach) for end in (-off, off + math.log(math.cosh(reach))))
    low, high = low * (1 - OFF) * fewest / number, high * (1 + OFF)
    base, _ = thresholds_of(low, high)
    less = max(0.0, math.log(low / (base * (1 - TOLERANCE))) - UNIT)
    times = 1 if 2 * reach + less <= NEAR else 2
    low, high, lowest = low * math.exp(-less), high * math.exp(-less), -(2 * reach + less) / times
    below = ((near - (reach + less)) / times).within(lowest, 0.0).precise(PRECISE)
    values = below.apply(normal_fits()["exp"], function="exp") ** times
    values = (values if where is None else values * where)._new(m.Masked())
    total = values.sum(axes, keepdims=True)
    total = (total if same else total * factor)._new(m.Known(low, high, as_it_is=True))
    inverse = normalised(total, "reciprocal")
    # By Cauchy and Schwarz roots of exponentials sum up to no more than that of their number times their sum.
    own = 2 * times * EXP_ERROR * math.exp((reach + less + off) / times) + 2 * UNIT
    parts = values * (inverse if same else inverse * factor)
    parts = parts._new(m.Known(-own, 1.0 + own, as_it_is=True))
    # No part is off by more than half of what all values are off by.
    parts = parts._joined(m.Like(((0.5, 0.5),), own, own / 4), parts, given)
    return type(x)(parts.node, x.label, x.precision), Exponentials(values, total, below, 0.0, axes)


def _checked(where: npt.NDArray[np.float64], shape: Shape, axes: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Of x's shape, of 0 and 1, and something along the axes everywhere."""
    check_bits("softmax", where)
    try:
        where = np.broadcast_to(where, shape)
    except ValueError:
        raise ShapeError(f"where, of shape {where.shape}, does not broadcast to {shape}") from None
    if not where.any(axis=axes).all():
        raise ShapeError("where leaves nothing along the axes of a softmax")
    return where
