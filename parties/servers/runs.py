"""What a server has to do with runs: each is begun, watched, charged for and ended, and fails alone."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from mpc.errors import NotPermitted, PeerError, ProtocolViolation, TesseraError, TooLarge
from mpc.rings.devices import memory_errors
from mpc.security import Security
from parties.host import logs
from parties.host.counters import OK, RELEASED, Metrics
from parties.members.cluster import Cluster, Member
from parties.messages.bindings import BoundProgram
from parties.messages.failures import error_of, fault_of, internal_error
from parties.messages.runs import Failed, Release
from parties.operate.audit.desk import AuditDesk
from parties.servers.auditing import audit_run, charge_run
from parties.servers.dispatcher import Dispatcher
from parties.servers.governor import Governor
from parties.servers.job import Job
from parties.servers.proofs import Proofs
from parties.servers.scheduling import Workers
from parties.stored.gate import Gate
from parties.wire.messages import Payload

log = logging.getLogger(__name__)

REMEMBERED = 65_536
"""Ids of ended runs kept, so that late messages are dropped and an id is not taken twice."""

JobT = TypeVar("JobT", bound=Job)
Result = TypeVar("Result")


class Runs(Dispatcher, Generic[JobT]):
    """The runs that are in progress at a server, and its messages about their end."""

    cluster: Cluster
    member: Member
    metrics: Metrics
    audit: AuditDesk
    proofs: Proofs

    def __init__(self, governor: Governor, make_job: Callable[[str, str], JobT]) -> None:
        super().__init__(governor)
        self.jobs: dict[str, JobT] = {}
        self._make_job = make_job
        self._ended: OrderedDict[str, Failed | None] = OrderedDict()
        self._emptied = asyncio.Event()
        self._leave_followers: list[Callable[[], None]] = []
        self.on(Failed, self._on_failed)
        self.on(Release, self._on_release)

    @abstractmethod
    def check_staying(self) -> None:
        """Whether anything may be begun."""

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

    def claim_job(self, run: str, client: Member, servers: Iterable[Member], training: str = "") -> JobT:
        """The job of ``run`` for the client who asks for it; from now on the loss of any of these ends it.

        Of a ``training`` job the coordinator asks for it, and the client may go.
        Raises ProtocolViolation if it has been asked for.
        """
        job = self.open_job(run, client.name)
        if job.client is not None:
            raise ProtocolViolation(client.name, "asked twice for one run")
        job.client, job.training = client, training
        job.asker = asker = self.cluster.coordinator if training else client
        # Who has just been started again may not have reached us yet, and is not lost for that: see ``in_background``.
        self.watch(job, [asker, *(server for server in servers if self._reached(server))])
        return job

    def charge_program(self, job: JobT, program: memoryview) -> float:
        """Set aside the memory that decoding a run's program takes; the seconds that it is expected to take.

        Raises ServerBusy, TooLarge, ProgramError.
        """
        charge, seconds = self.governor.charge_program(job.on_behalf, program)
        job.charges.append(charge)
        return seconds

    def admit(self, job: JobT, bound: BoundProgram) -> None:
        """Set aside the memory that a run of it takes, and what will be said of it in the audit log.

        Raises ServerBusy, TooLarge.
        """
        size = self.governor.admission.size_of(bound.program)
        job.charges.append(self.governor.charge(job.on_behalf, size, "a run of this program"))
        charge_run(self.audit, job.on_behalf, bound)

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
        others = {member.name for member in self.cluster.servers}
        if job.asker is not None:
            others.add(job.asker.name)
        self.tell(others - {self.member.name}, message)

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
        for follow in self._leave_followers:
            follow()

    def whenever_leave_changes(self, follow: Callable[[], None]) -> None:
        """Have it called after each change that leave may depend on."""
        self._leave_followers.append(follow)

    @property
    @abstractmethod
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
        loop, former = asyncio.get_running_loop(), job.alarm
        job.deadline = loop.time() + (seconds or self.cluster.settings.round_timeout)
        if former is None or seconds is not None or job.deadline < former.when():
            self.clear_deadline(job)
            job.alarm = loop.call_at(job.deadline, self._ring, job)
        # Else it rings before, once for many rounds, and is put off then.

    def clear_deadline(self, job: JobT) -> None:
        """The run may take its time: it computes."""
        if job.alarm is not None:
            job.alarm.cancel()
            job.alarm = None

    def _ring(self, job: JobT) -> None:
        loop, job.alarm = asyncio.get_running_loop(), None
        if job.deadline > loop.time():
            job.alarm = loop.call_at(job.deadline, self._ring, job)
        elif self.jobs.get(job.run) is job:
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
                if job.asker is not None and job.asker not in (self.member, sender):
                    fault = replace(fault, peer=fault.peer or sender.name)
                    self.tell([job.asker.name], replace(message, fault=fault))
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
    def malicious(self) -> bool:
        """The security that the cluster runs in."""
        return self.cluster.settings.security is Security.MALICIOUS

    @staticmethod
    def _takes_part(job: Job, sender: Member) -> bool:
        return sender.is_server or sender == job.client

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
            with memory_errors():
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
