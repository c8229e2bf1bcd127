"""What a server counts: nothing, unless it was asked to (``tessera party --metrics HOST:PORT``).

Whatever happens is told to a `Metrics`, here one that does nothing; `parties.operate.metrics.serving` puts the one in
its place that counts.
"""

from __future__ import annotations

import enum

OK = "ok"
RELEASED = "released"
"""Outcome of a run whose client gave it up: nothing went wrong."""


class Phase(enum.StrEnum):
    """What takes the time of a run; seconds of each are counted."""

    DEALING = "dealing"
    """At the dealer: from the program until the randomness is made, or taken from stock."""
    PREPARING = "preparing"
    """At a party, offline: seeds are expanded."""
    ONLINE = "online"
    """At a party: from the inputs until the outputs leave; waiting is part of it."""
    WAITING = "waiting"
    """At a party, online: for the other parties' openings."""


class Metrics:
    """Counts nothing."""

    def run_ended(self, outcome: str) -> None:
        """`OK`, `RELEASED`, or the class of the error that it failed with."""

    def upload_ended(self, outcome: str) -> None:
        """Likewise."""

    def spent(self, phase: Phase, seconds: float) -> None:
        """A run took so long in that phase."""

    def rounds(self, count: int) -> None:
        """So many rounds of a run are over."""
