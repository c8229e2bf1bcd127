"""Functions in pieces, to nodes of a program: y = y_0 + sum_k [x >= t_k] (y_k - y_(k-1)) for pieces y_0, y_1, ... and
the thresholds t_k between them.

x is opened once, for all pieces and all thresholds.  A fit of waves is evaluated on whatever x is: outside its interval
it is periodic, and so bounded, and the comparison does not let it through.  So its values are opened, under a mask of
their own, beside the digits of the comparisons, and what the comparisons let through then takes no round more: two
rounds, the opening of x among them; three where these take one more, or where the field has not the room for all digits
of pieces of very different size.

Neighbours overlap (`TailedFit`), so that a threshold may be missed by half of an overlap: x is compared in units of
about that, in few bits.  Where they only touch, x is compared to the last bit that counts, as for a `Relu`.

Security: nothing is opened but masked values and what comparisons open (``protocols/operations/digits.py``), all of it
uniform; what is opened does not depend on which piece is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mpc.program import Expression
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.approximation import FourierFit, PolynomialFit, TailedFit
from protocols.approximation.fits import attained
from protocols.approximation.search import SLACK
from protocols.lowering import comparison
from protocols.lowering.error import followed
from protocols.lowering.functions import fourier, known, polynomial
from protocols.lowering.planner import Planner, constant
from protocols.operations.digits import EXACTLY, mistaken
from protocols.operations.linear import Add, Declare, Subtract
from protocols.operations.product import Multiply

Piece = FourierFit | PolynomialFit

SAMPLES = 33
"""Points at which neighbours are compared where one may be taken for the other."""


class Threshold(NamedTuple):
    """From where on ``after`` is taken in place of what is before it: x - at, compared in units of 2^ignored."""

    x: Expression
    ignored: int
    off: float
    """What neighbours differ by, at most, where the one may be taken for the other and they are not both right."""


def with_tails(planner: Planner, x: Expression, fit: TailedFit, target: float) -> Expression:
    """The function on all values that x can have: by one fit if one holds for them, and is not dearer than pieces."""
    pieces = _reached(fit, x.type)
    if len(pieces) > 1:
        # So that it stays one tensor, opened once, when thresholds are taken from it.
        x = planner.truncated(x, planner.fitting(x.type.fraction_bits, 2 * x.type.magnitude))
    holding = [one for one in (*fit.whole, *fit.pieces) if one.low <= x.type.low and x.type.high <= one.high]
    whole = min(holding, key=lambda one: _bytes(one, planner), default=None)
    if whole is not None:
        made = _one(planner, x, whole, target)
        if len(pieces) == 1:
            return made
        thresholds = _thresholds(planner, x, pieces)
        variants = [comparison.variant_of(planner, t.x, t.ignored)[0] for t in thresholds]
        bytes_ = sum(_bytes(piece, planner, opened=True) for piece in pieces) + sum(v.bytes for v in variants)
        dearer = x.type.size * (_bytes(whole, planner) - bytes_)
        made.varies = made.varies or dearer > 0
        if dearer <= planner.objective.round_bytes * max(v.rounds for v in variants):
            return made
    x = planner.masked(x)
    return _joined(planner, x, pieces, _thresholds(planner, x, pieces), target)


def _reached(fit: TailedFit, t: TensorType) -> Sequence[Piece]:
    """Pieces without which some value would not be right."""
    first, last = 0, len(fit.pieces)
    while last - first > 1 and fit.pieces[first + 1].low <= t.low:
        first += 1
    while last - first > 1 and fit.pieces[last - 2].high >= t.high:
        last -= 1
    return fit.pieces[first:last]


def _bytes(piece: Piece, planner: Planner, *, opened: bool = False) -> float:
    """Of a value: what is dealt, and opened of it if it is to be let through."""
    if isinstance(piece, PolynomialFit):
        return 0.0
    factor = 2 if planner.objective.security is Security.MALICIOUS else 1
    return (16.0 * piece.terms + (8.0 if opened else 0.0)) * factor


def _thresholds(planner: Planner, x: Expression, pieces: Sequence[Piece]) -> list[Threshold]:
    return [_threshold(planner, x, before, after) for before, after in pairwise(pieces)]


def _threshold(planner: Planner, x: Expression, before: Piece, after: Piece) -> Threshold:
    bits = x.type.fraction_bits
    unit = 2.0**-bits
    first, last = after.low, before.high
    # Whoever is on the grid of x's is above it, or above the middle of the overlap, or neither.
    at = math.ceil((first + last) / 2 / unit) * unit
    room = min(last - at, at - first)
    spare = bits - planner.kept(x.type.magnitude)
    ignored = max(
        math.floor(math.log2(room / unit)) + 1 if room >= unit else EXACTLY, spare + 1 if spare > 0 else EXACTLY
    )
    reach, off = mistaken(ignored) * unit, 0.0
    if ignored != EXACTLY and reach > room:
        near = np.linspace(min(at - reach, first), max(at + reach, last), SAMPLES)
        off = float(np.abs(after(near) - before(near)).max())
    shifted = planner.sum(Subtract(), x, constant(at, bits)) if at else x
    return Threshold(shifted, ignored, off)


def _joined(
    planner: Planner, x: Expression, pieces: Sequence[Piece], thresholds: Sequence[Threshold], target: float
) -> Expression:
    values = _cut(planner, [_value(planner, x, piece, target) for piece in pieces])
    result = values[0]
    for threshold, (before, after) in zip(thresholds, pairwise(values), strict=True):
        if Form.PUBLIC is before.type.form is after.type.form:
            bit = comparison.ended(planner, threshold.x, threshold.ignored)
            gate = planner.product(Multiply(), bit, planner.sum(Subtract(), after, before))
        else:
            rise = planner.sum(Subtract(), after, before)
            gate = comparison.ended(planner, threshold.x, threshold.ignored, rise)
        result = planner.sum(Add(), result, gate)
    off = max(threshold.off for threshold in thresholds)
    result = planner.make(Declare(*_range(x.type, pieces, values, off)), result)
    lines = max((piece.error for piece in pieces if isinstance(piece, PolynomialFit)), default=0.0)
    # It is one of them, and so off by no more than the worst.
    worst = max(values, key=lambda value: followed(value).most)
    return result.lose(lines + off, lines, like={worst: 1.0})


def _one(planner: Planner, x: Expression, piece: Piece, target: float) -> Expression:
    if isinstance(piece, FourierFit):
        return known(planner, x, piece, fourier(planner, x, piece, target))
    return polynomial(planner, x, piece.coefficients, piece.error)


def _value(planner: Planner, x: Expression, piece: Piece, target: float) -> Expression:
    if isinstance(piece, FourierFit):
        return fourier(planner, x, piece, target)
    if piece.degree == 0:
        return planner.constant(piece.coefficients[0], x.type.fraction_bits)
    return polynomial(planner, x, piece.coefficients)


def _cut(planner: Planner, values: Sequence[Expression]) -> list[Expression]:
    """All with no more digits than the sum of all leaves room for, and masked where they are not public."""
    most = max(value.type.fraction_bits for value in values)
    bits = planner.fitting(most, 2 * sum(value.type.magnitude for value in values))
    return [planner.masked(planner.truncated(value, bits)) for value in values]


def _range(t: TensorType, pieces: Sequence[Piece], values: Sequence[Expression], off: float) -> tuple[float, float]:
    """Of all pieces, each where it is taken."""
    ends: list[float] = []
    for piece, value in zip(pieces, values, strict=True):
        if isinstance(piece, FourierFit):
            low, high = attained(piece)
            # A truncation may add a unit.
            spare = (high - low) * SLACK + piece.error + 2.0**-value.type.fraction_bits
        else:
            low, high = sorted(piece([max(piece.low, t.low), min(piece.high, t.high)]).tolist())
            spare = value.lost + off
        ends += [low - spare, high + spare]
    return min(ends), max(ends)
