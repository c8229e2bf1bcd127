"""Takes a backup of a server's data folder, while the server runs or not.

*What is in it.*  Of a party ``models.sqlite`` and ``models/``, of the dealer ``masks.sqlite``: versions, rules, and
what else is told of them, sealed as they lie, so no key is needed, and whoever has the backup alone learns names and
sizes.  With the member's key it opens, for ever: keep the two apart.

*What is not.*  Ledgers (``ledger.sqlite``, ``stock.sqlite``): an old one knows too little of what has been used since.
The audit log, whose old end would be a false one: it is copied away by itself, and read where it lies.  The record of
cluster files: the others tell a server that begins anew.  What has come of uploads: their owners send it again.

*Consistent.*  The database is copied by SQLite in one read transaction, beside the server's own.  Files of versions
never change once they have a row, so they are copied afterwards; where one has gone meanwhile, with its version, all is
taken anew.

A backup is a tar archive; its last member, ``backup.json``, says what is in it, with digests: one that was cut short
has none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from mpc.errors import ConfigurationError, unwritable

FORMAT = 1
MANIFEST = "backup.json"
DATABASES = {"models.sqlite": "party", "masks.sqlite": "dealer"}
"""What is backed up of each role; beside a party's, the files of its versions."""

_ATTEMPTS = 5


class Backup(NamedTuple):
    """What was taken, or put back."""

    path: Path
    member: str
    taken: str
    """When, by the clock of the host."""
    versions: int
    size: int
    """In bytes."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "path": str(self.path)}


def take(folder: Path, out: Path) -> Backup:
    """Of that data folder, into a new file that nobody else may read.

    Raises ConfigurationError for what is no data folder, and for a file that is there; DiskFull.
    """
    name = next((name for name in DATABASES if (folder / name).is_file()), None)
    if name is None:
        raise ConfigurationError(f"{folder} is no server's data folder: give it with --data")
    part = out.with_name(out.name + ".part")
    if out.exists():
        raise ConfigurationError(f"{out} exists, and nothing is overwritten: give another --out")
    try:
        with contextlib.ExitStack() as undo:
            undo.callback(part.unlink, missing_ok=True)
            for attempt in range(_ATTEMPTS):
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    try:
                        found = _write(folder, name, file, out.absolute().parent)
                    except FileNotFoundError:
                        # A version was replaced or removed meanwhile, or there never was its file.
                        if attempt == _ATTEMPTS - 1:
                            raise
                        continue
                    file.flush()
                    os.fsync(file.fileno())
                break
            os.link(part, out)
        return found._replace(path=out, size=out.stat().st_size)
    except sqlite3.Error as error:
        raise ConfigurationError(f"{folder / name} cannot be read ({error}): see to the disk") from error
    except OSError as error:
        raise unwritable(f"the backup {out}", error) from error


def _write(folder: Path, name: str, file: Any, beside: Path) -> Backup:
    files: dict[str, list[Any]] = {}
    with tarfile.open(fileobj=file, mode="w") as archive, tempfile.TemporaryDirectory(dir=beside) as work:
        copy = Path(work) / name
        copy.touch(mode=0o600)
        member, versions = _copied(folder / name, copy)
        shares = [f"models/{version}.shares" for version in versions] if name == "models.sqlite" else []
        for inside, path in ((name, copy), *((share, folder / share) for share in shares)):
            with path.open("rb") as source:
                info = tarfile.TarInfo(inside)
                info.size, info.mode = os.fstat(source.fileno()).st_size, 0o600
                hashing = Hashing(source)
                archive.addfile(info, hashing)
                files[inside] = [info.size, hashing.digest.hexdigest()]
        taken = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        about = {"format": FORMAT, "member": member, "taken": taken, "files": files}
        encoded = json.dumps(about, indent=1).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(encoded), 0o600
        archive.addfile(info, io.BytesIO(encoded))
    return Backup(Path(), member, taken, len(versions), 0)


def _copied(source: Path, copy: Path) -> tuple[str, list[str]]:
    """Whose it is, and the versions in it."""
    with (
        contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=10)) as ours,
        contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as theirs,
    ):
        ours.backup(theirs)
        # As one file, that nothing has to be done to when it is opened.
        theirs.execute("PRAGMA journal_mode = DELETE")
        (member,) = theirs.execute("SELECT value FROM about WHERE name = 'member'").fetchone()
        versions = theirs.execute(
            "SELECT version FROM versions WHERE state IN ('current', 'prepared') ORDER BY version"
        )
        return str(member), [str(row[0]) for row in versions]


class Hashing(io.RawIOBase):
    """A file, and the digest of what has been read of it."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data: bytes = self._file.read(size)
        self.digest.update(data)
        return data
