"""Workers that play a recorded run again, a party's and a dealer's: whatever would be computed is waited for.

Everything else is a worker's and a dealer's own: links, messages, turns, who is asked for what.  A worker has one
processor, whose time its runs share.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.workers.recording import SECURITY, Part, Recording, Vector
from mpc.errors import ProgramError
from mpc.program import Program
from mpc.rings import Array, Buffer, Rings
from mpc.rings.prg import Seed
from mpc.security import Security
from parties.members.cluster import Member, Role
from parties.messages.runs import Opening
from parties.messages.workers import Take
from parties.servers.party_job import Heard
from parties.servers.rounds import next_round
from parties.servers.testimony import Testimony
from parties.stored.stored_version import ReadForRun
from parties.wire.messages import Message, Payload
from parties.worker.computation import Computation
from parties.worker.computing import Computing
from parties.worker.dealing import DealingWork
from parties.worker.post import Post, Work
from parties.worker.worker import Worker
from protocols.randomness import source
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import Dealing, StoredMasks
from protocols.readings.drawing import AS_IT_IS, Order
from protocols.readings.mac_check import Round
from protocols.readings.party import Exchange, PartyRun


class Processor:
    """Of one worker: what is computed on it takes ``stretch`` times as long as it was measured to; of several threads
    that compute at a time each gets on as much more slowly, as the system would have it.
    """

    def __init__(self, stretch: float) -> None:
        self._stretch, self._changed = stretch, threading.Condition()
        self._threads = 0
        self._busy = 0.0
        self._each, self._until = 0.0, time.monotonic()
        """s that each thread that was at it all the time has had, until then."""

    def compute(self, seconds: float) -> None:
        """Blocks: in a thread."""
        with self._changed:
            self._pass_time()
            end = self._each + self._stretch * seconds
            self._threads += 1
            self._changed.notify_all()
            while self._each < end:
                # Whoever comes or goes meanwhile changes what is left.
                self._changed.wait((end - self._each) * self._threads)
                self._pass_time()
            self._threads -= 1
            self._changed.notify_all()

    def busy_until_now(self) -> float:
        """s in which something was computed."""
        with self._changed:
            self._pass_time()
            return self._busy

    def _pass_time(self) -> None:
        now = time.monotonic()
        passed, self._until = now - self._until, now
        if self._threads:
            self._each += passed / self._threads
            self._busy += passed


class PlayedRun(PartyRun):
    """A party's run, of which nothing is computed: what was sent is sent again."""

    def __init__(self, program: Program, part: Part, processor: Processor) -> None:
        self.program, self.seconds, self.schedule = program, defaultdict(float), program.schedule(SECURITY)
        self.prepared = self.evaluated = 0
        self._part, self._processor = part, processor
        self.prepare([])

    def prepare(self, payload: source.Payload) -> None:
        self._processor.compute(self._part.preparing[self.prepared])
        self.prepared += 1

    def online(self, masked_inputs: Sequence[Array]) -> Exchange:
        return self._steps()

    def _steps(self) -> Exchange:
        *rounds, last = self._part.steps
        for step in rounds:
            self._processor.compute(step.seconds)
            self.evaluated = step.evaluated
            yield _sent(step.sent)
        self._processor.compute(last.seconds)
        self.evaluated = last.evaluated
        return _sent(last.sent)

    @property
    def kept(self) -> Any:
        raise ProgramError("what is played again keeps nothing")


def _sent(vectors: Sequence[Vector]) -> list[Buffer]:
    return [vector.array() for vector in vectors]


class PlayedComputation(Computation):
    """Of a run that is played again."""

    def __init__(self, recording: Recording, processor: Processor, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._recording, self._processor = recording, processor

    def _made(
        self, program: Program, author: Member | None, read: ReadForRun, dealt: Payload
    ) -> tuple[PartyRun, Testimony]:
        run = PlayedRun(program, self._recording.parties[self._me.index], self._processor)
        return run, Testimony(self._cluster, self._me, self._signed, author, self._take.of, read.parts, None)

    async def _step(
        self, exchange: Exchange, testimony: Testimony, number: int, received: Sequence[Heard] | None
    ) -> tuple[Opening | None, Round]:
        # In a thread, however short: workers that share a process wait for none of the others.
        work = partial(next_round, exchange, testimony, self._peers, number, received)
        return await self._in_thread(work, self._known()[0].program)


class PlayedComputing(Computing):
    """What a simulated worker does."""

    def hear(self, message: Message, payload: Payload) -> None:
        # What was dealt has come, and nobody looks at it: of many runs it would take more memory than one machine has.
        super().hear(message, payload[:1] if isinstance(message, Take) else payload)


class PlayedDealing(TrustedDealer):
    """Deals what was dealt for the recorded run: its head gives seeds, and a worker takes its time for corrections."""

    def __init__(self, recording: Recording, processor: Processor | None = None, rings: Rings | None = None) -> None:
        super().__init__(rings)
        self._recording, self._processor = recording, processor

    def deal(
        self,
        program: Program,
        parties: int,
        stored: Mapping[str, StoredMasks],
        security: Security,
        order: Order = AS_IT_IS,
    ) -> Dealing:
        return self._recording.dealt()

    def corrections(
        self,
        program: Program,
        stored: Mapping[str, StoredMasks],
        security: Security,
        seeds: Sequence[Seed],
        order: Order = AS_IT_IS,
    ) -> Iterator[tuple[Buffer, ...]]:
        for part in self._recording.dealt().parts:
            if self._processor is not None:
                self._processor.compute(self._recording.dealing / len(self._recording.corrections))
            yield part


class PlayingWorker(Worker):
    """With a processor of its own."""

    def __init__(self, recording: Recording, stretch: float, host: str) -> None:
        super().__init__(host)
        self._recording, self.processor = recording, Processor(stretch)

    def _work(self, post: Post) -> Work:
        if post.me.role is Role.DEALER:
            post.source = PlayedDealing(self._recording, self.processor)
            return DealingWork(post)
        return PlayedComputing(post, partial(PlayedComputation, self._recording, self.processor))
