"""Any smooth function on a bounded interval in one round: a mask turns into an angle.

Let 2^k raw units of ``c x`` be one period of a trigonometric polynomial (c a small public integer, so that the period
need not be a power of two), and t_x the angle of c x.  The opening E = x - a gives t_x = t_E + t_a with t_E public; the
dealer deals shares of cos(j t_a) and sin(j t_a), j = 1..K, and

    sin(j t_x) = sin(j t_E) [cos(j t_a)] + cos(j t_E) [sin(j t_a)]        (cos likewise)

is local, and so is any trigonometric polynomial of x.  p = 2^61 - 1 is -1 modulo 2^k: a wrap moves the angle by a unit
or two out of 2^k, so there are no wrap bits and no truncation.  All functions of x with this period are of the same
waves (`Waves`): so is the derivative of one, for a gradient.

Security: nothing is opened here beyond E, which is uniform.  The dealt shares are fresh and uniform; what is made of
them, by whichever function, is linear in them and opened under masks of its own.  The factors that t_E gives are
public, so MAC shares of the waves give a share of the result's MAC.
Outside the interval of the fit the function is periodic: never less secret, but not the function that was fitted.
Cost: no round of its own; 2 K dealt elements per element, for all functions of a period together.
Source: Fourier evaluation in MPC: Boura, Chillotti, Gama, Jetchev, Peceny and Petric, High-Precision Privacy-Preserving
Real-Valued Function Evaluation, Financial Cryptography 2018; shares of the mask's sines: Zheng et al., Secure
Softmax/Sigmoid for Machine-learning Computation, ACSAC 2023.  Both work in rings and truncate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, PartyContext, Value, register, require
from mpc.rings import FIELD, Array, PrimeField, Rings, Turn, field_of
from mpc.rings.prime_field import SINE_BITS
from mpc.tensor_type import Form, TensorType
from protocols.operations.mask import OfMask

EXTRA_BITS = 4
"""Coefficients carry this many bits more than the public factors they are multiplied into."""
MAX_TERMS = 32
MAX_PUBLIC_BITS = 22
MAX_DEALT_BITS = 24
MAX_MULTIPLIER = 63
MAX_PERIOD_BITS = 61
"""p = 2^61 - 1 is -1 modulo any 2^k up to this."""


def waves_type(size: int, terms: int, dealt_bits: int) -> TensorType:
    """What the waves of so many elements are: a row each, of cosines first."""
    end = 1.0 + 2.0**-dealt_bits
    return TensorType((2 * terms, size), dealt_bits, -end, end, Form.SHARED)


class MaskWaves(Correlation, frozen=True):
    """cos(j t), then sin(j t), j = 1 ... ``terms``, of a mask's angle t, with ``dealt_bits`` fraction bits."""

    size: int
    multiplier: int
    period_bits: int
    terms: int
    dealt_bits: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part((2 * self.terms, self.size)),)

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        turn = Turn(self.multiplier, self.period_bits)
        return (field_of(rings).waves(masks[0], turn, self.terms, self.dealt_bits),)


@register
class Waves(OfMask, frozen=True, tag="waves"):
    """The waves of the mask of each element of x, for series of this period: with the mask 0, 1 and 0."""

    multiplier: int
    period_bits: int
    terms: int
    dealt_bits: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].form is Form.MASKED, "takes one masked tensor")
        require(types[0].ring == FIELD, "takes field elements: p = 2^61 - 1 is what keeps the period")
        require(1 <= self.multiplier <= MAX_MULTIPLIER, f"multiplier is 1 to {MAX_MULTIPLIER}")
        require(16 <= self.period_bits <= MAX_PERIOD_BITS, f"a period is 2^16 to 2^{MAX_PERIOD_BITS} raw units")
        require(0 < self.terms <= MAX_TERMS, f"1 to {MAX_TERMS} terms")
        require(4 <= self.dealt_bits <= MAX_DEALT_BITS, f"dealt bits are 4 to {MAX_DEALT_BITS}")
        return waves_type(types[0].size, self.terms, self.dealt_bits)

    def correlations(self, *types: TensorType) -> tuple[Correlation, ...]:
        return (MaskWaves(types[0].size, self.multiplier, self.period_bits, self.terms, self.dealt_bits),)


@register
class Fourier(Operation, frozen=True, tag="fourier"):
    """``constant + sum_j cosines[j] cos(j t) + sines[j] sin(j t)``, t = 2 pi multiplier raw / 2^period_bits.

    Its second operand is the `Waves` of x.  Coefficients are raw integers with ``public_bits + 4`` fraction bits;
    public factors have ``public_bits``, waves ``dealt_bits``, and the result the sum of both.
    """

    takes_inner: ClassVar[range] = range(1, 2)
    multiplier: int
    period_bits: int
    constant: int
    cosines: tuple[int, ...]
    sines: tuple[int, ...]
    public_bits: int
    dealt_bits: int
    low: float
    high: float

    @property
    def terms(self) -> int:
        return len(self.sines)

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 2, "takes a tensor, and its waves")
        require(self._waves.result(types[0]) == types[1], "takes the waves of such a series")
        require(len(self.cosines) == self.terms, "cosines and sines are of the same terms")
        require(4 <= self.public_bits <= MAX_PUBLIC_BITS, f"public bits are 4 to {MAX_PUBLIC_BITS}")
        limit = 8 << (self.public_bits + EXTRA_BITS)
        require(all(abs(b) < limit for b in (self.constant, *self.cosines, *self.sines)), "coefficients are below 8")
        # The combined factor |b_cos| + |b_sin| of one term must fit 26 bits after the shift: see mpc.rings.angles.
        require(
            all(abs(b) + abs(d) < limit for b, d in zip(self.cosines, self.sines, strict=True)),
            "coefficients of one term add up to less than 8",
        )
        unit = 2.0 ** -(self.public_bits + EXTRA_BITS)
        gain = unit * sum(abs(b) for b in (self.constant, *self.cosines, *self.sines))
        require(self.low <= self.high and max(abs(self.low), abs(self.high)) <= gain + 1, "the declared range")
        return TensorType(types[0].shape, self.public_bits + self.dealt_bits, self.low, self.high, Form.SHARED)

    def check_operands(self, operands: Sequence[Operand]) -> None:
        """That the waves are of x: types do not say so."""
        x, waves = operands
        require(waves.operation == self._waves, "takes the waves of such a series")
        require(waves.inputs[0].number == x.number, "takes the waves of what it is a function of")

    def takes_share(self, operand: int) -> bool:
        return operand > 0

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        field = field_of(party.rings)
        opened = field.or_zeros(inputs[0].public, types[0].shape)
        share = self._combine(field, opened, field.or_zeros(inputs[1].share, types[1].shape))
        constant = party.share_of(self._constant(field), field)
        return Value(None, share if constant is None else field.add(share, constant))

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        field = field_of(rings)
        return field.add(self._combine(field, *inputs), self._constant(field))

    def tolerance(self, *types: TensorType) -> float:
        """Rounding of the public factors and of the dealt waves, and two units of the period, worst case."""
        gain = sum(abs(b) for b in (*self.cosines, *self.sines)) * 2.0 ** -(self.public_bits + EXTRA_BITS)
        public = 2 * self.terms * 2.0**self.dealt_bits
        dealt = 2 * gain * (0.5 + (6 * self.terms + 2) * 2.0 ** (self.dealt_bits - 30)) * 2.0**self.public_bits
        angle = (
            gain
            * 2
            * math.pi
            * self.terms
            * 3
            * 2.0 ** (self.public_bits + self.dealt_bits - min(self.period_bits, 31))
        )
        return public + dealt + angle

    @property
    def _waves(self) -> Waves:
        return Waves(self.multiplier, self.period_bits, self.terms, self.dealt_bits)

    @property
    def _turn(self) -> Turn:
        return Turn(self.multiplier, self.period_bits)

    def _combine(self, field: PrimeField, x: Array, dealt: Array) -> Array:
        return field.combine_waves(x, self._turn, self.cosines, self.sines, SINE_BITS + EXTRA_BITS, dealt)

    def _constant(self, field: PrimeField) -> Array:
        raw = self.constant << self.dealt_bits
        return field.full((), (raw + (1 << (EXTRA_BITS - 1))) >> EXTRA_BITS)
