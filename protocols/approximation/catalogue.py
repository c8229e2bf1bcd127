"""The named functions: the true function, its interval, and what happens outside."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from protocols.approximation.fits import Reals

PERIODIC = "periodic: wrong outside the interval"


@dataclass(frozen=True)
class Function:
    """A named function.  ``terms`` are those of its default Fourier fit, ``target`` the error it was chosen for."""

    name: str
    exact: Callable[[Reals], Reals]
    low: float
    high: float
    terms: int
    target: float
    odd: bool = False
    """Odd about (0, f(0))."""
    taylor: Callable[[int], Fraction] | None = None
    """The coefficient of x^k around ``about``."""
    about: float = 0.0
    outside: str = PERIODIC


def sigmoid(x: Reals) -> Reals:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _gelu(x: Reals) -> Reals:
    from scipy.special import erf

    return np.asarray(0.5 * x * (1.0 + erf(x / math.sqrt(2.0))))


def _bernoulli(n: int) -> Fraction:
    """B_n, with B_1 = -1/2, by the recurrence sum_k C(n+1, k) B_k = 0."""
    numbers: list[Fraction] = []
    for m in range(n + 1):
        numbers.append(
            Fraction(1) if m == 0 else -sum((math.comb(m + 1, k) * numbers[k] for k in range(m)), Fraction(0)) / (m + 1)
        )
    return numbers[n]


def _tanh_coefficient(k: int) -> Fraction:
    """tanh x = sum 2^(2n) (2^(2n) - 1) B_2n x^(2n-1) / (2n)!."""
    if k % 2 == 0:
        return Fraction(0)
    n = k + 1
    return Fraction(2**n * (2**n - 1)) * _bernoulli(n) / math.factorial(n)


def _sigmoid_coefficient(k: int) -> Fraction:
    """sigmoid x = 1/2 + tanh(x/2) / 2."""
    return Fraction(1, 2) if k == 0 else _tanh_coefficient(k) / 2 ** (k + 1)


def _sin_coefficient(k: int) -> Fraction:
    return Fraction((-1) ** (k // 2), math.factorial(k)) if k % 2 else Fraction(0)


def _cos_coefficient(k: int) -> Fraction:
    return Fraction(0) if k % 2 else Fraction((-1) ** (k // 2), math.factorial(k))


def _log_coefficient(k: int) -> Fraction:
    return Fraction((-1) ** (k + 1), k) if k else Fraction(0)


FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        Function("sigmoid", sigmoid, -8, 8, 8, 2e-4, odd=True, taylor=_sigmoid_coefficient),
        Function("tanh", np.tanh, -8, 8, 16, 2e-4, odd=True, taylor=_tanh_coefficient),
        Function("exp", np.exp, -8, 0, 8, 1e-5, taylor=lambda k: Fraction(1, math.factorial(k))),
        Function("silu", lambda x: x * sigmoid(x), -8, 8, 11, 1e-4),
        Function("gelu", _gelu, -8, 8, 12, 1e-4),
        Function("softplus", lambda x: np.logaddexp(0.0, x), -8, 8, 10, 1e-4),
        Function("reciprocal", np.reciprocal, 0.5, 8, 16, 1e-4, taylor=lambda k: Fraction((-1) ** k), about=1.0),
        Function("log", np.log, 0.02, 1, 16, 1e-3, taylor=_log_coefficient, about=1.0),
        Function("sin", np.sin, -math.pi, math.pi, 6, 1e-5, odd=True, taylor=_sin_coefficient),
        Function("cos", np.cos, -math.pi, math.pi, 6, 1e-5, taylor=_cos_coefficient),
    )
}  # fmt: skip
