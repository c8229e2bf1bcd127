"""Softmax and its logarithm: of any values, since the largest is taken off first.

exp(x - max) / sum.  What is more than `DEEPEST` below the largest counts as that, which is less than is told apart, so
that exp and 1 / x have short intervals whatever the range.  Rounds: those of the maximum, of exp, and of 1 / x or log.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

from protocols.trace.arguments import Axis, reduced_axes, reduced_shape
from protocols.trace.counting import Counting

DEEPEST = 16.0
MOST_AS_THEY_ARE = 32
LARGEST_ERROR = 2.0**-6
"""Of exp of 0."""
TOTAL_BITS = 24
"""Fraction bits of a sum of more than `MOST_AS_THEY_ARE`."""


class Exponentials(NamedTuple):
    """exp(x - largest), their sum, x - largest, and the largest."""

    values: Any
    total: Any
    below: Any
    largest: Any


class Softmax(Counting):
    """Base of ``SecretTensor``."""

    __slots__ = ()

    def softmax(self, axis: Axis = -1) -> Self:
        """exp(x) over its sum along some axes; off by about 1e-4 at most."""
        found = _exponentials(self, axis)
        parts: Self = (found.values * found.total.reciprocal()).within(0.0, 1.0 + 2.0**-8)
        return parts

    def log_softmax(self, axis: Axis = -1) -> Self:
        """The logarithm of `softmax`."""
        found = _exponentials(self, axis)
        logs: Self = found.below - found.total.log()
        return logs

    def logsumexp(self, axis: Axis = None, keepdims: bool = False) -> Self:
        """The logarithm of the sum of exp(x) along some axes, by default all."""
        found = _exponentials(self, axis)
        x: Any = self
        axes = reduced_axes(axis, x.ndim)
        shape = reduced_shape(x.shape, axes, keepdims)
        logs: Self = (found.total.log() + found.largest).reshape(shape)
        return logs


def _exponentials(x: Any, axis: Axis) -> Exponentials:
    axes = reduced_axes(axis, x.ndim)
    count = math.prod(x.shape[i] for i in axes)
    largest = x.max(axes, keepdims=True)
    span = x.type.high - x.type.low
    below = (x - largest).within(-span, 0.0)
    seen = below.maximum(-DEEPEST) if span > DEEPEST else below
    values = seen.exp()
    # The largest's own is 1, but for the fit's error, whatever it is off by itself; so no sum is less than about that.
    off = min(values.error.absolute, LARGEST_ERROR)
    total = values.sum(axes, keepdims=True)
    if count > MOST_AS_THEY_ARE:
        # Starting from a guess, as on such an interval, takes room that the digits of exp would fill.
        total = total.truncate(min(total.type.fraction_bits, TOTAL_BITS))
    return Exponentials(values, total.within(1.0 - off, count * (1.0 + off)), below, largest)
