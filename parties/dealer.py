"""The dealer's process: correlated randomness for programs, and masks for models; never data."""

from __future__ import annotations

from dataclasses import dataclass

from mpc.errors import ProtocolViolation, TesseraError
from mpc.prg import Seed, fresh_seed
from mpc.program import Program
from mpc.security import Security
from parties.cluster import Cluster, Member
from parties.keys import KeyPair
from parties.models import upload_shapes
from parties.run_messages import ClientMasks, Dealt, Prepare, Release, StoreDropped, StoreSeed, Upload
from parties.server import Job, Payload, Server
from protocols.dealer import Dealing, StoredMasks, deal, digest


@dataclass
class Store:
    """Masks of one upload, remembered for as long as some party holds what they mask."""

    owner: Member
    masks: StoredMasks
    holders: set[str]
    """Parties by name."""


class DealerServer(Server[Job]):
    """Deals for runs, each in a thread and forgotten once sent; remembers the seeds of stored models' masks."""

    def __init__(self, cluster: Cluster, member: Member, keys: KeyPair) -> None:
        super().__init__(cluster, member, keys, Job)
        self._stores: dict[str, Store] = {}
        self._party_names = [party.name for party in cluster.parties]
        self.on(Prepare, self._on_prepare)
        self.on(Release, self._on_release)
        self.on(Upload, self._on_upload)
        self.on(StoreDropped, self._on_store_dropped)

    # -- runs ------------------------------------------------------------------------------------------------------

    def _on_prepare(self, client: Member, message: Prepare, payload: Payload) -> None:
        job = self.claim_job(message.run, client, self.cluster.parties)
        if len(payload) != 1:
            raise ProtocolViolation(client.name, "sent a run without its program")
        stored = {name: store.masks for name, store in self._stores.items()}

        def work() -> tuple[Program, Dealing]:
            program = Program.decode(payload[0])
            return program, deal(program, len(self.cluster.parties), stored, self.cluster.settings.security)

        self.in_background(
            job, work, lambda result, seconds: self._send(job, client, *result, seconds), reach=self._party_names
        )

    def _send(self, job: Job, client: Member, program: Program, dealing: Dealing, seconds: float) -> None:
        sent = 0
        malicious = self.cluster.settings.security is Security.MALICIOUS
        checked = digest(dealing.for_client()) if malicious else ""
        for party in self.cluster.parties:
            message = Dealt(run=job.run, program=program.digest, masks=checked)
            sent += self.endpoint.send(party.name, message, dealing.for_party(party.index))
        masks = ClientMasks(run=job.run, program=program.digest, seconds=seconds, dealt_bytes=sent)
        self.endpoint.send(client.name, masks, dealing.for_client())
        self.end(job)

    def _on_release(self, client: Member, message: Release, _: Payload) -> None:
        """The client gives up before the dealer is done."""
        job = self.jobs.get(message.run)
        if job is not None and job.client == client:
            self.end(job)

    def overdue(self, job: Job) -> TesseraError:
        return TesseraError(
            "dealing for this program takes longer than round_timeout: raise it, or use smaller batches"
        )

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
