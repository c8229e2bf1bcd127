"""What the parties have prepared of one version, compared before it is decided: the parts that its owner sent each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mpc.errors import InconsistentInputs, ProgramError, ProtocolViolation, TesseraError
from parties.members.cluster import Member
from parties.messages.evidence import Contradiction, Evidence, PartsSaid, Statement, Vouched


class Difference(NamedTuple):
    """Parties have not prepared the same."""

    error: TesseraError
    evidence: Evidence | None = None


def difference(owner: Member, circle: str, version: str, prepared: Mapping[str, Vouched]) -> Difference | None:
    """None if all parties, by name, have prepared the same; else whose fault that is, proven if it is the owner's."""
    if len({vouched.digest for vouched in prepared.values()}) == 1:
        return None
    if not any(vouched.signature for vouched in prepared.values()):
        # With MACs, the check of the run that has left it compares this.
        return Difference(ProgramError("the parties have different parts of what the run has left: make it again"))
    said = {
        party: Statement(owner.name, PartsSaid(circle, version, vouched.digest), vouched.signature)
        for party, vouched in prepared.items()
    }
    for party, statement in said.items():
        if not statement.signed_by(owner):
            return Difference(ProtocolViolation(party, f"has prepared an upload that {owner.name} has not signed"))
    first, *others = said.values()
    second = next(other for other in others if other.said != first.said)
    error = InconsistentInputs(owner.name, "sent different parts of an upload to different parties")
    return Difference(error, Contradiction(first, second))
