"""The coordinator of stored secrets: the masks of uploads, and the decision which version a name stands for.

``parties.stored.version_database`` says why nobody ends up with another version than the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from msgspec.structs import replace

from mpc.errors import ProtocolViolation, ServerBusy, TesseraError
from mpc.rings.prg import Seed, fresh_seed
from parties.members.cluster import Cluster, Member
from parties.messages.bindings import BoundProgram, slot_of
from parties.messages.check import Quota, QuotaSeen
from parties.messages.evidence import Vouched
from parties.messages.failures import fault_of, internal_error
from parties.messages.status import SecretSeen
from parties.messages.stored import RemoveSecret, SecretRemoved
from parties.messages.uploads import (
    Upload,
    UploadFailed,
    UploadSeed,
    VersionCommit,
    VersionDropped,
    VersionPrepared,
    VersionsHeld,
)
from parties.operate.audit import facts
from parties.operate.audit.quota import ENTRY
from parties.servers.pending_upload import PendingUpload, VersionInUse
from parties.servers.prepared_parts import difference
from parties.servers.server import Server
from parties.stored.data_set import described, kept_types
from parties.stored.decided_versions import DecidedVersions, MaskedVersion
from parties.stored.gate import Gate
from parties.stored.policy import InUse, Policy, descent
from parties.stored.quotas import MAX_RULES, Said, said
from parties.stored.record import UPLOADED, owner_of, upload_shapes
from parties.stored.rules import RuleBook
from parties.stored.uploads import MAX_AGE, MAX_OF_A_CLIENT
from parties.wire.messages import Payload
from protocols.readings.dealer import StoredMasks, digest

log = logging.getLogger(__name__)


class Coordinator:
    """Decides which version a name stands for, and handles the messages about that.

    The dealer's process plays this role; nothing of it has to do with dealing.  ``gone`` is awaited when a version may
    have gone, and whatever was made for it with it.
    """

    def __init__(self, server: Server[Any], database: DecidedVersions, gone: Callable[[], Awaitable[None]]) -> None:
        self._server = server
        self._database = database
        self._gone = gone
        self._circle = server.cluster.circle
        self._parties = [party.name for party in server.cluster.parties]
        self._followers: list[Callable[[str], None]] = []
        self._uploads: dict[str, PendingUpload] = {}
        self._versions: dict[str, VersionInUse] = {}
        self._names: dict[str, str] = {}
        """Versions in use by slot."""
        self.rules = RuleBook(database.rules)
        self.gate = Gate(self.look_up, database.rules)
        self._away = database.current()
        """Versions of an owner, or among servers, that the cluster file does not list."""
        self._settle()
        for record, masks, content in database.begun():
            owner = owner_of(server.cluster, record)
            if not content:
                # What a run was to keep: nobody goes on with it, so it would never be decided otherwise.
                database.forget_uploads([record.version])
            elif owner is not None and len(masks.seeds) == len(self._parties):
                self._uploads[record.version] = PendingUpload(
                    owner, record.name, masks, record.description, content=content, begun=record.when, asleep=True
                )
        server.on(Upload, self._on_upload, self._refuse_upload)
        server.on(VersionDropped, self._on_dropped)
        server.on(VersionPrepared, self._on_prepared)
        server.on(VersionsHeld, lambda party, message, _: server.spawn(self._answer(party, message)))
        server.on(RemoveSecret, lambda client, message, _: server.spawn(self._remove(client, message)))

    def _settle(self) -> None:
        """Puts in use what is of a client of ours."""
        away, self._away = self._away, []
        for record, masks in away:
            owner = owner_of(self._server.cluster, record)
            if owner is not None and len(masks.seeds) == len(self._parties):
                self._versions[record.version] = held = VersionInUse(
                    owner, record.name, masks, record.description, record.descent
                )
                self._names[held.slot] = record.version
            else:
                self._away.append(MaskedVersion(record, masks))

    def follow(self, cluster: Cluster) -> None:
        """Owners as that cluster file has them; nothing comes of uploads of who is no client any more."""
        clients = {client.identity: client for client in cluster.clients}
        for held in (*self._versions.values(), *self._uploads.values()):
            held.owner = clients.get(held.owner.identity, held.owner)
        self._forget(
            [version for version, u in self._uploads.items() if u.owner.identity not in clients and not u.deciding]
        )
        self._settle()

    def whenever_decided(self, follow: Callable[[str], None]) -> None:
        """Have it called with each version that comes into use."""
        self._followers.append(follow)

    @property
    def in_use(self) -> list[SecretSeen]:
        """All that somebody may use."""
        clients = self._server.cluster.clients
        found = [(version, held) for version, held in list(self._versions.items()) if held.owner in clients]
        return [SecretSeen(held.name, held.owner.name, version) for version, held in found]

    def uploaded(self, version: str) -> VersionInUse | None:
        """A version in use, unless a run has left it."""
        held = self._versions.get(version)
        return held if held is not None and held.descent == UPLOADED else None

    @property
    def stored(self) -> Mapping[str, StoredMasks]:
        """Masks by version, of all in use."""
        return {version: held.masks for version, held in list(self._versions.items())}

    def is_in_use(self, version: str) -> bool:
        """Whether somebody may use it, or may again."""
        return version in self._versions

    def is_being_kept(self, slot: str) -> bool:
        """Whether a run that has been dealt for is to put something there."""
        return any(upload.of_run is not None and upload.slot == slot for upload in self._uploads.values())

    @property
    def slots(self) -> tuple[str, ...]:
        """All that is in use."""
        return tuple(self._names)

    def look_up(self, slot: str) -> InUse[StoredMasks] | None:
        """What is in use under the owner and the name that a slot says.

        As at a party (`PartySecrets.look_up`): a version that is the same before and after was in use meanwhile.
        """
        version = self._names.get(slot, "")
        held = self._versions.get(version)
        if held is None or held.owner not in self._server.cluster.clients:
            return None
        grants = self.rules.grants(held.owner, held.name)
        others = self.rules.others(self._server.cluster, slot, held.descent)
        policy = Policy(held.name, held.owner.name, version, held.description, grants, held.descent, others)
        return InUse(policy, held.masks) if self._names.get(slot) == version else None

    # -- uploads ---------------------------------------------------------------------------------------------------

    def _on_upload(self, client: Member, message: Upload, payload: Payload) -> None:
        self._server.check_staying()
        if len(payload) != 1:
            raise ProtocolViolation(client.name, "sent an upload without a description")
        self._forget_old()
        known = self._versions.get(message.version)
        if known is not None and known.owner == client:
            # Decided while its owner was cut off.  Nothing can be sent for it any more: every party has all of it.
            self._server.spawn(self._send_seeds(client, message, message.version, known))
            return
        masks = StoredMasks(tuple(Seed(fresh_seed()) for _ in self._parties), upload_shapes(message))
        new = PendingUpload(client, message.name, masks, bytes(payload[0]), content=message.content)
        version, upload = self._same(new) or (message.version, new)
        if upload is new:
            self._check_new(client, message.version, said(message.name, payload[0], len(message.tensors)))
            self._server.audit.charge(client.name, ENTRY)
            self._uploads[version] = new
        upload.asleep, upload.begun = False, time.time()
        self._server.spawn(self._send_seeds(client, message, version, upload))

    # -- what runs keep --------------------------------------------------------------------------------------------

    async def remember(self, client: Member, version: str, bound: BoundProgram, seeds: tuple[Seed, ...]) -> None:
        """The masks of what a run is to keep, on the disk: from now on as of an upload whose chunks are all there.

        Raises ServerBusy, ProtocolViolation, VaultError, ProgramError where what it reads is gone.
        """
        self._forget_old()
        description, types = described(bound.program), kept_types(bound.program)
        self._check_new(client, version, said(bound.keep, description, len(types)))
        masks = StoredMasks(seeds, {tensor: t.shape for tensor, t in types.items()})
        self._uploads[version] = upload = PendingUpload(
            client, bound.keep, masks, description, descent(bound, self._server.cluster, self.look_up), of_run=bound
        )
        await self._write(client, version, upload)

    def forget(self, version: str) -> None:
        """The run that was to keep it has failed."""
        upload = self._uploads.get(version)
        # An upload has a tag of its content; that is given up by its owner alone.
        if upload is not None and not upload.content and not upload.deciding:
            self._forget([version])

    # -- uploads, again --------------------------------------------------------------------------------------------

    def _same(self, new: PendingUpload) -> tuple[str, PendingUpload] | None:
        """The upload that the owner goes on with: of the same name, description and content."""

        def what(upload: PendingUpload) -> tuple[object, ...]:
            shapes = tuple(upload.masks.shapes.items())
            return upload.owner, upload.name, upload.content, upload.description, shapes

        found = ((version, upload) for version, upload in self._uploads.items() if what(upload) == what(new))
        return next(found, None)

    def _check_new(self, client: Member, version: str, new: Said) -> None:
        if version in self._uploads or version in self._versions:
            raise ProtocolViolation(client.name, "sent an upload whose id has been used")
        if sum(upload.owner == client for upload in self._uploads.values()) >= MAX_OF_A_CLIENT:
            raise ServerBusy(
                self._server.cluster.dealer.name,
                f"{client.name} has {MAX_OF_A_CLIENT} uploads that are not complete, and may have no more: go on with"
                " one of them by uploading the same again, or forget it with `tessera rm`; it is forgotten a day after"
                " it was begun",
            )
        replaced = self._names.get(slot_of(client.name, new.name), "")
        self._server.governor.quotas.check(client.name, new, self._said_of(client, replaced))

    def _said_of(self, client: Member, replaced: str = "") -> list[Said]:
        """What that client has here, but for the version that is to be replaced."""
        in_use = [held for version, held in self._versions.items() if version != replaced]
        everything = [held for held in (*self._uploads.values(), *in_use) if held.owner == client]
        return [said(held.name, held.description, len(held.masks.shapes)) for held in everything]

    def quotas_of(self, client: Member) -> tuple[QuotaSeen, ...]:
        """What that client has used up of them."""
        begun = sum(upload.owner == client for upload in self._uploads.values())
        return (
            *self._server.governor.quotas.seen(self._said_of(client)),
            QuotaSeen(Quota.RULES, self.rules.count(client), MAX_RULES),
            QuotaSeen(Quota.UPLOADS, begun, MAX_OF_A_CLIENT),
        )

    async def _send_seeds(self, client: Member, message: Upload, version: str, held: VersionInUse) -> None:
        """To who goes on with a version: in use, or an upload, which is on the disk first."""
        endpoint = self._server.endpoint
        try:
            if isinstance(held, PendingUpload):
                await self._write(client, version, held)
            if not all(map(endpoint.connected, self._parties)):
                await endpoint.connect(self._parties, self._server.cluster.settings.peer_timeout)
            if version not in self._uploads and version not in self._versions:
                return  # given up meanwhile
            seeds = b"".join(map(bytes, held.masks.seeds))
            reply = UploadSeed(version=version, continued=version, masks=digest([seeds]))
            if version in self._uploads:
                for party, seed in zip(self._parties, held.masks.seeds, strict=True):
                    endpoint.send(party, reply, [bytes(seed)])
            else:
                self._server.tell(self._parties, VersionCommit(version=version))
            endpoint.send(client.name, replace(reply, version=message.version), [seeds])
            if isinstance(held, PendingUpload):
                self._decide(version, held)
        except TesseraError as error:
            self._refuse_upload(client, message, error)

    def _refuse_upload(self, client: Member, message: Upload, error: TesseraError) -> None:
        """It goes no further: the parties never hear of it."""
        log.warning("Upload of %s refused: %s", client.name, error)
        failure = UploadFailed(version=message.version, fault=fault_of(error))
        self._server.metrics.upload_ended(failure.fault.error)
        self._server.audit.refused(client.name, "Upload", failure.fault.error)
        self._server.tell([client.name], failure)

    async def _write(self, client: Member, version: str, upload: PendingUpload) -> None:
        """On the disk.  Raises VaultError, ProtocolViolation; it is forgotten then."""
        try:
            async with self._server.governor.disk.turn(client.name):
                if await asyncio.to_thread(self._database.gone, [version]):
                    raise ProtocolViolation(client.name, "sent an upload whose id has been used")
                if version in self._uploads:
                    record = upload.record(version, self._circle)
                    await asyncio.to_thread(self._database.begin, record, upload.masks.seeds, upload.content)
        except TesseraError:
            self._uploads.pop(version, None)
            raise

    def _forget(self, versions: Collection[str]) -> None:
        """These have come to nothing."""
        uploads = [self._uploads.pop(version, None) for version in versions]
        if versions:
            owners = (upload.owner.name for upload in uploads if upload is not None)
            self._server.spawn(self._erase(versions, next(owners, self._server.member.name)))

    async def _erase(self, versions: Collection[str], owner: str) -> None:
        """From the disk, and only then at the parties: an upload that they lack is never gone on with."""
        await self._server.governor.disk.in_thread(owner, lambda: self._database.forget_uploads(versions))
        for version in versions:
            self._server.tell(self._parties, VersionDropped(version=version))

    def _forget_old(self) -> None:
        before = time.time() - MAX_AGE
        self._forget([s for s, upload in self._uploads.items() if upload.begun < before and not upload.deciding])

    def _on_dropped(self, sender: Member, message: VersionDropped, _: Payload) -> None:
        """The owner gives an upload up: that counts until it is decided."""
        upload = self._uploads.get(message.version)
        if upload is not None and upload.owner == sender and not upload.deciding:
            self._forget([message.version])

    # -- the decision ----------------------------------------------------------------------------------------------

    def _on_prepared(self, party: Member, message: VersionPrepared, _: Payload) -> None:
        self._prepared(party, message.version, message.masked)

    def _prepared(self, party: Member, version: str, masked: Vouched) -> None:
        upload = self._uploads.get(version)
        if upload is not None:
            upload.prepared[party.name] = masked
            self._decide(version, upload)
        elif version in self._versions:
            self._server.tell([party.name], VersionCommit(version=version))
        else:
            self._server.tell([party.name], VersionDropped(version=version))

    def _decide(self, version: str, upload: PendingUpload) -> None:
        """All parties have all of it, or there is nothing to decide."""
        if upload.deciding or not upload.prepared:
            return
        if upload.asleep:
            # Its owner may have been told that it failed.  Who still wants it comes back at once.
            delay = self._server.cluster.settings.peer_timeout
            asyncio.get_running_loop().call_later(delay, self._presume_abort, version, upload)
            return
        if len(upload.prepared) < len(self._parties):
            return
        found = difference(upload.owner, self._circle, version, upload.prepared)
        if found is not None:
            self._server.proofs.take(found.evidence, self._server.member)
            self._refuse(version, upload, found.error)
            return
        upload.deciding = True
        self._server.spawn(self._commit(version, upload))

    def _presume_abort(self, version: str, upload: PendingUpload) -> None:
        if upload.asleep and self._uploads.get(version) is upload:
            self._forget([version])

    async def _commit(self, version: str, upload: PendingUpload) -> None:
        """From the moment this is on the disk on, the name stands for the new version."""
        try:
            async with self._server.governor.disk.turn(upload.owner.name):
                if upload.of_run is not None:
                    self.gate.check_still(upload.of_run, upload.owner.name)
                await asyncio.to_thread(self._database.commit, upload.record(version, self._circle), upload.masks.seeds)
                former = self._names.get(upload.slot)
                self._versions[version] = VersionInUse(
                    upload.owner, upload.name, upload.masks, upload.description, upload.descent
                )
                self._names[upload.slot] = version
                if former is not None:
                    del self._versions[former]
                self._uploads.pop(version, None)
                self._server.end_forbidden()
        except TesseraError as error:
            self._refuse(version, upload, error)
        except Exception:
            log.exception("upload %s: internal error", version[:8])
            self._refuse(version, upload, internal_error())
        else:
            log.info("model %s of %s is version %s", upload.name, upload.owner.name, version[:8])
            self._server.audit.record(facts.Upload(upload.owner.name, upload.name, version))
            self._server.tell(self._parties, VersionCommit(version=version))
            for follow in self._followers:
                follow(version)
            await self._gone()

    def _refuse(self, version: str, upload: PendingUpload, error: TesseraError) -> None:
        log.warning("upload %s of %s failed: %s", version[:8], upload.owner.name, error)
        self._server.audit.refused(upload.owner.name, "Upload", type(error).__name__)
        self._server.tell([upload.owner.name], UploadFailed(version=version, fault=fault_of(error)))
        self._forget([version])

    # -- afterwards ------------------------------------------------------------------------------------------------

    async def _answer(self, party: Member, message: VersionsHeld) -> None:
        """What the party has missed."""
        self._forget_old()
        for prepared in message.prepared:
            self._prepared(party, prepared.version, prepared.masked)
        for version in message.uploads:
            if version not in self._uploads and version not in self._versions:
                self._server.tell([party.name], VersionDropped(version=version))
        for version in sorted(await asyncio.to_thread(self._database.gone, message.held)):
            log.warning("%s has version %s, which is gone: it is told to drop it", party.name, version[:8])
            self._server.tell([party.name], VersionDropped(version=version))

    async def _remove(self, client: Member, message: RemoveSecret) -> None:
        try:
            self._server.audit.check()
            self._server.audit.charge(client.name, ENTRY, takes_back=True)
            async with self._server.governor.disk.turn(client.name):
                slot = slot_of(client.name, message.name)
                version = self._names.get(slot)
                begun = [
                    s
                    for s, u in self._uploads.items()
                    if (u.owner, u.name, u.deciding) == (client, message.name, False)
                ]
                self._forget(begun)
                if version is not None:
                    await asyncio.to_thread(self._database.remove, version)
                    del self._names[slot], self._versions[version]
                    self._server.end_forbidden()
        except TesseraError as error:
            self._server.refuse_request(client, message, error)
            return
        log.info("%s has removed %s", client.name, message.name)
        found = version is not None or bool(begun)
        if found:
            self._server.audit.record(facts.Removal(client.name, message.name, message.request))
        self._server.tell([client.name], SecretRemoved(request=message.request, found=found))
        await self._gone()
