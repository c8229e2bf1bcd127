"""A party's side of stored models: uploads, going over to them together with the others, listing and removing.

``parties.stored.store`` says why nobody ends up with another version than the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mpc.errors import ProgramError, TesseraError
from mpc.rings.field import FieldArray
from mpc.rings.prg import Seed
from parties.cluster import Cluster, Member
from parties.messages.failures import internal_error, store_failed
from parties.messages.runs import (
    FindModel,
    FoundModel,
    StoreBegin,
    StoreChunk,
    StoreDropped,
    StoreMessage,
    StoreProgress,
    StoreReady,
    StoreSeed,
)
from parties.messages.stored import (
    MAX_PROGRAMS,
    AllowUse,
    Holdings,
    ListModels,
    ModelInfo,
    ModelList,
    RemoveModel,
    StoreCommit,
    StorePrepared,
    StoreRemoved,
    UseAllowed,
)
from parties.servers.server import Payload
from parties.stored.chunks import Grid
from parties.stored.holdings import ModelStore, StoredModel, upload_shapes
from parties.stored.uploads import UploadInProgress
from parties.vault import VaultError
from parties.wire.messages import Message
from parties.wire.transport import Endpoint

log = logging.getLogger(__name__)


class Site(Protocol):
    """What a server gives its keeper."""

    cluster: Cluster
    endpoint: Endpoint

    @property
    def jobs(self) -> Mapping[str, object]:
        """Runs in progress."""

    def on(self, kind: type[Any], handler: Callable[[Member, Any, Payload], None]) -> None:
        """Registers the handler of a message."""

    def tell(self, names: Iterable[str], message: Message, payload: Sequence[bytes] = ()) -> None:
        """Sends to whoever can be reached."""

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """A task that ends with the server."""

    def refuse_upload(self, sender: Member, message: StoreMessage, error: TesseraError) -> None:
        """Fails an upload."""

    def check_staying(self) -> None:
        """Raises PeerUnavailable when the server is being stopped."""


class ModelKeeper:
    """Handles the messages about models at a party.  ``stock`` lists what it has fresh preprocessing of; it blocks."""

    def __init__(self, server: Site, models: ModelStore, stock: Callable[[], Iterable[str]]) -> None:
        self._server = server
        self._models = models
        self._stock = stock
        self._dealer = server.cluster.dealer.name
        self._settings = server.cluster.settings
        # What is written is written in the order in which it was asked for.
        self._disk = asyncio.Lock()
        self._dealer_is_new = asyncio.Event()
        for record in models.unusable:
            log.warning(
                "model %s of %s is kept but cannot be used: the cluster file lists its owner or the servers it was"
                " shared among no longer",
                record.name,
                record.owner_name,
            )
        server.on(StoreBegin, self._on_begin)
        server.on(StoreSeed, self._on_seed)
        server.on(StoreChunk, self._on_chunk)
        server.on(StoreCommit, lambda _, message, __: server.spawn(self._commit(message.store)))
        server.on(StoreDropped, self._on_dropped)
        server.on(FindModel, self._on_find)
        server.on(ListModels, lambda client, message, _: server.spawn(self._list(client, message)))
        server.on(RemoveModel, lambda client, message, _: server.spawn(self._remove(client, message)))
        server.on(AllowUse, lambda client, message, _: server.spawn(self._allow(client, message)))

    # -- uploads ---------------------------------------------------------------------------------------------------

    def _on_begin(self, client: Member, message: StoreBegin, payload: Payload) -> None:
        self._server.check_staying()
        self._models.uploads.cancel_old()
        upload = self._models.begin(client, message, payload)
        if upload is None:
            self._server.spawn(self._answer_late(client, message))
        else:
            self._server.spawn(self._open(upload, message))

    async def _answer_late(self, client: Member, message: StoreBegin) -> None:
        """All of it is here: the owner has missed that."""
        chunks = Grid.of(upload_shapes(message).values()).count
        self._server.tell([client.name], StoreProgress(store=message.store, attempt=message.attempt, chunks=chunks))
        if self._models.is_in_use(message.store):
            self._server.tell([client.name], StoreReady(store=message.store))

    async def _open(self, upload: UploadInProgress, message: StoreBegin) -> None:
        """Tell the owner what is here, once that is certain."""
        try:
            async with upload.disk:
                upload.waiting.clear()
                await asyncio.to_thread(self._models.uploads.ready, upload)
        except TesseraError as error:
            self._server.refuse_upload(upload.owner, message, error)
            return
        if upload.attempt == message.attempt and not upload.over and upload.partial is not None:
            upload.open, upload.written = True, upload.partial.chunks
            upload.touched = time.monotonic()
            self._acknowledge(upload)
            self._expect(upload, message.attempt)
            self._complete_or_refuse(upload.owner, message)

    def _acknowledge(self, upload: UploadInProgress) -> None:
        progress = StoreProgress(store=upload.store, attempt=upload.attempt, chunks=upload.written)
        self._server.tell([upload.owner.name], progress)

    def _expect(self, upload: UploadInProgress, attempt: str) -> None:
        """An upload of which nothing comes has been left by its owner, or by the dealer: it sleeps."""
        # Longer than the owner's: it knows better whom it waits for.
        patience = self._settings.round_timeout + 2 * self._settings.peer_timeout
        left = upload.touched + patience - time.monotonic()
        if upload.over or upload.attempt != attempt:
            return
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._expect, upload, attempt)
            return
        self._models.uploads.sleep(upload)
        error = TesseraError(f"nothing came of the upload within {patience:g} s: upload the same again to go on")
        self._failed(upload.owner, upload.store, error)

    def _on_seed(self, dealer: Member, message: StoreSeed, payload: Payload) -> None:
        self._models.uploads.take_seed(dealer, message, payload)
        self._complete(message.store)

    def _on_chunk(self, client: Member, message: StoreChunk, payload: Payload) -> None:
        upload = self._models.uploads.take_chunk(client, message, payload)
        if upload is not None and len(upload.waiting) == 1:
            self._server.spawn(self._write(upload, message))

    async def _write(self, upload: UploadInProgress, message: StoreChunk) -> None:
        """Put the chunks that wait on the disk, and acknowledge them; one flush serves all that have come meanwhile."""
        try:
            async with upload.disk:
                while upload.waiting and upload.partial is not None and upload.attempt == message.attempt:
                    batch = list(upload.waiting)
                    await asyncio.to_thread(upload.partial.append, batch)
                    del upload.waiting[: len(batch)]
                    # As many come now, and these would be held beside them.
                    del batch
                    upload.written = upload.partial.chunks
                    if upload.attempt == message.attempt:
                        upload.touched = time.monotonic()
                        self._acknowledge(upload)
        except TesseraError as error:
            self._server.refuse_upload(upload.owner, message, error)
            return
        self._complete_or_refuse(upload.owner, message)

    def _complete_or_refuse(self, owner: Member, message: StoreMessage) -> None:
        try:
            self._complete(message.store)
        except TesseraError as error:
            self._server.refuse_upload(owner, message, error)

    def _complete(self, store: str) -> None:
        upload = self._models.complete(store)
        if upload is not None:
            self._server.spawn(self._prepare(upload))

    async def _prepare(self, upload: UploadInProgress) -> None:
        try:
            async with self._disk:
                await asyncio.to_thread(self._models.prepare, upload)
        except TesseraError as error:
            self._failed(upload.owner, upload.store, error)
        except Exception:
            log.exception("upload %s: internal error", upload.store[:8])
            self._failed(upload.owner, upload.store, internal_error())
        else:
            self._server.tell([self._dealer], StorePrepared(store=upload.store))

    async def keep(
        self, owner: Member, name: str, store: str, description: bytes, seed: Seed, tensors: Mapping[str, FieldArray]
    ) -> None:
        """What a run of that owner's has left becomes a version of a data set, once all parties have it."""
        try:
            async with self._disk:
                await asyncio.to_thread(self._models.keep, owner, name, store, description, seed, tensors)
        except TesseraError as error:
            self._failed(owner, store, error)
        except Exception:
            log.exception("what run %s keeps: internal error", store[:8])
            self._failed(owner, store, internal_error())
        else:
            self._server.tell([self._dealer], StorePrepared(store=store))

    def _failed(self, owner: Member, store: str, error: TesseraError) -> None:
        log.warning("upload %s of %s failed: %s", store[:8], owner.name, error)
        self._server.tell([owner.name], store_failed(store, error))

    async def _commit(self, store: str) -> None:
        """All parties have it: put it in use."""
        async with self._disk:
            try:
                model = await asyncio.to_thread(self._models.commit, store)
            except ProgramError as error:
                log.warning("version %s is refused here: %s", store[:8], error)
                dropped = await asyncio.to_thread(self._models.drop, store)
                if dropped is not None:
                    self._failed(dropped.owner, store, error)
                return
        if model is not None:
            log.info("holds model %s of %s, version %s", model.record.name, model.owner.name, store[:8])
            self._server.tell([model.owner.name], StoreReady(store=store))

    def _on_dropped(self, sender: Member, message: StoreDropped, _: Payload) -> None:
        """An owner gives up what is not complete; from then on only the dealer's word counts."""
        if sender == self._models.owner_of(message.store) or not self._is_client(sender):
            self._models.cancel(message.store)
        if not self._is_client(sender):
            self._server.spawn(self._drop(message.store))

    def _is_client(self, sender: Member) -> bool:
        return not sender.is_server

    async def _drop(self, store: str) -> None:
        async with self._disk:
            dropped = await asyncio.to_thread(self._models.drop, store)
        if dropped is not None:
            log.info("version %s of model %s is dropped", store[:8], dropped.record.name)

    # -- with the dealer -------------------------------------------------------------------------------------------

    def dealer_lost(self) -> None:
        """It may have forgotten what it was told, and we may have missed what it said."""
        self._dealer_is_new.set()

    async def settle(self) -> None:
        """Tell the dealer what is here when it or we have started, and while it owes us a decision; for ever."""
        due = True
        while True:
            self._models.uploads.cancel_old()
            if due or self._models.prepared:
                due = not await self._report()
            try:
                async with asyncio.timeout(self._settings.peer_timeout):
                    await self._dealer_is_new.wait()
            except TimeoutError:
                continue
            self._dealer_is_new.clear()
            due = True

    async def _report(self) -> bool:
        """Whether the dealer was reached."""
        try:
            await self._server.endpoint.connect([self._dealer], self._settings.peer_timeout)
            programs = await asyncio.to_thread(self._stock)
            message = Holdings(
                held=self._models.held,
                prepared=self._models.prepared,
                programs=tuple(programs)[:MAX_PROGRAMS],
                uploads=self._models.uploads.stores,
            )
            self._server.endpoint.send(self._dealer, message)
        except TesseraError as error:
            log.debug("the dealer cannot be told what is here: %s", error)
            return False
        return True

    # -- what clients ask ------------------------------------------------------------------------------------------

    def _on_find(self, client: Member, message: FindModel, _: Payload) -> None:
        seen = {model.record.name: model for model in self._models.seen_by(client.name)}
        model = seen.get(message.name)
        reply = FoundModel(
            query=message.query,
            store=model.record.store if model else "",
            owner=model.owner.name if model else "",
            names=tuple(seen),
        )
        self._server.tell([client.name], reply, [model.record.description if model else b""])

    async def _list(self, client: Member, message: ListModels) -> None:
        found = self._models.seen_by(client.name)
        infos = await asyncio.to_thread(lambda: tuple(self._info(model, client) for model in found))
        tensors = [msgspec.msgpack.encode(model.record.tensors) for model in found]
        self._server.tell([client.name], ModelList(query=message.query, models=infos), tensors)

    def _info(self, model: StoredModel, client: Member) -> ModelInfo:
        record = model.record
        try:
            size = self._models.stored_bytes(model)
        except VaultError as error:
            log.warning("%s", error)
            size = 0
        allowed = self._models.allowed(model, client.name)
        return ModelInfo(record.name, model.owner.name, record.store, record.when, size, allowed)

    async def _allow(self, client: Member, message: AllowUse) -> None:
        try:
            async with self._disk:
                await asyncio.to_thread(self._models.allow, client, message.name, message.client, message.programs)
        except TesseraError as error:
            self._server.refuse_upload(client, message, error)
        else:
            log.info("%s allows %s on %s: %s", client.name, message.client, message.name, message.programs or "nothing")
            self._server.tell([client.name], UseAllowed(store=message.store))

    async def _remove(self, client: Member, message: RemoveModel) -> None:
        try:
            async with self._disk:
                found = await asyncio.to_thread(self._models.remove, client, message.name)
                found |= self._models.uploads.cancel_of(client, message.name)
        except TesseraError as error:
            self._server.refuse_upload(client, message, error)
        else:
            log.info("%s has removed model %s", client.name, message.name)
            self._server.tell([client.name], StoreRemoved(store=message.store, found=found))
