"""What a data folder holds of stored secrets, so that a restart loses none; at the parties and at the dealer.

*What lies where.*  A party has ``models.sqlite``, with a row per version of a model (who owns it, its name, description
and shapes), in ``models/`` a file per version, with w - b of each tensor and the seed of this party's shares of b
(`parties.stored.party_versions`), and in ``uploads/`` what it has of uploads that are not complete, without a seed
(`parties.stored.partials`).  The dealer has ``masks.sqlite``: per version in use and per upload that is not decided
the seeds of its masks, and which programs preprocessing was dealt for it (`parties.stored.decided_versions`).  A
*version* is one upload, or what one run has left; 32 hexadecimal digits that its owner draws name it everywhere.

*At rest.*  Rows and files are sealed by `parties.stored.vault` under a key derived from the member's own: AES-256-GCM,
which is the checksum as well.  A row opens under its own version only, a file under its version, its row's content and
the members that the shares are for: a file in another's place, cut short, or with one bit changed is a `VaultError`
that names the file.  Names and versions are in the clear, as in the logs.

*Written whole or not at all.*  A file is written under another name, flushed to the disk, renamed, and its folder
flushed; only then is its row inserted, in a durable transaction.  What is dropped loses its row first and its file
afterwards.  So after a crash at any moment every row has its whole file, and a file without a row is deleted at the
next start.

*In use everywhere or nowhere.*  Parties and dealer go from one version of a name to the next in two phases, decided by
the dealer:

1. A party that has all of an upload stores it as *prepared*, durably, and tells the dealer.  What was under the name
   stays in use.
2. When all parties have said so the dealer stores the version's seeds, in one transaction with forgetting the upload
   and the version it replaces.  That is the moment the model changes.  It tells the parties to commit, and each, in one
   transaction, puts the version under its name and drops the one before.

The dealer presumes abort.  Before that moment the seeds of an upload are on its disk, so that its owner may go on with
it, but who has prepared it is in memory alone; and a prepared version it does not know is dropped.  An upload that it
has read from its disk *sleeps* until its owner comes back to it: if a party says that it has prepared it first, the
owner may have been told that it failed, and is given ``peer_timeout`` to come back, after which it is forgotten.
What a run was to leave has nobody who comes back to it, and is forgotten at the dealer's start.
An owner that fails after it has sent the last chunk gives the upload up, and one that fails before has it kept: that is
not complete anywhere, and comes to nothing unless its owner goes on with it within a day.

A party with prepared versions asks at its start, at the dealer's, and again until it is answered; it neither commits
nor drops one by itself.  So a crash of anyone, at any moment, leaves the former version in use or, once the party is
back and has asked, the new one; and never for good a different one here and there.  Removal is decided by the dealer's
transaction likewise, and the parties that it did not reach then drop what it says is gone.  What was allowed under the
name ends before that, by its owner's word (`parties.stored.rules`).

*An old copy of a folder*, put back, brings old versions back.  Nothing is masked twice by it: a version's masks b are
drawn for it by the dealer, and masked its w alone; running it again opens w - b no second time, since all parties have
that already, and takes fresh preprocessing as every run does.  Versions cannot mix either: beside its program a run
says the version of every secret that it reads (`parties.messages.bindings`), client, dealer and every party compare
that, and one that has not got that very version in use ends the run before anything is sent.  A version the dealer
knows to be gone is dropped by the party that brings it back.

*Upgrades.*  `LAYOUT` counts the changes to the tables.  An older file is brought up to date when it is opened, step by
step, each step and its number in one transaction; a newer one is refused, and one from before `FIRST`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from mpc.decoders import msgpack_decoder
from mpc.errors import ConfigurationError
from parties.members.keys import KeyPair
from parties.stored.job_tables import JobTables
from parties.stored.record import Record
from parties.stored.rule_tables import RuleTables
from parties.stored.vault import Vault, VaultError

Steps = Sequence[Sequence[str]]
"""By layout, from `FIRST` on: the statements that bring a file from the layout before, or an empty one, to this one."""

FIRST = 5
"""The first layout of release 0.3: in earlier ones keys sign nothing, and a name has one owner."""

_LAYOUT = "CREATE TABLE layout (version INTEGER NOT NULL); INSERT INTO layout VALUES (0);"


REQUESTS_TABLE = """CREATE TABLE requests (
    client TEXT NOT NULL,
    program TEXT NOT NULL,
    sealed BLOB NOT NULL,
    code BLOB NOT NULL,
    PRIMARY KEY (client, program)
) WITHOUT ROWID"""


class VersionDatabase:
    """The database that both kinds have.  Calls block: make them from worker threads.

    Args:
        folder: the member's data folder.
        keys: its own.
        member: its name in the cluster file.
        file: the database's.
        steps: from an empty file to the newest layout.

    Raises:
        ConfigurationError: as `Vault`, or a file that a newer release has written.  Every method may raise VaultError.
    """

    def __init__(self, folder: str | os.PathLike[str], keys: KeyPair, member: str, *, file: str, steps: Steps) -> None:
        self.vault = Vault(
            folder, file, keys, purpose=file.removesuffix(".sqlite"), member=member, schema=_LAYOUT, shared=True
        )
        self._path = os.path.join(folder, file)  # noqa: PTH118 - for messages alone
        self.rules = RuleTables(self.vault, self.damaged)
        self.jobs = JobTables(self.vault, self.damaged)
        try:
            while self._upgrade(steps):
                pass
        except BaseException:
            self.vault.close()
            raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.vault!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """No call works from here on.  More calls do nothing."""
        self.vault.close()

    def check(self) -> None:
        """Raises VaultError when nothing could be written now."""
        with self.vault.transaction():
            pass

    def overwrite(self) -> None:
        """What was deleted is overwritten now, if it can be, and else when the file is closed."""
        with contextlib.suppress(VaultError):
            self.vault.checkpoint()

    # -- requests --------------------------------------------------------------------------------------------------

    def requests(self) -> list[tuple[str, str, bytes]]:
        """Client, program and what was written of each; a row that cannot be read is a VaultError."""
        with self.vault.transaction() as db:
            rows = db.execute("SELECT client, program, sealed FROM requests ORDER BY client, program").fetchall()
        return [(client, program, self._open_request("request", client, program, s)) for client, program, s in rows]

    def request_program(self, client: str, program: str) -> bytes:
        """The program of a request that is there.  Raises VaultError."""
        with self.vault.transaction() as db:
            row = db.execute("SELECT code FROM requests WHERE (client, program) = (?, ?)", (client, program)).fetchone()
        return self._open_request("program", client, program, row[0] if row else None)

    def _open_request(self, kind: str, client: object, program: object, sealed: object) -> bytes:
        if not isinstance(client, str) or not isinstance(program, str) or not isinstance(sealed, bytes):
            raise self.damaged("a row makes no sense")
        try:
            (data,) = self.vault.unseal((kind, client, program), 1, len(sealed), [sealed])
        except (VaultError, ValueError):
            raise self.damaged(f"the {kind} {program[:8]} of {client!r} is not as it was written") from None
        return bytes(data)

    def write_request(self, client: str, program: str, row: bytes, code: bytes | None = None) -> None:
        """Durably, in place of what there was of that client and program; the program stays if there is no ``code``."""
        sealed = self._seal_request("request", client, program, row)
        with self.vault.transaction() as db:
            if code is None:
                db.execute("UPDATE requests SET sealed = ? WHERE (client, program) = (?, ?)", (sealed, client, program))
            else:
                code = self._seal_request("program", client, program, code)
                db.execute("INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?)", (client, program, sealed, code))

    def _seal_request(self, kind: str, client: str, program: str, data: bytes) -> bytes:
        (sealed,) = self.vault.seal((kind, client, program), [data], chunk_bytes=len(data) + 64)
        return bytes(sealed)

    def drop_request(self, client: str, program: str) -> None:
        """It is gone, if it was there."""
        with self.vault.transaction() as db:
            db.execute("DELETE FROM requests WHERE (client, program) = (?, ?)", (client, program))

    # -- inside ----------------------------------------------------------------------------------------------------

    def _upgrade(self, steps: Steps) -> bool:
        """One step towards the newest layout; False when it is that."""
        with self.vault.transaction() as db:
            layout = self._layout(db)
            if 0 < layout < FIRST:
                raise ConfigurationError(
                    f"data file {self._path} was written by release 0.2 or earlier (layout {layout}), which this one"
                    " does not read: move the data folder away to begin with an empty one, and have the owners of what"
                    " is in it upload it and allow its use again"
                )
            done = layout - FIRST + 1 if layout else 0
            if done > len(steps):
                raise ConfigurationError(
                    f"data file {self._path} was written by a newer release (layout {layout}; this one knows"
                    f" {FIRST + len(steps) - 1}): run that release or a later one, or move the file away to begin with"
                    " none of the models in it"
                )
            if done == len(steps):
                return False
            for statement in steps[done]:
                db.execute(statement)
            db.execute("UPDATE layout SET version = ?", (FIRST + done,))
        return True

    def _layout(self, db: sqlite3.Connection) -> int:
        rows = db.execute("SELECT version FROM layout").fetchall()
        if len(rows) != 1 or not isinstance(rows[0][0], int) or rows[0][0] < 0:
            raise self.damaged("it does not say which layout it has")
        return int(rows[0][0])

    def damaged(self, what: str) -> VaultError:
        """The error of a database whose rows make no sense."""
        return VaultError(
            f"data file {self._path} is damaged ({what}): see to the disk, and move the file away to begin with none"
            " of the models in it; their owners upload them again"
        )

    def seal_record(self, record: Record, *secrets: bytes) -> bytes:
        """For its row."""
        payload = [msgspec.msgpack.encode(record), *secrets]
        size = sum(map(len, payload)) + 8 * (2 * len(payload) + 2)
        (sealed,) = self.vault.seal(_label(record.version), payload, chunk_bytes=size)
        return bytes(sealed)

    def open_record(self, version: object, sealed: object) -> tuple[Record, list[bytes]]:
        """What `seal_record` was given.  Raises VaultError."""
        if not isinstance(version, str) or not isinstance(sealed, bytes):
            raise self.damaged("a row makes no sense")
        try:
            encoded, *secrets = self.vault.unseal(_label(version), 1, len(sealed), [sealed])
            record: Record = msgpack_decoder(Record).decode(encoded)
        except (VaultError, ValueError):
            raise self.damaged(f"the row of version {version[:8]} is not as it was written") from None
        if record.version != version:
            raise self.damaged(f"the row of version {version[:8]} is another's")
        return record, [bytes(secret) for secret in secrets]


def _label(version: str) -> tuple[str, ...]:
    return "version", version
