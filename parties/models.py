"""The models that a party holds as shares: uploads in progress, and what is kept under a name.

An upload is begun by its owner, who names the model and its tensors, and is complete once the dealer's seed and the
owner's masked tensors are both there, in either order.  Until then whatever was under the name stays in use.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from math import prod
from typing import NamedTuple

from mpc import field
from mpc.errors import ProgramError, ProtocolViolation, TesseraError
from mpc.field import FieldArray
from mpc.operation import Value
from mpc.prg import SEED_BYTES, Seed
from mpc.tensor_type import MAX_SIZE, Shape
from parties.cluster import Member
from parties.messages import as_array
from parties.run_messages import StoreSeed, StoreTensors, Upload
from protocols.randomness import stored_stream

MAX_UPLOADS = 64
"""Uploads in progress, and seeds that are there before the upload they belong to."""


class DealtSeed(NamedTuple):
    """Of this party's shares of the masks; and the digest of what the dealer sent the owner."""

    seed: Seed
    masks: str


@dataclass
class StoredModel:
    """A model as this party holds it; its shares are in the table of tensors under ``store``."""

    name: str
    owner: Member
    store: str
    description: bytes
    shapes: dict[str, Shape]
    seed: DealtSeed | None = None
    masked: list[FieldArray] | None = dataclass_field(default=None, repr=False)
    masks: str = ""
    """Digest of the masks that the owner was sent."""


class ModelStore:
    """Models by name, their tensors by store and name, and uploads on the way.  No I/O of its own."""

    def __init__(self) -> None:
        self.tensors: dict[tuple[str, str], Value] = {}
        """``(store, tensor)``: w - b, which all parties hold, and this party's share of b."""
        self._models: dict[str, StoredModel] = {}
        self._uploads: dict[str, StoredModel] = {}
        self._early_seeds: OrderedDict[str, DealtSeed] = OrderedDict()

    def find(self, name: str) -> StoredModel | None:
        """The model of that name."""
        return self._models.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """What there is, sorted; at most 1,000."""
        return tuple(sorted(self._models))[:1000]

    def owner_of(self, store: str) -> Member | None:
        """Whose upload in progress it is."""
        upload = self._uploads.get(store)
        return None if upload is None else upload.owner

    def begin(self, owner: Member, message: Upload, payload: list[memoryview]) -> None:
        """Raises ProgramError for a name that is taken or shapes beyond measure, ProtocolViolation."""
        held = self._models.get(message.name)
        if held is not None and held.owner != owner:
            raise ProgramError(f"the name {message.name!r} belongs to {held.owner.name}: choose another one")
        if len(payload) != 1:
            raise ProtocolViolation(owner.name, "sent an upload without a description")
        if message.store in self._uploads or any(m.store == message.store for m in self._models.values()):
            raise ProtocolViolation(owner.name, "sent an upload whose id has been used")
        if len(self._uploads) >= MAX_UPLOADS:
            raise TesseraError(f"busy: {MAX_UPLOADS} uploads are in progress; try again later")
        self._uploads[message.store] = StoredModel(
            message.name,
            owner,
            message.store,
            bytes(payload[0]),
            upload_shapes(message),
            self._early_seeds.pop(message.store, None),
        )

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

    def keep(self, store: str) -> tuple[StoredModel, StoredModel | None] | None:
        """Holds the upload under its name once all of it is there: that model, and the one it takes the place of.

        Raises ProgramError when the name was taken meanwhile, ProtocolViolation when the owner's masks are not those
        that the dealer made.
        """
        model = self._uploads.get(store)
        if model is None or model.seed is None or model.masked is None:
            return None
        former = self._models.get(model.name)
        if former is not None and former.owner != model.owner:
            raise ProgramError(f"the name {model.name!r} belongs to {former.owner.name}: choose another one")
        if model.seed.masks != model.masks:
            raise ProtocolViolation(model.owner.name, "holds other masks than the dealer made for this upload")
        for (tensor, shape), public in zip(model.shapes.items(), model.masked, strict=True):
            self.tensors[store, tensor] = Value(public, stored_stream(model.seed.seed, tensor).elements(shape))
        model.seed = model.masked = None
        del self._uploads[store]
        self._models[model.name] = model
        if former is not None:
            for tensor in former.shapes:
                del self.tensors[former.store, tensor]
        return model, former

    def cancel(self, store: str) -> bool:
        """Forgets an upload in progress; whether there was one."""
        return self._uploads.pop(store, None) is not None


def upload_shapes(message: Upload) -> dict[str, Shape]:
    """Shapes by tensor; ProgramError for names that repeat or sizes beyond what a process agrees to hold."""
    shapes = {tensor.name: tensor.shape for tensor in message.tensors}
    # Empty axes count as 1: a tensor without elements may have no absurd lengths either.
    if sum(prod(max(n, 1) for n in shape) for shape in shapes.values()) > MAX_SIZE:
        raise ProgramError("an upload with too many elements")
    if len(shapes) != len(message.tensors):
        raise ProgramError("an upload with two tensors of one name")
    return shapes
