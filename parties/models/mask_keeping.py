"""The dealer's side of stored models: the masks of uploads, and the decision which version a name stands for.

``parties.models.store`` says why nobody ends up with another version than the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from mpc.errors import ProgramError, ProtocolViolation, TesseraError
from mpc.prg import Seed, fresh_seed
from parties.cluster import Member
from parties.failures import store_failed
from parties.models.dealer_store import DealerModels
from parties.models.holdings import MAX_UPLOADS, taken, upload_shapes
from parties.models.keeping import Site
from parties.models.messages import (
    AllowUse,
    Holdings,
    RemoveModel,
    StoreCommit,
    StorePrepared,
    StoreRemoved,
    UseAllowed,
)
from parties.models.policy import Policy
from parties.models.rules import RuleBook
from parties.models.store import Record, circle, owner_of, tensor_infos
from parties.run_messages import StoreDropped, StoreSeed, Upload
from parties.server import Payload, internal_error
from parties.stock.filling import Stocker
from protocols.dealer import StoredMasks, digest

log = logging.getLogger(__name__)


@dataclass
class Version:
    """In use."""

    owner: Member
    name: str
    masks: StoredMasks = field(repr=False)
    description: bytes = field(default=b"", repr=False)


@dataclass
class PendingUpload(Version):
    """In memory alone, until every party has said that it has all of it, durably."""

    prepared: set[str] = field(default_factory=set)
    """Parties that have, by name."""
    deciding: bool = False


class MaskKeeper:
    """Handles the messages about models at the dealer."""

    def __init__(self, server: Site, kept: DealerModels, stocker: Stocker) -> None:
        self._server = server
        self._kept = kept
        self._stocker = stocker
        self._circle = circle(server.cluster)
        self._parties = [party.name for party in server.cluster.parties]
        self._disk = asyncio.Lock()
        self._uploads: dict[str, PendingUpload] = {}
        self._versions: dict[str, Version] = {}
        self._names: dict[str, str] = {}
        self._rules = RuleBook(kept, server.cluster)
        for record, masks in kept.current():
            owner = owner_of(server.cluster, record)
            if owner is not None and len(masks.seeds) == len(self._parties):
                self._versions[record.store] = Version(owner, record.name, masks, record.description)
                self._names[record.name] = record.store
        server.on(Upload, self._on_upload)
        server.on(StoreDropped, self._on_dropped)
        server.on(StorePrepared, self._on_prepared)
        server.on(Holdings, lambda party, message, _: server.spawn(self._answer(party, message)))
        server.on(RemoveModel, lambda client, message, _: server.spawn(self._remove(client, message)))
        server.on(AllowUse, lambda client, message, _: server.spawn(self._allow(client, message)))

    @property
    def stored(self) -> Mapping[str, StoredMasks]:
        """Masks by version, of all in use."""
        return {store: version.masks for store, version in list(self._versions.items())}

    def policy(self, store: str) -> Policy | None:
        """Who may use a version that is in use."""
        version = self._versions.get(store)
        if version is None:
            return None
        grants = self._rules.grants(version.name, version.owner)
        return Policy(version.name, version.owner.name, store, version.description, grants)

    # -- uploads ---------------------------------------------------------------------------------------------------

    def _on_upload(self, client: Member, message: Upload, payload: Payload) -> None:
        if len(payload) != 1:
            raise ProtocolViolation(client.name, "sent an upload without a description")
        if message.store in self._uploads or message.store in self._versions:
            raise ProtocolViolation(client.name, "sent an upload whose id has been used")
        self._check_name(message.name, client)
        if len(self._uploads) >= MAX_UPLOADS:
            raise TesseraError(f"busy: {MAX_UPLOADS} uploads are in progress; try again later")
        seeds = tuple(Seed(fresh_seed()) for _ in self._parties)
        upload = PendingUpload(client, message.name, StoredMasks(seeds, upload_shapes(message)), bytes(payload[0]))
        self._uploads[message.store] = upload
        # The parties give up first what is not complete.
        patience = 2 * self._server.cluster.settings.round_timeout
        asyncio.get_running_loop().call_later(patience, self._give_up, message.store)
        self._server.spawn(self._send_seeds(client, message))

    def _check_name(self, name: str, client: Member) -> None:
        store = self._names.get(name)
        if store is not None and self._versions[store].owner != client:
            raise taken(name, self._versions[store].owner.name)

    async def _send_seeds(self, client: Member, message: Upload) -> None:
        endpoint = self._server.endpoint
        try:
            if await asyncio.to_thread(self._kept.gone, [message.store]):
                raise ProtocolViolation(client.name, "sent an upload whose id has been used")
            if not all(map(endpoint.connected, self._parties)):
                await endpoint.connect(self._parties, self._server.cluster.settings.peer_timeout)
            upload = self._uploads.get(message.store)
            if upload is None:
                return  # given up meanwhile
            seeds = b"".join(map(bytes, upload.masks.seeds))
            reply = StoreSeed(store=message.store, masks=digest([seeds]))
            for party, seed in zip(self._parties, upload.masks.seeds, strict=True):
                endpoint.send(party, reply, [bytes(seed)])
            endpoint.send(client.name, reply, [seeds])
        except TesseraError as error:
            self._uploads.pop(message.store, None)
            self._server.refuse_upload(client, message, error)

    def _give_up(self, store: str) -> None:
        upload = self._uploads.get(store)
        if upload is not None and not upload.deciding:
            del self._uploads[store]
            self._server.tell(self._parties, StoreDropped(store=store))

    def _on_dropped(self, sender: Member, message: StoreDropped, _: Payload) -> None:
        """The owner gives an upload up: that counts until it is decided."""
        upload = self._uploads.get(message.store)
        if upload is not None and upload.owner == sender:
            self._give_up(message.store)

    # -- the decision ----------------------------------------------------------------------------------------------

    def _on_prepared(self, party: Member, message: StorePrepared, _: Payload) -> None:
        self._prepared(party, message.store)

    def _prepared(self, party: Member, store: str) -> None:
        upload = self._uploads.get(store)
        if upload is not None:
            upload.prepared.add(party.name)
            if len(upload.prepared) == len(self._parties) and not upload.deciding:
                upload.deciding = True
                self._server.spawn(self._commit(store, upload))
        elif store in self._versions:
            self._server.tell([party.name], StoreCommit(store=store))
        else:
            self._server.tell([party.name], StoreDropped(store=store))

    async def _commit(self, store: str, upload: PendingUpload) -> None:
        """From the moment this is on the disk on, the name stands for the new version."""
        try:
            async with self._disk:
                self._check_name(upload.name, upload.owner)
                await asyncio.to_thread(self._kept.commit, self._record(store, upload), upload.masks.seeds)
                former = self._names.get(upload.name)
                self._versions[store] = Version(upload.owner, upload.name, upload.masks, upload.description)
                self._names[upload.name] = store
                if former is not None:
                    del self._versions[former]
                del self._uploads[store]
        except TesseraError as error:
            self._refuse(store, upload, error)
        except Exception:
            log.exception("upload %s: internal error", store[:8])
            self._refuse(store, upload, internal_error())
        else:
            log.info("model %s of %s is version %s", upload.name, upload.owner.name, store[:8])
            self._server.tell(self._parties, StoreCommit(store=store))
            await self._stocker.sweep()

    def _refuse(self, store: str, upload: PendingUpload, error: TesseraError) -> None:
        log.warning("upload %s of %s failed: %s", store[:8], upload.owner.name, error)
        self._uploads.pop(store, None)
        self._server.tell([upload.owner.name], store_failed(store, error))
        self._server.tell(self._parties, StoreDropped(store=store))

    def _record(self, store: str, upload: PendingUpload) -> Record:
        return Record(
            store=store,
            name=upload.name,
            owner=upload.owner.key,
            owner_name=upload.owner.name,
            circle=self._circle,
            tensors=tensor_infos(upload.masks.shapes),
            when=time.time(),
            description=upload.description,
        )

    # -- afterwards ------------------------------------------------------------------------------------------------

    async def _answer(self, party: Member, message: Holdings) -> None:
        """What the party has missed."""
        for store in message.prepared:
            self._prepared(party, store)
        for store in sorted(await asyncio.to_thread(self._kept.gone, message.held)):
            log.warning("%s has version %s, which is gone: it is told to drop it", party.name, store[:8])
            self._server.tell([party.name], StoreDropped(store=store))
        # The last item of a program may be on its way to a run.
        await self._stocker.answer(party, message.programs, lambda: bool(self._server.jobs))

    async def _remove(self, client: Member, message: RemoveModel) -> None:
        try:
            async with self._disk:
                self._check_name(message.name, client)
                store = self._names.get(message.name)
                if store is not None:
                    await asyncio.to_thread(self._kept.remove, store)
                    del self._names[message.name], self._versions[store]
                    await asyncio.to_thread(self._rules.forget, message.name)
        except TesseraError as error:
            self._server.refuse_upload(client, message, error)
            return
        log.info("%s has removed model %s", client.name, message.name)
        self._server.tell([client.name], StoreRemoved(store=message.store, found=store is not None))
        await self._stocker.sweep()

    async def _allow(self, client: Member, message: AllowUse) -> None:
        try:
            async with self._disk:
                self._check_name(message.name, client)
                if message.name not in self._names:
                    raise ProgramError(f"there is no model called {message.name!r}: upload it first")
                await asyncio.to_thread(self._rules.allow, message.name, client, message.client, message.programs)
        except TesseraError as error:
            self._server.refuse_upload(client, message, error)
        else:
            self._server.tell([client.name], UseAllowed(store=message.store))
