"""What the coordinator knows of a version: one that is in use, or one that is not decided yet."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from parties.members.cluster import Member
from parties.messages.bindings import BoundProgram, slot_of
from parties.messages.evidence import Vouched
from parties.stored.record import UPLOADED, Descent, Record, tensor_infos
from protocols.readings.dealer import StoredMasks


@dataclass
class VersionInUse:
    """In use."""

    owner: Member
    name: str
    masks: StoredMasks = field(repr=False)
    description: bytes = field(default=b"", repr=False)
    descent: Descent = UPLOADED

    @property
    def slot(self) -> str:
        """Where programs read it; and what it is called, since each owner has names of its own."""
        return slot_of(self.owner.name, self.name)


@dataclass
class PendingUpload(VersionInUse):
    """Not decided.  Which parties have all of it is in memory alone; seeds and content are on the disk as well."""

    content: str = ""
    """The owner's tag of what is uploaded."""
    of_run: BoundProgram | None = field(default=None, repr=False)
    """Instead of an upload: what a run has left, which had leave for it."""
    begun: float = field(default_factory=time.time)
    prepared: dict[str, Vouched] = field(default_factory=dict)
    """Of parties that have all of it, durably, by name: what they have."""
    asleep: bool = False
    """Read from the disk at our start, and its owner has not come back to it since."""
    deciding: bool = False

    def record(self, version: str, circle: str) -> Record:
        """What is written of it, among those servers."""
        return Record(
            version=version,
            name=self.name,
            owner=self.owner.identity,
            owner_name=self.owner.name,
            circle=circle,
            tensors=tensor_infos(self.masks.shapes),
            when=time.time(),
            description=self.description,
            descent=self.descent,
        )
