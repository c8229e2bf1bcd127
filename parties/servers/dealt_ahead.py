"""What the dealer deals for a training's next run while the one before is online: one run ahead, in memory.

It is dealt of fresh seeds for the masks that the run before will have kept (`parties.stock.chain` says why that can be,
and why it is safe), and nothing of it leaves before the next run has begun, and goes on from the state with these very
masks; else it is dropped, and the run is dealt for as if there had been nothing.  Of a large program it is the first
part: the others follow beside the rounds, as ever.  It takes as much of its client's memory as a run, and is not dealt
where not as much again is free.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from mpc.errors import TesseraError
from parties.servers.governor import Charge
from parties.servers.server import Server
from parties.stock.chain import Link
from parties.stock.stocker import Made

log = logging.getLogger(__name__)


@dataclass(repr=False)
class Next:
    """A dealing that is being made, for what is linked; ``charge``: its memory."""

    link: Link
    charge: Charge
    made: Future[Made] = field(default_factory=Future)

    def take(self, link: Link) -> Made | None:
        """What has been made, if it is for that; waits for one that a thread is at.  Blocks."""
        if self.made.cancel() or self.made.cancelled():
            return None
        try:
            made = self.made.result()
        except (TesseraError, MemoryError):
            # Whatever it was, it comes again if it is the program's.
            return None
        return made if self.link.fits(link) else None


class DealtAhead:
    """Of one dealer's training jobs.  ``deal`` deals for what is linked, in a client's name, and blocks."""

    def __init__(self, server: Server[Any], deal: Callable[[str, Link], Made]) -> None:
        self._server, self._deal = server, deal
        self._next: dict[str, Next] = {}
        """By training job."""

    def begin(self, training: str, client: str, link: Link) -> None:
        """Deals for the run after that which has just been dealt for, if there is room."""
        self.drop(training)
        governor, program = self._server.governor, link.bound.program
        size = governor.admission.size_of(program)
        try:
            charge = governor.charge(client, size, "a run that is dealt for ahead")
            try:
                governor.charge(client, size, "a run beside one that is dealt for ahead").release()
            except TesseraError:
                charge.release()
                raise
        except TesseraError as error:
            log.debug("job %s: nothing is dealt ahead: %s", training[:8], error)
            return
        following = self._next[training] = Next(link, charge)

        def work() -> None:
            if following.made.set_running_or_notify_cancel():
                try:
                    following.made.set_result(self._deal(client, link))
                except BaseException as error:
                    following.made.set_exception(error)
                    raise

        async def run() -> None:
            try:
                seconds = governor.part_seconds(program)
                await governor.offline.run(client, work, seconds=seconds, unwanted=following.made.cancelled)
            except (TesseraError, MemoryError) as error:
                log.info("job %s: nothing is dealt ahead: %s", training[:8], error)
                following.made.cancel()

        self._server.spawn(run())

    def pop(self, training: str) -> Next | None:
        """For a run that has begun, whose memory it is charged with now."""
        found = self._next.pop(training, None)
        if found is not None:
            found.charge.release()
        return found

    def drop(self, training: str) -> None:
        """Nobody will ask for it."""
        found = self.pop(training)
        if found is not None:
            found.made.cancel()
