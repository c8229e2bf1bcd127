"""A party's side of stored secrets: uploads, going over to them together with the others, listing and removing.

``parties.stored.version_database`` says why nobody ends up with another version than the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from mpc.errors import ProtocolViolation, TesseraError
from mpc.operation import PartyContext
from mpc.rings import Array
from mpc.rings.prg import Seed
from parties.host.counters import OK
from parties.members.cluster import Cluster, Member
from parties.messages.bindings import BoundProgram
from parties.messages.failures import fault_of, internal_error
from parties.messages.runs import Failed
from parties.messages.stored import (
    FindSecret,
    FoundDetails,
    FoundSecret,
    ListSecrets,
    RemoveSecret,
    SecretDetails,
    SecretFound,
    SecretInfo,
    SecretList,
    SecretRemoved,
)
from parties.messages.uploads import (
    ChunksStored,
    UploadBegin,
    UploadChunk,
    UploadFailed,
    UploadSeed,
    UploadSigned,
    VersionCommit,
    VersionDropped,
    VersionMessage,
    VersionPrepared,
    VersionReady,
    VersionsHeld,
)
from parties.operate.audit import facts
from parties.operate.audit.quota import ENTRY
from parties.servers.reporting import Reporting
from parties.servers.server import Server
from parties.stored.chunks import Grid
from parties.stored.party_secrets import PartySecrets
from parties.stored.quotas import Said, said
from parties.stored.record import UPLOADED, upload_shapes
from parties.stored.stored_version import StoredVersion
from parties.stored.uploads import UploadInProgress
from parties.stored.vault import VaultError
from parties.wire.messages import Payload

log = logging.getLogger(__name__)


class SecretsDesk:
    """Handles the messages about stored secrets at a party."""

    def __init__(self, server: Server[Any], secrets: PartySecrets, context: PartyContext) -> None:
        """``context``: who we are, when we evaluate."""
        self._server = server
        self._context = context
        self._secrets = secrets
        self._coordinator = server.cluster.coordinator.name
        self.reporting = Reporting(server, self._coordinator, self._what_is_here, self._undecided)
        """To the coordinator, what is here."""
        self._settings = server.cluster.settings
        for record, _ in secrets.unusable:
            log.warning(
                "model %s of %s is here but cannot be used: the cluster file lists its owner or the servers it was"
                " shared among no longer",
                record.name,
                record.owner_name,
            )
        server.succeeding.whenever(self._follow)
        server.on(UploadBegin, self._on_begin, self._refuse)
        server.on(UploadSeed, self._on_seed, self._refuse)
        server.on(UploadChunk, self._on_chunk, self._refuse)
        server.on(UploadSigned, self._on_signed, self._refuse)
        server.on(VersionCommit, lambda _, message, __: server.spawn(self._commit(message.version)))
        server.on(VersionDropped, self._on_dropped)
        server.on(FindSecret, self._on_find)
        server.on(ListSecrets, lambda client, message, _: server.spawn(self._list(client, message)))
        server.on(RemoveSecret, lambda client, message, _: server.spawn(self._remove(client, message)))

    def _follow(self, cluster: Cluster) -> None:
        async def settle() -> None:
            async with self._server.governor.disk.turn(self._coordinator):
                self._secrets.settle_again()

        self._secrets.follow(cluster)
        self._server.spawn(settle())

    # -- uploads ---------------------------------------------------------------------------------------------------

    def _on_begin(self, client: Member, message: UploadBegin, payload: Payload) -> None:
        self._server.check_staying()
        if len(payload) != 1:
            raise ProtocolViolation(client.name, "sent an upload without a description")
        self._secrets.uploads.cancel_old()
        self._check_quotas(client, said(message.name, payload[0], len(message.tensors)), message.version)
        self._server.audit.charge(client.name, ENTRY)
        upload = self._secrets.begin(client, message, payload)
        if upload is None:
            self._server.spawn(self._answer_late(client, message))
        else:
            self._server.spawn(self._open(upload, message))

    def check_keeping(self, owner: Member, name: str, run: str, tensors: int) -> None:
        """Whether what a run of that owner's keeps may lie under the name.  Raises ServerBusy."""
        self._check_quotas(owner, said(name, b"", tensors), run)

    def _check_quotas(self, owner: Member, new: Said, version: str) -> None:
        self._server.governor.quotas.check(owner.name, new, self._secrets.said_of(owner, version, new.name))

    async def _answer_late(self, client: Member, message: UploadBegin) -> None:
        """All of it is here: the owner has missed that."""
        chunks = Grid.of(upload_shapes(message).values()).count
        self._server.tell([client.name], ChunksStored(version=message.version, attempt=message.attempt, chunks=chunks))
        if self._secrets.is_in_use(message.version):
            self._tell_ready(client, message.version)

    async def _open(self, upload: UploadInProgress, message: UploadBegin) -> None:
        """Tell the owner what is here, once that is certain."""
        try:
            async with upload.disk, self._server.governor.uploads.turn(upload.owner.name):
                upload.waiting.clear()
                held = self._secrets.bytes_of(upload.owner) - upload.grid.total_bytes
                await asyncio.to_thread(self._secrets.uploads.ready, upload, held)
        except TesseraError as error:
            self._refuse(upload.owner, message, error)
            return
        if upload.attempt == message.attempt and not upload.over and upload.partial is not None:
            upload.open, upload.written = True, upload.partial.chunks
            upload.touched = time.monotonic()
            self._acknowledge(upload)
            self._expect(upload, message.attempt)
            self._complete_or_refuse(upload.owner, message)

    def _acknowledge(self, upload: UploadInProgress) -> None:
        progress = ChunksStored(version=upload.version, attempt=upload.attempt, chunks=upload.written)
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
        self._secrets.uploads.sleep(upload)
        error = TesseraError(f"nothing came of the upload within {patience:g} s: upload the same again to go on")
        self._failed(upload.owner, upload.version, error)

    def _on_seed(self, dealer: Member, message: UploadSeed, payload: Payload) -> None:
        self._secrets.uploads.take_seed(dealer, message, payload)
        self._complete(message.version)

    def _on_chunk(self, client: Member, message: UploadChunk, payload: Payload) -> None:
        upload = self._secrets.uploads.take_chunk(client, message, payload)
        if upload is not None and len(upload.waiting) == 1:
            self._server.spawn(self._write(upload, message))

    def _on_signed(self, client: Member, message: UploadSigned, _: Payload) -> None:
        self._secrets.uploads.take_signed(client, message)
        self._complete(message.version)

    async def _write(self, upload: UploadInProgress, message: UploadChunk) -> None:
        """Put the chunks that wait on the disk, and acknowledge them; one flush serves all that have come meanwhile."""
        try:
            async with upload.disk:
                while upload.waiting and upload.partial is not None and upload.attempt == message.attempt:
                    async with self._server.governor.uploads.turn(upload.owner.name):
                        if not upload.waiting or upload.attempt != message.attempt:
                            break
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
            self._refuse(upload.owner, message, error)
            return
        self._complete_or_refuse(upload.owner, message)

    def _complete_or_refuse(self, owner: Member, message: VersionMessage) -> None:
        try:
            self._complete(message.version)
        except TesseraError as error:
            self._refuse(owner, message, error)

    def _complete(self, version: str) -> None:
        upload = self._secrets.complete(version)
        if upload is not None:
            self._server.spawn(self._prepare(upload))

    async def _prepare(self, upload: UploadInProgress) -> None:
        try:
            await self._server.governor.disk.in_thread(upload.owner.name, lambda: self._secrets.prepare(upload))
        except TesseraError as error:
            self._failed(upload.owner, upload.version, error)
        except Exception:
            log.exception("upload %s: internal error", upload.version[:8])
            self._failed(upload.owner, upload.version, internal_error())
        else:
            self._tell_prepared(upload.version)

    async def keep(
        self,
        owner: Member,
        version: str,
        bound: BoundProgram,
        seed: Seed,
        tensors: Mapping[str, Array],
        before: Callable[[], None] | None = None,
    ) -> None:
        """What a run of that owner's has left becomes a version of a data set, once all parties have it.

        If it still has leave for that: until a party says that it has it, it is a run like any other.  ``before`` is
        called in the same thread.
        """
        try:
            async with self._server.governor.disk.turn(owner.name):
                if before is not None:
                    await asyncio.to_thread(before)
                await asyncio.to_thread(self._secrets.keep, owner, version, bound, seed, tensors)
            self._secrets.gate.check_still(bound, owner.name)
        except TesseraError as error:
            await self._drop(version)
            self._not_kept(owner, version, error)
        except Exception:
            log.exception("what run %s keeps: internal error", version[:8])
            self._not_kept(owner, version, internal_error())
        else:
            self._tell_prepared(version)

    def _not_kept(self, owner: Member, version: str, error: TesseraError) -> None:
        """The coordinator is told as well: it need not wait for us."""
        self._failed(owner, version, error)
        self._server.tell([self._coordinator], Failed(run=version, fault=fault_of(error)))

    def _tell_prepared(self, version: str) -> None:
        masked = self._secrets.vouched(version)
        if masked is not None:
            self._server.tell([self._coordinator], VersionPrepared(version=version, masked=masked))

    def _refuse(self, sender: Member, message: VersionMessage, error: TesseraError) -> None:
        """Fails the upload if the sender has a part in it; a stranger to it only learns that it was refused."""
        log.warning("%s of %s refused: %s", type(message).__name__, sender.name, error)
        owner = self._secrets.owner_of(message.version)
        if owner is not None and sender.name in (owner.name, self._coordinator):
            self._secrets.cancel(message.version)
            self._tell_failed(owner, message.version, error)
        else:
            self._tell_failed(sender, message.version, error)

    def _failed(self, owner: Member, version: str, error: TesseraError) -> None:
        log.warning("upload %s of %s failed: %s", version[:8], owner.name, error)
        self._tell_failed(owner, version, error)

    def _tell_failed(self, member: Member, version: str, error: TesseraError) -> None:
        failure = UploadFailed(version=version, fault=fault_of(error))
        self._server.metrics.upload_ended(failure.fault.error)
        self._server.audit.refused(member.name, "Upload", failure.fault.error)
        self._server.tell([member.name], failure)

    def _tell_ready(self, owner: Member, version: str) -> None:
        """The owner, and the coordinator, which may have the next run of a training begin."""
        self._server.metrics.upload_ended(OK)
        self._server.tell([owner.name, self._coordinator], VersionReady(version=version))

    async def _commit(self, version: str) -> None:
        """All parties have it: put it in use."""
        async with self._turn(version):
            model = await asyncio.to_thread(self._secrets.commit, version)
            if model is not None:
                former = self._secrets.put_in_use(model)
                self._server.end_forbidden()
                if former is not None:
                    await asyncio.to_thread(self._secrets.unload, former)
        if model is not None:
            await self._make_ready(model)
            log.info("holds %s of %s, version %s", model.record.name, model.owner.name, version[:8])
            self._server.audit.record(facts.Upload(model.owner.name, model.record.name, version))
            self._tell_ready(model.owner, version)

    async def _make_ready(self, model: StoredVersion) -> None:
        """What an owner has uploaded will be predicted with: before that is said to be there.  In nobody's way."""
        if model.record.descent != UPLOADED:
            return
        governor = self._server.governor
        work = partial(self._secrets.make_ready, model, self._context, governor.admission.memory // 2)
        try:
            await governor.offline.run(model.owner.name, work, patient=True)
        except TesseraError as error:
            log.warning("%s of %s was not made ready: %s", model.record.name, model.owner.name, error)

    def _turn(self, version: str) -> contextlib.AbstractAsyncContextManager[None]:
        """At the disk: what others say about a version is done in its owner's."""
        owner = self._secrets.holder_of(version)
        return self._server.governor.disk.turn(self._coordinator if owner is None else owner.name)

    def _on_dropped(self, sender: Member, message: VersionDropped, _: Payload) -> None:
        """An owner gives up what is not complete; from then on only the coordinator's word counts."""
        if sender == self._secrets.owner_of(message.version) or not self._is_client(sender):
            self._secrets.cancel(message.version)
        if not self._is_client(sender):
            self._server.spawn(self._drop(message.version))

    def _is_client(self, sender: Member) -> bool:
        return not sender.is_server

    async def _drop(self, version: str) -> None:
        async with self._turn(version):
            await asyncio.to_thread(self._secrets.drop, version)
            dropped = self._secrets.forget(version)
            self._server.end_forbidden()
            if dropped is not None:
                await asyncio.to_thread(self._secrets.unload, dropped)
                log.info("version %s of model %s is dropped", version[:8], dropped.record.name)

    # -- with the coordinator --------------------------------------------------------------------------------------

    async def _what_is_here(self) -> tuple[VersionsHeld, Sequence[bytes]]:
        secrets = self._secrets
        return VersionsHeld(held=secrets.held, prepared=secrets.prepared_parts, uploads=secrets.uploads.versions), ()

    def _undecided(self) -> bool:
        self._secrets.uploads.cancel_old()
        return bool(self._secrets.prepared)

    # -- what clients ask ------------------------------------------------------------------------------------------

    def _on_find(self, client: Member, message: FindSecret, _: Payload) -> None:
        seen = self._secrets.seen_by(client.name)
        found = [model for model in seen if model.record.name == message.name]
        found = [model for model in found if message.owner in ("", model.owner.name)]
        details = [
            msgspec.msgpack.encode(FoundDetails(model.record.description, *self._secrets.rules_of(model, client.name)))
            for model in found
        ]
        reply = FoundSecret(
            request=message.request,
            found=tuple(
                SecretFound(m.owner.name, m.record.version, m.record.descent.parts, m.record.descent.made)
                for m in found
            ),
            there=tuple(model.slot for model in seen),
            left=self._secrets.left_for(client.name),
        )
        self._server.tell([client.name], reply, details)

    async def _list(self, client: Member, message: ListSecrets) -> None:
        found, left = self._secrets.seen_by(client.name), self._secrets.left_for(client.name)
        allowed = [self._secrets.allowed(model, client.name) for model in found]

        def described() -> tuple[tuple[SecretInfo, ...], list[bytes]]:
            details = [SecretDetails(m.record.tensors, *rules) for m, rules in zip(found, allowed, strict=True)]
            return tuple(map(self._info, found)), list(map(msgspec.msgpack.encode, details))

        try:
            infos, encoded = await self._server.governor.desk.run(client.name, described)
        except TesseraError as error:
            self._server.refuse_request(client, message, error)
        else:
            self._server.tell([client.name], SecretList(request=message.request, secrets=infos, left=left), encoded)

    def _info(self, model: StoredVersion) -> SecretInfo:
        record = model.record
        try:
            size = self._secrets.stored_bytes(model)
        except VaultError as error:
            log.warning("%s", error)
            size = 0
        return SecretInfo(record.name, model.owner.name, record.version, record.when, size)

    async def _remove(self, client: Member, message: RemoveSecret) -> None:
        model = self._secrets.find(client, message.name)
        try:
            self._server.audit.check()
            self._server.audit.charge(client.name, ENTRY, takes_back=True)
            if model is not None:
                await self._drop(model.record.version)
            found = self._secrets.uploads.cancel_of(client, message.name) or model is not None
        except TesseraError as error:
            self._server.refuse_request(client, message, error)
        else:
            log.info("%s has removed %s", client.name, message.name)
            if found:
                self._server.audit.record(facts.Removal(client.name, message.name, message.request))
            self._server.tell([client.name], SecretRemoved(request=message.request, found=found))
