"""The sign's bit from packed digits (`mpc.rings.bit_planes`), when these are known but for masks: a_j = u_j + alpha_j,
b_j = v_j + beta_j, of bits under XOR.

It is a polynomial in alpha and beta, with coefficients that follow from u and v.  Its monomials L_J are in this order:
L_1 is 1 and alpha_1; L_(j+1) is L_j, beta times L_j, alpha, with the masks of a digit more.  Of shares of them, in this
order, the bit e_J follows as it would of a mask's own,

    e_(j+1)(L_(j+1))  =  [1 or alpha, as u says]  +  [of e_j(L_j) and e_j(beta L_j) what v says],

where a public bit turns x round: to 1 - x in numbers, to x + 1 under XOR, of which the 1 is the public part.  (Of a
digit below the highest a and b are never both 1: their sum in numbers is that under XOR.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.rings import threads
from mpc.rings.bit_planes import READ_BYTES, ROW, WRITE_BYTES, Bytes, spread
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, WRITE, flat, inline, kernel, reduce_once

CHUNK = 256
CHOSEN = 1 << 11
"""Numbers of which shares are chosen before these are used, so that they are still in the cache."""
_LEAST = threads.LEAST // 4
"""Numbers, or bytes of a plane, of a piece."""
_P = np.uint64(P)
_HALF = np.uint64((P + 1) // 2)


def monomials(digits: int) -> int:
    """Without the 1."""
    return 3 * (1 << (digits - 1)) - 2


def signed_monomials(digits: int) -> int:
    """Of (-1)^bit, times (-1)^alpha_J: see ``signed``."""
    return 2 * (monomials(digits - 1) + 1) if digits > 1 else 1


def packed_monomials(masks: Bytes) -> Bytes:
    """See `PackedBits.monomials`."""
    planes, row = masks.shape
    digits = (planes + 1) // 2
    out = np.empty((monomials(digits), row), np.uint8)
    some, to = flat(masks), out.reshape(-1)
    threads.cut(lambda first, last: _packed_monomials(some, row, digits, to, first, last), row, least=_LEAST)
    return out


def chain(opened: Bytes, dealt: Bytes | None) -> Bytes:
    """See `PackedBits.chain`."""
    planes, row = opened.shape
    out, digits, some = np.empty(row, np.uint8), (planes + 1) // 2, flat(opened)
    if dealt is None:
        threads.cut(lambda first, last: _chain_of_known(some, row, digits, out, first, last), row, least=_LEAST)
    else:
        shares = flat(dealt)
        threads.cut(lambda first, last: _chain(some, row, digits, shares, out, first, last), row, least=_LEAST)
    return out


def signed(masks: Bytes, size: int) -> FieldArray:
    """See `PrimeField.signed_monomials`."""
    digits = (len(masks) + 1) // 2
    out = np.empty((signed_monomials(digits), size), np.uint64)
    some, to = flat(masks), out.reshape(-1)
    threads.cut(lambda first, last: _signed(some, size, digits, to, first, last), size, CHUNK, _LEAST)
    return out


def signed_sums(opened: Bytes, size: int, dealt: Sequence[FieldArray]) -> list[FieldArray]:
    """See `PrimeField.signed_sums`."""
    return [_sums(opened, size, flat(shares)) for shares in dealt]


def _sums(opened: Bytes, size: int, shares: FieldArray) -> FieldArray:
    out, some, digits = np.empty(size, np.uint64), flat(opened), (len(opened) + 1) // 2
    threads.cut(lambda first, last: _signed_sums(some, size, digits, shares, out, first, last), size, CHUNK, _LEAST)
    return out


def chosen_sums(opened: Bytes, size: int, bits: npt.NDArray[np.bool_], x: FieldArray, y: FieldArray) -> FieldArray:
    """See `PrimeField.chosen_sums`."""
    out, digits = np.empty(size, np.uint64), (len(opened) + 1) // 2

    def some(first: int, last: int) -> None:
        for start in range(first, last, CHOSEN):
            part, planes = slice(start, min(start + CHOSEN, last)), slice(start // 8, (start + CHOSEN) // 8)
            chosen, sums = np.where(bits[part], x[:, part], y[:, part]), out[part]
            _signed_sums(flat(opened[:, planes]), len(sums), digits, chosen.reshape(-1), sums, 0, len(sums))

    threads.cut(some, size, CHOSEN, _LEAST)
    return out


@inline
def _start(block: Any, length: Any) -> Any:
    """Where the ``block``-th of the L_j of this ``length`` begins: two, and an alpha, are one of the next length."""
    start, rest = block * (length + 1), block
    while rest:
        start -= rest & 1
        rest >>= 1
    return start


# Under XOR --------------------------------------------------------------------------------------------------
# Bits are in planes of a ``row`` of bytes.  Places are unsigned, see `mpc.rings.bit_planes`.


@kernel(READ_BYTES, INT, INT, WRITE_BYTES, INT, INT)
def _packed_monomials(masks: Any, row: Any, digits: Any, out: Any, begin: Any, stop: Any) -> None:
    number = np.uintp(stop - begin)
    for k in range(begin, stop):
        out[k] = masks[k]
    count = 1
    for j in range(1, digits):
        a, b = np.uintp(j * row + begin), np.uintp((digits - 1 + j) * row + begin)
        beta, alpha = np.uintp(count * row + begin), np.uintp((2 * count + 1) * row + begin)
        for k in range(number):
            out[beta + k] = masks[b + k]
            out[alpha + k] = masks[a + k]
        for m in range(count):
            of, to = np.uintp(m * row + begin), np.uintp((count + m + 1) * row + begin)
            for k in range(number):
                out[to + k] = out[of + k] & masks[b + k]
        count = 2 * count + 2


@kernel(READ_BYTES, INT, INT, READ_BYTES, WRITE_BYTES, INT, INT)
def _chain(opened: Any, row: Any, digits: Any, dealt: Any, out: Any, begin: Any, stop: Any) -> None:
    held = np.empty(ROW << (digits - 1), np.uint8)
    for first in range(begin, stop, ROW):
        number = np.uintp(min(ROW, stop - first))
        # The 1 is not dealt: each block begins a row earlier than among all monomials, and the first has none.
        for block in range(1 << (digits - 1)):
            u, to, at = np.uintp(first), np.uintp(block * ROW), np.uintp((_start(block, 2) - 1) * row + first)
            alpha = at + np.uintp(row)
            if block:
                for k in range(number):
                    held[to + k] = (opened[u + k] & dealt[at + k]) ^ dealt[alpha + k]
            else:
                for k in range(number):
                    held[k] = dealt[alpha + k]
        length = 2
        for j in range(1, digits):
            u, v = np.uintp(j * row + first), np.uintp((digits - 1 + j) * row + first)
            for block in range(1 << (digits - 1 - j)):
                at = np.uintp((_start(block, 2 * length + 1) - 1) * row + first)
                alpha, to = at + np.uintp(2 * length * row), np.uintp(block * ROW)
                for k in range(number):
                    kept = held[to + to + k] & opened[v + k]
                    held[to + k] = kept ^ held[to + to + np.uintp(ROW) + k] ^ dealt[alpha + k]
                if block:
                    for k in range(number):
                        held[to + k] ^= opened[u + k] & dealt[at + k]
            length = 2 * length + 1
        for k in range(number):
            out[np.uintp(first) + k] = held[k]


@kernel(READ_BYTES, INT, INT, WRITE_BYTES, INT, INT)
def _chain_of_known(opened: Any, row: Any, digits: Any, out: Any, begin: Any, stop: Any) -> None:
    to, number = np.uintp(begin), np.uintp(stop - begin)
    for k in range(number):
        out[to + k] = opened[to + k]
    for j in range(1, digits):
        u, v = np.uintp(j * row + begin), np.uintp((digits - 1 + j) * row + begin)
        for k in range(number):
            out[to + k] = opened[u + k] ^ (opened[v + k] & out[to + k])


# In numbers -------------------------------------------------------------------------------------------------


@kernel(READ_BYTES, INT, INT, WRITE, INT, INT)
def _signed(masks: Any, size: Any, digits: Any, out: Any, begin: Any, stop: Any) -> None:
    row, bits = (size + 7) >> 3, np.empty((2 * digits - 1, CHUNK), np.int64)
    for first in range(begin, stop, CHUNK):
        length, at = np.uintp(min(CHUNK, stop - first)), first >> 3
        for k in range(2 * digits - 1):
            spread(masks[k * row + at : k * row + at + ((np.int64(length) + 7) >> 3)], bits[k])
        start, sign = np.uintp(first), bits[digits - 1]
        for i in range(length):
            out[start + i] = _HALF ^ (_P & np.uint64(sign[i]))
        count = 1
        for j in range(digits):
            # Of the lowest digit there is no b, of the highest no a.
            if j:
                beta = bits[digits - 1 + j]
                for m in range(count):
                    low, high = np.uintp(m * size + first), np.uintp((count + m) * size + first)
                    for i in range(length):
                        out[high + i] = out[low + i] & np.uint64(beta[i])
                count *= 2
            if j < digits - 1:
                alpha, to = bits[j], np.uintp(count * size + first)
                for i in range(length):
                    out[to + i] = out[start + i] & np.uint64(alpha[i])
                count += 1


@inline
def _of_two(bit: Any, zero: Any, one: Any) -> Any:
    """x, or 1 - x where the bit is set, a mask: of shares of 1, and of x."""
    return ((one ^ bit) - bit) + (zero & bit)


@inline
def _folded(x: Any) -> Any:
    """A number congruent to x in [-4, p + 3]."""
    return (x & np.int64(P)) + (x >> np.int64(61))


@kernel(READ_BYTES, INT, INT, READ, WRITE, INT, INT)
def _signed_sums(opened: Any, size: Any, digits: Any, dealt: Any, out: Any, begin: Any, stop: Any) -> None:
    """Numbers are below 2^61 in size, or little more: sums of three fit a word."""
    row, bits = (size + 7) >> 3, np.empty((2 * digits - 1, CHUNK), np.int64)
    held = np.empty((1 << (digits - 1), CHUNK), np.int64)
    for first in range(begin, stop, CHUNK):
        number, at = np.uintp(min(CHUNK, stop - first)), first >> 3
        for k in range(2 * digits - 1):
            spread(opened[k * row + at : k * row + at + ((np.int64(number) + 7) >> 3)], bits[k])
        length, start, sign = 2, np.uintp(first), bits[digits - 1]
        if digits == 1:
            for i in range(number):
                out[start + i] = reduce_once(dealt[start + i] ^ (_P & np.uint64(sign[i])))
            continue
        for block in range(1 << (digits - 1)):
            of_one, u, to = np.uintp(_start(block, length) * size + first), bits[0], held[block]
            alpha = of_one + np.uintp(size)
            for i in range(number):
                to[i] = _of_two(u[i], np.int64(dealt[of_one + i]), np.int64(dealt[alpha + i]))
        for j in range(1, digits - 1):
            u, v = bits[j], bits[digits - 1 + j]
            for block in range(1 << (digits - 1 - j)):
                of_one = np.uintp(_start(block, 2 * length + 1) * size + first)
                alpha = of_one + np.uintp(2 * length * size)
                to, zero, one = held[block], held[2 * block], held[2 * block + 1]
                for i in range(number):
                    found = _of_two(u[i], np.int64(dealt[of_one + i]), np.int64(dealt[alpha + i]))
                    to[i] = _folded(found + _of_two(v[i], zero[i], one[i]))
            length = 2 * length + 1
        # (-1)^u (1 - 2 b (what is borrowed)).
        v, zero, one = bits[2 * digits - 2], held[0], held[1]
        for i in range(number):
            borrowed = _folded(_of_two(v[i], zero[i], one[i]))
            value = _folded(np.int64(dealt[start + i]) - 2 * borrowed)
            value = _folded(np.int64(P) + ((value ^ sign[i]) - sign[i]))
            out[start + i] = reduce_once(np.uint64(value))
