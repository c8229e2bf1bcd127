"""What a fit is judged by: its absolute error, and where a function spans orders of magnitude its relative one too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np

from protocols.approximation.fits import SMALLEST_ERROR, AnyFit, Fit, Reals, grid

RELATIVE = 2.0**-11
"""The relative error that a fit may have, half of a thousandth: as much is left to rounding."""

FLOOR = 2.0**-20
"""Values below this part of the largest are not told apart relatively: an error there counts as one of this part."""


@dataclass(frozen=True)
class Goal:
    """An absolute error to reach, and a relative one too, or None: then only the first counts.

    A fit that reaches both errs at x by at most min(absolute, relative |f(x)|).
    """

    absolute: float
    relative: float | None = None

    def weights(self, values: Reals) -> Reals:
        """What errors of a function of these values count times: 1, or more where the relative one is what counts."""
        if self.relative is None:
            return np.ones_like(values)
        return np.asarray(np.maximum(1.0, self.absolute / (self.relative * _floored(values))))

    def allowed(self, values: Reals, largest: float) -> Reals:
        """By how much a fit may miss each of these, of a function whose magnitudes go up to ``largest``."""
        if self.relative is None:
            return np.full_like(values, self.absolute)
        return np.minimum(self.absolute, self.relative * np.maximum(np.abs(values), FLOOR * largest))

    def judge(self, fit: Fit) -> float:
        """What is to be at most ``absolute``."""
        if self.relative is None or fit.relative is None:
            return fit.error
        return max(fit.error, fit.relative * self.absolute / self.relative)

    def measured(self, fit: AnyFit, function: Callable[[Reals], Reals]) -> AnyFit:
        """The fit with its errors over its interval, the relative one where it counts."""
        x = grid(fit)
        values = function(x)
        errors = np.abs(fit(x) - values)
        made = msgspec.structs.replace(fit, error=max(float(errors.max()), SMALLEST_ERROR))
        if self.relative is None:
            return made
        sizes = np.abs(values)
        return msgspec.structs.replace(
            made,
            relative=max(float((errors / _floored(values)).max()), SMALLEST_ERROR),
            coarse=float(sizes[errors > 4 * RELATIVE * sizes].max(initial=0.0)),
        )


ABSOLUTE = Goal(1.0)
"""Only the absolute error counts."""


def _floored(values: Reals) -> Reals:
    """Magnitudes, but for those that are too small to be told apart."""
    sizes = np.abs(values)
    largest = float(sizes.max())
    return np.asarray(np.maximum(sizes, FLOOR * largest if largest else 1.0))
