"""Sines and cosines of angles in integers: the same bits on every host, whatever its libm.

Each party multiplies its own share, a number as large as p, by a public sine; were two parties to round that sine
differently, by one unit in the last place, the result would be noise.  So nothing here is floating point.

An angle is a ``turn``: uint32, one full circle being 2^32.  Sines have 30 fraction bits; multiples of an angle come
from rotating by it again and again, whose error grows by at most 6 * 2^-30 a step.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from mpc.rings import field
from mpc.rings.field import FieldArray
from mpc.rings.kernels import INT, READ, WRITE, flat, inline, kernel, of_halves
from mpc.rings.prime_field import SINE_BITS, Turn

TABLE_BITS = 11
CHUNK = 1024
"""Elements worked on at a time, so that rotations stay in the first-level cache."""

_P = np.uint64(2**61 - 1)
_READ_INT32 = numba.types.Array(numba.types.int32, 1, "C", readonly=True)
_READ_TURNS = numba.types.Array(numba.types.uint32, 1, "C", readonly=True)
_WRITE_TURNS = numba.types.Array(numba.types.uint32, 1, "C")


def turns(x: FieldArray, turn: Turn) -> npt.NDArray[np.uint32]:
    """The angle of each element; flat."""
    out = np.empty(x.size, dtype=np.uint32)
    _turns(flat(field.scale(x, turn.multiplier)), turn.period_bits, out)
    return out


def waves(angles: npt.NDArray[np.uint32], terms: int, bits: int) -> FieldArray:
    """cos(j t), j = 1..terms, then sin(j t), as field elements with ``bits`` fraction bits; shape (2 terms, len)."""
    out = np.empty((2 * terms, len(angles)), dtype=np.uint64)
    _deal_waves(angles, table(), terms, SINE_BITS - bits, out.reshape(-1))
    return out


def combine_waves(
    angles: npt.NDArray[np.uint32],
    cosines: npt.NDArray[np.int32],
    sines: npt.NDArray[np.int32],
    shift: int,
    dealt: FieldArray,
) -> FieldArray:
    """Sum over j of ``cosines[j] cos(j (t + s)) + sines[j] sin(j (t + s))`` for public t and *shared* waves of s.

    ``dealt`` holds a share of what ``waves`` gives for s; the public factors lose ``shift`` bits, with rounding.
    """
    out = np.empty(len(angles), dtype=np.uint64)
    _combine_waves(angles, table(), cosines, sines, shift, dealt.reshape(-1), out)
    return out


@functools.cache
def table() -> npt.NDArray[np.int32]:
    """cos, then sin, of k / 2^11 turns with 30 fraction bits, rounded from 100-bit integers."""
    bits = 100
    one = 1 << bits
    pi = 0x3243F6A8885A308D313198A2E03707344A4093822299F31D008 >> (4 * 50 - bits)  # 50 hexadecimal places of pi
    angle = (2 * pi) >> TABLE_BITS
    # The step's cosine and sine by Taylor series, then every multiple by rotation.
    cosine, sine, term, k = 0, 0, one, 0
    while term:
        if k % 2:
            sine += term if k % 4 == 1 else -term
        else:
            cosine += term if k % 4 == 0 else -term
        k += 1
        term = (term * angle >> bits) // k
    c, s, rows = one, 0, []
    for _ in range(1 << TABLE_BITS):
        rows.append((c, s))
        c, s = (c * cosine - s * sine) >> bits, (c * sine + s * cosine) >> bits
    half = 1 << (bits - SINE_BITS - 1)
    flat = [(row[i] + half) >> (bits - SINE_BITS) for i in (0, 1) for row in rows]
    return np.array(flat, dtype=np.int32)


@kernel(READ, INT, _WRITE_TURNS)
def _turns(x: Any, period_bits: Any, out: Any) -> None:
    mask = (np.uint64(1) << np.uint64(period_bits)) - np.uint64(1)
    if period_bits >= 32:
        down = np.uint64(period_bits - 32)
        for i in range(out.size):
            out[i] = np.uint32((x[i] & mask) >> down)
    else:
        up = np.uint64(32 - period_bits)
        for i in range(out.size):
            out[i] = np.uint32((x[i] & mask) << up)


@inline
def _start(turns: Any, table: Any, c1: Any, s1: Any, c: Any, s: Any) -> None:
    """Cosine and sine of each angle of a chunk: a table for the high bits, two terms of a series for the rest."""
    size = np.int64(1) << np.int64(TABLE_BITS)
    low_bits = np.int64(32 - TABLE_BITS)
    for i in range(turns.size):
        turn = np.int64(turns[i])
        high = turn >> low_bits
        # The rest in radians with 30 fraction bits: times 2 pi 2^30 / 2^32 = pi / 2.
        rest = ((turn & ((np.int64(1) << low_bits) - 1)) * np.int64(1647099)) >> np.int64(20)
        less = (rest * rest) >> np.int64(31)
        ch, sh = np.int64(table[high]), np.int64(table[size + high])
        c1[i] = np.int32(ch - ((ch * less + sh * rest) >> np.int64(30)))
        s1[i] = np.int32(sh + ((ch * rest - sh * less) >> np.int64(30)))
        c[i], s[i] = c1[i], s1[i]


@inline
def _rotate(count: int, c1: Any, s1: Any, c: Any, s: Any) -> None:
    half = np.int64(1) << np.int64(29)
    for i in range(count):
        cc = np.int64(c[i]) * np.int64(c1[i]) - np.int64(s[i]) * np.int64(s1[i])
        ss = np.int64(c[i]) * np.int64(s1[i]) + np.int64(s[i]) * np.int64(c1[i])
        c[i] = np.int32((cc + half) >> np.int64(30))
        s[i] = np.int32((ss + half) >> np.int64(30))


@kernel(_READ_TURNS, _READ_INT32, INT, INT, WRITE)
def _deal_waves(turns: Any, table: Any, terms: Any, drop: Any, out: Any) -> None:
    n = turns.size
    c1, s1 = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    c, s = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    half = (np.int64(1) << np.int64(drop)) >> np.int64(1)
    p = np.int64(_P)
    for first in range(0, n, CHUNK):
        count = min(CHUNK, n - first)
        _start(turns[first : first + count], table, c1, s1, c, s)
        for j in range(terms):
            if j:
                _rotate(count, c1, s1, c, s)
            # Slices, and loops from 0: what LLVM needs to see to make vector code of them.
            cosines = out[j * n + first : j * n + first + count]
            sines = out[(terms + j) * n + first : (terms + j) * n + first + count]
            for i in range(count):
                x = (np.int64(c[i]) + half) >> np.int64(drop)
                y = (np.int64(s[i]) + half) >> np.int64(drop)
                cosines[i] = np.uint64(x + (p & (x >> np.int64(63))))
                sines[i] = np.uint64(y + (p & (y >> np.int64(63))))


@kernel(_READ_TURNS, _READ_INT32, _READ_INT32, _READ_INT32, INT, READ, WRITE)
def _combine_waves(turns: Any, table: Any, cosines: Any, sines: Any, shift: Any, dealt: Any, out: Any) -> None:
    n, terms = turns.size, cosines.size
    c1, s1 = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    c, s = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
    low, high = np.empty(CHUNK, np.int64), np.empty(CHUNK, np.int64)
    half = (np.int64(1) << np.int64(shift)) >> np.int64(1)
    mask = np.uint64(2**31 - 1)
    for first in range(0, n, CHUNK):
        count = min(CHUNK, n - first)
        _start(turns[first : first + count], table, c1, s1, c, s)
        low[:] = 0
        high[:] = 0
        for j in range(terms):
            if j:
                _rotate(count, c1, s1, c, s)
            b_cos, b_sin = np.int64(cosines[j]), np.int64(sines[j])
            of_cos = dealt[j * n + first : j * n + first + count]
            of_sin = dealt[(terms + j) * n + first : (terms + j) * n + first + count]
            for i in range(count):
                # cos(j(t+s)) = cos jt cos js - sin jt sin js;  sin(j(t+s)) = sin jt cos js + cos jt sin js.
                # Factors fit 26 bits and halves of a share 31, so that 64 products add up within 63 bits.
                x = (b_cos * np.int64(c[i]) + b_sin * np.int64(s[i]) + half) >> np.int64(shift)
                y = (b_sin * np.int64(c[i]) - b_cos * np.int64(s[i]) + half) >> np.int64(shift)
                u, v = of_cos[i], of_sin[i]
                low[i] += x * np.int64(u & mask) + y * np.int64(v & mask)
                high[i] += x * np.int64(u >> np.uint64(31)) + y * np.int64(v >> np.uint64(31))
        result = out[first : first + count]
        for i in range(count):
            result[i] = of_halves(low[i], high[i])
