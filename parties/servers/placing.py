"""A party's runs on workers: the head's side.

The head takes every decision, as always: who may run what, how often, on which versions, with which preprocessing, in
whose turn, within how much memory.  What is prepared and computed is a worker's (`parties.worker`), and what a run
opens goes from worker to worker (`parties.wire.direct`): of a run the head sees a dozen small messages, its inputs and
its outputs.  `parties.servers.crew` says which worker it is, and what becomes of those.

Runs of a worker that is lost end with ``PeerLost`` of this party.  Nothing of them is ever tried again: what was dealt
for them was marked used before the worker had it, and whoever asks again is dealt anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from mpc.errors import PeerLost, ProgramError, TesseraError
from mpc.operation import Value
from mpc.program import Program
from mpc.rings import FIELD, Array, Rings
from mpc.rings.prg import Seed
from mpc.security import Security
from parties.members.cluster import Cluster, Member
from parties.messages.evidence import AnySaid, Evidence, RunSubject, Said, SeenSaid, SigmaSaid
from parties.messages.failures import own_error
from parties.messages.runs import Placed
from parties.messages.workers import (
    Advanced,
    Broken,
    Finished,
    Hold,
    Meet,
    Meeting,
    Met,
    More,
    Signed,
    Start,
    Take,
    Taken,
    Tensor,
    ToSign,
    WorkerRun,
)
from parties.messages.workers import (
    Made as PartMade,
)
from parties.servers.crew import Charge, Crew, OnCrew, WorkerHere, Workforce
from parties.servers.engine import Made, Task
from parties.servers.pace import nobody_waits
from parties.servers.shelving import Shelves
from parties.stock.material import Material
from parties.wire.messages import Buffer, Message, Payload


class Watching(Protocol):
    """What a party makes of what its workers say of a run."""

    def met(self, run: str) -> None:
        """The worker's links to all others stand."""

    def advanced(self, run: str) -> None:
        """It has evaluated more."""

    def finished(self, run: str, message: Finished, payload: Payload) -> None:
        """It has computed the outputs."""

    def broken(self, run: str, error: TesseraError, evidence: Evidence | None) -> None:
        """It has failed."""


class PlacedRun(Charge):
    """A run on a worker, as far as its head knows it; a `PreparedRun`."""

    def __init__(self, engine: Placing, worker: WorkerHere[PlacedRun], task: Task, security: Security) -> None:
        super().__init__(task.of.run, task.size)
        self._engine, self.worker, self.of = engine, worker, task.of
        self.program: Program = task.bound.program
        self.schedule = self.program.schedule(security)
        self.prepared = self.evaluated = 0
        self.seconds: Mapping[str, float] = {}
        self.left: tuple[Seed, dict[str, Array]] | None = None
        self.taken: Taken | None = None
        self.started = False
        """The inputs have been handed over."""

    @property
    def provided(self) -> bool:
        """Whether all is prepared that its next step takes."""
        return self.prepared >= self.schedule.due(self.evaluated)

    @property
    def kept(self) -> tuple[Seed, dict[str, Array]]:
        """What it has left, once it is finished (`PartyRun.kept`)."""
        if self.left is None:
            raise ProgramError("the run has left nothing")
        return self.left

    def prepare(self, payload: Sequence[Buffer]) -> None:
        """The next part, at the worker.  Blocks: in a thread."""
        self._engine.crew.wait_for(self._prepare(payload))
        self.prepared += 1

    async def _prepare(self, payload: Sequence[Buffer]) -> None:
        answer = self.asked()
        self.worker.link.send(More(run=self.run), payload)
        await answer

    def where(self, program: str, peer: int) -> Placed:
        """What the party of that index is told."""
        if self.taken is None:
            raise ProgramError("the run is on no worker yet")
        return Placed(
            run=self.run,
            program=program,
            key=self.taken.key,
            address=self.worker.address,
            door=self.taken.doors.get(peer, b""),
        )

    def meet(self, others: Mapping[int, Placed]) -> None:
        """The other parties' workers are these, by index."""
        meetings = tuple(Meeting(i, o.key, o.address, o.door) for i, o in sorted(others.items()))
        self.worker.link.send(Meet(run=self.run, others=meetings))

    def start(self, signature: bytes, payload: Payload) -> None:
        """The inputs are there."""
        self.started = True
        self.worker.link.send(Start(run=self.run, signature=signature), payload)

    # -- what the worker says --------------------------------------------------------------------------------------

    def hear(self, message: WorkerRun, payload: Payload) -> None:
        engine = self._engine
        match message:
            case Taken():
                self.taken, self.prepared = message, 1
                self.settle()
            case PartMade():
                self.settle()
            case Met():
                engine.watching.met(self.run)
            case Advanced():
                self.evaluated = message.depths
                engine.watching.advanced(self.run)
            case ToSign():
                self.worker.link.send(Signed(run=self.run, signature=engine.sign(self.of, message.said)))
            case Finished():
                self._finished(message, payload)
            case Broken():
                self.broken(own_error(message.fault), message.evidence)
            case _:
                raise ProgramError(f"{self.worker.name} says {type(message).__name__}, which is not for a party")

    def _finished(self, message: Finished, payload: Payload) -> None:
        self.seconds = message.seconds
        if message.kept:
            seed, *arrays = payload[message.outputs :]
            kept = zip(message.kept.items(), arrays, strict=True)
            ring = self._engine.ring
            self.left = Seed(bytes(seed)), {name: ring.read(buffer, shape) for (name, shape), buffer in kept}
        self._engine.watching.finished(self.run, message, payload[: message.outputs])

    def broken(self, error: TesseraError, evidence: Evidence | None = None) -> None:
        """It has come to nothing."""
        heard = self.settle(error=error)
        self._engine.crew.forget(self.run)
        if not heard:
            self._engine.watching.broken(self.run, error, evidence)

    def lost(self, worker: str, why: str) -> None:
        self.broken(self._engine.lost(worker, why))


class Placing(OnCrew[Task, Made, PlacedRun]):
    """The engine of a party with a workforce."""

    watching: Watching
    """To be set before it is opened."""

    def __init__(
        self,
        cluster: Cluster,
        me: Member,
        workforce: Workforce,
        rings: Rings,
        sign: Callable[[Said], bytes],
        in_use: Callable[[str], bool],
        memory: int,
        material: Material,
        spawn: Callable[[Any], object],
    ) -> None:
        """``in_use``: whether a version is; ``memory``: bytes that the runs of one worker may take; ``material``:
        what has been dealt ahead of time; ``spawn``: has something done as long as the server is there.
        """
        super().__init__(Crew(cluster, me, workforce, in_use, memory))
        self.shelves = Shelves(self.crew, me, material, spawn)
        self._spawn = spawn
        self._security, self._me, self._sign = cluster.settings.security, me, sign
        self.ring = rings[FIELD]

    def sign(self, of: RunSubject, said: AnySaid) -> bytes:
        """In this party's name, of the MAC check of that very run, and nothing else.  Raises ProgramError."""
        if not isinstance(said, SeenSaid | SigmaSaid) or said.of != of:
            raise ProgramError("a worker asks for a signature of something else than its run's MAC check")
        return self._sign(said)

    async def open(self) -> None:
        await super().open()
        self._spawn(self.shelves.work())

    def lost(self, worker: str, why: str) -> PeerLost:
        """What is said of a run on that worker."""
        return PeerLost(
            self._me.name, f"computed this run on {worker}, which {why}; nothing was revealed: run it again"
        )

    def make(self, task: Task) -> Made:
        return Made(self.crew.wait_for(self._place(task)))

    def forget(self, run: str) -> None:
        self.shelves.forget(run)
        charge = self.crew.forget(run)
        if charge is not None:
            charge.settle(error=nobody_waits())

    async def _place(self, task: Task) -> PlacedRun:
        shelf = "" if task.place is None else task.place.shelf
        worker = self.crew.choose(task.size, frozenset(task.bound.versions), shelf)
        run = PlacedRun(self, worker, task, self._security)
        answer = run.answer
        self.crew.put(worker, run)
        try:
            tensors: dict[str, dict[str, Value]] = {}
            for (slot, name), value in task.read.tensors.items():
                tensors.setdefault(slot, {})[name] = value
            versions = task.bound.by_slot
            for slot, version in versions.items():
                await self.crew.hold(worker, version, self._shares(version, tensors.get(slot, {})))
            order = task.read.order
            take = Take(
                run=run.run,
                client=task.client,
                inputs=task.author is not None,
                of=task.of,
                versions=versions,
                drawn=dict(order.versions),
                part=order.part,
                parts=task.read.parts,
                expected=task.seconds,
                source=task.source,
                place=task.place,
            )
            await self.crew.send(worker, take, [run.program.encode(), *task.dealt])
            await answer
        except BaseException:
            self.forget(run.run)
            raise
        return run

    def _shares(self, version: str, tensors: Mapping[str, Value]) -> Iterator[tuple[Message, Sequence[Buffer]]]:
        for name, value in tensors.items():
            present = [array for array in (value.public, value.share) if array is not None]
            shape = present[0].shape if present else ()
            tensor = Tensor(name, shape, value.public is not None, value.share is not None)
            yield Hold(version=version, tensors=(tensor,)), [self.ring.buffer(array) for array in present]
