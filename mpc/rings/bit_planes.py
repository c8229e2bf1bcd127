"""Bits of many numbers in *planes*: one bit of every number, packed, then the next bit of every number.

A word of a plane is a bit of 64 numbers, so what a formula says of bits is done to whole words.  Digits are cut, tables
made and looked up in (``mpc/rings/digits.py`` says what these are) without a place in memory that depends on a number.
A plane of n bits takes ceil(n / 8) bytes; what is behind its last bit means nothing.

An entry of a table says whether v is below a digit d.  Of the lowest i bits of d these are 2^i - 1 entries t_v, and a
further bit b makes of them b | t_v for v, b for 2^i - 1, and b & t_v for v + 2^i.  An entry is looked up by halving: of
each two that differ in the lowest bit of their number, that bit of the digit chooses one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from mpc.rings import threads
from mpc.rings.digits import entries
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, READ_INT, WRITE, flat, inline, kernel

Bytes = npt.NDArray[np.uint8]

READ_BYTES = numba.types.Array(numba.types.uint8, 1, "C", readonly=True)
WRITE_BYTES = numba.types.Array(numba.types.uint8, 1, "C")

CHUNK = 2048
"""Numbers at a time: their planes stay in the first cache."""
ROW = CHUNK // 8
_LEAST = threads.LEAST // 4
_P = np.uint64(P)


def packed(size: int) -> int:
    """Bytes of a plane."""
    return -(-size // 8)


def table(x: FieldArray, ignored: int, widths: Sequence[int]) -> Bytes:
    """See `PrimeField.packed_table`."""
    out = np.empty((entries(widths), packed(x.size)), np.uint8)
    some, to = flat(x), out.reshape(-1)
    threads.cut(lambda first, last: _table(some, ignored, *_room(widths), to, first, last), x.size, CHUNK, _LEAST)
    return out


def look_up(
    x: FieldArray, ignored: int, widths: Sequence[int], dealt: Bytes, one: int, repeats: int, equal: bool
) -> Bytes:
    """See `PrimeField.packed_look_up`."""
    if repeats > 1:
        # One threshold of all numbers after the other, and then all of a number side by side.
        columns = np.moveaxis(x.reshape(-1, repeats), 1, 0)
        planes = [look_up(column, ignored, widths, dealt, one, 1, equal) for column in columns]
        bits = np.unpackbits(np.stack(planes, -1), axis=1, count=columns.shape[1], bitorder="little")
        return np.packbits(bits.reshape(bits.shape[0], -1), axis=1, bitorder="little")
    out = np.empty((2 * len(widths) - 1, packed(x.size)), np.uint8)
    some, entered, to = flat(x), flat(dealt), out.reshape(-1)

    def piece(first: int, last: int) -> None:
        own, before = np.empty((2, ROW << (max(widths) - 1)), np.uint8)
        _look_up(some, ignored, *_room(widths), entered, -one % 256, equal, own, before, to, first, last)

    threads.cut(piece, x.size, CHUNK, _LEAST)
    return out


def _room(widths: Sequence[int]) -> tuple[Any, Any, Any, Any, Any]:
    """What kernels need to cut digits: widths, their sum with the sign's bit, and room for bytes and planes."""
    bits, held = sum(widths) + 1, np.empty(CHUNK, np.uint8)
    return np.array(widths, np.int64), bits, held, held.view(np.uint64), np.empty(bits * ROW, np.uint8)


def unpacked(bits: Bytes, size: int) -> FieldArray:
    """A plane's bits, as numbers."""
    return np.unpackbits(bits, count=size, bitorder="little").astype(np.uint64)


def kept(bits: Bytes, x: FieldArray) -> FieldArray:
    """x where the plane's bit is set, else 0."""
    out = np.empty_like(x, order="C")
    planes, some, to = flat(bits), flat(x), out.reshape(-1)
    threads.cut(lambda first, last: _kept(planes[first // 8 :], some[first:last], to[first:last]), x.size, CHUNK)
    return out


def turned(bits: Bytes, x: FieldArray) -> FieldArray:
    """-x where the plane's bit is set, else x."""
    out = np.empty_like(x, order="C")
    planes, some, to = flat(bits), flat(x), out.reshape(-1)
    threads.cut(lambda first, last: _turned(planes[first // 8 :], some[first:last], to[first:last]), x.size, CHUNK)
    return out


@inline
def spread(plane: Any, out: Any) -> None:
    """Each bit as a mask of a whole word; ``out`` has room for whole bytes."""
    for k in range(plane.size):
        byte = np.int64(plane[k])
        for b in range(8):
            out[8 * k + b] = -((byte >> b) & 1)


# Rows are told by places, which are unsigned: of slices Numba would count references, of places look at the sign.


@inline
def _cut(x: Any, first: Any, size: Any, ignored: Any, count: Any, held: Any, eights: Any, planes: Any) -> None:
    """``count`` bits of ``size`` numbers, from the ``ignored``-th on, as planes of `ROW` bytes each.

    ``eights`` are the bytes of ``held`` as words.
    """
    number = (size + 7) >> 3
    for start in range(0, count, 8):
        shift = np.uint64(ignored + start)
        for i in range(np.uintp(size)):
            held[i] = np.uint8(x[np.uintp(first) + i] >> shift)
        for i in range(size, 8 * number):
            held[i] = 0
        # Eight bits of eight numbers are a word, which is transposed (Warren, Hacker's Delight, 7-3).
        for k in range(number):
            word = eights[k]
            swap = (word ^ (word >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
            word ^= swap ^ (swap << np.uint64(7))
            swap = (word ^ (word >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
            word ^= swap ^ (swap << np.uint64(14))
            swap = (word ^ (word >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
            eights[k] = word ^ swap ^ (swap << np.uint64(28))
        for j in range(min(8, count - start)):
            to, down = np.uintp((start + j) * ROW), np.uint64(8 * j)
            for k in range(np.uintp(number)):
                planes[to + k] = np.uint8(eights[k] >> down)


@inline
def _copied(x: Any, at: Any, out: Any, to: Any, number: Any) -> None:
    for k in range(np.uintp(number)):
        out[np.uintp(to) + k] = x[np.uintp(at) + k]


@inline
def _xored(x: Any, at: Any, out: Any, to: Any, number: Any) -> None:
    for k in range(np.uintp(number)):
        out[np.uintp(to) + k] ^= x[np.uintp(at) + k]


@inline
def _grown(bits: Any, bit: Any, out: Any, low: Any, high: Any, number: Any) -> None:
    """Two entries of one, for a bit more."""
    for k in range(np.uintp(number)):
        entry, more = out[np.uintp(low) + k], bits[np.uintp(bit) + k]
        out[np.uintp(high) + k] = more & entry
        out[np.uintp(low) + k] = more | entry


@kernel(READ, INT, READ_INT, INT, WRITE_BYTES, WRITE, WRITE_BYTES, WRITE_BYTES, INT, INT)
def _table(
    x: Any, ignored: Any, widths: Any, bits: Any, held: Any, eights: Any, planes: Any, out: Any, begin: Any, stop: Any
) -> None:
    row, last = (x.size + 7) >> 3, widths.size - 1
    for first in range(begin, stop, CHUNK):
        size = min(CHUNK, stop - first)
        _cut(x, first, size, ignored, bits, held, eights, planes)
        number, start, bit = (size + 7) >> 3, first >> 3, 0
        for j in range(last + 1):
            for i in range(widths[j]):
                count = (1 << i) - 1
                _copied(planes, bit, out, start + count * row, number)
                for v in range(count):
                    _grown(planes, bit, out, start + v * row, start + (count + 1 + v) * row, number)
                bit += ROW
            start += ((1 << widths[j]) - 1) * row
        # Of the highest digit: whether its own sign's bit and a borrow differ.
        for v in range(1, 1 << widths[last]):
            _xored(planes, bit, out, start - v * row, number)
        _copied(planes, bit, out, start, number)


@inline
def _chosen(bits: Any, bit: Any, x: Any, at: Any, row: Any, out: Any, to: Any, number: Any) -> None:
    """Of two rows, one after the other: the second where the bit is set, else the first."""
    for k in range(np.uintp(number)):
        entry = x[np.uintp(at) + k]
        out[np.uintp(to) + k] = entry ^ (bits[np.uintp(bit) + k] & (entry ^ x[np.uintp(at + row) + k]))


@kernel(
    READ, INT, READ_INT, INT, WRITE_BYTES, WRITE, WRITE_BYTES,
    READ_BYTES, INT, INT, WRITE_BYTES, WRITE_BYTES, WRITE_BYTES, INT, INT,
)  # fmt: skip
def _look_up(
    x: Any, ignored: Any, widths: Any, bits: Any, held: Any, eights: Any, planes: Any,
    dealt: Any, one: Any, equal: Any, own: Any, before: Any, out: Any, begin: Any, stop: Any,
) -> None:  # fmt: skip
    """``own`` and ``before``: room for entries among which the digit has yet to choose, and for those before them."""
    row, last = (x.size + 7) >> 3, widths.size - 1
    for first in range(begin, stop, CHUNK):
        size = min(CHUNK, stop - first)
        _cut(x, first, size, ignored, bits, held, eights, planes)
        number, at, start, bit = (size + 7) >> 3, first >> 3, first >> 3, 0
        for j in range(last + 1):
            half = 1 << (widths[j] - 1)
            end = start + (2 * half - 1) * row
            # Behind the last entry of all digits but the highest nothing is above; before the first, all is.
            pairs = half if j == last else half - 1
            for v in range(pairs):
                _chosen(planes, bit, dealt, start + 2 * v * row, row, own, v * ROW, number)
            if pairs < half:
                for k in range(np.uintp(number)):
                    own[np.uintp(pairs * ROW) + k] = dealt[np.uintp(end - row) + k] & ~planes[np.uintp(bit) + k]
            if j or equal:
                for k in range(np.uintp(number)):
                    edge = (dealt[np.uintp(end) + k] if j == last else np.uint8(0)) ^ np.uint8(one)
                    before[k] = edge ^ (planes[np.uintp(bit) + k] & (edge ^ dealt[np.uintp(start) + k]))
                for v in range(1, half):
                    _chosen(planes, bit, dealt, start + (2 * v - 1) * row, row, before, v * ROW, number)
            bit += ROW
            while half > 1:
                half >>= 1
                for v in range(0, half * ROW, ROW):
                    _chosen(planes, bit, own, 2 * v, ROW, own, v, number)
                    if j or equal:
                        _chosen(planes, bit, before, 2 * v, ROW, before, v, number)
                bit += ROW
            a, b = j * row + at, (last + j) * row + at
            if equal and j:
                for k in range(number):
                    out[a + k] = 0
            else:
                _copied(own, 0, out, a, number)
            if j or equal:
                same = b if j else a
                _copied(own, 0, out, same, number)
                _xored(before, 0, out, same, number)
            start = end
        if not equal:
            for k in range(number):
                out[last * row + at + k] ^= planes[bit + k] & np.uint8(one)


@kernel(READ_BYTES, READ, WRITE)
def _kept(bits: Any, x: Any, out: Any) -> None:
    masks = np.empty(CHUNK, np.int64)
    for first in range(0, x.size, CHUNK):
        some, to = x[first : first + CHUNK], out[first : first + CHUNK]
        spread(bits[first >> 3 : (first + some.size + 7) >> 3], masks)
        for i in range(some.size):
            to[i] = some[i] & np.uint64(masks[i])


@kernel(READ_BYTES, READ, WRITE)
def _turned(bits: Any, x: Any, out: Any) -> None:
    masks = np.empty(CHUNK, np.int64)
    for first in range(0, x.size, CHUNK):
        some, to = x[first : first + CHUNK], out[first : first + CHUNK]
        spread(bits[first >> 3 : (first + some.size + 7) >> 3], masks)
        for i in range(some.size):
            # p - x = x ^ p.
            value = some[i] ^ (np.uint64(masks[i]) & _P)
            to[i] = min(value, value - _P)
