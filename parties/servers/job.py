"""What a server knows of one run, whatever its role."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from parties.cluster import Member


class Job:
    """One run in progress; the dealer and the parties add their own part."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.client: Member | None = None
        """Whose run it is; None until they have asked for it here."""
        self.on_behalf = ""
        """The client's name, as soon as anybody has said it; it counts as theirs from then on."""
        self.reserved = 0
        """Bytes of memory set aside for it."""
        self.stop_watching: Callable[[], None] = lambda: None
        self.deadline: asyncio.TimerHandle | None = None
        self.involved: frozenset[str] = frozenset()
        """Members whose loss ends the run."""
        self.released = False
        """Its client has given it up."""
