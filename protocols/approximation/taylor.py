"""Taylor coefficients of the textbook functions, as exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

from mpc.errors import UnsupportedError

MAX_DEGREE = 31


def bernoulli(n: int) -> Fraction:
    """B_n, with B_1 = -1/2, by the recurrence sum_k C(n+1, k) B_k = 0."""
    numbers = [Fraction(1)]
    for m in range(1, n + 1):
        total = sum((math.comb(m + 1, k) * b for k, b in enumerate(numbers)), Fraction(0))
        numbers.append(-total / (m + 1))
    return numbers[n]


def tanh(k: int) -> Fraction:
    """tanh x = sum_n 2^(2n) (2^(2n) - 1) B_2n x^(2n-1) / (2n)!."""
    if k % 2 == 0:
        return Fraction(0)
    n = k + 1
    return Fraction(2**n * (2**n - 1), math.factorial(n)) * bernoulli(n)


def sigmoid(k: int) -> Fraction:
    """sigmoid x = 1/2 + tanh(x/2) / 2."""
    return Fraction(1, 2) if k == 0 else tanh(k) / 2 ** (k + 1)


def silu(k: int) -> Fraction:
    """x sigmoid(x)."""
    return Fraction(0) if k == 0 else sigmoid(k - 1)


def softplus(k: int) -> Fraction:
    """The integral of sigmoid; its constant, log 2, is the one coefficient that is not rational: to 53 bits."""
    return Fraction(math.log(2.0)) if k == 0 else sigmoid(k - 1) / k


def exp(k: int) -> Fraction:
    return Fraction(1, math.factorial(k))


def sin(k: int) -> Fraction:
    return Fraction((-1) ** (k // 2), math.factorial(k)) if k % 2 else Fraction(0)


def cos(k: int) -> Fraction:
    return Fraction(0) if k % 2 else Fraction((-1) ** (k // 2), math.factorial(k))


def reciprocal(k: int) -> Fraction:
    """1 / x around 1."""
    return Fraction((-1) ** k)


def log(k: int) -> Fraction:
    """log x around 1."""
    return Fraction((-1) ** (k + 1), k) if k else Fraction(0)


def powers_of_x(coefficients: list[Fraction], about: int) -> tuple[float, ...]:
    """From powers of (x - about) to powers of x, rounded once at the end."""
    if not 2 <= len(coefficients) <= MAX_DEGREE + 1:
        raise UnsupportedError(
            f"a Taylor polynomial has degree 1 to {MAX_DEGREE}, not {len(coefficients) - 1}: choose one in between"
        )
    shifted: list[Fraction] = []
    for c in reversed(coefficients):
        # Horner: the polynomial so far times (x - about), plus c.
        raised = [c, *shifted]
        for k, s in enumerate(shifted):
            raised[k] -= about * s
        shifted = raised
    return tuple(float(c) for c in shifted)
