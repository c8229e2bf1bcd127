"""Whether numbers of the field are squares, and the sign of a difference as just that: of what a public number's digits
find in a table of a secret one's, weighed, added up, and multiplied by a secret factor.

Integers are cut into digits as in `mpc.rings.digits`, lowest first, the highest with the sign's bit in it, and digits
are weighed as in `mpc.rings.steps`.  Of a *node*, which has up to `MOST` digits and a borrow from those below it,

    Z  =  -B + t_1 + 2 t_2 + 4 t_3 + ...    is in [-2^(MOST-1), 2^(MOST-1)), and negative where there is a borrow
                                            from it, or, of the highest digits, where the sign's bit is lacking.

Here t is 1, 0 or -1 as the digit of c is greater than r's, the same, or less; B is 1 where digits below are less: of
the lowest node, its lowest digit.  Below `RUN` there are 2^(MOST-1) squares in a row, and from it on as many numbers
that are none: so RUN + Z is a square where Z is negative, and nowhere else.  With s = -f^2 for an even number f, and
f^2 for an odd one, u = 2 s (RUN + Z) is a square where Z is not negative and f even, or Z is negative and f odd: 2 is a
square, and -1 is none.  Of f and p - f one is odd; so of a uniform f, s is uniform, and u shows nothing of Z.

A table is a row for each number: s; what there is of the lowest digit, times s, or of another node s, or -s where the
factor *before* is odd; s times the number that digits of one bit make which follow; and s times the entries of each
digit else.

*Equal* digits: Z is 0 where all digits of this node and of those before are the same, else negative.  Then digits of
one bit have entries of their own, as has the lowest.

Source: characters of small numbers as their signs: Yu, Sign Modules in Secure Arithmetic Circuits, ePrint 2011/539.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpc.rings import threads
from mpc.rings.digits import less, turned
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import (
    INT,
    READ,
    READ_INT,
    WRITE,
    flat,
    fold,
    inline,
    kernel,
    partial_product,
    product,
    reduce_once,
    rotate,
)

MOST = 5
"""Digits of the lowest node, and one less of others."""
MOST_EQUAL = 15
"""Of the lowest node, if equal ones count: what the highest lacks may count twice."""
RUN = 1396295926
"""The first of its kind (``tests/mpc/test_characters.py`` looks at its squares)."""
CHUNK = 512
"""Numbers at a time, which stay in the first cache."""

_LEAST = threads.LEAST // 8
_P, _U0, _U1 = np.uint64(P), np.uint64(0), np.uint64(1)


class Node(NamedTuple):
    """How a node's digits are cut: of integers without ``ignored`` bits, into digits of ``widths`` bits."""

    ignored: int
    widths: tuple[int, ...]
    lowest: bool
    """Nothing is below."""
    highest: bool
    """The last digit has the sign's bit."""
    equal: bool

    @property
    def most(self) -> int:
        """Digits that it may have."""
        return (MOST_EQUAL if self.equal else MOST) - (not self.lowest)

    @property
    def borrowing(self) -> bool:
        """Whether the lowest digit is no more than a borrow."""
        return self.lowest and not self.equal and len(self.widths) > 1

    @property
    def joined(self) -> int:
        """Digits of one bit, after that, which are one number."""
        if self.equal:
            return 0
        middle = self.widths[self.borrowing : len(self.widths) - self.highest]
        return next((j for j, width in enumerate(middle) if width > 1), len(middle))

    @property
    def entries(self) -> int:
        """Of a row."""
        tables = [*self.widths[: self.borrowing], *self.widths[self.borrowing + self.joined :]]
        return 1 + (not self.lowest) + (self.joined > 0) + sum((1 << w) - 1 for w in tables) + self.highest

    @property
    def said(self) -> tuple[int, int, int, int, int, int]:
        """As kernels take it."""
        return self.ignored, self.lowest, self.highest, self.equal, self.borrowing, self.joined


def table(r: FieldArray, factors: FieldArray, before: FieldArray | None, node: Node) -> FieldArray:
    """See `PrimeField.scaled_table`."""
    out = np.empty((r.size, node.entries), np.uint64)
    some, own, to = flat(r), flat(factors), out.reshape(-1)
    others, widths = own if before is None else flat(before), np.array(node.widths, np.int64)
    threads.cut(lambda i, j: _table(some, own, others, widths, *node.said, to, i, j), r.size, least=_LEAST)
    return out


def found(c: FieldArray, signs: FieldArray | None, node: Node, dealt: FieldArray) -> FieldArray:
    """See `PrimeField.scaled_sum`."""
    out = np.empty(c.size, np.uint64)
    some, rows = flat(c), flat(dealt)
    others, widths = some if signs is None else flat(signs), np.array(node.widths, np.int64)
    threads.cut(lambda i, j: _found(some, others, rows, widths, *node.said, out, i, j), c.size, least=_LEAST)
    return out


def half_signs(factors: FieldArray) -> FieldArray:
    """See `PrimeField.half_signs`."""
    out = np.empty(factors.size, np.uint64)
    _half_signs(flat(factors), out)
    return out


def character(x: FieldArray) -> FieldArray:
    """See `PrimeField.character`."""
    out = np.empty(x.size, np.uint64)
    some = flat(x)
    threads.cut(lambda i, j: _character(some[i:j], out[i:j]), x.size, least=_LEAST)
    return out


@inline
def _odd(factor: Any) -> Any:
    """Of 0 as of 1: it would hide nothing."""
    return max(factor, _U1) & _U1


@inline
def _scale(factor: Any) -> Any:
    """s."""
    some = max(factor, _U1)
    square = product(some, some)
    return square if some & _U1 else _P - square


@inline
def _of(bit: Any, s: Any) -> Any:
    return s & (_U0 - np.uint64(bit))


@kernel(READ, READ, READ, READ_INT, INT, INT, INT, INT, INT, INT, WRITE, INT, INT)
def _table(
    r: Any, factors: Any, before: Any, widths: Any, ignored: Any, lowest: Any, highest: Any, equal: Any,
    borrowing: Any, joined: Any, out: Any, begin: Any, stop: Any,
) -> None:  # fmt: skip
    last, size = widths.size - highest, out.size // max(r.size, 1)
    for i in range(begin, stop):
        s, rest, at = _scale(factors[i]), np.int64(r[i] >> np.uint64(ignored)), np.uintp(i * size)
        out[at] = s
        at += np.uintp(1)
        if not lowest:
            out[at] = _P - s if _odd(before[i]) else s
            at += np.uintp(1)
        j = 0
        while j < last:
            if j == borrowing and joined:
                out[at] = product(s, np.uint64(rest & ((1 << joined) - 1)))
                at += np.uintp(1)
                rest >>= joined
                j += joined
                continue
            count = (np.int64(1) << widths[j]) - 1
            digit = rest & count
            for v in range(count):
                out[at + np.uintp(v)] = _of(v < digit, s)
            at += np.uintp(count)
            rest >>= widths[j]
            j += 1
        if highest:
            width = widths[last]
            digit = rest & ((np.int64(2) << width) - 1)
            for v in range(np.int64(1) << width):
                out[at + np.uintp(v)] = _of(((v - digit) >> width) & 1, s)


@inline
def _taken(rows: Any, places: Any, out: Any) -> None:
    """Apart from all else, since what is read anywhere would keep a loop from becoming vector code."""
    for i in range(np.uintp(out.size)):
        out[i] = rows[places[i]]


@inline
def _pairs(x: Any, shift: Any, most: Any, rows: Any, size: Any, at: Any, places: Any, above: Any, since: Any) -> None:
    """What a digit finds, and the one before: where there is no entry, as it is the greatest or the least, another."""
    for i in range(np.uintp(x.size)):
        digit = np.int64(x[i] >> np.uint64(shift)) & (most + 1)
        places[i] = i * size + at + min(digit, most)
    _taken(rows, places, above)
    for i in range(np.uintp(x.size)):
        digit = np.int64(x[i] >> np.uint64(shift)) & (most + 1)
        places[i] = i * size + at + max(digit - 1, 0)
    _taken(rows, places, since)


@inline
def _weighed(x: Any, shift: Any, most: Any, above: Any, since: Any, s: Any, equal: Any, weight: Any, out: Any) -> None:
    """Adds a digit's part.  Above the greatest there is nothing, and all is from the least on."""
    for i in range(np.uintp(x.size)):
        digit = np.int64(x[i] >> np.uint64(shift)) & (most + 1)
        own, before = above[i] if digit <= most else _U0, since[i] if digit > 0 else s[i]
        # -1 where they differ; or 1, 0, -1.
        other = before + (_P - s[i]) if equal else s[i] + (_P - before)
        found = reduce_once(fold(other + (_P - own)))
        out[i] = reduce_once(out[i] + reduce_once(rotate(found, np.uint64(weight))))


@inline
def _highest(x: Any, shift: Any, width: Any, rows: Any, size: Any, at: Any, places: Any, own: Any, former: Any) -> None:
    """What the highest digit finds, and the one before."""
    full = np.int64(1) << width
    for i in range(np.uintp(x.size)):
        places[i] = i * size + at + (np.int64(x[i] >> np.uint64(shift)) & (full - 1))
    _taken(rows, places, own)
    for i in range(np.uintp(x.size)):
        places[i] = i * size + at + ((np.int64(x[i] >> np.uint64(shift)) - 1) & (full - 1))
    _taken(rows, places, former)


@inline
def _signed(
    x: Any, shift: Any, width: Any, own: Any, former: Any, s: Any, equal: Any, alone: Any, weight: Any, out: Any
) -> None:
    """Adds its part: ``alone`` it has the sign's bit, else what a borrow makes of it counts, too."""
    full = np.int64(1) << width
    for i in range(np.uintp(x.size)):
        number = np.int64(x[i] >> np.uint64(shift))
        bit, other = turned(own[i], s[i], number & full), turned(former[i], s[i], (number - 1) & full)
        found = other + (_P - bit) if equal else bit + (_U0 if alone else other)
        found = reduce_once(fold(found + (_P - s[i])))
        out[i] = reduce_once(out[i] + reduce_once(rotate(found, np.uint64(weight))))


@kernel(READ, READ, READ, READ_INT, INT, INT, INT, INT, INT, INT, WRITE, INT, INT)
def _found(
    c: Any, signs: Any, dealt: Any, widths: Any, ignored: Any, lowest: Any, highest: Any, equal: Any,
    borrowing: Any, joined: Any, out: Any, begin: Any, stop: Any,
) -> None:  # fmt: skip
    last, size = widths.size - highest, dealt.size // max(c.size, 1)
    places, held = np.empty(CHUNK, np.int64), np.empty((4, CHUNK), np.uint64)
    for start in range(begin, stop, CHUNK):
        end = min(start + CHUNK, stop)
        x, rows, made = c[start:end], dealt[start * size : end * size], out[start:end]
        s, total, above, since = held[0, : x.size], held[1, : x.size], held[2, : x.size], held[3, : x.size]
        number, place = np.uintp(x.size), places[: x.size]
        for i in range(number):
            place[i] = i * size
            total[i] = _U0
        _taken(rows, place, s)
        shift, at = ignored, 1 + (not lowest)
        if borrowing:
            most = (np.int64(1) << widths[0]) - 2
            _pairs(x, shift, most, rows, size, at, place, above, since)
            for i in range(number):
                digit = np.int64(x[i] >> np.uint64(shift)) & (most + 1)
                total[i] = reduce_once(_P - above[i]) if digit <= most else _U0
            at += most + 1
            shift += widths[0]
        # s times a public number: 2 RUN, and what a node before, and digits of one bit, have besides.
        ones, below = (np.int64(1) << joined) - 1, shift
        if joined:
            for i in range(number):
                place[i] = i * size + at
            _taken(rows, place, above)
            for i in range(number):
                total[i] = less(total[i], above[i])
            at += 1
            shift += joined
        first = borrowing + joined
        for j in range(first, last):
            most = (np.int64(1) << widths[j]) - 2
            _pairs(x, shift, most, rows, size, at, place, above, since)
            _weighed(x, shift, most, above, since, s, equal, 0 if equal else joined + j - first, total)
            at += most + 1
            shift += widths[j]
        if highest:
            weight = 0 if equal else joined + last - first
            _highest(x, shift, widths[last], rows, size, at, place, above, since)
            _signed(x, shift, widths[last], above, since, s, equal, lowest and not last, weight, total)
        for i in range(number):
            known = np.int64(2 * RUN) + 2 * (np.int64(x[i] >> np.uint64(below)) & ones) - (not lowest)
            made[i] = reduce_once(fold(partial_product(s[i], np.uint64(known)) + rotate(total[i], _U1)))
        if not lowest:
            others = signs[start:end]
            for i in range(number):
                place[i] = i * size + 1
            _taken(rows, place, above)
            for i in range(number):
                made[i] = reduce_once(made[i] + (above[i] if others[i] == _U1 else _P - above[i]))


@kernel(READ, WRITE)
def _half_signs(factors: Any, out: Any) -> None:
    for i in range(factors.size):
        # 1/2, or -1/2, which is one less.
        out[i] = np.uint64((P + 1) // 2) - _odd(factors[i])


@inline
def _raised(x: Any, twos: Any, y: Any, number: Any) -> None:
    """x^(2^twos) y in place of x."""
    for _ in range(twos):
        for i in range(number):
            x[i] = product(x[i], x[i])
    for i in range(number):
        x[i] = product(x[i], y[i])


@inline
def _copied(x: Any, out: Any, number: Any) -> None:
    for i in range(number):
        out[i] = x[i]


@kernel(READ, WRITE)
def _character(x: Any, out: Any) -> None:
    """x^((p - 1) / 2), whose bits are 60 ones: of so many ones, twice as many, by one product more."""
    three, held = np.empty(CHUNK, np.uint64), np.empty(CHUNK, np.uint64)
    for first in range(0, x.size, CHUNK):
        number = np.uintp(min(CHUNK, x.size - first))
        some, made = x[first : first + CHUNK], out[first : first + CHUNK]
        _copied(some, made, number)
        _raised(made, 1, some, number)
        _raised(made, 1, some, number)
        _copied(made, three, number)
        _raised(made, 3, three, number)
        _copied(made, held, number)
        _raised(made, 6, held, number)
        _raised(made, 3, three, number)
        _copied(made, held, number)
        _raised(made, 15, held, number)
        _copied(made, held, number)
        _raised(made, 30, held, number)
        for i in range(number):
            # Of 0, which an opening is by an error alone, 1.
            made[i] = max(made[i], _U1)
