"""Training jobs: the part of ``AsyncClient`` that has the parties go on by themselves, and looks at what they made.

A job is an order under this client's signature (`parties.messages.jobs`): which programs, on what, by which rules, how
many runs, and what each reveals.  Once the coordinator has it the client may go.  Who comes back, with the same key,
finds it by ``jobs``, and what was revealed meanwhile, which nobody else could open.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mpc.decoders import from_msgpack
from mpc.errors import NoSuchName, PeerError, ProgramError, ProtocolViolation, TesseraError, UsageError
from mpc.program import Program
from parties.client.conversation import Conversation
from parties.client.prepared import PreparedRun, Reals
from parties.client.progress import Progress, in_steps, told
from parties.client.remote_model import RemoteModel
from parties.client.report import RunReport
from parties.client.running import Running
from parties.client.training import Training
from parties.messages.bindings import BoundProgram, slot_of
from parties.messages.failures import error_of
from parties.messages.jobs import (
    MOST_AT_ONCE,
    Checkpoint,
    FetchJob,
    FetchResults,
    FollowJob,
    JobFound,
    JobList,
    JobNews,
    JobOrder,
    JobSeen,
    JobStarted,
    JobStopped,
    ListJobs,
    Planned,
    Result,
    ResultsFound,
    StartJob,
    State,
    StopJob,
    job_of,
    run_of,
    seen_in,
)
from parties.messages.requests import MAX_STATEMENT_BYTES
from parties.messages.runs import ClientMasks, Outputs
from parties.wire.events import Delivery

log = logging.getLogger(__name__)

HOLDS = 30 * 86_400.0
"""s that an order holds."""
_PATIENCE = 60.0
"""s for which who follows a job puts up with servers that are away."""
_PAUSE = 1.0


@dataclass(frozen=True)
class Standing:
    """Where a job stands, as the coordinator says."""

    state: State
    step: int
    steps: int
    epoch: float
    begun: int
    """Runs, those that failed included."""
    waits_for: tuple[str, ...]
    """Servers that cannot be reached."""
    error: TesseraError | None
    """Why it has failed; or, while it goes on, why its last run has."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "state": str(self.state),
            "step": self.step,
            "steps": self.steps,
            "epoch": round(self.epoch, 3),
            "runs": self.begun,
            "waits_for": list(self.waits_for),
            "error": None if self.error is None else self.error.to_dict(),
        }


class TrainingJob:
    """A training that the parties go on with by themselves; any process with the client's key may hold one."""

    def __init__(self, client: Jobs, job: str, order: JobOrder) -> None:
        self.id = job
        self.order = order
        self._client = client
        self._programs: dict[str, Program] = {}

    def __repr__(self) -> str:
        return f"<TrainingJob {self.id[:8]} of {self.order.client}: {self.name}>"

    @property
    def name(self) -> str:
        """Of the network."""
        return self.order.name

    async def standing(self) -> Standing:
        """Now.  Raises PeerError."""
        return self._standing(await self._client.job_news(self.id, 0, at_once=True))

    async def progress(self, known: int = 0) -> list[Progress]:
        """Of each checkpoint so far, but for the first ``known``.  Raises PeerError, MacCheckError."""
        found = list[Progress]()
        while True:
            seen = await self._client.job_news(self.id, known + len(found), at_once=True)
            if not seen.made:
                return found
            found += await self._made(known + len(found), seen.made)

    async def follow(self, known: int = 0) -> AsyncIterator[Progress]:
        """Each checkpoint, after the first ``known``, as soon as it is there, until all is over.

        Raises why the job has failed; PeerError when servers are away for a minute.
        """
        away = 0.0
        while True:
            try:
                seen = await self._client.job_news(self.id, known)
                made = await self._made(known, seen.made)
            except PeerError as error:
                if away and time.monotonic() - away > _PATIENCE:
                    raise
                away = away or time.monotonic()
                log.info("job %s will be looked at again: %s", self.id[:8], error)
                await asyncio.sleep(_PAUSE)
                continue
            away = 0.0
            for each in made:
                known += 1
                yield each
            if seen.state is not State.GOING and known >= seen.done:
                fault = self._error(seen)
                if seen.state is State.FAILED and fault is not None:
                    raise fault
                return

    async def wait(self) -> RemoteModel:
        """What lies there once all is over, or it was stopped.  Raises as ``follow`` does."""
        async for _ in self.follow((await self._client.job_news(self.id, 0, at_once=True)).done):
            pass
        return await self._client.model(slot_of(self.order.client, self.name))

    async def stop(self) -> None:
        """It does not go on, and what it has come to stays; ``training`` and ``submit`` go on from there.

        Raises PeerError where a server was not reached: all are to be told.
        """
        await self._client.stop_job(self.id)

    def _standing(self, seen: JobSeen) -> Standing:
        order, done = self.order, self.order.first + seen.done
        return Standing(
            seen.state,
            done * order.steps,
            (order.first + order.checkpoints) * order.steps,
            done * order.epoch,
            seen.begun,
            seen.waits_for,
            self._error(seen),
        )

    def _error(self, seen: JobSeen) -> TesseraError | None:
        """Of the last run, if it has failed, with the steps that it was to make where one of them is to blame."""
        if seen.fault is None:
            return None
        done = (self.order.first + seen.done) * self.order.steps
        return in_steps(error_of(seen.fault, self._client.cluster.coordinator.name), done, self.order.steps)

    async def _made(self, known: int, made: Sequence[Checkpoint]) -> list[Progress]:
        """What these checkpoints reveal, which come after ``known`` others."""
        if not made:
            return []
        order, total = self.order, self.order.first + self.order.checkpoints
        # Each reads what the one before has kept.
        if known:
            (before,) = (await self._client.job_news(self.id, known - 1, at_once=True)).made[:1]
            parents = [before, *made]
        else:
            parents = [made[0], *made]
        results = await self._client.job_results(self.id, [run_of(self.id, each.serial) for each in made])
        found = []
        for number, (parent, each) in enumerate(zip(parents, made, strict=False), known):
            program = await self._program(order.planned(number).program)
            bindings = order.bindings(self.id, number, parent.serial)
            bound = BoundProgram(program, bindings, order.client, order.name)
            revealed, report = self._client.opened(bound, run_of(self.id, each.serial), results[number - known], each)
            scores, loss = told(order.reveals, revealed)
            done = order.first + number + 1
            seconds = max(0.0, each.when - order.when)
            found.append(
                Progress(done * order.steps, total * order.steps, done * order.epoch, seconds, report, scores, loss)
            )
        return found

    async def _program(self, digest: str) -> Program:
        if not self._programs:
            for encoded in await self._client.job_programs(self.id, len(self.order.programs)):
                program = await asyncio.to_thread(Program.decode, encoded)
                self._programs[program.digest] = program
        if digest not in self._programs:
            raise ProtocolViolation(self._client.cluster.coordinator.name, "sent other programs than a job has")
        return self._programs[digest]


class Jobs(Running):
    """A client of a cluster, as far as training jobs go."""

    @property
    def _coordinator(self) -> str:
        return self.cluster.coordinator.name

    async def submit(self, training: Training) -> TrainingJob:
        """Have the parties make what is left of a training, whether this client stays or goes.

        One that goes on already under the name is attached to.  Raises NotPermitted until all owners have allowed its
        program; UsageError for another training that goes on under the name, or one that has nothing left to do.
        """
        name, runs = training.model.name, list[Planned]()
        await self._board.reach(self._servers)
        await self._own_rules.spread(name)
        programs = dict[str, bytes]()
        for kept in await asyncio.to_thread(lambda: training.left):
            written = await asyncio.to_thread(self._written, kept)
            await self._ask_again(self._slots.bind(*written, name))
            bound = self._slots.bind(*written, name)
            others = self._slots.leave_after(bound.program, training.model.slot)
            runs.append(Planned(bound.program.digest, bound.bindings, others))
            programs[bound.program.digest] = bound.program.encode()
        for job in await self.jobs():
            if job.order.slot == training.model.slot and (await job.standing()).state is State.GOING:
                if not programs.keys() <= set(job.order.programs):
                    raise UsageError(f"another training goes on as {name!r}: stop it (tessera jobs --stop {name})")
                return job
        left, now = training.checkpoints - training.model.parts, time.time()
        if left < 1:
            raise UsageError(f"{name!r} has made all of its steps")
        order = JobOrder(
            client=self.member.name,
            name=name,
            start=training.model.version,
            first=training.model.parts,
            checkpoints=left,
            runs=tuple(runs),
            most=2 * left + 64,
            reveals=training.reveals,
            steps=training.steps,
            epoch=training.epoch,
            when=now,
            until=now + HOLDS,
        )
        signed = order.signed(self._keys, self.cluster)
        if len(signed.said) > MAX_STATEMENT_BYTES:
            raise UsageError(f"a rate that changes takes a program at each of {left} checkpoints: give larger `steps`")
        message = StartJob(request=secrets.token_hex(16))
        payload = [signed.encode(), *programs.values()]
        await self._board.ask(message, JobStarted, [self._coordinator], self._patience, payload)
        return TrainingJob(self, job_of(signed), order)

    async def jobs(self) -> list[TrainingJob]:
        """This client's, whatever has become of them, and those on what it owns; the newest first."""
        await self._board.reach([self._coordinator])
        message = ListJobs(request=secrets.token_hex(16))
        answers = await self._board.ask(message, JobList, [self._coordinator], self._patience)
        found = []
        for buffer in answers[self._coordinator].buffers:
            seen = self._seen(buffer)
            found.append(TrainingJob(self, job_of(seen.order), JobOrder.read(seen.order, self.cluster)))
        return found

    async def job(self, sought: str) -> TrainingJob:
        """The newest of the network of that name, or that whose id begins so.  Raises NoSuchName."""
        for job in await self.jobs():
            if job.name == sought or job.id.startswith(sought):
                return job
        raise NoSuchName(f"there is no training {sought!r}: `tessera jobs` lists them")

    # -- what a job asks -------------------------------------------------------------------------------------------

    async def job_news(self, job: str, known: int, *, at_once: bool = False) -> JobSeen:
        """Where it stands, with checkpoints after the ``known``."""
        await self._board.reach([self._coordinator])
        message = FollowJob(request=secrets.token_hex(16), job=job, known=known, at_once=at_once)
        answers = await self._board.ask(message, JobNews, [self._coordinator], self._patience)
        buffers = answers[self._coordinator].buffers
        if len(buffers) != 1:
            raise ProtocolViolation(self._coordinator, "does not say where a job stands")
        seen = self._seen(buffers[0])
        if job_of(seen.order) != job or len(seen.made) > MOST_AT_ONCE:
            raise ProtocolViolation(self._coordinator, "tells of another job than it was asked about")
        return seen

    def _seen(self, buffer: memoryview) -> JobSeen:
        try:
            return seen_in(buffer)
        except ProgramError:
            raise ProtocolViolation(self._coordinator, "tells of jobs what makes no sense") from None

    async def job_programs(self, job: str, count: int) -> list[memoryview]:
        """All of them, in order."""
        message = FetchJob(request=secrets.token_hex(16), job=job)
        answers = await self._board.ask(message, JobFound, [self._coordinator], self._patience)
        return answers[self._coordinator].buffers[:count]

    async def job_results(self, job: str, runs: Sequence[str]) -> list[dict[str, memoryview]]:
        """By run and server, what was put down of it."""
        await self._board.reach(self._servers)
        message = FetchResults(request=secrets.token_hex(16), job=job, runs=tuple(runs))
        answers = await self._board.ask(message, ResultsFound, self._servers, self._patience)
        for server, delivery in answers.items():
            if len(delivery.buffers) != len(runs):
                raise ProtocolViolation(server, "does not say what was revealed in each of the runs")
        return [{server: answers[server].buffers[i] for server in self._servers} for i in range(len(runs))]

    async def stop_job(self, job: str) -> None:
        """At every server.  Raises NoSuchName where none knows it."""
        await self._board.reach(self._servers)
        message = StopJob(request=secrets.token_hex(16), job=job)
        answers = await self._board.ask(message, JobStopped, self._servers, self._patience)
        if not any(isinstance(d.message, JobStopped) and d.message.found for d in answers.values()):
            raise NoSuchName(f"there is no job {job[:8]} of ours: `tessera jobs` lists them")

    def opened(
        self, bound: BoundProgram, run: str, found: dict[str, memoryview], made: Checkpoint
    ) -> tuple[list[Reals], RunReport | None]:
        """What a run has revealed, and its bill; nothing where a server has it no more.

        Raises ProtocolViolation, MacCheckError as ``finish`` does.
        """
        if not all(len(buffer) for buffer in found.values()):
            return [], None
        said = {name: self._result(name, buffer) for name, buffer in found.items()}
        prepared = PreparedRun(
            bound, run, len(self._parties), [], Conversation(()),
            security=self.cluster.settings.security, single=False, client=self.member.name, rings=self._source.rings,
            sign=self._sign, terms=self.cluster.terms,
        )  # fmt: skip
        dealer = self.cluster.dealer.name
        prepared.take_masks(self._delivery(dealer, said[dealer], ClientMasks), self._source)
        shares = {}
        for party in self._parties:
            if said[party].masks != prepared.masks_digest:
                raise ProtocolViolation(party, "was told of other masks than the dealer made for this client")
            shares[party] = self._delivery(party, said[party], Outputs)
            # That the run begins, which the coordinator has said in our place.
            prepared.account.sent_online.add(party, 0)
        results = prepared.open_outputs(shares)
        prepared.account.offline_seconds = made.offline
        self.last_run = prepared.account.report(bound.program, prepared.security, shares, made.online)
        return results, self.last_run

    def _result(self, server: str, buffer: memoryview) -> Result:
        try:
            found: Result = from_msgpack(buffer, Result, "this is no result")
        except ProgramError:
            raise ProtocolViolation(server, "has put down what makes no sense") from None
        return found

    def _delivery(self, server: str, result: Result, kind: type[msgspec.Struct]) -> Delivery:
        try:
            message = from_msgpack(result.header, kind, "this is no message")
        except ProgramError:
            raise ProtocolViolation(server, "has put down what makes no sense") from None
        return Delivery(self.cluster.member(server), message, [memoryview(data) for data in result.payload])
