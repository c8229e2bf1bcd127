"""What a Fourier series loses by itself, and how steep it is: of the rule in ``error.py``."""

from __future__ import annotations

import functools
import math

import numpy as np

from mpc.rings.prime_field import SINE_BITS
from protocols.operations import fourier

POINTS = 256
"""At which the slope of a series is sampled, on an interval of a period or less."""


def series_rounding(operation: fourier.Fourier) -> float:
    """Of the public factors, of the dealt waves, and of the angle, at worst.

    A term of amplitude m is two public factors, with |cos| + |sin| <= sqrt 2 of waves beside them; sines are off by
    (6 K + 2) 2^-30, angles of both by a unit, and of the period by two (``protocols/operations/fourier.py``).
    """
    unit = 2.0 ** -(operation.public_bits + fourier.EXTRA_BITS)
    amplitudes = [unit * (abs(b) + abs(d)) for b, d in zip(operation.cosines, operation.sines, strict=True)]
    gain, terms = sum(amplitudes), operation.terms
    sines = (6 * terms + 2) * 2.0**-SINE_BITS
    public = terms * 2.0 ** -(operation.public_bits + 1) + gain * sines
    dealt = gain * (2.0 ** -(operation.dealt_bits + 1) + sines)
    turn = 2 * 2.0**-32 + 2 * 2.0**-operation.period_bits
    angle = sum(j * m for j, m in enumerate(amplitudes, start=1)) * 2 * math.pi * turn
    rest = 2.0 ** -(operation.public_bits + operation.dealt_bits + 1)
    return math.sqrt(2) * (public + dealt) * (1 + sines + 2.0**-operation.dealt_bits) + angle + rest


@functools.lru_cache(maxsize=1024)
def series_slope(operation: fourier.Fourier, period: float, low: float, high: float) -> float:
    """A bound on the derivative's magnitude over the interval, or over a period where that is shorter."""
    unit = 2.0 ** -(operation.public_bits + fourier.EXTRA_BITS)
    turn = 2 * math.pi / period
    if high - low > period:
        low, high = 0.0, period
    j = np.arange(1, operation.terms + 1)
    cosines, sines = (unit * np.array(part, float) for part in (operation.cosines, operation.sines))
    angles = turn * j * np.linspace(low, high, POINTS)[:, None]
    sampled = np.abs((-np.sin(angles) * cosines + np.cos(angles) * sines) @ (turn * j)).max()
    bend = turn**2 * float(j**2 @ (np.abs(cosines) + np.abs(sines)))
    return float(sampled) + bend * (high - low) / (2 * (POINTS - 1))
