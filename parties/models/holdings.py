"""The models that a party holds as shares: uploads in progress, prepared versions, and what is in use under a name.

An upload is begun by its owner, who names the model and its tensors, and is complete once the dealer's seed and the
owner's masked tensors are both there, in either order.  Then it is written to the disk as *prepared*, and put in use
when the dealer says that every party has got as far; until then whatever was under the name stays in use.

*Memory.*  Shares are read from the disk when a run first needs them, and stay: a party with many models is up again at
once, models that nobody uses take no memory, and a damaged file fails the runs of its model alone.  What has just been
uploaded is in memory already.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from math import prod
from typing import NamedTuple

from mpc import field
from mpc.errors import ProgramError, ProtocolViolation, TesseraError
from mpc.field import FieldArray
from mpc.operation import Stored, Value
from mpc.prg import SEED_BYTES, Seed
from mpc.program import Program
from mpc.tensor_type import MAX_SIZE, Shape
from parties.cluster import Cluster, Member
from parties.models.messages import MAX_MODELS
from parties.models.party_store import PartyModels, State, values
from parties.models.policy import Policy
from parties.models.rules import RuleBook
from parties.models.store import Record, circle, owner_of, tensor_infos
from parties.run_messages import StoreSeed, StoreTensors, Upload
from parties.wire.messages import as_array

MAX_UPLOADS = 64
"""Uploads in progress, and seeds that are there before the upload they belong to."""


class DealtSeed(NamedTuple):
    """Of this party's shares of the masks; and the digest of what the dealer sent the owner."""

    seed: Seed
    masks: str


@dataclass
class UploadInProgress:
    """What has come of it so far."""

    name: str
    owner: Member
    store: str
    description: bytes
    shapes: dict[str, Shape]
    seed: DealtSeed | None = dataclass_field(default=None, repr=False)
    masked: list[FieldArray] | None = dataclass_field(default=None, repr=False)
    masks: str = ""
    """Digest of the masks that the owner was sent."""


class StoredModel(NamedTuple):
    """A complete version."""

    record: Record
    owner: Member


class ModelStore:
    """Models by name, their tensors by version, and uploads on the way.

    Methods that say so block, on the disk: make those from worker threads, one at a time.  The others are the event
    loop's.
    """

    def __init__(self, disk: PartyModels, cluster: Cluster) -> None:
        self._disk = disk
        self._circle = circle(cluster)
        self._models: dict[str, StoredModel] = {}
        self._saving: dict[str, StoredModel] = {}
        self._prepared: dict[str, StoredModel] = {}
        self._uploads: dict[str, UploadInProgress] = {}
        self._early_seeds: OrderedDict[str, DealtSeed] = OrderedDict()
        self._loading = threading.Lock()
        self._tensors: dict[str, dict[str, Value]] = {}
        """By version: w - b, which all parties hold, and this party's share of b.  Of those that were needed."""
        self._rules = RuleBook(disk, cluster)
        self.unusable: list[Record] = []
        """Kept, but of an owner or of servers that the cluster file does not list."""
        for record, state in disk.versions():
            owner = owner_of(cluster, record)
            if owner is None:
                self.unusable.append(record)
            elif state is State.CURRENT:
                self._models[record.name] = StoredModel(record, owner)
            else:
                self._prepared[record.store] = StoredModel(record, owner)

    # -- what there is ---------------------------------------------------------------------------------------------

    def find(self, name: str) -> StoredModel | None:
        """The model in use under that name."""
        return self._models.get(name)

    def seen_by(self, client: str) -> list[StoredModel]:
        """What is in use, and that client may know of, by name."""
        found = [model for _, model in sorted(self._models.items())]
        return [model for model in found if self._policy(model).sees(client)]

    def policy(self, store: str) -> Policy | None:
        """Who may use a version that is in use."""
        model = self._in_use(store)
        return None if model is None else self._policy(model)

    def _policy(self, model: StoredModel) -> Policy:
        record, owner = model
        grants = self._rules.grants(record.name, owner)
        return Policy(record.name, owner.name, record.store, record.description, grants)

    def allowed(self, model: StoredModel, client: str) -> dict[str, frozenset[str]]:
        """What that client may know of a model's rules: its owner all, others what concerns them."""
        policy = self._policy(model)
        if client == policy.owner:
            return dict(policy.grants)
        return {client: policy.of(client)} if policy.of(client) else {}

    def allow(self, sender: Member, name: str, client: str, programs: Iterable[str]) -> None:
        """Let ``client`` run these programs, and no others, on the sender's model.  Blocks.

        Raises ProgramError when there is none of that name, or it is another client's, VaultError.
        """
        self._check_name(name, sender)
        if name not in self._models:
            raise ProgramError(f"there is no model called {name!r}: upload it first")
        self._rules.allow(name, sender, client, programs)

    def owner_of(self, store: str) -> Member | None:
        """Whose upload in progress it is."""
        upload = self._uploads.get(store)
        return None if upload is None else upload.owner

    @property
    def held(self) -> tuple[str, ...]:
        """Versions in use, and such as cannot be used."""
        return (*(m.record.store for m in list(self._models.values())), *(r.store for r in list(self.unusable)))

    @property
    def prepared(self) -> tuple[str, ...]:
        """Versions that are on the disk, and await the dealer's word."""
        return tuple(self._prepared)

    @property
    def loaded(self) -> frozenset[str]:
        """Versions whose shares are in memory."""
        return frozenset(self._tensors)

    def stored_bytes(self, model: StoredModel) -> int:
        """On the disk.  Raises VaultError."""
        return self._disk.sealed_bytes(model.record.store)

    # -- uploads ---------------------------------------------------------------------------------------------------

    def begin(self, owner: Member, message: Upload, payload: list[memoryview]) -> None:
        """Raises ProgramError for a name that is taken or shapes beyond measure, ProtocolViolation."""
        self._check_name(message.name, owner)
        if len(payload) != 1:
            raise ProtocolViolation(owner.name, "sent an upload without a description")
        under_way = self._uploads.keys() | self._saving.keys() | set(self.prepared)
        if message.store in under_way or message.store in self.held:
            raise ProtocolViolation(owner.name, "sent an upload whose id has been used")
        if len(under_way) >= MAX_UPLOADS:
            raise TesseraError(f"busy: {MAX_UPLOADS} uploads are in progress; try again later")
        if message.name not in self._models and len(self._models) >= MAX_MODELS:
            raise TesseraError(f"there are {MAX_MODELS} models, and no more are kept: remove one first")
        self._uploads[message.store] = UploadInProgress(
            message.name,
            owner,
            message.store,
            bytes(payload[0]),
            upload_shapes(message),
            self._early_seeds.pop(message.store, None),
        )

    def _check_name(self, name: str, owner: Member) -> None:
        held = self._models.get(name)
        if held is not None and held.owner != owner:
            raise taken(name, held.owner.name)

    def take_seed(self, dealer: Member, message: StoreSeed, payload: list[memoryview]) -> None:
        """The seed of this party's shares of the masks.  Raises ProtocolViolation."""
        if len(payload) != 1 or len(payload[0]) != SEED_BYTES:
            raise ProtocolViolation(dealer.name, "sent a seed of the wrong length")
        store, seed = message.store, DealtSeed(Seed(bytes(payload[0])), message.masks)
        upload = self._uploads.get(store)
        if upload is None:
            # The owner's message may still be on its way; or it was refused, and the seed will be forgotten.
            self._early_seeds[store] = seed
            if len(self._early_seeds) > MAX_UPLOADS:
                self._early_seeds.popitem(last=False)
        elif upload.seed is not None:
            raise ProtocolViolation(dealer.name, "sent two seeds for one upload")
        else:
            upload.seed = seed

    def take_tensors(self, sender: Member, message: StoreTensors, payload: list[memoryview]) -> None:
        """w - b of each tensor, in the order of the upload.  Raises ProtocolViolation."""
        upload = self._uploads.get(message.store)
        if upload is None or upload.owner != sender or upload.masked is not None:
            raise ProtocolViolation(sender.name, "sent tensors for an upload that is not its own, or is over")
        shapes = list(upload.shapes.values())
        if [len(buffer) for buffer in payload] != [8 * prod(shape) for shape in shapes]:
            raise ProtocolViolation(sender.name, "sent tensors of the wrong length")
        masked = [as_array(buffer).reshape(shape) for buffer, shape in zip(payload, shapes, strict=True)]
        if not all(field.is_reduced(array) for array in masked):
            raise ProtocolViolation(sender.name, "sent tensors with numbers outside the field")
        upload.masked, upload.masks = masked, message.masks

    def complete(self, store: str) -> UploadInProgress | None:
        """The upload, once all of it is there, to be given to ``prepare``; from now on it is the dealer's to decide.

        Raises ProgramError when the name was taken meanwhile, ProtocolViolation when the owner's masks are not those
        that the dealer made.
        """
        upload = self._uploads.get(store)
        if upload is None or upload.seed is None or upload.masked is None:
            return None
        self._check_name(upload.name, upload.owner)
        if upload.seed.masks != upload.masks:
            raise ProtocolViolation(upload.owner.name, "holds other masks than the dealer made for this upload")
        del self._uploads[store]
        self._saving[store] = StoredModel(self._record(upload), upload.owner)
        return upload

    def _record(self, upload: UploadInProgress) -> Record:
        return Record(
            store=upload.store,
            name=upload.name,
            owner=upload.owner.key,
            owner_name=upload.owner.name,
            circle=self._circle,
            tensors=tensor_infos(upload.shapes),
            when=time.time(),
            description=upload.description,
        )

    def prepare(self, upload: UploadInProgress) -> None:
        """Keep the complete upload, durably.  Blocks.  Raises VaultError; it is forgotten then."""
        model = self._saving.get(upload.store)
        if model is None or upload.seed is None or upload.masked is None:
            return
        try:
            self._disk.prepare(model.record, upload.seed.seed, upload.masked)
            tensors = values(upload.seed.seed, model.record, upload.masked)
        finally:
            del self._saving[upload.store]
        with self._loading:
            self._tensors[upload.store] = tensors
        self._prepared[upload.store] = model

    def commit(self, store: str) -> StoredModel | None:
        """Put a prepared version in use; that version, or None if there is none of that id.  Blocks.

        Raises ProgramError if the name is another client's here, VaultError.
        """
        model = self._prepared.get(store)
        if model is None:
            return None
        former = self._models.get(model.record.name)
        if former is not None and former.owner != model.owner:
            raise taken(model.record.name, former.owner.name)
        self._disk.commit(store)
        self._models[model.record.name] = model
        self._prepared.pop(store, None)
        self.unusable = [record for record in self.unusable if record.name != model.record.name]
        if former is not None:
            self._unload(former.record.store)
        return model

    def cancel(self, store: str) -> bool:
        """Forgets an upload in progress; whether there was one."""
        return self._uploads.pop(store, None) is not None

    def drop(self, store: str) -> StoredModel | None:
        """Forgets a version, prepared or in use; which it was.  Blocks.  Raises VaultError."""
        model = self._prepared.get(store) or self._in_use(store)
        self._disk.drop(store)
        self._prepared.pop(store, None)
        if model is not None and self._models.get(model.record.name) is model:
            del self._models[model.record.name]
            if not any(other.record.name == model.record.name for other in self._prepared.values()):
                # Removed, not replaced.
                self._rules.forget(model.record.name)
        self.unusable = [record for record in self.unusable if record.store != store]
        self._unload(store)
        return model

    def remove(self, sender: Member, name: str) -> bool:
        """Forgets what is in use under a name, which must be the sender's; whether there was any.  Blocks.

        Raises ProgramError for another client's, VaultError.
        """
        self._check_name(name, sender)
        model = self._models.get(name)
        if model is not None:
            self.drop(model.record.store)
        return model is not None

    # -- shares ----------------------------------------------------------------------------------------------------

    def tensors_for(self, program: Program) -> Mapping[tuple[str, str], Value]:
        """What a program reads, by version and tensor; versions that are not here are left out.  Blocks.

        Raises VaultError when a file is not as it was written.
        """
        stores = {node.operation.store for node in program.nodes if isinstance(node.operation, Stored)}
        return {(store, name): value for store in stores for name, value in self._load(store).items()}

    def _load(self, store: str) -> Mapping[str, Value]:
        with self._loading:
            if store in self._tensors:
                return self._tensors[store]
            model = self._in_use(store)
            if model is None:
                return {}
            tensors = self._disk.load(model.record)
            if self._models.get(model.record.name) is model:
                self._tensors[store] = tensors
            return tensors

    def _in_use(self, store: str) -> StoredModel | None:
        return next((model for model in list(self._models.values()) if model.record.store == store), None)

    def _unload(self, store: str) -> None:
        with self._loading:
            self._tensors.pop(store, None)


def taken(name: str, owner: str) -> ProgramError:
    """The error of who may not use a name."""
    return ProgramError(f"the name {name!r} belongs to {owner}: choose another one")


def upload_shapes(message: Upload) -> dict[str, Shape]:
    """Shapes by tensor; ProgramError for names that repeat or sizes beyond what a process agrees to hold."""
    shapes = {tensor.name: tensor.shape for tensor in message.tensors}
    # Empty axes count as 1: a tensor without elements may have no absurd lengths either.
    if sum(prod(max(n, 1) for n in shape) for shape in shapes.values()) > MAX_SIZE:
        raise ProgramError("an upload with too many elements")
    if len(shapes) != len(message.tensors):
        raise ProgramError("an upload with two tensors of one name")
    return shapes
