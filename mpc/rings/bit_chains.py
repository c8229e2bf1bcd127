"""The sign's bit from packed digits (`mpc.rings.digits`), when these are known but for masks: a_j = u_j + alpha_j,
b_j = v_j + beta_j, of bits under XOR.

It is a polynomial in alpha and beta, with coefficients that follow from u and v.  Its monomials, without the 1, are in
this order: of a_1, alpha_1; of each digit more, those before, beta_j, beta_j times those before, alpha_j.

Digits are packed one number after the other, 2 J - 1 bits each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.rings.digits import READ_BYTES, WRITE_BYTES, Bytes, _flat
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, WRITE, inline, kernel, of_halves

CHUNK = 256
MOST_PACKED = 5
"""Digits of a chain whose monomials fit one word."""
_P = np.uint64(P)
_HALF = np.uint64((P + 1) // 2)


def monomials(digits: int) -> int:
    """Without the 1."""
    return 3 * (1 << (digits - 1)) - 2


def signed_monomials(digits: int) -> int:
    """Of (-1)^bit, times (-1)^alpha_J: see ``signed``."""
    return 2 * (monomials(digits - 1) + 1) if digits > 1 else 1


def packed_monomials(masks: Bytes, size: int, digits: int) -> Bytes:
    """See `PackedBits.monomials`."""
    out = np.empty((size, -(-monomials(digits) // 8)), np.uint8)
    _packed_monomials(_flat(masks), size, digits, out.reshape(-1))
    return out


def chain(opened: Bytes, size: int, digits: int, dealt: Bytes | None) -> Bytes:
    """See `PackedBits.chain`."""
    out = np.empty(-(-size // 8), np.uint8)
    if dealt is None:
        _chain_of_known(_flat(opened), size, digits, out)
    else:
        _chain(_flat(opened), size, digits, _flat(dealt), out)
    return out


def signed(masks: Bytes, size: int, digits: int) -> FieldArray:
    """See `PrimeField.signed_monomials`."""
    out = np.empty((signed_monomials(digits), size), np.uint64)
    _signed(_flat(masks), size, digits, out.reshape(-1))
    return out


def signed_sums(opened: Bytes, size: int, digits: int, dealt: Sequence[FieldArray]) -> list[FieldArray]:
    """See `PrimeField.signed_sums`."""
    out = [np.empty(size, np.uint64) for _ in dealt]
    # One or two: what is not there is none the less an array.
    one, other = _flat(dealt[0]), _flat(dealt[-1])
    _signed_sums(_flat(opened), size, digits, one, other, out[0], out[-1], len(dealt))
    return out


def unpacked(bits: Bytes, size: int) -> FieldArray:
    """The first bits, as numbers."""
    return np.unpackbits(bits, count=size, bitorder="little").astype(np.uint64)


@inline
def _word(data: Any, place: Any, width: Any) -> Any:
    """So many bits from this one on."""
    first, last = place >> 3, min((place + width - 1) >> 3, data.size - 1)
    word = np.uint64(0)
    for k in range(last - first + 1):
        word |= np.uint64(data[first + k]) << np.uint64(8 * k)
    return (word >> np.uint64(place & 7)) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1))


@inline
def _at(word: Any, place: Any) -> Any:
    return (word >> np.uint64(place)) & np.uint64(1)


@kernel(READ_BYTES, INT, INT, WRITE_BYTES)
def _packed_monomials(masks: Any, size: Any, digits: Any, out: Any) -> None:
    row = out.size // max(size, 1)
    for i in range(size):
        word = _word(masks, i * (2 * digits - 1), 2 * digits - 1)
        found, count = _at(word, 0), 1
        for j in range(1, digits):
            beta = np.uint64(0) - _at(word, digits - 1 + j)
            found |= (beta & np.uint64(1)) << np.uint64(count) | (found & beta) << np.uint64(count + 1)
            found |= _at(word, j) << np.uint64(2 * count + 1)
            count = 2 * count + 2
        for k in range(row):
            out[i * row + k] = np.uint8(found >> np.uint64(8 * k))


@kernel(READ_BYTES, INT, INT, READ_BYTES, WRITE_BYTES)
def _chain(opened: Any, size: Any, digits: Any, dealt: Any, out: Any) -> None:
    row = dealt.size // max(size, 1)
    for first in range(0, size, 8):
        byte = np.uint64(0)
        for k in range(min(8, size - first)):
            i = first + k
            word = _word(opened, i * (2 * digits - 1), 2 * digits - 1)
            known, factors, count = _at(word, 0), np.uint64(1), 1
            for j in range(1, digits):
                v = _at(word, digits - 1 + j)
                factors = (
                    factors & (np.uint64(0) - v)
                    | known << np.uint64(count)
                    | factors << np.uint64(count + 1)
                    | np.uint64(1) << np.uint64(2 * count + 1)
                )
                known = _at(word, j) ^ v & known
                count = 2 * count + 2
            shares = np.uint64(0)
            for b in range(row):
                shares |= np.uint64(dealt[i * row + b]) << np.uint64(8 * b)
            parity = shares & factors
            parity ^= parity >> np.uint64(32)
            parity ^= parity >> np.uint64(16)
            parity ^= parity >> np.uint64(8)
            parity ^= parity >> np.uint64(4)
            parity ^= parity >> np.uint64(2)
            parity ^= parity >> np.uint64(1)
            byte |= (parity & np.uint64(1)) << np.uint64(k)
        out[first >> 3] = np.uint8(byte)


@kernel(READ_BYTES, INT, INT, WRITE_BYTES)
def _chain_of_known(opened: Any, size: Any, digits: Any, out: Any) -> None:
    for first in range(0, size, 8):
        byte = np.uint64(0)
        for k in range(min(8, size - first)):
            word = _word(opened, (first + k) * (2 * digits - 1), 2 * digits - 1)
            known = _at(word, 0)
            for j in range(1, digits):
                known = _at(word, j) ^ _at(word, digits - 1 + j) & known
            byte |= known << np.uint64(k)
        out[first >> 3] = np.uint8(byte)


@kernel(READ_BYTES, INT, INT, WRITE)
def _signed(masks: Any, size: Any, digits: Any, out: Any) -> None:
    for i in range(size):
        word = _word(masks, i * (2 * digits - 1), 2 * digits - 1)
        alpha = np.uint64(0) - _at(word, digits - 1)
        half = _HALF ^ ((_HALF ^ (_P - _HALF)) & alpha)
        out[i] = half
        if digits == 1:
            continue
        out[size + i] = half * _at(word, 0)
        count = 1
        for j in range(1, digits - 1):
            beta, start = _at(word, digits - 1 + j), size + count * size + i
            out[start] = half * beta
            for k in range(count):
                out[start + (k + 1) * size] = out[size + k * size + i] * beta
            out[start + (count + 1) * size] = half * _at(word, j)
            count = 2 * count + 2
        beta, start = _at(word, 2 * digits - 2), (count + 1) * size + i
        for k in range(count + 1):
            out[start + k * size] = out[k * size + i] * beta


@inline
def _weighed(factors: Any, dealt: Any, size: Any, first: Any, low: Any, high: Any, result: Any) -> None:
    """The sum of rows of ``dealt``, from the ``first`` element on, times small factors."""
    mask = np.uint64(2**31 - 1)
    length = result.size
    low[:] = 0
    high[:] = 0
    for k in range(factors.shape[0]):
        row = dealt[k * size + first : k * size + first + length]
        of_row = factors[k]
        for i in range(length):
            low[i] += of_row[i] * np.int64(row[i] & mask)
            high[i] += of_row[i] * np.int64(row[i] >> np.uint64(31))
    for i in range(length):
        result[i] = of_halves(low[i], high[i])


@kernel(READ_BYTES, INT, INT, READ, READ, WRITE, WRITE, INT)
def _signed_sums(
    opened: Any, size: Any, digits: Any, one: Any, other: Any, out_one: Any, out_other: Any, count_of: Any
) -> None:
    width, terms = 2 * digits - 1, one.size // max(size, 1)
    bits, factors = np.zeros((width, CHUNK), np.int64), np.zeros((terms, CHUNK), np.int64)
    known, low, high = np.zeros(CHUNK, np.int64), np.zeros(CHUNK, np.int64), np.zeros(CHUNK, np.int64)
    for first in range(0, size, CHUNK):
        length = min(CHUNK, size - first)
        for i in range(length):
            word = _word(opened, (first + i) * width, width)
            for k in range(width):
                bits[k, i] = np.int64(_at(word, k))
        # Row by row, in loops that LLVM makes vector code of.
        known[:] = bits[0]
        factors[1 % terms] = 1 - 2 * known
        count = 1
        for j in range(1, digits - 1):
            u, v = bits[j], bits[digits - 1 + j]
            factors[count + 1] = (1 - 2 * v) * known
            for k in range(count):
                factors[count + 2 + k] = (1 - 2 * v) * factors[1 + k]
                factors[1 + k] *= v
            factors[2 * count + 2] = 1 - 2 * u
            known = u + v * known
            count = 2 * count + 2
        sign = 1 - 2 * bits[digits - 1]
        factors[0] = sign
        if digits > 1:
            # (-1)^u (1 - 2 (v + (1 - 2 v) beta) (what is known of the borrow, and its monomials)).
            v = bits[2 * digits - 2]
            stays, turns = -2 * sign * v, -2 * sign * (1 - 2 * v)
            factors[count + 1] = turns * known
            factors[0] += stays * known
            for k in range(1, count + 1):
                factors[count + 1 + k] = turns * factors[k]
                factors[k] *= stays
        _weighed(factors, one, size, first, low, high, out_one[first : first + length])
        if count_of > 1:
            _weighed(factors, other, size, first, low, high, out_other[first : first + length])
