"""The planner: fraction bits, where truncation happens, and when a tensor is masked and opened.

Its policy, in the order in which it decides:

* Nothing is truncated before it has to be.  Products keep all their fraction bits; a value is truncated only when the
  next operation would not fit the field, or when its meaning needs it.
* What is cut for a product is cut by two bits more, where there are plenty: what is added or compared next fits then,
  and takes no round to be cut by a bit.
* A tensor is masked at its last form before something non-linear (after pooling, not before), and once; what is joined,
  part by part.
* Sums align fraction bits upwards, which is free; only when that does not fit is the finer operand truncated.
* Digits follow values: one whose range is small is kept with more of them, and a public factor has as many as make the
  product right to half a unit; where they do not fit, the other operand is truncated before, not the factor.
* What cannot be shown to fit is an error that says what to declare, never a wrap-around.

Which openings share a round follows from the graph alone: ``Program.depths``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc import fixed_point
from mpc.errors import RangeError
from mpc.objective import LATENCY, Objective
from mpc.operation import Constant, Operation
from mpc.program import PRECISION, Expression
from mpc.tensor_type import FIELD_BITS, SLACK, TRUNCATION_BITS, Form, TensorType
from protocols.lowering.cuts import cut
from protocols.operations.linear import (
    Add,
    Broadcast,
    Concatenate,
    Declare,
    Divide,
    Index,
    Negate,
    Pad,
    Raise,
    Reshape,
    RunningSum,
    Subtract,
    Sum,
    SumPool2d,
    Take,
    Transpose,
)
from protocols.operations.mask import Mask
from protocols.operations.product import Multiply, Product
from protocols.operations.quotient import Quotient
from protocols.operations.truncation import Truncate

FRACTION_BITS = PRECISION
"""Of secrets, and what a value is truncated to when it must be, unless the computation says otherwise."""

FEWEST_BITS = 6
"""Fewer than this and the result would be noise: refuse instead."""

SPARE = 2
"""Bits that a product leaves of the field, where an operand is cut for it: so that what is added to it, or compared,
fits as well, and need not be cut by a bit or two, in a round of its own."""
PLENTY = 8
"""Digits of an operand beyond those that the computation keeps, of which it spares some."""

_OF_ITS_MASK = (Add, Subtract, Negate, Reshape, Transpose, Broadcast, Pad)
"""Of one secret and public numbers: they have no fewer elements, and their mask follows from that of the secret.  So
has an `Index` that takes all there is, in another order."""

_PERMUTES = (Reshape, Transpose, Index)
"""Of one operand, and where they take all of it, its elements in other places."""

_MOVES = (Negate, Reshape, Transpose, Index, Take)
"""Of one operand, elements in other places, some of them several times, some not at all."""

MOST_BITS = TRUNCATION_BITS // 2
"""Of a computation: a product has those of both operands, and must still fit the field."""


def check_precision(fraction_bits: int) -> int:
    """Raise RangeError when the field has no room for a computation with so many, or so few are noise; return them."""
    if not FEWEST_BITS <= fraction_bits <= MOST_BITS:
        reason = (
            "fewer leave only noise"
            if fraction_bits < FEWEST_BITS
            else f"products of values with more do not fit the field of {FIELD_BITS + 1} bits"
        )
        raise RangeError(
            f"a computation takes {FEWEST_BITS} to {MOST_BITS} fraction bits, not {fraction_bits}: {reason}"
        )
    return fraction_bits


@dataclass(frozen=True)
class Planner:
    """Makes the nodes of a program; ``label`` names the layer they are counted under.

    ``fraction_bits``: what a value is truncated to when it must be; public constants and functions are rounded
    accordingly.  Raises RangeError as ``check_precision`` does.
    """

    label: str = ""
    fraction_bits: int = FRACTION_BITS
    objective: Objective = LATENCY

    def __post_init__(self) -> None:
        check_precision(self.fraction_bits)

    def kept(self, magnitude: float) -> int:
        """Fraction bits that values up to ``magnitude`` are kept with: so many more as they have leading zeros."""
        return min(self.fraction_bits + leading_zeros(magnitude), TRUNCATION_BITS - 1)

    def constant(self, values: object, digits: int = 0) -> Expression:
        """A public term: exact, or with the bits of this computation, or ``digits`` where these are more."""
        return constant(values, most=max(self.fraction_bits, digits))

    def scaling(self, x: Expression, values: object, count: int = 1) -> tuple[Expression, Expression]:
        """``x`` and a public factor of it, of which ``count`` products are summed, both with the digits that count.

        The factor is exact, or has as many as make the result right to half a unit of what it is kept with.  Where the
        field has no room for them, ``x`` is cut as well, so that the errors of both are least together.
        """
        array = np.asarray(values, dtype=np.float64)
        largest = float(np.abs(array).max(initial=0.0))
        if not largest or not x.type.magnitude or not math.isfinite(largest):
            return x, constant(array)
        summed = math.sqrt(count)
        target = 2.0 ** -(self.kept(x.type.magnitude * largest * summed) + 1)
        needed = max(0, math.ceil(math.log2(x.type.magnitude * summed / target)) - 1)
        # Of both together.
        room = _room(math.log2(x.type.magnitude * largest * count))
        had = x.type.fraction_bits
        bits = _exact_bits(array, needed)
        if bits + had <= room or not x.type.fits(TRUNCATION_BITS):
            return x, constant(array, max(0, min(bits, room - had)))

        def error(of_factor: int) -> float:
            exact = of_factor == bits < needed
            rounded = 0.0 if exact else x.type.magnitude * 2.0 ** -(of_factor + 1)
            cut = largest * 2.0 ** (of_factor - room) if room - of_factor < had else 0.0
            return summed * (cut + rounded)

        fewest = max(0, FEWEST_BITS - math.floor(math.log2(largest)))
        choices = range(min(fewest, bits), min(bits, room - FEWEST_BITS) + 1)
        if not choices:
            return x, constant(array, bits)
        best = min(choices, key=error)
        return self.truncated(x, room - best), constant(array, best)

    def make(self, operation: Operation, *inputs: Expression) -> Expression:
        """A node.  One of a single operand is made once and shared by everybody who asks for it."""
        if len(inputs) == 1:
            return inputs[0].derive(operation, self.label)
        return Expression(operation, inputs, self.label)

    def masked(self, x: Expression) -> Expression:
        """``x`` with its mask known to the dealer: opened (one round) unless it already is.

        Where it is something else with public numbers added, or with elements repeated, that is opened, once for all
        that are made of it so, and there is less of it; so are differences of a smaller tensor's elements.
        """
        if x.type.form is not Form.SHARED:
            return x
        of_its_mask = isinstance(x.operation, _OF_ITS_MASK) or _is_permuted(x)
        if of_its_mask and all(y.type.form is not Form.MASKED for y in x.inputs):
            secret = [y for y in x.inputs if y.type.form is Form.SHARED]
            if len(secret) == 1:
                return x.once(Mask(), lambda: x.over(tuple(map(self.masked, x.inputs))))
        if isinstance(x.operation, Concatenate):
            # Each part once, whatever it is joined to.
            return x.once(Mask(), lambda: x.over(tuple(map(self.masked, x.inputs))))
        if isinstance(x.operation, Add | Subtract):
            one, other = map(_moved, x.inputs)
            if one is other and one.type.form is Form.SHARED and one.type.size < x.type.size:
                return x.once(Mask(), lambda: x.over(tuple(map(self._of_masked, x.inputs))))
        return self.make(Mask(), x)

    def _of_masked(self, x: Expression) -> Expression:
        """``x``, of what it has the elements of, masked."""
        if not isinstance(x.operation, _MOVES):
            return self.masked(x)
        return x.once(Mask(), lambda: x.over((self._of_masked(x.inputs[0]),)))

    def truncated(self, x: Expression, fraction_bits: int) -> Expression:
        """``x`` with at most ``fraction_bits``: one round to remove some, none if it is masked already, or where the
        comparisons that it comes from can drop them (``cuts.py``)."""
        bits = x.type.fraction_bits - fraction_bits
        if bits <= 0:
            return x
        if isinstance(x.operation, Raise) and x.like is None and x.type.form is not Form.MASKED and not x.has(Mask()):
            (y,) = x.inputs
            fewer = self.raised(self.truncated(y, fraction_bits), max(0, fraction_bits - y.type.fraction_bits))
            return fewer.lose(x.lost, x.surely)
        if isinstance(x.operation, Constant):
            fewer = constant(fixed_point.decode(x.operation.array(), x.type.fraction_bits), fraction_bits)
            return fewer.lose(fewer.lost + x.lost)
        if not x.type.fits(TRUNCATION_BITS):
            raise RangeError(
                f"values up to {x.type.magnitude:g} with {x.type.fraction_bits} fraction bits are too large to truncate"
                f" ({TRUNCATION_BITS} bits): declare a tighter range"
            )
        if _is_permuted(x) or isinstance(x.operation, Concatenate):
            # Once for whoever takes it in its own order, or joined to something else.
            return x.once(Truncate(bits), lambda: self._of_fewer(x, fraction_bits))
        dropped = cut(self, x, bits) if x.type.form is Form.SHARED else None
        return dropped or self.make(Truncate(bits), self.masked(x))

    def _of_fewer(self, x: Expression, fraction_bits: int) -> Expression:
        """``x``, made of its operands truncated to so many."""
        fewer = tuple(self.truncated(y, fraction_bits) for y in x.inputs)
        return Expression(x.operation, fewer, x.label).lose(x.lost, x.surely)

    def raised(self, x: Expression, bits: int) -> Expression:
        """``x`` with ``bits`` more fraction bits: a local multiplication by a power of two."""
        return x if bits == 0 else self.make(Raise(bits), x)

    def divided(self, x: Expression, divisor: int) -> Expression:
        """``x / divisor``, public and positive: free when it is a power of two, which counts as fraction bits."""
        twos = (divisor & -divisor).bit_length() - 1
        if twos:
            x = self.make(Divide(twos), self.truncated(x, FIELD_BITS - twos))
        odd = divisor >> twos
        if odd == 1:
            return x
        scaled, inverse = self.scaling(x, 1.0 / odd)
        if scaled is x and x.type.bits <= inverse.type.fraction_bits + 1:
            return self.product(Multiply(), x, inverse)
        # A constant would lose more than a unit.
        return self.make(Quotient(odd), self.masked(self.truncated(x, self.room(x.type.magnitude))))

    def aligned(self, xs: Sequence[Expression], magnitude: float | None = None) -> list[Expression]:
        """The operands of a sum, or of what has values up to ``magnitude``, all with the same fraction bits."""
        magnitude = sum(x.type.magnitude for x in xs) if magnitude is None else magnitude
        target = self.fitting(max(x.type.fraction_bits for x in xs), magnitude)
        return [self.raised(y, target - y.type.fraction_bits) for y in (self.truncated(x, target) for x in xs)]

    def sum(self, operation: Add | Subtract, x: Expression, y: Expression) -> Expression:
        """A sum or difference, operands aligned."""
        return self.make(operation, *self.aligned((x, y)))

    def reduced(self, operation: Sum | RunningSum | SumPool2d, x: Expression, count: int) -> Expression:
        """A sum of up to ``count`` elements of ``x``, which is truncated first if the sum would not fit."""
        return self.make(operation, self.truncated(x, self.fitting(x.type.fraction_bits, x.type.magnitude * count)))

    def fitting(self, fraction_bits: int, magnitude: float) -> int:
        """``fraction_bits``, or as many as values up to ``magnitude`` leave; RangeError if those are too few."""
        fits = not magnitude or fraction_bits <= _room(math.log2(magnitude))
        return fraction_bits if fits else self.room(magnitude)

    @staticmethod
    def room(magnitude: float) -> int:
        """The fraction bits with which values up to ``magnitude`` can still be truncated; RangeError if too few."""
        if not magnitude:
            return FIELD_BITS
        room = _room(math.log2(magnitude))
        if room < FEWEST_BITS:
            raise RangeError(f"values up to {magnitude:g} leave {room} fraction bits: declare tighter ranges")
        return room

    def product(
        self,
        operation: Product,
        x: Expression,
        y: Expression,
        growth: float = 1.0,
        *,
        powers: bool = False,
        within: float | None = None,
    ) -> Expression:
        """A bilinear operation: operands fitted to the field, and masked unless one of them is public.

        Of ``powers`` of one value: if one is far below its range, the other is as well.  ``within``: a promise of how
        large the result is at most.
        """
        if x.type.form is Form.PUBLIC and y.type.form is Form.PUBLIC:
            raise RangeError(f"{operation.name} of two public constants: compute it before sharing")
        largest = x.type.magnitude * y.type.magnitude * growth
        promised = within is not None and Form.PUBLIC not in (x.type.form, y.type.form) and within < largest
        if within is not None and promised:
            growth *= within / largest
        bits = self.fitted_bits(x, y, growth, powers)
        if x is y:
            x = y = self.truncated(x, min(bits))
        else:
            x, y = self.truncated(x, bits[0]), self.truncated(y, bits[1])
        if Form.PUBLIC not in (x.type.form, y.type.form):
            x, y = self.masked(x), self.masked(y)
        if promised and within is not None:
            if isinstance(operation, Multiply):
                x, y = self._as_small(x, y, within)
            else:
                y = self.make(Declare(y.type.low, y.type.high, y.type.magnitude * growth), y)
        return self.make(operation, x, y)

    def _as_small(self, x: Expression, y: Expression, within: float) -> tuple[Expression, Expression]:
        """Factors of which one is said to be as small as the promise of the product is where the other is large."""
        end = within / x.type.magnitude
        if y.type.low <= end and y.type.high >= -end:
            return x, self.make(Declare(max(y.type.low, -end), min(y.type.high, end)), y)
        end = within / y.type.magnitude
        return self.make(Declare(max(x.type.low, -end), min(x.type.high, end)), x), y

    def fitted_bits(self, x: Expression, y: Expression, growth: float = 1.0, powers: bool = False) -> tuple[int, int]:
        """Fraction bits of operands whose product, ``growth`` times as large as that of elements, fits the field.

        Fewer than there are if it must be: those to which an operand was truncated before, and no fewer than the
        computation's ``fraction_bits``; then the one that comparisons drop bits of for nothing; then, and below, down
        to 6 digits, always the one that has more, since of the product those of the other count: of ``powers`` far
        below their range, those behind the point.  What is cut anyway is cut by ``SPARE`` bits more, where there
        are plenty, and but for ``powers``.
        """
        whole = _whole_bits(x.type) + _whole_bits(y.type) + math.log2(max(growth, 2.0**-60))
        room = _room(whole)
        operands = (x, y)
        bits = [operand.type.fraction_bits for operand in operands]
        zeros = [leading_zeros(operand.type.magnitude) for operand in operands]
        whole_bits = [
            -z if powers or not o.type.magnitude else _whole_bits(o.type) for o, z in zip(operands, zeros, strict=True)
        ]
        fewest = [max(0, math.ceil(FEWEST_BITS - bits)) for bits in whole_bits]
        movable = [i for i, operand in enumerate(operands) if operand.type.form is not Form.PUBLIC]
        usual = [self.fraction_bits + z for z in zeros]
        for i in movable:
            if sum(bits) > room and x is not y and (before := self._before(operands[i], usual[i])) is not None:
                bits[i] = before
        roomy = room if powers or sum(bits) <= room else room - SPARE
        plenty = [b + PLENTY for b in usual]
        free = [i for i in movable if sum(bits) > room and self._drops(operands[i], bits[i] - usual[i])]
        if len(free) == 1:
            i = free[0]
            bits[i] = min(max(usual[i], bits[i] - (sum(bits) - room)), max(plenty[i], bits[i] - (sum(bits) - roomy)))
        for floors, aim in ((plenty, roomy), (usual, room), (fewest, room)):
            while sum(bits) > aim and (left := [i for i in movable if bits[i] > floors[i]]):
                bits[max(left, key=lambda i: bits[i] + whole_bits[i])] -= 1
        if sum(bits) > room:
            small = room == FIELD_BITS
            raise RangeError(
                f"a product of values up to {x.type.magnitude:g} and {y.type.magnitude:g}, up to {growth:g} of them"
                f" summed, {'has' if small else 'leaves'} {room} fraction bits:"
                f" {'that is too few for so small ones, scale them up' if small else 'declare tighter ranges'}"
            )
        return bits[0], bits[1]

    def _before(self, x: Expression, fewest: int) -> int | None:
        """Fraction bits, ``fewest`` or more, to which it was truncated before, and is opened."""
        while _is_permuted(x):
            (x,) = x.inputs
        opened = [x] if x.type.form is Form.MASKED or not x.has(Mask()) else [x, self.masked(x)]
        had = x.type.fraction_bits
        return next((b for b in range(had - 1, fewest - 1, -1) if any(y.has(Truncate(had - b)) for y in opened)), None)

    def _drops(self, x: Expression, bits: int) -> bool:
        """Whether comparisons drop so many."""
        return bits > 0 and x.type.form is Form.SHARED and cut(self, x, bits) is not None


def _is_permuted(x: Expression) -> bool:
    """Whether it has the elements of its operand, all of them once."""
    return isinstance(x.operation, _PERMUTES) and x.type.size == x.inputs[0].type.size


def _moved(x: Expression) -> Expression:
    """Of what ``x`` has the elements, in other places and under other signs."""
    while isinstance(x.operation, _MOVES):
        (x,) = x.inputs
    return x


def constant(values: object, fraction_bits: int | None = None, *, most: int = FRACTION_BITS) -> Expression:
    """A public tensor: with the fewest fraction bits that are exact, or ``most`` where none are."""
    array = np.asarray(values, dtype=np.float64)
    if fraction_bits is None:
        largest = float(np.abs(array).max(initial=0.0))
        # What is larger than the field is refused below.
        room = fixed_point.CAPACITY_BITS - 1 - max(0, math.frexp(largest)[1] if math.isfinite(largest) else 0)
        fraction_bits = _exact_bits(array, max(0, min(most, room)))
    # What is as fine as the field, of tiny values, is finer than what secrets are encoded with.
    beyond = max(0, fraction_bits - fixed_point.CAPACITY_BITS + 1)
    raw = fixed_point.encode(array * 2.0**beyond, fraction_bits - beyond, name="a public constant")
    real = fixed_point.decode(raw, fraction_bits)
    low, high = (float(real.min()), float(real.max())) if real.size else (0.0, 0.0)
    data = np.ascontiguousarray(raw).astype("<u8", copy=False).tobytes()
    rounded = float(np.abs(real - array).max(initial=0.0))
    return Expression(Constant(array.shape, fraction_bits, low, high, data)).lose(rounded)


def usual_bits(low: float, high: float) -> int:
    """Fraction bits of secrets in [low, high] of which nobody said otherwise."""
    return Planner().kept(max(abs(low), abs(high)))


def leading_zeros(magnitude: float) -> int:
    """Binary ones that values up to ``magnitude`` have behind their point."""
    return max(0, -math.frexp(magnitude)[1]) if 0 < magnitude < 1 else 0


def _exact_bits(array: np.ndarray[Any, np.dtype[np.float64]], most: int) -> int:
    """The fewest fraction bits that are exact, or ``most`` where no fewer are."""

    def exact(bits: int) -> bool:
        raw = array * 2.0**bits
        return bool(np.array_equal(np.rint(raw), raw))

    return next((bits for bits in range(most) if exact(bits)), most)


def _room(whole: float) -> int:
    """The fraction bits with which values up to 2^``whole`` can still be truncated."""
    return min(FIELD_BITS, math.floor(TRUNCATION_BITS + math.log2(SLACK) - whole))


def _whole_bits(t: TensorType) -> float:
    """log2 of the magnitude of the real values; very low for a zero tensor."""
    return math.log2(t.magnitude) if t.magnitude > 0 else -60.0
