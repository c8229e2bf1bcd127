"""What the dealer deals for a run after its first part: one part after the other, as the last party gets on with it."""

from __future__ import annotations

from mpc.errors import PeerLost, ProtocolViolation, TesseraError
from mpc.rings import Buffer
from parties.host.counters import Phase
from parties.members.cluster import Member
from parties.messages.runs import DealtPart, Evaluated
from parties.servers.dealer_job import DealerJob
from parties.servers.server import Server
from parties.wire.messages import Payload


class DealingParts:
    """Of one dealer's runs.

    Part k is dealt when it may be there (``mpc.schedule``), by what the last party has said of how far it has got: what
    is under way, and what that party holds, is bounded by the program whatever it says.
    """

    def __init__(self, server: Server[DealerJob]) -> None:
        self._server = server
        server.on(Evaluated, self._on_evaluated)

    @property
    def _last(self) -> Member:
        return self._server.cluster.parties[-1]

    def go_on(self, job: DealerJob) -> None:
        """Deal the next part, if it may be there; the run is over here when all of them are."""
        server, dealing, bound = self._server, job.dealing, job.bound
        if dealing is None or bound is None:
            return
        schedule = bound.program.schedule(server.cluster.settings.security)
        if job.parts == len(schedule.parts):
            server.end(job)
        elif job.parts < schedule.allowed(job.evaluated):
            job.at_it = True
            server.set_deadline(job)
            server.in_background(
                job,
                lambda: next(dealing.parts),
                lambda part, seconds: self._send(job, part, seconds),
                workers=server.governor.offline,
                expected=server.governor.part_seconds(bound.program),
                reach=[self._last.name],
            )
        else:
            # It may wait for its inputs as long as any run that is prepared, and then says so.
            server.set_deadline(job, self._patience)

    @property
    def _patience(self) -> float:
        settings = self._server.cluster.settings
        return settings.prepared_timeout + settings.round_timeout

    def _send(self, job: DealerJob, part: tuple[Buffer, ...], seconds: float) -> None:
        job.at_it = False
        self._server.metrics.spent(Phase.DEALING, seconds)
        collected = 0
        if job.collected and job.bound is not None:
            collected = job.bound.program.schedule(self._server.cluster.settings.security).dealt[job.parts]
        message = DealtPart(run=job.run, part=job.parts, seconds=seconds, collected=collected)
        self._server.endpoint.send(self._last.name, message, list(part))
        job.parts += 1
        self.go_on(job)

    def _on_evaluated(self, party: Member, message: Evaluated, _: Payload) -> None:
        job = self._server.jobs.get(message.run)
        if job is None or job.dealing is None or job.bound is None or party != self._last:
            raise ProtocolViolation(party.name, "says how far it has got with a run that is not dealt for in parts")
        if not job.evaluated < message.depths <= job.bound.program.rounds + 1:
            raise ProtocolViolation(
                party.name, f"says that it has evaluated {message.depths} depths after {job.evaluated}"
            )
        job.evaluated = message.depths
        if not job.at_it:
            self.go_on(job)

    def overdue(self, job: DealerJob) -> TesseraError:
        """Of a run that is dealt for in parts."""
        if job.at_it:
            return TesseraError("dealing a part of this program takes longer than round_timeout: raise it")
        return PeerLost(self._last.name, f"has not got on with a run, nor given it up, within {self._patience:g} s")
