"""The field of p = 2^61 - 1 elements, and what protocols that are about this very p need of whatever computes in it.

A truncation looks at the bits of public numbers and of masks, a polynomial chooses by such a bit, and a Fourier series
turns elements into angles.  Each is a method here, on whole arrays, so that protocols hold arrays without looking into
them, and each means the same to the last bit on every array library.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from mpc.rings.characters import Node
from mpc.rings.field import P
from mpc.rings.field_chains import Chain
from mpc.rings.ring import Array, Ring, Rings

__all__ = ["FIELD", "HALF", "SINE_BITS", "Bits", "P", "PrimeField", "Turn", "field_of"]

FIELD = "field"

HALF = (P + 1) // 2
"""1 / 2."""

SINE_BITS = 30
"""Fraction bits of a sine that everybody computes for itself."""


Bits = Any
"""An array of answers, as opaque as elements are."""


class Turn(NamedTuple):
    """What angle an element stands for: 2^period_bits / multiplier of its units are one turn.

    p is -1 modulo 2^period_bits, so a wrap of the field moves an angle by one unit of the period.
    """

    multiplier: int
    period_bits: int


class PrimeField(Ring):
    """Elements are integers in [0, p); on a wire 8 bytes each, little-endian."""

    name: ClassVar[str] = FIELD
    element_bits: ClassVar[int] = 64
    value_bits: ClassVar[int] = 60
    macs: ClassVar[bool] = True

    def inverse(self, k: int) -> int | None:
        return pow(k, -1, P) if k % P else None

    def halve(self, x: Array, share: Array, sign: Array, product: Array, less: bool) -> Sequence[Array]:
        """``x / 2``, and ``share / 2 + (x sign + product)``, or ``less`` it; of arrays of one shape."""
        made, (known, rest) = self.multiply_add(x, sign, product), (self.scale(part, HALF) for part in (x, share))
        return [known, self.subtract(rest, made) if less else self.add(rest, made)]

    @abstractmethod
    def dots(self, x: Array, y: Array, z: Array) -> Sequence[Array]:
        """The sums of all ``x y`` and of all ``x z``, of shape (1,), of arrays of one shape."""

    # -- integers ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def quotient(self, x: Array, divisor: int) -> Array:
        """floor(x / divisor) of the integers in [0, p)."""

    @abstractmethod
    def quotient_signed(self, x: Array, divisor: int) -> Array:
        """floor(v / divisor) of the signed values v that x stands for."""

    @abstractmethod
    def below(self, x: Array, bound: int) -> Bits:
        """Whether each integer is below ``bound``."""

    @abstractmethod
    def select(self, bits: Bits, x: Array) -> Array:
        """``x`` where the bit is set, else 0; the time does not depend on the bits."""

    @abstractmethod
    def choose(self, bits: Bits, x: Array, y: Array) -> Array:
        """``x`` where the bit, which is public, is set, else ``y``; both of one shape, the bits' at its end."""

    @abstractmethod
    def bit(self, x: Array, position: int) -> Bits:
        """This bit of each integer."""

    # -- digits (mpc.rings.digits, mpc.rings.bit_planes, mpc.rings.bit_chains) -----------------------------------------

    @abstractmethod
    def table(self, x: Array, ignored: int, widths: Sequence[int]) -> Array:
        """A row for each integer: its table, for each digit but the highest, and then of that for the sign."""

    @abstractmethod
    def packed_table(self, x: Array, ignored: int, widths: Sequence[int]) -> Array:
        """The same of packed bits: a plane for each entry."""

    @abstractmethod
    def look_up(
        self, x: Array, ignored: int, widths: Sequence[int], dealt: Array, one: int, repeats: int, equal: bool
    ) -> Array:
        """A row each of a_1 ... a_J, b_2 ... b_J: what the digits of ``x`` find in tables, or shares of them.

        ``one`` is what stands for 1: 1, or a share of it.  A table serves ``repeats`` integers in a row.  ``equal``: of
        equal digits.
        """

    @abstractmethod
    def packed_look_up(
        self, x: Array, ignored: int, widths: Sequence[int], dealt: Array, one: int, repeats: int, equal: bool
    ) -> Array:
        """The same in packed tables: a plane each."""

    @abstractmethod
    def known_chains(self, opened: Array, some: Sequence[Chain]) -> Array:
        """Public parts of chains, a row each, from what is ``opened`` of digits."""

    @abstractmethod
    def shared_chains(self, opened: Array, masks: Array, dealt: Array, some: Sequence[Chain]) -> Array:
        """Shares of chains likewise, from shares of ``masks`` besides.

        ``dealt``: shares of all products of masks that are monomials, chain by chain, a row each.
        """

    @abstractmethod
    def chain_times(self, opened: Array, dealt: Array, chain: Chain) -> Array:
        """The share of a chain, a row, from shares of all of its monomials, times whatever they are multiplied by."""

    @abstractmethod
    def unpacked(self, bits: Array, size: int) -> Array:
        """The first bits of a plane, as 0 and 1."""

    @abstractmethod
    def kept(self, bits: Array, x: Array) -> Array:
        """``x`` where the bit of a plane is set, else 0."""

    @abstractmethod
    def turned(self, bits: Array, x: Array) -> Array:
        """``-x`` where the bit of a plane is set, else ``x``."""

    # -- small numbers (mpc.rings.steps) -------------------------------------------------------------------------------

    @abstractmethod
    def steps(self, x: Array, ignored: int, width: int, highest: bool, bits: int) -> Array:
        """A row for each of flat ``x``: the table of a digit of ``width`` bits, of numbers of so many ``bits``."""

    @abstractmethod
    def weighed_steps(
        self, x: Array, ignored: int, widths: Sequence[int], dealt: Sequence[Array], one: int, repeats: int, equal: bool
    ) -> Array:
        """Z for each of flat ``x``, packed: what its digits find in a table each, or shares of it.

        ``one``: 1, or what a party has of it, 1 or 0.  A row of a table serves ``repeats`` of ``x``.
        """

    @abstractmethod
    def small_signs(self, masks: Array, digits: int, size: int) -> Array:
        """Of ``size`` masks of Z, packed: a row for each v in [0, 2^(digits-1)), of 1/2, or -1/2 where v and the mask
        are negative together."""

    @abstractmethod
    def small_sign(self, opened: Array, digits: int, size: int, dealt: Array) -> Array:
        """1/2, or -1/2 where Z is negative, from what is opened of it, and from shares of ``small_signs`` of its
        masks: each times what these have been multiplied by."""

    @abstractmethod
    def sign_planes(self, masks: Array, digits: int, size: int) -> Array:
        """The same as packed bits: a plane for each v, of 1, or 0 where v and the mask are negative together."""

    @abstractmethod
    def sign_plane(self, opened: Array, digits: int, size: int, dealt: Array, one: int) -> Array:
        """A packed bit of each Z, 1 or where it is negative 0, from what is opened of it and from its ``sign_planes``;
        or shares of it from shares of these, where ``one`` stands for 1.
        """

    # -- squares (mpc.rings.characters) --------------------------------------------------------------------------------

    @abstractmethod
    def scaled_table(self, x: Array, factors: Array, before: Array | None, node: Node) -> Array:
        """A row for each of flat ``x``: the table of a node's digits, times what flat ``factors`` stand for.

        ``before``: the factors of the node that has the digits below, if one has.
        """

    @abstractmethod
    def scaled_sum(self, x: Array, signs: Array | None, node: Node, dealt: Array) -> Array:
        """u of each of flat ``x``, from tables, or shares of them.

        ``signs``: `character` of what the node before has made, if there is one.
        """

    @abstractmethod
    def half_signs(self, factors: Array) -> Array:
        """1/2 for each of flat ``factors`` that is even, else -1/2: where it is 0, as it makes what it is 1."""

    @abstractmethod
    def character(self, x: Array) -> Array:
        """1 for each of flat ``x`` that is a square, else -1."""

    # -- weights of packed bits (mpc.rings.weighed_bits) ---------------------------------------------------------------

    @abstractmethod
    def packed_bits(self, x: Array, count: int) -> Array:
        """The ``count`` lowest bits of flat integers: a plane each, the lowest first."""

    @abstractmethod
    def weighed_bits(self, bits: Array, size: int, weights: Sequence[int]) -> Array:
        """For each of ``size`` numbers the sum of the weights of the planes in which its bit is set; below p."""

    @abstractmethod
    def turned_total(self, bits: Array, x: Array, weights: Sequence[int]) -> Array:
        """The sum of all elements of ``x``, a row for each plane, times its weight; with its sign changed where the bit
        is set."""

    # -- places (mpc.rings.places) -------------------------------------------------------------------------------------

    @abstractmethod
    def one_hot(self, x: Array, count: int) -> Array:
        """A row for each integer: 1 at its residue modulo what tells ``count`` differences apart, else 0."""

    @abstractmethod
    def differences(self, x: Array, count: int, dealt: Array) -> Array:
        """A row of ``count`` for each integer: whether it is v above that of which ``dealt`` is the one-hot vector, or
        shares of one.
        """

    # -- spans (mpc.rings.coarse) --------------------------------------------------------------------------------------

    @abstractmethod
    def coarse_table(self, r: Array, s: Array, ignored: int, bits: int) -> Array:
        """A row of 2^bits for each integer ``r``: its table, times ``s``."""

    @abstractmethod
    def coarse_sums(self, c: Array, s: Array, dealt: Array, ignored: int, width: int, bits: int, rows: int) -> Array:
        """Of so many rows of ``c`` each the sum of what follows from ``c`` and its tables, or shares of them and of s:
        all of ``s (T + T')`` but for -2 s h.
        """

    @abstractmethod
    def coarse_bits_table(self, r: Array, ignored: int, bits: int) -> Array:
        """2^bits packed bits for each integer ``r``, of `coarse_bits`: its table."""

    @abstractmethod
    def coarse_bits(self, x: Array, at: Sequence[int], ignored: int, bits: int, dealt: Array, one: int) -> Array:
        """Of each of flat ``x``, less each of ``at``, the ``bits``-th bit from the ``ignored``-th on of the
        difference to ``r``, or shares of it from those of tables: the sums of all ends, packed; ``one`` stands for 1.
        """

    @abstractmethod
    def counted_bits(self, bits: Array, masks: Array, sizes: Sequence[int], rows: int) -> list[Array]:
        """How many packed bits under masks are set, in each of so many rows of tensors of these ``sizes``, each of
        which begins with a byte: the public part, and of the masks, or shares of them, as numbers, the rest.
        """

    # -- ends of ranges (mpc.rings.ends) -------------------------------------------------------------------------------

    @abstractmethod
    def ends_left_over(self, x: Array, low: int, width: int, bits: int) -> Array:
        """A row for each of flat ``x``, of its lower end and its upper one: twice their ``bits`` lowest bits, and 1
        more where ``x - low`` is not below ``width``."""

    @abstractmethod
    def ends_sum(self, x: Array, low: int, width: int, bits: int, s: Array, top: Array) -> Array:
        """The sum of s times what both ends have above these bits; and of ``top`` times 2^(62 - bits), where
        ``x - low`` is below ``width``."""

    @abstractmethod
    def weighed_pairs(self, bits: Array, s: Array, dealt: Array) -> Array:
        """The sum of ``dealt``, two of each ``s`` in a row; or of ``s - dealt`` where the packed bit is set."""

    # -- random bits (mpc.rings.coins) ---------------------------------------------------------------------------------

    @abstractmethod
    def bits(self, x: Array, count: int) -> Array:
        """A row for each of the lowest bits, of 0 and 1."""

    @abstractmethod
    def low_bits(self, x: Array, count: int) -> Array:
        """The numbers that the lowest bits make."""

    @abstractmethod
    def turned_bits(self, x: Array, count: int, dealt: Array) -> Array:
        """Sums over j of 2^j ``dealt[j]``, negative where that bit of ``x`` is set."""

    # -- angles ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def waves(self, x: Array, turn: Turn, terms: int, bits: int) -> Array:
        """cos(j t), j = 1 ... terms, then sin(j t), of the angle t of each element, with ``bits`` fraction bits.

        Of shape (2 terms, size of x), to the last bit what ``mpc.rings.angles`` computes in integers.
        """

    @abstractmethod
    def combine_waves(
        self, x: Array, turn: Turn, cosines: Sequence[int], sines: Sequence[int], shift: int, shared: Array
    ) -> Array:
        """The sum over j of ``cosines[j] cos(j (t + s)) + sines[j] sin(j (t + s))``, t the angle of each element.

        ``shared`` is what ``waves`` gives for s, or a share of it.  The public factors, coefficients times sines of
        `SINE_BITS` fraction bits, lose ``shift`` bits, with rounding: every party multiplies its own share, as large as
        p, by them, so that they are the same integers everywhere.
        """


def field_of(rings: Rings) -> PrimeField:
    """What stands behind the field in this process."""
    ring = rings[FIELD]
    if not isinstance(ring, PrimeField):
        raise TypeError(f"{type(ring).__name__} is not the field of 2^61 - 1 elements")
    return ring
