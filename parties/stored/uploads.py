"""Uploads in progress at a party: what has come of each, on the disk and in memory, and what may come next.

An upload *sleeps* after a restart, and when nothing has come of it for a while: only its file is left, and its owner
may go on with it.  A day after it was begun it is forgotten.  Chunks wait in memory until they are written, at most
``WINDOW`` of an upload; whoever sends more, or another one than the next, is refused and the upload with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import NamedTuple

from msgspec.structs import replace

from mpc.errors import ProtocolViolation, TesseraError
from mpc.rings import PrimeField
from mpc.rings.prg import SEED_BYTES, Seed
from parties.members.cluster import Cluster, Member
from parties.messages.uploads import UploadChunk, UploadSeed, UploadSigned
from parties.stored.chunks import WINDOW, Grid
from parties.stored.partials import Begun, Partial, Partials
from parties.stored.record import Record, owner_of

MAX_UPLOADS = 64
"""Seeds that are there before the upload they belong to."""

MAX_OF_A_CLIENT = 4
"""Uploads that one client may have begun and not completed."""

MAX_BYTES_OF_A_CLIENT = 1 << 35
"""Of payload, in all uploads that one client has begun and not completed: 32 GiB."""

MAX_AGE = 86_400.0
"""s after which an upload that was begun is forgotten."""


class DealtSeed(NamedTuple):
    """Of this party's shares of the masks; and the digest of what the dealer sent the owner."""

    seed: Seed
    masks: str


@dataclass
class UploadInProgress:
    """What has come of it so far."""

    owner: Member
    begun: Begun
    grid: Grid
    partial: Partial | None = None
    """None until its file is there."""
    seed: DealtSeed | None = dataclass_field(default=None, repr=False)
    attempt: str = ""
    """Empty while it sleeps."""
    open: bool = False
    """Whether chunks of this attempt may come."""
    signed: UploadSigned | None = None
    """What its owner says that it has sent."""
    written: int = 0
    """Chunks that are on the disk."""
    waiting: list[memoryview] = dataclass_field(default_factory=list, repr=False)
    """The next chunks, to be written."""
    touched: float = dataclass_field(default_factory=time.monotonic)
    over: bool = False
    """Complete, or given up: nothing is written any more."""
    disk: asyncio.Lock = dataclass_field(default_factory=asyncio.Lock, repr=False)

    @property
    def version(self) -> str:
        """The version that it will be."""
        return self.begun.record.version

    @property
    def name(self) -> str:
        """The model's."""
        return self.begun.record.name

    @property
    def complete(self) -> bool:
        """Whether all that is needed of it is here, durably but for the seed and the owner's signature."""
        return self.open and self.written == self.grid.count and self.seed is not None and self.signed is not None


class Uploads:
    """By version.  Methods that say so block, on the disk; the others are the event loop's."""

    def __init__(self, files: Partials, cluster: Cluster, decided: frozenset[str], field: PrimeField) -> None:
        """``decided``: versions that are complete, whose files may have outlasted them."""
        self._files = files
        self._field = field
        self._seeds: OrderedDict[str, DealtSeed] = OrderedDict()
        self._uploads: dict[str, UploadInProgress] = {}
        for partial in files.found():
            record = partial.begun.record
            owner = owner_of(cluster, record)
            if owner is None or record.version in decided or _expired(partial.begun):
                files.drop(record.version)
            else:
                self._uploads[record.version] = UploadInProgress(owner, partial.begun, partial.grid, partial)

    def settle_again(self, cluster: Cluster) -> None:
        """Owners as the cluster file has them now."""
        for upload in self._uploads.values():
            upload.owner = owner_of(cluster, upload.begun.record) or upload.owner

    @property
    def versions(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self._uploads)

    def records_of(self, owner: Member) -> list[Record]:
        """What that owner has begun."""
        return [upload.begun.record for upload in self._uploads.values() if upload.owner == owner]

    def get(self, version: str) -> UploadInProgress | None:
        """The upload of that id."""
        return self._uploads.get(version)

    def begin(self, owner: Member, begun: Begun, attempt: str) -> UploadInProgress:
        """A new upload, or another beginning of one that is here.

        Raises ProtocolViolation when it is not as it was, TesseraError beyond the limits.
        """
        version = begun.record.version
        upload = self._uploads.get(version)
        if upload is None:
            upload = UploadInProgress(owner, begun, Grid.of(begun.record.shapes.values()))
            self._check_room(owner, upload.grid)
            upload.seed = self._seeds.pop(version, None)
            self._uploads[version] = upload
        elif upload.owner != owner:
            raise ProtocolViolation(owner.name, "sent an upload whose id has been used")
        elif replace(begun.record, when=0.0) != replace(upload.begun.record, when=0.0):
            raise ProtocolViolation(owner.name, "goes on with an upload, and describes it otherwise than before")
        elif begun.masks != upload.begun.masks:
            raise _other_masks(owner)
        if upload.seed is not None and upload.seed.masks != begun.masks:
            raise _other_masks(owner)
        upload.attempt, upload.open, upload.touched = attempt, False, time.monotonic()
        upload.signed = None
        return upload

    def _check_room(self, owner: Member, grid: Grid) -> None:
        others = [upload for upload in self._uploads.values() if upload.owner == owner]
        if len(others) >= MAX_OF_A_CLIENT:
            raise TesseraError(
                f"{owner.name} has {MAX_OF_A_CLIENT} uploads that are not complete, and may have no more:"
                " go on with one of them by uploading the same again, or forget it with `tessera rm`"
            )
        total = sum(upload.grid.bytes_of(upload.grid.count) for upload in others) + grid.bytes_of(grid.count)
        if total > MAX_BYTES_OF_A_CLIENT:
            raise TesseraError(
                f"uploads of {owner.name} that are not complete would have {total >> 20} MiB in all;"
                f" the limit is {MAX_BYTES_OF_A_CLIENT >> 20} MiB"
            )

    def take_seed(self, dealer: Member, message: UploadSeed, payload: Sequence[memoryview]) -> None:
        """The seed of this party's shares of the masks; again when the upload begins again.

        Raises ProtocolViolation, and fails the upload, when it is another than before or than its owner's.
        """
        if len(payload) != 1 or len(payload[0]) != SEED_BYTES:
            raise ProtocolViolation(dealer.name, "sent a seed of the wrong length")
        version, seed = message.version, DealtSeed(Seed(bytes(payload[0])), message.masks)
        upload = self._uploads.get(version)
        if upload is None:
            # The owner's message is still on its way; or it was refused, and the seed will be forgotten.
            self._seeds[version] = seed
            if len(self._seeds) > MAX_UPLOADS:
                self._seeds.popitem(last=False)
        elif upload.seed is not None and upload.seed != seed:
            raise ProtocolViolation(dealer.name, "sent two seeds for one upload")
        elif seed.masks != upload.begun.masks:
            raise _other_masks(upload.owner)
        else:
            upload.seed = seed

    def take_chunk(
        self, sender: Member, message: UploadChunk, payload: Sequence[memoryview]
    ) -> UploadInProgress | None:
        """The upload, which has a chunk to be written now; None for a chunk of a former attempt.

        Raises ProtocolViolation for any but the next chunk, for more than the window, and for what is no chunk.
        """
        upload = self._uploads.get(message.version)
        if upload is None or upload.owner != sender:
            raise ProtocolViolation(sender.name, "sent a chunk of an upload that is not its own, or is over")
        if message.attempt != upload.attempt:
            return None
        if not upload.open:
            raise ProtocolViolation(sender.name, "sent a chunk before it was told which")
        if len(upload.waiting) >= WINDOW:
            raise ProtocolViolation(sender.name, f"sent more than {WINDOW} chunks that are not acknowledged")
        number = upload.written + len(upload.waiting)
        if message.number != number or number >= upload.grid.count:
            raise ProtocolViolation(sender.name, f"sent chunk {message.number} of an upload instead of the next one")
        if len(payload) != 1 or len(payload[0]) != upload.grid.chunk_bytes(number):
            raise ProtocolViolation(sender.name, "sent a chunk of the wrong length")
        elements = (upload.grid.size(number),)
        if not self._field.holds(self._field.read(payload[0], elements), elements):
            raise ProtocolViolation(sender.name, "sent a chunk with numbers outside the field")
        upload.waiting.append(payload[0])
        upload.touched = time.monotonic()
        return upload

    def take_signed(self, sender: Member, message: UploadSigned) -> None:
        """What the owner says that it has sent; of a former attempt, or of an upload that is over, nothing.

        Raises ProtocolViolation, and once it is complete (``PartySecrets.complete``) if that is not what has come.
        """
        upload = self._uploads.get(message.version)
        if upload is None or message.attempt != upload.attempt:
            return
        if upload.owner != sender or not upload.open:
            raise ProtocolViolation(sender.name, "signed an upload that is not its own, or before it was told which")
        if upload.written + len(upload.waiting) != upload.grid.count or upload.signed is not None:
            raise ProtocolViolation(sender.name, "signed an upload before it had sent all of it, or twice")
        upload.signed, upload.touched = message, time.monotonic()

    def ready(self, upload: UploadInProgress, held: int) -> None:
        """Makes its file, or finds out what is in it; its owner has ``held`` bytes on the disk beside it.  Blocks.

        Raises VaultError, and DiskFull or ServerBusy when there is no room for all of it.
        """
        if upload.partial is None:
            upload.partial = self._files.begin(upload.begun, upload.grid, held)
            if upload.over:
                # Given up meanwhile.
                self._files.drop(upload.version)
        else:
            upload.partial.recover()

    def sleep(self, upload: UploadInProgress) -> None:
        """Nothing comes of it any more for now: only its file is left."""
        upload.attempt, upload.open = "", False
        upload.waiting.clear()

    def end(self, version: str) -> UploadInProgress | None:
        """It is complete, and not in progress any more; its file is still there."""
        upload = self._uploads.pop(version, None)
        if upload is not None:
            upload.over = True
            upload.waiting.clear()
        return upload

    def cancel(self, version: str) -> bool:
        """Forgets it and its file; whether there was one."""
        found = self.end(version) is not None
        if found:
            self._files.drop(version)
        return found

    def cancel_old(self) -> None:
        """Forgets those that were begun too long ago."""
        for version, upload in list(self._uploads.items()):
            if _expired(upload.begun) and not upload.attempt:
                self.cancel(version)

    def cancel_of(self, owner: Member, name: str) -> bool:
        """Forgets what that client has begun under a name; whether there was any."""
        versions = [s for s, upload in self._uploads.items() if (upload.owner, upload.name) == (owner, name)]
        for version in versions:
            self.cancel(version)
        return bool(versions)


def _expired(begun: Begun) -> bool:
    return time.time() - begun.record.when > MAX_AGE


def _other_masks(owner: Member) -> ProtocolViolation:
    return ProtocolViolation(owner.name, "holds other masks than the dealer made for this upload")
