"""The stored secrets that a party holds as shares: uploads in progress, prepared versions, and what is in use.

An upload is begun by its owner, who names the model and its tensors, and is complete once the dealer's seed and every
chunk of the masked tensors are there (`parties.stored.uploads`).  Then it is written to the disk as *prepared*, and put
in use when the dealer says that every party has got as far; until then whatever was under the name stays in use.

*Memory.*  Shares are read from the disk when a run first needs them, and stay: a party with many of them is up again at
once, what nobody uses takes no memory, and a damaged file fails the runs that use it alone.  Of an upload there
are a few chunks in memory, however big it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import msgspec

from mpc.errors import ProtocolViolation, UnsupportedError
from mpc.operation import PartyContext, Value
from mpc.rings import Array, PrimeField
from mpc.rings.prg import Seed
from nn.model import Description
from parties.members.cluster import Cluster, Member
from parties.messages.bindings import BoundProgram, slot_of
from parties.messages.evidence import Vouched, digest_of
from parties.messages.rules import Grants, Rule
from parties.messages.uploads import MAX_SECRETS, Prepared, UploadBegin
from parties.stored.chunks import Grid
from parties.stored.data_set import described
from parties.stored.gate import Gate
from parties.stored.partials import Begun
from parties.stored.party_versions import PartyVersions, State, VersionRow, streamed
from parties.stored.policy import InUse, Policy, descent, not_in_use
from parties.stored.quotas import Said, said
from parties.stored.record import Record, owner_of, tensor_infos, upload_shapes
from parties.stored.rules import RuleBook
from parties.stored.stored_version import WORTH, ReadForRun, StoredVersion
from parties.stored.uploads import UploadInProgress, Uploads
from protocols.operations.product import make_ready

_IN_MEMORY = 3
"""Bytes in memory for one on the disk: public parts, and what products keep."""


class PartySecrets:
    """Versions in use by owner and name, their tensors by version, and uploads on the way.

    Methods that say so block, on the disk: make those from worker threads, one at a time.  The others are the event
    loop's.
    """

    def __init__(self, disk: PartyVersions, cluster: Cluster, field: PrimeField) -> None:
        """``field``: what this process computes with; what is stored lives in it."""
        self._disk = disk
        self._field = field
        self._circle = cluster.circle
        self._cluster = cluster
        self._current: dict[str, StoredVersion] = {}
        self._saving: dict[str, StoredVersion] = {}
        self._prepared: dict[str, StoredVersion] = {}
        decided = frozenset(row.record.version for row in disk.versions())
        self.uploads = Uploads(disk.partials, cluster, decided, field)
        self._loading = threading.Lock()
        self._sizes: dict[str, int] = {}
        """Of versions, on the disk."""
        self._tensors: dict[str, dict[str, Value]] = {}
        """By version: w - b, which all parties hold, and this party's share of b.  Of those that were needed."""
        self.rules = RuleBook(disk.rules)
        self.gate = Gate(self.look_up, disk.rules)
        self.unusable: list[VersionRow] = []
        """On the disk, but of an owner or of servers that the cluster file does not list."""
        for row in disk.versions():
            self._settle(row)

    def _settle(self, row: VersionRow) -> None:
        owner = owner_of(self._cluster, row.record)
        if owner is None:
            self.unusable.append(row)
            return
        model = StoredVersion(row.record, owner)
        if row.state is State.CURRENT:
            self._current[model.slot] = model
        else:
            self._prepared[row.record.version] = model

    # -- another cluster file --------------------------------------------------------------------------------------

    def follow(self, cluster: Cluster) -> None:
        """From now on nobody uses what is of somebody who is no client any more; nothing comes of its uploads."""
        self._cluster = cluster
        for version in self.uploads.versions:
            upload = self.uploads.get(version)
            if upload is not None and owner_of(cluster, upload.begun.record) is None:
                self.uploads.cancel(version)

    def settle_again(self) -> None:
        """Members as the cluster file has them now: some have another key, or are back.  Nothing may be on its way to
        the disk meanwhile."""
        for slot, model in list(self._current.items()):
            self._current[slot] = model._replace(owner=owner_of(self._cluster, model.record) or model.owner)
        for version, model in list(self._prepared.items()):
            self._prepared[version] = model._replace(owner=owner_of(self._cluster, model.record) or model.owner)
        self.uploads.settle_again(self._cluster)
        unusable, self.unusable = self.unusable, []
        for row in unusable:
            self._settle(row)

    @property
    def in_use(self) -> list[StoredVersion]:
        """All that somebody may use."""
        return [model for model in list(self._current.values()) if self._is_usable(model)]

    def _is_usable(self, model: StoredVersion) -> bool:
        return owner_of(self._cluster, model.record) is not None

    # -- what there is ---------------------------------------------------------------------------------------------

    def find(self, owner: Member, name: str) -> StoredVersion | None:
        """What is in use under that owner's name."""
        return self._current.get(slot_of(owner.name, name))

    def seen_by(self, client: str) -> list[StoredVersion]:
        """What is in use, and that client may know of, by owner and name."""
        found = sorted(self.in_use, key=lambda model: model.slot)
        return [model for model in found if self._policy(model).sees(client)]

    def left_for(self, client: str) -> tuple[str, ...]:
        """Slots of what that client may know of, and nobody can use: it was shared among other servers."""
        rows = [row for row in list(self.unusable) if row.state is State.CURRENT]
        owners = [(row.record, self._cluster.client_who_is(row.record.owner)) for row in rows]
        models = [StoredVersion(record, owner) for record, owner in owners if owner is not None]
        return tuple(sorted({m.slot for m in models if m.slot not in self._current and self._policy(m).sees(client)}))

    def look_up(self, slot: str) -> InUse[StoredVersion] | None:
        """What is in use under the owner and the name that a slot says.

        Versions change and owners allow while others look: a version that is the same before and after its rules were
        read was in use when they were, since none comes back that has gone.
        """
        model = self._current.get(slot)
        if model is None or not self._is_usable(model):
            return None
        policy = self._policy(model)
        return InUse(policy, model) if self._current.get(slot) is model else None

    def _policy(self, model: StoredVersion) -> Policy:
        record, owner = model
        grants = self.rules.grants(owner, record.name)
        others = self.rules.others(self._cluster, model.slot, record.descent)
        return Policy(record.name, owner.name, record.version, record.description, grants, record.descent, others)

    def rules_of(
        self, model: StoredVersion, client: str
    ) -> tuple[Mapping[str, Rule], Mapping[str, Mapping[str, Rule]]]:
        """By which rules that client may use it, beside what it may as its owner; of the owner, and of each other."""
        policy = self._policy(model)
        return policy.of(client), {other: policy.of(client, other) for other in policy.others}

    def allowed(self, model: StoredVersion, client: str) -> tuple[Grants, Mapping[str, Grants]]:
        """What that client may know of a model's rules: whoever it belongs to all, others what concerns them."""
        policy = self._policy(model)
        if client == policy.owner or client in policy.others:
            return policy.grants, policy.others
        return {client: policy.of(client)}, {other: {client: policy.of(client, other)} for other in policy.others}

    def owner_of(self, version: str) -> Member | None:
        """Whose upload in progress it is."""
        upload = self.uploads.get(version)
        return None if upload is None else upload.owner

    def holder_of(self, version: str) -> Member | None:
        """Whose version it is, once all of it is here."""
        model = self._saving.get(version) or self._prepared.get(version) or self._in_use(version)
        return None if model is None else model.owner

    @property
    def held(self) -> tuple[str, ...]:
        """Versions in use, and such as cannot be used."""
        return (
            *(m.record.version for m in list(self._current.values())),
            *(r.record.version for r in list(self.unusable)),
        )

    @property
    def prepared(self) -> tuple[str, ...]:
        """Versions that are on the disk, and await the dealer's word."""
        return tuple(self._prepared)

    @property
    def prepared_parts(self) -> tuple[Prepared, ...]:
        """Likewise, with what there is of each; as many as a message takes."""
        models = list(self._prepared.items())[:MAX_SECRETS]
        return tuple(Prepared(version, model.record.vouched) for version, model in models)

    def vouched(self, version: str) -> Vouched | None:
        """What there is of a prepared version."""
        model = self._prepared.get(version)
        return None if model is None else model.record.vouched

    @property
    def loaded(self) -> frozenset[str]:
        """Versions whose shares are in memory."""
        return frozenset(self._tensors)

    def stored_bytes(self, model: StoredVersion) -> int:
        """On the disk.  Raises VaultError."""
        return self._disk.sealed_bytes(model.record.version)

    # -- uploads ---------------------------------------------------------------------------------------------------

    def begin(self, owner: Member, message: UploadBegin, payload: list[memoryview]) -> UploadInProgress | None:
        """The upload; None if all of it is here already, prepared or in use.

        Raises ProgramError for shapes beyond measure, ProtocolViolation.
        """
        decided = (
            self._saving.get(message.version) or self._prepared.get(message.version) or self._in_use(message.version)
        )
        if decided is not None and decided.owner == owner:
            return None
        if decided is not None or message.version in self.held:
            raise ProtocolViolation(owner.name, "sent an upload whose id has been used")
        record = Record(
            version=message.version,
            name=message.name,
            owner=owner.identity,
            owner_name=owner.name,
            circle=self._circle,
            tensors=tensor_infos(upload_shapes(message)),
            when=time.time(),
            description=bytes(payload[0]),
        )
        return self.uploads.begin(owner, Begun(record, message.masks), message.attempt)

    def said_of(self, owner: Member, version: str, name: str) -> list[Said]:
        """What that owner has here, but for the version, and for what it would replace under its name."""
        return [
            said(record.name, record.description, len(record.tensors))
            for record in self._records_of(owner)
            if record.version != version and not (record.name == name and self._in_use(record.version))
        ]

    def bytes_of(self, owner: Member) -> int:
        """What that owner's secrets and uploads take on the disk, or will once they are complete."""
        return sum(map(self._bytes, self._records_of(owner)))

    def _records_of(self, owner: Member) -> list[Record]:
        decided = (*self._current.values(), *self._saving.values(), *self._prepared.values())
        records = {model.record.version: model.record for model in decided if model.owner == owner}
        records.update((record.version, record) for record in self.uploads.records_of(owner))
        return list(records.values())

    def _bytes(self, record: Record) -> int:
        size = self._sizes.get(record.version)
        if size is None:
            if len(self._sizes) > 4 * MAX_SECRETS:
                self._sizes.clear()
            size = self._sizes[record.version] = Grid.of(record.shapes.values()).total_bytes
        return size

    def keep(self, owner: Member, version: str, bound: BoundProgram, seed: Seed, tensors: Mapping[str, Array]) -> None:
        """What a run has left here becomes a prepared version: x - b of each tensor, and the seed of our shares of b.

        Blocks.  Raises VaultError, DiskFull, ServerBusy, ProgramError where what it has read is gone.
        """
        masked = [self._field.buffer(array) for array in tensors.values()]
        record = Record(
            version=version,
            name=bound.keep,
            owner=owner.identity,
            owner_name=owner.name,
            circle=self._circle,
            tensors=tensor_infos({tensor: array.shape for tensor, array in tensors.items()}),
            when=time.time(),
            description=described(bound.program),
            masked=digest_of(masked),
            descent=descent(bound, self._cluster, self.look_up),
        )
        self._disk.partials.check_room(owner.name, self._bytes(record), self.bytes_of(owner))
        self._disk.prepare(record, seed, masked)
        self._prepared[version] = StoredVersion(record, owner)

    def is_in_use(self, version: str) -> bool:
        """Whether a version is what its name stands for."""
        return self._in_use(version) is not None

    def complete(self, version: str) -> UploadInProgress | None:
        """The upload, once all of it is there, to be given to ``prepare``; from now on it is the dealer's to decide.

        Raises ProtocolViolation when its owner has not signed it.
        """
        upload = self.uploads.get(version)
        if upload is None or not upload.complete or upload.signed is None or upload.partial is None:
            return None
        record = msgspec.structs.replace(
            upload.begun.record, when=time.time(), masked=upload.partial.digest, signature=upload.signed.signature
        )
        model = StoredVersion(record, upload.owner)
        if not model.said().signed_by(model.owner):
            raise ProtocolViolation(upload.owner.name, "has not signed the parts that it has sent")
        self.uploads.end(version)
        self._saving[version] = model
        return upload

    def prepare(self, upload: UploadInProgress) -> None:
        """Write the complete upload, durably.  Blocks.  Raises VaultError; it is forgotten then."""
        model = self._saving.get(upload.version)
        if model is None or upload.seed is None or upload.partial is None:
            return
        try:
            self._disk.prepare(model.record, upload.seed.seed, streamed(upload.partial))
            self._prepared[upload.version] = model
        finally:
            del self._saving[upload.version]
            self._disk.partials.drop(upload.version)

    def commit(self, version: str) -> StoredVersion | None:
        """A prepared version is on the disk in use, and is to be put in use; None if there is none of that id.  Blocks.

        Raises VaultError.
        """
        model = self._prepared.get(version)
        if model is not None:
            self._disk.commit(version)
        return model

    def put_in_use(self, model: StoredVersion) -> StoredVersion | None:
        """From now on it is what its name stands for; what was before, which is to be unloaded."""
        version, name, owner = model.record.version, model.record.name, model.record.owner
        former = self._current.get(model.slot)
        self._current[model.slot] = model
        self._prepared.pop(version, None)
        self.unusable = [row for row in self.unusable if (row.record.name, row.record.owner) != (name, owner)]
        return former

    def cancel(self, version: str) -> bool:
        """Forgets an upload in progress; whether there was one."""
        return self.uploads.cancel(version)

    def drop(self, version: str) -> None:
        """Off the disk, and is to be forgotten.  Blocks.  Raises VaultError."""
        self._disk.drop(version)

    def forget(self, version: str) -> StoredVersion | None:
        """A version, prepared or in use, is not there any more, and is to be unloaded; which it was."""
        model = self._prepared.pop(version, None) or self._in_use(version)
        if model is not None and self._current.get(model.slot) is model:
            del self._current[model.slot]
        self.unusable = [row for row in self.unusable if row.record.version != version]
        return model

    # -- shares ----------------------------------------------------------------------------------------------------

    def read_for(self, bound: BoundProgram, client: str) -> ReadForRun:
        """What that client's run of a program reads; from now on the run counts.  Blocks.

        One look-up says whether a version may be used, and which one's tensors these are.

        Raises as ``Gate.enter``, and VaultError when a file is not as it was written.
        """
        found, _, order = self.gate.enter(bound, client)
        tensors = {(slot, name): v for slot, model in found.items() for name, v in self._load(model).items()}
        said = tuple(found[binding.slot].said() for binding in bound.bindings)
        return ReadForRun(tensors, said, order)

    def _load(self, model: StoredVersion) -> Mapping[str, Value]:
        """Its tensors.  Raises ProgramError if it is not in use any more, VaultError."""
        record = model.record
        with self._loading:
            tensors = self._tensors.get(record.version)
            if tensors is None and self._current.get(model.slot) is model:
                tensors = self._tensors[record.version] = self._disk.load(record, self._field)
            if tensors is None:
                raise not_in_use()
            return tensors

    def make_ready(self, model: StoredVersion, party: PartyContext, most: int) -> None:
        """What a first prediction by a network would do and leave to the next ones is done now.  Blocks.

        Not of a small network, nor if more than ``most`` bytes of shares would be in memory then, nor of what is no
        network.  Raises VaultError, and ProgramError if it is not in use any more.
        """
        size = self._bytes(model.record)
        if size < WORTH or _IN_MEMORY * (size + sum(self._sizes.get(v, 0) for v in self.loaded)) > most:
            return
        try:
            products = Description.decode(model.record.description).products
        except UnsupportedError:
            return
        for tensor, value in self._load(model).items():
            if tensor in products and value.public is not None:
                make_ready(party, products[tensor], value, value.public.shape)

    def _in_use(self, version: str) -> StoredVersion | None:
        return next((model for model in list(self._current.values()) if model.record.version == version), None)

    def unload(self, model: StoredVersion) -> None:
        """Its shares are not needed in memory any more.  Blocks, while others are read from the disk."""
        with self._loading:
            self._tensors.pop(model.record.version, None)
