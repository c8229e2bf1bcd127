"""One run at a worker: prepared from what its head has handed over, then computed with the other parties' workers."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from mpc.cost import first_of_check
from mpc.errors import PeerLost, ProgramError, ProtocolViolation, TesseraError
from mpc.operation import Value
from mpc.program import Program
from mpc.rings import Array, Rings
from mpc.security import Security
from parties.members.cluster import Cluster, Member
from parties.messages.evidence import Evidence, Said
from parties.messages.runs import Inputs, Opening
from parties.messages.workers import Finished, Meet, Meeting, Start, Take
from parties.servers.engine import first_part
from parties.servers.governor import Governor, evaluating_seconds
from parties.servers.party_job import Heard
from parties.servers.rounds import heard, is_long, next_round, out_of_range
from parties.servers.testimony import Testimony
from parties.stock.collecting import Collecting
from parties.stock.shelf import Shelf
from parties.stored.stored_version import ReadForRun
from parties.tally import Tally
from parties.wire.direct import DirectLink, Doors, LinkKey, dial
from parties.wire.messages import Buffer, Payload
from parties.worker.disputing import Disputing
from parties.worker.shelving import Reading
from protocols.randomness.source import RandomnessSource
from protocols.readings.drawing import Order
from protocols.readings.mac_check import OtherTranscript, Round
from protocols.readings.party import Exchange, OutOfRange, PartyRun

Result = TypeVar("Result")

Sign = Callable[[str, Said], Awaitable[bytes]]
"""Of a run: the head's signature of what is said in its name."""

_BESIDE = 1 << 14
"""Bytes of payload that a message of a run may have beside what all of the program opens."""


class Computation:
    """Of one run.  Whatever it raises ends this run alone."""

    def __init__(
        self,
        take: Take,
        cluster: Cluster,
        me: Member,
        governor: Governor,
        source: RandomnessSource,
        doors: Doors,
        sign: Sign,
        advanced: Callable[[int], None],
        shelf: Shelf | None = None,
    ) -> None:
        self._take, self._cluster, self._me, self._governor, self._source = take, cluster, me, governor, source
        self._doors, self._sign, self._advanced, self._shelf = doors, sign, advanced, shelf
        self._peers = [party for party in cluster.parties if party != me]
        self._malicious = cluster.settings.security is Security.MALICIOUS
        self._loop = asyncio.get_running_loop()
        self._key = LinkKey()
        self._links: dict[int, DirectLink] = {}
        self.entrances: dict[int, bytes] = {}
        """By index of the parties whose workers come in here: those listed later."""
        self._run: PartyRun | None = None
        self._testimony: Testimony | None = None
        self._disputing: Disputing
        """Once it is online."""
        self._more = asyncio.Event()
        self._collecting: Collecting | Reading | None = None
        """What was dealt for it, if it does not come through heads."""
        self.over = False

    @property
    def _rings(self) -> Rings:
        return self._source.rings

    @property
    def public(self) -> bytes:
        """Of its links' key."""
        return self._key.public

    @property
    def evidence(self) -> Evidence | None:
        """Of what has made it fail."""
        return None if self._testimony is None else self._testimony.evidence

    # -- offline ---------------------------------------------------------------------------------------------------

    async def prepare(self, program: Program, dealt: Payload, stored: Mapping[tuple[str, str], Value]) -> float:
        """The run, up to its first part; s that it took."""
        take = self._take
        if take.source is not None:
            self._collecting = Collecting(self._cluster, take.source)
        elif take.place is not None:
            self._collecting = Reading(self._shelf, take.place, self._me.name)
        if self._collecting is not None:
            schedule = program.schedule(self._cluster.settings.security)
            dealt = [*dealt, *await self._collecting.part(schedule.dealt[0])]

        def work() -> float:
            started = time.perf_counter()
            self._governor.learn(program)
            author = self._cluster.client(take.client) if take.inputs else None
            read = ReadForRun(stored, take.parts, Order(take.drawn, take.part))
            self._run, self._testimony = self._made(program, author, read, dealt)
            return time.perf_counter() - started

        seconds = await self._in_turn(work, take.expected)
        for peer in self._peers:
            if peer.index > self._me.index:
                self.entrances[peer.index] = self._doors.reserve(peer.name, self._most(program))
        return seconds

    def _made(
        self, program: Program, author: Member | None, read: ReadForRun, dealt: Payload
    ) -> tuple[PartyRun, Testimony]:
        """In a thread."""
        of = self._take.of
        return first_part(self._cluster, self._me, self._source, self._signed, program, of, author, read, dealt)

    async def prepare_more(self, payload: Payload) -> None:
        """The next part."""
        run = self._known()[0]
        if self._collecting is not None:
            payload = await self._collecting.part(run.schedule.dealt[run.prepared])
        await self._in_turn(lambda: run.prepare(payload), self._governor.part_seconds(run.program))
        self._more.set()

    async def _in_turn(self, work: Callable[[], float | None], expected: float) -> float:
        try:
            return (
                await self._governor.offline.run(self._take.client, work, seconds=expected, unwanted=lambda: self.over)
                or 0.0
            )
        except ProgramError as error:
            raise ProtocolViolation(self._cluster.dealer.name, f"sent the wrong randomness: {error}") from None

    def _known(self) -> tuple[PartyRun, Testimony]:
        if self._run is None or self._testimony is None:
            raise ProgramError("the run is not prepared")
        return self._run, self._testimony

    @staticmethod
    def _most(program: Program) -> int:
        """Bytes that another worker may send in one round: more than all that is opened, with MACs."""
        return 16 * program.elements + _BESIDE

    # -- links -----------------------------------------------------------------------------------------------------

    async def meet(self, message: Meet) -> None:
        """Links with the workers of all other parties.  Raises PeerLost, ProtocolViolation."""
        others = {meeting.index: meeting for meeting in message.others}
        if set(others) != {peer.index for peer in self._peers}:
            raise ProgramError("a run is to be computed with other parties than there are")
        async with asyncio.timeout(self._cluster.settings.round_timeout) as patience:
            try:
                made = await asyncio.gather(*(self._link(peer, others[peer.index]) for peer in self._peers))
            except (TimeoutError, asyncio.CancelledError):
                if not patience.expired():
                    raise
                raise PeerLost(self._peers[0].name, "had no worker that came for a run in time") from None
        self._links = {peer.index: link for peer, link in zip(self._peers, made, strict=True)}

    async def _link(self, peer: Member, meeting: Meeting) -> DirectLink:
        run, _ = self._known()
        about = f"{self._take.of.cluster} {self._take.run} {min(self._me.index, peer.index)}".encode()
        we_dial = peer.index < self._me.index
        try:
            keys = self._key.agreed(meeting.key, about, we_dial=we_dial)
        except ValueError:
            raise ProtocolViolation(peer.name, "vouched for a key that is none") from None
        if we_dial:
            return await dial(peer.name, meeting.address, meeting.door, keys, self._most(run.program))
        return await self._doors.come_in(self.entrances[peer.index], keys)

    # -- online ----------------------------------------------------------------------------------------------------

    async def compute(self, message: Start, payload: Payload) -> tuple[Finished, list[Buffer]]:
        """All rounds, on the client's masked inputs; what is sent to the head.  Raises TesseraError, judged."""
        testimony = self._known()[1]
        patience = self._cluster.settings.round_timeout
        self._disputing = disputing = Disputing(self._peers, self._links, testimony, patience)
        try:
            return await self._rounds(message, payload)
        except OutOfRange as error:
            raise out_of_range(error, self._take.client) from None
        except OtherTranscript as error:
            if disputing.possible:
                raise await disputing.settle(self._take.run) from None
            raise testimony.judge(error) from None
        except TesseraError as error:
            raise testimony.judge(error) from None

    async def _rounds(self, start: Start, payload: Payload) -> tuple[Finished, list[Buffer]]:
        run, testimony = self._known()
        program, sent = run.program, Tally()
        if self._take.inputs:
            testimony.take_inputs(Inputs(run=self._take.run, masks="", signature=start.signature), payload)
        testimony.check_inputs()
        types = [program.nodes[i].type for i in program.supplied]
        inputs = [self._rings[t.ring].read(buffer, t.shape) for buffer, t in zip(payload, types, strict=True)]
        exchange, number, waited = run.online(inputs), 0, 0.0
        received: Sequence[Heard] | None = None
        while True:
            await self._provided(run)
            opening, outgoing = await self._step(exchange, testimony, number, received)
            self._advanced(run.evaluated)
            if opening is None:
                break
            for peer in self._peers:
                sent.add(peer.name, self._links[peer.index].send(opening, list(outgoing)))
            sent_at = time.perf_counter()
            if self._malicious:
                await self._in_thread(run.catch_up, program) if is_long(program) else run.catch_up()
            received = await self._everybody(number, outgoing, testimony)
            waited += time.perf_counter() - sent_at
            number += 1
        return self._finished(run, outgoing, number + 1, waited, sent)

    def _finished(
        self, run: PartyRun, outputs: Sequence[Array], rounds: int, waited: float, sent: Tally
    ) -> tuple[Finished, list[Buffer]]:
        buffers: list[Buffer] = [np.ascontiguousarray(output) for output in outputs]
        kept: dict[str, tuple[int, ...]] = {}
        if run.program.kept:
            seed, tensors = run.kept
            buffers.append(bytes(seed))
            for name, array in tensors.items():
                kept[name] = array.shape
                node = run.program.nodes[run.program.kept[name]]
                buffers.append(self._rings[node.type.ring].buffer(array))
        message = Finished(
            run=self._take.run,
            rounds=rounds,
            seconds=dict(run.seconds),
            waited=waited,
            sent=dict(sent),
            outputs=len(outputs),
            kept=kept,
        )
        return message, buffers

    async def _provided(self, run: PartyRun) -> None:
        """Until what the next step takes is prepared.  Raises PeerLost."""
        patience = self._cluster.settings.round_timeout / 2
        while not run.provided:
            self._more.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._more.wait()
            except TimeoutError:
                raise PeerLost(self._cluster.dealer.name, "dealt nothing more for a run in time") from None

    async def _step(
        self, exchange: Exchange, testimony: Testimony, number: int, received: Sequence[Heard] | None
    ) -> tuple[Opening | None, Round]:
        program = self._known()[0].program
        work = functools.partial(next_round, exchange, testimony, self._peers, number, received)
        # What is signed is asked of the head, and waited for: not in the event loop.
        if is_long(program) or (self._malicious and number >= first_of_check(program)):
            return await self._in_thread(work, program)
        started = time.thread_time()
        found = work()
        self._governor.pace.charge(self._take.client, time.thread_time() - started)
        return found

    async def _in_thread(self, work: Callable[[], Result], program: Program) -> Result:
        return await self._governor.online.run(
            self._take.client, work, seconds=evaluating_seconds(program), unwanted=lambda: self.over
        )

    async def _everybody(self, number: int, outgoing: Round, testimony: Testimony) -> list[Heard]:
        """What all other workers open in this round.  Raises what it comes to when one of them disputes the run."""
        found: dict[str, Heard] = {}
        while missing := [peer for peer in self._peers if peer.name not in found]:
            for heard_now in await asyncio.gather(*(self._hear(p, number, outgoing, testimony) for p in missing)):
                if heard_now is not None:
                    found[heard_now.peer] = heard_now
            if self._disputing.begun:
                raise await self._disputing.settle(self._take.run)
        return [found[peer.name] for peer in self._peers]

    async def _hear(self, peer: Member, number: int, outgoing: Round, testimony: Testimony) -> Heard | None:
        """What another worker opens in this round, checked but for its numbers; None if it disputes the run."""
        seconds = self._cluster.settings.round_timeout
        try:
            async with asyncio.timeout(seconds):
                message, buffers = await self._links[peer.index].receive()
        except TimeoutError:
            raise PeerLost(peer.name, f"sent no opening of round {number} within {seconds:g} s") from None
        except PeerLost:
            raise PeerLost(
                peer.name, "has lost the worker that computed this run, of which nothing was revealed: run it again"
            ) from None
        if isinstance(message, Opening) and message.run == self._take.run and message.round == number:
            return heard(peer, number, message, buffers, outgoing, testimony)
        if not self._disputing.take(peer, message):
            raise ProtocolViolation(peer.name, f"sent something else than its opening of round {number}")
        return None

    def _signed(self, said: Said) -> bytes:
        """Of the head; in a thread."""
        asked = asyncio.run_coroutine_threadsafe(self._ask(said), self._loop)
        return asked.result(self._cluster.settings.round_timeout)

    async def _ask(self, said: Said) -> bytes:
        return await self._sign(self._take.run, said)

    def close(self) -> None:
        """Nothing of it is wanted any more.  Idempotent."""
        self.over = True
        self._more.set()
        for door in self.entrances.values():
            self._doors.forget(door)
        for link in self._links.values():
            link.close()
        if self._collecting is not None:
            self._collecting.close()
