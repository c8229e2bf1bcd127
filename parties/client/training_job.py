"""A training that goes on at the parties, as its client sees it: where it stands, what it has revealed, its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpc.errors import PeerError, ProtocolViolation, TesseraError
from mpc.program import Program
from parties.client.progress import Progress, in_steps, told
from parties.client.remote_model import RemoteModel
from parties.messages.bindings import BoundProgram, slot_of
from parties.messages.failures import error_of
from parties.messages.jobs import Checkpoint, JobOrder, JobSeen, State, run_of

if TYPE_CHECKING:
    from parties.client.jobs import Jobs

log = logging.getLogger(__name__)

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

    @property
    def own(self) -> bool:
        """Whether it is this client's, who alone reads what it reveals, and stops it."""
        return self.order.client == self._client.member.name

    async def standing(self) -> Standing:
        """Now.  Raises PeerError."""
        return self.seen(await self._client.job_news(self.id, 0, at_once=True))

    async def progress(self, known: int = 0) -> list[Progress]:
        """Of each checkpoint so far, but for the first ``known``.  Raises PeerError, MacCheckError."""
        found = list[Progress]()
        while True:
            seen = await self._client.job_news(self.id, known + len(found), at_once=True)
            if not seen.made:
                return found
            found += await self._made(known + len(found), seen.made)

    async def before(self) -> list[Progress]:
        """Of each checkpoint of the jobs that this one goes on from, the oldest first, as far as they are kept.

        Raises as ``progress``.
        """
        former = await self._client.job_before(self)
        if former is None:
            return []
        made = await former.progress()
        return [*await former.before(), *made[: self.order.first - former.order.first]]

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

    async def resume(self) -> TrainingJob:
        """What is left of it, as a job of its own, once it was stopped or has failed; or itself, if it goes on.

        On the data that is there now, by the leave that there is.  Raises UsageError where nothing is left, or another
        training goes on under the name; NotPermitted, and what else ``submit`` raises.
        """
        return await self._client.resume_job(self)

    async def programs(self) -> list[Program]:
        """Of its runs, each once.  Raises ProtocolViolation."""
        for digest in self.order.programs:
            await self._program(digest)
        return [self._programs[digest] for digest in self.order.programs]

    def seen(self, seen: JobSeen) -> Standing:
        """What the coordinator tells of it."""
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
