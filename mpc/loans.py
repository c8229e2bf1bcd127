"""Masks that are made of what would be dealt.

What parties hold of a product z is what each computes of its operands' masks, and a share of c, a function of these
that is dealt (``mpc/correlation.py``).  Where all that is done with z is to open it, by way of sums with others and of
other maps that are one-to-one, c need not be dealt.  The parties take shares of a d in its place, which each expands
from a seed, and open what becomes of z - c + d as it is.  Of z that hides c - d, carried along, which is the mask of
what was opened: the dealer knows it, and makes of it whatever depends on a mask.

Nobody holds a share of that mask.  So this is done where nobody takes one: comparisons, truncations and waves go by
what is opened, and by what is dealt for them (``Operation.takes_share``).  That follows from a program alone.

Security: d is uniform, of its own for each product, and enters one opening: that is uniform whatever z is, and so are
the shares that are sent, for any n - 1 parties, as with a mask that is drawn.  With MACs, shares of that of d are dealt
in place of those of c and of the mask's.
Cost: nothing is dealt for such a product; with MACs one element in place of three.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from mpc.rings import FIELD
from mpc.tensor_type import Form

if TYPE_CHECKING:
    from mpc.program import Program


class Loans(NamedTuple):
    """Of one program."""

    lenders: frozenset[int]
    """Products for which no c is dealt."""
    carried: Mapping[int, int]
    """By node on the way from there to an opening, and by that: the operand that carries c - d."""
    borrowers: frozenset[int]
    """Openings that have no mask drawn."""
    untaken: frozenset[int]
    """Masked nodes of whose mask nobody takes a share."""


def loans(program: Program) -> Loans:
    """Who lends to whom."""
    nodes, untaken = program.nodes, _untaken(program)
    times_taken = Counter(j for node in nodes for j in node.inputs)
    times_taken.update(program.outputs)
    lenders, carried, borrowers = set[int](), dict[int, int](), set[int]()

    def lends(i: int) -> bool:
        return nodes[i].operation.lends and len(program.dealt[i]) == 1

    def carries(i: int) -> int | None:
        """The operand of ``i`` that does, if one does: it serves nothing else."""
        able = (
            j for j in nodes[i].inputs
            if times_taken[j] == 1 and nodes[j].type.form is Form.SHARED and nodes[j].type.ring == FIELD
            and nodes[j].type.size == nodes[i].type.size
            and (lends(j) or j in may_carry)
        )  # fmt: skip
        return next(able, None)

    may_carry: dict[int, int] = {}
    for i, node in enumerate(nodes):
        if not (node.operation.carries or node.operation.borrows):
            continue
        operand = carries(i)
        if operand is None:
            continue
        if node.operation.carries:
            may_carry[i] = operand
        elif i in untaken:
            borrowers.add(i)
            carried[i] = operand
            while operand in may_carry:
                carried[operand] = may_carry[operand]
                operand = carried[operand]
            lenders.add(operand)
    return Loans(frozenset(lenders), carried, frozenset(borrowers), untaken)


def _untaken(program: Program) -> frozenset[int]:
    nodes = program.nodes
    taken = set(program.outputs)
    for i in range(len(nodes) - 1, -1, -1):
        node, operation = nodes[i], nodes[i].operation
        if operation.kept_as:
            taken.add(i)
        # Its mask follows from those of its operands.
        follows = node.type.form is Form.MASKED and not (operation.hides or operation.bare)
        for k, j in enumerate(node.inputs):
            if (i in taken) if follows else operation.takes_share(k):
                taken.add(j)
    masked = (i for i, node in enumerate(nodes) if node.type.form is Form.MASKED)
    return frozenset(i for i in masked if i not in taken)
