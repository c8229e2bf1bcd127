"""What the dealer's and a party's process have in common: a loop over events, and runs that may fail one by one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from mpc.errors import PeerError, PeerLost, PeerUnavailable, ProtocolViolation, TesseraError
from parties.cluster import Cluster, Member
from parties.events import Delivery, Event, LinkFault, PeerDown, PeerRestarted
from parties.failures import failed
from parties.keys import KeyPair
from parties.messages import Message
from parties.run_messages import Failed, RunMessage
from parties.transport import Endpoint

log = logging.getLogger(__name__)

MAX_JOBS = 256
"""Runs in progress or announced; beyond it a new one is refused as busy."""

REMEMBERED = 65_536
"""Ids of ended runs kept, so that late messages are dropped and an id is not taken twice."""

Result = TypeVar("Result")


class Job:
    """What a server knows of one run; subclasses add their own part."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.client: Member | None = None
        self.stop_watching: Callable[[], None] = lambda: None
        self.deadline: asyncio.TimerHandle | None = None
        self.involved: frozenset[str] = frozenset()


class Server:
    """Base of ``DealerServer`` and ``PartyServer``: dispatches messages and fails runs.

    A handler is a method registered in ``handlers`` for a message class; it may raise a TesseraError, which fails the
    run (or the upload) the message belongs to and nothing else.
    """

    def __init__(self, cluster: Cluster, member: Member, keys: KeyPair) -> None:
        self.cluster = cluster
        self.member = member
        self.endpoint = Endpoint(cluster, member, keys, bind=True)
        self.listening = asyncio.Event()
        self.jobs: dict[str, Any] = {}
        self.handlers: dict[type[Message], Callable[[Delivery], None]] = {Failed: self._on_failed}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life ------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve until cancelled.  Raises ConfigurationError when the address cannot be bound."""
        async with self.endpoint:
            self.listening.set()
            log.info("%s listens at %s", self.member.name, self.member.listen or self.member.address)
            try:
                while True:
                    self._handle(await self.endpoint.receive())
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Delivery):
            self._deliver(event)
        elif isinstance(event, LinkFault):
            self._fail_all(event.sender, event.error)
        elif isinstance(event, PeerRestarted):
            self._fail_all(event.sender, PeerLost(event.sender.name, "restarted in the middle of a run"))
        elif isinstance(event, PeerDown):
            self._fail_all(event.peer, event.error)

    def _deliver(self, delivery: Delivery) -> None:
        message = delivery.message
        handler = self.handlers.get(type(message))
        if handler is None:
            log.warning("%s sent %s, which is not for us", delivery.sender.name, type(message).__name__)
            return
        if isinstance(message, RunMessage) and message.run in self._ended:
            return  # late: the run is over
        try:
            handler(delivery)
        except TesseraError as error:
            self._refuse(delivery, error)
        except Exception:  # a bug of ours must not take the server down with it
            log.exception("%s could not be handled", type(message).__name__)
            self._refuse(delivery, TesseraError("internal error; see this process's log"))

    def _refuse(self, delivery: Delivery, error: TesseraError) -> None:
        """Fail what the message belongs to."""
        message = delivery.message
        if not isinstance(message, RunMessage):
            raise error
        job = self.jobs.get(message.run)
        if job is None:
            self._tell([delivery.sender.name], failed(message.run, error))
        else:
            self.fail(job, error)

    # -- runs ------------------------------------------------------------------------------------------------------

    def open_job(self, run: str, make: Callable[[str], Any]) -> Any:
        """The job of ``run``, made if it is new; ProtocolViolation-free refusal when there are too many."""
        job = self.jobs.get(run)
        if job is None:
            if len(self.jobs) >= MAX_JOBS:
                raise TesseraError(f"busy: {MAX_JOBS} runs are in progress; try again later")
            job = self.jobs[run] = make(run)
            self.set_deadline(job)
        return job

    def fail(self, job: Any, error: TesseraError) -> None:
        """End the run here with ``error`` and tell everyone else in it."""
        log.warning("run %s failed: %s", job.run[:8], error)
        self.end(job)
        others = {member.name for member in self.cluster.servers} - {self.member.name}
        if job.client is not None:
            others.add(job.client.name)
        self._tell(others, failed(job.run, error))

    def end(self, job: Any) -> None:
        """Forget the run and everything dealt for it."""
        if self.jobs.pop(job.run, None) is None:
            return
        job.stop_watching()
        if job.deadline is not None:
            job.deadline.cancel()
        self._ended[job.run] = None
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def watch(self, job: Any, names: Iterable[str]) -> None:
        """From now on the loss of any of these ends the run."""
        job.stop_watching()
        job.involved = frozenset(names) - {self.member.name}
        job.stop_watching = self.endpoint.watch(job.involved).stop

    def set_deadline(self, job: Any) -> None:
        """The run must make progress within the round timeout from now."""
        if job.deadline is not None:
            job.deadline.cancel()
        loop = asyncio.get_running_loop()
        job.deadline = loop.call_later(self.cluster.settings.round_timeout, self._expire, job)

    def clear_deadline(self, job: Any) -> None:
        if job.deadline is not None:
            job.deadline.cancel()
            job.deadline = None

    def _expire(self, job: Any) -> None:
        if job.run in self.jobs:
            self.fail(job, self.overdue(job))

    def overdue(self, job: Any) -> TesseraError:
        """Who keeps the run waiting."""
        return TesseraError("the run made no progress in time")

    def _fail_all(self, member: Member, error: PeerError) -> None:
        for job in list(self.jobs.values()):
            if member.name in job.involved:
                self.fail(job, error)

    def _on_failed(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, Failed)  # noqa: S101 - for the type checker
        job = self.jobs.get(message.run)
        if job is not None and self._takes_part(job, delivery.sender):
            log.warning("run %s: %s reports %s", job.run[:8], delivery.sender.name, message.error)
            self.end(job)

    def _takes_part(self, job: Any, sender: Member) -> bool:
        return sender.is_server or sender == job.client

    # -- sending and computing -------------------------------------------------------------------------------------

    def _tell(self, names: Iterable[str], message: Message) -> None:
        """Send to whoever can be reached."""
        for name in names:
            try:
                self.endpoint.send(name, message)
            except (PeerError, TesseraError):
                log.debug("%s cannot be told", name)

    def in_background(
        self,
        job: Any,
        work: Callable[[], Result],
        then: Callable[[Result, float], None],
        *,
        reach: Sequence[str] = (),
    ) -> None:
        """``work`` in a thread, so that pings are answered meanwhile; then ``then(result, seconds)``, if still wanted.

        ``then`` is called once the links to ``reach`` stand: a process that has just started may know its client
        before it knows its peers.
        """

        async def run() -> None:
            started = time.perf_counter()
            try:
                result = await asyncio.to_thread(work)
                if not all(self.endpoint.connected(name) for name in reach):
                    await self.endpoint.connect(reach, self.cluster.settings.peer_timeout)
                if self.jobs.get(job.run) is job:
                    then(result, time.perf_counter() - started)
            except TesseraError as error:
                if self.jobs.get(job.run) is job:
                    self.fail(job, error)
            except MemoryError:
                if self.jobs.get(job.run) is job:
                    self.fail(job, TesseraError("not enough memory for this program: use smaller batches"))
            except Exception:
                log.exception("run %s: internal error", job.run[:8])
                if self.jobs.get(job.run) is job:
                    self.fail(job, TesseraError("internal error; see this process's log"))

        self.spawn(run())

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def check_sender(expected: Member | None, sender: Member) -> None:
    """Raise ProtocolViolation unless the message is from the client whose run it is."""
    if expected is not None and expected != sender:
        raise ProtocolViolation(sender.name, "sent a message for another client's run")


__all__ = ["Job", "PeerUnavailable", "Server", "check_sender"]
