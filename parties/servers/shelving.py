"""What a party's head has its workers keep of preprocessing dealt ahead of time (`parties.stock.shelf` says what for).

Of an item the head sees two small messages a piece, its key and its seed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from mpc.errors import PeerLost, ProgramError, TesseraError
from parties.members.cluster import Member
from parties.messages.failures import own_error
from parties.messages.runs import Source
from parties.messages.workers import Broken, Keep, Kept, Look, Sweep, WorkerRun
from parties.servers.crew import Charge, Crew, WorkerHere
from parties.stock.items import ItemId
from parties.stock.ledger import PartyLedger
from parties.stock.material import Material
from parties.stock.shelf import packed, unpacked
from parties.stock.shelved import Shelved
from parties.wire.messages import Payload

log = logging.getLogger(__name__)

LOOKS = 60.0
"""s between two looks at what lies on a shelf."""
GONE = 600.0
"""s without a worker of a shelf, after which what lies there counts as lost."""


class Keeping(Charge):
    """An item that a worker keeps, piece by piece."""

    def __init__(self, worker: WorkerHere[Any], name: str, item: ItemId, program: str, client: str, me: str) -> None:
        super().__init__(name, 0)
        self.worker, self._me = worker, me
        self.item, self._program, self._client = item, program, client
        self.key, self._bytes = secrets.token_bytes(32), 0

    @property
    def where(self) -> Shelved:
        """All that is kept so far."""
        return Shelved(self.worker.shelf, self.run, self._bytes)

    async def keep(self, ledger: PartyLedger, piece: int, source: Source, size: int) -> None:
        """The next piece; it is durable when this returns.  Raises TesseraError."""
        held = await asyncio.to_thread(ledger.shelved.bytes_of, self._client, self.worker.shelf)
        if self.answer.done() and self.answer.exception() is not None:
            # The worker is lost, with what was to collect the rest: from here to the question nothing is waited for.
            await self.answer
        place = ledger.place(self.item, self._program, self.where, self.key)
        self.size, answer = size, self.asked()
        keep = Keep(run=self.run, place=place, piece=piece, source=source, size=size, client=self._client, held=held)
        self.worker.link.send(keep)
        await answer
        self.size, self._bytes = 0, self._bytes + size

    def hear(self, message: WorkerRun, payload: Payload) -> None:
        match message:
            case Kept():
                self.settle()
            case Broken():
                self.fail(own_error(message.fault))
            case _:
                raise ProgramError(f"{self.worker.name} says {type(message).__name__} of what it keeps")

    def lost(self, worker: str, why: str) -> None:
        self.fail(PeerLost(self._me, f"had this stock kept by {worker}, which {why}"))


class Shelves:
    """Those of one party's workers.

    ``spawn`` has something done as long as the server is there.
    """

    def __init__(self, crew: Crew[Any], me: Member, material: Material, spawn: Callable[[Any], object]) -> None:
        self._crew, self._me, self._material, self._spawn = crew, me.name, material, spawn
        self._ledger = material.ledger
        self._kept: dict[str, Keeping] = {}
        """What is being kept, by name."""
        self._given = dict[str, str]()
        """Names of items, by the run that has taken each."""
        self._looking: dict[str, tuple[WorkerHere[Any], set[str]]] = {}
        """By name, workers that were asked what lies on their shelf, and what was in stock there before."""
        self._last: dict[str, float] = {}
        """When a shelf was last seen with a worker."""
        crew.came, crew.lying = self._came, self._lying

    @property
    def here(self) -> set[str]:
        """Shelves of workers that are there."""
        return {worker.shelf for worker in tuple(self._crew.workers.values()) if worker.shelf}

    # -- dealt -----------------------------------------------------------------------------------------------------

    async def begin(self, item: ItemId, program: str, client: str) -> Keeping | None:
        """On the shelf with the fewest items, by the worker with least to do; None if no worker has one."""
        counts = await asyncio.to_thread(self._ledger.shelved.counts)
        workers = [worker for worker in self._crew.workers.values() if worker.shelf]
        if not workers:
            return None
        worker = min(workers, key=lambda w: (counts.get(w.shelf, 0), w.reserved, len(w.charges)))
        keeping = Keeping(worker, secrets.token_hex(16), item, program, client, self._me)
        self._kept[keeping.run] = keeping
        self._crew.put(worker, keeping)
        return keeping

    def end(self, keeping: Keeping) -> None:
        """The ledger has all of it, or it comes to nothing.  Idempotent."""
        self._crew.forget(keeping.run)
        self._kept.pop(keeping.run, None)

    # -- used ------------------------------------------------------------------------------------------------------

    def give(self, where: Shelved, run: str) -> bool:
        """That item is about to be the run's; False if no worker has its shelf.  In any thread."""
        if where.shelf not in self.here:
            return False
        self._given[run] = where.name
        return True

    def forget(self, run: str) -> None:
        """It is over."""
        self._given.pop(run, None)

    # -- what lies there -------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Look at all shelves again and again."""
        while True:
            await asyncio.sleep(LOOKS)
            try:
                by_shelf = {worker.shelf: worker for worker in self._crew.workers.values() if worker.shelf}
                for worker in by_shelf.values():
                    await self._look(worker)
                await self._count_lost()
            except TesseraError as error:
                log.warning("what workers keep cannot be looked at: %s", error)

    async def _count_lost(self) -> None:
        now, here, shelved = time.monotonic(), self.here, self._ledger.shelved
        for shelf in await asyncio.to_thread(shelved.counts):
            if shelf in here:
                self._last[shelf] = now
            elif now - self._last.setdefault(shelf, now) >= GONE:
                await self._lose(await asyncio.to_thread(shelved.fresh_on, shelf), "no worker has come with for long")

    def _came(self, worker: WorkerHere[Any]) -> None:
        if worker.shelf:
            self._spawn(self._look(worker))

    async def _look(self, worker: WorkerHere[Any]) -> None:
        """Once at a time: what is in stock before a worker looks is compared with what that very look has found."""
        asked = self._looking.get(worker.name)
        if asked is not None and asked[0] is worker:
            return
        self._looking[worker.name] = worker, set()
        fresh = await asyncio.to_thread(self._ledger.shelved.fresh_on, worker.shelf)
        self._looking[worker.name] = worker, fresh
        worker.link.send(Look(owner=self._ledger.shelved.owner))

    def _lying(self, worker: WorkerHere[Any], payload: Payload) -> None:
        asked = self._looking.pop(worker.name, None)
        if asked is not None and asked[0] is worker:
            self._spawn(self._compare(worker, set(unpacked(payload)), asked[1]))

    async def _compare(self, worker: WorkerHere[Any], lying: set[str], wanted: set[str]) -> None:
        """Of what lies there with what should."""
        shelved = self._ledger.shelved
        await self._lose(wanted - lying, f"{worker.name} has without them")
        # Before and after: an item goes from being kept to the ledger, and from there to a run.
        going = self._going
        nobodys = lying - await asyncio.to_thread(shelved.wanted_on, worker.shelf) - going - self._going
        if nobodys:
            worker.link.send(Sweep(owner=shelved.owner), [packed(nobodys)])

    @property
    def _going(self) -> set[str]:
        return {*self._kept, *self._given.copy().values()}

    async def _lose(self, names: set[str], why: str) -> None:
        lost = await asyncio.to_thread(self._ledger.shelved.lose, names)
        if lost:
            log.warning("%d items of preprocessing lay on a shelf that %s: they are lost", len(lost), why)
            self._material.lost(lost)
