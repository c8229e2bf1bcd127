"""What happened in a soak, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.soak import verdict
from benchmarks.soak.attempts import Attempt, Outage
from benchmarks.soak.watching import Footprint, Sample
from parties.members.cluster_file import Settings

SETTINGS = Settings(threads=1, peer_timeout=2.0, round_timeout=20.0)
"""Shorter than the defaults, so that more faults go into an hour."""

CONNECT_TIMEOUT = 10.0
"""s: what a client that nobody tells otherwise gives its first connections."""

MARGIN = 5.0
"""s, for a machine on which everything runs at once."""

DEADLINE = CONNECT_TIMEOUT + SETTINGS.round_timeout + SETTINGS.peer_timeout + MARGIN
"""s within which whatever a client asks must succeed or fail."""

STEADY, AFTERWARDS = "steady", "afterwards"


@dataclass
class Course:
    """What happened."""

    attempts: Sequence[Attempt] = ()
    outages: Sequence[Outage] = ()
    samples: Sequence[Sample] = ()
    servers: Sequence[str] = ()
    footprints: list[Footprint] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def verdict(self) -> list[str]:
        """What is wrong, as sentences."""
        return [
            *verdict.wrong_answers(self.attempts),
            *verdict.untyped(self.attempts),
            *verdict.overdue(self.attempts, DEADLINE),
            *verdict.needless(self.attempts, (STEADY, AFTERWARDS)),
            *verdict.leaks(self.samples),
            *verdict.heavy(self.footprints),
            *self.stuck,
            *self.problems,
        ]
