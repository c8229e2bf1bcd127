"""Cluster files that are not signed by all yet, as a server has them."""

from __future__ import annotations

from collections.abc import Iterable

from mpc.errors import ConfigurationError
from parties.members.succession import Step, Succession, check_signatures
from parties.messages.cluster import MAX_PROPOSALS

MAX_ALONE = 8


class Proposals:
    """By fingerprint.  Each has a signature of somebody who has to sign; of those that one member alone has signed the
    latest `MAX_ALONE` are kept."""

    def __init__(self, succession: Succession, steps: Iterable[Step] = ()) -> None:
        self._succession = succession
        self._steps: dict[str, Step] = {}
        for step in steps:
            self.take(step)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them."""
        return tuple(self._steps.values())

    def take(self, step: Step) -> bool:
        """Notes a proposal, or more signatures of one; whether there was anything new.

        Raises ConfigurationError for a file that cannot follow, a wrong signature, and when there are too many.
        """
        current, new = self._succession.cluster, self._succession.check(step.cluster())
        check_signatures(current, new, step.signatures)
        if not step.signatures:
            raise ConfigurationError("a proposed cluster file is signed by whoever proposes it")
        known = self._steps.get(new.fingerprint)
        if known is not None:
            merged = Step(known.text, {**step.signatures, **known.signatures})
            self._steps[new.fingerprint] = merged
            return merged != known
        alone = [
            f
            for f, s in self._steps.items()
            if len(s.signatures) == 1 and s.signatures.keys() == step.signatures.keys()
        ]
        for fingerprint in alone[: max(0, len(alone) + 1 - MAX_ALONE)]:
            del self._steps[fingerprint]
        if len(self._steps) >= MAX_PROPOSALS:
            raise ConfigurationError(f"{MAX_PROPOSALS} cluster files are proposed already, and no more are kept")
        self._steps[new.fingerprint] = step
        return True

    def missing(self, step: Step) -> frozenset[str]:
        """Who has yet to sign that file, one of these."""
        new = step.cluster()
        return check_signatures(self._succession.cluster, new, self._steps[new.fingerprint].signatures)

    def complete(self) -> Step | None:
        """One that all have signed."""
        return next((step for step in self._steps.values() if not self.missing(step)), None)
