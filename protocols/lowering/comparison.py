"""From comparisons to nodes of a program: which bits are compared, in how many digits, and in how many rounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

from mpc.errors import RangeError
from mpc.objective import Objective
from mpc.program import Expression
from mpc.rings import BITS, FIELD
from mpc.rings.bit_chains import monomials, signed_monomials
from mpc.rings.digits import entries
from mpc.security import Security
from mpc.tensor_type import TRUNCATION_BITS, Form, TensorType
from protocols.lowering.planner import Planner, constant
from protocols.operations.bit_comparison import MOST_CHAINED, Lifted, Sign, Signed
from protocols.operations.comparison import MOST_JOINED, Compare, Comparison, Join, products_of
from protocols.operations.digits import EXACTLY, MOST_BITS, MOST_DIGIT, MOST_DIGITS, Digits, Window
from protocols.operations.linear import Add, Broadcast, Declare, Negate, broadcast
from protocols.operations.product import Multiply

MOST_DEALT = 1300
"""Bytes, with MACs, for a value that is compared and let through: more, and a round more is taken to have fewer."""


class Variant(NamedTuple):
    """A way to compare: how bits are cut, rounds from the opened value on, and bytes for each value, without gates."""

    widths: tuple[int, ...]
    groups: tuple[int, ...]
    rounds: int
    bytes: float


def compared(planner: Planner, x: Expression, *, negated: bool, below: bool) -> Expression:
    """1 where x >= 0 (of -x if ``negated``), else 0, or the other way round if ``below``."""
    low, high = (-x.type.high, -x.type.low) if negated else (x.type.low, x.type.high)
    if low >= 0 or high < 0:
        # Known from the range; a constant is no secret, and so no result.
        zero = planner.product(Multiply(), x, constant(0.0))
        return planner.sum(Add(), zero, constant(float((low >= 0) != below)))
    x = planner.masked(x)
    x = planner.make(Negate(), x) if negated else x
    return _ended(planner, x, EXACTLY, below)


def gated(planner: Planner, x: Expression, y: Expression) -> Expression | None:
    """The product, if one factor is a comparison's bit and the other can be let through by it, else None."""
    if not isinstance(x.operation, Comparison):
        x, y = y, x
    if not _is_bit(x) or _is_bit(y) or y.type.form is Form.PUBLIC:
        return None
    if broadcast(x.type.shape, y.type.shape) != x.type.shape:
        return None
    y = planner.masked(y)
    y = y if y.type.shape == x.type.shape else planner.make(Broadcast(x.type.shape), y)
    return planner.make(x.operation, *x.inputs, y)


def _is_bit(x: Expression) -> bool:
    return isinstance(x.operation, Comparison) and len(x.inputs) == 2


def relu(planner: Planner, x: Expression) -> Expression:
    """x where x >= 0, else 0: exact, or off by one unit of what the computation keeps of x."""
    if x.type.low >= 0:
        return x
    if x.type.high <= 0:
        return planner.product(Multiply(), x, constant(0.0))
    spare = x.type.fraction_bits - planner.kept(x.type.magnitude)
    x = planner.masked(x)
    result = _ended(planner, x, spare if spare > 0 else EXACTLY, False, x)
    unit = math.ldexp(1.0, spare - x.type.fraction_bits) if spare > 0 else 0.0
    return planner.make(Declare(-min(unit, -x.type.low), x.type.high), result)


def _ended(planner: Planner, x: Expression, ignored: int, below: bool, *passed: Expression) -> Expression:
    """1, or what is ``passed``, where a masked x >= 0: by the variant that the objective asks for.

    What different comparisons of x have in common is opened once.
    """
    variant = chosen(_bits(x.type, ignored), x.type.size, planner.objective)
    malicious = planner.objective.security is Security.MALICIOUS
    digits = planner.masked(planner.make(Digits(ignored, variant.widths, FIELD if malicious else BITS), x))
    count = len(variant.widths)
    if malicious:
        if variant.rounds > 1:
            digits = planner.masked(planner.make(Join(variant.groups), digits))
        return planner.make(Compare(ignored, below), x, digits, *passed)
    if variant.rounds == 1:
        return planner.make(Signed(ignored, below, count), x, digits, *passed)
    sign = planner.masked(planner.make(Sign(x.type.size, count), digits))
    return planner.make(Lifted(ignored, below), x, sign, *passed)


def _bits(x: TensorType, ignored: int) -> int:
    """So many bits of x to compare that its sign is told.  Raises RangeError for what is too large."""
    for bits in range(1, MOST_BITS + 1 - max(ignored, 0)):
        if Window(ignored, (bits,)).takes(x):
            return bits
    raise RangeError(
        f"values up to {x.magnitude:g} with {x.fraction_bits} fraction bits are too large to compare"
        f" ({TRUNCATION_BITS} bits): declare a tighter range"
    )


def chosen(bits: int, size: int, objective: Objective) -> Variant:
    """For so many values: the fewest rounds, unless they cost more bytes than they are worth."""
    malicious = objective.security is Security.MALICIOUS
    fewest, *others = _variants(bits, malicious)
    if malicious and others and fewest.bytes > MOST_DEALT:
        fewest, *others = others
    for other in others:
        if size * (fewest.bytes - other.bytes) > objective.round_bytes * (other.rounds - fewest.rounds):
            fewest = other
    return fewest


@functools.cache
def _variants(bits: int, malicious: bool) -> tuple[Variant, ...]:
    """Of each number of rounds the one with the fewest bytes, for a value that is compared and let through."""
    found: dict[int, Variant] = {}
    for variant in _lifted(bits) if malicious else _packed(bits):
        if variant.rounds not in found or variant.bytes < found[variant.rounds].bytes:
            found[variant.rounds] = variant
    return tuple(found[rounds] for rounds in sorted(found))


def _packed(bits: int) -> Iterator[Variant]:
    for count in range(-(-bits // MOST_DIGIT), min(bits, MOST_CHAINED) + 1):
        widths = _cut(bits, count)
        common = (entries(widths) + 2 * count - 1) / 8
        yield Variant(widths, (), 1, common + 16 * signed_monomials(count))
        yield Variant(widths, (), 2, common + (monomials(count) + 1) / 8 + 16)


def _lifted(bits: int) -> Iterator[Variant]:
    """An element that is dealt takes 16 bytes with its MAC; one that is opened 8, and 8 for its mask's."""
    for count in range(-(-bits // MOST_DIGIT), min(bits, MOST_DIGITS) + 1):
        widths = _cut(bits, count)
        common = 16 * entries(widths) + 16 * (2 * count - 1)
        if count <= MOST_JOINED:
            yield Variant(widths, (), 1, common + 16 * (products_of((count,)) + monomials(count)))
        for joined in range(1, min(count - 1, MOST_JOINED) + 1):
            groups = _cut(count, joined)
            if groups[0] <= MOST_JOINED:
                cost = products_of(groups) + (2 * joined - 1) + products_of((joined,)) + monomials(joined)
                yield Variant(widths, groups, 2, common + 16 * cost)


def _cut(whole: int, count: int) -> tuple[int, ...]:
    """Into so many parts of almost the same size, the larger ones first."""
    return tuple((whole + count - 1 - k) // count for k in range(count))
