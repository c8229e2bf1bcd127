"""The dealer's process: correlated randomness for programs, and masks for models; never data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from mpc.errors import PeerError, PeerLost, ProtocolViolation, RunExpired, TesseraError
from mpc.rings import Array, field_of
from mpc.rings.prg import Seed
from parties.host.counters import Phase
from parties.members.cluster import Member
from parties.messages.bindings import BoundProgram
from parties.messages.check import RoomSeen
from parties.messages.evidence import Evidence, OtherItem
from parties.messages.failures import error_of, fault_of
from parties.messages.runs import ClientMasks, Dealt, Failed, Prepare, Ready, Release, RunMessage, Source
from parties.messages.status import SecretSeen, WorkersSeen
from parties.messages.stock import Agreed, agreement
from parties.operate.check.desk import CheckDesk
from parties.operate.status.desk import StatusDesk
from parties.servers.audit_answers import AuditAnswers
from parties.servers.coordinator import Coordinator
from parties.servers.crew import Crew
from parties.servers.dealer_job import DealerJob
from parties.servers.dealing import DealingElsewhere, DealingTask, LocalDealing, PlacedDealing
from parties.servers.dealing_parts import DealingParts
from parties.servers.dealt_ahead import DealtAhead
from parties.servers.engine import Engine
from parties.servers.governor import dealing_seconds
from parties.servers.host import Host
from parties.servers.requests_desk import RequestsDesk
from parties.servers.rules_desk import RulesDesk
from parties.servers.server import Server
from parties.servers.stock_desk import StockDesk
from parties.servers.trainer import Trainer
from parties.stock.chain import Link
from parties.stock.dealer_stock import BrokenChain, DealerStock
from parties.stock.items import ItemId
from parties.stock.stocker import Made
from parties.stored import policy
from parties.stored.decided_versions import DecidedVersions
from parties.stored.gate import Gate
from parties.stored.stored_version import WORTH
from parties.tally import Tally, total
from parties.wire.events import Delivery
from parties.wire.messages import Buffer, Payload, payload_bytes
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import Dealing, StoredMasks, digest
from protocols.readings.drawing import Order

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class ForRun:
    """What one run gets: an item of the stock, or else a dealing of its own."""

    client_part: Sequence[Buffer]
    kept: tuple[Seed, ...]
    """By party, the seed of the masks of what the run keeps."""
    sent_bytes: int = 0
    """Before now, for an item of the stock."""
    dealing: Dealing | None = None
    first: Sequence[Array] = ()
    """Of its parts."""
    item: ItemId | None = None
    chain: bool = False
    """That is the next of one."""
    source: Source | None = None
    """Where what is dealt is to be collected, if it is."""
    link: Link | None = None
    """What it was dealt for."""


class DealerServer(Server[DealerJob]):
    """Deals for runs, each in a thread and forgotten once sent; remembers the seeds of stored models' masks.

    A run whose program is in stock uses what was dealt ahead of time.
    """

    def __init__(self, host: Host[TrustedDealer]) -> None:
        workforce = host.workforce
        places = 1 if workforce is None else workforce.wanted
        super().__init__(host, DealerJob, places)
        cluster, keys, folder = host.cluster, host.keys, host.folder
        self._source = host.source
        self._party_names = [party.name for party in cluster.parties]
        self.stock = DealerStock(folder, keys, cluster.bond)
        self._versions: DecidedVersions | None = None
        try:
            self._versions = DecidedVersions(folder, keys, host.member.name)
            self.stocking = StockDesk(
                self, self._source, self.stock, self._versions, self.deal, self._being_kept, places
            )
            self._coordinator = Coordinator(self, self._versions, self.stocking.stocker.sweep)
            self._here = LocalDealing(self._source, len(cluster.parties), cluster.settings.security)
            self._engine = self._engine_of(host)
            self.ahead = DealtAhead(self, self._deal_next) if workforce is None else None
            self.succeeding.whenever(self._engine.follow)
            self.whenever_leave_changes(self._engine.sweep)
            RequestsDesk(self, self._versions, self._coordinator.look_up)
            self._rules_desk = RulesDesk(self, self._coordinator.rules)
            self.trainer = Trainer(self, self._versions, self._coordinator.look_up)
            self._coordinator.whenever_decided(self.trainer.decided)
            if workforce is None:
                self._coordinator.whenever_decided(lambda version: self.spawn(self._make_ready(version)))
            self._parts = DealingParts(self)
        except BaseException:
            self._close()
            raise
        self.on(Prepare, self._on_prepare)
        self.on(Agreed, self._on_agreed)
        self.succeeding.whenever(self._coordinator.follow)
        CheckDesk(self, folder, self._check_databases)
        AuditAnswers(self, folder)
        StatusDesk(self, self.look)

    def _engine_of(self, host: Host[TrustedDealer]) -> Engine[DealingTask, Made]:
        cluster, me = host.cluster, host.member
        if host.workforce is None:
            return self._here
        memory, in_use = self.governor.admission.at_once, self._coordinator.is_in_use
        crew = Crew[PlacedDealing](cluster, me, host.workforce, in_use, memory)
        return DealingElsewhere(crew, me, self._source, cluster)

    async def serve(self) -> None:
        await self._engine.open()
        self.spawn(self.stocking.stocker.work())
        self._rules_desk.begin()
        self.trainer.begin()
        try:
            await super().serve()
        finally:
            self._close()

    def _check_databases(self) -> None:
        self.audit.check()
        self.stock.check()
        if self._versions is not None:
            self._versions.check()

    def _close(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.close()
        self.stock.close()
        if self._versions is not None:
            self._versions.close()

    # -- runs ------------------------------------------------------------------------------------------------------

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
        look: Callable[[BoundProgram], None] = lambda _: None,
    ) -> None:
        """A run of that client's; or of a ``training`` job, at which it is to ``look`` as well, in a thread."""
        job = self.claim_job(message.run, client, self.cluster.parties, training)
        expected = self.charge_program(job, program)

        def check() -> BoundProgram:
            bound = self.gate.admit(program, client.name, message)
            look(bound)
            self._source.check(bound.program, self.cluster.settings.security)
            self.governor.learn(bound.program)
            return bound

        self.in_background(
            job,
            check,
            lambda bound, _: self._provide(job, client, bound),
            workers=self.governor.desk,
            expected=expected,
        )

    def give_up(self, run: str) -> None:
        """A run of a training job has come to nothing."""
        job = self.jobs.get(run)
        if job is not None:
            self.end(job, Failed(run=run, fault=fault_of(RunExpired("the run was given up"))))
        self._coordinator.forget(run)

    def _provide(self, job: DealerJob, client: Member, bound: BoundProgram) -> None:
        """From the stock, else dealt for this run."""
        following = self.ahead.pop(job.training) if self.ahead is not None and job.training else None
        self.admit(job, bound)
        job.bound = bound

        def send(made: ForRun, seconds: float) -> None:
            if bound.keep:
                self.spawn(self._send_and_remember(job, client, bound, made, seconds))
            else:
                self._send(job, client, bound, made, seconds)

        broken: list[str] = []

        def from_stock() -> ForRun | None:
            # Again: what was allowed or in use when the run was admitted may not be any more.  From now on it counts.
            permit = self.gate.enter(bound, client.name)
            single = None if job.training else self.stocking.assign(bound, client.name, job.run)
            try:
                assigned = single or self.stocking.assign_next(bound, client.name, job.run, permit.held)
            except BrokenChain as error:
                log.warning("run %s: %s", job.run[:8], error)
                broken.append(bound.chain_digest)
                assigned = None
            if assigned is None:
                return None
            item, record = assigned
            return ForRun(record.client_part, record.kept, record.sent_bytes, item=item, chain=single is None)

        def afresh() -> ForRun:
            # In the look-up that finds the masks; it has been counted.
            permit = policy.check(bound, client.name, self._coordinator.look_up)
            link = Link(bound, permit.held, permit.order)
            made = None if following is None else following.take(link)
            dealing, first, source = made or self.deal(client.name, bound, permit.held, permit.order)
            return ForRun(dealing.for_client(), dealing.kept, dealing=dealing, first=first, source=source, link=link)

        def found(made: ForRun | None, seconds: float) -> None:
            for chain in broken:
                self.stocking.stocker.broken(chain)
            if made is not None:
                send(made, seconds)
            else:
                self.in_background(
                    job,
                    afresh,
                    send,
                    workers=self.governor.offline,
                    expected=dealing_seconds(bound.program),
                    reach=self._party_names,
                )

        self.in_background(
            job,
            from_stock,
            found,
            workers=self.governor.desk,
            reach=self._party_names,
            after=self.stocking.stocker.settled,
        )

    def deal(
        self,
        client: str,
        bound: BoundProgram,
        stored: Mapping[str, StoredMasks],
        order: Order,
        ahead: bool = False,
        chained: bool = False,
    ) -> Made:
        """For one run of that client's, in its turn; ``ahead`` of time, however long that takes.  Blocks.

        ``chained``: for masks of no version that there is yet, of which no worker knows.
        """
        size, seconds = self.governor.admission.size_of(bound.program), self.governor.part_seconds(bound.program)
        engine = self._here if chained else self._engine
        return engine.make(DealingTask(client, bound, stored, order, size, seconds, ahead))

    def _deal_next(self, client: str, link: Link) -> Made:
        return self.deal(client, link.bound, link.stored, link.order, chained=True)

    def _being_kept(self, slot: str) -> bool:
        """Whether a run is under way that is to keep something there."""
        here = any(
            job.bound is not None and job.bound.keep and job.bound.own_slot == slot for job in self.jobs.values()
        )
        return here or self._coordinator.is_being_kept(slot)

    async def _make_ready(self, version: str) -> None:
        """An upload will be used: its masks are made before somebody waits for them, if there is room for all."""
        held = self._coordinator.uploaded(version)
        in_memory = sum(masks.made for masks in self._coordinator.stored.values())
        if held is None or not WORTH <= 8 * held.masks.elements <= self.governor.admission.memory // 2 - 8 * in_memory:
            return
        work = partial(held.masks.make_all, field_of(self._source.rings))
        await self.governor.offline.run(held.owner.name, work, patient=True)

    async def _send_and_remember(
        self, job: DealerJob, client: Member, bound: BoundProgram, made: ForRun, seconds: float
    ) -> None:
        """What the run keeps has its masks from us: durably, before anybody can have it."""
        try:
            await self._coordinator.remember(client, job.run, bound, made.kept)
            if self.jobs.get(job.run) is job:
                self._send(job, client, bound, made, seconds)
            else:
                self._coordinator.forget(job.run)
        except TesseraError as error:
            self._coordinator.forget(job.run)
            self._fail_if_wanted(job, error)

    def _deliver(self, delivery: Delivery) -> None:
        super()._deliver(delivery)
        message, sender = delivery.message, delivery.sender
        if isinstance(message, Failed | Release):
            self.stocking.waste.failed(message.run, "" if sender.is_server else sender.name)
        if isinstance(message, Failed) and sender.is_server:
            self.trainer.told(sender, message)
            # Whether or not we have done our part: not every party will have what the run was to keep.
            self._coordinator.forget(message.run)

    def _late(self, sender: Member, message: RunMessage, failure: Failed | None) -> None:
        if isinstance(message, Ready):
            # All has been dealt by then.
            self.trainer.ready(sender, message)
        else:
            super()._late(sender, message, failure)

    def _send(self, job: DealerJob, client: Member, bound: BoundProgram, made: ForRun, seconds: float) -> None:
        self.metrics.spent(Phase.DEALING, seconds)
        sent, program = Tally(), bound.program.digest
        session, number = made.item or ("", 0)
        dealt = Dealt(
            run=job.run,
            client=client.name,
            program=program,
            bindings=bound.bindings_digest,
            masks=digest(made.client_part) if self.malicious else "",
            session=session,
            number=number,
            chain=made.chain,
        )
        if made.item is not None:
            dealt = replace(dealt, signature=self.proofs.item_signature(dealt))
        for party in self.cluster.parties:
            part = [] if made.dealing is None else made.dealing.for_party(party.index, made.first)
            if made.source is not None and party == self.cluster.parties[-1]:
                size = self.endpoint.send(party.name, replace(dealt, source=made.source), part)
                sent.add(party.name, size + bound.program.schedule(self.cluster.settings.security).dealt[0])
            else:
                sent.add(party.name, self.endpoint.send(party.name, dealt, part))
        dealt_bytes = made.sent_bytes + total(sent).payload
        sent.add(client.name, payload_bytes(made.client_part))
        masks = ClientMasks(
            run=job.run,
            program=program,
            bindings=bound.bindings_digest,
            seconds=seconds,
            dealt_bytes=dealt_bytes,
            sent=sent,
            from_stock=made.item is not None,
        )
        if made.item is None:
            if job.training:
                self.trainer.dealt(job.run, bound, masks, made.client_part)
            else:
                self.endpoint.send(client.name, masks, made.client_part)
            job.dealing, job.collected, job.parts = made.dealing, made.source is not None, 1
            if made.link is not None and made.dealing is not None and self.trainer.goes_on(job.run, program):
                job.following = made.link.after(made.dealing.kept)
            self._parts.go_on(job)
        else:
            # Were this stock an old copy, another client might know these masks' inputs: the parties know better.
            job.item, job.client_part = dealt, (masks, made.client_part)
            self.stocking.waste.assigned(job.run, client.name)
            self.set_deadline(job)
            self.spawn(self.stocking.stocker.refill(bound.digest))

    def _on_agreed(self, party: Member, message: Agreed, _: Payload) -> None:
        job = self.jobs.get(message.run)
        if job is None or job.client is None or job.item is None or job.client_part is None:
            raise ProtocolViolation(party.name, "agreed on preprocessing that it was not assigned")
        if agreement(message) != agreement(job.item):
            job.evidence = self.proofs.other_item(job.item, party, message)
            # It has said so to us: that is certain here, whether or not it can be shown to others.
            self.stocking.leave(party.name)
            raise ProtocolViolation(party.name, "agreed on other preprocessing than it was assigned")
        job.agreed.add(party.name)
        if len(job.agreed) == len(self._party_names):
            if job.training and job.bound is not None:
                self.trainer.dealt(job.run, job.bound, *job.client_part)
            else:
                self.endpoint.send(job.client.name, *job.client_part)
            self.end(job)

    def end(self, job: DealerJob, failure: Failed | None = None) -> None:
        super().end(job, failure)
        if failure is None and not job.released and job.following is not None and self.ahead is not None:
            self.ahead.begin(job.training, job.on_behalf, job.following)
        if failure is not None:
            self.stocking.waste.failed(job.run)
            self.trainer.over(job.run, error_of(failure.fault, self.member.name))
        if failure is not None or job.released:
            self._coordinator.forget(job.run)

    def overdue(self, job: DealerJob) -> TesseraError:
        if job.item is not None:
            silent = next(name for name in self._party_names if name not in job.agreed)
            seconds = self.cluster.settings.round_timeout
            return PeerLost(silent, f"did not say which preprocessing it uses within {seconds:g} s")
        if job.dealing is not None:
            return self._parts.overdue(job)
        return TesseraError(
            "dealing for this program takes longer than round_timeout: raise it, or use smaller batches"
        )

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def gate(self) -> Gate[StoredMasks]:
        return self._coordinator.gate

    def room_for(self, client: Member) -> RoomSeen:
        quotas = (*self._coordinator.quotas_of(client), self.audit.quota_seen(client.name))
        return RoomSeen(quotas, self.governor.admission.largest)

    def fresh_stock(self) -> Mapping[str, int]:
        return self.stock.stock()

    @property
    def workers(self) -> WorkersSeen | None:
        return self._engine.seen()

    @property
    def versions_held(self) -> int:
        return len(self._coordinator.stored)

    def versions_here(self) -> Iterable[SecretSeen]:
        return self._coordinator.in_use

    def versions_seen_by(self, client: Member) -> Iterable[SecretSeen]:
        for found in filter(None, map(self._coordinator.look_up, self._coordinator.slots)):
            if found.policy.sees(client.name):
                yield SecretSeen(found.policy.name, found.policy.owner, found.policy.version)

    def cheated(self, session: str) -> None:
        """All that was dealt in that session goes, and a new one begins."""
        if session == self.stock.session:
            self.spawn(asyncio.to_thread(self.stock.new_session, session))

    def proven(self, evidence: Evidence) -> None:
        super().proven(evidence)
        if isinstance(evidence, OtherItem):
            self.stocking.leave(evidence.used.author)

    def _fail_all(self, member: Member, error: PeerError) -> None:
        super()._fail_all(member, error)
        self.stocking.stocker.lost(member, error)
        self.trainer.lost(member, error)
        self._rules_desk.lost(member)
