"""The dealer's process: correlated randomness for programs, and masks for models; never data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from mpc.errors import PeerError, PeerLost, ProtocolViolation, TesseraError
from mpc.program import Program
from mpc.rings.prg import Seed
from parties.cluster import Member
from parties.counters import Phase
from parties.messages.bindings import BoundProgram
from parties.messages.check import RoomSeen
from parties.messages.evidence import Evidence, OtherItem, session_failed
from parties.messages.runs import ClientMasks, Dealt, Failed, Prepare, Release
from parties.messages.status import SecretSeen
from parties.messages.stock import Agreed, Spent, Stock, Stocked, StockHeld, StockRefused, agreement
from parties.operate.check.desk import CheckDesk
from parties.operate.status.desk import StatusDesk
from parties.servers.audit_answers import AuditAnswers
from parties.servers.auditing import stock_order
from parties.servers.coordinator import Coordinator
from parties.servers.governor import dealing_seconds
from parties.servers.host import Host
from parties.servers.job import Job
from parties.servers.requests_desk import RequestsDesk
from parties.servers.rules_desk import RulesDesk
from parties.servers.server import Server
from parties.stock.dealer_stock import DealerStock
from parties.stock.items import ItemId
from parties.stock.stocker import ItemRecord, Stocker
from parties.stock.waste import Waste
from parties.stored import policy
from parties.stored.decided_versions import DecidedVersions
from parties.stored.gate import Gate
from parties.tally import Tally, total
from parties.wire.events import Delivery
from parties.wire.messages import Buffer, Payload, payload_bytes
from protocols.randomness.dealt import TrustedDealer
from protocols.readings.dealer import Dealing, StoredMasks, digest

log = logging.getLogger(__name__)

READ_AHEAD = 8
"""Bytes of memory for each of an encoded program, at most, once it is decoded."""


@dataclass(frozen=True, repr=False)
class ForRun:
    """What one run gets: an item of the stock, or else a dealing of its own."""

    client_part: Sequence[Buffer]
    kept: tuple[Seed, ...]
    """By party, the seed of the masks of what the run keeps."""
    sent_bytes: int = 0
    """Before now, for an item of the stock."""
    dealing: Dealing | None = None
    item: ItemId | None = None


class DealerJob(Job):
    """One run at the dealer."""

    def __init__(self, run: str, on_behalf: str) -> None:
        super().__init__(run, on_behalf)
        self.client_part: tuple[ClientMasks, Sequence[Buffer]] | None = None
        """Held back until every party has said that the item of the stock is fresh."""
        self.item: Dealt | None = None
        self.agreed: set[str] = set()
        """Parties that have, by name."""


class DealerServer(Server[DealerJob]):
    """Deals for runs, each in a thread and forgotten once sent; remembers the seeds of stored models' masks.

    A run whose program is in stock uses what was dealt ahead of time.
    """

    def __init__(self, host: Host[TrustedDealer]) -> None:
        super().__init__(host, DealerJob)
        cluster, keys, folder = host.cluster, host.keys, host.folder
        self._source = host.source
        self._no_stock = ""
        """The party that has used another item than it was assigned: nobody is assigned any from then on."""
        self._party_names = [party.name for party in cluster.parties]
        self.stock, self._waste = DealerStock(folder, keys, cluster.bond), Waste()
        self._versions: DecidedVersions | None = None
        try:
            self._versions = DecidedVersions(folder, keys, host.member.name)
            self._stocker = Stocker(
                cluster,
                self.endpoint,
                self.stock,
                self._versions,
                self._deal_ahead,
                self._read_ahead,
                self.governor.disk.turn,
            )
            self._coordinator = Coordinator(self, self._versions, self._stocker.sweep)
            RequestsDesk(self, self._versions, self._coordinator.look_up)
            self._rules_desk = RulesDesk(self, self._coordinator.rules)
        except BaseException:
            self._close()
            raise
        self.on(Prepare, self._on_prepare)
        self.on(Agreed, self._on_agreed)
        self.on(Stock, self._on_stock)
        # The last item of a program may be on its way to a run.
        self.on(
            StockHeld,
            lambda party, message, _: self.spawn(self._stocker.answer(party, message, lambda: bool(self.jobs))),
        )
        self.on(Stocked, lambda party, message, _: self._stocker.stored(party, message))
        self.on(StockRefused, self._on_stock_refused)
        self.on(Spent, lambda party, message, _: self.spawn(self._stocker.doubt(party, message)))
        self.succeeding.whenever(self._coordinator.follow)
        CheckDesk(self, folder, self._check_databases)
        AuditAnswers(self, folder)
        StatusDesk(self, self.look)

    async def serve(self) -> None:
        self.spawn(self._stocker.work())
        self._rules_desk.begin()
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
        self.stock.close()
        if self._versions is not None:
            self._versions.close()

    # -- runs ------------------------------------------------------------------------------------------------------

    def _on_prepare(self, client: Member, message: Prepare, payload: Payload) -> None:
        job = self.claim_job(message.run, client, self.cluster.parties)
        if len(payload) != 1:
            raise ProtocolViolation(client.name, "sent a run without its program")
        expected = self.charge_program(job, payload[0])

        def check() -> BoundProgram:
            bound = self.gate.admit(payload[0], client.name, message)
            self._source.check(bound.program, self.cluster.settings.security)
            return bound

        self.in_background(
            job,
            check,
            lambda bound, _: self._provide(job, client, bound),
            workers=self.governor.desk,
            expected=expected,
        )

    def _provide(self, job: DealerJob, client: Member, bound: BoundProgram) -> None:
        """From the stock, else dealt for this run."""
        self.admit(job, bound.program)
        job.bound = bound

        def send(made: ForRun, seconds: float) -> None:
            if bound.keep:
                self.spawn(self._send_and_remember(job, client, bound, made, seconds))
            else:
                self._send(job, client, bound, made, seconds)

        def from_stock() -> ForRun | None:
            # Again: what was allowed or in use when the run was admitted may not be any more.  From now on it counts.
            self.gate.enter(bound, client.name)
            if self._no_stock or self._waste.rests(client.name):
                return None
            assigned = self.stock.assign(bound.digest, job.run)
            if assigned is None:
                return None
            item, record = assigned
            read = ItemRecord.read(record)
            return ForRun(read.client_part, read.kept, read.sent_bytes, item=item)

        def afresh() -> ForRun:
            # In the look-up that finds the masks; it has been counted.
            dealing = self._deal(bound.program, policy.check(bound, client.name, self._coordinator.look_up).held)
            return ForRun(dealing.for_client(), dealing.kept, dealing=dealing)

        def found(made: ForRun | None, seconds: float) -> None:
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
            job, from_stock, found, workers=self.governor.desk, reach=self._party_names, after=self._stocker.settled
        )

    def _deal(self, program: Program, masks: Mapping[str, StoredMasks]) -> Dealing:
        return self._source.deal(program, len(self.cluster.parties), masks, self.cluster.settings.security)

    async def _deal_ahead(self, client: str, bound: BoundProgram) -> Dealing:
        """In that client's turn, however long it takes to come.

        Whoever asked was allowed to run it then; who may not any more has no use for the stock.
        """

        def work() -> Dealing:
            found = policy.found(bound.bindings, self._coordinator.look_up)
            return self._deal(bound.program, {slot: in_use.held for slot, in_use in found.items()})

        return await self.governor.offline.run(client, work, seconds=dealing_seconds(bound.program), patient=True)

    async def _read_ahead(self, client: str, encoded: bytes) -> tuple[BoundProgram, Callable[[], None]]:
        """A program that the client has asked for before; and what gives back the memory for it."""
        charge = self.governor.charge(client, READ_AHEAD * len(encoded), "the program of its stock")
        try:
            return await self.governor.desk.run(
                client, lambda: BoundProgram.decode(encoded), patient=True
            ), charge.release
        except BaseException:
            charge.release()
            raise

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
            self._waste.failed(message.run, "" if sender.is_server else sender.name)
        if isinstance(message, Failed) and sender.is_server:
            # Whether or not we have done our part: not every party will have what the run was to keep.
            self._coordinator.forget(message.run)

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
        )
        if made.item is not None:
            dealt = replace(dealt, signature=self.proofs.item_signature(dealt))
        for party in self.cluster.parties:
            part = [] if made.dealing is None else made.dealing.for_party(party.index)
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
            self.endpoint.send(client.name, masks, made.client_part)
            self.end(job)
        else:
            # Were this stock an old copy, another client might know these masks' inputs: the parties know better.
            job.item, job.client_part = dealt, (masks, made.client_part)
            self._waste.assigned(job.run, client.name)
            self.set_deadline(job)
            self.spawn(self._stocker.refill(bound.digest))

    def _on_agreed(self, party: Member, message: Agreed, _: Payload) -> None:
        job = self.jobs.get(message.run)
        if job is None or job.client is None or job.item is None or job.client_part is None:
            raise ProtocolViolation(party.name, "agreed on preprocessing that it was not assigned")
        if agreement(message) != agreement(job.item):
            job.evidence = self.proofs.other_item(job.item, party, message)
            # It has said so to us: that is certain here, whether or not it can be shown to others.
            self._leave_stock(party.name)
            raise ProtocolViolation(party.name, "agreed on other preprocessing than it was assigned")
        job.agreed.add(party.name)
        if len(job.agreed) == len(self._party_names):
            self.endpoint.send(job.client.name, *job.client_part)
            self.end(job)

    def end(self, job: DealerJob, failure: Failed | None = None) -> None:
        super().end(job, failure)
        if failure is not None:
            self._waste.failed(job.run)
        if failure is not None or job.released:
            self._coordinator.forget(job.run)

    def overdue(self, job: DealerJob) -> TesseraError:
        if job.item is not None:
            silent = next(name for name in self._party_names if name not in job.agreed)
            seconds = self.cluster.settings.round_timeout
            return PeerLost(silent, f"did not say which preprocessing it uses within {seconds:g} s")
        return TesseraError(
            "dealing for this program takes longer than round_timeout: raise it, or use smaller batches"
        )

    # -- stock -----------------------------------------------------------------------------------------------------

    def _on_stock(self, client: Member, message: Stock, payload: Payload) -> None:
        def read() -> BoundProgram:
            bound = BoundProgram(Program.decode(payload[0]), message.bindings, client.name)
            self.gate.check(bound, client.name)
            self._source.check(bound.program, self.cluster.settings.security)
            return bound.derive()

        async def order() -> None:
            charge = None
            try:
                self.check_staying()
                if self._no_stock:
                    raise ProtocolViolation(self._no_stock, "has used other items of the stock than it was assigned")
                if len(payload) != 1:
                    raise ProtocolViolation(client.name, "asked for preprocessing without the program")
                charge, seconds = self.governor.charge_program(client.name, payload[0])
                bound = await self.governor.desk.run(client.name, read, seconds=seconds)
                self.governor.admission.check_size(bound.program)
                await self._stocker.order(client, message, bound, charge.release)
                self.audit.record(stock_order(client, message, bound))
            except TesseraError as error:
                if charge is not None:
                    charge.release()
                self.refuse_request(client, message, error)

        self.spawn(order())

    def _on_stock_refused(self, party: Member, message: StockRefused, _: Payload) -> None:
        evidence = message.evidence
        proven = evidence is not None and session_failed(evidence) == message.session
        self._stocker.refused(party, message, proven=self.proofs.take(evidence, party) and proven)

    @property
    def gate(self) -> Gate[StoredMasks]:
        return self._coordinator.gate

    def room_for(self, client: Member) -> RoomSeen:
        return RoomSeen(self._coordinator.quotas_of(client), self.governor.admission.largest)

    def fresh_stock(self) -> Mapping[str, int]:
        return self.stock.stock()

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
            self._leave_stock(evidence.used.author)

    def _leave_stock(self, party: str) -> None:
        if not self._no_stock:
            self._no_stock = party
            log.warning("%s: nothing is taken from the stock until this dealer is started again", party)

    def _fail_all(self, member: Member, error: PeerError) -> None:
        super()._fail_all(member, error)
        self._stocker.lost(member, error)
        self._rules_desk.lost(member)
