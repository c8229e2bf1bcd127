"""What the dealer knows of one run."""

from __future__ import annotations

from collections.abc import Sequence

from parties.messages.runs import ClientMasks, Dealt
from parties.servers.job import Job
from parties.stock.chain import Link
from parties.wire.messages import Buffer
from protocols.readings.dealer import Dealing


class DealerJob(Job):
    """One run at the dealer."""

    def __init__(self, run: str, on_behalf: str) -> None:
        super().__init__(run, on_behalf)
        self.client_part: tuple[ClientMasks, Sequence[Buffer]] | None = None
        """Held back until every party has said that the item of the stock is fresh."""
        self.item: Dealt | None = None
        self.agreed: set[str] = set()
        """Parties that have, by name."""
        self.dealing: Dealing | None = None
        """Of which there may be more to come."""
        self.collected = False
        """By the last party, from the worker that deals."""
        self.parts = 0
        """That have been dealt."""
        self.evaluated = 0
        """Depths, as the last party says."""
        self.following: Link | None = None
        """Of a training's: what the next run is to be dealt for."""
        self.at_it = False
        """A thread deals the next part."""
