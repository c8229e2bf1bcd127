"""What networks call activations, and has corners or follows from functions that do: right on any range.

Those of lines alone are exact, or within one unit of the precision; ELU and its kind err by 1e-4, or as much times
alpha where that is more.
"""

from __future__ import annotations

import math
from typing import Any, Self

from mpc.errors import UnsupportedError
from protocols.approximation.tails import elu
from protocols.trace import mathematics as m
from protocols.trace.arguments import numbers
from protocols.trace.named_functions import NamedFunctions
from protocols.trace.normalised import STEP
from protocols.trace.selection import Selection

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
"""With which values of mean 0 and variance 1 stay so: Klambauer, Unterthiner, Mayr and Hochreiter, NeurIPS 2017."""

LARGEST_ALPHA = 2.0**10

SMALLEST = 2.0**-60
"""Of values that are told apart."""


class Activations(NamedFunctions, Selection):
    """Base of ``SecretTensor``."""

    __slots__ = ()

    def hardtanh(self, min_val: float = -1.0, max_val: float = 1.0) -> Self:
        """x, but no less than ``min_val`` and no more than ``max_val``; two rounds."""
        return self.clip(min_val, max_val)

    def relu6(self) -> Self:
        """x, but no less than 0 and no more than 6; two rounds."""
        return self.clip(0.0, 6.0)

    def hardsigmoid(self) -> Self:
        """x / 6 + 1/2, but no less than 0 and no more than 1; two rounds."""
        # From 0 on, so that nothing is left over where that is all there is.
        bounded: Any = self.clip(-3.0, 3.0) + 3.0
        result: Self = bounded / 6.0
        return result

    def hardswish(self) -> Self:
        """x times its `hardsigmoid`; three rounds."""
        bounded: Any = self.clip(-3.0, 3.0) + 3.0
        result: Self = self * bounded / 6.0
        return result

    def elu(self, alpha: float = 1.0) -> Self:
        """x where x >= 0, else alpha (exp(x) - 1); two rounds."""
        alpha = check_alpha(alpha)
        if self.type.low >= 0:
            return self
        largest = 2.0 ** math.frexp(max(self.type.magnitude, SMALLEST))[1]
        return self._new(m.Apply(elu(alpha, min(largest, 1.0)), 0.0))

    def selu(self) -> Self:
        """A multiple of `elu`, by torch's constants, whose rounding is 2^-28 of the largest value; two rounds."""
        return self.elu(SELU_ALPHA) * SELU_SCALE

    def celu(self, alpha: float = 1.0) -> Self:
        """alpha times `elu` of x / alpha, which has no corner; two rounds."""
        alpha = check_alpha(alpha)
        return self.elu() if alpha == 1.0 else (self * (1.0 / alpha)).elu() * alpha

    def logsigmoid(self, **options: Any) -> Self:
        """log(sigmoid(x)); two rounds, options as for every function."""
        interval = options.get("interval")
        if interval is not None:
            options["interval"] = (-interval[1], -interval[0])
        return -(-self).softplus(**options)

    def softsign(self) -> Self:
        """x / (1 + |x|), right to a thousandth: the rounds of `reciprocal`, and three more."""
        inverse: Any = (abs(self) + 1.0).reciprocal()
        if self.type.magnitude <= STEP:
            result: Self = self * inverse
            return result
        # Of large values the product would have the digits of neither.
        rest: Any = 1.0 - inverse
        above: Any = self >= 0
        return (above * rest * 2.0 - rest)._new(m.Declare(-1.0, 1.0))  # type: ignore[no-any-return]


def check_alpha(alpha: float) -> float:
    """It, as a float.  Raises UnsupportedError."""
    value = float(numbers(alpha))
    if not 0 < value <= LARGEST_ALPHA:
        raise UnsupportedError(f"alpha is above 0 and up to {LARGEST_ALPHA:g}, not {alpha}")
    return value
