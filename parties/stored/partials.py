"""What a party has of uploads that are not complete: ``uploads/`` in its data folder, a sealed file for each.

A file is a head (magic, format, elements of a chunk, bytes of what follows), the sealed description of the upload, and
the chunks that have come, in their order, each sealed by itself under the upload and its own number.  It only grows:
chunks are written behind the last one and flushed to the disk before they are acknowledged.  So what a crash leaves is
a number of whole chunks and perhaps a torn one, which does not open and is cut off; a chunk that was written and not
acknowledged is simply there.  A chunk opens in its own place of its own upload only.

The complete file is read once more, chunk by chunk, to write the version's file (`parties.stored.party_versions`),
which is as it would be had all of it come at once; for that moment an upload takes its bytes on the disk twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from mpc.decoders import msgpack_decoder
from parties.host.disk import check_part, check_room
from parties.messages.fields import Digest
from parties.stored import sealed_files as files
from parties.stored.chunks import Grid
from parties.stored.record import Record
from parties.stored.vault import Vault, VaultError
from parties.wire.messages import Buffer, as_bytes

log = logging.getLogger(__name__)

FORMAT = 1
_MAGIC = b"TESRUPLD"
_HEAD = struct.Struct("<8sIQI")
_SUFFIX = ".upload"
_FILE = re.compile(r"[0-9a-f]{32}\.upload(\.part)?\Z")
# Sealed bytes of a chunk beside its elements: number and length of the buffers, nonce and tag.
_OVERHEAD = 16 + 28
_LARGEST_HEAD = 1 << 30
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class Begun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An upload, as its owner has described it; ``record.when`` is when it was begun here."""

    record: Record
    masks: Digest
    """Of the masks that the dealer made for it."""


class Partial:
    """One upload's file.  Calls block, and one thread at a time makes them."""

    def __init__(self, path: Path, vault: Vault, begun: Begun, grid: Grid, start: int) -> None:
        self._path = path
        self._vault = vault
        self._label = "chunk", begun.record.version, hashlib.sha256(msgspec.msgpack.encode(begun)).hexdigest()
        self._start = start
        self.grid = grid
        self.begun = begun
        self.chunks = 0
        """That are on the disk, as far as is known here."""
        self._hash = hashlib.sha256()

    def recover(self) -> None:
        """Counts the chunks that are there, and cuts off what a crash has left behind them.  Raises VaultError."""
        try:
            with os.fdopen(os.open(self._path, os.O_RDWR | _FLAGS), "r+b") as file:
                self.chunks, self._hash = 0, hashlib.sha256()
                file.seek(self._start)
                with contextlib.suppress(VaultError):
                    while self.chunks < self.grid.count:
                        self._hash.update(self._opened(self.chunks, file.read(self._sealed_bytes(self.chunks))))
                        self.chunks += 1
                file.truncate(self._at(self.chunks))
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from error

    def append(self, chunks: Sequence[Buffer]) -> None:
        """The next chunks, durably.  Raises VaultError; how many of them are there is then open."""
        try:
            with os.fdopen(os.open(self._path, os.O_WRONLY | _FLAGS), "wb") as file:
                file.seek(self._at(self.chunks))
                for number, chunk in enumerate(chunks, start=self.chunks):
                    size = self.grid.chunk_bytes(number) + 16
                    for sealed in self._vault.seal((*self._label, str(number)), [chunk], size):
                        file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._failed(error) from error
        for chunk in chunks:
            self._hash.update(as_bytes(chunk))
        self.chunks += len(chunks)

    @property
    def digest(self) -> str:
        """SHA-256 of the chunks that are on the disk, in hexadecimal."""
        return self._hash.hexdigest()

    def read(self) -> Iterator[memoryview]:
        """The chunks, one after the other.  Raises VaultError when one is not as it was written."""
        try:
            with os.fdopen(os.open(self._path, os.O_RDONLY | _FLAGS), "rb") as file:
                file.seek(self._start)
                for number in range(self.chunks):
                    yield self._opened(number, file.read(self._sealed_bytes(number)))
        except OSError as error:
            raise self._failed(error) from error

    def _opened(self, number: int, sealed: bytes) -> memoryview:
        try:
            (chunk,) = self._vault.unseal((*self._label, str(number)), 1, len(sealed), [sealed])
        except (VaultError, ValueError):
            raise VaultError(f"upload file {self._path} is damaged: have the model's owner upload it again") from None
        return chunk

    def _sealed_bytes(self, number: int) -> int:
        return self.grid.chunk_bytes(number) + _OVERHEAD

    def _at(self, number: int) -> int:
        return self._start + self.grid.bytes_of(number) + number * _OVERHEAD

    def _failed(self, error: OSError) -> VaultError:
        return self._vault.unwritable(f"upload file {self._path}", error)


class Partials:
    """The folder.  Calls block."""

    def __init__(self, folder: Path, vault: Vault, server: str) -> None:
        self._folder = folder
        self._server = server
        self._vault = vault
        files.private_folder(folder)

    def found(self) -> list[Partial]:
        """What is there; files that cannot be used are deleted."""
        partials = []
        for path in sorted(self._folder.iterdir()):
            if not _FILE.match(path.name):
                continue
            try:
                partials.append(self._open(path))
            except (OSError, VaultError, ValueError, struct.error):
                log.warning("upload file %s cannot be used, and is deleted: what was in it is sent again", path)
                self._unlink(path)
        return partials

    def check_room(self, owner: str, size: int, held: int, *, copies: int = 1) -> None:
        """Whether an owner with ``held`` bytes may have ``size`` more.  Raises DiskFull, ServerBusy."""
        check_room(self._folder, self._server, copies * size)
        check_part(self._folder, self._server, size, owner, held)

    def begin(self, begun: Begun, grid: Grid, held: int = 0) -> Partial:
        """A file for a new upload.  Raises VaultError, and DiskFull when there is no room for all of it."""
        # Twice: as it comes, and as it stays.
        self.check_room(begun.record.owner_name, grid.total_bytes, held, copies=2)
        path = self._folder / (begun.record.version + _SUFFIX)
        part = path.with_name(path.name + files.PART)
        encoded = msgspec.msgpack.encode(begun)
        sealed = b"".join(map(bytes, self._vault.seal(_label(path), [encoded], len(encoded) + 64)))
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600), "wb") as file:
                file.write(_HEAD.pack(_MAGIC, FORMAT, grid.chunk_elements, len(sealed)) + sealed)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            files.flush_folder(self._folder)
        except OSError as error:
            self._unlink(part)
            raise self._vault.unwritable(f"upload file {path}", error) from error
        return Partial(path, self._vault, begun, grid, _HEAD.size + len(sealed))

    def drop(self, version: str) -> None:
        """Deletes an upload's file.  More calls do nothing."""
        self._unlink(self._folder / (version + _SUFFIX))

    def _open(self, path: Path) -> Partial:
        with os.fdopen(os.open(path, os.O_RDONLY | _FLAGS), "rb") as file:
            magic, version, chunk_elements, size = _HEAD.unpack(file.read(_HEAD.size))
            if magic != _MAGIC or version != FORMAT or size > _LARGEST_HEAD:
                raise ValueError("not a file of this release")
            (encoded,) = self._vault.unseal(_label(path), 1, size, [file.read(size)])
        begun: Begun = msgpack_decoder(Begun).decode(encoded)
        grid = Grid.of(begun.record.shapes.values())
        if begun.record.version + _SUFFIX != path.name or grid.chunk_elements != chunk_elements:
            raise ValueError("another upload's, or cut otherwise")
        return Partial(path, self._vault, begun, grid, _HEAD.size + size)

    @staticmethod
    def _unlink(path: Path) -> None:
        """A file that is left is found at the next start."""
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _label(path: Path) -> tuple[str, ...]:
    return "upload", path.name.removesuffix(files.PART)
