"""Polynomials of a masked tensor, exact in the field, and truncation and a polynomial in one.

Expand around what is public.  For ``x = u + s`` with u public and s shared,

    P(u + s)  =  sum_j  Q_j(u) [s^j],      Q_j(u) = sum_{k >= j} c_k C(k, j) u^(k-j),

so that with shares of s, s^2, ..., s^d dealt, any polynomial of degree d is local.

* ``Polynomial``: u = E, s = a, the mask itself; dealt are a^2, ..., a^d.
* ``TruncatedPolynomial``: of x / 2^f.  After the opening of ``truncation.py`` the quotient is u + s with u public and s
  one of two values the dealer knows: s_0 = -r1, s_1 = -r1 + w, chosen by the public bit b.  Dealt are the d
  powers of both.

The result of degree d of a value with f fraction bits and coefficients of g has d f + g fraction bits, exactly.

Security: nothing is opened here beyond E, which is uniform; dealt shares are fresh and uniform.  The Q_j(u) and the
choice by b are public, so MAC shares of the powers give a share of the result's MAC.
Cost: no round of its own; d - 1 (``Polynomial``) or 2 d (``TruncatedPolynomial``) dealt elements per element.
Source: powers of a mask: Damgard, Fitzi, Kiltz, Nielsen and Toft, Unconditionally Secure Constant-Rounds Multi-party
Computation, TCC 2006; one opening for a polynomial: Lu et al., Polymath, NDSS 2023 and earlier folklore.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.field import P
from mpc.tensor_type import Form, Shape, TensorType
from protocols.operations.truncation import check_truncatable, mask_quotients, opened_quotient

MAX_DEGREE = 32
SAMPLES = 2048


class _PolynomialBase(Operation, frozen=True):
    """``coefficients``: raw integers c_0, ..., c_d with ``coefficient_bits`` fraction bits."""

    coefficients: tuple[int, ...]
    coefficient_bits: int

    @property
    def degree(self) -> int:
        return len(self.coefficients) - 1

    def _result(self, x: TensorType, fraction_bits: int) -> TensorType:
        require(x.ring == FIELD, "takes field elements")
        require(0 < self.degree <= MAX_DEGREE, f"a polynomial has degree 1 to {MAX_DEGREE}")
        require(0 <= self.coefficient_bits <= 60, "coefficient bits are 0 to 60")
        require(all(abs(c) < P // 2 for c in self.coefficients), "coefficients fit the field")
        bits = self.degree * fraction_bits + self.coefficient_bits
        require(bits <= 60, f"{bits} fraction bits do not fit the field")
        real = tuple(c * 2.0**-self.coefficient_bits for c in self.coefficients)
        low, high = polynomial_range(real, x.low, x.high)
        return TensorType(x.shape, bits, low, high, Form.SHARED)

    def _scaled(self, fraction_bits: int) -> list[int]:
        """Coefficients that act on raw values: c_k 2^(f (d - k)), so that all terms have d f + g fraction bits."""
        d = self.degree
        return [c << (fraction_bits * (d - k)) for k, c in enumerate(self.coefficients)]

    def _expand(self, field: PrimeField, u: Array, powers: Sequence[Array], fraction_bits: int) -> Value:
        """P(u + s) from u and shares of s^1 .. s^d."""
        scaled = self._scaled(fraction_bits)
        d = self.degree
        share: Array | None = None
        for j, power in enumerate(powers, start=1):
            factor = horner(field, [scaled[k] * math.comb(k, j) for k in range(j, d + 1)], u)
            share = field.multiply(power, factor) if share is None else field.multiply_add(power, factor, share)
        return Value(horner(field, scaled, u), share)


def horner(field: PrimeField, coefficients: Sequence[int], u: Array) -> Array:
    """sum_k c_k u^k, shaped like u."""
    total = field.full(u.shape, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = field.multiply_add(total, u, field.full((), c))
    return total


@functools.lru_cache(maxsize=1024)
def polynomial_range(coefficients: tuple[float, ...], low: float, high: float) -> tuple[float, float]:
    """Bounds of a polynomial over an interval: samples, widened by what the derivative allows between them.

    Additions and multiplications alone, so that every host computes the same bounds.
    """
    x = low + (high - low) * (np.arange(SAMPLES + 1) * (1.0 / SAMPLES))
    value = np.zeros_like(x)
    # What overflows becomes infinite or NaN, which is not a range: TensorType.check refuses it.
    with np.errstate(over="ignore", invalid="ignore"):
        for c in reversed(coefficients):
            value = value * x + c
    magnitude = max(abs(low), abs(high))
    slope = 0.0
    for k in range(len(coefficients) - 1, 0, -1):
        slope = slope * magnitude + k * abs(coefficients[k])
    slack = slope * (high - low) / (2 * SAMPLES)
    return float(value.min()) - slack, float(value.max()) + slack


def polynomial_slope(coefficients: Sequence[float], low: float, high: float) -> float:
    """A bound on the derivative's magnitude over the interval."""
    derivative = tuple(k * c for k, c in enumerate(coefficients))[1:] or (0.0,)
    return max(abs(v) for v in polynomial_range(derivative, low, high))


def _powers(field: PrimeField, s: Array, highest: int) -> list[Array]:
    powers = [s]
    while len(powers) < highest:
        powers.append(field.multiply(powers[-1], s))
    return powers


class Powers(Correlation, frozen=True):
    """a^2 ... a^d of a mask a."""

    shape: Shape
    degree: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.shape),) * (self.degree - 1)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        return _powers(field_of(rings), masks[0], self.degree)[1:]


class TruncatedPowers(Correlation, frozen=True):
    """The powers 1 to d of both values that the shared part of a quotient by 2^bits may have: s_0, then s_1."""

    shape: Shape
    bits: int
    degree: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.shape),) * (2 * self.degree)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        return [
            power for s in mask_quotients(field, masks[0], 1 << self.bits) for power in _powers(field, s, self.degree)
        ]


@register
class Polynomial(_PolynomialBase, frozen=True, tag="polynomial"):
    """A polynomial of x at the fraction bits it has."""

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].form is Form.MASKED, "takes one masked tensor")
        return self._result(types[0], types[0].fraction_bits)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Powers(types[0].shape, self.degree),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        public, share = (field.or_zeros(part, types[0].shape) for part in (inputs[0].public, inputs[0].share))
        return self._expand(field, public, [share, *(prepared or ())], types[0].fraction_bits)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return horner(field_of(rings), self._scaled(types[0].fraction_bits), inputs[0])


@register
class TruncatedPolynomial(_PolynomialBase, frozen=True, tag="truncated_polynomial"):
    """A polynomial of x after ``bits`` of its fraction bits are dropped."""

    bits: int

    def result(self, *types: TensorType) -> TensorType:
        x = check_truncatable(types, self.bits)
        left = x.fraction_bits - self.bits
        unit = 2.0**-left
        return self._result(x.replace(low=x.low - unit, high=x.high + unit), left)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (TruncatedPowers(types[0].shape, self.bits, self.degree),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, d = field_of(party.rings), self.degree
        public = field.or_zeros(inputs[0].public, types[0].shape)
        opened = opened_quotient(field, public, 1 << self.bits)
        chosen = [field.choose(opened.below_half, prepared[d + k], prepared[k]) for k in range(d)]
        return self._expand(field, opened.quotient, chosen, types[0].fraction_bits - self.bits)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field, left = field_of(rings), types[0].fraction_bits - self.bits
        return horner(field, self._scaled(left), field.quotient_signed(inputs[0], 1 << self.bits))

    def tolerance(self, *types: TensorType) -> float:
        """One unit of the truncated value, times the polynomial's slope."""
        left = types[0].fraction_bits - self.bits
        unit = 2.0**-left
        real = [c * 2.0**-self.coefficient_bits for c in self.coefficients]
        slope = polynomial_slope(real, types[0].low - unit, types[0].high + unit)
        return slope * unit * 2.0 ** (self.degree * left + self.coefficient_bits) + 1
