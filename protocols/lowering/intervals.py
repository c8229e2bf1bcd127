"""What is taken to hold of values, and watched: results are given where it does, and nothing of them where it does not.

A fit that does not cover the range of what it is applied to is wrong outside of its interval, and what is computed on
the range that an author assumes (``SecretTensor.assumed``) need not fit the field beyond.  Programs say both by
`Assume` nodes, each of which says how finely it is watched.  Whatever is beyond counts, and what comes close to an end
may count as well:

* *coarsely*, by tables of a few bits, without a round or an opening (`Astray`), nearer than a ninth of a range that an
  author assumes (a fifth of what an optimizer remembers), and with MACs a 33rd of a function's interval;
* *by a bit each* that is opened (`Beyond`), without MACs: nearer than a 64th of a function's interval, for a tenth of
  what would be dealt;
* *by digits*, in comparisons with both ends, moved inwards by a thousandth: intervals of orders of magnitude, whose
  lower end is near to all that matters; and without MACs such as are a thousandth of what types know.

What is found is added up, over all assumptions and values.  Each value is known to lie in the wider range that follows
from assumptions before it, so the first that does not hold is seen, whatever later ones show: bits of comparisons are 0
or 1 each, and undo nothing, and to what is coarsely found to be beyond a uniform number is added.  By the sum c, which
is masked and opened,

* each result that is revealed is *gated* (`Gate`): exact if c is 0, else uniform, and beside it the client alone learns
  whether c is 0 (`Nonzero`);
* what is kept is kept if c is 0 (`Zero`), and else the run ends: then parties know, too, as they have to of what does
  not come into use.

Where every result has a row for each sample, which depends on that sample alone, there is a c for each of them
(``samples.py``).

Results are gated where something stored is read: only there is somebody to whom it matters.  Else the client, to whom
all belongs, is told the bit beside them, and functions are not watched.

Security: what a client may learn by leaving an interval, with inputs in their range, is one bit, or one for each
sample; for the rest see ``gate.py``.  That results are gated, all of them, by the sum of all that is assumed and of
nothing else, is seen from a program (`is_gated`), which parties ask of whatever reads another's secret: sums are made
in one way alone, here, so that of a program which is another's they can be made again, and compared.
Cost: coarsely no round but where something is assumed of the last that is opened, and 256 B dealt for a value of a
function (520 with MACs), 64 (136) of another, 32 (72) roughly.  By a bit each one round more, and 24 B, or 36 where
types know little, and another bit.  By digits one round more; where there is time, two and fewer bytes, without MACs:
about 26 B dealt for each.  For the dermatology CNN, of 18,880 values, 3.2 kB opened by each party and 530 kB dealt;
with MACs 8 bytes, and 9.8 MB.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np

from mpc.errors import RangeError
from mpc.objective import ANY, Objective
from mpc.operation import Constant
from mpc.pace import paced
from mpc.program import Expression, Program
from mpc.security import Security
from mpc.tensor_type import TensorType
from protocols.lowering.comparison import ended
from protocols.lowering.planner import Planner, constant
from protocols.lowering.samples import samples
from protocols.operations.assume import Assume
from protocols.operations.astray import Astray, Span
from protocols.operations.beyond import Beyond, Beyonds
from protocols.operations.digits import EXACTLY
from protocols.operations.gate import Gate
from protocols.operations.in_range import Coefficients
from protocols.operations.linear import Add, Reshape, Subtract, Sum
from protocols.operations.nonzero import Nonzero, Zero
from protocols.operations.product import Multiply
from protocols.operations.residues import Factors

LABEL = "interval check"
"""What it is counted under."""
ASSUMED = 3
"""Bits by which a range is watched that an author assumes: it exceeds by far what values are."""
ROUGHLY = 2
"""And one that only large values leave, of many: what an optimizer remembers of each weight's gradients."""
_INTERVAL = 5
"""And one on which a function holds, with MACs."""
_FINE, _FURTHER = 6, 2
"""And without: where it ends, and that no value is further away than it is wide."""
_RELATIVE = 4.0
"""A range above 0 whose ends are further apart is one of orders of magnitude."""
_PARTS = 11
"""log2 of the parts of an interval by one of which ends are moved."""
_WIDEST = 2.0**61
"""Of an interval: no value is beyond on both sides."""
_NODES = 8
"""That looking at an assumption by digits takes, at least: twice as many are usual."""


class Watched(NamedTuple):
    """What is revealed, and what is opened beside it."""

    outputs: list[Expression]
    checks: list[Expression]


def fineness(low: float, high: float) -> int:
    """By how many bits the interval of a function is watched; 0: by all, where the lower end is small beside it."""
    return 0 if low > 0 and high > _RELATIVE * low else _INTERVAL


def assumptions(targets: Iterable[Expression]) -> list[Expression]:
    """All on the way there."""
    return [x for x in Program.order(targets) if isinstance(x.operation, Assume)]


class _Ends(NamedTuple):
    """Of what is assumed, those that types do not promise."""

    low: float | None
    high: float | None
    coarsely: bool
    bits: Sequence[tuple[Assume | None, Beyond]] = ()
    """Where by a bit each: of what, and of what else that is assumed."""

    @property
    def by_digits(self) -> bool:
        return not self.coarsely and not self.bits

    @classmethod
    def of(cls, x: Expression, assume: Assume, security: Security) -> Self | None:
        """Of x, if anything is to be looked at."""
        if not x.type.size:
            return None
        low = assume.low if x.type.low < assume.low else None
        high = assume.high if x.type.high > assume.high else None
        if low is None and high is None:
            return None
        # Without MACs a bit that is opened takes no longer than finer tables, and a tenth of the bytes.
        coarsely = assume.bits > 0 and (security is Security.MALICIOUS or assume.bits <= ASSUMED)
        bits = _told(x.type, assume.low, assume.high) if assume.bits and not coarsely else ()
        return cls(low, high, coarsely, bits)


def _told(x: TensorType, low: float, high: float) -> Sequence[tuple[Assume | None, Beyond]]:
    """What tells whether values lie in [low, high]; nothing if none can.

    Where they may be further away than the interval is wide, that they are not, and then the same of what is not: a
    table has to reach as far as its number may be, which is just within twice the width of either end.
    """
    room = (high - low) * 0.99
    least, most = low - room, high + room
    if least <= x.low and x.high <= most:
        found = Beyond.of(x, low, high, _FINE)
        return () if found is None else ((None, found),)
    nearer, far = Assume(least, most, ASSUMED), Beyond.of(x, least, most, _FURTHER)
    found = Beyond.of(nearer.result(x), low, high, _FINE)
    return () if far is None or found is None else ((None, far), (nearer, found))


def watched(
    outputs: Sequence[Expression],
    kept: Sequence[Expression],
    assumed: Sequence[Expression],
    security: Security,
    *,
    gated: bool,
) -> Watched:
    """``outputs`` with the bit, and ``gated`` by it; or that all hangs on it, where something is ``kept``."""
    counts = _counts(outputs, kept, assumed, security)
    if counts is None:
        return Watched(list(outputs), [])
    if kept:
        return Watched(list(outputs), [_scaled(Zero(), counts)])
    given = [Expression(Gate(), (y, counts, _coefficients(y.type.size)), LABEL) if gated else y for y in outputs]
    return Watched([*given, _scaled(Nonzero(), counts)], [])


def is_gated(program: Program) -> bool:
    """Whether all results hang on all that is assumed, as ``watched`` has it; and nothing hangs on any other number.

    So what tells whether a number is 0, to the client or to the parties, is of that sum as well: a bit of whatever is
    computed beyond an interval would be a result.
    """
    if not any(isinstance(node.operation, Assume) for node in program.nodes):
        return True
    made = list[Expression]()
    for node in paced(program.nodes):
        made.append(Expression(node.operation, tuple(made[j] for j in node.inputs)))
    results, kept = ([made[i] for i in some] for some in (program.results, program.kept.values()))
    security = program.objective.security
    ends = (_Ends.of(x.inputs[0], x.operation, security) for x in made if isinstance(x.operation, Assume))
    if sum(each is not None and each.by_digits for each in ends) * _NODES > len(made):
        # More than this program can look at; and to make all that it lacks would take far longer than it has nodes.
        return False
    sums = [x.inputs[0] for x in made if isinstance(x.operation, Nonzero | Zero)]
    if kept:
        if not any(isinstance(x.operation, Zero) for x in made):
            return False
    elif all(isinstance(x.operation, Gate) for x in results):
        sums += [x.inputs[1] for x in results]
        results = [x.inputs[0] for x in results]
    else:
        return False
    try:
        counts = _counts(results, kept, assumptions([*results, *kept]), security)
    except RangeError:
        # It cannot be watched: so nobody has planned it.
        return False
    if counts is None:
        return True
    forms = _forms([counts, *sums])
    return all(forms[x] == forms[counts] for x in sums)


def _forms(targets: Iterable[Expression]) -> Mapping[Expression, int]:
    """Of each node on the way there a number, which is the same for what is made in the same way of the same."""
    forms: dict[Expression, int] = {}
    numbers: dict[object, int] = {}
    for x in paced(Program.order(targets)):
        own = None if x.inputs or isinstance(x.operation, Constant | Coefficients | Factors) else id(x)
        forms[x] = numbers.setdefault((x.operation, own, tuple(forms[y] for y in x.inputs)), len(numbers))
    return forms


def _counts(
    outputs: Sequence[Expression], kept: Sequence[Expression], assumed: Sequence[Expression], security: Security
) -> Expression | None:
    """Masked, of each sample or in all: 0 if values are where they are assumed to be, and else it is not; None if all
    must be."""
    depths = _depths([*outputs, *kept, *assumed])
    last, rows = max(depths.values()), 1 if kept else samples(outputs)
    spans, counted = list[tuple[Expression, Span]](), list[Expression]()
    bits, sizes = list[Expression](), list[int]()
    for each in paced(assumed, 1):
        (x,) = each.inputs
        operation = each.operation
        if not isinstance(operation, Assume):
            raise TypeError(f"{operation.name} assumes nothing")
        least, most = operation.low, operation.high
        ends = _Ends.of(x, operation, security)
        if ends is None:
            continue
        if ends.coarsely:
            spans.append((x, Span.of(x.type, least, most, operation.bits)))
            continue
        # With MACs fewer rounds are fewer elements opened, too.
        later = depths[x] + 2 <= last and security is Security.SEMI_HONEST
        planner = Planner(LABEL, objective=Objective(0 if later else ANY, security))
        if ends.bits:
            for nearer, beyond in ends.bits:
                y = x if nearer is None else planner.make(nearer, x)
                bits, sizes = [planner.make(beyond, y, *bits)], [*sizes, x.type.size]
            continue
        margin = math.ldexp(min(most - least, _WIDEST), -_PARTS)
        counted.append(_beyond(planner, x, ends.low, ends.high, margin, rows))
    planner = Planner(LABEL)
    if bits:
        counted.append(planner.make(Beyonds(tuple(sizes), rows), planner.masked(bits[0])))
    if counted:
        counted = [functools.reduce(lambda total, count: planner.sum(Add(), total, count), counted)]
    found = list[Expression]()
    for k, (x, span) in enumerate(spans, 1):
        # What is counted by digits is known late, and comes last: tables are dealt where values are opened.
        added = (*found, *counted) if k == len(spans) else tuple(found)
        found = [Expression(Astray(rows, span), (x, _coefficients(x.type.size), *added), LABEL)]
    whole = found or counted
    return planner.masked(whole[0]) if whole else None


def _scaled(operation: Nonzero | Zero, counts: Expression) -> Expression:
    return Expression(operation, (counts, _coefficients(counts.type.size)), LABEL)


def _coefficients(size: int) -> Expression:
    return Expression(Coefficients(size), (), LABEL)


def _beyond(
    planner: Planner, x: Expression, low: float | None, high: float | None, margin: float, rows: int
) -> Expression:
    """How many values of each of so many rows of a masked x lie below ``low``, or above ``high``, or no more than twice
    the margin inside.
    """
    bits, size = x.type.fraction_bits, x.type.size
    ignored = max(math.floor(math.log2(margin) + bits), 0)
    step = math.ldexp(1.0, ignored - bits)
    # A sign may be wrong on both sides, but of whole units.
    half = step / 2 if ignored else 0.0
    ends = [] if low is None else [math.ceil(low / step) * step + half]
    ends += (
        []
        if high is None
        else [math.floor(high / step) * step - half if ignored else math.floor(high / step) * step + step]
    )
    moved = planner.sum(Subtract(), planner.make(Reshape((size, 1)), x), constant(np.array([ends]), bits))
    reached = ended(planner, moved, ignored or EXACTLY)
    signs = np.array([[*([] if low is None else [-1.0]), *([] if high is None else [1.0])]])
    signed = planner.make(
        Reshape((rows, reached.type.size // rows)), planner.product(Multiply(), reached, constant(signs))
    )
    count = planner.make(Sum((1,), False), signed)
    return count if low is None else planner.sum(Add(), count, constant(np.array([float(size // rows)])))


def _depths(targets: Iterable[Expression]) -> Mapping[Expression, int]:
    """How many openings lie on the way to each."""
    found: dict[Expression, int] = {}
    for x in paced(Program.order(targets)):
        found[x] = max((found[y] for y in x.inputs), default=0) + x.operation.opens
    return found
