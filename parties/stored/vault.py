"""A database of secrets at rest: one SQLite file in a data folder, for one member and one purpose.

What is sealed is encrypted under a random key of this file (`parties.stored.sealing`), which is in the file, sealed
itself under the member's own.  A member that gets another secret has the file's key sealed under that
(`Vault.rekey`), and nothing else changes: the former secret opens old copies of the file only.

*Crashes.*  Write-ahead log with ``synchronous=FULL``: what a transaction did is on the disk when it returns, and is
there whole or not at all after a crash at any moment.  ``secure_delete`` overwrites what is deleted; the log still
holds sealed bytes until `Vault.checkpoint` or `Vault.close`.

What this does not give: protection from whoever holds the key file, or reads this process's memory; and *freshness*:
an old copy of the whole file opens as well as the newest.  What that means for preprocessing is in
`parties.stock.ledger`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from mpc.errors import NO_SPACE, ConfigurationError, DiskFull, TesseraError
from parties.host.private_files import hold, private_file, private_folder
from parties.members.keys import KeyPair
from parties.stored.sealing import FORMAT, Sealing, Streamed, bound_to, unwrapped, wrapped
from parties.wire.messages import Buffer

CHUNK_BYTES = 1 << 24
"""Plaintext of a chunk: far below SQLite's limit on a blob, and the memory that sealing takes beside the payload."""

_APPLICATION = int.from_bytes(b"TESR", "big")
# The second is what becomes of SQLite's words about a schema with flipped bits.
_DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)

_IDENTITY = "CREATE TABLE about (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;"


class VaultError(TesseraError):
    """A data file cannot be read or written, or what is in it was changed by somebody else."""


class NoSpace(VaultError, DiskFull):  # noqa: N818 - says what happened
    """A data file cannot be written, for want of room: nothing of what was to be written is kept."""


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
        self._bound = bound_to(purpose, member)
        with contextlib.ExitStack() as stack:
            try:
                private_folder(self._path.parent)
                self._owner = stack.enter_context(hold(self._path.with_name(file + ".lock"), self._path))
                private_file(self._path)
                self._db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
                stack.callback(self._db.close)
                # Exclusive: what the lock file says to us, SQLite says to everyone else, and needs no shared memory.
                self._db.execute(f"PRAGMA locking_mode = {'NORMAL' if shared else 'EXCLUSIVE'}")
                self._sealing = Sealing(self._unlock(self._db, keys, schema), self._bound)
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
        key = unwrapped(keys, about, self._bound)
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
        rows = [*self._about.items(), *wrapped(keys, key, self._about["purpose"], self._bound)]
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
                stack.enter_context(hold(path.with_name(f"{path.name}.lock"), path))
                db = sqlite3.connect(path, timeout=0, isolation_level=None)
                stack.callback(db.close)
                for pragma in ("synchronous = FULL", "secure_delete = ON"):
                    db.execute(f"PRAGMA {pragma}").fetchall()
                about = dict(db.execute("SELECT name, value FROM about"))
                purpose = str(about.get("purpose"))
                bound = bound_to(purpose, str(about.get("member")))
                if about.get("public key") == new.public and unwrapped(new, about, bound) is not None:
                    return False
                key = unwrapped(old, about, bound)
                if key is None:
                    raise ConfigurationError(f"data file {path} is sealed under neither of these keys")
                db.execute("BEGIN IMMEDIATE")
                rows = [("public key", new.public), *wrapped(new, key, purpose, bound)]
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
        """Encrypts buffers under this file's key, to be opened under the same label only: see `Sealing.seal`."""
        return self._sealing.seal(label, payload, CHUNK_BYTES if chunk_bytes is None else chunk_bytes)

    def unseal(self, label: Sequence[str], count: int, size: int, chunks: Iterable[object]) -> list[memoryview]:
        """The buffers that were sealed under ``label``: see `Sealing.unseal`.  Raises VaultError."""
        try:
            return self._sealing.unseal(label, count, size, chunks)
        except ValueError:
            sentence = f"data file {self._path} was changed: what was to be read from it is not authentic"
            raise VaultError(sentence) from None


def _is_full(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, sqlite3.Error) else "it is damaged"
