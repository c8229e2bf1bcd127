"""The coordinator's side of training jobs: one run after the other begins, whether their client is there or not.

The dealer's process plays this role, as it decides versions.  It acts for the client as far as the client's signed
order goes (`parties.messages.jobs`), and every party reads that for itself.  What it is trusted with is to go on.

*Where a job stands* is what lies under the network's name: how many parts of the data have been drawn for it says how
many checkpoints there are, and its version which run has kept it.  So whoever is killed, at whatever moment, the job
goes on from the last checkpoint that all parties have.  On the disk is, before a run begins, that it may have: none is
begun twice.

*What fails* for want of a server is made again, once that is back, and what may pass, after a while; all else ends the
job, and is kept for who asks.  What was dealt for a run that failed nobody uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mpc.cost import online_rounds
from mpc.errors import (
    NotPermitted,
    PeerError,
    PeerLost,
    PeerUnavailable,
    ProgramError,
    ProtocolViolation,
    RunExpired,
    ServerBusy,
    TesseraError,
)
from parties.members.cluster import Member
from parties.messages.bindings import BoundProgram
from parties.messages.failures import Fault, error_of, fault_of, internal_error
from parties.messages.jobs import (
    MOST_AT_ONCE,
    Checkpoint,
    FetchJob,
    FollowJob,
    GoOn,
    JobFound,
    JobList,
    JobNews,
    JobOrder,
    JobSeen,
    JobStarted,
    ListJobs,
    Result,
    RunJob,
    StartJob,
    State,
    read_order,
    run_of,
)
from parties.messages.requests import Signed, signed_in
from parties.messages.runs import ClientMasks, Failed, Prepare, Ready
from parties.messages.uploads import VersionReady
from parties.servers.going import Going
from parties.servers.jobs_desk import JobsDesk
from parties.servers.party_jobs import check_run
from parties.stored.job_book import HeldJob
from parties.stored.policy import LookUp
from parties.stored.version_database import VersionDatabase
from parties.wire.messages import Buffer, Payload, as_bytes
from protocols.readings.dealer import StoredMasks

if TYPE_CHECKING:
    from parties.servers.dealer import DealerServer

log = logging.getLogger(__name__)

_TRIES = 8
"""Of one checkpoint, when all servers are there and it fails nevertheless."""
_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
"""s before the second, twice as many before each; at most."""
_PASSING = PeerUnavailable, PeerLost, ServerBusy, RunExpired, ProgramError
"""Failures that may not come again: a version is not in use, for one, at who has just been started again."""
_LOOK = 4.0
"""s after which who follows a job is answered whatever comes."""


class Trainer(JobsDesk):
    """Handles the messages about training jobs at the coordinator, and drives them."""

    def __init__(self, server: DealerServer, database: VersionDatabase, look_up: LookUp[StoredMasks]) -> None:
        super().__init__(server, database, look_up)
        self._dealer = server
        self._parties = [party.name for party in server.cluster.parties]
        self._going: dict[str, Going] = {}
        """By run."""
        self._driven: dict[str, asyncio.Event] = {}
        """By job, set when something has become of it; those that go on."""
        self._made = {job: self.book.tables.checkpoints(job) for job in self.book.held}
        self._last: dict[str, Fault] = {}
        self._waits_for: dict[str, tuple[str, ...]] = {}
        server.on(StartJob, self._on_start)
        server.on(ListJobs, self._on_list)
        server.on(FollowJob, lambda client, message, _: server.answer(client, message, self._follow(client, message)))
        server.on(FetchJob, lambda client, message, _: server.answer(client, message, self._fetch(client, message)))
        server.on(Ready, lambda party, message, _: self.ready(party, message))
        server.on(VersionReady, self._on_version_ready)

    def begin(self) -> None:
        """All that go on, go on."""
        for held in list(self.book.held.values()):
            self._drive(held)

    # -- what clients ask ------------------------------------------------------------------------------------------

    def _on_start(self, client: Member, message: StartJob, payload: Payload) -> None:
        self._server.check_staying()
        if not payload:
            raise ProtocolViolation(client.name, "sent a job without its order")
        signed = signed_in(payload[0])
        order = read_order(signed, self._server.cluster, client.name)
        self._server.answer(client, message, self._start(client, message, signed, order, payload[1:]))

    async def _start(
        self, client: Member, message: StartJob, signed: Signed, order: JobOrder, programs: Payload
    ) -> None:
        if len(programs) != len(order.programs):
            raise ProgramError("a job comes with each of its programs")
        for number, encoded in enumerate(programs):
            charge, seconds = self._server.governor.charge_program(client.name, encoded)
            try:
                check = functools.partial(self._check, order, number, encoded)
                await self._server.governor.desk.run(client.name, check, seconds=seconds)
            finally:
                charge.release()
        goes_on = [held for job, held in self.book.held.items() if job in self._driven]
        if any(held.order.slot == order.slot and held.signed != signed for held in goes_on):
            raise ServerBusy(
                self._server.member.name,
                f"another training goes on as {order.name!r}: attach to it (tessera jobs), or stop it first",
            )
        held = await self._server.governor.disk.in_thread(
            client.name, lambda: self.book.add(signed, order, [bytes(p) for p in programs])
        )
        self._made.setdefault(held.job, [])
        log.info("%s has %d checkpoints of %s made, job %s", client.name, order.checkpoints, order.name, held.job[:8])
        self._drive(held)
        self._server.tell([client.name], JobStarted(request=message.request, job=held.job))

    def _check(self, order: JobOrder, place: int, encoded: memoryview) -> None:
        """It may begin now.  Raises as the gate does, ProgramError."""
        number = next(i for i, planned in enumerate(order.runs) if planned.program == order.programs[place])
        bindings = order.planned(number).bindings
        prepare = Prepare(run=order.start, bindings=bindings, keep=order.name)
        bound = self._dealer.gate.admit(encoded, order.client, prepare)
        check_run(bound, order, number)
        if self._stands(order) != (order.start, 0):
            raise ProgramError(f"what lies under {order.name!r} is another by now: ask for it again")

    def _stands(self, order: JobOrder) -> tuple[str, int]:
        """What lies under the network's name, and how many checkpoints that is from the beginning."""
        found = self._look_up(order.slot)
        if found is None:
            raise ProgramError(f"nothing lies under {order.name!r} any more")
        return found.policy.version, found.policy.descent.parts - order.first

    def _on_list(self, client: Member, message: ListJobs, _: Payload) -> None:
        seen = sorted(self.book.held.values(), key=lambda held: -held.order.when)
        entries = [msgspec.msgpack.encode(self._seen(held)) for held in seen if _concerns(held, client)]
        self._server.tell([client.name], JobList(request=message.request), entries)

    async def _follow(self, client: Member, message: FollowJob) -> None:
        found = self.book.held.get(message.job)
        held = found if found is not None and _concerns(found, client) else self._own(client, message.job)
        if not message.at_once:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    while held.state is State.GOING and len(self._made[held.job]) <= message.known:
                        await self._driven.setdefault(held.job, asyncio.Event()).wait()
        made = tuple(self._made[held.job][message.known : message.known + MOST_AT_ONCE])
        seen = msgspec.structs.replace(self._seen(held), made=made)
        self._server.tell([client.name], JobNews(request=message.request), [msgspec.msgpack.encode(seen)])

    def _seen(self, held: HeldJob) -> JobSeen:
        return JobSeen(
            held.signed,
            held.state,
            held.begun,
            len(self._made[held.job]),
            held.fault or self._last.get(held.job),
            self._waits_for.get(held.job, ()),
        )

    async def _fetch(self, client: Member, message: FetchJob) -> None:
        held = self._own(client, message.job)
        programs = await asyncio.to_thread(self.book.tables.programs, held.job)
        self._server.tell([client.name], JobFound(request=message.request), programs)

    def stopped(self, held: HeldJob) -> None:
        super().stopped(held)
        for going in self._going.values():
            if going.job == held.job:
                going.fail(NotPermitted("the job was stopped by its client"))
        self._news(held)

    # -- one run after the other -----------------------------------------------------------------------------------

    def _drive(self, held: HeldJob) -> None:
        if held.state is State.GOING and held.job not in self._driven:
            self._driven[held.job] = asyncio.Event()
            self._server.spawn(self._driving(held))

    def _news(self, held: HeldJob) -> None:
        """Who waits for some is answered."""
        former = self._driven.get(held.job)
        if former is not None:
            self._driven[held.job] = asyncio.Event()
            former.set()

    async def _driving(self, held: HeldJob) -> None:
        try:
            await self._go_on(held)
            await asyncio.to_thread(self.book.end, held, State.DONE)
        except TesseraError as error:
            log.warning("job %s of %s has ended: %s", held.job[:8], held.order.client, error)
            await self._failed(held, error)
        except Exception:
            log.exception("job %s: internal error", held.job[:8])
            await self._failed(held, internal_error())
        self._news(held)
        if self._dealer.ahead is not None:
            self._dealer.ahead.drop(held.job)
        del self._driven[held.job]

    async def _failed(self, held: HeldJob, error: TesseraError) -> None:
        with contextlib.suppress(TesseraError):
            await asyncio.to_thread(self.book.end, held, State.FAILED, fault_of(error))

    async def _go_on(self, held: HeldJob) -> None:
        """Until all checkpoints are there.  Raises what ends the job."""
        order, failed, pause = held.order, 0, _PAUSE
        while True:
            version, number = self._stands(order)
            await self._note_made(held, version, number)
            if number >= order.checkpoints:
                return
            await self._all_there(held)
            try:
                await self._run(held, number, self._parent(held, version, number))
                failed, pause = 0, _PAUSE
            except TesseraError as error:
                if held.state is not State.GOING:
                    raise
                self._last[held.job] = fault_of(error)
                log.info("job %s: a run has failed: %s", held.job[:8], error)
                self._news(held)
                await asyncio.sleep(pause)
                if self._stands(order)[1] > number:
                    continue  # it has been kept nevertheless
                if all(map(self._server.endpoint.connected, self._parties)):
                    failed, pause = failed + 1, min(2 * pause, _LONGEST_PAUSE)
                if failed >= _TRIES or not isinstance(error, _PASSING):
                    raise

    def _parent(self, held: HeldJob, version: str, number: int) -> int:
        """Which run of the job has kept that version.  Raises ProgramError where none has."""
        if not number and version == held.order.start:
            return 0
        for serial in reversed(range(held.begun)):
            if number > 0 and run_of(held.job, serial) == version:
                return serial
        raise ProgramError(f"something else lies under {held.order.name!r} than this job has kept there")

    async def _all_there(self, held: HeldJob) -> None:
        """Waits for servers that are away, as long as it takes.  Raises RunExpired when the order's time is over."""
        while True:
            if held.state is not State.GOING:
                raise NotPermitted("the job was stopped by its client")
            held.order.check(held.order.client)
            away = tuple(name for name in self._parties if not self._server.endpoint.connected(name))
            if away != self._waits_for.get(held.job, ()):
                self._waits_for[held.job] = away
                self._news(held)
            if not away:
                return
            with contextlib.suppress(PeerError):
                await self._server.endpoint.connect(away, self._server.cluster.settings.peer_timeout)
            await asyncio.sleep(_PAUSE)

    async def _run(self, held: HeldJob, number: int, parent: int) -> None:
        """One, up to what it has kept is in use everywhere.  Raises why it came to nothing."""
        order, serial, settings = held.order, held.begun, self._server.cluster.settings
        client = self._server.cluster.client(order.client)
        if client is None:
            raise NotPermitted(f"{order.client} is no client of this cluster any more")
        programs = await asyncio.to_thread(self.book.tables.programs, held.job)
        program = programs[order.programs.index(order.planned(number).program)]
        await asyncio.to_thread(self.book.begin, held, serial)
        run = run_of(held.job, serial)
        going = self._going[run] = Going(held.job, number)
        patience, started = settings.round_timeout + 2 * settings.peer_timeout, time.perf_counter()
        watch = self._server.endpoint.watch(self._parties)
        try:
            bindings = order.bindings(held.job, number, parent)
            prepare = Prepare(run=run, bindings=bindings, keep=order.name, soon=True)
            self._dealer.begin(client, prepare, memoryview(program), held.job, lambda b: check_run(b, order, number))
            message = RunJob(run=run, serial=serial, number=number, parent=parent)
            for party in self._parties:
                self._server.endpoint.send(party, message, [held.signed.encode(), program])
            await going.until(lambda: going.noted and len(going.ready) == len(self._parties), 2 * patience, "ready")
            prepared = time.perf_counter()
            for party in self._parties:
                self._server.endpoint.send(party, GoOn(run=run))
            await going.until(lambda: going.decided, patience * going.rounds, "through with a run")
            made = Checkpoint(serial, time.time(), prepared - started, time.perf_counter() - prepared)
            await self._note_made(held, run, number + 1, made)
            # Who does not say so is on its way back, and asks us then.
            with contextlib.suppress(TesseraError):
                await going.until(lambda: len(going.in_use) == len(self._parties), patience, "at the next checkpoint")
        except BaseException as error:
            fault = fault_of(error if isinstance(error, TesseraError) else internal_error())
            self._server.tell(self._parties, Failed(run=run, fault=fault))
            self._dealer.give_up(run)
            raise
        finally:
            watch.stop()
            del self._going[run]

    async def _note_made(self, held: HeldJob, version: str, number: int, made: Checkpoint | None = None) -> None:
        """That checkpoint is in use."""
        known = self._made[held.job]
        if number > len(known):
            made = made or Checkpoint(self._parent(held, version, number), time.time(), 0.0, 0.0)
            await asyncio.to_thread(self.book.tables.write_checkpoint, held.job, number, made)
            known.append(made)
            self._last.pop(held.job, None)
            self._news(held)

    # -- what is heard of a run ------------------------------------------------------------------------------------

    def ready(self, party: Member, message: Ready) -> None:
        """A party is."""
        going = self._going.get(message.run)
        if going is not None:
            going.ready.add(party.name)
            going.look()

    def _on_version_ready(self, party: Member, message: VersionReady, _: Payload) -> None:
        going = self._going.get(message.version)
        if going is not None:
            going.in_use.add(party.name)
            going.look()

    def dealt(self, run: str, bound: BoundProgram, masks: ClientMasks, payload: Sequence[Buffer]) -> None:
        """What the client would have been sent of it, for when it comes."""
        going = self._going.get(run)
        if going is None:
            return
        encoded = msgspec.msgpack.encode(
            Result(msgspec.msgpack.encode(masks), tuple(bytes(as_bytes(buffer)) for buffer in payload))
        )

        async def note() -> None:
            try:
                await asyncio.to_thread(self.book.tables.write_result, going.job, run, encoded)
                going.noted = True
                going.look()
            except TesseraError as error:
                going.fail(error)

        going.rounds = online_rounds(bound.program, self._server.cluster.settings.security)
        self._server.spawn(note())

    def goes_on(self, run: str, program: str) -> bool:
        """Whether there is another after it, of the same program."""
        going = self._going.get(run)
        held = None if going is None else self.book.held.get(going.job)
        if going is None or held is None or held.state is not State.GOING:
            return False
        following = going.number + 1
        return following < held.order.checkpoints and held.order.planned(following).program == program

    def decided(self, version: str) -> None:
        """It is in use from now on."""
        going = self._going.get(version)
        if going is not None:
            going.decided = True
            going.look()

    def over(self, run: str, error: TesseraError) -> None:
        """It has failed, here or elsewhere."""
        going = self._going.get(run)
        if going is not None:
            going.fail(error)

    def told(self, sender: Member, message: Failed) -> None:
        """By a server."""
        fault = message.credible(sender.name, self._server.cluster)
        self.over(message.run, error_of(fault, sender.name))

    def lost(self, member: Member, error: PeerError) -> None:
        """A server, in the middle of whatever goes on."""
        for going in self._going.values():
            if member.name in self._parties and not going.decided:
                going.fail(error)


def _concerns(held: HeldJob, client: Member) -> bool:
    """Whether it is that client's, or reads what that client owns."""
    return any(slot.startswith(f"{client.name}/") for slot in held.order.slots)
