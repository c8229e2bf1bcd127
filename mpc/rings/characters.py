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
from mpc.rings.field import FieldArray, P
from mpc.rings.kernels import INT, READ, READ_INT, WRITE, flat, fold, inline, kernel, product, reduce_once, rotate

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
def _less(x: Any, y: Any) -> Any:
    """x - y mod p."""
    difference = x - y
    return min(difference, difference + _P)


@inline
def _double(x: Any, more: Any) -> Any:
    """2 x + more mod p, for a ``more`` below 2^63."""
    return reduce_once(fold(x + x + more))


@inline
def _turned(x: Any, s: Any, bit: Any) -> Any:
    rest = _less(s, x)
    return rest if bit else x


@inline
def _above(rows: Any, at: Any, digit: Any, count: Any) -> Any:
    """The entry of a digit: where that is the greatest there is none, and nothing is above.  An entry is read all the
    same: branches that nobody foresees take longer."""
    entry = rows[at + np.uintp(min(digit, count - 1))]
    return entry if digit < count else _U0


@inline
def _from(rows: Any, at: Any, digit: Any, s: Any) -> Any:
    """The entry of the digit before."""
    entry = rows[at + np.uintp(max(digit - 1, 0))]
    return entry if digit else s


@kernel(READ, READ, READ, READ_INT, INT, INT, INT, INT, INT, INT, WRITE, INT, INT)
def _found(
    c: Any, signs: Any, rows: Any, widths: Any, ignored: Any, lowest: Any, highest: Any, equal: Any,
    borrowing: Any, joined: Any, out: Any, begin: Any, stop: Any,
) -> None:  # fmt: skip
    last, size = widths.size - highest, rows.size // max(c.size, 1)
    first = joined + borrowing
    for i in range(begin, stop):
        rest, row = np.int64(c[i] >> np.uint64(ignored)), np.uintp(i * size)
        s, at, known = rows[row], row + np.uintp(1), np.int64(0)
        # What is twice -B, and -1 from what a node before tells, and half of what is known beside s.
        below = _U0
        if not lowest:
            below = rows[at] if signs[i] == 1 else _P - rows[at]
            known -= 1
            at += np.uintp(1)
        if borrowing:
            count = (np.int64(1) << widths[0]) - 1
            below = _P - _above(rows, at, rest & count, count)
            below = reduce_once(below + below)
            at += np.uintp(count)
            rest >>= widths[0]
        few = _U0
        if joined:
            few = rows[at]
            at += np.uintp(1)
            known += 2 * (rest & ((1 << joined) - 1))
            rest >>= joined
        total, weight = _U0, joined
        for j in range(first, last):
            count = (np.int64(1) << widths[j]) - 1
            digit = rest & count
            above, since = _above(rows, at, digit, count), _from(rows, at, digit, s)
            if equal:
                # -1 where they differ.
                total = reduce_once(fold(total + since + (_P - above) + (_P - s)))
            else:
                found = fold(s + (_P - above) + (_P - since))
                total = reduce_once(fold(total + rotate(reduce_once(found), np.uint64(weight))))
                weight += 1
            at += np.uintp(count)
            rest >>= widths[j]
        if highest:
            full = np.int64(1) << widths[last]
            before = rest - 1
            own = _turned(rows[at + np.uintp(rest & (full - 1))], s, rest & full)
            former = _turned(rows[at + np.uintp(before & (full - 1))], s, before & full)
            if equal:
                total = reduce_once(fold(total + former + (_P - own) + (_P - s)))
            else:
                # Alone, it has the sign's bit; else what a borrow makes of it counts, too.
                more = former if last or not lowest else _U0
                found = reduce_once(fold(own + more + (_P - s)))
                total = reduce_once(fold(total + rotate(found, np.uint64(weight))))
        # s (2 RUN + known) + 2 (total - few) + below
        whole = product(s, np.uint64((np.int64(2 * RUN % P) + known) % np.int64(P)))
        out[i] = reduce_once(fold(whole + below + total + total + fold(_P - few + _P - few)))


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
