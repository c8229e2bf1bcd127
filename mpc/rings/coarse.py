"""Whether what is masked lies in a span, by a few bits of it: tables that a dealer makes, and what is found in them.

A span of ``width`` grains of 2^ignored, at most 2^bits of them; m = ignored + bits.  Of a number r and a coefficient s
a table has s [v < (r >> ignored) mod 2^bits] for each v below 2^bits - 1, and then s [r >= 2^60].  See
`protocols.operations.astray` for what that is for, and for why it is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, WRITE, flat, fold, inline, join, kernel, partial_product, product

_P = np.uint64(P)
_LOW = np.uint64(2**32 - 1)
_U32 = np.uint64(32)
_TOP = np.uint64(60)


def table(r: FieldArray, s: FieldArray, ignored: int, bits: int) -> FieldArray:
    """See `PrimeField.coarse_table`."""
    out = np.empty((r.size, 1 << bits), np.uint64)
    _table(flat(r), flat(s), ignored, bits, out.reshape(-1))
    return out


def sums(c: FieldArray, s: FieldArray, dealt: FieldArray, ignored: int, width: int, bits: int, rows: int) -> FieldArray:
    """See `PrimeField.coarse_sums`."""
    out = np.empty((rows,), np.uint64)
    _sums(flat(c), flat(s), flat(dealt), ignored, width, bits, out)
    return out


@kernel(READ, READ, INT, INT, WRITE)
def _table(r: Any, s: Any, ignored: Any, bits: Any, out: Any) -> None:
    size = np.int64(1) << bits
    for i in range(r.size):
        place = np.int64(r[i] >> np.uint64(ignored)) & (size - 1)
        row, own = out[i * size : (i + 1) * size], s[i]
        for v in range(size - 1):
            row[v] = own & (np.uint64(0) - np.uint64(v < place))
        row[size - 1] = own & (np.uint64(0) - (r[i] >> _TOP))


@inline
def _less(dealt: Any, start: Any, place: Any, size: Any) -> Any:
    """Less what a table has there: nothing is above the last."""
    found = _P - dealt[np.uintp(start + min(place, size - 2))]
    return found if place < size - 1 else np.uint64(0)


@kernel(READ, READ, READ, INT, INT, INT, WRITE)
def _sums(c: Any, s: Any, dealt: Any, ignored: Any, width: Any, bits: Any, out: Any) -> None:
    size, each = np.int64(1) << bits, c.size // max(out.size, 1)
    turn = np.uint64(1) << np.uint64(62 - ignored - bits)
    for row in range(out.size):
        low, high = np.uint64(0), np.uint64(0)
        for i in range(row * each, (row + 1) * each):
            grains = np.int64(c[i] >> np.uint64(ignored))
            moved, start = grains + size - width, i * size
            found = partial_product(s[i], np.uint64((grains >> bits) + (moved >> bits)))
            found += _less(dealt, start, grains & (size - 1), size) + _less(dealt, start, moved & (size - 1), size)
            if grains < width:
                found = fold(found) + product(dealt[np.uintp(start + size - 1)], turn)
            low += found & _LOW
            high += found >> _U32
        out[row] = join(low, high)
