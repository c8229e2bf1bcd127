"""Arithmetic in the field of p = 2^61 - 1 elements on torch's tensors, wherever these are.

An element is an int64 in [0, p): torch has no whole arithmetic of unsigned words.  Nothing here is ever negative or
above 2^63, but for what `from_signed` is given, and nothing depends on the device: integers are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mpc.rings.field import P
from mpc.rings.on_torch.fused import fused

Tensor = torch.Tensor

_LOW_30, _LOW_31 = (1 << 30) - 1, (1 << 31) - 1


def reduce_once(x: Tensor) -> Tensor:
    """x mod p for 0 <= x < 2p."""
    return torch.where(x >= P, x - P, x)


def fold(x: Tensor) -> Tensor:
    """A number congruent to x >= 0, and at most p + 3."""
    return (x & P) + (x >> 61)


def reduced(x: Tensor) -> Tensor:
    """x mod p for x >= 0."""
    return reduce_once(fold(x))


@fused
def add(x: Tensor, y: Tensor | int) -> Tensor:
    return reduce_once(x + y)


@fused
def subtract(x: Tensor, y: Tensor) -> Tensor:
    return reduce_once(x + (P - y))


@fused
def negate(x: Tensor) -> Tensor:
    return reduce_once(P - x)


@fused
def product(x: Tensor, y: Tensor | int) -> Tensor:
    """x y mod p.

    With x = x1 2^31 + x0 and y alike: x1 y1 2^62 is twice x1 y1, below 2^61; the middle, below 2^62, moves up by 31
    bits, of which what comes to 2^61 goes round; x0 y0 is below 2^62.  The sum is below 2^63.
    """
    x0, x1 = x & _LOW_31, x >> 31
    y0, y1 = y & _LOW_31, y >> 31
    middle = x1 * y0 + x0 * y1
    return reduced(2 * (x1 * y1) + (middle >> 30) + ((middle & _LOW_30) << 31) + fold(x0 * y0))


def rotate(x: Tensor, k: int) -> Tensor:
    """x 2^k mod p for 0 <= k < 61 and x in [0, p]: doubling is a rotation of 61 bits."""
    return reduce_once(((x & ((1 << (61 - k)) - 1)) << k) | (x >> (61 - k)))


def turned(bits: Tensor, x: Tensor) -> Tensor:
    """-x where a bit is set, else x."""
    return torch.where(bits, negate(x), x)


@fused
def from_signed(x: Tensor) -> Tensor:
    """x mod p for any int64: x = top 2^61 + low with top in [-4, 3]."""
    return reduced((x & P) + ((x >> 61) + P))


@fused
def to_signed(x: Tensor) -> Tensor:
    """Of least size."""
    return torch.where(x >> 60 != 0, x - P, x)


def total(x: Tensor, axes: Sequence[int], keepdims: bool = False) -> Tensor:
    """Sums of up to 2^32 elements, by their halves."""
    if not axes:
        return x
    low, high = (half.sum(tuple(axes), keepdim=keepdims) for half in (x & _LOW_31, x >> 31))
    return add(reduced(low), rotate(reduced(high), 31))


def whole(x: Tensor) -> Tensor:
    """The sum of all."""
    return total(x, range(x.dim()))
