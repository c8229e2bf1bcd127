"""What ``tessera cluster`` shows: the file in force, and what is proposed, in words and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parties.members.cluster import Cluster
from parties.members.succession import Step, Succession, check_signatures, is_smooth
from parties.operate.cluster.console import Seen
from parties.operate.cluster.differences import Losses, differences, losses


@dataclass(frozen=True)
class Proposal:
    """A file that is not in force, as it may follow the one that is."""

    former: Cluster
    new: Cluster
    accepted: tuple[str, ...]
    missing: tuple[str, ...]
    means: Losses

    @classmethod
    def of(cls, step: Step, seen: Seen) -> Proposal:
        """Raises ConfigurationError for a file that cannot follow."""
        former, new = seen.cluster, seen.succession.check(step.cluster())
        missing = check_signatures(former, new, step.signatures)
        means = losses(former, new, seen.models, seen.stock, smooth=is_smooth(former, new))
        return cls(former, new, tuple(sorted(step.signatures)), tuple(sorted(missing)), means)

    @property
    def changes(self) -> list[str]:
        """In words."""
        return differences(self.former, self.new) or ["nothing but the number changes"]

    @property
    def consequences(self) -> list[str]:
        """In words."""
        names = {member.name for member in self.new.members}
        return self.means.sentences({member.name for member in self.former.members} - names)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "number": self.new.number,
            "fingerprint": self.new.fingerprint,
            "accepted": list(self.accepted),
            "missing": list(self.missing),
            "changes": self.changes,
            "consequences": self.consequences,
            "loses": self.means.to_dict(),
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"cluster file {self.new.number}, fingerprint {self.new.fingerprint}:"
        yield from (f"  {change}" for change in self.changes)
        yield "  which means:"
        yield from (f"    {consequence}" for consequence in self.consequences)
        yield f"  accepted by {', '.join(self.accepted) or 'nobody'}; missing: {', '.join(self.missing) or 'nobody'}"


def shown(seen: Seen) -> dict[str, Any]:
    """All of it, for JSON."""
    cluster = seen.cluster
    return {
        "cluster": cluster.name,
        "number": cluster.number,
        "fingerprint": cluster.fingerprint,
        "former": cluster.former or None,
        "members": [
            {"name": member.name, "role": str(member.role), "address": member.address, "key": member.key}
            for member in cluster.members
        ],
        "signers": [signer.name for signer in cluster.signers],
        "proposals": [Proposal.of(step, seen).to_dict() for step in seen.proposals],
        "unreached": [error.peer for error in seen.unreached],
    }


def lines(seen: Seen) -> Iterator[str]:
    """All of it, for people."""
    cluster = seen.cluster
    yield f"cluster {cluster.name}, file number {cluster.number}, fingerprint {cluster.fingerprint}"
    for member in cluster.members:
        yield f"  {member.role:7} {member.name:20} {member.address or '-':24} {member.key}"
    yield f"the next file has to be accepted by: {', '.join(signer.name for signer in cluster.signers)}"
    if not seen.proposals:
        yield "nothing is proposed"
    for step in seen.proposals:
        yield f"proposed: {next(lines_of := Proposal.of(step, seen).lines())}"
        yield from lines_of
    for error in seen.unreached:
        yield f"not reached: {error}"


def offline(succession: Succession) -> Seen:
    """What is known without servers."""
    return Seen(succession, (), None, None, ())
