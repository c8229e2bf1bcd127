"""The operations that programs are made of, one file a protocol.  Importing this makes them known to ``mpc``."""

from protocols.operations import (
    bit_comparison,
    comparison,
    decomposed,
    digits,
    fourier,
    in_range,
    keep,
    linear,
    mask,
    nonzero,
    polynomial,
    product,
    quotient,
    truncation,
)

__all__ = [
    "bit_comparison",
    "comparison",
    "decomposed",
    "digits",
    "fourier",
    "in_range",
    "keep",
    "linear",
    "mask",
    "nonzero",
    "polynomial",
    "product",
    "quotient",
    "truncation",
]
