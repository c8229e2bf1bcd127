"""The dealer's process: correlated randomness for programs, and masks for models; never data."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from mpc.errors import PeerError, PeerLost, ProtocolViolation, TesseraError
from mpc.prg import Seed, fresh_seed
from mpc.program import Program
from parties.cluster import Cluster, Member
from parties.failures import stock_failed
from parties.keys import KeyPair
from parties.ledger import ItemId
from parties.messages import Buffer
from parties.models import upload_shapes
from parties.run_messages import ClientMasks, Dealt, Prepare, Release, StoreDropped, StoreSeed, Upload
from parties.server import Job, Payload, Server
from parties.stock import DealerStock
from parties.stock_messages import Agreed, Spent, Stock, Stocked, StockRefused
from parties.stocking import Stocker, read_kept
from protocols.dealer import Dealing, StoredMasks, deal, digest


@dataclass
class Store:
    """Masks of one upload, remembered for as long as some party holds what they mask."""

    owner: Member
    masks: StoredMasks
    holders: set[str]
    """Parties by name."""


@dataclass(frozen=True, repr=False)
class ForRun:
    """What one run gets: an item of the stock, or else a dealing of its own."""

    program: Program
    client_part: Sequence[Buffer]
    sent_bytes: int
    """Before now, for an item of the stock."""
    dealing: Dealing | None = None
    item: ItemId | None = None


class DealerJob(Job):
    """One run at the dealer."""

    def __init__(self, run: str) -> None:
        super().__init__(run)
        self.client_part: tuple[ClientMasks, Sequence[Buffer]] | None = None
        """Held back until every party has said that the item of the stock is fresh."""
        self.item: Dealt | None = None
        self.agreed: set[str] = set()
        """Parties that have, by name."""


class DealerServer(Server[DealerJob]):
    """Deals for runs, each in a thread and forgotten once sent; remembers the seeds of stored models' masks.

    A run whose program is in stock uses what was dealt ahead of time.
    """

    def __init__(self, cluster: Cluster, member: Member, keys: KeyPair, folder: str | os.PathLike[str]) -> None:
        super().__init__(cluster, member, keys, DealerJob)
        self._stores: dict[str, Store] = {}
        self._party_names = [party.name for party in cluster.parties]
        self.stock = DealerStock(folder, keys, cluster.fingerprint)
        self._stocker = Stocker(cluster, self.endpoint, self.stock, self._deal)
        self.on(Prepare, self._on_prepare)
        self.on(Agreed, self._on_agreed)
        self.on(Release, self._on_release)
        self.on(Upload, self._on_upload)
        self.on(StoreDropped, self._on_store_dropped)
        self.on(Stock, self._on_stock)
        self.on(Stocked, lambda party, message, _: self._stocker.stored(party, message))
        self.on(StockRefused, lambda party, message, _: self._stocker.refused(party, message))
        self.on(Spent, lambda _, message, __: self.spawn(self._stocker.skip(message)))

    async def serve(self) -> None:
        self.spawn(self._stocker.work())
        try:
            await super().serve()
        finally:
            self.stock.close()

    # -- runs ------------------------------------------------------------------------------------------------------

    def _on_prepare(self, client: Member, message: Prepare, payload: Payload) -> None:
        job = self.claim_job(message.run, client, self.cluster.parties)
        if len(payload) != 1:
            raise ProtocolViolation(client.name, "sent a run without its program")

        def work() -> ForRun:
            program = Program.decode(payload[0])
            assigned = self.stock.assign(program.digest, job.run)
            if assigned is not None:
                item, kept = assigned
                sent_bytes, client_part = read_kept(kept)
                return ForRun(program, client_part, sent_bytes, item=item)
            dealing = self._deal(program)
            return ForRun(program, dealing.for_client(), 0, dealing=dealing)

        self.in_background(
            job, work, lambda made, seconds: self._send(job, client, made, seconds), reach=self._party_names
        )

    def _deal(self, program: Program) -> Dealing:
        stored = {name: store.masks for name, store in list(self._stores.items())}
        return deal(program, len(self.cluster.parties), stored, self.cluster.settings.security)

    def _send(self, job: DealerJob, client: Member, made: ForRun, seconds: float) -> None:
        sent, program = made.sent_bytes, made.program.digest
        session, number = made.item or ("", 0)
        dealt = Dealt(
            run=job.run,
            program=program,
            masks=digest(made.client_part) if self.malicious else "",
            session=session,
            number=number,
        )
        for party in self.cluster.parties:
            part = [] if made.dealing is None else made.dealing.for_party(party.index)
            sent += self.endpoint.send(party.name, dealt, part)
        masks = ClientMasks(
            run=job.run, program=program, seconds=seconds, dealt_bytes=sent, from_stock=made.item is not None
        )
        if made.item is None:
            self.endpoint.send(client.name, masks, made.client_part)
            self.end(job)
        else:
            # Were this stock an old copy, another client might know these masks' inputs: the parties know better.
            job.item, job.client_part = dealt, (masks, made.client_part)
            self.set_deadline(job)
            self.spawn(self._stocker.refill())

    def _on_agreed(self, party: Member, message: Agreed, _: Payload) -> None:
        job = self.jobs.get(message.run)
        if job is None or job.client is None or job.item is None or job.client_part is None:
            raise ProtocolViolation(party.name, "agreed on preprocessing that it was not assigned")
        if (message.program, message.session, message.number) != (job.item.program, job.item.session, job.item.number):
            raise ProtocolViolation(party.name, "agreed on other preprocessing than it was assigned")
        job.agreed.add(party.name)
        if len(job.agreed) == len(self._party_names):
            self.endpoint.send(job.client.name, *job.client_part)
            self.end(job)

    def _on_release(self, client: Member, message: Release, _: Payload) -> None:
        """The client gives up before the dealer is done."""
        job = self.jobs.get(message.run)
        if job is not None and job.client == client:
            self.end(job)

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
        async def order() -> None:
            try:
                if len(payload) != 1:
                    raise ProtocolViolation(client.name, "asked for preprocessing without the program")
                await self._stocker.order(client, message, payload[0])
            except TesseraError as error:
                self._tell([client.name], stock_failed(message.request, error))

        self.spawn(order())

    def cheated(self) -> None:
        """All that was dealt in this session goes, and a new one begins."""
        self.spawn(asyncio.to_thread(self.stock.new_session))

    def _fail_all(self, member: Member, error: PeerError) -> None:
        super()._fail_all(member, error)
        self._stocker.lost(member, error)

    # -- models ----------------------------------------------------------------------------------------------------

    def _on_upload(self, client: Member, message: Upload, _: Payload) -> None:
        if message.store in self._stores:
            raise ProtocolViolation(client.name, "sent an upload whose id has been used")
        seeds = tuple(Seed(fresh_seed()) for _ in self.cluster.parties)
        masks = StoredMasks(seeds, upload_shapes(message))
        self._stores[message.store] = Store(client, masks, set(self._party_names))
        self.spawn(self._send_seeds(client, message))

    async def _send_seeds(self, client: Member, message: Upload) -> None:
        try:
            if not all(map(self.endpoint.connected, self._party_names)):
                await self.endpoint.connect(self._party_names, self.cluster.settings.peer_timeout)
            store = self._stores.get(message.store)
            if store is None:
                return  # given up meanwhile
            seeds = b"".join(map(bytes, store.masks.seeds))
            reply = StoreSeed(store=message.store, masks=digest([seeds]))
            for party, seed in zip(self.cluster.parties, store.masks.seeds, strict=True):
                self.endpoint.send(party.name, reply, [bytes(seed)])
            self.endpoint.send(client.name, reply, [seeds])
        except TesseraError as error:
            self._stores.pop(message.store, None)
            self.refuse_upload(client, message, error)

    def _on_store_dropped(self, sender: Member, message: StoreDropped, _: Payload) -> None:
        store = self._stores.get(message.store)
        if store is None:
            return
        store.holders.discard(sender.name)
        if sender == store.owner or not store.holders:
            del self._stores[message.store]
            self.spawn(self._stocker.drop_store(message.store))
