"""What the coordinator knows of a run of a training job, while it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mpc.errors import RunExpired, TesseraError


class Going:
    """The run of ``job`` to that checkpoint: who is ready for it, and whether what it keeps has been decided."""

    def __init__(self, job: str, number: int) -> None:
        self.job, self.number = job, number
        self.ready: set[str] = set()
        """Parties, by name; and those at which what it has kept is in use."""
        self.in_use: set[str] = set()
        self.noted = False
        """What its client would have been sent is on the disk."""
        self.decided = False
        self.rounds = 1
        """Of its online phase."""
        self._error: TesseraError | None = None
        self._news = asyncio.Event()

    def fail(self, error: TesseraError) -> None:
        """It has come to nothing; the first reason counts."""
        self._error = self._error or error
        self._news.set()

    def look(self) -> None:
        """Something has become of it."""
        self._news.set()

    async def until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Raises why it has come to nothing; RunExpired when it does not hold in time."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    if self._error is not None:
                        raise self._error
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise RunExpired(f"not all servers were {what} within {seconds:g} s") from None
