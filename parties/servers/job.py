"""What a server knows of one run, whatever its role."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from parties.members.cluster import Member
from parties.messages.bindings import BoundProgram
from parties.messages.evidence import Evidence
from parties.servers.governor import Charge


class Job:
    """One run in progress; the dealer and the parties add their own part."""

    def __init__(self, run: str, on_behalf: str) -> None:
        self.run = run
        self.client: Member | None = None
        """Whose run it is; None until they have asked for it here."""
        self.training = ""
        """The training job that it is a run of: then its client need not be there."""
        self.asker: Member | None = None
        """Who begins it, and is told of it: its client, or the coordinator in the client's name."""
        self.bound: BoundProgram | None = None
        """What is to be run, as the client has told this server; once that has been checked."""
        self.on_behalf = on_behalf
        """The client's name, by whoever spoke of the run first: it counts as theirs."""
        self.charges: list[Charge] = []
        """Memory that is set aside for it."""
        self.began = time.time()
        self.stop_watching: Callable[[], None] = lambda: None
        self.deadline = 0.0
        """By the event loop's clock, when the run has made no progress in time; so if there is an ``alarm``."""
        self.alarm: asyncio.TimerHandle | None = None
        self.involved: frozenset[str] = frozenset()
        """Members whose loss ends the run."""
        self.working = 0
        """Threads that are at it, or are to be."""
        self.over = False
        self.evidence: Evidence | None = None
        """Of what has made it fail."""
        self.released = False
        """Its client has given it up."""
