"""Where a dealer deals: in its process, or on workers (`parties.servers.engine`).

All that a dealing is made of comes from seeds: of what is stored, and one of each party's, drawn for it alone.  The
head draws those, makes the client's part and what it is to remember from them, and has the ledger.  What takes long are
the corrections of the last party: a worker (`parties.worker.dealing`) makes them from the same seeds, one part of the
program after the other.

*Collected.*  What is dealt, for a run or ahead of time, the last party collects from the worker
(`parties.stock.collecting`): through the head it would take its processor longer than dealing does.  The head decides
when which part is made, as if it made it, and tells the party so.

*Never the same twice.*  Seeds are drawn here for one dealing and handed to one worker, once.  If that is lost before
its first part is made, nothing of the dealing has left, and another is made, of fresh seeds.  Afterwards its run ends
with ``PeerLost`` of the dealer.  An item of stock whose party has not had all of it never becomes one, and another is
dealt, under another number (`parties.stock.stocker`).
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mpc.errors import ProgramError
from mpc.rings import Buffer
from mpc.rings.prg import Seed
from mpc.security import Security
from parties.members.cluster import Cluster, Member
from parties.messages.bindings import BoundProgram
from parties.messages.failures import own_error
from parties.messages.runs import Source
from parties.messages.workers import Broken, Deal, Delivered, HoldSeeds, More, PartDealt, WorkerRun
from parties.servers.crew import Charge, Crew, OnCrew, WorkerHere
from parties.servers.engine import Engine
from parties.stock.stocker import TRIES, DealingLost, Made
from parties.wire.messages import Buffer as Bytes
from parties.wire.messages import Message, Payload
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import Dealing, StoredMasks
from protocols.readings.drawing import Order

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class DealingTask:
    """What is to be dealt for.  ``stored``: the masks of what is bound, by slot; ``order``: in which rows are drawn."""

    client: str
    bound: BoundProgram
    stored: Mapping[str, StoredMasks]
    order: Order
    size: int
    """Bytes of memory that it takes."""
    seconds: float
    """That each of its parts takes, about."""
    patient: bool = False
    """It waits for a worker, however long that takes, and then to be collected while others are."""


class LocalDealing(Engine[DealingTask, Made]):
    """Deals in this process."""

    def __init__(self, source: TrustedDealer, parties: int, security: Security) -> None:
        self._source, self._parties, self._security = source, parties, security

    def make(self, task: DealingTask) -> Made:
        dealing = dealing_of(self._source, task, self._parties, self._security)
        return Made(dealing, next(dealing.parts))


def dealing_of(source: TrustedDealer, task: DealingTask, parties: int, security: Security) -> Dealing:
    """Of seeds that are fresh; no part of it is made yet."""
    return source.deal(task.bound.program, parties, task.stored, security, task.order)


class PlacedDealing(Charge):
    """Corrections that a worker makes; ``me``: the dealer's name."""

    def __init__(
        self, worker: WorkerHere[PlacedDealing], task: DealingTask, me: str, over: Callable[[str], object]
    ) -> None:
        # A name of its own: a run may be dealt for again.
        super().__init__(secrets.token_hex(16), task.size)
        self.worker, self._me, self._over = worker, me, over
        self.source = Source(worker.address, secrets.token_bytes(16), secrets.token_bytes(32))

    def hear(self, message: WorkerRun, payload: Payload) -> None:
        match message:
            case PartDealt():
                self.settle()
            case Broken():
                self.fail(own_error(message.fault))
                self._over(self.run)
            case Delivered():
                self._over(self.run)
            case _:
                raise ProgramError(f"{self.worker.name} says {type(message).__name__}, which is not for a dealer")

    def lost(self, worker: str, why: str) -> None:
        self.fail(
            DealingLost(self._me, f"dealt for this run on {worker}, which {why}; nothing was revealed: run it again")
        )

    async def more(self) -> None:
        """Returns once the next part is made."""
        if self.answer.exception() is None:
            self.asked()
            self.worker.link.send(More(run=self.run))
        await self.part()

    async def part(self) -> None:
        """Returns once that is made which the worker was asked for."""
        await self.answer


class DealingElsewhere(OnCrew[DealingTask, Made, PlacedDealing]):
    """The engine of a dealer with a workforce, who make up the ``crew``."""

    def __init__(self, crew: Crew[PlacedDealing], me: Member, source: TrustedDealer, cluster: Cluster) -> None:
        super().__init__(crew)
        self._me, self._source = me.name, source
        self._parties, self._security = len(cluster.parties), cluster.settings.security

    def make(self, task: DealingTask) -> Made:
        tries = 0
        while True:
            dealing = dealing_of(self._source, task, self._parties, self._security)
            try:
                placed: PlacedDealing = self.crew.wait_for(self._place(task, dealing.seeds))
                parts = self._parts(task, placed)
                next(parts)
                return Made(dataclasses.replace(dealing, parts=parts), (), placed.source)
            except DealingLost as error:
                tries += 1
                if tries == TRIES:
                    raise
                log.warning("%s: %s is dealt for anew, of other seeds", error, task.client)
                # Another worker, or that one when it is there again.
                task = dataclasses.replace(task, patient=True)

    def _parts(self, task: DealingTask, placed: PlacedDealing) -> Iterator[tuple[Buffer, ...]]:
        """Nothing of each, once it is made.  Whoever drops this before all are gives the dealing up."""
        made, count = 0, len(task.bound.program.schedule(self._security).parts)
        try:
            while made < count:
                self.crew.wait_for(placed.more() if made else placed.part())
                made += 1
                yield ()
        finally:
            if made < count:
                self.crew.later(self.crew.forget, placed.run)

    async def _place(self, task: DealingTask, seeds: Sequence[Seed]) -> PlacedDealing:
        crew, versions = self.crew, task.bound.by_slot
        wanted = frozenset(task.bound.versions)
        worker = await crew.chosen(task.size, wanted) if task.patient else crew.choose(task.size, wanted)
        placed = PlacedDealing(worker, task, self._me, crew.forget)
        crew.put(worker, placed)
        try:
            for slot, version in versions.items():
                await crew.hold(worker, version, _seeds(version, task.stored[slot]))
            deal = Deal(
                run=placed.run,
                client=task.client,
                versions=versions,
                drawn=dict(task.order.versions),
                part=task.order.part,
                expected=task.seconds,
                patient=task.patient,
                source=placed.source,
            )
            await crew.send(worker, deal, [task.bound.program.encode(), b"".join(map(bytes, seeds))])
        except BaseException:
            crew.forget(placed.run)
            raise
        return placed


def _seeds(version: str, masks: StoredMasks) -> Iterator[tuple[Message, Sequence[Bytes]]]:
    yield HoldSeeds(version=version, shapes=dict(masks.shapes)), [b"".join(map(bytes, masks.seeds))]
