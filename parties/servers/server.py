"""What the dealer's and a party's process have in common: a loop over events, and runs that may fail one by one."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from mpc.errors import (
    NotPermitted,
    PeerError,
    PeerLost,
    PeerUnavailable,
    ProtocolViolation,
    TesseraError,
    TooLarge,
)
from mpc.program import Program
from mpc.security import Security
from parties import logs
from parties.cluster import Member
from parties.counters import OK, RELEASED, Metrics
from parties.log_quota import caused_by
from parties.messages.check import RoomSeen
from parties.messages.conversation import RequestMessage
from parties.messages.evidence import Evidence, session_failed
from parties.messages.failures import error_of, fault_of, internal_error
from parties.messages.runs import Failed, Prepare, Release, RunMessage
from parties.messages.status import SecretSeen
from parties.operate.audit.desk import AuditDesk
from parties.operate.cluster.desk import ClusterDesk
from parties.operate.status.look import Look
from parties.servers.auditing import audit_run
from parties.servers.dispatcher import Dispatcher
from parties.servers.governor import Governor
from parties.servers.host import Host
from parties.servers.job import Job
from parties.servers.proofs import Proofs
from parties.servers.scheduling import Workers
from parties.servers.succeeding import Succeeding
from parties.stored.gate import Gate
from parties.wire.events import ClusterChanged, Delivery, Event, PeerDown, PeerRestarted
from parties.wire.messages import Message, Payload
from parties.wire.transport import Endpoint
from protocols.randomness.source import RandomnessSource

log = logging.getLogger(__name__)

REMEMBERED = 65_536
"""Ids of ended runs kept, so that late messages are dropped and an id is not taken twice."""

LAST_WORDS = 1.0
"""s that a server which stops waits for each peer to have read what it was told."""


JobT = TypeVar("JobT", bound=Job)
MessageT = TypeVar("MessageT", bound=Message)
Result = TypeVar("Result")


class Server(Dispatcher, Generic[JobT]):
    """Base of ``DealerServer`` and ``PartyServer``: dispatches messages and fails runs.

    A handler is registered with ``on`` for a message class; it may raise a TesseraError, which fails the run the
    message belongs to and nothing else.  One that comes from a client fails nothing of another client's.
    """

    def __init__(self, host: Host[RandomnessSource], make_job: Callable[[str, str], JobT]) -> None:
        self.cluster, self.member = cluster, member = host.cluster, host.member
        super().__init__(Governor(cluster, member))
        self.endpoint = Endpoint(cluster, member, host.keys, bind=True, transport=host.transport)
        self.listening = asyncio.Event()
        self.metrics = Metrics()
        self.look = Look(self)
        self.audit = AuditDesk(self, host.keys, host.folder)
        self.succeeding = Succeeding(self)
        self._cluster_desk = ClusterDesk(self, host.record, self.succeeding)
        self.proofs = Proofs(self, host.keys, host.folder, self.audit, self.proven)
        self.jobs: dict[str, JobT] = {}
        self._make_job = make_job
        self._ended: OrderedDict[str, Failed | None] = OrderedDict()
        self._leaving = self._over = False
        self._emptied = asyncio.Event()
        self.on(Failed, self._on_failed)
        self.on(Release, self._on_release)

    # -- life ------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve until cancelled, or until ``succeeding`` has a successor; runs end with it.

        Raises ConfigurationError when the address cannot be bound.
        """
        async with self.endpoint, self.audit:
            self.spawn(self._cluster_desk.work())
            self.listening.set()
            log.info("%s listens at %s", self.member.name, self.member.listen or self.member.address)
            try:
                while not self._over:
                    self._handle(await self.endpoint.receive())
            finally:
                await self.end_tasks()
                for job in list(self.jobs.values()):
                    # One that is ready has no deadline, and nobody is left to hear that its client has gone.
                    self.end(job, Failed(run=job.run, fault=fault_of(PeerLost(self.member.name, "was stopped"))))
                self.governor.close()

    async def leave(self, grace: float) -> None:
        """Take no new runs or uploads, let runs in progress end for up to ``grace`` s, and fail what is left of them.

        Returns once every peer in reach has read what it was told; ``serve`` may be cancelled then.
        """
        self._leaving = True
        log.info("%s stops: %d runs in progress", self.member.name, len(self.jobs))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self.jobs:
                    self._emptied.clear()
                    await self._emptied.wait()
        for job in list(self.jobs.values()):
            self.fail(job, PeerLost(self.member.name, f"was stopped, and the run was not over within {grace:g} s"))
        peers = [m.name for m in self.cluster.members if m != self.member and self.endpoint.connected(m.name)]
        await asyncio.gather(*map(self._heard_out, peers))

    async def _heard_out(self, peer: str) -> None:
        """Closing drops what is still queued; whoever answers a ping has read everything before it."""
        with contextlib.suppress(PeerError):
            await self.endpoint.ping(peer, LAST_WORDS)

    def check_staying(self) -> None:
        """Whether anything may be begun.

        Raises PeerUnavailable, naming this server, when it stops: what is begun now would not be ended; DiskFull
        or ServerBusy when it cannot say in its audit log what it does.
        """
        self.audit.check()
        if self._leaving:
            raise PeerUnavailable(
                self.member.name, "is being stopped, and begins nothing new: try again when it is back"
            )

    def _handle(self, event: Event) -> None:
        if isinstance(event, ClusterChanged):
            self._over = True
            return
        sender = event.peer if isinstance(event, PeerDown) else event.sender
        with caused_by(sender.name):
            if isinstance(event, Delivery):
                self._deliver(event)
            elif isinstance(event, PeerRestarted):
                self._fail_all(sender, PeerLost(sender.name, "restarted in the middle of a run"))
            else:
                self._fail_all(sender, event.error)

    def _deliver(self, delivery: Delivery) -> None:
        sender, message = delivery.sender, delivery.message
        with self._about(sender, message):
            if isinstance(message, RunMessage) and message.run in self._ended:
                self._late(sender, message, self._ended[message.run])
            else:
                self.take(delivery)

    def _about(self, sender: Member, message: Message) -> contextlib.AbstractContextManager[None]:
        """What is logged of the message is about its run, and that run's client."""
        run = message.run if isinstance(message, RunMessage) else ""
        job = self.jobs.get(run)
        client = sender if job is None or job.client is None else job.client
        self.governor.pace.heard(client.name)
        return logs.about(run, "" if client.is_server else client.name)

    def _late(self, sender: Member, message: RunMessage, failure: Failed | None) -> None:
        """A message of a run that is over here."""
        if isinstance(message, Prepare):
            repeated = ProtocolViolation(sender.name, "asked for a run whose id has been used")
            self.tell([sender.name], failure or Failed(run=message.run, fault=fault_of(repeated)))
        elif isinstance(message, Failed) and sender.is_server:
            # Its check may have failed after ours had passed.
            self.proofs.take(message.evidence, sender)

    def refuse(self, sender: Member, message: Message, error: TesseraError) -> None:
        """Fail the run that the message belongs to, if the sender has a part in it."""
        job = self.jobs.get(message.run) if isinstance(message, RunMessage) else None
        if job is not None and self._takes_part(job, sender):
            self.fail(job, error)
            return
        if isinstance(message, RequestMessage):
            self.refuse_request(sender, message, error)
            return
        log.warning("%s of %s refused: %s", type(message).__name__, sender.name, error)
        self.audit.refused(sender.name, type(message).__name__, type(error).__name__)
        if isinstance(message, RunMessage):
            self.tell([sender.name], Failed(run=message.run, fault=fault_of(error)))

    def refuse_request(self, sender: Member, message: RequestMessage, error: TesseraError) -> None:
        super().refuse_request(sender, message, error)
        self.audit.refused(sender.name, type(message).__name__, type(error).__name__)

    # -- runs ------------------------------------------------------------------------------------------------------

    def open_job(self, run: str, client: str) -> JobT:
        """The job of that client's ``run``, made if it is new.

        Raises ServerBusy when there are too many, or too many of that client; PeerUnavailable when this server stops;
        ProtocolViolation for another client's.
        """
        job = self.jobs.get(run)
        if job is None:
            self.check_staying()
            self.governor.admission.begin(client)
            job = self.jobs[run] = self._make_job(run, client)
            self.set_deadline(job)
        elif job.on_behalf != client:
            raise ProtocolViolation(client, f"asked for a run that is {job.on_behalf}'s")
        return job

    def claim_job(self, run: str, client: Member, servers: Iterable[Member]) -> JobT:
        """The job of ``run`` for the client who asks for it; from now on the loss of any of these ends it.

        Raises ProtocolViolation if it has been asked for.
        """
        job = self.open_job(run, client.name)
        if job.client is not None:
            raise ProtocolViolation(client.name, "asked twice for one run")
        job.client = client
        # Who has just been started again may not have reached us yet, and is not lost for that: see ``in_background``.
        self.watch(job, [client, *(server for server in servers if self._reached(server))])
        return job

    def charge_program(self, job: JobT, program: memoryview) -> float:
        """Set aside the memory that decoding a run's program takes; the seconds that it is expected to take.

        Raises ServerBusy, TooLarge, ProgramError.
        """
        charge, seconds = self.governor.charge_program(job.on_behalf, program)
        job.charges.append(charge)
        return seconds

    def admit(self, job: JobT, program: Program) -> None:
        """Set aside the memory that a run of ``program`` takes.  Raises ServerBusy, TooLarge."""
        size = self.governor.admission.size_of(program)
        job.charges.append(self.governor.charge(job.on_behalf, size, "a run of this program"))

    def _reached(self, server: Member) -> bool:
        return server != self.member and self.endpoint.connected(server.name)

    def fail(self, job: JobT, error: TesseraError) -> None:
        """End the run here with ``error`` and tell everyone else in it."""
        with logs.about(job.run, "" if job.client is None else job.client.name):
            self._fail(job, error)

    def _fail(self, job: JobT, error: TesseraError) -> None:
        log.warning("run %s failed: %s", job.run[:8], error)
        message = Failed(run=job.run, fault=fault_of(error), evidence=job.evidence)
        self.end(job, message)
        self.proofs.take(message.evidence, self.member)
        others = {member.name for member in self.cluster.servers} - {self.member.name}
        if job.client is not None:
            others.add(job.client.name)
        self.tell(others, message)

    def end(self, job: JobT, failure: Failed | None = None) -> None:
        """Forget the run and everything dealt for it."""
        if self.jobs.pop(job.run, None) is None:
            return
        job.over = True
        job.stop_watching()
        self.clear_deadline(job)
        self._settle(job)
        if not self.jobs:
            self._emptied.set()
        self._ended[job.run] = failure
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        outcome = failure.fault.error if failure is not None else RELEASED if job.released else OK
        self.metrics.run_ended(outcome)
        audit_run(self.audit, job, outcome, "" if failure is None else failure.fault.peer)
        log.debug("run %s is over; %d in progress", job.run[:8], len(self.jobs))

    def _settle(self, job: JobT) -> None:
        """What the run was charged with is given back once it is over, and no thread is at work on it any more."""
        if not job.over or job.working:
            return
        self.governor.admission.end(job.on_behalf)
        for charge in job.charges:
            charge.release()

    def end_forbidden(self) -> None:
        """Fail each run that has no leave any more.

        To be called whenever something may have changed that leave depends on: rules, versions in use, clients of the
        cluster; before anything else is done, so that no message of such a run leaves from then on.
        """
        for job in list(self.jobs.values()):
            try:
                if job.client is not None and job.client not in self.cluster.clients:
                    raise NotPermitted(f"{job.client.name} is no client of this cluster any more")
                if job.client is not None and job.bound is not None:
                    self.gate.check_still(job.bound, job.client.name)
            except TesseraError as error:
                self.fail(job, error)

    @property
    @abc.abstractmethod
    def gate(self) -> Gate[Any]:
        """What runs have to pass."""

    def watch(self, job: JobT, members: Iterable[Member]) -> None:
        """From now on the loss of any of these, and of nobody else, ends the run."""
        former = job.stop_watching
        job.involved = frozenset(member.name for member in members) - {self.member.name}
        job.stop_watching = self.endpoint.watch(job.involved).stop
        former()

    def set_deadline(self, job: JobT, seconds: float | None = None) -> None:
        """The run must make progress within so long, by default the round timeout, from now."""
        self.clear_deadline(job)
        loop = asyncio.get_running_loop()
        job.deadline = loop.call_later(seconds or self.cluster.settings.round_timeout, self._expire, job)

    def clear_deadline(self, job: JobT) -> None:
        """The run may take its time: it computes."""
        if job.deadline is not None:
            job.deadline.cancel()
            job.deadline = None

    def _expire(self, job: JobT) -> None:
        if self.jobs.get(job.run) is job:
            self.fail(job, self.overdue(job))

    def overdue(self, job: JobT) -> TesseraError:
        """Who keeps the run waiting."""
        return TesseraError("the run made no progress in time")

    def _fail_all(self, member: Member, error: PeerError) -> None:
        for job in list(self.jobs.values()):
            if member.name in job.involved:
                self.fail(job, error)

    def _on_failed(self, sender: Member, message: Failed, _: Payload) -> None:
        job = self.jobs.get(message.run)
        if job is not None and self._takes_part(job, sender):
            fault = message.credible(sender.name, self.cluster) if sender.is_server else message.fault
            log.warning("run %s failed elsewhere: %s", job.run[:8], error_of(fault, sender.name))
            self.end(job, replace(message, fault=fault))
            if sender.is_server:
                self.proofs.take(message.evidence, sender)
                # A cheat might have told us alone, and have the client wait.
                if job.client is not None:
                    fault = replace(fault, peer=fault.peer or sender.name)
                    self.tell([job.client.name], replace(message, fault=fault))
        elif job is None and sender.is_server:
            # Of a run from before we were started again, perhaps.
            self.proofs.take(message.evidence, sender)

    def _on_release(self, client: Member, message: Release, _: Payload) -> None:
        """The client will not go on with it."""
        job = self.jobs.get(message.run)
        if job is not None:
            check_sender(job.client, client)
            job.released = True
            self.end(job)

    @property
    def work_waiting(self) -> int:
        """Pieces of work that wait for their client's turn."""
        return self.governor.waiting

    @property
    def malicious(self) -> bool:
        """The security that the cluster runs in."""
        return self.cluster.settings.security is Security.MALICIOUS

    def proven(self, evidence: Evidence) -> None:
        """Somebody has not kept to the protocol, and that is certain."""
        if session := session_failed(evidence):
            self.cheated(session)

    def cheated(self, session: str) -> None:
        """A check has failed in a run with an item of that session: nothing of it is to be used any more."""

    @staticmethod
    def _takes_part(job: Job, sender: Member) -> bool:
        return sender.is_server or sender == job.client

    # -- what there is ---------------------------------------------------------------------------------------------

    def fresh_stock(self) -> Mapping[str, int]:
        """Items of preprocessing that are fresh here, by program.  Blocks.  Raises VaultError."""
        return {}

    @property
    def versions_held(self) -> int:
        """How many models, of all owners."""
        return 0

    def versions_here(self) -> Iterable[SecretSeen]:
        """All that are in use."""
        return ()

    def room_for(self, client: Member) -> RoomSeen:
        """What may be stored and run for that client."""
        return RoomSeen((), self.governor.admission.largest)

    def versions_seen_by(self, client: Member) -> Iterable[SecretSeen]:
        """Those in use that the client may know of."""
        return ()

    # -- sending and computing -------------------------------------------------------------------------------------

    def in_background(
        self,
        job: JobT,
        work: Callable[[], Result],
        then: Callable[[Result, float], None],
        *,
        workers: Workers,
        expected: float = 0.0,
        reach: Sequence[str] = (),
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``work`` in a thread, so that pings are answered meanwhile; then ``then(result, seconds)``, if still wanted.

        It waits for its client's turn among ``workers``, and is charged with the seconds ``expected`` of it.  ``then``
        is called once the links to ``reach`` stand: a process that has just started may know its client before it knows
        its peers.  ``after`` is awaited first.
        """

        def timed() -> tuple[Result, float]:
            started = time.perf_counter()
            return work(), time.perf_counter() - started

        async def run() -> None:
            try:
                if after is not None:
                    await after()
                result, seconds = await workers.run(job.on_behalf, timed, seconds=expected, unwanted=lambda: job.over)
                if not all(self.endpoint.connected(name) for name in reach):
                    await self.endpoint.connect(reach, self.cluster.settings.peer_timeout)
                if self.jobs.get(job.run) is job:
                    then(result, seconds)
            except TesseraError as error:
                self._fail_if_wanted(job, error)
            except MemoryError:
                self._fail_if_wanted(job, TooLarge(self.member.name, "has no memory left for this program"))
            except Exception:
                log.exception("run %s: internal error", job.run[:8])
                self._fail_if_wanted(job, internal_error())
            finally:
                job.working -= 1
                self._settle(job)

        # Not when the task begins: the run may be over by then, and is to be settled once.
        job.working += 1
        self.spawn(run())

    def _fail_if_wanted(self, job: JobT, error: TesseraError) -> None:
        if self.jobs.get(job.run) is job:
            self.fail(job, error)


def check_sender(expected: Member | None, sender: Member) -> None:
    """Raise ProtocolViolation unless the message is from the client whose run it is."""
    if expected != sender:
        raise ProtocolViolation(sender.name, "sent a message for another client's run")
