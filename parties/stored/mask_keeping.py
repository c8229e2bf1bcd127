"""The dealer's side of stored models: the masks of uploads, and the decision which version a name stands for.

``parties.stored.store`` says why nobody ends up with another version than the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from mpc.errors import ProgramError, ProtocolViolation, ServerBusy, TesseraError
from mpc.program import Program
from mpc.rings.prg import Seed, fresh_seed
from parties.cluster import Member
from parties.messages.failures import internal_error, store_failed
from parties.messages.runs import StoreDropped, StoreSeed, Upload
from parties.messages.stored import (
    AllowUse,
    Holdings,
    RemoveModel,
    StoreCommit,
    StorePrepared,
    StoreRemoved,
    UseAllowed,
)
from parties.servers.server import Payload
from parties.stock.filling import Stocker
from parties.stored.data import kept_data
from parties.stored.dealer_store import DealerModels
from parties.stored.holdings import taken, upload_shapes
from parties.stored.keeping import Site
from parties.stored.policy import Policy
from parties.stored.rules import RuleBook
from parties.stored.store import Record, circle, owner_of, tensor_infos
from parties.stored.uploads import MAX_AGE, MAX_OF_A_CLIENT
from protocols.readings.dealer import StoredMasks, digest

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
    """Not decided.  Which parties have all of it is in memory alone; seeds and content are on the disk as well."""

    content: str = ""
    """The owner's tag of what is uploaded."""
    begun: float = field(default_factory=time.time)
    prepared: set[str] = field(default_factory=set)
    """Parties that have all of it, durably, by name."""
    asleep: bool = False
    """Read from the disk at our start, and its owner has not come back to it since."""
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
        for record, masks, content in kept.begun():
            owner = owner_of(server.cluster, record)
            if owner is not None and len(masks.seeds) == len(self._parties):
                self._uploads[record.store] = PendingUpload(
                    owner, record.name, masks, record.description, content, record.when, asleep=True
                )
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
        self._check_name(message.name, client)
        self._forget_old()
        version = self._versions.get(message.store)
        if version is not None and version.owner == client:
            # Decided while its owner was cut off.  Nothing can be sent for it any more: every party has all of it.
            self._server.spawn(self._send_seeds(client, message, message.store, version))
            return
        masks = StoredMasks(tuple(Seed(fresh_seed()) for _ in self._parties), upload_shapes(message))
        new = PendingUpload(client, message.name, masks, bytes(payload[0]), message.content)
        store, upload = self._same(new) or (message.store, new)
        if upload is new:
            self._check_new(client, message.store)
            self._uploads[store] = new
        upload.asleep, upload.begun = False, time.time()
        self._server.spawn(self._send_seeds(client, message, store, upload))

    # -- what runs keep --------------------------------------------------------------------------------------------

    async def remember(self, client: Member, name: str, store: str, program: Program, seeds: tuple[Seed, ...]) -> None:
        """The masks of what a run is to keep, on the disk: from now on as of an upload whose chunks are all there.

        Raises ProgramError for a name that is taken, ServerBusy, ProtocolViolation, VaultError.
        """
        self._check_name(name, client)
        self._forget_old()
        self._check_new(client, store)
        description = kept_data(program)
        masks = StoredMasks(seeds, {tensor: t.shape for tensor, t in description.tensors.items()})
        self._uploads[store] = upload = PendingUpload(client, name, masks, description.encode())
        await self._keep(client, store, upload)

    def forget(self, store: str) -> None:
        """The run that was to keep it has failed."""
        upload = self._uploads.get(store)
        # An upload has a tag of its content; that is given up by its owner alone.
        if upload is not None and not upload.content and not upload.deciding:
            self._forget([store])

    # -- uploads, again --------------------------------------------------------------------------------------------

    def _same(self, new: PendingUpload) -> tuple[str, PendingUpload] | None:
        """The upload that the owner goes on with: of the same name, description and content."""

        def what(upload: PendingUpload) -> tuple[object, ...]:
            shapes = tuple(upload.masks.shapes.items())
            return upload.owner, upload.name, upload.content, upload.description, shapes

        found = ((store, upload) for store, upload in self._uploads.items() if what(upload) == what(new))
        return next(found, None)

    def _check_new(self, client: Member, store: str) -> None:
        if store in self._uploads or store in self._versions:
            raise ProtocolViolation(client.name, "sent an upload whose id has been used")
        if sum(upload.owner == client for upload in self._uploads.values()) >= MAX_OF_A_CLIENT:
            raise ServerBusy(
                self._server.cluster.dealer.name,
                f"{client.name} has {MAX_OF_A_CLIENT} uploads that are not complete, and may have no more: go on with"
                " one of them by uploading the same again, or forget it with `tessera rm`; it is forgotten a day after"
                " it was begun",
            )

    def _check_name(self, name: str, client: Member) -> None:
        store = self._names.get(name)
        if store is not None and self._versions[store].owner != client:
            raise taken(name, self._versions[store].owner.name)

    async def _send_seeds(self, client: Member, message: Upload, store: str, version: Version) -> None:
        """To who goes on with a version: in use, or an upload, which is on the disk first."""
        endpoint = self._server.endpoint
        try:
            if isinstance(version, PendingUpload):
                await self._keep(client, store, version)
            if not all(map(endpoint.connected, self._parties)):
                await endpoint.connect(self._parties, self._server.cluster.settings.peer_timeout)
            if store not in self._uploads and store not in self._versions:
                return  # given up meanwhile
            seeds = b"".join(map(bytes, version.masks.seeds))
            reply = StoreSeed(store=store, version=store, masks=digest([seeds]))
            if store in self._uploads:
                for party, seed in zip(self._parties, version.masks.seeds, strict=True):
                    endpoint.send(party, reply, [bytes(seed)])
            else:
                self._server.tell(self._parties, StoreCommit(store=store))
            endpoint.send(client.name, replace(reply, store=message.store), [seeds])
            if isinstance(version, PendingUpload):
                self._decide(store, version)
        except TesseraError as error:
            self._server.refuse_upload(client, message, error)

    async def _keep(self, client: Member, store: str, upload: PendingUpload) -> None:
        """On the disk.  Raises VaultError, ProtocolViolation; it is forgotten then."""
        try:
            async with self._disk:
                if await asyncio.to_thread(self._kept.gone, [store]):
                    raise ProtocolViolation(client.name, "sent an upload whose id has been used")
                if store in self._uploads:
                    record = self._record(store, upload)
                    await asyncio.to_thread(self._kept.begin, record, upload.masks.seeds, upload.content)
        except TesseraError:
            self._uploads.pop(store, None)
            raise

    def _forget(self, stores: Collection[str]) -> None:
        """These have come to nothing."""
        for store in stores:
            self._uploads.pop(store, None)
        if stores:
            self._server.spawn(self._erase(stores))

    async def _erase(self, stores: Collection[str]) -> None:
        """From the disk, and only then at the parties: an upload that they lack is never gone on with."""
        async with self._disk:
            await asyncio.to_thread(self._kept.forget_uploads, stores)
        for store in stores:
            self._server.tell(self._parties, StoreDropped(store=store))

    def _forget_old(self) -> None:
        before = time.time() - MAX_AGE
        self._forget([s for s, upload in self._uploads.items() if upload.begun < before and not upload.deciding])

    def _on_dropped(self, sender: Member, message: StoreDropped, _: Payload) -> None:
        """The owner gives an upload up: that counts until it is decided."""
        upload = self._uploads.get(message.store)
        if upload is not None and upload.owner == sender and not upload.deciding:
            self._forget([message.store])

    # -- the decision ----------------------------------------------------------------------------------------------

    def _on_prepared(self, party: Member, message: StorePrepared, _: Payload) -> None:
        self._prepared(party, message.store)

    def _prepared(self, party: Member, store: str) -> None:
        upload = self._uploads.get(store)
        if upload is not None:
            upload.prepared.add(party.name)
            self._decide(store, upload)
        elif store in self._versions:
            self._server.tell([party.name], StoreCommit(store=store))
        else:
            self._server.tell([party.name], StoreDropped(store=store))

    def _decide(self, store: str, upload: PendingUpload) -> None:
        """All parties have all of it, or there is nothing to decide."""
        if upload.deciding or not upload.prepared:
            return
        if upload.asleep:
            # Its owner may have been told that it failed.  Who still wants it comes back at once.
            delay = self._server.cluster.settings.peer_timeout
            asyncio.get_running_loop().call_later(delay, self._presume_abort, store, upload)
            return
        if len(upload.prepared) < len(self._parties):
            return
        upload.deciding = True
        self._server.spawn(self._commit(store, upload))

    def _presume_abort(self, store: str, upload: PendingUpload) -> None:
        if upload.asleep and self._uploads.get(store) is upload:
            self._forget([store])

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
                self._uploads.pop(store, None)
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
        self._server.tell([upload.owner.name], store_failed(store, error))
        self._forget([store])

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
        self._forget_old()
        for store in message.prepared:
            self._prepared(party, store)
        for store in message.uploads:
            if store not in self._uploads and store not in self._versions:
                self._server.tell([party.name], StoreDropped(store=store))
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
                begun = [
                    s
                    for s, u in self._uploads.items()
                    if (u.owner, u.name, u.deciding) == (client, message.name, False)
                ]
                self._forget(begun)
                if store is not None:
                    await asyncio.to_thread(self._kept.remove, store)
                    del self._names[message.name], self._versions[store]
                    await asyncio.to_thread(self._rules.forget, message.name)
        except TesseraError as error:
            self._server.refuse_upload(client, message, error)
            return
        log.info("%s has removed model %s", client.name, message.name)
        self._server.tell([client.name], StoreRemoved(store=message.store, found=store is not None or bool(begun)))
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
