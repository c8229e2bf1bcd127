"""Fits by pieces, to nodes of a program: comparisons say which piece a value is in, and so where in it, and by which
coefficients it goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce

import numpy as np

from mpc.program import Expression
from protocols.approximation.fits import Piece, PiecewiseFit, Reals, attained, slope
from protocols.approximation.goal import Goal
from protocols.lowering.comparison import compared, gated
from protocols.lowering.error import Loss, followed, since
from protocols.lowering.functions import polynomial
from protocols.lowering.planner import FEWEST_BITS, MOST_BITS, Planner, constant
from protocols.operations.linear import Add, Broadcast, Declare, Index, Reshape, Subtract
from protocols.operations.product import Matmul, Multiply

SPARE_BITS = 3
"""Of what is rounded, beyond what the fit errs by: each rounding then adds an eighth of that."""

POINTS = 17
"""Of a piece, at which is found out how many digits count."""

CENTRE_BITS = 3
"""Of a centre, beyond those of the half length: see ``ROUNDED`` of ``protocols/approximation/pieces.py``."""


def by_pieces(planner: Planner, x: Expression, fit: PiecewiseFit) -> Expression:
    """A round of comparison beside the opening of x, for all pieces at once (two where bytes count); one to cut t to
    the digits that count, and one for each product with t, or with t^2: one for degree 1, two for 3, three for 5.

    With s_j in {0, 1} for whether x has reached the start of piece j, which lets x through as well, t is the sum of
    (s_j - s_j+1) (x - centre_j) / 2^log2_j, of which one term is not 0; a coefficient is the sum of s_j times what it
    changes by.  At the ends of pieces two polynomials differ by their errors alone: it does not matter which is taken.
    """
    pieces = _met(fit, x.type.low, x.type.high)
    columns = np.array([piece.coefficients for piece in pieces]).T
    largest = float(np.abs(columns).sum(0).max())
    scale = 2.0 ** math.ceil(math.log2(largest)) if largest else 1.0
    columns = columns / scale
    t_bits, bits = _digits(planner, pieces, fit, scale)
    inner = replace(planner, fraction_bits=min(bits, MOST_BITS))
    x = planner.masked(x)
    if len(pieces) == 1:
        centre = constant(pieces[0].centre, max(0, CENTRE_BITS - pieces[0].log2))
        t = planner.truncated(_scaled(planner, planner.sum(Subtract(), x, centre), pieces[0]), t_bits)
        value = polynomial(inner, t, columns[:, 0].tolist())
    else:
        reached = _reached(planner, x, pieces)
        t = planner.truncated(_place(planner, x, reached, pieces), t_bits)
        value = _value(inner, t, [_stepped(planner, reached, column, bits) for column in columns])
    return _judged(planner, x, value, scale, fit)


def _met(fit: PiecewiseFit, low: float, high: float) -> Sequence[Piece]:
    """The pieces that values in [low, high] can be in."""
    ends = [*fit.starts[1:].tolist(), math.inf]
    met = [piece for piece, end in zip(fit.pieces, ends, strict=True) if end > low and piece.start <= high]
    return met or fit.pieces[:1]


def _digits(planner: Planner, pieces: Sequence[Piece], fit: PiecewiseFit, scale: float) -> tuple[int, int]:
    """Fraction bits of t, and of coefficients over ``scale``: as many as count, if the field has room for both in a
    product; what is allowed of a function that spans orders of magnitude depends on its value."""
    ends = [*(piece.start for piece in pieces[1:]), fit.high]
    steepest, least = 0.0, math.inf
    for piece, end in zip(pieces, ends, strict=True):
        t = piece.place(np.linspace(piece.start, end, POINTS))
        falls = np.polynomial.Polynomial(piece.coefficients).deriv()(t)
        values = np.polynomial.Polynomial(piece.coefficients)(t)
        allowed = Goal(fit.error, fit.relative).allowed(values, scale)
        steepest = max(steepest, float((np.abs(falls) / allowed).max()))
        least = min(least, float(allowed.min()) / scale)
    of_t, of_c = (max(math.ceil(math.log2(max(n, 1.0))) + SPARE_BITS, FEWEST_BITS) for n in (steepest, 1 / least))
    over = max(0, of_t + of_c - planner.room(1.0))
    return of_t - over // 2, of_c - (over - over // 2)


def _reached(planner: Planner, x: Expression, pieces: Sequence[Piece]) -> Expression:
    """s_1, s_2, ... in a last axis."""
    unit = 2.0**-x.type.fraction_bits
    starts = np.ceil(np.array([piece.start for piece in pieces[1:]]) / unit) * unit
    above = planner.sum(Subtract(), _beside(planner, x), constant(starts, x.type.fraction_bits))
    return compared(planner, above, strictly=False, below=False)


def _beside(planner: Planner, x: Expression) -> Expression:
    """With a last axis for the starts."""
    return planner.make(Reshape((*x.type.shape, 1)), x)


def _at(planner: Planner, x: Expression, place: int) -> Expression:
    """One place of the last axis."""
    shape = x.type.shape[:-1]
    one = planner.make(Index((*((0, 1, n) for n in shape), (place, 1, 1))), x)
    return planner.make(Reshape(shape), one)


def _place(planner: Planner, x: Expression, reached: Expression, pieces: Sequence[Piece]) -> Expression:
    """t, in [-1, 1]: of its terms one is not 0."""
    wide = planner.make(Broadcast(reached.type.shape), _beside(planner, x))
    through = gated(planner, reached, wide) or planner.product(Multiply(), reached, wide)
    places = range(len(pieces) - 1)
    s = [constant(1.0), *(_at(planner, reached, j) for j in places), constant(0.0)]
    xs = [x, *(_at(planner, through, j) for j in places), constant(0.0)]
    terms = []
    for j, piece in enumerate(pieces):
        inside = planner.sum(Subtract(), s[j], s[j + 1])
        part = planner.sum(Subtract(), xs[j], xs[j + 1])
        centre = constant(piece.centre, max(0, CENTRE_BITS - piece.log2))
        off = planner.sum(Subtract(), part, planner.product(Multiply(), inside, centre))
        terms.append(_scaled(planner, off, piece))
    return planner.make(Declare(-1.0, 1.0), reduce(partial(planner.sum, Add()), terms))


def _scaled(planner: Planner, off: Expression, piece: Piece) -> Expression:
    """What is so far from a piece's centre, over its half length: exact."""
    off = planner.make(Declare(-(2.0**piece.log2), 2.0**piece.log2), off)
    if piece.log2 >= 0:
        return planner.divided(off, 1 << piece.log2)
    return planner.product(Multiply(), off, constant(2.0**-piece.log2))


def _stepped(planner: Planner, reached: Expression, column: Reals, bits: int) -> Expression:
    """The coefficient of the piece that x is in, to half a unit."""
    rounded = np.rint(column * 2.0**bits) * 2.0**-bits
    changes = planner.make(Matmul(), reached, constant(np.diff(rounded), bits))
    value = planner.sum(Add(), changes, constant(rounded[0], bits))
    known = planner.make(Declare(float(rounded.min()), float(rounded.max())), value)
    return known.lose(float(np.abs(rounded - column).max()))


def _value(planner: Planner, t: Expression, coefficients: Sequence[Expression]) -> Expression:
    """c_0 + c_1 t + (c_2 + c_3 t) t^2 + ..., of which everything is in [-1, 1]: the field has room for all digits."""
    lines = [
        planner.sum(Add(), planner.product(Multiply(), one, t), zero)
        for zero, one in zip(coefficients[::2], coefficients[1::2], strict=True)
    ]
    value = lines.pop()
    while lines:
        square = planner.truncated(planner.product(Multiply(), t, t, powers=True), t.type.fraction_bits)
        value = planner.sum(Add(), planner.product(Multiply(), value, square), lines.pop())
    return value


def _judged(planner: Planner, x: Expression, value: Expression, scale: float, fit: PiecewiseFit) -> Expression:
    """``value`` times ``scale``, and what is known of it: its range, and what is lost.

    Comparisons are exact of what is computed.  Where that is not what is meant, a value may be on the wrong side of a
    start, and goes on by the polynomial of its neighbour, which errs there by as little.
    """
    own = since(value, {x: Loss(0.0, 0.0)}).times(scale)
    low, high = attained(fit)
    spare = own.most + fit.error
    result = polynomial(planner, value, (0.0, scale), fit.error) if scale != 1.0 else value
    result = planner.make(Declare(low - spare, high + spare), result)
    seam = 2 * fit.error if followed(x).most else 0.0
    return result.lose(spare + seam, own.usual, like={x: slope(fit)})
