"""A party's runs on workers: the head's side.

The head takes every decision, as always: who may run what, how often, on which versions, with which preprocessing, in
whose turn, within how much memory.  What is prepared and computed is a worker's (`parties.worker`), and what a run
opens goes from worker to worker (`parties.wire.direct`): of a run the head sees a dozen small messages, its inputs and
its outputs.

*Which worker.*  The one that has most memory free; among equals, one that holds the versions that the run reads.  A run
that fits nowhere is refused as busy.

*Weights* go to a worker with the first run there that reads them, once, and stay until their version is not in use any
more: then they are overwritten.

*A worker that is lost* (it ends, its machine does, or it says nothing for ``peer_timeout``) takes its runs with it:
they end with ``PeerLost`` of this party.  Nothing of them is ever tried again: what was dealt for them was marked used
before the worker had it, and whoever asks again is dealt anew.  Another worker is started in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from mpc.errors import ConfigurationError, PeerError, PeerLost, ProgramError, ServerBusy, TesseraError
from mpc.operation import Value
from mpc.program import Program
from mpc.rings import FIELD, Array, Rings
from mpc.rings.prg import Seed
from mpc.security import Security
from parties.members.cluster import Cluster, Member
from parties.messages.evidence import Evidence, Said, SeenSaid, SigmaSaid
from parties.messages.failures import own_error
from parties.messages.runs import Placed
from parties.messages.status import WorkersSeen
from parties.messages.workers import (
    ABOUT,
    Advanced,
    Beat,
    Broken,
    Drop,
    Finished,
    Hold,
    Meet,
    Meeting,
    Met,
    More,
    Over,
    Settle,
    Settled,
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
from parties.servers.engine import Engine, Made, Task
from parties.stored.policy import not_in_use
from parties.wire.direct import NO_LIMIT, DirectLink, Doors, LinkKey
from parties.wire.messages import Buffer, Message, Payload

log = logging.getLogger(__name__)

_RETRY, _RETRY_MOST = 0.2, 30.0
_CONNECT = 30.0


class Workforce(Protocol):
    """Who starts the workers' processes."""

    @property
    def wanted(self) -> int:
        """How many there are to be."""

    @property
    def host(self) -> str:
        """Where they reach their head."""

    async def start(self, number: int, address: str, head: bytes, door: bytes) -> bytes:
        """Starts a worker that comes to ``address`` by that door; its public key.

        Returns once there is a machine for it, however long that takes.  Raises PeerError.
        """

    async def end(self, number: int) -> None:
        """That worker is not wanted any more, or has gone.  Idempotent."""

    def close(self) -> None:
        """Ends whatever there is of it."""


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


class PlacedRun:
    """A run on a worker, as far as its head knows it; a `PreparedRun`."""

    def __init__(self, engine: Placing, worker: WorkerHere, task: Task, security: Security) -> None:
        self._engine, self.worker, self.of, self.size = engine, worker, task.of, task.size
        self.run = task.of.run
        self.program: Program = task.bound.program
        self.schedule = self.program.schedule(security)
        self.prepared = self.evaluated = 0
        self.seconds: Mapping[str, float] = {}
        self.left: tuple[Seed, dict[str, Array]] | None = None
        self.taken: Taken | None = None
        self.started = False
        """The inputs have been handed over."""
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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
        self._engine.wait_for(self._prepare(payload))
        self.prepared += 1

    async def _prepare(self, payload: Sequence[Buffer]) -> None:
        self.answer = asyncio.get_running_loop().create_future()
        self.worker.link.send(More(run=self.run), payload)
        await self.answer

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

    def settle(self, error: BaseException | None = None) -> bool:
        """Whoever waits for an answer has it; whether anybody did."""
        if self.answer.done():
            return False
        if error is None:
            self.answer.set_result(None)
        else:
            self.answer.set_exception(error)
            # Whether or not anybody waits for it.
            self.answer.exception()
        return True


class WorkerHere:
    """One worker, as long as its link stands."""

    def __init__(self, name: str, link: DirectLink) -> None:
        self.name, self.link = name, link
        self.address, self.process = "", 0
        self.runs: dict[str, PlacedRun] = {}
        self.held = set[str]()
        """Versions whose shares it has."""
        self.holding = asyncio.Lock()

    @property
    def reserved(self) -> int:
        """Bytes of memory that its runs take."""
        return sum(run.size for run in self.runs.values())


class Placing(Engine):
    """The engine of a party with a workforce."""

    def __init__(
        self,
        cluster: Cluster,
        me: Member,
        workforce: Workforce,
        rings: Rings,
        sign: Callable[[Said], bytes],
        in_use: Callable[[str], bool],
    ) -> None:
        """``in_use``: whether a version is.  Raises ConfigurationError as ``check`` does."""
        self.check(cluster)
        self._cluster, self._me, self._workforce, self._rings = cluster, me, workforce, rings
        self._sign, self._in_use = sign, in_use
        self.places = max(1, workforce.wanted)
        self.memory = 0
        """Bytes that the runs of one worker may take."""
        self.watching: Watching | None = None
        self._doors = Doors(me.name, workforce.host)
        self._workers: dict[str, WorkerHere] = {}
        self._placed: dict[str, PlacedRun] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    @staticmethod
    def check(cluster: Cluster) -> None:
        """Raises ConfigurationError for a cluster that does not compute on workers."""
        if cluster.settings.security is Security.MALICIOUS and len(cluster.parties) > 2:
            # Who has told two of them different things is found by heads that have heard what was said.
            raise ConfigurationError("with MACs, three parties or more do not compute on workers: use --engine local")

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._doors.open()
        self._tasks = [self._loop.create_task(self._tend(number)) for number in range(self._workforce.wanted)]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for worker in tuple(self._workers.values()):
            self._lose(worker, "was stopped with this party")
        self._doors.close()

    def seen(self) -> WorkersSeen:
        runs = {worker.name: len(worker.runs) for worker in self._workers.values()}
        return WorkersSeen(self._workforce.wanted, runs)

    def follow(self, cluster: Cluster) -> None:
        """The members are these now."""
        self._cluster = cluster
        for worker in self._workers.values():
            worker.link.send(Settle(party=self._me.name), [cluster.dumps().encode()])

    def sweep(self) -> None:
        """What is not in use any more is nowhere any more."""
        for worker in self._workers.values():
            for version in [version for version in worker.held if not self._in_use(version)]:
                worker.held.discard(version)
                worker.link.send(Drop(version=version))

    # -- workers that come and go ----------------------------------------------------------------------------------

    async def _tend(self, number: int) -> None:
        """Has that worker be there, again and again."""
        delay, name = _RETRY, f"worker {number}"
        while True:
            door = self._doors.reserve(name, NO_LIMIT)
            key = LinkKey()
            try:
                public = await self._workforce.start(number, self._doors.address, key.public, door)
                async with asyncio.timeout(_CONNECT):
                    link = await self._doors.come_in(door, key.agreed(public, ABOUT, we_dial=False))
                worker = WorkerHere(name, link)
                try:
                    await self._serve(worker)
                    delay = _RETRY
                finally:
                    self._lose(worker, "was lost")
            except (TesseraError, TimeoutError) as error:
                log.warning("%s: %s; another one is started", name, error or "did not come")
            except Exception:
                log.exception("%s: internal error", name)
            finally:
                self._doors.forget(door)
                await self._workforce.end(number)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _RETRY_MOST)

    async def _serve(self, worker: WorkerHere) -> None:
        """Until it is lost.  Raises PeerError."""
        worker.link.send(Settle(party=self._me.name), [self._cluster.dumps().encode()])
        while True:
            try:
                async with asyncio.timeout(self._cluster.settings.peer_timeout):
                    message, payload = await worker.link.receive()
            except TimeoutError:
                raise PeerLost(worker.name, "has given no sign of life within peer_timeout") from None
            if isinstance(message, Settled):
                worker.address, worker.process = message.address, message.process
                self._workers[worker.name] = worker
                where = message.host, message.process, message.address
                log.info("%s is there, on %s (process %d), and meets others at %s", worker.name, *where)
            elif not isinstance(message, Beat):
                self._hear(worker, message, payload)

    def _lose(self, worker: WorkerHere, why: str) -> None:
        worker.link.abort()
        if self._workers.get(worker.name) is worker:
            del self._workers[worker.name]
        for run in tuple(worker.runs.values()):
            self._broken(run, PeerLost(
                self._me.name, f"computed this run on {worker.name}, which {why}; nothing was revealed: run it again"
            ))  # fmt: skip

    def _hear(self, worker: WorkerHere, message: Message, payload: Payload) -> None:
        run = worker.runs.get(message.run) if isinstance(message, WorkerRun) else None
        if run is None or self.watching is None:
            # It is over here, and the worker has not heard of that.
            return
        match message:
            case Taken():
                run.taken, run.prepared = message, 1
                run.settle()
            case PartMade():
                run.settle()
            case Met():
                self.watching.met(run.run)
            case Advanced():
                run.evaluated = message.depths
                self.watching.advanced(run.run)
            case ToSign():
                self._sign_for(run, message)
            case Finished():
                self._finished(run, message, payload)
            case Broken():
                self._broken(run, own_error(message.fault), message.evidence)
            case _:
                raise ProgramError(f"{worker.name} says {type(message).__name__}, which is not for a head")

    def _broken(self, run: PlacedRun, error: TesseraError, evidence: Evidence | None = None) -> None:
        self.forget(run.run)
        if not run.settle(error) and self.watching is not None:
            self.watching.broken(run.run, error, evidence)

    def _sign_for(self, run: PlacedRun, message: ToSign) -> None:
        said = message.said
        # Of the MAC check of this very run, and nothing else.
        if not isinstance(said, SeenSaid | SigmaSaid) or said.of != run.of:
            raise ProgramError("a worker asks for a signature of something else than its run's MAC check")
        run.worker.link.send(Signed(run=run.run, signature=self._sign(said)))

    def _finished(self, run: PlacedRun, message: Finished, payload: Payload) -> None:
        run.seconds = message.seconds
        if message.kept:
            seed, *arrays = payload[message.outputs :]
            kept = zip(message.kept.items(), arrays, strict=True)
            ring = self._rings[FIELD]
            run.left = Seed(bytes(seed)), {name: ring.read(buffer, shape) for (name, shape), buffer in kept}
        if self.watching is not None:
            self.watching.finished(run.run, message, payload[: message.outputs])

    # -- runs ------------------------------------------------------------------------------------------------------

    def make(self, task: Task) -> Made:
        return Made(self.wait_for(self._place(task)))

    def wait_for(self, coroutine: Any) -> Any:
        """What it returns; in a thread."""
        if self._loop is None:
            raise ProgramError("the engine is not open")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _place(self, task: Task) -> PlacedRun:
        worker = self._choose(task)
        run = PlacedRun(self, worker, task, self._cluster.settings.security)
        worker.runs[run.run] = self._placed[run.run] = run
        try:
            tensors: dict[str, dict[str, Value]] = {}
            for (slot, name), value in task.read.tensors.items():
                tensors.setdefault(slot, {})[name] = value
            versions = {binding.slot: binding.version for binding in task.bound.bindings}
            for slot, version in versions.items():
                await self._hold(worker, version, tensors.get(slot, {}))
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
            )
            worker.link.send(take, [run.program.encode(), *task.dealt])
            await worker.link.flush()
            await run.answer
        except BaseException:
            self.forget(run.run)
            raise
        return run

    def _choose(self, task: Task) -> WorkerHere:
        """Raises ServerBusy."""
        wanted = frozenset(task.bound.versions)
        found = min(
            self._workers.values(),
            key=lambda worker: (worker.reserved, len(worker.runs), len(wanted - worker.held)),
            default=None,
        )
        if found is None:
            raise ServerBusy(self._me.name, "has none of its workers at the moment: try again later")
        if found.runs and found.reserved + task.size > self.memory:
            raise ServerBusy(
                self._me.name, f"none of its {len(self._workers)} workers has {task.size >> 20} MiB left: try again"
                " when other runs have ended",
            )  # fmt: skip
        return found

    async def _hold(self, worker: WorkerHere, version: str, tensors: Mapping[str, Value]) -> None:
        """Have the worker hold that version.  Raises ProgramError when it is not in use any more."""
        ring = self._rings[FIELD]
        async with worker.holding:
            for name, value in {} if version in worker.held else tensors.items():
                present = [array for array in (value.public, value.share) if array is not None]
                shape = present[0].shape if present else ()
                tensor = Tensor(name, shape, value.public is not None, value.share is not None)
                buffers: list[Buffer] = [ring.buffer(array) for array in present]
                if not self._in_use(version):
                    worker.link.send(Drop(version=version))
                    raise not_in_use()
                worker.link.send(Hold(version=version, tensors=(tensor,)), buffers)
                await worker.link.flush()
            worker.held.add(version)

    def forget(self, run: str) -> None:
        placed = self._placed.pop(run, None)
        if placed is None:
            return
        del placed.worker.runs[run]
        placed.settle(TesseraError("nobody waits for this any more"))
        with contextlib.suppress(PeerError):
            placed.worker.link.send(Over(run=run))
