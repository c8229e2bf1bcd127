"""A party's process: holds shares of models, prepares runs offline, and runs them when the inputs arrive.

Everything here reacts to messages; nothing waits.  A run moves through: announced (program or randomness is there),
preparing (a thread expands seeds), ready, online (one step a round, `parties.servers.online`), ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from mpc.errors import PeerError, ProgramError, ProtocolViolation, TesseraError
from mpc.operation import PartyContext
from mpc.rings import field_of
from parties.host.counters import Phase
from parties.members.cluster import Cluster, Member
from parties.messages.bindings import BoundProgram
from parties.messages.check import Quota, QuotaSeen, RoomSeen
from parties.messages.runs import Dealt, Failed, Prepare, Ready
from parties.messages.status import SecretSeen, WorkersSeen
from parties.messages.stock import Agreed, StockDropped, StockItem, agreement
from parties.operate.check.desk import CheckDesk
from parties.operate.status.desk import StatusDesk
from parties.servers.audit_answers import AuditAnswers
from parties.servers.early import EarlyWords
from parties.servers.elsewhere import Elsewhere
from parties.servers.engine import Engine, LocalEngine, Made, Task
from parties.servers.governor import dealing_seconds
from parties.servers.host import Host
from parties.servers.online import Online
from parties.servers.party_job import PartyJob
from parties.servers.party_jobs import PartyJobs
from parties.servers.placing import PlacedRun, Placing
from parties.servers.preparing_parts import PreparingParts
from parties.servers.reporting import Reporting
from parties.servers.requests_desk import RequestsDesk
from parties.servers.rounds import out_of_range
from parties.servers.rules_desk import RulesDesk
from parties.servers.secrets_desk import SecretsDesk
from parties.servers.server import Server
from parties.stock.chain import ledger_name
from parties.stock.collecting import Collecting
from parties.stock.items import SpentItem
from parties.stock.material import Material
from parties.stored.gate import Gate
from parties.stored.party_secrets import PartySecrets
from parties.stored.party_versions import PartyVersions
from parties.stored.quotas import MAX_RULES
from parties.stored.stored_version import StoredVersion
from parties.stored.uploads import MAX_OF_A_CLIENT
from parties.wire.messages import Payload
from protocols.randomness.source import RandomnessSource
from protocols.readings.mac_check import OtherTranscript
from protocols.readings.party import OutOfRange


class PartyServer(Server[PartyJob]):
    """One party of the cluster."""

    def __init__(self, host: Host[RandomnessSource]) -> None:
        workforce = host.workforce
        super().__init__(host, PartyJob, 1 if workforce is None else workforce.wanted)
        cluster, member, keys, folder = host.cluster, host.member, host.keys, host.folder
        self._source, self._rings = host.source, host.rings
        self.parties = len(cluster.parties)
        self._peers = [p for p in cluster.parties if p != member]
        self._early = EarlyWords[Agreed]()
        dealer = [cluster.dealer.name]
        self.material = Material(cluster, member, keys, folder, lambda m: self.tell(dealer, m), self.proofs.of_session)
        self._disk: PartyVersions | None = None
        try:
            self._disk = PartyVersions(folder, keys, member.name)
            self._secrets = PartySecrets(self._disk, cluster, field_of(self._rings))
            self._desk = SecretsDesk(self, self._secrets, PartyContext(member.index, self.parties, rings=self._rings))
            RequestsDesk(self, self._disk, self._secrets.look_up)
            self._rules_desk = RulesDesk(self, self._secrets.rules)
            self._trainings = PartyJobs(self, self._disk, self._secrets.look_up)
            self._stock_reporting = Reporting(self, cluster.dealer.name, self.material.what_is_here)
        except BaseException:
            self._close()
            raise
        self.on(Prepare, self._on_prepare)
        self.on(Dealt, self._on_dealt)
        self.on(Agreed, self._on_agreed)
        self._parts = PreparingParts(self, self.material.take_later, self._more_prepared, self._watch_needed)
        self.online = Online(self, self._rings, self._desk, self._parts, self._trainings.note)
        self._engine: Engine[Task, Made]
        placing = None
        if workforce is None:
            self._engine = LocalEngine(cluster, member, self._source, self.proofs.sign)
        else:
            memory, in_use = self.governor.admission.at_once, self._secrets.is_in_use
            self._engine = placing = Placing(
                cluster, member, workforce, self._rings, self.proofs.sign, in_use, memory, self.material,
                self.spawn,
            )  # fmt: skip
            self.material.shelves = placing.shelves
        self.succeeding.whenever(self._engine.follow)
        self.whenever_leave_changes(self._engine.sweep)
        self._elsewhere = Elsewhere(self, placing, self.online, self._parts, self._agree)
        self.on(StockItem, lambda _, message, payload: self.spawn(self.material.add(message, payload)))
        self.on(StockDropped, lambda _, message, __: self.spawn(self.material.drop(message)))
        self.succeeding.whenever(self._follow)
        CheckDesk(self, folder, self._check_databases)
        AuditAnswers(self, folder)
        StatusDesk(self, self.look)

    async def serve(self) -> None:
        self.spawn(self._desk.reporting.work())
        self.spawn(self._stock_reporting.work())
        self._rules_desk.begin()
        try:
            await self._engine.open()
            await super().serve()
        finally:
            self._close()

    def _follow(self, cluster: Cluster) -> None:
        self._peers = [party for party in cluster.parties if party.name != self.member.name]

    def _check_databases(self) -> None:
        self.audit.check()
        self.material.ledger.check()
        if self._disk is not None:
            self._disk.check()

    def _close(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.close()
        self.material.ledger.close()
        if self._disk is not None:
            self._disk.close()

    def cheated(self, session: str) -> None:
        self.spawn(asyncio.to_thread(self.material.destroy, session))

    # -- offline ---------------------------------------------------------------------------------------------------

    def _on_prepare(self, client: Member, message: Prepare, payload: Payload) -> None:
        if len(payload) != 1:
            raise ProtocolViolation(client.name, "sent a run without its program")
        self.begin(client, message, payload[0])

    def begin(
        self,
        client: Member,
        message: Prepare,
        program: memoryview,
        training: str = "",
        first: Callable[[], None] = lambda: None,
        last: Callable[[BoundProgram], None] = lambda _: None,
    ) -> None:
        """A run of that client's; or of a ``training`` job, looked at ``first`` and ``last`` as well, in a thread."""
        job = self.claim_job(message.run, client, self.cluster.servers, training)
        job.soon = message.soon
        expected = self.charge_program(job, program)

        def check() -> BoundProgram:
            first()
            bound = self.gate.admit(program, client.name, message)
            last(bound)
            self._source.check(bound.program, self.cluster.settings.security)
            self.governor.learn(bound.program)
            return bound

        self.in_background(
            job,
            check,
            lambda bound, _: self._announced(job, client, bound),
            workers=self.governor.desk,
            expected=expected,
        )
        self._recall(job)

    def _announced(self, job: PartyJob, client: Member, bound: BoundProgram) -> None:
        for charge in job.dealt_charges:
            charge.release()
        self.admit(job, bound)
        if bound.keep:
            self._desk.check_keeping(client, bound.keep, job.run, len(bound.program.kept))
        job.bound = bound
        self._prepare(job)

    def _on_dealt(self, dealer: Member, message: Dealt, payload: Payload) -> None:
        job = self.open_job(message.run, message.client)
        if job.dealt is not None or job.prepared_run is not None:
            raise ProtocolViolation(dealer.name, "dealt twice for one run")
        if message.source is not None and (message.number or self.member != self.cluster.parties[-1]):
            raise ProtocolViolation(dealer.name, "has something collected that is not dealt for this party's run")
        job.dealt, job.dealt_parts = (message, payload), 1
        if job.bound is None:
            self._parts.charge(job, payload)
        self._recall(job)
        self._prepare(job)

    def _recall(self, job: PartyJob) -> None:
        """What other parties have said of the run before it was known here."""
        for peer, message in self._early.take(job.run):
            self._on_agreed(peer, message, [])
        self._elsewhere.recall(job)

    def _prepare(self, job: PartyJob) -> None:
        """Once program and randomness are both there: expand and precompute, in a thread."""
        bound, client = job.bound, job.client
        if bound is None or client is None or job.dealt is None:
            return
        message, payload = job.dealt
        if message.program != bound.program.digest:
            raise ProgramError("the dealer and this party were given different programs for one run")
        if message.bindings != bound.bindings_digest:
            raise ProgramError(
                "the dealer and this party were told that a run reads different versions, or by different rules, or is"
                " kept under different names"
            )
        if message.number and payload:
            raise ProtocolViolation(self.cluster.dealer.name, "dealt for a run what it says is in stock")
        job.dealt = message, []
        self._parts.check(job)
        self.clear_deadline(job)
        seconds, schedule = dealing_seconds(bound.program), bound.program.schedule(self.cluster.settings.security)
        if message.source is not None and not self._elsewhere.computes:
            job.collecting = Collecting(self.cluster, message.source)

        def work() -> Made:
            read = self._secrets.read_for(bound, client.name)
            # From here on the item is used, whatever becomes of the run.
            part, place = payload, None
            if message.number:
                part, place = self.material.take(message, ledger_name(bound, message))
                job.shelved = place is not None
            if job.collecting is not None:
                part = [*part, *job.collecting.wait(schedule.dealt[0])]
            return self._engine.make(
                Task(
                    # Commitments and signatures are bound to all of this.
                    of=self.proofs.subject_of(message),
                    bound=bound,
                    client=client.name,
                    author=None if job.training else client,
                    read=read,
                    dealt=part,
                    size=self.governor.admission.size_of(bound.program),
                    seconds=seconds,
                    place=place,
                    source=message.source,
                )
            )

        peers = [peer.name for peer in self._peers]
        self.in_background(
            job,
            work,
            lambda made, seconds: self._prepared(job, client, made, seconds),
            workers=self.governor.offline,
            expected=seconds,
            reach=peers,
        )

    def _prepared(self, job: PartyJob, client: Member, made: Made, seconds: float) -> None:
        job.prepare_seconds = seconds
        if made.here is not None:
            job.party_run, job.testimony = made.here
        elif isinstance(made.run, PlacedRun):
            self._elsewhere.begin(job, made.run)
        self.metrics.spent(Phase.PREPARING, seconds)
        self._watch_needed(job)
        message = job.assigned
        if message.number:
            agreed = Agreed(
                run=job.run,
                program=message.program,
                bindings=message.bindings,
                session=message.session,
                number=message.number,
                signature=self.proofs.item_signature(message),
            )
            for member in (*self._peers, self.cluster.dealer):
                job.sent_offline.add(member.name, self.endpoint.send(member.name, agreed))
            self.set_deadline(job)
        self._agree(job)
        self._parts.go_on(job)

    def _watch_needed(self, job: PartyJob) -> None:
        """The dealer is not needed any more once all is dealt, but for who goes on in the client's name."""
        if job.asker is not None:
            self.watch(job, [job.asker, *self._peers, *([self.cluster.dealer] if self._parts.awaits(job) else [])])

    def _more_prepared(self, job: PartyJob) -> None:
        self._agree(job)
        self.online.go_on(job)

    def _on_agreed(self, peer: Member, message: Agreed, _: Payload) -> None:
        job = self.jobs.get(message.run)
        if peer.index in job.agreed if job is not None else not self._early.keep(peer, message.run, message):
            raise ProtocolViolation(peer.name, "said twice what it uses for a run")
        if job is None:
            return
        job.agreed[peer.index] = message
        self._agree(job)

    def _agree(self, job: PartyJob) -> None:
        """Ready, once all parties have marked the same item used: nothing that depends on it has left before."""
        run = job.prepared_run
        if run is None or job.ready or job.asker is None or (job.placed is not None and not job.met):
            return
        message = job.assigned
        if message.number and len(job.agreed) < self.parties - 1:
            return
        for index, other in job.agreed.items():
            if agreement(other) != agreement(message):
                # The dealer has assigned one item to all: it is not its word that is doubted.
                job.evidence = self.proofs.other_item(message, self.cluster.parties[index], other)
                raise ProtocolViolation(
                    self.cluster.parties[index].name, "uses other preprocessing for a run than was assigned"
                )
        if not job.soon and run.prepared < run.schedule.allowed(0):
            return
        self.set_deadline(job, self.cluster.settings.prepared_timeout)
        job.ready = True
        ready = Ready(run=job.run, seconds=job.prepare_seconds)
        job.sent_offline.add(job.asker.name, self.endpoint.send(job.asker.name, ready))

    def fail(self, job: PartyJob, error: TesseraError) -> None:
        if isinstance(error, SpentItem) and job.bound is not None:
            self.material.spent(error, ledger_name(job.bound, job.assigned))
        if isinstance(error, OutOfRange) and job.client is not None:
            error = out_of_range(error, job.client.name)
        if job.testimony is not None:
            if isinstance(error, OtherTranscript) and self.online.disputes.begin(job):
                return
            error = job.testimony.judge(error)
            job.evidence = job.evidence or job.testimony.evidence
        super().fail(job, error)

    def end(self, job: PartyJob, failure: Failed | None = None) -> None:
        job.low_latency.close()
        super().end(job, failure)
        self._engine.forget(job.run)
        if job.collecting is not None:
            job.collecting.close()
        if job.dealt is not None and self._parts.unread(job):
            self.spawn(asyncio.to_thread(self.material.drop_later, job.assigned))

    def overdue(self, job: PartyJob) -> TesseraError:
        return job.overdue(self.cluster, self.member)

    # -- models ----------------------------------------------------------------------------------------------------

    @property
    def gate(self) -> Gate[StoredVersion]:
        return self._secrets.gate

    @property
    def versions_held(self) -> int:
        return len(self._secrets.held)

    def versions_here(self) -> Iterable[SecretSeen]:
        for record, owner in self._secrets.in_use:
            yield SecretSeen(record.name, owner.name, record.version)

    def versions_seen_by(self, client: Member) -> Iterable[SecretSeen]:
        for record, owner in self._secrets.seen_by(client.name):
            yield SecretSeen(record.name, owner.name, record.version)

    def room_for(self, client: Member) -> RoomSeen:
        secrets, most = self._secrets, self.governor
        quotas = (
            *most.quotas.seen(secrets.said_of(client, "", "")),
            QuotaSeen(Quota.RULES, secrets.rules.count(client), MAX_RULES),
            QuotaSeen(Quota.UPLOADS, len(secrets.uploads.records_of(client)), MAX_OF_A_CLIENT),
            self.audit.quota_seen(client.name),
        )
        return RoomSeen(quotas, most.admission.largest, secrets.bytes_of(client))

    def fresh_stock(self) -> Mapping[str, int]:
        return self.material.ledger.stock()

    @property
    def workers(self) -> WorkersSeen | None:
        return self._engine.seen()

    def _fail_all(self, member: Member, error: PeerError) -> None:
        super()._fail_all(member, error)
        self._rules_desk.lost(member)
        if member == self.cluster.coordinator:
            self._desk.reporting.lost()
        if member == self.cluster.dealer:
            self._stock_reporting.lost()
