"""A party's runs on workers, among other members: where each other's workers are, and what comes of them.

Every party says on which of its workers a run is, over CURVE, and under which key that worker meets the others
(``Placed``); once all have, their workers connect, and a party is ready when its own has links to all of them.  So a
run is on workers at all parties, or at none: one that computes by itself says so and ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mpc.errors import PeerLost, PeerUnavailable, ProtocolViolation, TesseraError
from parties.members.cluster import Cluster, Member
from parties.messages.evidence import Evidence
from parties.messages.runs import Placed
from parties.messages.workers import Finished
from parties.servers.early import EarlyWords
from parties.servers.online import Online
from parties.servers.party_job import PartyJob
from parties.servers.placing import PlacedRun, Placing
from parties.servers.preparing_parts import PreparingParts
from parties.servers.server import Server
from parties.wire.messages import Payload

LAST_WORDS = 0.5
"""s that a party has to say why its worker has closed a link, before it is taken to be lost."""


class Elsewhere:
    """Of one party; ``engine`` is None where it computes by itself.  ``agree`` is called when a run has got further."""

    def __init__(
        self,
        server: Server[PartyJob],
        engine: Placing | None,
        online: Online,
        parts: PreparingParts,
        agree: Callable[[PartyJob], None],
    ) -> None:
        self._server, self._engine, self._online, self._parts, self._agree = server, engine, online, parts, agree
        self._early = EarlyWords[Placed]()
        self._follow(server.cluster)
        server.on(Placed, self._on_placed)
        server.succeeding.whenever(self._follow)
        if engine is not None:
            engine.watching = self

    @property
    def computes(self) -> bool:
        """Whether runs are on workers."""
        return self._engine is not None

    def _follow(self, cluster: Cluster) -> None:
        self._peers = [party for party in cluster.parties if party.name != self._server.member.name]

    def recall(self, job: PartyJob) -> None:
        """What others have said of the run before it was known here."""
        for peer, message in self._early.take(job.run):
            self._on_placed(peer, message, [])

    def begin(self, job: PartyJob, run: PlacedRun) -> None:
        """Our worker has it: tell the others."""
        job.placed = run
        self._server.set_deadline(job)
        for peer in self._peers:
            message = run.where(run.program.digest, peer.index)
            job.sent_offline.add(peer.name, self._server.endpoint.send(peer.name, message))
        self._meet(job)

    def _on_placed(self, peer: Member, message: Placed, _: Payload) -> None:
        job = self._server.jobs.get(message.run)
        if self._engine is None:
            raise PeerUnavailable(
                self._server.member.name, f"computes its runs by itself, and {peer.name} has them on workers: start"
                " all parties with --engine ray, or none",
            )  # fmt: skip
        if peer.index in job.places if job is not None else not self._early.keep(peer, message.run, message):
            raise ProtocolViolation(peer.name, "said twice on which worker a run is")
        if job is not None:
            job.places[peer.index] = message
            self._meet(job)

    def _meet(self, job: PartyJob) -> None:
        if job.placed is None or job.meeting or len(job.places) < len(self._peers):
            return
        for peer in self._peers:
            if job.places[peer.index].program != job.placed.program.digest:
                raise ProtocolViolation(peer.name, "has another program on its worker than the run is of")
        job.meeting = True
        job.placed.meet(job.places)

    # -- what our worker says --------------------------------------------------------------------------------------

    def met(self, run: str) -> None:
        job = self._server.jobs.get(run)
        if job is not None:
            job.met = True
            self._agree(job)

    def advanced(self, run: str) -> None:
        job = self._server.jobs.get(run)
        if job is not None:
            self._parts.stepped(job)

    def finished(self, run: str, message: Finished, payload: Payload) -> None:
        job = self._server.jobs.get(run)
        if job is not None:
            self._online.finished(job, message, payload)

    def broken(self, run: str, error: TesseraError, evidence: Evidence | None) -> None:
        job = self._server.jobs.get(run)
        if job is None:
            return
        job.evidence = job.evidence or evidence
        if isinstance(error, PeerLost) and error.peer != self._server.member.name:
            # Its worker has ended the run: whoever knows why is about to say so.
            asyncio.get_running_loop().call_later(LAST_WORDS, self._fail, run, error)
        else:
            self._server.fail(job, error)

    def _fail(self, run: str, error: TesseraError) -> None:
        job = self._server.jobs.get(run)
        if job is not None:
            self._server.fail(job, error)
