"""A database of secrets at rest: one SQLite file in a data folder, for one member and one purpose.

What is sealed is encrypted with AES-256-GCM, under a random key of this file.  That key is in the file, sealed itself
under one that comes from the member's own CURVE secret by HKDF-SHA256, with a random salt of this file and an
``info`` that names format and purpose, so no two files, purposes or formats share one.  A member that gets another
secret has the file's key sealed under that (`Vault.rekey`), and nothing else changes: the former secret opens old
copies of the file only.

*Nonces* are 96 random bits per chunk.  Two of q chunks share one with a probability of at most q^2 / 2^97: after 2^32
chunks, up to 64 PiB, that is 2^-33.  A counter would do worse: it goes back when an old copy of the file does.

*Associated data* of a chunk are purpose, member, a label of the caller's that names the thing, the chunk's index and
the number of chunks.  So a chunk opens in its own place only: neither under another label, nor in another order, nor
with one missing.

*Crashes.*  Write-ahead log with ``synchronous=FULL``: what a transaction did is on the disk when it returns, and is
there whole or not at all after a crash at any moment.  ``secure_delete`` overwrites what is deleted; the log still
holds sealed bytes until `Vault.checkpoint` or `Vault.close`.

What this does not give: protection from whoever holds the key file, or reads this process's memory; and *freshness*:
an old copy of the whole file opens as well as the newest.  What that means for preprocessing is in
`parties.stock.ledger`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import stat
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zmq.utils import z85

from mpc.errors import NO_SPACE, ConfigurationError, DiskFull, TesseraError
from parties.keys import KeyPair
from parties.wire.messages import Buffer

FORMAT = 2
CHUNK_BYTES = 1 << 24
"""Plaintext of a chunk: far below SQLite's limit on a blob, and the memory that sealing takes beside the payload."""

_APPLICATION = int.from_bytes(b"TESR", "big")
_NONCE = 12
_TAG = 16
_OVERHEAD = _NONCE + _TAG
# The cipher wants room for one block less a byte behind what it writes.
_SLACK = 16
_WORD = struct.Struct("<Q")
# The second is what becomes of SQLite's words about a schema with flipped bits.
_DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)

_IDENTITY = "CREATE TABLE about (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;"


class VaultError(TesseraError):
    """A data file cannot be read or written, or what is in it was changed by somebody else."""


class NoSpace(VaultError, DiskFull):  # noqa: N818 - says what happened
    """A data file cannot be written, for want of room: nothing of what was to be written is kept."""


class Streamed(NamedTuple):
    """A buffer of ``size`` bytes that is sealed as its pieces are made."""

    size: int
    pieces: Iterable[memoryview]

    @classmethod
    def of(cls, buffer: Buffer) -> Streamed:
        """One that is there as a whole."""
        view = _flat(buffer)
        return cls(len(view), [view])

    def checked(self) -> Iterator[memoryview]:
        """The pieces.  Raises ValueError when they have another length in all."""
        left = self.size
        for piece in self.pieces:
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if left:
            raise ValueError(f"a streamed buffer of another length than {self.size} bytes")


class Vault:
    """An open data file.  Calls block, on the disk and on each other: make them from worker threads.

    Args:
        folder: made if it is not there, with mode 0700.
        file: its name in the folder; made with mode 0600.
        keys: the member's own.
        purpose: what the file is for.
        member: whose it is.
        schema: SQL that makes the tables of a new file.
        shared: whether another process may read what is in the file while it is open here, to back it up.

    Raises:
        ConfigurationError: others may open the file; another process has it open; it is not a data file, or has
            another format; it belongs to another member, key or purpose.
        NoSpace: the disk is full.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        file: str,
        keys: KeyPair,
        *,
        purpose: str,
        member: str,
        schema: str,
        shared: bool = False,
    ) -> None:
        self._path = Path(folder) / file
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._about = {"purpose": purpose, "member": member, "public key": keys.public}
        self._bound = _joined("tessera vault", str(FORMAT), purpose, member)
        with contextlib.ExitStack() as stack:
            try:
                _private_folder(self._path.parent)
                self._owner = stack.enter_context(_hold(self._path.with_name(file + ".lock"), self._path))
                _private_file(self._path)
                self._db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
                stack.callback(self._db.close)
                # Exclusive: what the lock file says to us, SQLite says to everyone else, and needs no shared memory.
                self._db.execute(f"PRAGMA locking_mode = {'NORMAL' if shared else 'EXCLUSIVE'}")
                self._key = self._unlock(self._db, keys, schema)
            except OSError as error:
                if error.errno in NO_SPACE:
                    raise self._full() from error
                raise ConfigurationError(f"data file {self._path} cannot be opened: {error.strerror}") from error
            except _DATABASE_ERRORS as error:
                if _is_full(error):
                    raise self._full() from error
                raise ConfigurationError(
                    f"data file {self._path} cannot be opened ({_said(error)}): if no other program has it open,"
                    " move it away to begin with an empty one"
                ) from error
            self._resources = stack.pop_all()

    def __repr__(self) -> str:
        return f"<Vault {self._path}{' (closed)' if self._db is None else ''}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the transaction in progress, if any.  The log goes into the main file.  More calls do nothing."""
        with self._lock:
            self._db = None
            self._resources.close()

    def _unlock(self, db: sqlite3.Connection, keys: KeyPair, schema: str) -> bytes:
        """Makes the tables of a new file, or finds out whether this one is ours; its key."""
        for pragma in ("page_size = 16384", "trusted_schema = OFF", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise ConfigurationError(f"data file {self._path} is on a file system without write-ahead logs: move it")
        for pragma in ("synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        ((application,), (version,)) = (
            db.execute(f"PRAGMA {p}").fetchone() for p in ("application_id", "user_version")
        )
        if (application, version) == (0, 0) and not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return self._found(db, keys, schema)
        if application != _APPLICATION:
            raise ConfigurationError(f"data file {self._path} is not Tessera's: choose another folder")
        if version != FORMAT:
            raise ConfigurationError(
                f"data file {self._path} has format {version}, this release reads {FORMAT}: use the release that made"
                " it, or move the file away to begin with an empty one"
            )
        about = dict(db.execute("SELECT name, value FROM about"))
        for name, wanted in self._about.items():
            if about.get(name) != wanted:
                raise ConfigurationError(
                    f"data file {self._path} belongs to another {name}: give each member a data folder of its own"
                )
        key = _unwrap(keys, about, self._bound)
        if key is not None:
            return key
        raise ConfigurationError(
            f"data file {self._path} was made with another key, or was changed: restore the key,"
            " or move the file away to begin with an empty one"
        )

    def _found(self, db: sqlite3.Connection, keys: KeyPair, schema: str) -> bytes:
        key = secrets.token_bytes(32)
        # One transaction, so that a crash leaves an empty file, which is a new one.
        db.executescript(f"BEGIN IMMEDIATE; {_IDENTITY} {schema}")
        rows = [*self._about.items(), *_wrapped(keys, key, self._about["purpose"], self._bound)]
        db.executemany("INSERT INTO about VALUES (?, ?)", rows)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("COMMIT")
        return key

    @staticmethod
    def rekey(path: Path, old: KeyPair, new: KeyPair) -> bool:
        """Has a file that nobody has open belong to ``new`` and no more to ``old``; False if it does so already.

        In one transaction: a crash leaves it either's.  Raises ConfigurationError for what is no such file, or
        neither's.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_hold(path.with_name(f"{path.name}.lock"), path))
                db = sqlite3.connect(path, timeout=0, isolation_level=None)
                stack.callback(db.close)
                for pragma in ("synchronous = FULL", "secure_delete = ON"):
                    db.execute(f"PRAGMA {pragma}").fetchall()
                about = dict(db.execute("SELECT name, value FROM about"))
                purpose = str(about.get("purpose"))
                bound = _joined("tessera vault", str(FORMAT), purpose, str(about.get("member")))
                if about.get("public key") == new.public and _unwrap(new, about, bound) is not None:
                    return False
                key = _unwrap(old, about, bound)
                if key is None:
                    raise ConfigurationError(f"data file {path} is sealed under neither of these keys")
                db.execute("BEGIN IMMEDIATE")
                rows = [("public key", new.public), *_wrapped(new, key, purpose, bound)]
                db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows)
                db.execute("COMMIT")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except OSError as error:
                raise ConfigurationError(f"data file {path} cannot be opened: {error.strerror}") from error
            except _DATABASE_ERRORS as error:
                raise ConfigurationError(f"data file {path} cannot be sealed anew ({_said(error)})") from error
        return True

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done within is durable when it ends, or has not happened if it raises; one at a time.

        Raises VaultError when the file is closed, damaged or cannot be written; `NoSpace` when it is for want of
        room.
        """
        with self._lock, self._typed_errors() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def checkpoint(self) -> None:
        """Moves the log into the main file and empties it: what was deleted is then in neither."""
        with self._lock, self._typed_errors() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    @contextlib.contextmanager
    def _typed_errors(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            raise VaultError(f"data file {self._path} is closed")
        try:
            yield self._db
        except _DATABASE_ERRORS as error:
            if _is_full(error):
                raise self._full() from error
            raise VaultError(
                f"data file {self._path} cannot be used ({_said(error)}): see to the disk, or move the file away"
                " to begin with an empty one"
            ) from error

    def unwritable(self, what: str, error: OSError) -> VaultError:
        """The error of another file of this data folder, called ``what``, that cannot be written."""
        if error.errno in NO_SPACE:
            return self._full()
        return VaultError(f"{what} cannot be used ({error.strerror}): see to the disk")

    def _full(self) -> NoSpace:
        return NoSpace(self._about["member"], "the disk of its data folder is full: make room there")

    def seal(
        self, label: Sequence[str], payload: Sequence[Buffer | Streamed], chunk_bytes: int | None = None
    ) -> Iterator[memoryview]:
        """Encrypts buffers, to be opened under the same label only.

        Yields chunks, each good until the next is asked for.  ``payload`` are C-contiguous buffers, which are not
        copied, or such as are made piece by piece, of which no more than a chunk is held.
        """
        chunk_bytes = CHUNK_BYTES if chunk_bytes is None else chunk_bytes
        buffers = [buffer if isinstance(buffer, Streamed) else Streamed.of(buffer) for buffer in payload]
        head = b"".join(map(_WORD.pack, [len(buffers), *(buffer.size for buffer in buffers)]))
        total = len(head) + sum(buffer.size + -buffer.size % 8 for buffer in buffers)

        def pieces() -> Iterator[memoryview]:
            yield memoryview(head)
            for buffer in buffers:
                yield from buffer.checked()
                # Each buffer begins at a multiple of 8 bytes, so that it can be read as field elements where it lies.
                yield memoryview(bytes(-buffer.size % 8))

        count = -(-total // chunk_bytes)
        sealed = memoryview(bytearray(min(chunk_bytes, total) + _OVERHEAD + _SLACK))
        for part, chunk in enumerate(_cut(pieces(), chunk_bytes)):
            nonce = secrets.token_bytes(_NONCE)
            encryptor = Cipher(AES(self._key), GCM(nonce)).encryptor()
            encryptor.authenticate_additional_data(self._associated(label, part, count))
            sealed[:_NONCE] = nonce
            at = _NONCE
            for piece in chunk:
                at += encryptor.update_into(piece, sealed[at:])
            encryptor.finalize()
            sealed[at : at + _TAG] = encryptor.tag
            yield sealed[: at + _TAG]

    def unseal(self, label: Sequence[str], count: int, size: int, chunks: Iterable[object]) -> list[memoryview]:
        """The buffers that were sealed under ``label``: read-only, each beginning at a multiple of 8 bytes.

        ``count`` and ``size``: of chunks, and of their bytes in all.  All of it is authentic, or nothing is returned.
        Raises VaultError.
        """
        changed = VaultError(f"data file {self._path} was changed: what was to be read from it is not authentic")
        total = size - count * _OVERHEAD
        if total < _WORD.size or total % _WORD.size:
            raise changed
        memory = np.empty(total + _SLACK, np.uint8).data
        at = part = 0
        for part, sealed in enumerate(chunks, start=1):
            if not isinstance(sealed, bytes | memoryview) or not _OVERHEAD <= len(sealed) <= total - at + _OVERHEAD:
                raise changed
            sealed = memoryview(sealed)
            decryptor = Cipher(AES(self._key), GCM(bytes(sealed[:_NONCE]), bytes(sealed[-_TAG:]))).decryptor()
            decryptor.authenticate_additional_data(self._associated(label, part - 1, count))
            at += decryptor.update_into(sealed[_NONCE:-_TAG], memory[at:])
            try:
                decryptor.finalize()
            except InvalidTag:
                raise changed from None
        if part != count or at != total:
            raise changed
        (buffers,) = _WORD.unpack_from(memory)
        at = _WORD.size * (1 + buffers)
        payload = []
        for (length,) in _WORD.iter_unpack(memory[_WORD.size : at]):
            payload.append(memory[at : at + length].toreadonly())
            at += length + -length % 8
        return payload

    def _associated(self, label: Sequence[str], part: int, count: int) -> bytes:
        return self._bound + _joined(*label) + struct.pack("<II", part, count)


def _is_full(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, sqlite3.Error) else "it is damaged"


def _derive(keys: KeyPair, salt: bytes, purpose: str) -> AESGCM:
    info = _joined("tessera vault", str(FORMAT), "AES-256-GCM", purpose)
    return AESGCM(HKDF(SHA256(), 32, salt, info).derive(z85.decode(keys.secret)))


def _wrapped(keys: KeyPair, key: bytes, purpose: str, bound: bytes) -> list[tuple[str, bytes]]:
    """Rows of ``about`` that hold a file's key, for the holder of these keys."""
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(_NONCE)
    return [("salt", salt), ("key", nonce + _derive(keys, salt, purpose).encrypt(nonce, key, bound))]


def _unwrap(keys: KeyPair, about: Mapping[str, object], bound: bytes) -> bytes | None:
    """The key of the file that these rows are of; None for keys that are not its member's, and for changed rows."""
    salt, key = about.get("salt"), about.get("key")
    if not isinstance(salt, bytes) or not isinstance(key, bytes) or len(key) != 32 + _OVERHEAD:
        return None
    try:
        return _derive(keys, salt, str(about.get("purpose"))).decrypt(key[:_NONCE], key[_NONCE:], bound)
    except InvalidTag:
        return None


def _joined(*fields: str) -> bytes:
    """Fields with their number and lengths: no two lists of fields give the same bytes."""
    encoded = [field.encode() for field in fields]
    return b"".join([_WORD.pack(len(encoded)), *(_WORD.pack(len(e)) + e for e in encoded)])


def _flat(buffer: Buffer) -> memoryview:
    view = buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)
    # An empty view cannot be cast when one of its dimensions is 0.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _cut(pieces: Iterable[memoryview], size: int) -> Iterator[list[memoryview]]:
    """The same bytes in lists of ``size`` bytes in all; the last list may have fewer."""
    chunk: list[memoryview] = []
    room = size
    for piece in pieces:
        while len(piece):
            chunk.append(piece[:room])
            piece = piece[len(chunk[-1]) :]
            room -= len(chunk[-1])
            if not room:
                yield chunk
                chunk, room = [], size
    if chunk:
        yield chunk


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_others(folder, folder.stat().st_mode, "folder", "700")


def _private_file(path: Path) -> None:
    """Makes it if it is not there: with its mode from the first moment on, and its name on the disk."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        descriptor = os.open(path, flags)
    try:
        _refuse_others(path, os.fstat(descriptor).st_mode, "file", "600")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refuse_others(path: Path, mode: int, kind: str, wanted: str) -> None:
    if mode & 0o077:
        raise ConfigurationError(
            f"data {kind} {path} can be read or written by others (mode {stat.S_IMODE(mode):04o}):"
            f" run `chmod {wanted} {path}`"
        )


@contextlib.contextmanager
def _hold(lock: Path, path: Path) -> Iterator[None]:
    """A lock that goes with this process, however it ends.  On a file of its own: SQLite locks the other one
    itself."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"data file {path} is open in another process: end that one first") from None
        yield
    finally:
        os.close(descriptor)
