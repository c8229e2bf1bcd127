"""Where runs come in at a server: checked when they are asked for, where they are looked up for, and while they last.

*When a run counts.*  Some rules say how often (`parties.messages.rules`).  Each server counts for itself, durably, when
it looks up what it deals for a run or computes it on: before anything that depends on it has left, and so before the
run is ready.  From then on the run counts, whatever becomes of it: given up, failed, or lost in a crash of anyone.  One
that is refused before counts at none but those where it had come as far.  Counts of servers may differ by such runs,
and the highest decides: one honest server is enough for a limit to hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic

from mpc.errors import ProtocolViolation
from mpc.program import Program
from parties.messages.bindings import BoundProgram
from parties.messages.runs import Prepare
from parties.stored.data_set import described
from parties.stored.policy import Held, LookUp, Permit, check, check_still
from parties.stored.rule_tables import RuleTables


class Gate(Generic[Held]):
    """Of one server, which looks up by ``look_up`` and counts in ``tables``."""

    def __init__(self, look_up: LookUp[Held], tables: RuleTables) -> None:
        self.look_up = look_up
        self._tables = tables

    def admit(self, encoded: memoryview, client: str, message: Prepare) -> BoundProgram:
        """The program of a run that ``client`` asks for.  Blocks.

        Raises as ``check``; ProgramError for what is none, and ProtocolViolation for one that keeps nothing under a
        name, or something under none.
        """
        bound = BoundProgram(Program.decode(encoded), message.bindings, client, message.keep)
        self.check(bound, client)
        if bool(bound.program.kept) != bool(bound.keep):
            raise ProtocolViolation(client, "sent a run that keeps something under no name, or nothing under one")
        if bound.keep:
            described(bound.program)
        return bound.derive()

    def check(self, bound: BoundProgram, client: str) -> Mapping[str, Held]:
        """By slot, what is held here of all that may be used.  Blocks.

        Raises as ``policy.check``, and LimitReached when there is no run left of a rule.
        """
        permit = check(bound, client, self.look_up)
        self._tables.check_left(permit.uses)
        return permit.held

    def enter(self, bound: BoundProgram, client: str) -> Permit[Held]:
        """As ``check``, and from now on the run counts.  Blocks."""
        permit = check(bound, client, self.look_up)
        self._tables.count(permit.uses)
        return permit

    def check_still(self, bound: BoundProgram, client: str) -> None:
        """A run that was let in may go on.  Raises as ``policy.check_still``."""
        check_still(bound, client, self.look_up)
