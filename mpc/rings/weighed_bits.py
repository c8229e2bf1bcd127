"""Numbers of packed bits, a plane for each weight: sums of weights where bits are set, and of elements that bits turn
round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.rings.bit_planes import READ_BYTES, Bytes, spread
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import READ, WRITE, flat, join, kernel, product, reduce_once

CHUNK = 1024
"""Numbers at a time, a whole number of bytes of a plane."""
_P = np.uint64(P)
_LOW, _HALF = np.uint64(2**32 - 1), np.uint64(32)


def packed(x: FieldArray, count: int) -> Bytes:
    """See `PrimeField.packed_bits`."""
    places = np.arange(count, dtype=np.uint64).reshape(-1, 1)
    bits = (x.reshape(1, -1) >> places) & np.uint64(1)
    return np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")


def total(bits: Bytes, size: int, weights: Sequence[int]) -> FieldArray:
    """See `PrimeField.weighed_bits`."""
    out = np.zeros(size, np.uint64)
    _total(flat(bits), np.array(weights, np.uint64), out)
    return out


def turned(bits: Bytes, x: FieldArray, weights: Sequence[int]) -> FieldArray:
    """See `PrimeField.turned_total`."""
    out = np.zeros(1, np.uint64)
    _turned(flat(bits), flat(x), np.array(weights, np.uint64), out)
    return out.reshape(())


@kernel(READ_BYTES, READ, WRITE)
def _total(bits: Any, weights: Any, out: Any) -> None:
    """The sum of the weights is below p."""
    masks, row = np.empty(CHUNK, np.int64), (out.size + 7) >> 3
    for first in range(0, out.size, CHUNK):
        some = out[first : first + CHUNK]
        at, number = first >> 3, (some.size + 7) >> 3
        for k in range(weights.size):
            spread(bits[k * row + at : k * row + at + number], masks)
            for i in range(some.size):
                some[i] += np.uint64(masks[i]) & weights[k]


@kernel(READ_BYTES, READ, READ, WRITE)
def _turned(bits: Any, x: Any, weights: Any, out: Any) -> None:
    masks, size = np.empty(CHUNK, np.int64), x.size // weights.size
    row = (size + 7) >> 3
    for k in range(weights.size):
        low, high = np.uint64(0), np.uint64(0)
        for first in range(0, size, CHUNK):
            number = min(CHUNK, size - first)
            some = x[k * size + first : k * size + first + number]
            spread(bits[k * row + (first >> 3) : k * row + ((first + number + 7) >> 3)], masks)
            for i in range(number):
                # p - x = x ^ p, which sums of halves need not have reduced.
                value = some[i] ^ (np.uint64(masks[i]) & _P)
                low += value & _LOW
                high += value >> _HALF
        out[0] = reduce_once(out[0] + product(join(low, high), weights[k]))
