"""Sealed files: each written whole or not at all, and read back as it was or not at all.

A file is a head (magic, format, bytes of plaintext in a chunk) and the chunks that `parties.stored.vault` sealed, each
behind the other, all of one length but the last.  A chunk opens behind its own head only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mpc.errors import ConfigurationError
from parties.stored.sealing import OVERHEAD, Streamed
from parties.stored.vault import Vault, VaultError
from parties.wire.messages import Buffer

FORMAT = 1
CHUNK_BYTES = 1 << 20
"""Of plaintext in a chunk of what is written: it is still in the cache when it is opened."""
PART = ".part"
"""Ends the name of a file that is being written."""

_MAGIC = b"TESRMODL"
_HEAD = struct.Struct("<8sII")
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


def private_folder(path: Path) -> None:
    """Makes the folder if it is not there, with mode 0700.  Raises ConfigurationError if others may look into it."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        mode = path.stat().st_mode
        flush_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(f"data folder {path} cannot be used: {error.strerror}") from error
    if mode & 0o077:
        raise ConfigurationError(
            f"data folder {path} can be read or written by others (mode {stat.S_IMODE(mode):04o}):"
            f" run `chmod 700 {path}`"
        )


def flush_folder(path: Path) -> None:
    """The names in it are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, vault: Vault, label: Sequence[str], payload: Sequence[Buffer | Streamed]) -> None:
    """Seals ``payload`` into a new file, durably.

    Raises VaultError when it cannot be written, or a streamed buffer cannot be read; nothing is left then.
    """
    part = path.with_name(path.name + PART)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS, 0o600), "wb") as file:
            head = _HEAD.pack(_MAGIC, FORMAT, CHUNK_BYTES)
            file.write(head)
            for chunk in vault.seal((*label, head.hex()), payload, CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise vault.unwritable(f"model file {path}", error) from error
    except VaultError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def read(path: Path, vault: Vault, label: Sequence[str]) -> list[memoryview]:
    """What `write` was given, under the same label.

    Raises VaultError: the file is missing, damaged, another's, readable by others, or a newer release's.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | _FLAGS), "rb") as file:
            head, chunk_bytes = _checked(path, file)
            sealed = os.fstat(file.fileno()).st_size - _HEAD.size
            count = -(-sealed // (chunk_bytes + OVERHEAD))
            try:
                return vault.unseal((*label, head.hex()), count, sealed, _chunks(file, chunk_bytes + OVERHEAD))
            except VaultError:
                raise _bad(path, "is damaged, cut short, or another version's") from None
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})") from error


def sealed_bytes(path: Path) -> int:
    """The file's size.  Raises VaultError if it is not there."""
    try:
        return path.lstat().st_size
    except OSError as error:
        raise _bad(path, f"cannot be read ({error.strerror})") from error


def _checked(path: Path, file: BinaryIO) -> tuple[bytes, int]:
    """The head, and plaintext bytes of a chunk."""
    status = os.fstat(file.fileno())
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise VaultError(
            f"model file {path} can be read or written by others (mode {mode:04o}): run `chmod 600 {path}`"
        )
    head = file.read(_HEAD.size)
    if len(head) != _HEAD.size or head[:8] != _MAGIC:
        raise _bad(path, "does not begin as a model file does")
    _, version, chunk_bytes = _HEAD.unpack(head)
    if version > FORMAT:
        raise VaultError(
            f"model file {path} has format {version}, this release reads {FORMAT}: run the release that wrote it, or"
            " have the model's owner upload it again"
        )
    if version < 1 or not 8 <= chunk_bytes <= 1 << 30:
        raise _bad(path, "has a head that makes no sense")
    return head, chunk_bytes


def _chunks(file: BinaryIO, size: int) -> Iterator[memoryview]:
    """Each good until the next is asked for."""
    chunk = memoryview(bytearray(size))
    while read := file.readinto(chunk):  # type: ignore[attr-defined]
        yield chunk[:read]


def _bad(path: Path, what: str) -> VaultError:
    return VaultError(f"model file {path} {what}: have the model's owner upload it again, and see to the disk")
