"""A server's workers as it sees them: processes of its own, on machines of its own, that come and go.

Each has a link with this server (`parties.wire.direct`), gives signs of life on it, and is at some *charges*: a party's
runs (`parties.servers.placing`), or a dealer's dealings (`parties.servers.dealing`).

*Which worker.*  The one that has most memory free; among equals, one that holds the versions that the charge reads.
What fits nowhere is refused as busy.

*What is stored* goes to a worker with the first charge there that reads it, once, and stays until its version is not in
use any more: then it is overwritten.

*A worker that is lost* (it ends, its machine does, or it says nothing for ``peer_timeout``) takes its charges with it.
Another is started in its place at once, wherever there is room by then: on a machine that has come back, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from mpc.errors import PeerError, PeerLost, ProgramError, ServerBusy, TesseraError
from parties.members.cluster import Cluster, Member
from parties.messages.status import WorkersSeen
from parties.messages.workers import ABOUT, Beat, Drop, Lying, Over, Settle, Settled, WorkerRun
from parties.servers.engine import Engine, MadeT, TaskT
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


class Charge(ABC):
    """Something that one worker is at.  ``run``: by which name it is known there; ``size``: bytes of its memory."""

    def __init__(self, run: str, size: int) -> None:
        self.run, self.size = run, size
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        """To what the worker was asked last."""

    @abstractmethod
    def hear(self, message: WorkerRun, payload: Payload) -> None:
        """What the worker says of it.  Raises ProgramError for what it may not."""

    @abstractmethod
    def lost(self, worker: str, why: str) -> None:
        """With the worker of that name."""

    def asked(self) -> asyncio.Future[Any]:
        """The worker is about to be asked for something."""
        self.answer = asyncio.get_running_loop().create_future()
        return self.answer

    def settle(self, result: Any = None, *, error: BaseException | None = None) -> bool:
        """Whoever waits for an answer has it; whether anybody did."""
        if self.answer.done():
            return False
        if error is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(error)
            # Whether or not anybody waits for it.
            self.answer.exception()
        return True

    def fail(self, error: TesseraError) -> None:
        """Whoever waits for an answer has this one; where nobody does, whoever asks for the next thing hears of it."""
        if not self.settle(error=error):
            self.asked()
            self.settle(error=error)


ChargeT = TypeVar("ChargeT", bound=Charge)


class WorkerHere(Generic[ChargeT]):
    """One worker, as long as its link stands."""

    def __init__(self, name: str, link: DirectLink) -> None:
        self.name, self.link = name, link
        self.address, self.process = "", 0
        self.shelf = ""
        """Where it keeps what is dealt ahead of time, if it does."""
        self.charges: dict[str, ChargeT] = {}
        self.held = set[str]()
        """Versions of which it has what is stored."""
        self.holding = asyncio.Lock()

    @property
    def reserved(self) -> int:
        """Bytes of memory that its charges take."""
        return sum(charge.size for charge in self.charges.values())


class Crew(Generic[ChargeT]):
    """Of one server.

    Args:
        in_use: whether a version is.
        memory: bytes that the charges of one worker may take.
    """

    def __init__(
        self, cluster: Cluster, me: Member, workforce: Workforce, in_use: Callable[[str], bool], memory: int
    ) -> None:
        self._cluster, self._me, self._workforce, self._in_use = cluster, me, workforce, in_use
        self.wanted, self._memory = workforce.wanted, memory
        self.workers: dict[str, WorkerHere[ChargeT]] = {}
        """By name, those that are there."""
        self._places: dict[str, WorkerHere[ChargeT]] = {}
        """By name of a charge."""
        self._doors = Doors(me.name, workforce.host)
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self.came: Callable[[WorkerHere[ChargeT]], None] = lambda worker: None
        """Called with each worker that has come."""
        self.lying: Callable[[WorkerHere[ChargeT], Payload], None] = lambda worker, payload: None
        """And with what each says that lies on its shelf."""

    async def open(self) -> None:
        """Have the workers started."""
        self._loop = asyncio.get_running_loop()
        await self._doors.open()
        self._tasks = [self._loop.create_task(self._tend(number)) for number in range(self.wanted)]

    def close(self) -> None:
        """Their charges come to nothing.  Idempotent."""
        for task in self._tasks:
            task.cancel()
        for worker in tuple(self.workers.values()):
            self._lose(worker, "was stopped with this server")
        self._doors.close()

    def wait_for(self, coroutine: Any) -> Any:
        """What it returns; in a thread."""
        if self._loop is None:
            raise ProgramError("the engine is not open")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def later(self, call: Callable[..., object], *arguments: object) -> None:
        """In the event loop, from any thread; never if that is closed."""
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *arguments)

    def seen(self) -> WorkersSeen:
        """Who is there, and at how many charges."""
        return WorkersSeen(self.wanted, {worker.name: len(worker.charges) for worker in self.workers.values()})

    def follow(self, cluster: Cluster) -> None:
        """The members are these now."""
        self._cluster = cluster
        for worker in self.workers.values():
            self._settle(worker)

    def sweep(self) -> None:
        """What is not in use any more is nowhere any more."""
        for worker in self.workers.values():
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
            worker: WorkerHere[ChargeT] | None = None
            try:
                public = await self._workforce.start(number, self._doors.address, key.public, door)
                async with asyncio.timeout(_CONNECT):
                    link = await self._doors.come_in(door, key.agreed(public, ABOUT, we_dial=False))
                worker = WorkerHere(name, link)
                try:
                    await self._serve(worker)
                finally:
                    self._lose(worker, "was lost")
            except (TesseraError, TimeoutError) as error:
                log.warning("%s: %s; another one is started", name, error or "did not come")
            except Exception:
                log.exception("%s: internal error", name)
            finally:
                self._doors.forget(door)
                await self._workforce.end(number)
            # One that has been there is no sign that the next will not come.
            delay = _RETRY if worker is not None and worker.address else min(2 * delay, _RETRY_MOST)
            await asyncio.sleep(delay)

    async def _serve(self, worker: WorkerHere[ChargeT]) -> None:
        """Until it is lost.  Raises PeerError."""
        self._settle(worker)
        while True:
            try:
                async with asyncio.timeout(self._cluster.settings.peer_timeout):
                    message, payload = await worker.link.receive()
            except TimeoutError:
                raise PeerLost(worker.name, "has given no sign of life within peer_timeout") from None
            if isinstance(message, Settled):
                worker.address, worker.process, worker.shelf = message.address, message.process, message.shelf
                self.workers[worker.name] = worker
                self._changed.set()
                where = message.host, message.process, message.address
                log.info("%s is there, on %s (process %d), and meets others at %s", worker.name, *where)
                if message.trouble:
                    log.warning("%s keeps nothing that is dealt ahead of time: %s", worker.name, message.trouble)
                self.came(worker)
            elif isinstance(message, WorkerRun):
                # One that is over here the worker has not heard the end of.
                charge = worker.charges.get(message.run)
                if charge is not None:
                    charge.hear(message, payload)
            elif isinstance(message, Lying):
                self.lying(worker, payload)
            elif not isinstance(message, Beat):
                raise ProgramError(f"{worker.name} says {type(message).__name__}, which is not for a head")

    def _settle(self, worker: WorkerHere[ChargeT]) -> None:
        worker.link.send(Settle(member=self._me.name), [self._cluster.dumps().encode()])

    def _lose(self, worker: WorkerHere[ChargeT], why: str) -> None:
        worker.link.abort()
        if self.workers.get(worker.name) is worker:
            del self.workers[worker.name]
        for charge in tuple(worker.charges.values()):
            self.forget(charge.run)
            charge.lost(worker.name, why)

    # -- charges ---------------------------------------------------------------------------------------------------

    def choose(self, size: int, versions: frozenset[str], shelf: str = "") -> WorkerHere[ChargeT]:
        """A worker that has so many bytes of memory free, and that shelf, if there is to be one.  Raises ServerBusy."""
        workers = [worker for worker in self.workers.values() if not shelf or worker.shelf == shelf]
        found = min(
            workers,
            key=lambda worker: (worker.reserved, len(worker.charges), len(versions - worker.held)),
            default=None,
        )
        if found is None:
            raise ServerBusy(self._me.name, "has none of its workers at the moment: try again later")
        if found.charges and found.reserved + size > self._memory:
            raise ServerBusy(
                self._me.name, f"none of its {len(workers)} workers has {size >> 20} MiB left: try again"
                " when other runs have ended",
            )  # fmt: skip
        return found

    async def chosen(self, size: int, versions: frozenset[str]) -> WorkerHere[ChargeT]:
        """Likewise, once there is one."""
        while True:
            self._changed.clear()
            try:
                return self.choose(size, versions)
            except ServerBusy:
                await self._changed.wait()

    def put(self, worker: WorkerHere[ChargeT], charge: ChargeT) -> None:
        """It is at that from now on."""
        worker.charges[charge.run] = charge
        self._places[charge.run] = worker

    def forget(self, run: str) -> ChargeT | None:
        """Whoever is at it is to be so no more; what it was, the first time."""
        worker = self._places.pop(run, None)
        if worker is None:
            return None
        self._changed.set()
        with contextlib.suppress(PeerError):
            worker.link.send(Over(run=run))
        return worker.charges.pop(run)

    @property
    def at_work(self) -> int:
        """How many charges there are, on all workers."""
        return len(self._places)

    async def hold(
        self, worker: WorkerHere[ChargeT], version: str, what: Iterable[tuple[Message, Sequence[Buffer]]]
    ) -> None:
        """Have the worker hold that version, in these messages, if it does not.

        Raises ProgramError when it is not in use any more.
        """
        async with worker.holding:
            for message in what if version not in worker.held else ():
                if not self._in_use(version):
                    worker.link.send(Drop(version=version))
                    raise not_in_use()
                await self.send(worker, *message)
            worker.held.add(version)

    @staticmethod
    async def send(worker: WorkerHere[ChargeT], message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Returns once it is on its way.  That the worker is lost, its charges are told."""
        worker.link.send(message, buffers)
        with contextlib.suppress(PeerLost):
            await worker.link.flush()


class OnCrew(Engine[TaskT, MadeT], Generic[TaskT, MadeT, ChargeT]):
    """An engine whose work is done by the ``crew``."""

    def __init__(self, crew: Crew[ChargeT]) -> None:
        self.crew = crew

    async def open(self) -> None:
        await self.crew.open()

    def close(self) -> None:
        self.crew.close()

    def follow(self, cluster: Cluster) -> None:
        self.crew.follow(cluster)

    def sweep(self) -> None:
        self.crew.sweep()

    def seen(self) -> WorkersSeen:
        return self.crew.seen()
