"""Named functions of secret tensors: sigmoid, exp and the like, each an approximation on an interval.

The default is a Fourier fit, one round; ``method`` chooses among

* ``"fourier"``: ``protocols/operations/fourier.py``, with ``terms`` or the default's;
* ``"minimax"``: a polynomial of ``degree``, best in the maximum norm;
* ``"taylor"``: the textbook's polynomial around 0, for comparison;
* ``"composite"``: a chain of low-degree polynomials, one round each.

``interval`` is where the approximation holds; outside, a Fourier fit is periodic and a polynomial runs away: the
caller sees to it that values stay inside (``nn.calibrate`` does it for a model).
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, Self

from mpc.tensor_type import TensorType
from protocols.approximation import FUNCTIONS, Fit, default_fit
from protocols.trace.unknown import Unknown


class RangeWarning(UserWarning):
    """Values may lie outside the interval on which a function is approximated."""


class NamedFunctions(Unknown):
    """Base of ``SecretTensor``."""

    __slots__ = ()

    type: TensorType

    def apply(self, fit: object, *, target: float = 0.0) -> Self:
        raise NotImplementedError

    def sigmoid(self, **options: Any) -> Self:
        """1 / (1 + exp(-x)).  Options as for every function: ``method``, ``interval``, ``terms`` or ``degree``."""
        return self._function("sigmoid", **options)

    def tanh(self, **options: Any) -> Self:
        """The hyperbolic tangent."""
        return self._function("tanh", **options)

    def exp(self, **options: Any) -> Self:
        """e to the power of x."""
        return self._function("exp", **options)

    def log(self, **options: Any) -> Self:
        """The natural logarithm, of positive values."""
        return self._function("log", **options)

    def reciprocal(self, **options: Any) -> Self:
        """1 / x, of positive values."""
        return self._function("reciprocal", **options)

    def sin(self, **options: Any) -> Self:
        """The sine."""
        return self._function("sin", **options)

    def cos(self, **options: Any) -> Self:
        """The cosine."""
        return self._function("cos", **options)

    def silu(self, **options: Any) -> Self:
        """x sigmoid(x)."""
        return self._function("silu", **options)

    def gelu(self, **options: Any) -> Self:
        """x times the normal distribution function of x."""
        return self._function("gelu", **options)

    def softplus(self, **options: Any) -> Self:
        """log(1 + exp(x))."""
        return self._function("softplus", **options)

    def _function(
        self,
        name: str,
        *,
        method: str = "fourier",
        interval: tuple[float, float] | None = None,
        terms: int | None = None,
        degree: int | None = None,
    ) -> Self:
        """A named function."""
        fit = default_fit(name, method, *(interval or (None, None)), terms=terms, degree=degree)
        if interval is None and (self.type.low < fit.low or self.type.high > fit.high):
            warnings.warn(_outside(name, self.type, fit), RangeWarning, stacklevel=_callers())
        return self.apply(fit, target=FUNCTIONS[name].target)


def _callers() -> int:
    """Frames up to whoever wrote the expression: a warning is about that line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        level, frame = level + 1, frame.f_back
    return level


def _outside(name: str, t: TensorType, fit: Fit) -> str:
    return (
        f"{name} is approximated on [{fit.low:g}, {fit.high:g}], and these values are only known to lie in"
        f" [{t.low:g}, {t.high:g}]: results for values outside are wrong. Give interval=(low, high), or declare the"
        " range with within(low, high)"
    )
