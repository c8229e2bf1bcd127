"""Whether values are where they are assumed to be: 0 if all are, else uniform, without an opening of its own.

Let x = E + a be masked, u a small public number, L' and W = w g public, for a *grain* g = 2^d and w <= 2^k.  Let
c = u E - L' and r = -u a mod p, so that y = u x - L' is c - r mod p.  In whole grains,

    Y = floor(c / g) - floor(r / g) + z 2^(61-d),    z = [c < W] [r >= 2^60].

x is taken for inside where 0 <= Y < w, which is where T = floor(Y / 2^k) and T' = floor((Y - w) / 2^k) + 1 add up to
0: there both are 0; below, T < 0 and T' <= 0; from w on, T >= 0 and T' > 0.  With C = floor(c / g) and
h = floor(r / 2^(d+k)),

    T = floor(C / 2^k) - h - B + z 2^(61-d-k),    B = [C mod 2^k < floor(r / g) mod 2^k],

and T' likewise, of C + 2^k - w.  Each B is an entry of one table of 2^k - 1, as C is public.  With coefficients s that
nobody but the dealer knows (`Coefficients`), one for each value, the sum

    V = sum s (T + T')

is *linear*, with public factors, in s and in what is dealt: s times each entry, s [r >= 2^60], and the sum of s h.  It
is 0 if all values are taken for inside, and else uniform, and so is what it is added to: 0 with a chance of 1/p.  Each
tensor has a V, which is added to that of the one before: so tables are dealt, and looked up, where values are opened.

*What is taken for inside.*  Let t = c - r + z 2^61: Y g is a multiple of g that is less than g away from it.  c - r is
y in [0, p), or with a wrap y - p.  If y < W then t is y or y + 1: with a wrap c < y < W and r > p - W >= 2^60, so z is
1; without one r <= c, so z is 0.  If y >= W then t is y or y - p where z is 0, and y + 1 or above where it is 1.  So
*nothing else is taken for inside* than what has -g <= y < w g, as a signed number: 0 <= Y < w says -g < t < w g.  And
*all is* that has 0 <= y < (w - 1) g: then -g < Y g <= t + g - 1 < w g.  In the grains between, it depends on the mask.
T + T' is no multiple of p where it is not 0, as d + k >= 3.

Interval and types decide which u, L', g and w are taken (`Span.of`): all that may be taken for inside lies in the
interval, and what is sure to be is all of it but for a (2^k + 1)-th at either end, or a little more.  u is what makes
the interval as wide as grains go; and between whole numbers there is room for a grain, so few of them are told exactly.

Security: nothing is opened here.  V tells whether all values are taken for inside, and so something of masks, where one
is near an end: it is revealed to nobody but as a bit, and nothing but a sum is made of it (``Operation.inner``).
Tables are fresh and uniform, and are looked up at public places.  Types guarantee that u x does not wrap; where they do
not, an assumption before does not hold, and has made V uniform already.  Who is asked to run a program finds u, L', g,
w and k from what it assumes, and compares (``lowering/intervals.py``).
Cost: no round, and nothing opened but V.  Dealt are 2^k elements for a value, and one for each V; with MACs twice that,
and the MAC of s.
Source: for tables that are read at public places, see ``digits.py``; one random combination for many values that should
vanish: folklore.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from mpc.correlation import Correlation, Part
from mpc.errors import RangeError
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, Rings, field_of
from mpc.tensor_type import SLACK, Form, TensorType
from protocols.operations.in_range import Coefficients

FEWEST, MOST = 2, 8
"""Bits of a table."""
_NARROWEST, _WIDEST = 3, 59
"""Bits of what is looked at, below a sign's."""
_MOST_SCALE = 63


class Span(NamedTuple):
    """u, L', d, w and k."""

    scale: int
    low: int
    ignored: int
    width: int
    bits: int

    @classmethod
    def of(cls, x: TensorType, low: float, high: float, bits: int) -> Span:
        """That of what is assumed of ``x``: [low, high], of which an end that ``x`` cannot reach is not looked at.

        Raises RangeError where there is none.
        """
        ends = [math.ldexp(end, x.fraction_bits) for end in (x.low, x.high)]
        # Types may be a unit off, and what they say of large numbers is a double.
        least = math.floor(min(ends[0] / SLACK, ends[0] * SLACK)) - 1
        most = math.ceil(max(ends[1] / SLACK, ends[1] * SLACK)) + 1
        found = _span(
            least,
            most,
            math.ceil(math.ldexp(low, x.fraction_bits)) if low > x.low else None,
            math.floor(math.ldexp(high, x.fraction_bits)) if high < x.high else None,
            bits,
        )
        if found is None:
            raise RangeError(
                f"parties cannot watch whether values in [{x.low:g}, {x.high:g}] with {x.fraction_bits} fraction bits"
                f" lie in [{low:g}, {high:g}]: declare a tighter range, or assume a wider one"
            )
        return found

    def check(self) -> None:
        """Raise ProgramError for what is none."""
        require(0 < self.scale <= _MOST_SCALE and abs(self.low) < 1 << (_WIDEST + 1), "a span begins in the field")
        require(FEWEST <= self.bits <= MOST and self.ignored >= 0, f"tables have {FEWEST} to {MOST} bits")
        require(0 < self.width <= 1 << self.bits, "a span is of so many grains as a table has entries")
        size = self.ignored + self.bits
        require(_NARROWEST <= size <= _WIDEST, f"a span is of {_NARROWEST} to {_WIDEST} bits")

    def inside(self) -> tuple[int, int]:
        """The least and the greatest raw value that is sure to be taken for inside."""
        last = self.low + (self.width - 1 << self.ignored) - 1
        return -(-self.low // self.scale), last // self.scale


@functools.lru_cache(maxsize=4096)
def _span(least: int, most: int, low: int | None, high: int | None, bits: int) -> Span | None:
    """Of raw values that lie between ``least`` and ``most``: that by which as many as can be are sure to be inside."""
    best, found, both = 0, None, low is not None and high is not None
    for scale in range(1, _MOST_SCALE + 1, 2):
        if scale * max(-least, most) >= 1 << _WIDEST:
            break
        # Between whole numbers there is room.
        start = scale * least if low is None else scale * (low - 1) + 1
        end = scale * most if high is None else scale * (high + 1) - 1
        size = max(end - start + 1, 0)
        ignored = max(0, size.bit_length() - bits - 2, _NARROWEST - bits)
        while (width := _grains(size, ignored, both)) > 1 << bits:
            ignored += 1
        if width < 1 or ignored + bits > _WIDEST:
            continue
        # An end that is not looked at needs no grain inside.
        first = end - (width << ignored) + 1 if low is None else start + (1 << ignored)
        if both:
            # What is left over is left at both ends.
            first += (size - (width + 1 << ignored)) // 2
        span = Span(scale, first, ignored, width, bits)
        inner = span.inside()
        answered = min(inner[1], most) - max(inner[0], least) + 1
        if answered > best:
            best, found = answered, span
    return found


def _grains(size: int, ignored: int, both: bool) -> int:
    return (size >> ignored) - 1 if both else -(-size >> ignored)


class Strewn(Correlation, frozen=True):
    """Coefficients times the table of a mask, a row for each value; and of each of ``rows`` the sum of them times h."""

    size: int
    rows: int
    scale: int
    ignored: int
    bits: int

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1)

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.size, 1 << self.bits)), Part((self.rows,)))

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, s = field_of(rings), masks[1]
        r = field.scale(field.reshape(masks[0], (self.size,)), -self.scale)
        above = field.multiply(s, field.quotient(r, 1 << (self.ignored + self.bits)))
        sums = field.total(field.reshape(above, (self.rows, self.size // self.rows)), (1,))
        return field.coarse_table(r, s, self.ignored, self.bits), sums


@register
class Astray(Operation, frozen=True, tag="astray"):
    """V, for each of so many ``rows`` of a masked tensor, which its `Coefficients` follow; and added to what may come
    after them, a whole number for each row: a V of others, and what is counted otherwise.
    """

    counts: ClassVar[bool] = True
    inner: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(2, 3)
    rows: int
    span: Span

    def result(self, *types: TensorType) -> TensorType:
        require(2 <= len(types) <= 4, "takes values, coefficients, and what is added")
        require(self.rows > 0, "a number of rows")
        x, s, *others = types
        self.span.check()
        require(x.ring == FIELD and x.form is Form.MASKED, "takes masked tensors")
        require(self.rows == 1 or x.shape[:1] == (self.rows,), "takes as many rows")
        require(s == TensorType((x.size,), 0, -(2.0**59), 2.0**59, Form.MASKED), "takes a coefficient for each value")
        for added in others:
            require(added.shape == (self.rows,) and added.ring == FIELD, "what is added has a number for each row")
            require(added.fraction_bits == 0 and added.form is Form.SHARED, "what is added are shared whole numbers")
        return TensorType((self.rows,), 0, -(2.0**59), 2.0**59, Form.SHARED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """With coefficients that somebody knows, it would tell how far values are away."""
        require(isinstance(operands[1].operation, Coefficients), "coefficients are nobody's")

    def takes_share(self, operand: int) -> bool:
        return operand > 0

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Strewn(types[0].size, self.rows, self.span.scale, self.span.ignored, self.span.bits),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, span = field_of(party.rings), self.span
        tables, sums = prepared
        c = self._moved(party.rings, types[0], inputs[0].public)
        share = inputs[1].share
        s = field.or_zeros(share, types[1].shape)
        found = field.coarse_sums(c, s, tables, span.ignored, span.width, span.bits, self.rows)
        total = field.subtract(found, field.scale(sums, 2))
        for value, t in zip(inputs[2:], types[2:], strict=True):
            total = field.add(total, party.fold(value, t))
        return Value(None, total)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """How many there are, of each row; with masks of 0."""
        field = field_of(rings)
        c = self._moved(rings, types[0], inputs[0])
        ones = field.full(c.shape, 1)
        out = field.subtract(ones, field.select(field.below(c, self.span.width << self.span.ignored), ones))
        total = field.total(field.reshape(out, (self.rows, types[0].size // self.rows)), (1,))
        for added in inputs[2:]:
            total = field.add(total, added)
        return total

    def _moved(self, rings: Rings, x: TensorType, public: Array | None) -> Array:
        """c."""
        field = field_of(rings)
        flat = field.or_zeros(public, (x.size,))
        return field.subtract(field.scale(flat, self.span.scale), field.full((), self.span.low))
