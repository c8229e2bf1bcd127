"""Derivatives of functions: whichever needs no opening, a formula of the function's value or a fit of its argument."""

from __future__ import annotations

from mpc.program import Expression
from mpc.tensor_type import Form
from protocols.approximation import Fit, FourierFit, TailedFit
from protocols.approximation.derivative import derivative
from protocols.lowering import composed, functions
from protocols.lowering.planner import Planner
from protocols.operations.mask import Mask

FORMULAS: dict[str, tuple[float, ...]] = {
    "sigmoid": (0.0, 1.0, -1.0),
    "tanh": (1.0, 0.0, -1.0),
    "exp": (0.0, 1.0),
    "reciprocal": (0.0, 0.0, -1.0),
    "rsqrt": (0.0, 0.0, 0.0, -0.5),
}
"""By function, as polynomials of its value."""


def slope(planner: Planner, function: str, fit: Fit, x: Expression, y: Expression) -> Expression:
    """Of y, the function of x: by its formula where y is opened anyway, or where x lies in several pieces of the fit,
    which would be opened each; else by the derivative of the fit, by the very waves that were dealt for the fit, where
    it is of waves, or of the opening of x that there is.
    """
    formula, rises = FORMULAS.get(function), derivative(fit)
    opened = y.type.form is Form.MASKED or y.has(Mask())
    if formula is not None and (rises is None or opened or not _in_one(fit, x)):
        return functions.polynomial(planner, y, formula)
    if rises is None:
        raise TypeError(f"{type(fit).__name__} has no derivative that is a fit")
    if isinstance(rises, FourierFit):
        return functions.known(planner, x, rises, functions.fourier(planner, x, rises, by_waves=True))
    return composed.apply(planner, x, rises)


def _in_one(fit: Fit, x: Expression) -> bool:
    pieces = (*fit.pieces, *fit.whole) if isinstance(fit, TailedFit) else (fit,)
    return any(one.low <= x.type.low and x.type.high <= one.high for one in pieces)
