"""When a run needs its randomness, and in which parts it is dealt and prepared.

A node's *turn* is the number of openings after which it is first needed: of what depends on inputs its depth, and of
all else (stored tensors, what follows from them) the turn of whatever takes it first.  Nodes in the order of their
turns are cut into *parts* of about `PART` bytes, so that nobody has to hold what a deep network needs in all: the
source deals, and each party prepares, one part after the other, no further ahead of the online phase than `AHEAD`, and
nothing is left of a part whose turns are over.  A small program is one part.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

from mpc.correlation import Part
from mpc.operation import Stored
from mpc.pace import paced
from mpc.security import Security
from mpc.tensor_type import Form, TensorType

if TYPE_CHECKING:
    from mpc.program import Program
    from mpc.program_format import Node

PART = 1 << 26
"""Bytes, at a party, of a part: no more, but where one node has more."""
AHEAD = 8 * PART
"""Bytes of parts that may be there and not used up; more where a single step needs more."""


def words(of: TensorType | Part) -> int:
    """Of 8 bytes, that it takes."""
    return -(-of.bytes // 8)


class Schedule:
    """Of one program in one security; see the module.

    ``evaluated`` is how far a run has got: the number of depths whose nodes all have their values.
    """

    parts: tuple[tuple[int, ...], ...]
    """Nodes, in the program's order within a part; at least one part."""

    def __init__(self, program: Program, security: Security) -> None:
        pending = _pending(program)
        turns = _turns(program, pending)
        self.pending = tuple(pending)
        """Per node: whether its value depends on what comes online."""
        self.turns = tuple(turns)
        sizes, corrected = [], program.corrected(security)
        for i, (node, waits) in enumerate(zip(paced(program.nodes), pending, strict=True)):
            # What it lends is not dealt, and there all the same.
            parts = (*corrected[i], *(program.dealt[i] if i in program.loans.lenders else ()))
            sizes.append(sum(part.bytes for part in parts) + (8 * words(node.type) if _has_mask(node, waits) else 0))
        cut: list[list[int]] = [[]]
        size = 0
        for i in sorted(range(len(turns)), key=turns.__getitem__):
            if cut[-1] and size + sizes[i] > PART:
                cut.append([])
                size = 0
            cut[-1].append(i)
            size += sizes[i]
        self.parts = tuple(tuple(sorted(part)) for part in cut)
        self.dealt = tuple(sum(sum(p.bytes for p in corrected[i]) for i in part) for part in cut)
        """Bytes that the last party is sent for each part."""
        self._first = [turns[part[0]] for part in cut]
        self._last = [turns[part[-1]] for part in cut]
        self._ends = list(accumulate(sum(sizes[i] for i in part) for part in cut))
        self._rounds = program.rounds

    def due(self, evaluated: int) -> int:
        """Parts that have to be there for the next step: to evaluate one depth more, and open what is at the next."""
        return bisect_right(self._first, evaluated + 1)

    def used(self, evaluated: int) -> int:
        """Parts of which nothing is left."""
        return bisect_left(self._last, evaluated)

    def allowed(self, evaluated: int) -> int:
        """Parts that may have been there by now."""
        used = self.used(evaluated)
        return max(self.due(evaluated), bisect_right(self._ends, self._before(used) + AHEAD))

    @property
    def most(self) -> int:
        """Bytes of parts that are there at a time, at most."""
        return max(
            self._before(self.allowed(evaluated)) - self._before(self.used(evaluated))
            for evaluated in range(self._rounds + 1)
        )

    def _before(self, part: int) -> int:
        return self._ends[part - 1] if part else 0


def _pending(program: Program) -> list[bool]:
    pending: list[bool] = []
    for node in program.nodes:
        operation = node.operation
        opened = operation.bare or (operation.hides and (operation.opens or operation.supplied))
        pending.append(opened or (not operation.hides and any(pending[j] for j in node.inputs)))
    return pending


def _has_mask(node: Node, waits: bool) -> bool:
    """Whether a share of a mask is made of it for the run: of its own, or from those of its operands."""
    if isinstance(node.operation, Stored):
        return False
    return node.operation.hides or (waits and node.type.form is Form.MASKED)


def _turns(program: Program, pending: list[bool]) -> list[int]:
    turns = list(program.depths)
    for i, waits in enumerate(pending):
        if not waits:
            turns[i] = program.rounds
    for i in reversed(range(len(turns))):
        for j in program.nodes[i].inputs:
            if not pending[j]:
                turns[j] = min(turns[j], turns[i])
    return turns


def held(program: Program) -> int:
    """Words that a run holds at its height, in semi-honest security: what is stored or public, parts that are there,
    and the shares and public parts of one step, as values are forgotten once nothing takes them."""
    schedule = program.schedule(Security.SEMI_HONEST)
    pending, total = schedule.pending, schedule.most // 8
    until = list(program.depths)
    for node, depth in zip(paced(program.nodes), program.depths, strict=True):
        for i in node.inputs:
            until[i] = max(until[i], depth)
    change = Counter[int]()
    for node, waits, first, last in zip(paced(program.nodes), pending, program.depths, until, strict=True):
        if node.type.form is not Form.SHARED and not waits and not _has_mask(node, waits):
            total += words(node.type)
        change[first] += words(node.type)
        change[last + 1] -= words(node.type)
    return total + max(accumulate(change[depth] for depth in range(program.rounds + 1)))
