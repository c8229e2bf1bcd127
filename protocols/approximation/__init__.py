"""Approximations of functions of one real number: fits, their measured errors, and the named ones.

Plain mathematics: no shares, no field.  Only making a fit needs scipy; using the default ones does not.
"""

from protocols.approximation.catalogue import FUNCTIONS, Function
from protocols.approximation.defaults import METHODS, default_fit, power_fit
from protocols.approximation.fits import (
    CompositeFit,
    Fit,
    FourierFit,
    PiecewiseFit,
    PolynomialFit,
    RootFit,
    TailedFit,
)
from protocols.approximation.fitting import fit
from protocols.approximation.minimax import fit_fourier, fit_polynomial

__all__ = [
    "FUNCTIONS",
    "METHODS",
    "CompositeFit",
    "Fit",
    "FourierFit",
    "Function",
    "PiecewiseFit",
    "PolynomialFit",
    "RootFit",
    "TailedFit",
    "default_fit",
    "fit",
    "fit_fourier",
    "fit_polynomial",
    "power_fit",
]
