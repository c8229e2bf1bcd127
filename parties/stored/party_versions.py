"""What a party has of stored secrets on its disk: ``models.sqlite``, ``models/`` and ``uploads/`` in its data folder.

`parties.stored.version_database` says what lies where, and `parties.stored.partials` what is in ``uploads/``.

A version is *prepared* until the dealer decides, and then *current*, of which a name has one.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import msgspec

from mpc.operation import Value
from mpc.rings import PrimeField
from mpc.rings.prg import SEED_BYTES, Seed
from parties.members.keys import KeyPair
from parties.stored import job_tables
from parties.stored import sealed_files as files
from parties.stored.chunks import stored_bytes
from parties.stored.partials import Partial, Partials
from parties.stored.record import Record
from parties.stored.rule_tables import TABLES
from parties.stored.sealing import Streamed
from parties.stored.stored_value import stored_value
from parties.stored.vault import VaultError
from parties.stored.version_database import REQUESTS_TABLE, Steps, VersionDatabase
from parties.wire.messages import Buffer
from protocols.randomness.streams import stored_stream

log = logging.getLogger(__name__)

_SUFFIX = ".shares"
_FILE = re.compile(r"[0-9a-f]{32}\.shares(\.part)?\Z")

LAYOUT: Steps = (
    (
        """CREATE TABLE versions (
            version TEXT PRIMARY KEY,
            owner TEXT NOT NULL,
            name TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('prepared', 'current')),
            sealed BLOB NOT NULL
        ) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX one_current ON versions (owner, name) WHERE state = 'current'",
        *TABLES,
    ),
    (REQUESTS_TABLE,),
    (job_tables.TABLE,),
)


class State(enum.StrEnum):
    """Of a version at a party."""

    PREPARED = "prepared"
    CURRENT = "current"


class VersionRow(NamedTuple):
    """A row."""

    record: Record
    state: State


class PartyVersions(VersionDatabase):
    """A party's versions on disk.  Calls block, and one thread at a time writes; `load` may run beside them."""

    def __init__(self, folder: str | os.PathLike[str], keys: KeyPair, member: str, *, steps: Steps = LAYOUT) -> None:
        super().__init__(folder, keys, member, file="models.sqlite", steps=steps)
        self._files = Path(folder) / "models"
        try:
            files.private_folder(self._files)
            self.partials = Partials(Path(folder) / "uploads", self.vault, member)
            self._sweep()
        except BaseException:
            self.close()
            raise

    def versions(self) -> list[VersionRow]:
        """All there are; a row that cannot be read is a VaultError."""
        with self.vault.transaction() as db:
            rows = db.execute("SELECT version, owner, name, state, sealed FROM versions ORDER BY version").fetchall()
        found = []
        for version, owner, name, state, sealed in rows:
            record, _ = self.open_record(version, sealed)
            if (record.owner, record.name) != (owner, name) or state not in iter(State):
                raise self.damaged(f"the row of version {version[:8]} is not as it was written")
            found.append(VersionRow(record, State(state)))
        return found

    def prepare(self, record: Record, seed: Seed, masked: Sequence[Buffer | Streamed]) -> None:
        """Writes a complete upload, durably, beside what is in use under its name.

        ``masked``: w - b, in the order of the record's tensors; ``streamed`` makes it of what has come in chunks.
        Raises VaultError; nothing is left then.
        """
        files.write(self._path_of(record.version), self.vault, _label(record), [bytes(seed), *masked])
        try:
            with self.vault.transaction() as db:
                row = record.version, record.owner, record.name, State.PREPARED, self.seal_record(record)
                db.execute("INSERT INTO versions VALUES (?, ?, ?, ?, ?)", row)
        except VaultError:
            self._unlink(record.version)
            raise

    def commit(self, version: str) -> None:
        """Puts a prepared version under its name, for good, and forgets what was there.  More calls do nothing."""
        with self.vault.transaction() as db:
            row = db.execute("SELECT owner, name, state FROM versions WHERE version = ?", (version,)).fetchone()
            if row is None:
                raise self.damaged(f"version {version[:8]} is not there")
            if row[2] == State.CURRENT:
                return
            former = _versions(db, "owner = ? AND name = ? AND state = 'current'", *row[:2])
            db.execute("DELETE FROM versions WHERE owner = ? AND name = ? AND state = 'current'", row[:2])
            db.execute("UPDATE versions SET state = 'current' WHERE version = ?", (version,))
        for other in former:
            self._unlink(other)

    def drop(self, version: str) -> None:
        """Forgets a version, in whatever state, and frees its space.  More calls do nothing."""
        with self.vault.transaction() as db:
            db.execute("DELETE FROM versions WHERE version = ?", (version,))
        self._unlink(version)

    def load(self, record: Record, field: PrimeField) -> dict[str, Value]:
        """The tensors of a version, as ``field`` has them: w - b, which all parties have, and this party's share of b.

        Raises VaultError, naming the file, when it is not as it was written.
        """
        path = self._path_of(record.version)
        seed, *masked = files.read(path, self.vault, _label(record))
        if len(seed) != SEED_BYTES or len(masked) != len(record.tensors):
            raise VaultError(f"model file {path} is not of this model: have its owner upload it again")
        return values(Seed(bytes(seed)), record, masked, field)

    def sealed_bytes(self, version: str) -> int:
        """What a version takes on the disk.  Raises VaultError if its file is missing."""
        return files.sealed_bytes(self._path_of(version))

    def _path_of(self, version: str) -> Path:
        return self._files / (version + _SUFFIX)

    def _unlink(self, version: str) -> None:
        """A file that is left is deleted at the next start."""
        with contextlib.suppress(OSError):
            self._path_of(version).unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Deletes what a crash has left: files without a row, and such as were being written."""
        with self.vault.transaction() as db:
            known = {version + _SUFFIX for version in _versions(db, "?", 1)}
        for path in self._files.iterdir():
            if _FILE.match(path.name) and path.name not in known:
                with contextlib.suppress(OSError):
                    path.unlink()
        for name in sorted(known):
            if not (self._files / name).is_file():
                log.warning("model file %s is missing: have the model's owner upload it again", self._files / name)


def streamed(partial: Partial) -> list[Streamed]:
    """The tensors of a complete upload, to be read from its file one after the other."""
    chunks = partial.read()
    rest = memoryview(b"")

    def pieces(size: int) -> Iterator[memoryview]:
        nonlocal rest
        while size:
            rest = rest or next(chunks)
            piece, rest = rest[:size], rest[size:]
            size -= len(piece)
            yield piece

    sizes = [stored_bytes(prod(shape)) for shape in partial.begun.record.shapes.values()]
    return [Streamed(size, pieces(size)) for size in sizes]


def values(seed: Seed, record: Record, masked: Sequence[memoryview], field: PrimeField) -> dict[str, Value]:
    """A version's tensors, from the seed of this party's shares of the masks and w - b of each."""
    return {
        t.name: stored_value(field, field.settled(field.read(data, t.shape)), t.shape, stored_stream(seed, t.name))
        for t, data in zip(record.tensors, masked, strict=True)
    }


def _versions(db: sqlite3.Connection, where: str, *values: object) -> list[str]:
    return [str(row[0]) for row in db.execute(f"SELECT version FROM versions WHERE {where}", values)]  # noqa: S608


def _label(record: Record) -> tuple[str, ...]:
    return "shares", record.version, hashlib.sha256(msgspec.msgpack.encode(record)).hexdigest()
