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
from collections.abc import Sequence

import msgspec

from mpc.decoders import from_msgpack
from mpc.errors import NoSuchName, ProgramError, ProtocolViolation, UsageError
from parties.client.conversation import Conversation
from parties.client.prepared import PreparedRun, Reals
from parties.client.remote_data import RemoteData
from parties.client.remote_model import RemoteModel
from parties.client.report import RunReport
from parties.client.running import Running
from parties.client.training import Training
from parties.client.training_job import Standing, TrainingJob
from parties.messages.bindings import BoundProgram
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
    Revealed,
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
        for job, standing in await self.standings():
            if job.order.slot == training.model.slot and standing.state is State.GOING:
                if not programs.keys() <= set(job.order.programs):
                    raise UsageError(f"another training goes on as {name!r}: stop it (tessera jobs --stop {name})")
                return job
        left = training.checkpoints - training.model.parts
        order = self._order(
            training.model, left, runs, reveals=training.reveals, steps=training.steps, epoch=training.epoch
        )
        return await self._start(order, list(programs.values()))

    async def resume_job(self, job: TrainingJob) -> TrainingJob:
        """What is left of a job that was stopped or has failed, as another; ``TrainingJob.resume`` says more."""
        former, seen = job.order, await self.job_news(job.id, 0, at_once=True)
        if seen.state is State.GOING:
            return job
        programs = await job.programs()
        found = {slot: await self._find(slot) for slot in sorted(former.slots)}
        network = found[former.slot]
        if network.version not in {former.start, *(run_of(job.id, serial) for serial in range(seen.begun))}:
            raise UsageError(f"another training has gone on from where this one of {job.name!r} was: resume that")
        done = network.parts - former.first
        await self._own_rules.spread(job.name)
        planned = dict[str, Planned]()
        for program in programs:
            bound = self._slots.bind_latest(program, job.name)
            others = self._slots.leave_after(program, former.slot)
            planned[program.digest] = Planned(program.digest, bound.bindings, others)
        left = former.runs if len(former.runs) == 1 else former.runs[done:]
        runs = [planned[each.program] for each in left]
        order = self._order(
            network, former.checkpoints - done, runs, reveals=former.reveals, steps=former.steps, epoch=former.epoch
        )
        needed = dict.fromkeys(order.programs)
        return await self._start(order, [program.encode() for program in programs if program.digest in needed])

    def _order(
        self,
        network: RemoteModel | RemoteData,
        left: int,
        runs: Sequence[Planned],
        *,
        reveals: tuple[Revealed, ...],
        steps: int,
        epoch: float,
    ) -> JobOrder:
        """From what there is of the network, so many checkpoints.  Raises UsageError for none."""
        if left < 1:
            raise UsageError(f"{network.name!r} has made all of its steps")
        now = time.time()
        return JobOrder(
            client=self.member.name,
            name=network.name,
            start=network.version,
            first=network.parts,
            checkpoints=left,
            runs=tuple(runs),
            most=2 * left + 64,
            reveals=reveals,
            steps=steps,
            epoch=epoch,
            when=now,
            until=now + HOLDS,
        )

    async def _start(self, order: JobOrder, programs: Sequence[bytes]) -> TrainingJob:
        signed = order.signed(self._keys, self.cluster)
        if len(signed.said) > MAX_STATEMENT_BYTES:
            raise UsageError(
                f"a rate that changes takes a program at each of {order.checkpoints} checkpoints: give larger `steps`"
            )
        message = StartJob(request=secrets.token_hex(16))
        payload = [signed.encode(), *programs]
        await self._board.ask(message, JobStarted, [self._coordinator], self._patience, payload)
        return TrainingJob(self, job_of(signed), order)

    async def jobs(self) -> list[TrainingJob]:
        """This client's, whatever has become of them, and those on what it owns; the newest first."""
        return [job for job, _ in await self.standings()]

    async def standings(self) -> list[tuple[TrainingJob, Standing]]:
        """Likewise, each with where it stands.  Raises PeerError."""
        await self._board.reach([self._coordinator])
        message = ListJobs(request=secrets.token_hex(16))
        answers = await self._board.ask(message, JobList, [self._coordinator], self._patience)
        found = []
        for buffer in answers[self._coordinator].buffers:
            seen = self._seen(buffer)
            job = TrainingJob(self, job_of(seen.order), JobOrder.read(seen.order, self.cluster))
            found.append((job, job.seen(seen)))
        return found

    async def job(self, sought: str) -> TrainingJob:
        """The newest of the network of that name, or that whose id begins so.  Raises NoSuchName."""
        for job in await self.jobs():
            if job.name == sought or job.id.startswith(sought):
                return job
        raise NoSuchName(f"there is no training {sought!r}: `tessera jobs` lists them")

    async def job_before(self, job: TrainingJob) -> TrainingJob | None:
        """That of this client's which has made what that job begins with, if it is one of a chain."""
        for other, standing in await self.standings():
            order = other.order
            if order.slot != job.order.slot or not order.first < job.order.first or not other.own:
                continue
            if any(run_of(other.id, serial) == job.order.start for serial in range(standing.begun)):
                return other
        return None

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
        self.last_run = prepared.account.report(prepared.predicted, prepared.security, shares, made.online)
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
