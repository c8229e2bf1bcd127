"""Compiled loops of matrix products: limbs, small products.  See `mpc.rings.kernels`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from mpc.rings.kernels import (
    INT,
    READ,
    WRITE,
    P,
    Words,
    fold,
    inline,
    join,
    kernel,
    partial_product,
    reduce_once,
    rotate,
)

Reals = npt.NDArray[np.float64]
READ_REAL = types.Array(types.float64, 1, "C", readonly=True)
WRITE_REAL = types.Array(types.float64, 1, "C")

PARTS = 5
"""Matrices that one is split into."""
_LOW = np.uint64(2**32 - 1)
# 1/3 modulo 2^64: what is a multiple of 3 is divided by it.
_THIRD = np.int64(-((2**64 - 1) // 3))
_U19, _U20, _U32, _U40, _U60 = (np.uint64(k) for k in (19, 20, 32, 40, 60))


# Matrices ---------------------------------------------------------------------------------------------------


@inline
def split_word(x: np.uint64) -> tuple[np.int32, np.int32, np.int32]:
    """Balanced limbs: x = a0 + a1 2^20 + a2 2^40 (mod p), |a0|, |a1| <= 2^19, |a2| <= 2^20."""
    centred = np.int64(x) - np.int64(P) * np.int64(x >> _U60)
    # Adding half a limb before cutting makes the limbs balanced; the carry goes on by itself.
    biased = centred + np.int64((1 << 19) + (1 << 39))
    a0 = np.int32(biased & 0xFFFFF) - np.int32(1 << 19)
    a1 = np.int32((biased >> 20) & 0xFFFFF) - np.int32(1 << 19)
    return np.int32(a0), np.int32(a1), np.int32(biased >> 40)


@inline
def split_into(x: Words, out: Reals, start: int, step: int) -> None:
    """The polynomial a0 + a1 t + a2 t^2 at 0, 1, -1 and infinity, and 4 times that at 1/2, each a `step` after the
    last."""
    n = x.size
    r0, r1, r2 = out[start : start + n], out[start + step :], out[start + 2 * step :]
    r3, r4 = out[start + 3 * step :], out[start + 4 * step :]
    for i in range(n):
        a0, a1, a2 = split_word(x[i])
        ends = np.int32(a0 + a2)
        r0[i] = np.float64(a0)
        r1[i] = np.float64(np.int32(ends + a1))
        r2[i] = np.float64(np.int32(ends - a1))
        r3[i] = np.float64(a2)
        r4[i] = np.float64(np.int32(4 * a0 + 2 * a1 + a2))


@kernel(READ, WRITE_REAL)
def split(x: Words, out: Reals) -> None:
    """The polynomial of limbs at five places, as (`PARTS`, x.size)."""
    split_into(x, out, 0, x.size)


@kernel(READ_REAL, WRITE, types.boolean)
def recombine(x: Reals, out: Words, accumulate: bool) -> None:
    """Put products of polynomials of limbs at five places (`PARTS`, out.size), integers up to 2^53, together; add them
    to `out` or set it."""
    n = out.size
    r0, r1, r2, r3, r4 = x[:n], x[n:], x[2 * n :], x[3 * n :], x[4 * n :]
    p = np.int64(P)
    keep = np.uint64(0) - np.uint64(accumulate)
    for i in range(n):
        # Coefficients of 2^0, 2^20, 2^40, 2^60, 2^80 = 2^19.  At 1 and -1 the even ones, and the odd ones, have the
        # same sum; at 1/2, times 16, there are 8 and 2 times the odd ones, so that 3 times one of them is left.
        q0, q4 = np.int64(r0[i]), np.int64(r3[i])
        at_one, at_other = np.int64(r1[i]), np.int64(r2[i])
        q2 = ((at_one + at_other) >> 1) - q0 - q4
        odd = (at_one - at_other) >> 1
        q1 = (((np.int64(r4[i]) - 16 * q0 - 4 * q2 - q4) >> 1) - odd) * _THIRD
        # Below 2^50 in size, so p makes them positive.
        c0 = reduce_once(np.uint64(q0 + p))
        c1 = reduce_once(np.uint64(q1 + p))
        c2 = reduce_once(np.uint64(q2 + p))
        c3 = reduce_once(np.uint64(odd - q1 + p))
        c4 = reduce_once(np.uint64(q4 + p))
        value = c0 + rotate(c1, _U20) + rotate(c2, _U40) + rotate(c3, _U60) + rotate(c4, _U19)
        out[i] = reduce_once(fold(value + (out[i] & keep)))


@kernel(READ, READ, WRITE, INT, INT, INT, INT, INT)
def small_matmul(x: Words, y: Words, out: Words, m: int, k: int, n: int, x_step: int, y_step: int) -> None:
    """(batch, m, k) @ (batch, k, n) in integers.  A step of 0 takes one matrix for the whole batch."""
    for line in range(out.size // n):
        batch = line // m
        start = batch * x_step + (line - batch * m) * k
        a, b = x[start : start + k], y[batch * y_step : batch * y_step + k * n]
        if n == 1:
            low, high = np.uint64(0), np.uint64(0)
            for i in range(k):
                word = partial_product(a[i], b[i])
                low += word & _LOW
                high += word >> _U32
            out[line] = join(low, high)
            continue
        c = out[line * n : (line + 1) * n]
        for j in range(n):
            c[j] = 0
        whole = k - k % 4
        for i in range(0, whole, 4):
            # Four partial products, each folded below 2^61 + 4, and the sum so far fit 64 bits.
            a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
            b0, b1 = b[i * n : (i + 1) * n], b[(i + 1) * n : (i + 2) * n]
            b2, b3 = b[(i + 2) * n : (i + 3) * n], b[(i + 3) * n : (i + 4) * n]
            for j in range(n):
                word = c[j] + fold(partial_product(a0, b0[j])) + fold(partial_product(a1, b1[j]))
                word += fold(partial_product(a2, b2[j])) + fold(partial_product(a3, b3[j]))
                c[j] = fold(word)
        for i in range(whole, k):
            a0, b0 = a[i], b[i * n : (i + 1) * n]
            for j in range(n):
                c[j] = fold(c[j] + fold(partial_product(a0, b0[j])))
        for j in range(n):
            c[j] = reduce_once(fold(c[j]))
