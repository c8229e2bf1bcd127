"""Numbers of random bits: those of a public number, turned round by those of a mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, WRITE, flat, kernel

_P = np.uint64(P)


def bits(x: FieldArray, count: int) -> FieldArray:
    """See `PrimeField.bits`."""
    places = np.arange(count, dtype=np.uint64).reshape(-1, 1)
    return (x.reshape(1, -1) >> places) & np.uint64(1)


def turned(x: FieldArray, count: int, dealt: FieldArray) -> FieldArray:
    """See `PrimeField.turned_bits`."""
    out = np.empty(x.size, np.uint64)
    _turned(flat(x), flat(dealt), count, out)
    return out.reshape(x.shape)


@kernel(READ, READ, INT, WRITE)
def _turned(x: Any, dealt: Any, count: Any, out: Any) -> None:
    n = x.size
    for i in range(n):
        total = np.uint64(0)
        for j in range(count):
            part = dealt[j * n + i]
            # Times 2^j: p = 2^61 - 1, so bits go round.
            shifted = ((part << np.uint64(j)) & _P) | (part >> np.uint64(61 - j))
            shifted = min(shifted, shifted - _P)
            if (x[i] >> np.uint64(j)) & np.uint64(1):
                shifted = _P - shifted if shifted else shifted
            total += shifted
            total = min(total, total - _P)
        out[i] = total
