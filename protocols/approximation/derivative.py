"""The derivative of a fit, as a fit of the same waves, or pieces: for gradients, so that x need not be opened anew."""

from __future__ import annotations

import functools
import math

import msgspec

from protocols.approximation.fits import Fit, FourierFit, Piece, PiecewiseFit, PolynomialFit, TailedFit


@functools.lru_cache(maxsize=64)
def derivative(fit: Fit) -> Fit | None:
    """None of a fit that is made of others one after the other.

    Its ``error`` is stated by Bernstein's bound for sums of waves, the fit's own times the fastest wave's turn: no
    bound, but what the derivative of an error is like.
    """
    match fit:
        case FourierFit():
            return _of_waves(fit)
        case PolynomialFit():
            return _of_polynomial(fit)
        case TailedFit():
            pieces = tuple(_of_waves(one) if isinstance(one, FourierFit) else _of_polynomial(one) for one in fit.pieces)
            return TailedFit(pieces, max(one.error for one in pieces), None, tuple(map(_of_waves, fit.whole)))
        case PiecewiseFit():
            rises = tuple(_of_piece(piece) for piece in fit.pieces)
            shortest = min(2.0**piece.log2 for piece in fit.pieces)
            return msgspec.structs.replace(fit, pieces=rises, error=fit.error * fit.degree**2 / shortest, relative=None)
    return None


def _of_waves(fit: FourierFit) -> FourierFit:
    turn = 2 * math.pi / fit.period
    return msgspec.structs.replace(
        fit,
        constant=0.0,
        cosines=tuple(j * turn * s for j, s in enumerate(fit.sines, start=1)),
        sines=tuple(-j * turn * c for j, c in enumerate(fit.cosines, start=1)),
        error=fit.error * turn * fit.terms,
        relative=None,
    )


def _of_polynomial(fit: PolynomialFit) -> PolynomialFit:
    """By Markov's bound, which holds of polynomials."""
    rises = tuple(k * c for k, c in enumerate(fit.coefficients))[1:] or (0.0,)
    steepest = fit.degree**2 / max((fit.high - fit.low) / 2, 2.0**-60)
    return msgspec.structs.replace(fit, coefficients=rises, error=fit.error * steepest, relative=None)


def _of_piece(piece: Piece) -> Piece:
    """As many coefficients as before, the last of which is 0."""
    rises = [k * c * 2.0**-piece.log2 for k, c in enumerate(piece.coefficients)][1:]
    return msgspec.structs.replace(piece, coefficients=(*rises, 0.0))
