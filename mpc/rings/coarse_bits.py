"""Whether what is masked lies between two ends, by the highest bits of it: a table of packed bits for each number, and
what both ends find in it.

Of a number r a table says, for each v of ``bits`` bits, the bit above these of v - (r >> ignored).  A number c finds
the bit above of (c >> ignored) - (r >> ignored): that of its own bits, turned round by the next.  See
`protocols.operations.beyond` for what that is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from mpc.rings import threads
from mpc.rings.bit_planes import READ_BYTES, WRITE_BYTES, Bytes
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, WRITE, flat, join, kernel, reduce_once

_P = np.uint64(P)
_LOW, _HALF = np.uint64(2**32 - 1), np.uint64(32)
_LEAST = threads.LEAST // 4


def row_bytes(bits: int) -> int:
    """Of a table."""
    return 1 << (bits - 3)


def table(r: FieldArray, ignored: int, bits: int) -> Bytes:
    """See `PrimeField.coarse_bits_table`."""
    out = np.empty((r.size, row_bytes(bits)), np.uint8)
    some, to = flat(r), out.reshape(-1)
    threads.cut(lambda first, last: _table(some, ignored, bits, to, first, last), r.size, least=_LEAST)
    return out


def found(x: FieldArray, ends: Sequence[int], ignored: int, bits: int, dealt: Bytes, one: int) -> Bytes:
    """See `PrimeField.coarse_bits`."""
    out = np.zeros(-(-x.size // 8), np.uint8)
    some, tables = flat(x), flat(dealt)
    for end in ends:
        threads.cut(partial(_found, some, -end % P, ignored, bits, tables, one, out), x.size, 8, _LEAST)
    return out


def counted(bits: Bytes, masks: FieldArray, sizes: Sequence[int], rows: int) -> list[FieldArray]:
    """See `PrimeField.counted_bits`."""
    known, rest = np.zeros((2, rows), np.uint64)
    some, numbers, start = flat(bits), flat(masks), 0
    for size in sizes:
        _counted(some[start:], numbers[8 * start : 8 * start + size], known, rest)
        start += -(-size // 8)
    return [known, rest]


@kernel(READ, INT, INT, WRITE_BYTES, INT, INT)
def _table(r: Any, ignored: Any, bits: Any, out: Any, begin: Any, stop: Any) -> None:
    size, half = np.int64(1) << (bits - 3), np.int64(1) << bits
    for i in range(begin, stop):
        number = np.int64(r[i] >> np.uint64(ignored))
        # Below these bits of r the difference is negative, from them on it is not; the next bit turns that round.
        edge, turn = number & (half - 1), np.uint8(255 if number & half else 0)
        for k in range(size):
            below = min(max(edge - 8 * k, 0), 8)
            out[i * size + k] = np.uint8((1 << below) - 1) ^ turn


@kernel(READ, INT, INT, INT, READ_BYTES, INT, WRITE_BYTES, INT, INT)
def _found(x: Any, offset: Any, ignored: Any, bits: Any, dealt: Any, one: Any, out: Any, begin: Any, stop: Any) -> None:
    size, last = np.int64(1) << (bits - 3), (np.int64(1) << bits) - 1
    for first in range(begin, stop, 8):
        byte = np.int64(0)
        for i in range(first, min(first + 8, stop)):
            c = x[i] + np.uint64(offset)
            number = np.int64(min(c, c - _P) >> np.uint64(ignored))
            place = number & last
            entry = np.int64(dealt[np.uintp(i * size + (place >> 3))]) >> (place & 7)
            byte |= ((entry ^ (one & (number >> bits))) & 1) << (i - first)
        out[first >> 3] ^= np.uint8(byte)


@kernel(READ_BYTES, READ, WRITE, WRITE)
def _counted(bits: Any, masks: Any, known: Any, rest: Any) -> None:
    each = masks.size // known.size
    for row in range(known.size):
        low, high, count = np.uint64(0), np.uint64(0), np.uint64(0)
        for i in range(row * each, (row + 1) * each):
            bit = np.uint64((bits[i >> 3] >> np.uint8(i & 7)) & 1)
            # p - m = m ^ p, which sums of halves need not have reduced.
            value = masks[i] ^ (_P & (np.uint64(0) - bit))
            low += value & _LOW
            high += value >> _HALF
            count += bit
        known[row] += count
        rest[row] = reduce_once(rest[row] + join(low, high))
