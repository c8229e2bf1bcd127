"""Named functions of secret tensors: sigmoid, exp and the like, each an approximation on an interval.

The default is a Fourier fit, one round, or where that is not enough several fits; ``method`` chooses among

* ``"fourier"``: ``protocols/operations/fourier.py``, with ``terms`` or as many as the function's error takes;
* ``"minimax"``: a polynomial of ``degree``, best in the maximum norm;
* ``"taylor"``: the textbook's polynomial around 0, for comparison;
* ``"composite"``: a chain of low-degree polynomials, one round each.

``interval`` is where the approximation holds: by default the declared range of the values, so that nothing is outside.
Where that is long, a function that has tails (sigmoid, tanh, erf, SiLU, GELU, Mish, softplus) is fitted in the middle
and is a line beyond it, exactly: two rounds on any range, for one of one round and a comparison (``approximation/
tails.py``); where it is nearly 0 on all of the range, but above 2^-36, it has a fit of its own, as right as elsewhere.
exp is made of several fits, and is 0 below the last.  An interval that is given may be shorter, which takes fewer
rounds or terms; outside it, a Fourier fit is periodic and a polynomial runs away: the caller sees to it
that values stay inside (``nn.calibrate`` does it for a model).

Errors are at most those of ``FUNCTIONS[name].target``, of values far beyond 1 as a part of the largest, and of values
below it, too, where a range is no longer than the middle; functions that span orders of magnitude (exp, reciprocal,
sqrt, rsqrt, powers) err by a thousandth of each value, too, of values down to a millionth of the largest; of less only
where the field has digits for it, since e^32 leaves 11 behind the point.  Where they span more than 16, 1 / x, roots
and logarithms go by comparison (``normalised.py``), and err by 1e-4 of each value.  All this is of values as they were
shared; where those, or the field, have too few digits for it, a PrecisionWarning says so, or a RangeError, and
``error`` is a bound that holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from mpc.errors import UnsupportedError
from mpc.tensor_type import TensorType
from protocols.approximation import FUNCTIONS, Fit, default_fit, power_fit
from protocols.approximation.tails import exponential, tailed
from protocols.trace import mathematics as m
from protocols.trace.arguments import pair_of_ends
from protocols.trace.normalised import NORMALISED, STEP, normalised
from protocols.trace.spans import Made, PowerOf, spanning
from protocols.trace.unknown import Unknown

SQUARED = 16.0
"""The range on which exp is made of squares, right to a thousandth of each value; beyond, it is made of pieces."""

POWERS = {-1.0: "reciprocal", -0.5: "rsqrt", 0.5: "sqrt"}

PART = 0.25
"""Of the interval whose fit ships: values in less of it get one of their own, which is better or has fewer terms."""


TOLD = 1e-3
"""Of the largest value: what errs by less has digits that tell."""
NEAR = -1.0
"""Up to here what vanishes far below 0 grows; from here on nothing that has tails is nearly 0 throughout."""
NOTHING = 2.0**-36
"""What is smaller is 0: no fit errs by less than 1e-15."""


class RangeWarning(UserWarning):
    """Values may lie outside the interval on which a function is approximated."""


class NamedFunctions(Unknown):
    """Base of ``SecretTensor``."""

    __slots__ = ()

    type: TensorType

    def polynomial(self, coefficients: Sequence[float]) -> Self:
        raise NotImplementedError

    def _new(self, operation: m.Mathematics) -> Self:
        raise NotImplementedError

    def apply(self, fit: object, *, target: float = 0.0, function: str = "") -> Self:
        """An approximation made by ``protocols.approximation`` (``fit``, ``fit_polynomial``, ...).

        Rounding adds at most the fit's own error, or ``target`` where that is larger.  ``function``: the name of what
        it stands for, by which its gradient may cost less than by the fit's own derivative.
        """
        if not isinstance(fit, Fit):
            raise UnsupportedError(f"{type(fit).__name__} is not a fit: make one with protocols.approximation.fit(...)")
        if fit.relative is None:
            return self._applied(fit, target, function)
        options = (fit, target, function)
        made = Made("the function", "_applied", options, fit, (fit.low, fit.high), fit.coarse)
        return spanning(self, made)  # type: ignore[no-any-return]

    def _applied(self, fit: Fit, target: float = 0.0, function: str = "") -> Self:
        """As it is, without a look at its digits."""
        return self._new(m.Apply(fit, target, function))

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

    def sqrt(self, **options: Any) -> Self:
        """The square root, of positive values."""
        return self._function("sqrt", **options)

    def rsqrt(self, **options: Any) -> Self:
        """1 / sqrt(x), of positive values."""
        return self._function("rsqrt", **options)

    def reciprocal(self, **options: Any) -> Self:
        """1 / x, of values above 0, or all below it."""
        if self.type.high < 0 and not options:
            negative: Any = self
            return -(-negative)._function("reciprocal")  # type: ignore[no-any-return]
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

    def gelu(self, *, approximate: str = "none", **options: Any) -> Self:
        """x times the normal distribution function of x; ``approximate="tanh"`` is torch's other form of it."""
        if approximate not in ("none", "tanh"):
            raise UnsupportedError(f"approximate is 'none' or 'tanh', not {approximate!r}")
        return self._function("gelu" if approximate == "none" else "gelu_tanh", **options)

    def softplus(self, **options: Any) -> Self:
        """log(1 + exp(x))."""
        return self._function("softplus", **options)

    def mish(self, **options: Any) -> Self:
        """x tanh(softplus(x))."""
        return self._function("mish", **options)

    def erf(self, **options: Any) -> Self:
        """The error function."""
        return self._function("erf", **options)

    def _function(
        self,
        name: str,
        *,
        method: str = "fourier",
        interval: tuple[float, float] | None = None,
        terms: int | None = None,
        degree: int | None = None,
    ) -> Self:
        """A named function; a warning where it spans more orders of magnitude than there are digits."""
        if interval is not None:
            interval = pair_of_ends(interval)
        function = FUNCTIONS.get(name)
        if function is None or not function.relative or (method, terms, degree) != ("fourier", None, None):
            return self._computed(name, method, interval, terms, degree)
        options = (name, method, interval, terms, degree)
        return spanning(self, Made(name, "_computed", options, function.exact, interval))  # type: ignore[no-any-return]

    def _computed(
        self, name: str, method: str, interval: tuple[float, float] | None, terms: int | None, degree: int | None
    ) -> Self:
        ends = _interval(name, self.type) if interval is None else interval
        chosen = (method, interval, terms, degree) != ("fourier", None, None, None)
        if name in NORMALISED and ends is not None and not chosen and ends[1] > STEP * ends[0]:
            made: Self = normalised(self, name)
            return made
        made_of = None if chosen or ends is None else _with_tails(name, ends)
        fit = made_of or default_fit(name, method, *(ends or (None, None)), terms=terms, degree=degree)
        return self._applied(fit, 0.0 if fit.relative is not None else FUNCTIONS[name].target, name)

    def _power(self, exponent: float) -> Self:
        """x to a real power, of positive values."""
        if not math.isfinite(exponent):
            raise UnsupportedError(f"{exponent} is not a power")
        if exponent == -1.0:
            return self.reciprocal()
        if exponent in POWERS:
            return self._function(POWERS[exponent])
        name = f"x^{exponent:g}"
        fit = power_fit(exponent, *_positive(name, self.type))
        return spanning(self, Made(name, "_applied", (fit,), PowerOf(exponent)))  # type: ignore[no-any-return]

    def _whole_power(self, exponent: int) -> Self:
        """x to a whole power from 0."""
        if exponent < 2 or self.type.low <= 0 <= self.type.high:
            # Values near 0 have no digits of their own.
            return self._product(exponent)
        return spanning(self, Made(f"x^{exponent}", "_product", (exponent,), PowerOf(exponent)))  # type: ignore[no-any-return]

    def _product(self, exponent: int) -> Self:
        return self.polynomial([0.0] * exponent + [1.0])


def _with_tails(name: str, ends: tuple[float, float]) -> Fit | None:
    """On a range that is long for it, if pieces are what it is made of there."""
    low, high = ends
    if name == "exp":
        return exponential(low, high) if high - low > SQUARED else None
    function = FUNCTIONS.get(name)
    if function is None or function.tails is None or (function.low <= low and high <= function.high):
        return None
    # Far below 0 some are nearly 0, the less so the nearer, and of their values nothing would be right: a fit of their
    # own goes by how large they are, as far as there are digits for them.
    if high < NEAR and NOTHING < abs(function.exact(np.array([high]))[0]) < function.target / TOLD:
        return None
    return tailed(name)


def _interval(name: str, t: TensorType) -> tuple[float, float] | None:
    """Where values of this type are: None if that is inside the interval whose fit ships, and no small part of it."""
    function = FUNCTIONS.get(name)
    if function is None:
        return None
    inside = function.low <= t.low and t.high <= function.high
    if inside and t.high - t.low >= PART * (function.high - function.low):
        return None
    return _positive(name, t) if function.low > 0 else _ends(t)


def _positive(name: str, t: TensorType) -> tuple[float, float]:
    if t.low <= 0:
        instead = "; of a sigmoid or a softmax, logsigmoid() and log_softmax() need neither" if name == "log" else ""
        raise UnsupportedError(
            f"{name} of values that are only known to lie in [{t.low:g}, {t.high:g}]: declare a range above 0 with"
            f" within(low, high) or share(..., low=, high=), or give the interval=(low, high) where they are{instead}"
        )
    return _ends(t)


def _ends(t: TensorType) -> tuple[float, float]:
    """A type's range, as an interval that is not a point."""
    unit = 2.0**-t.fraction_bits
    return (t.low, t.high) if t.low < t.high else (t.low, t.high + unit)
