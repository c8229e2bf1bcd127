"""The sign of a masked number, exactly: one opening more, of differences with dealt tables.

Let x = E + a be masked, r = -a mod p and c = E + 2^K mod p, so that x + 2^K = c - r mod p.  For |x| < 2^K - 1, bit K of
that says whether x >= 0.  p = 2^61 - 1 is -1 modulo 2^(K+1), so whether or not c - r wraps past p changes it by one raw
unit at most, and there is no wrap bit to find:

    [x >= 0]  =  c_K xor r_K xor B,      B  =  [c mod 2^K < r mod 2^K].

*Exactly*: 2 x is compared in place of x (E and a are doubled alike), and a unit more makes no negative 2 x anything
else.  *By units of 2^d*: the d lowest bits of c and r are ignored, and the sign may be wrong where |x| <= 2^d.  Fewer
bits k = K - d are what is cheaper.

The k bits are cut into J *digits* of c and of r.  For each the dealer deals r's thresholds, [digit of r > v] for every
v, and whoever holds shares of them looks up, at c's digit, shares of

    lt_j = [digit of c < digit of r]      and      eq_j = [the same digit]  =  [r's > c's - 1] - [r's > c's].

B = lt_J + eq_J (lt_(J-1) + eq_(J-1) (...)), digits from high to low: a sum of products of which one at most is not 0.
`Digits` looks up, and what it gives is masked and opened like any tensor: u_j = lt_j - alpha_j, v_j = eq_j - beta_j.
So B is a polynomial in alpha and beta with public coefficients, linear in its monomials, of which the dealer deals
shares, times s = (-1)^(r_K): with them `Compare` finds (-1)^[x < 0] = -(-1)^(c_K) s (1 - 2 B) without a message.
`Gate` finds y times the bit likewise, of a masked y, from shares of the monomials times its mask besides: in the same
rounds.

Security: what is opened is E, which is uniform, and u and v, which are uniform under masks of their own that are used
once: perfect, whatever is compared, for any n - 1 parties.  All that follows an opening is linear in dealt shares, with
public coefficients: on MAC shares it gives shares of the result's MAC.  Types guarantee the range of x.
Cost: one round and 2 J - 1 elements opened, beside the opening of x; dealt are 2^w - 1 elements for a digit of w bits,
and 3 2^(J-1) - 1 for the monomials, as many again for each `Gate`.
Source: comparing digit by digit from the highest: Damgard, Fitzi, Kiltz, Nielsen and Toft, TCC 2006; dealt tables that
are read at public places: Ishai, Kushilevitz, Meldgaard, Orlandi and Paskin-Cherniavsky, TCC 2013; the sign of a masked
number with a dealer: Boyle, Gilboa and Ishai, EUROCRYPT 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mpc.correlation import Correlation, Part
from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, PrimeField, Rings, field_of
from mpc.rings.field import P
from mpc.tensor_type import SLACK, Form, TensorType

EXACTLY = -1
"""In place of the number of bits that are ignored: none are, and ties count."""
MOST_BITS = 60
MOST_DIGIT = 8
MOST_DIGITS = 9
INVERSE_OF_2 = (P + 1) // 2


class Window(NamedTuple):
    """Which bits are compared: of x, without the ``ignored`` lowest ones, cut into digits, lowest first."""

    ignored: int
    widths: tuple[int, ...]

    @property
    def bits(self) -> int:
        """k, below bit K, the sign's."""
        return sum(self.widths)

    @property
    def sign(self) -> int:
        """K."""
        return self.bits + max(self.ignored, 0)

    def takes(self, x: TensorType) -> bool:
        """Whether the sign of any such value can be told: |x| < 2^d (2^k - 1) raw units, d = -1 if exactly."""
        raw = math.ldexp(x.magnitude, x.fraction_bits) / SLACK
        return raw < math.ldexp(1.0, self.ignored) * (math.ldexp(1.0, self.bits) - 1.0)

    def opened(self, field: PrimeField, public: Array) -> Array:
        """c, of what is opened of x."""
        scaled = field.scale(public, 2) if self.ignored < 0 else public
        return field.add(scaled, field.full((), 1 << self.sign))

    def hidden(self, field: PrimeField, mask: Array) -> Array:
        """r, of a mask."""
        return field.scale(mask, -2 if self.ignored < 0 else -1)


def thresholds(widths: Sequence[int]) -> int:
    """How many there are, of all digits."""
    return sum((1 << width) - 1 for width in widths)


def monomials(digits: int) -> int:
    """Of the masks of lt and eq: how many B has, the 1 among them."""
    return 3 * (1 << (digits - 1)) - 1


def _check(window: Window, x: TensorType) -> None:
    widths = window.widths
    require(x.ring == FIELD, "compares field elements: p = 2^61 - 1 is what lets it do without wraps")
    require(x.form is Form.MASKED, "compares a masked tensor")
    require(0 < len(widths) <= MOST_DIGITS, f"compares 1 to {MOST_DIGITS} digits")
    require(all(0 < width <= MOST_DIGIT for width in widths), f"digits have 1 to {MOST_DIGIT} bits")
    require(window.ignored >= EXACTLY and window.sign <= MOST_BITS, f"compares up to {MOST_BITS} bits")
    require(window.takes(x), f"values of {x.bits:.1f} bits are too large for {window.bits} bits to tell their sign")


class Thresholds(Correlation, frozen=True):
    """[digit of r > v] for each digit of a mask's r, and every v that a digit can be less than: a row an element."""

    size: int
    ignored: int
    widths: tuple[int, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((self.size, thresholds(self.widths))),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, window = field_of(rings), Window(self.ignored, self.widths)
        hidden = window.hidden(field, masks[0])
        return (field.thresholds(hidden, max(self.ignored, 0), self.widths),)


class SignedMonomials(Correlation, frozen=True):
    """s / 2 times each monomial in the masks of lt and eq, s = (-1)^(r_K); if ``gated``, times a third mask besides.

    Operands are what is compared, what is opened of its digits and, if gated, what is to be multiplied by the bit.
    """

    size: int
    ignored: int
    widths: tuple[int, ...]
    gated: bool

    @property
    def operands(self) -> tuple[int, ...]:
        return (0, 1, 2) if self.gated else (0, 1)

    @property
    def parts(self) -> tuple[Part, ...]:
        part = Part((monomials(len(self.widths)), self.size))
        return (part, part) if self.gated else (part,)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field, window = field_of(rings), Window(self.ignored, self.widths)
        flat = (1, self.size)
        sign = field.bit(field.reshape(window.hidden(field, masks[0]), flat), window.sign)
        half = field.full(flat, INVERSE_OF_2)
        rows = [field.choose(sign, field.negate(half), half)]
        lt, eq = _rows(field, masks[1])
        # Each digit's own times what stands before all of its monomials; the order is that of ``_coefficients``.
        rows.append(field.multiply(rows[0], lt[0]))
        for lt_j, eq_j in zip(lt[1:], eq, strict=True):
            rows += [*(field.multiply(row, eq_j) for row in rows), field.multiply(rows[0], lt_j)]
        signed = field.concatenate(rows, 0)
        return (signed, field.multiply(signed, field.reshape(masks[2], flat))) if self.gated else (signed,)


def _factors(field: PrimeField, opened: Array) -> Array:
    """Those of 1 - 2 B, of B's monomials in the masks of lt and eq: a row each, that of the 1 first."""
    u, v = _rows(field, opened)
    one = field.full((1, opened.shape[1]), 1)
    found = [u[0], one]
    for u_j, v_j in zip(u[1:], v, strict=True):
        found = [*(field.multiply(c, v_j) for c in found), *found, one]
        found[0] = field.add(found[0], u_j)
    # 1 - 2 B = -2 (B - 1 / 2).
    found[0] = field.subtract(found[0], field.full((1, opened.shape[1]), INVERSE_OF_2))
    return field.scale(field.concatenate(found, 0), -2)


def _rows(field: PrimeField, digits: Array) -> tuple[list[Array], list[Array]]:
    """The lt of each digit, and the eq of each but the lowest."""
    rows = [field.index(digits, (slice(k, k + 1), slice(None))) for k in range(digits.shape[0])]
    count = (len(rows) + 1) // 2
    return rows[:count], rows[count:]


@register
class Digits(Operation, frozen=True, tag="digits"):
    """Whether each digit of c is below that of r, lowest first; then of each but the lowest, whether it is the same.

    ``ignored``: how many low bits do not count, or -1 to compare exactly.  ``widths``: bits of each digit.
    """

    ignored: int
    widths: tuple[int, ...]

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1, "takes one tensor")
        _check(self._window, types[0])
        return TensorType((2 * len(self.widths) - 1, types[0].size), 0, 0.0, 1.0, Form.SHARED)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (Thresholds(types[0].size, self.ignored, self.widths),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        return Value(None, self._look_up(field, types[0], inputs[0].public, prepared[0], party.unit))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """With the mask 0."""
        field = field_of(rings)
        (dealt,) = self.correlations(*types)[0].make(rings, [field.zeros(types[0].shape)])
        return self._look_up(field, types[0], inputs[0], dealt, 1)

    def _look_up(self, field: PrimeField, x: TensorType, public: Array | None, dealt: Array, one: int) -> Array:
        opened = self._window.opened(field, field.zeros(x.shape) if public is None else public)
        return field.look_up(opened, max(self.ignored, 0), self.widths, dealt, one)

    @property
    def _window(self) -> Window:
        return Window(self.ignored, self.widths)


class _Signed(Operation, frozen=True):
    """What ends a comparison: operands are what is compared, its `Digits` opened, and what its bit is to multiply.

    ``ignored`` and ``widths`` are those of `Digits`.
    """

    ignored: int
    widths: tuple[int, ...]

    def _checked(self, types: Sequence[TensorType]) -> None:
        x, digits = types[:2]
        _check(self._window, x)
        expected = (2 * len(self.widths) - 1, x.size)
        require(digits.form is Form.MASKED and digits.ring == FIELD and digits.shape == expected, "takes its digits")

    def _half_signs(
        self, party: PartyContext, x: TensorType, inputs: Sequence[Value], prepared: Sequence[Array]
    ) -> list[Array]:
        """A share of S / 2, S = (-1)^[x < 0], and of whatever S / 2 is multiplied by in the other signed monomials."""
        field = field_of(party.rings)
        opened = field.zeros(x.shape) if inputs[0].public is None else inputs[0].public
        digits = inputs[1].public
        factors = _factors(field, field.zeros((2 * len(self.widths) - 1, x.size)) if digits is None else digits)
        sign = field.bit(self._window.opened(field, opened), self._window.sign)
        sums = [field.total(field.multiply(factors, shares), (0,)) for shares in prepared]
        return [field.choose(sign, part, field.negate(part)) for part in (field.reshape(s, x.shape) for s in sums)]

    @property
    def _window(self) -> Window:
        return Window(self.ignored, self.widths)


@register
class Compare(_Signed, frozen=True, tag="compare"):
    """1 where x >= 0, else 0; if ``below``, 1 where x < 0."""

    below: bool

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 2, "takes what is compared, and its digits")
        self._checked(types)
        return TensorType(types[0].shape, 0, 0.0, 1.0, Form.SHARED)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (SignedMonomials(types[0].size, self.ignored, self.widths, False),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        (half,) = self._half_signs(party, types[0], inputs, prepared)
        return Value(field.full(types[0].shape, INVERSE_OF_2), field.negate(half) if self.below else half)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field, shape = field_of(rings), types[0].shape
        return field.choose(
            field.bit(inputs[0], MOST_BITS), field.full(shape, int(self.below)), field.full(shape, int(not self.below))
        )

    def tolerance(self, *types: TensorType) -> float:
        """Of values within 2^``ignored`` units of 0 the sign may be wrong."""
        return 0.0 if self.ignored < 0 else 1.0


@register
class Gate(_Signed, frozen=True, tag="gate"):
    """y where x >= 0, else 0; if ``below``, y where x < 0.  Both have one shape, and may be the same tensor."""

    below: bool

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 3, "takes what is compared, its digits, and what is let through")
        self._checked(types)
        x, _, y = types
        require(y.form is Form.MASKED and y.ring == FIELD and y.shape == x.shape, "lets a masked tensor through")
        return y.replace(low=min(y.low, 0.0), high=max(y.high, 0.0), form=Form.SHARED, gain=None)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (SignedMonomials(types[0].size, self.ignored, self.widths, True),)

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field, y = field_of(party.rings), inputs[2]
        zeros = field.zeros(types[2].shape)
        public, own = (zeros if part is None else part for part in (y.public, y.share))
        half, gated = self._half_signs(party, types[0], inputs, prepared)
        # y (1 + S) / 2, of which S y / 2 = D S / 2 + b S / 2.
        product = field.multiply_add(public, half, gated)
        known, share = (field.scale(part, INVERSE_OF_2) for part in (public, own))
        return Value(known, field.subtract(share, product) if self.below else field.add(share, product))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field = field_of(rings)
        negative, zeros = field.bit(inputs[0], MOST_BITS), field.zeros(types[2].shape)
        return field.choose(negative, *((inputs[2], zeros) if self.below else (zeros, inputs[2])))

    def tolerance(self, *types: TensorType) -> float:
        return 0.0 if self.ignored < 0 else math.ldexp(types[2].magnitude, types[2].fraction_bits)
