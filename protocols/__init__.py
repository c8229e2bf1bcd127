"""The protocols of Tessera, one per file, and the readings of a program.

Importing this package makes the built-in operations and functions known to ``mpc``.
"""

from protocols import fourier, functions, keep, linear, mask, polynomial, product, truncation

__all__ = ["fourier", "functions", "keep", "linear", "mask", "polynomial", "product", "truncation"]
