"""What a party prepares of a run after its first part: one part after the other, no further ahead than it may be.

The last party is sent what it needs for each; it checks that this is the part that is due, and that it may be there.
The others need nothing but their seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpc.errors import ProgramError, ProtocolViolation
from parties.host.counters import Phase
from parties.members.cluster import Member
from parties.messages.runs import Dealt, DealtPart, Evaluated
from parties.servers.party_job import PartyJob
from parties.servers.server import Server
from parties.stock.chain import ledger_name
from parties.tally import Sent
from parties.wire.messages import Payload, payload_bytes


class PreparingParts:
    """Of one party's runs.

    ``read`` gives a part of what was dealt ahead of time, for a bound program, and blocks; ``prepared`` is called after
    each part, and ``dealt`` once the dealer has dealt the last one.
    """

    def __init__(
        self,
        server: Server[PartyJob],
        read: Callable[[Dealt, str, int], Payload],
        prepared: Callable[[PartyJob], None],
        dealt: Callable[[PartyJob], None],
    ) -> None:
        self._server, self._read, self._prepared, self._dealt = server, read, prepared, dealt
        server.on(DealtPart, self._on_part)

    @property
    def _is_last(self) -> bool:
        return self._server.cluster.parties[-1].name == self._server.member.name

    def _on_part(self, dealer: Member, message: DealtPart, payload: Payload) -> None:
        job = self._server.jobs.get(message.run)
        if job is None or job.dealt is None:
            raise ProtocolViolation(dealer.name, "dealt a part of a run that it has not begun to deal for")
        if not self._is_last or job.assigned.number:
            raise ProtocolViolation(dealer.name, "dealt a part of a run for which nothing more is dealt")
        if message.part != job.dealt_parts:
            raise ProtocolViolation(dealer.name, f"dealt part {message.part} of a run, where {job.dealt_parts} is due")
        job.dealt_parts += 1
        job.dealt_later += Sent(1, payload_bytes(payload) + message.collected)
        job.dealing_seconds += message.seconds
        job.to_prepare.append(payload)
        if job.bound is None:
            self.charge(job, payload)
        else:
            self.check(job)
            if job.prepared_run is not None and not self.awaits(job):
                self._dealt(job)
            self.go_on(job)

    def charge(self, job: PartyJob, payload: Payload) -> None:
        """Its client has not asked for the run here, and perhaps never will.  Raises ServerBusy, TooLarge."""
        charge = self._server.governor.charge(job.on_behalf, payload_bytes(payload), "what was dealt for a run")
        job.dealt_charges.append(charge)
        job.charges.append(charge)

    def check(self, job: PartyJob) -> None:
        """What has been dealt, once the program is known.  Raises ProtocolViolation."""
        if job.program is None or job.assigned.number:
            return
        schedule, dealer = job.program.schedule(self._server.cluster.settings.security), self._server.cluster.dealer
        if job.dealt_parts > schedule.allowed(job.told):
            raise ProtocolViolation(dealer.name, "dealt more of a run than may be there at a time")
        sizes = schedule.dealt[job.dealt_parts - len(job.to_prepare) : job.dealt_parts]
        if job.assigned.source is not None:
            # Whoever collects them sees what they are.
            sizes = (0,) * len(job.to_prepare)
        if list(map(payload_bytes, job.to_prepare)) != list(sizes):
            raise ProtocolViolation(dealer.name, "dealt a part of a run that is not as long as what it needs")

    def go_on(self, job: PartyJob) -> None:
        """Prepare the next part, if it may be there and is."""
        run, bound = job.prepared_run, job.bound
        if run is None or bound is None or job.preparing or run.prepared == len(run.schedule.parts):
            return
        if run.prepared >= run.schedule.allowed(run.evaluated):
            return
        if self._is_dealt(job) and not job.to_prepare:
            if not job.ready:
                self._server.set_deadline(job)
            return
        payload = job.to_prepare.popleft() if job.to_prepare else []

        def part() -> Sequence[memoryview]:
            if job.shelved:
                return []
            if self.unread(job):
                return self._read(job.assigned, ledger_name(bound, job.assigned), run.prepared)
            return payload if job.collecting is None else job.collecting.wait(run.schedule.dealt[run.prepared])

        def prepare() -> None:
            try:
                run.prepare(part())
            except ProgramError as error:
                dealer = self._server.cluster.dealer.name
                raise ProtocolViolation(dealer, f"sent the wrong randomness: {error}") from None

        job.preparing = True
        self._server.in_background(
            job,
            prepare,
            lambda _, seconds: self._made(job, seconds),
            workers=self._server.governor.offline,
            expected=self._server.governor.part_seconds(run.program),
        )

    def _made(self, job: PartyJob, seconds: float) -> None:
        job.preparing = False
        job.prepare_seconds += seconds
        self._server.metrics.spent(Phase.PREPARING, seconds)
        self._prepared(job)
        self.go_on(job)

    def stepped(self, job: PartyJob) -> None:
        """The online phase has got further: more may be there."""
        run = job.prepared_run
        if run is None or run.prepared == len(run.schedule.parts):
            return
        allowed, schedule = run.schedule.allowed(run.evaluated), run.schedule
        if self.awaits(job) and allowed > schedule.allowed(job.told):
            job.told = run.evaluated
            message = Evaluated(run=job.run, depths=run.evaluated)
            dealer = self._server.cluster.dealer.name
            job.sent_offline.add(dealer, self._server.endpoint.send(dealer, message))
        self.go_on(job)

    def _is_dealt(self, job: PartyJob) -> bool:
        """Whether parts come from the dealer."""
        return self._is_last and not job.assigned.number

    def awaits(self, job: PartyJob) -> bool:
        """Whether there is more to be dealt."""
        run = job.prepared_run
        return run is not None and self._is_dealt(job) and job.dealt_parts < len(run.schedule.parts)

    def unread(self, job: PartyJob) -> bool:
        """Whether there is more of what was dealt ahead of time."""
        run = job.prepared_run
        if run is None or not self._is_last or not job.assigned.number:
            return False
        return run.prepared < len(run.schedule.parts)
