"""Approximations of functions of one real number: fits, their measured errors, and the named ones.

Plain mathematics: no shares, no field.  Only making a fit needs scipy; using the default ones does not.
"""

from protocols.approximation.catalogue import FUNCTIONS, Function
from protocols.approximation.defaults import METHODS, default_fit
from protocols.approximation.fits import CompositeFit, Fit, FourierFit, PolynomialFit
from protocols.approximation.minimax import fit, fit_fourier, fit_polynomial

__all__ = [
    "FUNCTIONS",
    "METHODS",
    "CompositeFit",
    "Fit",
    "FourierFit",
    "Function",
    "PolynomialFit",
    "default_fit",
    "fit",
    "fit_fourier",
    "fit_polynomial",
]
