"""The sign of a difference of numbers as that of a small one: what a public number's digits find in tables of a secret
one's, weighed and added up, modulo a power of two (`mpc.rings.small`).

Integers are cut into J digits as in `mpc.rings.digits`, lowest first, the highest with the sign's bit in it; of each
digit of a number r a table says, as there, whether v is below it, or of the highest, what the sign's bit of v less it
is.  At a digit of c and at the one before, that gives t_j, 1, 0 or -1, as the digit of c is greater than r's, the same
or less; of the lowest 0 if it is not less, else -1; of the highest as their difference is above 2^w modulo 2^(w+1), or
2^w, or less.  (Nor is it 0: there, at the ends of what bits hold, it would be as at 2^w, which is wrong.)  Then

    Z  =  t_1 + t_2 + 2 t_3 + 4 t_4 + ... + 2^(J-2) t_J     is in [-2^(J-1), 2^(J-1)),

and negative where c - r lacks the sign's bit: what lies below a digit, borrows counted, is less than its weight, but
not less than minus that.  Of *equal* digits, t_j = 0 where they are, else -1, it is 0 where all are.  Entries of a
table have as many bits as Z has above its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.rings import threads
from mpc.rings.bit_planes import READ_BYTES, WRITE_BYTES, Bytes, packed
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, WRITE, flat, inline, kernel
from mpc.rings.small import in_a_word, words

_LEAST = threads.LEAST // 4
_CHUNK = 512
"""Numbers at a time, of which all stays in the first cache but what is dealt."""
_P, _HALF, _NOTHING = np.uint64(P), np.uint64((P + 1) // 2), np.int64(0)


def entries(width: int, highest: bool) -> int:
    """Of a digit's table."""
    return (1 << width) - (not highest)


def weight(place: int) -> int:
    """Of a digit, the lowest at place 0."""
    return 1 << max(place - 1, 0)


def entry_bits(digits: int, place: int) -> int:
    """Of an entry of its table."""
    return digits - max(place - 1, 0)


def parts_of(digits: int, place: int, equal: bool) -> tuple[int, int, int]:
    """By what is multiplied what a digit finds, what the one before it does, and 1, for its part of Z."""
    highest, factor = place == digits - 1, weight(place)
    if equal:
        return (-factor, factor, -factor)
    if not place:
        return (1, 0, -1) if highest else (-1, 0, 0)
    return (factor, factor, -factor) if highest else (-factor, -factor, factor)


def table(x: FieldArray, ignored: int, width: int, highest: bool, bits: int) -> FieldArray:
    """See `PrimeField.steps`."""
    out = np.empty((x.size, words(entries(width, highest), bits)), np.uint64)
    some, to = flat(x), out.reshape(-1)
    threads.cut(lambda i, j: _table(some, ignored, width, highest, bits, to, i, j), x.size, least=_LEAST)
    return out


def weighed(
    x: FieldArray, ignored: int, widths: Sequence[int], dealt: Sequence[FieldArray], one: int, repeats: int, equal: bool
) -> FieldArray:
    """See `PrimeField.weighed_steps`."""
    digits, size = len(widths), x.size
    sums, out = np.empty(size, np.uint8), np.empty(words(size, digits), np.uint64)
    some, tables = flat(x), [flat(d) for d in dealt]

    def piece(first: int, last: int) -> None:
        begin, stop, shift = first * per, min(last * per, size), ignored
        sums[begin:stop] = 0
        for j, (width, entered) in enumerate(zip(widths, tables, strict=True)):
            highest, parts = j == digits - 1, parts_of(digits, j, equal)
            _weigh(some, shift, width, highest, entry_bits(digits, j), entered, repeats, one, *parts, sums, begin, stop)
            shift += width
        _pack(sums, digits, out, first, last)

    per = in_a_word(digits)
    threads.cut(piece, out.size, least=_LEAST // per)
    return out


def signs(masks: FieldArray, digits: int, size: int) -> FieldArray:
    """See `PrimeField.small_signs`."""
    out = np.empty((1 << (digits - 1), size), np.uint64)
    some, to, per = flat(masks), out.reshape(-1), in_a_word(digits)
    threads.cut(lambda i, j: _signs(some, digits, size, to, i, j), some.size, least=_LEAST // per)
    return out


def sign(opened: FieldArray, digits: int, size: int, dealt: FieldArray) -> FieldArray:
    """See `PrimeField.small_sign`."""
    out = np.empty(size, np.uint64)
    some, shares, per = flat(opened), flat(dealt), in_a_word(digits)
    threads.cut(lambda i, j: _sign(some, digits, size, shares, out, i, j), some.size, least=_LEAST // per)
    return out


def sign_planes(masks: FieldArray, digits: int, size: int) -> Bytes:
    """See `PrimeField.sign_planes`."""
    out = np.empty((1 << (digits - 1), packed(size)), np.uint8)
    some, to = flat(masks), out.reshape(-1)
    threads.cut(lambda i, j: _planes(some, digits, size, to, i, j), packed(size), least=_LEAST // 8)
    return out


def sign_plane(opened: FieldArray, digits: int, size: int, dealt: Bytes, one: int) -> Bytes:
    """See `PrimeField.sign_plane`."""
    out = np.empty(packed(size), np.uint8)
    some, shares = flat(opened), flat(dealt)
    threads.cut(lambda i, j: _plane(some, digits, size, shares, one & 1, out, i, j), out.size, least=_LEAST // 8)
    return out


@inline
def _ones(count: Any, bits: Any, ones: Any) -> Any:
    """A 1 in the first ``count`` fields of a word, of those that ``ones`` has."""
    shift = np.uint64(count * bits)
    return ones if shift > np.uint64(63) else ones & ((np.uint64(1) << shift) - np.uint64(1))


@kernel(READ, INT, INT, INT, INT, WRITE, INT, INT)
def _table(x: Any, ignored: Any, width: Any, highest: Any, bits: Any, out: Any, begin: Any, stop: Any) -> None:
    per, full = 64 // bits, np.int64(1) << width
    count = full if highest else full - 1
    row, ones = (count + per - 1) // per, np.uint64(0)
    for k in range(per):
        ones |= np.uint64(1) << np.uint64(k * bits)
    for i in range(begin, stop):
        digit = np.int64(x[i] >> np.uint64(ignored)) & (2 * full - 1 if highest else full - 1)
        # Entries below the digit are 1, and of the highest those from it on, if its own highest bit is set.
        edge, turned = digit & (full - 1), digit >= full
        for k in range(row):
            room = min(per, count - k * per)
            word = _ones(min(max(edge - k * per, 0), room), bits, ones)
            out[i * row + k] = word ^ _ones(room, bits, ones) if turned else word


@inline
def _places(
    x: Any, shift: Any, width: Any, highest: Any, back: Any, per: Any, rows: Any, words: Any, fields: Any
) -> None:
    """Where the entry of a digit lies, or of the one before it if ``back`` is 1: in which word of all rows, which
    begin at ``rows``, and in which of its fields.  Where there is none, as it is the greatest or the least, another."""
    full, part = np.int64(1) << width, 65536 // per + 1
    for i in range(np.uintp(x.size)):
        rest = np.int64(x[i] >> np.uint64(shift))
        if highest:
            place = (rest - back) & (full - 1)
        else:
            digit = rest & (full - 1)
            place = max(digit - 1, 0) if back else min(digit, full - 2)
        # place / per, by a product.
        word = (place * part) >> 16
        words[i], fields[i] = rows[i] + word, np.uint64(place - word * per)


@inline
def _taken(dealt: Any, words: Any, out: Any) -> None:
    """Apart from all else, since what is read anywhere would keep a loop from becoming vector code."""
    for i in range(np.uintp(out.size)):
        out[i] = dealt[words[i]]


@kernel(READ, INT, INT, INT, INT, READ, INT, INT, INT, INT, INT, WRITE_BYTES, INT, INT)
def _weigh(
    x: Any, ignored: Any, width: Any, highest: Any, bits: Any, dealt: Any, repeats: Any, one: Any,
    own: Any, before: Any, known: Any, out: Any, begin: Any, stop: Any,
) -> None:  # fmt: skip
    """Adds what the digit finds, times ``own``, what the one before does, times ``before``, and ``known``."""
    per, full, step = 64 // bits, np.int64(1) << width, np.uint64(bits)
    row, whole = ((full if highest else full - 1) + per - 1) // per, known * one
    starts, places, held = np.empty(_CHUNK, np.int64), np.empty(_CHUNK, np.int64), np.empty((4, _CHUNK), np.uint64)
    for first in range(begin, stop, _CHUNK):
        some, sums = x[first : min(first + _CHUNK, stop)], out[first : min(first + _CHUNK, stop)]
        number, size = np.uintp(some.size), some.size
        rows, words = starts[:size], places[:size]
        entries, entry_fields, formers, former_fields = held[0, :size], held[1, :size], held[2, :size], held[3, :size]
        for i in range(number):
            rows[i] = (first + np.int64(i)) // repeats * row if repeats > 1 else (first + np.int64(i)) * row
        _places(some, ignored, width, highest, 0, per, rows, words, entry_fields)
        _taken(dealt, words, entries)
        _places(some, ignored, width, highest, 1, per, rows, words, former_fields)
        _taken(dealt, words, formers)
        for i in range(number):
            # An entry has what lies above it, too.
            rest = np.int64(some[i] >> np.uint64(ignored))
            entry = np.int64(entries[i] >> entry_fields[i] * step)
            former = np.int64(formers[i] >> former_fields[i] * step)
            if highest:
                entry = one - entry if rest & full else entry
                former = one - former if (rest - 1) & full else former
            else:
                entry = entry if rest & (full - 1) < full - 1 else _NOTHING
                former = former if rest & (full - 1) else one
            sums[i] += np.uint8(whole + own * entry + before * former)


@kernel(READ_BYTES, INT, WRITE, INT, INT)
def _pack(x: Any, bits: Any, out: Any, begin: Any, stop: Any) -> None:
    per, mask = 64 // bits, (1 << bits) - 1
    for k in range(begin, stop):
        word = np.uint64(0)
        for f in range(min(per, x.size - k * per)):
            word |= np.uint64(x[k * per + f] & mask) << np.uint64(f * bits)
        out[k] = word


@kernel(READ, INT, INT, WRITE, INT, INT)
def _signs(masks: Any, digits: Any, size: Any, out: Any, begin: Any, stop: Any) -> None:
    per, rows = 64 // digits, 1 << (digits - 1)
    for k in range(begin, stop):
        for f in range(min(per, size - k * per)):
            mask = np.int64(masks[k] >> np.uint64(f * digits))
            for v in range(rows):
                # 1/2, or where that bit of the sum is set -1/2, which is one less.
                bit = np.uint64((v + mask) >> (digits - 1)) & np.uint64(1)
                out[np.uintp(v * size + k * per + f)] = _HALF - bit


@kernel(READ, INT, INT, READ, WRITE, INT, INT)
def _sign(opened: Any, digits: Any, size: Any, dealt: Any, out: Any, begin: Any, stop: Any) -> None:
    per, rows = 64 // digits, 1 << (digits - 1)
    for k in range(begin, stop):
        word = opened[k]
        for f in range(min(per, size - k * per)):
            place, i = np.int64(word >> np.uint64(f * digits)), k * per + f
            found = dealt[np.uintp((place & (rows - 1)) * size + i)]
            # Half a turn further signs are the others; p - x = x ^ p.
            found ^= _P & (np.uint64(0) - np.uint64((place >> (digits - 1)) & 1))
            out[np.uintp(i)] = min(found, found - _P)


@inline
def _digits(x: Any, i: Any, per: Any, digits: Any) -> Any:
    """The number at ``i``, of so many to a word, and what lies above it."""
    word = i // per
    return np.int64(x[np.uintp(word)] >> np.uint64((i - word * per) * digits))


@kernel(READ, INT, INT, WRITE_BYTES, INT, INT)
def _planes(masks: Any, digits: Any, size: Any, out: Any, begin: Any, stop: Any) -> None:
    per, rows, row = 64 // digits, 1 << (digits - 1), (size + 7) >> 3
    for k in range(begin, stop):
        for v in range(rows):
            out[np.uintp(v * row + k)] = 0
        for b in range(min(8, size - 8 * k)):
            mask = _digits(masks, 8 * k + b, per, digits)
            for v in range(rows):
                bit = ((v + mask) >> (digits - 1) & 1) ^ 1
                out[np.uintp(v * row + k)] |= np.uint8(bit << b)


@kernel(READ, INT, INT, READ_BYTES, INT, WRITE_BYTES, INT, INT)
def _plane(opened: Any, digits: Any, size: Any, dealt: Any, one: Any, out: Any, begin: Any, stop: Any) -> None:
    per, rows, row = 64 // digits, 1 << (digits - 1), (size + 7) >> 3
    for k in range(begin, stop):
        byte = np.int64(0)
        for b in range(min(8, size - 8 * k)):
            place = _digits(opened, 8 * k + b, per, digits)
            bit = np.int64(dealt[np.uintp((place & (rows - 1)) * row + k)]) >> b
            # Half a turn further bits are the others.
            byte |= ((bit ^ ((place >> (digits - 1)) & one)) & 1) << b
        out[np.uintp(k)] = np.uint8(byte)
