"""From comparisons to nodes of a program: which bits are compared, in how many digits, and in how many rounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import accumulate, chain
from typing import NamedTuple

from mpc.errors import RangeError
from mpc.objective import Objective
from mpc.operation import Constant
from mpc.program import Expression
from mpc.rings import BITS, FIELD
from mpc.rings.bit_chains import monomials
from mpc.rings.characters import Node
from mpc.rings.digits import entries
from mpc.rings.small import small, words
from mpc.rings.steps import entries as step_entries
from mpc.rings.steps import entry_bits
from mpc.security import Security
from mpc.tensor_type import TRUNCATION_BITS, Form, TensorType
from protocols.lowering.planner import Planner, constant
from protocols.operations.bit_comparison import MOST_CHAINED, Lifted, Sign
from protocols.operations.comparison import MOST_JOINED, Compare, Comparison, Join, products_of
from protocols.operations.digits import (
    EXACTLY,
    MOST_BITS,
    MOST_DIGIT,
    MOST_DIGITS,
    Digits,
    Tables,
    Window,
    bases,
    mistaken,
)
from protocols.operations.linear import Add, Broadcast, Declare, Divide, Subtract, broadcast
from protocols.operations.product import Multiply
from protocols.operations.residues import Factors, Residue, Residuosity
from protocols.operations.weighed import MOST_WEIGHED, SignBits, Signed, Steps, Weighed

MOST_DEALT = 1100
"""Bytes, with MACs, for a value that is compared and let through: more, and a round more is taken to have fewer."""
MOST_SUMS = 4
"""Rounds, with MACs, in which digits are added up."""
ROUND_WORTH = 2**19
"""Bytes, with MACs, that a round less is worth even then, of all values together: of few it costs little."""


class Variant(NamedTuple):
    """A way to compare: how bits are cut, rounds from the opened value on, and bytes for each value."""

    widths: tuple[int, ...]
    groups: tuple[int, ...]
    """Digits of each that they are joined to."""
    rounds: int
    bytes: float
    weighed: tuple[int, ...] = ()
    """Digits of each sum of them, where it is these that tell signs."""


def compared(planner: Planner, x: Expression, *, strictly: bool, below: bool) -> Expression:
    """1 where x >= 0 (x > 0 if ``strictly``), else 0, or the other way round if ``below``."""
    if x.type.high < 0 or (x.type.low > 0 if strictly else x.type.low >= 0):
        return _known(planner, x, (x.type.high < 0) == below)
    if strictly:
        if x.type.high <= 0:
            return _known(planner, x, below)
        # A unit less is not below 0: what is compared with the same tables.
        x = planner.masked(x).derive(Subtract(), planner.label, _unit(x.type.fraction_bits))
    return ended(planner, planner.masked(x), EXACTLY, below=below)


def equal(planner: Planner, x: Expression, *, below: bool) -> Expression:
    """1 where x = 0, else 0, or the other way round if ``below``: for one comparison, or less."""
    if x.type.low > 0 or x.type.high < 0:
        return _known(planner, x, below)
    return ended(planner, planner.masked(x), EXACTLY, below=below, equal=True)


def _unit(fraction_bits: int) -> Expression:
    """The least number with so many."""
    real = math.ldexp(1.0, -fraction_bits)
    return Expression(Constant((), fraction_bits, real, real, (1).to_bytes(8, "little")))


def _known(planner: Planner, x: Expression, bit: bool) -> Expression:
    """What follows from the range of x; a constant is no secret, and so no result."""
    zero = planner.product(Multiply(), x, constant(0.0))
    if zero.type.fraction_bits:
        # A bit like any other.
        zero = planner.make(Divide(-zero.type.fraction_bits), zero)
    return planner.sum(Add(), zero, constant(float(bit)))


def reached(planner: Planner, x: Expression, threshold: float, tolerance: float) -> Expression:
    """1 where x >= ``threshold``, else 0, and either where it is nearer than ``tolerance``, a part of it, or a unit of
    x.

    x is opened once for any number of thresholds.
    """
    x = planner.masked(x)
    off = planner.make(Subtract(), x, constant(threshold, x.type.fraction_bits))
    if off.type.low >= 0 or off.type.high < 0:
        return _known(planner, off, off.type.low >= 0)
    ignored = math.floor(math.log2(threshold * tolerance) + x.type.fraction_bits) + 1
    return ended(planner, off, max(ignored, EXACTLY))


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
    ignored = _ignored(planner, x)
    x = planner.masked(x)
    result = ended(planner, x, ignored, x)
    unit = math.ldexp(mistaken(ignored), -x.type.fraction_bits)
    return planner.make(Declare(-min(unit, -x.type.low), x.type.high), result)


def passed(planner: Planner, x: Expression, g: Expression) -> Expression:
    """``g`` where ``relu`` lets x through, by the same bit, else 0."""
    if x.type.low >= 0:
        return g
    if x.type.high <= 0:
        return planner.product(Multiply(), g, constant(0.0))
    ignored = _ignored(planner, x)
    x = planner.masked(x)
    if g.type.form is Form.PUBLIC or g.type.shape != x.type.shape:
        return planner.product(Multiply(), ended(planner, x, ignored), g)
    return _ended_later(planner, x, ignored, planner.masked(g))


def _ended_later(planner: Planner, x: Expression, ignored: int, g: Expression) -> Expression:
    """``ended``, where the sign has been told, and what it lets through follows from that: so that there is time to
    open its bit, for a fraction of what its sums would take once more.
    """
    variant, base, thresholds = variant_of(planner, x, ignored)
    if not variant.weighed or planner.objective.security is Security.MALICIOUS:
        return ended(planner, x, ignored, g)
    sums = _weighed(planner, x, ignored, variant.widths, base, thresholds, equal=False)
    sign = planner.masked(planner.make(SignBits(x.type.size, len(variant.widths)), sums))
    return planner.make(Lifted(ignored, False, False, 0, False), x, sign, g)


def _ignored(planner: Planner, x: Expression) -> int:
    """Bits of x, such that a sign is wrong only within a unit of what the computation keeps."""
    spare = x.type.fraction_bits - planner.kept(x.type.magnitude)
    return spare + 1 if spare > 0 else EXACTLY


def ended(
    planner: Planner, x: Expression, ignored: int, *passed: Expression, below: bool = False, equal: bool = False
) -> Expression:
    """1, or what is ``passed``, where a masked x >= 0 (= 0 if ``equal``): by the variant that the objective asks for.

    What different comparisons of x, and of x less public thresholds, have in common is opened, and dealt, once.
    """
    variant, base, thresholds = variant_of(planner, x, ignored, equal)
    malicious = planner.objective.security is Security.MALICIOUS
    if variant.weighed and malicious:
        shown = _shown(planner, x, ignored, variant, equal)
        return planner.make(Residuosity(ignored, below, equal, 0, False), x, shown, *passed)
    if variant.weighed:
        return planner.make(
            Signed(ignored, below, equal, 0, False, len(variant.widths)),
            x,
            _weighed(planner, x, ignored, variant.widths, base, thresholds, equal),
            *passed,
        )
    ring = FIELD if malicious else BITS
    tables = planner.make(Tables(ignored, variant.widths, ring), base)
    digits = planner.masked(x.derive(Digits(ignored, variant.widths, ring, thresholds, equal), planner.label, tables))
    if malicious:
        if variant.rounds > 1:
            digits = planner.masked(planner.make(Join(variant.groups), digits))
        return planner.make(Compare(ignored, below, equal, 0, False), x, digits, *passed)
    sign = planner.masked(planner.make(Sign(x.type.size, len(variant.widths)), digits))
    return planner.make(Lifted(ignored, below, equal, 0, False), x, sign, *passed)


def _weighed(
    planner: Planner,
    x: Expression,
    ignored: int,
    widths: tuple[int, ...],
    base: Expression,
    thresholds: int,
    equal: bool,
) -> Expression:
    """The opened sums of weighed digits."""
    count = len(widths)
    tables = [planner.make(Steps(ignored, widths, small(entry_bits(count, j)), j), base) for j in range(count)]
    return planner.masked(x.derive(Weighed(ignored, widths, small(count), thresholds, equal), planner.label, *tables))


def _shown(planner: Planner, x: Expression, ignored: int, variant: Variant, equal: bool) -> Expression:
    """What the last of the sums of digits has shown."""
    found: Expression | None = None
    ends = accumulate(variant.weighed, initial=0)
    for first, count in zip(ends, variant.weighed, strict=False):
        made = Residue(ignored, variant.widths, first, count, equal)
        found = x.once(made, functools.partial(_residue, planner, made, x, found))
    if found is None:
        raise ValueError("digits are weighed in no sum")
    return found


def _residue(planner: Planner, made: Residue, x: Expression, below: Expression | None) -> Expression:
    factors = Expression(Factors(x.type.size), (), planner.label)
    return Expression(made, (x, factors) if below is None else (x, factors, below), planner.label)


def variant_of(planner: Planner, x: Expression, ignored: int, equal: bool = False) -> tuple[Variant, Expression, int]:
    """By which it is compared, whose tables it is looked up in, and to how many thresholds each of those is."""
    base, bits = _base(x, ignored, equal)
    thresholds = x.type.size // base.type.size if base.type.size else 1
    # Values at the ends, by digits that are weighed: a bit more, or where there is none another way.
    for more in (bits, bits + 1):
        if more + max(ignored, 0) <= MOST_BITS:
            variant = chosen(more, base.type.size, planner.objective, thresholds, equal)
            if not variant.weighed or Window(ignored, variant.widths).weighs(x.type, equal):
                return variant, base, thresholds
    return chosen(bits, base.type.size, planner.objective, thresholds, equal, weighed=False), base, thresholds


def _base(x: Expression, ignored: int, equal: bool) -> tuple[Expression, int]:
    """Whose tables a masked x is looked up in, and how many bits are compared.

    Of what x is made of by adding public numbers and by repeating each element in a row, tables are shared by all that
    is made so and is not much larger: bits are those of the base, or what is between two values of it has, whatever is
    added, so that comparisons of one base go by the same tables.
    """
    *_, base = bases(x)
    if base is not x:
        width = base.type.high - base.type.low + math.ldexp(1.0, -base.type.fraction_bits)
        apart = base.type.replace(low=-width, high=width)
        for t in (base.type, apart):
            bits = _bits_of(t, ignored, equal)
            if bits and Window(ignored, (bits,)).takes(x.type, equal):
                return base, bits
    bits = _bits_of(x.type, ignored, equal)
    if bits:
        return x, bits
    raise RangeError(
        f"values up to {x.type.magnitude:g} with {x.type.fraction_bits} fraction bits are too large to compare"
        f" ({TRUNCATION_BITS} bits): declare a tighter range"
    )


def _bits_of(x: TensorType, ignored: int, equal: bool) -> int:
    """So many bits of x to compare that its sign, or whether it is 0, is told; 0 if it is too large."""
    widths = range(1, MOST_BITS + 1 - max(ignored, 0))
    return next((bits for bits in widths if Window(ignored, (bits,)).takes(x, equal)), 0)


def chosen(
    bits: int, size: int, objective: Objective, thresholds: int = 1, equal: bool = False, *, weighed: bool = True
) -> Variant:
    """For so many values, and for each so many thresholds: the fewest rounds, unless they cost more bytes than they are
    worth.

    ``equal``: to tell whether values are 0.  ``weighed``: also by signs of digits that are added up.
    """
    malicious = objective.security is Security.MALICIOUS
    fewest, *others = _variants(bits, malicious, thresholds, equal, weighed)
    for other in others:
        dear = malicious and fewest.rounds == 1 and fewest.bytes > MOST_DEALT * thresholds
        worth = min(objective.round_bytes, ROUND_WORTH) if dear else objective.round_bytes
        if size * (fewest.bytes - other.bytes) > worth * (other.rounds - fewest.rounds):
            fewest = other
    return fewest


@functools.cache
def _variants(bits: int, malicious: bool, thresholds: int, equal: bool, weighed: bool) -> tuple[Variant, ...]:
    """Of each number of rounds the one with the fewest bytes, for a value that is compared and let through."""
    found: dict[int, Variant] = {}
    ways = chain(lifted(bits, thresholds), scaled(bits, thresholds, equal)) if malicious else packed(bits, thresholds)
    for variant in ways:
        if variant.weighed and not weighed:
            continue
        if variant.rounds not in found or variant.bytes < found[variant.rounds].bytes:
            found[variant.rounds] = variant
    return tuple(found[rounds] for rounds in sorted(found))


def packed(bits: int, thresholds: int) -> Iterator[Variant]:
    """All ways without MACs."""
    for count in range(-(-bits // MOST_DIGIT), min(bits, MOST_WEIGHED) + 1):
        widths, whole = _weighable(bits, count)
        yield Variant(widths, (), 1, whole + thresholds * (count / 8 + (16 << (count - 1))), (count,))
    for count in range(-(-bits // MOST_DIGIT), min(bits, MOST_CHAINED) + 1):
        widths = _cut(bits, count)
        tables, opened = entries(widths) / 8, (2 * count - 1) / 8
        yield Variant(widths, (), 2, tables + thresholds * (opened + (monomials(count) + 1) / 8 + 16))


@functools.cache
def _weighable(bits: int, count: int, place: int = 0) -> tuple[tuple[int, ...], int]:
    """How the digits from the one at ``place`` on, of ``count``, share so many bits, and the bytes of their tables:
    the fewest."""
    left = count - place

    def bytes_(width: int) -> int:
        return 8 * words(step_entries(width, left == 1), entry_bits(count, place))

    if left == 1:
        return (bits,), bytes_(bits)
    best: tuple[tuple[int, ...], int] | None = None
    for width in range(max(1, bits - MOST_DIGIT * (left - 1)), min(MOST_DIGIT, bits - left + 1) + 1):
        others, rest = _weighable(bits - width, count, place + 1)
        if best is None or bytes_(width) + rest < best[1]:
            best = (width, *others), bytes_(width) + rest
    if best is None:
        raise ValueError(f"{bits} bits are no {count} digits")
    return best


def scaled(bits: int, thresholds: int, equal: bool) -> Iterator[Variant]:
    """All ways with MACs by sums of digits, in which each threshold has tables of its own."""
    for count in range(1, MOST_SUMS + 1):
        found = _in_sums(bits, count, equal)
        if found is None:
            continue
        # Half a sign, and that times what is let through.
        each = 16 * (sum(node.entries for node in found) + 2) + 8 * count
        widths = tuple(width for node in found for width in node.widths)
        yield Variant(widths, (), count, thresholds * each, tuple(len(node.widths) for node in found))


@functools.cache
def _in_sums(bits: int, count: int, equal: bool, lowest: bool = True) -> tuple[Node, ...] | None:
    """How the sums from one on, so many of them, share so many bits: in the fewest entries."""
    best: tuple[Node, ...] | None = None
    if count == 1:
        node = _sum(bits, lowest, True, equal)
        return None if node is None else (node,)
    for own in range(1, bits - count + 2):
        node, others = _sum(own, lowest, False, equal), _in_sums(bits - own, count - 1, equal, False)
        if node is None or others is None:
            continue
        if best is None or sum(one.entries for one in (node, *others)) < sum(one.entries for one in best):
            best = (node, *others)
    return best


@functools.cache
def _sum(bits: int, lowest: bool, highest: bool, equal: bool) -> Node | None:
    """How the digits of one share so many bits.  Those of one bit come first, behind the lowest of all."""
    best: Node | None = None
    most = Node(0, (), lowest, highest, equal).most
    for digits in range(1, min(most, bits) + 1):
        for ones in range(digits):
            left = digits - ones
            if not left <= bits - ones <= MOST_DIGIT * left:
                continue
            *rest, last = sorted(_cut(bits - ones, left))
            # The lowest is a table of its own, if it is not the highest.
            first = [rest.pop()] if lowest and rest and not equal else []
            node = Node(0, (*first, *[1] * ones, *rest, last), lowest, highest, equal)
            if best is None or node.entries < best.entries:
                best = node
    return best


def lifted(bits: int, thresholds: int) -> Iterator[Variant]:
    """All ways with MACs.

    An element that is dealt takes 16 bytes with its MAC; one that is opened 8, and 8 for its mask's.
    """
    for count in range(-(-bits // MOST_DIGIT), min(bits, MOST_DIGITS) + 1):
        widths = _cut(bits, count)
        tables, opened = 16 * entries(widths), 16 * (2 * count - 1)
        if count <= MOST_JOINED:
            each = opened + 16 * (products_of((count,)) + monomials(count))
            yield Variant(widths, (), 1, tables + thresholds * each)
        for joined in range(1, min(count - 1, MOST_JOINED) + 1):
            groups = _cut(count, joined)
            if groups[0] <= MOST_JOINED:
                cost = products_of(groups) + (2 * joined - 1) + products_of((joined,)) + monomials(joined)
                yield Variant(widths, groups, 2, tables + thresholds * (opened + 16 * cost))


def _cut(whole: int, count: int) -> tuple[int, ...]:
    """Into so many parts of almost the same size, the larger ones first."""
    return tuple((whole + count - 1 - k) // count for k in range(count))
