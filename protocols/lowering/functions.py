"""From a fit or a list of coefficients to nodes of a program."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from mpc.errors import RangeError, UnsupportedError
from mpc.program import Expression
from mpc.tensor_type import FIELD_BITS, TRUNCATION_BITS, TensorType
from protocols.approximation import FourierFit
from protocols.approximation.fits import attained, smallest
from protocols.approximation.goal import RELATIVE
from protocols.approximation.search import SLACK
from protocols.lowering.error import Loss, since
from protocols.lowering.planner import FRACTION_BITS, Planner, constant, leading_zeros
from protocols.operations.fourier import EXTRA_BITS, MAX_DEALT_BITS, MAX_PERIOD_BITS, MAX_PUBLIC_BITS, Fourier, Waves
from protocols.operations.linear import Add, Declare, Divide, Subtract
from protocols.operations.polynomial import Polynomial, TruncatedPolynomial, polynomial_range, polynomial_slope
from protocols.operations.product import Multiply

ANGLE_BITS = 28
"""An angle needs this many bits of x per period for its rounding not to show."""

GOOD_ENOUGH = 2.0**-12
"""A polynomial takes one round when its fixed-point error stays below this part of its range; of 1, or twice the part,
where its range is smaller."""

NARROWER = 1.25
"""A range is worth declaring from this factor on."""

SIGMAS = 6.0
"""A rounding error beyond this many standard deviations is not seen in practice."""


def fourier(
    planner: Planner,
    x: Expression,
    fit: FourierFit,
    target: float = 0.0,
    rounding: float | None = None,
    *,
    by_waves: bool = False,
) -> Expression:
    """One opening; the result is not truncated, the next operation does it if it must.

    Rounding stays below the fit's own error, or below ``target`` where that is larger, or else below ``rounding``; of a
    fit that is judged by its relative error, below that part of its smallest value.  Each fraction bit less or more
    than the usual ones that the computation keeps doubles or halves what is allowed.

    ``by_waves``: by those that there are for another function of the same period, whatever their bits, if there are.
    """
    # More fraction bits cost nothing here, and make the period long in units.
    needed = max(0, ANGLE_BITS - (x.type.fraction_bits + fit.period_log2))
    if x.type.fraction_bits + fit.period_log2 > MAX_PERIOD_BITS:
        x = planner.truncated(x, MAX_PERIOD_BITS - fit.period_log2)
    elif needed and x.type.fits(FIELD_BITS, extra=needed):
        x = planner.raised(x, needed)
    period_bits = x.type.fraction_bits + fit.period_log2
    if period_bits < ANGLE_BITS // 2:
        raise RangeError(f"{x.type.fraction_bits} fraction bits are too few for this function: share x with more")
    terms = max(len(fit.cosines), len(fit.sines), 1)
    # Coefficients are below 8, two of one term together: of larger functions a part is evaluated, and multiplied; small
    # ones are evaluated as a multiple, so that their first digits are not the field's last.
    both = itertools.zip_longest(fit.cosines, fit.sines, fillvalue=0.0)
    exact = rounding is not None or fit.relative is not None
    largest = max(abs(fit.constant), *(abs(c) + abs(d) if exact else 2 * max(abs(c), abs(d)) for c, d in both))
    part = 2.0 ** _scale(largest, exact)
    cosines, sines = (tuple(c / part for c in w) + (0.0,) * (terms - len(w)) for w in (fit.cosines, fit.sines))
    # Fewer bits leave more room for what comes after.  Rounding errors are independent and uniform, those of 2 terms
    # public factors and those of the dealt waves times the coefficients: six standard deviations of the first take
    # three quarters of what is allowed, and of the second one quarter.
    target *= min(1.0, max(map(abs, fit.range())))
    allowed = max(fit.error, target) if rounding is None else rounding
    if fit.relative is not None and rounding is None:
        allowed = min(allowed, max(fit.relative, RELATIVE) * smallest(fit))
    error = max(allowed / part, 2.0**-40) * 2.0 ** (FRACTION_BITS - planner.fraction_bits)
    gain = sum(abs(c) for c in (*cosines, *sines))
    norm = math.sqrt(sum(c * c for c in (*cosines, *sines)))
    public_bits = _bits(SIGMAS * math.sqrt(2 * terms / 12) / (0.75 * error), MAX_PUBLIC_BITS)
    dealt_bits = _bits(SIGMAS * norm / math.sqrt(12) / (0.25 * error), MAX_DEALT_BITS)
    masked = planner.masked(x)
    waves = [Waves(fit.multiplier, period_bits, terms, bits) for bits in range(MAX_DEALT_BITS + 1)]
    if by_waves:
        dealt_bits = next((made.dealt_bits for made in waves if masked.has(made)), dealt_bits)
    scale = 2.0 ** (public_bits + EXTRA_BITS)
    low, high = (end / part for end in fit.range())
    slack = (terms + gain) * 2.0 ** -min(public_bits, dealt_bits)
    operation = Fourier(
        multiplier=fit.multiplier,
        period_bits=period_bits,
        constant=round(fit.constant / part * scale),
        cosines=tuple(round(c * scale) for c in cosines),
        sines=tuple(round(c * scale) for c in sines),
        public_bits=public_bits,
        dealt_bits=dealt_bits,
        low=float(low - slack),
        high=float(high + slack),
    )
    rounded = abs(fit.constant / part - operation.constant / scale) + sum(
        abs(c - raw / scale) for c, raw in zip((*cosines, *sines), (*operation.cosines, *operation.sines), strict=True)
    )
    made = planner.make(waves[dealt_bits], masked)
    result = masked.derive(operation, planner.label, made).lose(fit.error / part + rounded)
    if part < 1.0:
        return planner.divided(result, round(1 / part))
    twos = round(math.log2(part))
    if twos and result.type.fraction_bits >= twos:
        return planner.make(Divide(-twos), result)
    return result if part == 1.0 else planner.product(Multiply(), result, constant(part))


def known(planner: Planner, x: Expression, fit: FourierFit, result: Expression) -> Expression:
    """What is known of a result where x is in the fit's interval, if that is much less than is known of it anywhere."""
    if x.type.low < fit.low or x.type.high > fit.high:
        return result
    low, high = attained(fit)
    spare = (high - low) * SLACK + fit.error
    if max(abs(low - spare), abs(high + spare)) * NARROWER > result.type.magnitude:
        return result
    return planner.make(Declare(low - spare, high + spare), result)


def _scale(largest: float, exact: bool = False) -> int:
    """log2 of what a function whose coefficients go up to ``largest`` is divided by; ``exact``: so that they have all
    the digits that there are."""
    exponent = math.ceil(math.log2(max(largest, 2.0**-30)))
    if exact:
        return math.ceil(math.log2(max(largest, 2.0**-30) * 1.001)) - 3
    return max(0, exponent - 2) if exponent > -4 else exponent


def _bits(resolution: float, most: int) -> int:
    """Fraction bits that resolve 1 / ``resolution``, within what the protocol takes."""
    return min(most, max(8, math.ceil(math.log2(max(resolution, 1.0)))))


def polynomial(
    planner: Planner, x: Expression, coefficients: Sequence[float], error: float = 0.0, surely: float = 0.0
) -> Expression:
    """One round where the field has room for it, a logarithmic number of rounds where it has not.

    ``error`` is what it is off by, at most, that is to be computed so; ``surely``, whatever x is.
    """
    values = [float(c) for c in coefficients]
    if not values or not all(math.isfinite(c) for c in values):
        raise UnsupportedError("a polynomial takes a list of finite coefficients")
    while len(values) > 1 and values[-1] == 0.0:
        values.pop()
    if len(values) == 1:
        zero = planner.product(Multiply(), x, constant(0.0))
        return planner.sum(Add(), zero, planner.constant(values[0])).lose(error, surely)
    if len(values) == 2:
        # A line of a fit is nobody's but the fit's.
        scaled = _line(planner, x, values[1]) if error else x if values[1] == 1.0 else _times(planner, x, values[1])
        if values[0]:
            scaled = planner.sum(Add(), scaled, planner.constant(values[0], scaled.type.fraction_bits))
        return scaled.lose(error, surely)
    # The field is far smaller than what a float holds, so nothing that may fit is refused here.
    if (len(values) - 1) * math.log2(max(x.type.magnitude, 1.0)) > 1000 or max(map(abs, values)) > 2.0**64:
        raise RangeError(f"a polynomial of degree {len(values) - 1} of values up to {x.type.magnitude:g}: too large")
    low, high = polynomial_range(tuple(values), x.type.low, x.type.high)
    planner.room(max(abs(low), abs(high)))
    plan = _one_round(x.type, values)
    if not any(values[:-1]) and (plan is None or x.type.fraction_bits - plan.drop < _whole(planner, x.type)):
        power = _power(planner, x, len(values) - 1)
        return power if values[-1] == 1.0 and not error else _times(planner, power, values[-1]).lose(error, surely)
    largest = max(abs(low), abs(high))
    if plan is None or plan.error > GOOD_ENOUGH * (largest if largest > 1.0 else min(1.0, 2 * largest)):
        return _chebyshev_tree(planner, x, values).lose(error, surely)
    raw = tuple(round(c * 2.0**plan.coefficient_bits) for c in values)
    dropped = TruncatedPolynomial(raw, plan.coefficient_bits, plan.drop) if plan.drop else None
    operation = dropped or Polynomial(raw, plan.coefficient_bits)
    return planner.make(operation, planner.masked(x)).lose(plan.rounding + error, plan.rounding + surely)


def _whole(planner: Planner, t: TensorType) -> int:
    """Fraction bits with which a value counts as it is: those it has, or those that the computation keeps."""
    return min(t.fraction_bits, planner.kept(t.magnitude))


def _power(planner: Planner, x: Expression, exponent: int) -> Expression:
    """By repeated products, a round each: with so large an exponent one round would leave too few digits of x."""
    powers: dict[int, tuple[Expression, float]] = {1: (x, 0.0)}

    def power(k: int) -> tuple[Expression, float]:
        """x^k, and how far from it rounding may take it."""
        if k not in powers:
            (x1, e1), (x2, e2) = power(k - k // 2), power(k // 2)
            y = planner.product(Multiply(), x1, x2, powers=True)
            e1, e2 = (e + _cut(x, used) for e, x, used in zip((e1, e2), (x1, x2), y.inputs, strict=True))
            error = y.inputs[0].type.magnitude * e2 + y.inputs[1].type.magnitude * e1 + e1 * e2
            low, high = polynomial_range((0.0,) * k + (1.0,), x.type.low, x.type.high)
            powers[k] = planner.make(Declare(low - error, high + error), y), error
        return powers[k]

    return power(exponent)[0]


def _cut(x: Expression, used: Expression) -> float:
    """The unit that is lost where a product takes fewer fraction bits of ``x`` than it has."""
    return 2.0**-used.type.fraction_bits if used.type.fraction_bits < x.type.fraction_bits else 0.0


class _Plan:
    __slots__ = ("coefficient_bits", "drop", "error", "rounding")

    def __init__(self, error: float, rounding: float, drop: int, coefficient_bits: int) -> None:
        self.error = error
        self.rounding = rounding
        """That part of the error that comes of the coefficients."""
        self.drop = drop
        self.coefficient_bits = coefficient_bits


def _one_round(t: TensorType, coefficients: Sequence[float]) -> _Plan | None:
    """How to split the field's bits between x (each counts ``degree`` times) and the coefficients; None: no way."""
    degree = len(coefficients) - 1
    low, high = polynomial_range(tuple(coefficients), t.low, t.high)
    largest = max(abs(low), abs(high), 2.0**-20)
    room = min(FIELD_BITS, math.floor(TRUNCATION_BITS - math.log2(largest) - 0.01))
    slope = polynomial_slope(coefficients, t.low, t.high)
    weights = [t.magnitude**k for k in range(degree + 1)]
    best: _Plan | None = None
    for kept in range(min(t.fraction_bits, room // degree), 1, -1):
        drop = t.fraction_bits - kept
        if drop and not t.fits(TRUNCATION_BITS):
            continue
        if (most := min(room - degree * kept, 30 + leading_zeros(largest))) < 0:
            continue
        for bits in range(most + 1):
            rounding = sum(
                w * abs(c - round(c * 2.0**bits) * 2.0**-bits) for w, c in zip(weights, coefficients, strict=True)
            )
            error = rounding + (slope * 2.0**-kept if drop else 0.0)
            if best is None or error < best.error:
                best = _Plan(error, rounding, drop, bits)
    return best


def _chebyshev_tree(planner: Planner, x: Expression, coefficients: Sequence[float]) -> Expression:
    """Chebyshev polynomials by T_(a+b) = 2 T_a T_b - T_(a-b): log2(degree) levels, well conditioned."""
    t = x.type
    middle, half = (t.low + t.high) / 2, (t.high - t.low) / 2
    if half <= 0:
        raise RangeError("a polynomial of a value known to be constant: compute it in the clear")
    chebyshev = np.polynomial.Polynomial(coefficients).convert(
        domain=[t.low, t.high], kind=np.polynomial.Chebyshev, window=[-1, 1]
    )
    centred = planner.sum(Subtract(), x, planner.constant(middle, t.fraction_bits))
    # How far rounding takes what is computed from the same of x as it is: so far beyond their bounds values may lie.
    lost = {x: Loss(0.0, 0.0)}

    def bounded(y: Expression, low: float, high: float) -> Expression:
        error = since(y, lost).most
        return planner.make(Declare(low - error, high + error), y)

    unit = bounded(_over(planner, centred, half), -1.0, 1.0)
    terms: dict[int, Expression] = {1: unit}

    def term(k: int) -> Expression:
        if k not in terms:
            a, b = (k + 1) // 2, k // 2
            twice = _times(planner, planner.product(Multiply(), term(a), term(b)), 2.0)
            less = planner.constant(1.0) if a == b else term(1)
            terms[k] = bounded(planner.sum(Subtract(), twice, less), -1.0, 1.0)
        return terms[k]

    total: Expression | None = None
    low, high = polynomial_range(tuple(coefficients), t.low, t.high)
    left_out, little = 0.0, min(1.0, max(abs(low), abs(high))) * 2.0 ** -(planner.fraction_bits + 8)
    for k, c in enumerate(chebyshev.coef[1:], start=1):
        if abs(c) < little:
            left_out += abs(c)
            continue
        part = _times(planner, term(k), float(c))
        total = part if total is None else planner.sum(Add(), total, part)
    total = _times(planner, unit, 0.0) if total is None else total
    result = planner.sum(Add(), total, planner.constant(float(chebyshev.coef[0]), total.type.fraction_bits))
    return bounded(result.lose(left_out), low, high)


def _times(planner: Planner, x: Expression, c: float) -> Expression:
    return planner.product(Multiply(), *planner.scaling(x, c))


def _line(planner: Planner, x: Expression, slope: float) -> Expression:
    """Of a fit: times a power of two, values are counted with fewer fraction bits, and lose none of their digits."""
    mantissa, exponent = math.frexp(slope)
    bits = min(exponent - 1, x.type.fraction_bits)
    if mantissa != 0.5 or bits <= 0:
        return _times(planner, x, slope)
    scaled = planner.make(Divide(-bits), x)
    return scaled if bits == exponent - 1 else _times(planner, scaled, 2.0 ** (exponent - 1 - bits))


def _over(planner: Planner, x: Expression, divisor: float) -> Expression:
    whole = divisor.is_integer() and divisor < 2**30
    return planner.divided(x, int(divisor)) if whole else _times(planner, x, 1.0 / divisor)
