"""The operations that programs are made of, one file a protocol.  Importing this makes them known to ``mpc``."""

from protocols.operations import (
    assume,
    bit_comparison,
    comparison,
    decomposed,
    digits,
    fourier,
    gate,
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
    "assume",
    "bit_comparison",
    "comparison",
    "decomposed",
    "digits",
    "fourier",
    "gate",
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
