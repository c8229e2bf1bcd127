"""What the dealer remembers of stored secrets: ``masks.sqlite`` in its data folder (`parties.stored.version_database`).

Of an upload that has begun and of a version in use, the seeds of its masks; of a version that was replaced or removed,
that it is gone, for good: a party that still has it is told.  And which programs were dealt for ahead of time need
which versions, so that their stock goes when a version does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Sequence
from typing import NamedTuple

from mpc.rings.prg import SEED_BYTES, Seed
from parties.members.keys import KeyPair
from parties.stored import job_tables
from parties.stored.record import Record
from parties.stored.rule_tables import TABLES
from parties.stored.version_database import REQUESTS_TABLE, Steps, VersionDatabase
from protocols.readings.dealer import StoredMasks

LAYOUT: Steps = (
    (
        """CREATE TABLE versions (
            version TEXT PRIMARY KEY,
            owner TEXT,
            name TEXT,
            state TEXT NOT NULL CHECK (state IN ('current', 'gone')),
            sealed BLOB,
            CHECK ((state = 'gone') = (sealed IS NULL)),
            CHECK ((state = 'gone') = (name IS NULL) AND (state = 'gone') = (owner IS NULL))
        ) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX one_current ON versions (owner, name) WHERE state = 'current'",
        """CREATE TRIGGER gone_versions_stay_gone BEFORE UPDATE ON versions WHEN OLD.state = 'gone'
        BEGIN SELECT RAISE(ABORT, 'a version that is gone stays gone'); END""",
        """CREATE TRIGGER versions_are_kept BEFORE DELETE ON versions
        BEGIN SELECT RAISE(ABORT, 'versions stay'); END""",
        """CREATE TABLE uses (
            program TEXT NOT NULL,
            version TEXT NOT NULL,
            PRIMARY KEY (program, version)
        ) WITHOUT ROWID""",
        "CREATE INDEX uses_by_version ON uses (version)",
        "CREATE TABLE uploads (version TEXT PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID",
        *TABLES,
    ),
    (REQUESTS_TABLE,),
    (job_tables.TABLE,),
)

_GONE = "UPDATE versions SET state = 'gone', owner = NULL, name = NULL, sealed = NULL WHERE state = 'current' AND "


class MaskedVersion(NamedTuple):
    """A version in use."""

    record: Record
    masks: StoredMasks


class BegunUpload(NamedTuple):
    """An upload that nothing has been decided about."""

    record: Record
    masks: StoredMasks
    content: str
    """The owner's tag of what is uploaded."""


class DecidedVersions(VersionDatabase):
    """What versions there are by decision, on disk.  Calls block, and any thread may make them."""

    def __init__(self, folder: str | os.PathLike[str], keys: KeyPair, member: str, *, steps: Steps = LAYOUT) -> None:
        super().__init__(folder, keys, member, file="masks.sqlite", steps=steps)

    def current(self) -> list[MaskedVersion]:
        """Versions in use, with their seeds."""
        with self.vault.transaction() as db:
            rows = db.execute("SELECT version, owner, name, sealed FROM versions WHERE state = 'current' ORDER BY 1")
            found = rows.fetchall()
        versions = []
        for version, owner, name, sealed in found:
            record, secrets = self.open_record(version, sealed)
            if (record.owner, record.name) != (owner, name) or len(secrets) != 1:
                raise self.damaged(f"the row of version {version[:8]} is not as it was written")
            versions.append(MaskedVersion(record, self._masks(record, secrets[0])))
        return versions

    def _masks(self, record: Record, joined: bytes) -> StoredMasks:
        if not joined or len(joined) % SEED_BYTES:
            raise self.damaged(f"the row of version {record.version[:8]} is not as it was written")
        seeds = tuple(Seed(joined[i : i + SEED_BYTES]) for i in range(0, len(joined), SEED_BYTES))
        return StoredMasks(seeds, record.shapes)

    # -- uploads ---------------------------------------------------------------------------------------------------

    def begin(self, record: Record, seeds: Sequence[Seed], content: str) -> None:
        """An upload has begun: its seeds outlast a restart, until it is decided or forgotten."""
        with self.vault.transaction() as db:
            sealed = self.seal_record(record, b"".join(map(bytes, seeds)), content.encode())
            db.execute("INSERT OR IGNORE INTO uploads VALUES (?, ?)", (record.version, sealed))

    def begun(self) -> list[BegunUpload]:
        """All that are not decided or forgotten."""
        with self.vault.transaction() as db:
            found = db.execute("SELECT version, sealed FROM uploads ORDER BY version").fetchall()
        uploads = []
        for version, sealed in found:
            record, secrets = self.open_record(version, sealed)
            if len(secrets) != 2:
                raise self.damaged(f"the row of upload {version[:8]} is not as it was written")
            uploads.append(BegunUpload(record, self._masks(record, secrets[0]), secrets[1].decode()))
        return uploads

    def forget_uploads(self, versions: Collection[str]) -> None:
        """They have come to nothing: their seeds are overwritten, and nobody goes on with them."""
        with self.vault.transaction() as db:
            db.executemany("DELETE FROM uploads WHERE version = ?", [(version,) for version in versions])
        self.overwrite()

    # -- versions --------------------------------------------------------------------------------------------------

    def commit(self, record: Record, seeds: Sequence[Seed]) -> None:
        """From now on this version is what its owner's name stands for; the one before is gone."""
        with self.vault.transaction() as db:
            db.execute(_GONE + "owner = ? AND name = ?", (record.owner, record.name))
            sealed = self.seal_record(record, b"".join(map(bytes, seeds)))
            row = record.version, record.owner, record.name, sealed
            db.execute("INSERT INTO versions VALUES (?, ?, ?, 'current', ?)", row)
            db.execute("DELETE FROM uploads WHERE version = ?", (record.version,))
        self.overwrite()

    def remove(self, version: str) -> None:
        """The version is gone.  More calls do nothing."""
        with self.vault.transaction() as db:
            db.execute(_GONE + "version = ?", (version,))
        self.overwrite()

    def gone(self, versions: Collection[str]) -> set[str]:
        """Those that were in use once and are not any more."""
        with self.vault.transaction() as db:
            return {
                version
                for version in versions
                if db.execute("SELECT 1 FROM versions WHERE version = ? AND state = 'gone'", (version,)).fetchone()
            }

    # -- programs --------------------------------------------------------------------------------------------------

    def note_uses(self, program: str, versions: Collection[str]) -> None:
        """Before anything is dealt ahead for a program: it is of use as long as these versions are."""
        with self.vault.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO uses VALUES (?, ?)", [(program, version) for version in versions])

    def abandoned(self) -> list[str]:
        """Programs that need a version which is not in use."""
        with self.vault.transaction() as db:
            return _programs(
                db, "WHERE NOT EXISTS (SELECT 1 FROM versions WHERE version = uses.version AND state = 'current')"
            )

    def forget_program(self, program: str) -> None:
        """Its stock has been swept."""
        with self.vault.transaction() as db:
            db.execute("DELETE FROM uses WHERE program = ?", (program,))


def _programs(db: sqlite3.Connection, where: str) -> list[str]:
    return [str(row[0]) for row in db.execute(f"SELECT DISTINCT program FROM uses {where} ORDER BY program")]  # noqa: S608
