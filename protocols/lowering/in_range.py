"""Which values parties check to lie in their range, and the nodes that do: `protocols.operations.in_range`, and of
inputs with MACs `protocols.operations.decomposed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc.objective import Objective
from mpc.operation import Input, Stored
from mpc.program import Expression
from mpc.rings import BITS, FIELD
from mpc.security import Security
from protocols.lowering.comparison import Variant, lifted, packed
from protocols.lowering.planner import Planner
from protocols.operations.bit_comparison import Sign
from protocols.operations.comparison import Join
from protocols.operations.decomposed import Decomposed, Recomposed
from protocols.operations.in_range import Coefficients, Ends, Ranged, Within

LABEL = "range check"
"""What it is counted under."""


def owner_of(slot: str) -> str:
    """Whose secret is in it."""
    return slot.partition("/")[0]


def to_check(sources: Sequence[tuple[Input | Stored, bool]]) -> list[bool]:
    """Of each source of a program, and whether it is a model's weight: whether its values are checked.

    *Inputs*, if the program reads anything stored: out of its range, an input may tell what no result is to tell, such
    as a weight's bits, one by one, by a periodic activation.  *Data sets*, if the program reads a secret of another
    owner as well: they stand where inputs do.  *Not weights*: their owner may choose any function of the inputs that
    it is given; out of range it may have more bits of it in a number of the result than types say, and no more numbers.
    """
    owners = {owner_of(source.slot) for source, _ in sources if isinstance(source, Stored)}
    return [
        bool(owners) and source.ring == FIELD if isinstance(source, Input) else not weight and len(owners) > 1
        for source, weight in sources
    ]


def within(x: Expression, objective: Objective) -> Expression:
    """Beside the openings of the program, three rounds at most, for as few bytes as can be.

    With MACs a client sends the bits of its inputs, which takes one; what is stored is looked up in tables.
    Raises RangeError for a range that is too wide.
    """
    planner, size = Planner(LABEL, objective=objective), x.type.size
    coefficients = Expression(Coefficients(size), (), LABEL)
    if objective.security is Security.MALICIOUS and isinstance(x.operation, Input):
        Ranged.of(x.type)
        return Expression(Recomposed(), (x, coefficients, planner.make(Decomposed(), x)), LABEL)
    variant = _chosen(Ranged.of(x.type).bits + 1, objective.security)
    malicious, count = objective.security is Security.MALICIOUS, len(variant.widths)
    found = planner.masked(planner.make(Ends(variant.widths, FIELD if malicious else BITS), x))
    if not malicious:
        found, count = planner.masked(planner.make(Sign(2 * size, count), found)), 0
    elif variant.groups:
        found, count = planner.masked(planner.make(Join(variant.groups), found)), len(variant.groups)
    return Expression(Within(count), (x, coefficients, found), LABEL)


def _chosen(bits: int, security: Security) -> Variant:
    """The cheapest for both ends.  What is opened counts four times, since it is waited for."""
    malicious = security is Security.MALICIOUS

    def bytes_of(variant: Variant) -> float:
        opened = sum(2 * n - 1 for n in (len(variant.widths), len(variant.groups)) if n)
        return variant.bytes + 2 * 3 * opened * (8 if malicious else 1 / 8)

    return min(lifted(bits, 2) if malicious else (v for v in packed(bits, 2) if v.rounds > 1), key=bytes_of)
