"""One-hot vectors of residues, and where public numbers find small differences in them.

Let r be an element of the field, and c - r mod p = x with 0 <= x < count.  If x <= c then r = c - x, and else
r = c - x + p.  So x = v says what r is, modulo any number: c - v for v <= c, and c - v + p for those above.  For a
`modulus` M of at least count + (-p mod M), no two v say the same: the former are M-distinct from each other, and so are
the latter, which end below where the former begin.  (p = 2^61 - 1 is -1 modulo a power of two, so there is one between
count and twice that.)
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, WRITE, flat, kernel


@functools.cache
def modulus(count: int) -> int:
    """The least that tells so many differences apart."""
    return next(m for m in range(count, 2 * count + 2) if -P % m <= m - count)


def one_hot(x: FieldArray, count: int) -> FieldArray:
    """See `PrimeField.one_hot`."""
    out = np.zeros((x.size, modulus(count)), np.uint64)
    out[np.arange(x.size), (x.reshape(-1) % np.uint64(modulus(count))).astype(np.int64)] = 1
    return out


def found(x: FieldArray, count: int, dealt: FieldArray) -> FieldArray:
    """See `PrimeField.differences`."""
    out = np.empty((x.size, count), np.uint64)
    _found(flat(x), flat(dealt), modulus(count), out.reshape(-1))
    return out


@kernel(READ, READ, INT, WRITE)
def _found(x: Any, dealt: Any, m: Any, out: Any) -> None:
    count = out.size // max(x.size, 1)
    for i in range(x.size):
        c = np.int64(x[i])
        # Up to c without a wrap, and then with one.
        split = min(c + 1, count)
        place = c % m
        for v in range(split):
            out[i * count + v] = dealt[i * m + place]
            place = place - 1 if place else m - 1
        place = (c - split + P) % m
        for v in range(split, count):
            out[i * count + v] = dealt[i * m + place]
            place = place - 1 if place else m - 1
