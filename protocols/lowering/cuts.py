"""Truncations without an opening of their own: where a comparison lets values through, it lets their quotients through.

What is cut before a product is often a sum, a mean or another linear map of what comparisons let through, as behind a
ReLU and a pooling.  There the last bits are dropped where they come from (``protocols/operations/passing.py``), and
the linear map is made of what is left: the same numbers, but for one unit of each summand in place of one of the sum.
A public factor of all is multiplied before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mpc import fixed_point
from mpc.errors import RangeError
from mpc.operation import Constant
from mpc.program import Expression
from mpc.security import Security
from mpc.tensor_type import SLACK, TRUNCATION_BITS, Form
from protocols.operations import linear
from protocols.operations.comparison import Comparison
from protocols.operations.mask import Mask
from protocols.operations.product import Multiply
from protocols.operations.truncation import Truncate, TruncationBits

if TYPE_CHECKING:
    from protocols.lowering.planner import Planner

MOST_NODES = 64
"""Between what is cut and what is let through: to so long a sum, an opening of its own is no loss."""

_LINEAR = (
    linear.Add, linear.Subtract, linear.Concatenate, linear.Sum, linear.RunningSum, linear.SumPool2d, linear.Declare,
    linear.Divide, linear.Negate, linear.Reshape, linear.Transpose, linear.Broadcast, linear.Index, linear.Take,
    linear.Pad,
)  # fmt: skip


class Cut(NamedTuple):
    """A node with fewer bits: how many units it is off by, at most, and what makes it."""

    units: float
    make: Callable[[], Expression]


def cut(planner: Planner, x: Expression, bits: int) -> Expression | None:
    """A shared ``x`` with so many fraction bits less, dropped by the comparisons it comes from; None where not.

    Not where ``x`` comes from something besides that nobody has opened; where it would be off by more than both a unit
    of itself and one of what the computation keeps; nor where a round is not worth the bytes that are dealt more.
    """
    try:
        return _cut(planner, x, bits)
    except RangeError:
        # A factor, or a unit of each summand, is what the field has no room for.
        return None


def _cut(planner: Planner, x: Expression, bits: int) -> Expression | None:
    search = _Search(planner)
    found = search.cut(x, bits)
    if found is None or not search.gates or not search.opened_by_gates():
        return None
    lost = math.ldexp(found.units, bits - x.type.fraction_bits)
    most = min(2.0 ** -planner.kept(x.type.magnitude), x.type.magnitude * (1 - SLACK))
    if found.units > 1 and lost > most:
        return None
    worth = search.bytes() - search.bytes_apart(x, bits) <= planner.objective.round_bytes
    return found.make() if worth else None


class _Search:
    """From a node down to what comparisons let through."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._found: dict[tuple[Expression, int, Expression | None], Cut | None] = {}
        self._shared: list[Expression] = []
        """What else it comes from, that has to be opened."""
        self.gates: list[tuple[Expression, Expression]] = []
        """As they were, and as they drop more."""

    def cut(self, x: Expression, bits: int, factor: Expression | None = None) -> Cut | None:
        """Of ``x``, or of its product with a public ``factor``."""
        key = x, bits, factor
        if key not in self._found:
            found = self._cut(x, bits, factor) if len(self._found) < MOST_NODES else None
            if found is not None and factor is None:
                found = found._replace(make=partial(x.once, Truncate(bits), found.make))
            self._found[key] = found
        return self._found[key]

    def _cut(self, x: Expression, bits: int, factor: Expression | None) -> Cut | None:
        operation = x.operation
        if x.type.form is Form.PUBLIC:
            return self._public(x, bits, factor)
        if isinstance(operation, linear.Raise) and x.like is None and x.type.form is not Form.MASKED:
            (y,), rest = x.inputs, bits - operation.bits
            return self.cut(y, rest, factor) if rest > 0 else Cut(0.0, lambda: self._raised(y, -rest, factor))
        if isinstance(operation, Comparison):
            return self._let_through(operation, x, bits, factor)
        if isinstance(operation, _LINEAR) and x.type.form is not Form.MASKED:
            return self._mapped(x, bits, factor)
        if isinstance(operation, Multiply) and factor is None and _scaled(x):
            scaled, factor = sorted(x.inputs, key=_is_constant)
            return self.cut(scaled, bits, factor)
        return self._opened(x, bits, factor)

    def _public(self, x: Expression, bits: int, factor: Expression | None) -> Cut | None:
        values, left = _values(x), x.type.fraction_bits - bits
        if factor is not None:
            left += factor.type.fraction_bits
        if values is None or left < 0:
            return None
        times, lost = (1.0, x.lost) if factor is None else (_values(factor), _sum_lost(x, factor))

        def make() -> Expression:
            made = self._planner.truncated(self._planner.constant(values * times, left), left)
            return self._planner.raised(made.lose(made.lost + lost), left - made.type.fraction_bits)

        return Cut(1.0, make)

    def _times(self, x: Expression, factor: Expression | None) -> Expression:
        return x if factor is None else self._planner.make(Multiply(), x, factor)

    def _raised(self, x: Expression, bits: int, factor: Expression | None) -> Expression:
        return self._planner.raised(self._times(x, factor), bits)

    def _opened(self, x: Expression, bits: int, factor: Expression | None) -> Cut | None:
        if x.type.form is Form.SHARED:
            self._shared.append(x)
        t = self._times(x, factor).type
        if bits > t.fraction_bits or not t.fits(TRUNCATION_BITS):
            return None
        return Cut(1.0, lambda: self._planner.make(Truncate(bits), self._times(self._planner.masked(x), factor)))

    def _let_through(self, operation: Comparison, x: Expression, bits: int, factor: Expression | None) -> Cut | None:
        if len(x.inputs) < 3:
            return None
        compared, digits, y = x.inputs
        y, dropped = self._times(y, factor), operation.dropped + bits
        if dropped > min(y.type.fraction_bits, TRUNCATION_BITS - 1) or not y.type.fits(TRUNCATION_BITS):
            return None
        own = y is compared and not (operation.below or operation.equal)
        made = self._planner.make(msgspec.structs.replace(operation, dropped=dropped, own=own), compared, digits, y)
        self.gates.append((x, _losing(made, x, factor, 1.0)))
        return Cut(1.0, lambda: made)

    def _mapped(self, x: Expression, bits: int, factor: Expression | None) -> Cut | None:
        operands = [self.cut(y, bits, factor) for y in x.inputs]
        known = [each for each in operands if each is not None]
        if len(known) < len(operands):
            return None
        units = _units(x, [each.units for each in known])
        operation = x.operation
        if isinstance(operation, linear.Declare):
            more, scale = (0, 1.0) if factor is None else (factor.type.fraction_bits, factor.type.low)
            lost = math.ldexp(units, bits - x.type.fraction_bits - more)
            low, high = sorted((operation.low * scale, operation.high * scale))
            operation = linear.Declare(low - lost, high + lost)
        made = partial(self._planner.make, operation)
        return Cut(units, lambda: _losing(made(*(each.make() for each in known)), x, factor, units))

    def opened_by_gates(self) -> bool:
        """Whether comparisons have opened what else there is."""
        stack, opened = [y for gate, _ in self.gates for y in gate.inputs], set()
        while stack:
            y = stack.pop()
            if isinstance(y.operation, Mask):
                opened.add(y.inputs[0])
            elif y.type.form is Form.MASKED:
                stack.extend(y.inputs)
        return opened.issuperset(self._shared)

    def bytes(self) -> int:
        """Dealt more than by comparisons that drop nothing more."""
        return self._with_macs(sum(_dealt(made) - _dealt(gate) for gate, made in self.gates))

    def bytes_apart(self, x: Expression, bits: int) -> int:
        """Dealt and opened for a truncation with an opening of its own."""
        dealt, opened = sum(part.bytes for part in TruncationBits(x.type.shape, bits).parts), x.type.bytes
        # With MACs, its mask's is dealt as well.
        return self._with_macs(opened) + self._with_macs(dealt)

    def _with_macs(self, dealt: int) -> int:
        return 2 * dealt if self._planner.objective.security is Security.MALICIOUS else dealt


def _is_constant(x: Expression) -> bool:
    return isinstance(x.operation, Constant)


def _values(x: Expression) -> Any:
    """Of a public number or tensor, maybe raised; None of others."""
    while isinstance(x.operation, linear.Raise):
        (x,) = x.inputs
    operation = x.operation
    return fixed_point.decode(operation.array(), x.type.fraction_bits) if isinstance(operation, Constant) else None


def _sum_lost(x: Expression, y: Expression) -> float:
    """By a product of public numbers."""
    return x.lost * y.type.magnitude + y.lost * x.type.magnitude


def _scaled(x: Expression) -> bool:
    """Whether it is something times one public number, and nothing is lost by it."""
    constants = [y for y in x.inputs if _is_constant(y)]
    return len(constants) == 1 and not constants[0].type.shape and not x.lost


def _losing(made: Expression, x: Expression, factor: Expression | None, units: float) -> Expression:
    """What stands for ``x``, or for its product, loses beside what it loses."""
    scale = 1.0 if factor is None else factor.type.magnitude
    if x.like is None:
        return made.lose(x.lost * scale, x.surely * scale)
    # What is known of x better than from its operands, and what it is cut by.
    lost = math.ldexp(units, -made.type.fraction_bits)
    return made.lose(lost, lost / 2, like={x: scale})


def _dealt(x: Expression) -> int:
    correlations = x.operation.correlations(*(y.type for y in x.inputs))
    return sum(part.bytes for correlation in correlations for part in correlation.parts)


def _units(x: Expression, operands: Sequence[float]) -> float:
    shape = x.inputs[0].type.shape
    match x.operation:
        case linear.Add() | linear.Subtract():
            return sum(operands)
        case linear.Sum(axes=axes):
            return operands[0] * math.prod(shape[axis] for axis in axes)
        case linear.RunningSum(axis=axis):
            return operands[0] * shape[axis]
        case linear.SumPool2d(kernel=kernel):
            return operands[0] * math.prod(kernel)
    return max(operands)
