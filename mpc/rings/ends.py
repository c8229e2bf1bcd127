"""How masked numbers lie to both ends of a range: what is looked up of them, and sums of what follows.

Of x and a range from ``low`` to ``low + width``, with c = x - low: both ends are c and c + 2^bits - width - 1, in whole
2^bits and what is left over.  See `protocols.operations.in_range` for what that is for, and for why it is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc.rings.bit_planes import READ_BYTES, Bytes
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, WRITE, flat, fold, inline, join, kernel, partial_product, product

_P, _ONE = np.uint64(P), np.uint64(1)
_LOW, _HALF = np.uint64(2**32 - 1), np.uint64(32)
_TOP = 60


def left_over(x: FieldArray, low: int, width: int, bits: int) -> FieldArray:
    """See `PrimeField.ends_left_over`."""
    out = np.empty((x.size, 2), np.uint64)
    _left_over(flat(x), low % P, width, bits, out.reshape(-1))
    return out


def sums(x: FieldArray, low: int, width: int, bits: int, s: FieldArray, top: FieldArray) -> FieldArray:
    """See `PrimeField.ends_sum`."""
    out = np.empty(1, np.uint64)
    _sums(flat(x), low % P, width, bits, flat(s), flat(top), out)
    return out.reshape(())


def weighed(bits: Bytes, s: FieldArray, dealt: FieldArray) -> FieldArray:
    """See `PrimeField.weighed_pairs`."""
    out = np.empty(1, np.uint64)
    _weighed(flat(bits), flat(s), flat(dealt), out)
    return out.reshape(())


@inline
def _moved(x: Any, low: Any) -> Any:
    """x - low mod p."""
    c = x - np.uint64(low)
    return min(c, c + _P)


@kernel(READ, INT, INT, INT, WRITE)
def _left_over(x: Any, low: Any, width: Any, bits: Any, out: Any) -> None:
    rest, more = (np.uint64(1) << np.uint64(bits)) - _ONE, (np.uint64(1) << np.uint64(bits)) - np.uint64(width) - _ONE
    for i in range(x.size):
        c = _moved(x[i], low)
        beyond = np.uint64(c >= np.uint64(width))
        out[2 * i] = ((c & rest) << _ONE) + beyond
        out[2 * i + 1] = ((((c & rest) + more) & rest) << _ONE) + beyond


@kernel(READ, INT, INT, INT, READ, READ, WRITE)
def _sums(x: Any, low: Any, width: Any, bits: Any, s: Any, top: Any, out: Any) -> None:
    rest, more = (np.uint64(1) << np.uint64(bits)) - _ONE, (np.uint64(1) << np.uint64(bits)) - np.uint64(width) - _ONE
    turn, low_sum, high_sum = np.uint64(1) << np.uint64(_TOP + 2 - bits), np.uint64(0), np.uint64(0)
    for i in range(x.size):
        c = _moved(x[i], low)
        whole = ((c >> np.uint64(bits)) << _ONE) + (((c & rest) + more) >> np.uint64(bits))
        found = partial_product(s[i], whole)
        if c < np.uint64(width):
            found = fold(found) + product(top[i], turn)
        low_sum += found & _LOW
        high_sum += found >> _HALF
    out[0] = join(low_sum, high_sum)


@kernel(READ_BYTES, READ, READ, WRITE)
def _weighed(bits: Any, s: Any, dealt: Any, out: Any) -> None:
    low, high = np.uint64(0), np.uint64(0)
    for i in range(dealt.size):
        bit = np.uint64((bits[i >> 3] >> np.uint8(i & 7)) & 1)
        mask = np.uint64(0) - bit
        # p - x = x ^ p, which sums of halves need not have reduced.
        found = (s[i >> 1] & mask) + (dealt[i] ^ (_P & mask))
        low += found & _LOW
        high += found >> _HALF
    out[0] = join(low, high)
