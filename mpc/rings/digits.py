"""Digits of public numbers and of masks, and what a public digit finds in a table that is made of a secret one.

An integer's bits, without the lowest ``ignored`` ones, are cut into digits of ``widths`` bits each, lowest first; the
highest has a bit more, the sign's.  A table of a number r says of each digit but the highest whether it is above v, for
all v that it can be; of the highest, what the sign's bit of c - r is for each digit of c without its own sign's bit,
which turns it round.  `look_up` finds, at the digits of a number c,

    a_j = [digit of c < digit of r],  b_j = [the same digit],  a_J = the sign's bit,  b_J = what a borrow adds to that,

so that a_J + b_J (a_(J-1) + b_(J-1) (... + b_2 a_1)) is the sign's bit of c - r, borrows of all digits counted.  It
is so of bits under XOR, too.  Order: a_1 ... a_J, b_2 ... b_J.

*Equal* digits, from the same tables: a_1 = [the same lowest digit], and all other a's are 0.  The chain is then whether
all bits are the same, for numbers of which the sign's bit is, where all others are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, READ_INT, WRITE, flat, inline, kernel

_P = np.uint64(P)


def entries(widths: Sequence[int]) -> int:
    """Of a table."""
    return sum((1 << width) - 1 for width in widths) + 1


def table(x: FieldArray, ignored: int, widths: Sequence[int]) -> FieldArray:
    """See `PrimeField.table`."""
    out = np.empty((x.size, entries(widths)), np.uint64)
    _table(flat(x), ignored, np.array(widths, np.int64), out.reshape(-1))
    return out


def look_up(
    x: FieldArray, ignored: int, widths: Sequence[int], dealt: FieldArray, one: int, repeats: int, equal: bool
) -> FieldArray:
    """See `PrimeField.look_up`."""
    out = np.empty((2 * len(widths) - 1, x.size), np.uint64)
    cut = np.array(widths, np.int64)
    _look_up(flat(x), ignored, cut, flat(dealt), one % P, repeats, equal, out.reshape(-1))
    return out


@inline
def _write_row(number: Any, ignored: Any, widths: Any, row: Any) -> None:
    """The table of one number, of 0 and 1."""
    rest, start = np.int64(number >> np.uint64(ignored)), 0
    last = widths.size - 1
    for j in range(last):
        count = (np.int64(1) << widths[j]) - 1
        digit = rest & count
        for v in range(count):
            row[start + v] = v < digit
        rest >>= widths[j]
        start += count
    width = widths[last]
    digit = rest & ((np.int64(2) << width) - 1)
    for v in range(np.int64(1) << width):
        row[start + v] = ((v - digit) >> width) & 1


@kernel(READ, INT, READ_INT, WRITE)
def _table(x: Any, ignored: Any, widths: Any, out: Any) -> None:
    size = out.size // max(x.size, 1)
    for i in range(x.size):
        _write_row(x[i], ignored, widths, out[i * size : (i + 1) * size])


@inline
def less(x: Any, y: Any) -> Any:
    """x - y mod p."""
    difference = x - y
    return min(difference, difference + _P)


@inline
def turned(x: Any, unit: Any, bit: Any) -> Any:
    """unit - x mod p where the bit is set, else x."""
    rest = less(unit, x)
    return rest if bit else x


@kernel(READ, INT, READ_INT, READ, INT, INT, INT, WRITE)
def _look_up(x: Any, ignored: Any, widths: Any, dealt: Any, one: Any, repeats: Any, equal: Any, out: Any) -> None:
    n, last, unit, none = x.size, widths.size - 1, np.uint64(one), np.uint64(0)
    size = dealt.size * repeats // max(n, 1)
    row, seen = 0, 0
    for i in range(n):
        rest, start = np.int64(x[i] >> np.uint64(ignored)), row
        seen += 1
        if seen == repeats:
            row, seen = row + size, 0
        for j in range(last):
            count = (np.int64(1) << widths[j]) - 1
            digit = rest & count
            # Where a public digit is the least or the greatest there is no entry: all, or none, are above.  An entry is
            # read all the same: branches that nobody foresees take longer.
            above = dealt[np.uintp(start + min(digit, count - 1))]
            above = above if digit < count else none
            least = dealt[np.uintp(start + max(digit - 1, 0))]
            same = less(least if digit else unit, above)
            out[j * n + i] = (none if j else same) if equal else above
            if j:
                out[(last + j) * n + i] = same
            rest >>= widths[j]
            start += count
        full = np.int64(1) << widths[last]
        own = turned(dealt[np.uintp(start + (rest & (full - 1)))], unit, rest & full)
        before = rest - 1
        borrowed = turned(dealt[np.uintp(start + (before & (full - 1)))], unit, before & full)
        changed = less(borrowed, own)
        out[last * n + i] = (none if last else changed) if equal else own
        if last:
            out[2 * last * n + i] = changed
