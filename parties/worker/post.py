"""Where a worker does its work: whose it is, what it has, and how its head hears of what comes of it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from mpc.errors import TesseraError, TooLarge
from mpc.program import Program
from mpc.rings.devices import memory_errors
from parties.members.cluster import Cluster, Member
from parties.messages.evidence import Evidence
from parties.messages.failures import fault_of, internal_error
from parties.messages.workers import Broken
from parties.servers.governor import Governor
from parties.wire.direct import DirectLink, Doors
from parties.wire.messages import Message, Payload
from protocols.randomness.dealt import TrustedDealer

log = logging.getLogger(__name__)

_PROGRAMS = 64
"""Decoded programs that are kept, those that were used last."""


class Work(Protocol):
    """What the workers of one role do."""

    def hear(self, message: Message, payload: Payload) -> None:
        """What the head says."""

    def close(self) -> None:
        """Nothing of it is wanted any more, or kept."""


class Post:
    """One worker's.

    ``link``: with its head; ``doors``: where others come in.
    """

    def __init__(self, cluster: Cluster, me: Member, link: DirectLink, doors: Doors, source: TrustedDealer) -> None:
        self.cluster, self.me, self.link, self.doors, self.source = cluster, me, link, doors, source
        self.governor = Governor(cluster, me)
        self._programs: OrderedDict[bytes, Program] = OrderedDict()
        self._tasks = set[asyncio.Task[None]]()

    async def program(self, encoded: bytes) -> Program:
        """Decoded, if it is not yet."""
        digest = hashlib.sha256(encoded).digest()
        program = self._programs.get(digest)
        if program is None:
            program = self._programs[digest] = await asyncio.to_thread(Program.decode, encoded)
        self._programs.move_to_end(digest)
        if len(self._programs) > _PROGRAMS:
            self._programs.popitem(last=False)
        return program

    def work(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, None]],
        wanted: Callable[[], bool],
        evidence: Callable[[], Evidence | None] = lambda: None,
    ) -> asyncio.Task[None]:
        """Whatever fails, fails that run alone; the head is told, who ends it."""

        async def guarded() -> None:
            error: TesseraError
            try:
                with memory_errors():
                    await work()
                return
            except TesseraError as found:
                error = found
            except MemoryError:
                error = TooLarge(self.me.name, "has a worker without memory left for this program")
            except Exception:  # a bug of ours must not take the worker down with it
                log.exception("run %s: internal error", name[:8])
                error = internal_error()
            if wanted():
                self.link.send(Broken(run=name, fault=fault_of(error), evidence=evidence()))

        return self.spawn(guarded())

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """It ends with the worker."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """Nothing is done any more."""
        for task in tuple(self._tasks):
            task.cancel()
        self.governor.close()
