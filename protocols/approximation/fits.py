"""What a fit is: coefficients, the interval they were made for, and the maximal error measured over it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

DENSE = 20_001
"""Points at which an error is measured, twice: equally spaced, and clustered at the ends."""

SMALLEST_ERROR = 2.0**-50
"""Stated where less is measured: the measurement's own rounding.  Fraction bits follow from errors, so never 0."""


class FourierFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fourier"):
    """``constant + sum_j cosines[j] cos(2 pi j x / period) + sines[j] sin(...)``, j from 1.

    The period is ``2^period_log2 / multiplier``: that is what the angle of a field element can have.
    Outside [low, high] the function goes on with this period, and is not the one that was fitted.
    """

    multiplier: int
    period_log2: int
    constant: float
    cosines: tuple[float, ...]
    sines: tuple[float, ...]
    low: float
    high: float
    error: float

    @property
    def period(self) -> float:
        """In units of x."""
        return 2.0**self.period_log2 / self.multiplier

    @property
    def terms(self) -> int:
        """Frequencies, without the constant."""
        return max(len(self.cosines), len(self.sines))

    @property
    def gain(self) -> float:
        """Sum of the coefficients' magnitudes: what rounding of the dealt waves is multiplied by."""
        return math.fsum(abs(c) for c in (*self.cosines, *self.sines))

    def __call__(self, x: npt.ArrayLike) -> Reals:
        angle = np.asarray(x, dtype=np.float64) * (2 * math.pi / self.period)
        value = np.full(angle.shape, self.constant)
        for j, c in enumerate(self.cosines, start=1):
            value += c * np.cos(j * angle)
        for j, s in enumerate(self.sines, start=1):
            value += s * np.sin(j * angle)
        return value

    def range(self) -> tuple[float, float]:
        """Bounds over a whole period, and so for every x: samples, widened by what the slope allows between."""
        values = self(np.linspace(0.0, self.period, DENSE))
        slope = sum(
            2 * math.pi / self.period * j * abs(c)
            for part in (self.cosines, self.sines)
            for j, c in enumerate(part, start=1)
        )
        slack = slope * self.period / (2 * (DENSE - 1))
        return float(values.min()) - slack, float(values.max()) + slack


class PolynomialFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="polynomial"):
    """``coefficients[0] + coefficients[1] x + ...`` on [low, high]; outside, it grows without bound."""

    coefficients: tuple[float, ...]
    low: float
    high: float
    error: float
    kind: str = "minimax"

    @property
    def degree(self) -> int:
        """The highest power."""
        return len(self.coefficients) - 1

    def __call__(self, x: npt.ArrayLike) -> Reals:
        points = np.asarray(x, dtype=np.float64)
        value = np.zeros_like(points)
        for c in reversed(self.coefficients):
            value = value * points + c
        return value


class CompositeFit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="composite"):
    """Polynomials one after the other, each of low degree and one round: high degree in few rounds."""

    stages: tuple[PolynomialFit, ...]
    low: float
    high: float
    error: float

    @property
    def degree(self) -> int:
        """The highest power, were it written as one polynomial."""
        return math.prod(stage.degree for stage in self.stages)

    def __call__(self, x: npt.ArrayLike) -> Reals:
        value = np.asarray(x, dtype=np.float64)
        for stage in self.stages:
            value = stage(value)
        return value


Fit = FourierFit | PolynomialFit | CompositeFit


_AnyFit = TypeVar("_AnyFit", FourierFit, PolynomialFit, CompositeFit)


def measured(fit: _AnyFit, function: Callable[[Reals], Reals]) -> _AnyFit:
    """The fit with its maximal error over its interval, measured on a dense grid."""
    x = dense_grid(fit.low, fit.high)
    error = float(np.abs(fit(x) - function(x)).max())
    return msgspec.structs.replace(fit, error=max(error, SMALLEST_ERROR))


@functools.lru_cache(maxsize=32)
def dense_grid(low: float, high: float) -> Reals:
    """Equally spaced and clustered at the ends, where errors of fits are largest."""
    even = np.linspace(low, high, DENSE)
    clustered = (low + high) / 2 - (high - low) / 2 * np.cos(np.linspace(0, math.pi, DENSE))
    grid = np.unique(np.clip(np.concatenate([even, clustered]), low, high))
    grid.flags.writeable = False
    return grid
