"""Training jobs on the disk of a server, sealed, and what was revealed in their runs: a table of a database.

Of a job, a dealer has its programs beside what has become of it, and a party which of its runs was the last one begun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from mpc.decoders import msgpack_decoder
from parties.messages.failures import Fault
from parties.messages.fields import Count
from parties.messages.jobs import Checkpoint, State
from parties.messages.requests import Signed
from parties.stored.vault import Vault, VaultError

TABLE = """CREATE TABLE jobs (
    job TEXT NOT NULL,
    what TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (job, what)
) WITHOUT ROWID"""
"""A row each for what has become of a job, its programs, and each of its results and checkpoints."""

_ROW, _PROGRAMS, _CHECKPOINT = "row", "programs", "checkpoint"


class JobRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a job, as it is sealed."""

    order: Signed
    begun: Count = 0
    """Runs that may have begun: the next has this number."""
    state: State = State.GOING
    fault: Fault | None = None


class JobTables:
    """Calls block: make them from worker threads.  Every one may raise VaultError, as ``damaged`` makes it."""

    def __init__(self, vault: Vault, damaged: Callable[[str], VaultError]) -> None:
        self._vault = vault
        self._damaged = damaged

    # -- jobs ------------------------------------------------------------------------------------------------------

    def all(self) -> list[tuple[str, JobRow]]:
        """All jobs there are, by name."""
        with self._vault.transaction() as db:
            rows = db.execute("SELECT job, sealed FROM jobs WHERE what = ? ORDER BY job", (_ROW,)).fetchall()
        return [(job, msgpack_decoder(JobRow).decode(self._open(job, _ROW, sealed))) for job, sealed in rows]

    def write(self, job: str, row: JobRow, programs: Sequence[bytes] = ()) -> None:
        """Durably, in place of what there was; its programs stay if none are given."""
        if programs:
            self._put(job, _PROGRAMS, msgspec.msgpack.encode(tuple(programs)))
        # Last: where this is, all is.
        self._put(job, _ROW, msgspec.msgpack.encode(row))

    def programs(self, job: str) -> tuple[bytes, ...]:
        """Of a job that is there."""
        found: tuple[bytes, ...] = msgpack_decoder(tuple[bytes, ...]).decode(self._get(job, _PROGRAMS))
        return found

    def drop(self, job: str) -> None:
        """It is gone, and all that was revealed in it."""
        with self._vault.transaction() as db:
            db.execute("DELETE FROM jobs WHERE job = ?", (job,))

    # -- their runs ------------------------------------------------------------------------------------------------

    def write_checkpoint(self, job: str, number: int, made: Checkpoint) -> None:
        """It is in use."""
        self._put(job, f"{_CHECKPOINT} {number:09}", msgspec.msgpack.encode(made))

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """In their order."""
        with self._vault.transaction() as db:
            rows = db.execute(
                "SELECT what, sealed FROM jobs WHERE job = ? AND what > ? AND what < ? ORDER BY what",
                (job, f"{_CHECKPOINT} ", f"{_CHECKPOINT} :"),
            ).fetchall()
        decoder = msgpack_decoder(Checkpoint)
        return [decoder.decode(self._open(job, what, sealed)) for what, sealed in rows]

    def write_result(self, job: str, run: str, encoded: bytes) -> None:
        """What is to be revealed of a run, before it is decided whether what it keeps is kept."""
        self._put(job, f"result {run}", encoded)

    def result(self, job: str, run: str) -> bytes:
        """Empty if there is none."""
        return self._get(job, f"result {run}")

    # -- inside ----------------------------------------------------------------------------------------------------

    def _put(self, job: str, what: str, data: bytes) -> None:
        (sealed,) = self._vault.seal(("training", job, what), [data], chunk_bytes=len(data) + 64)
        with self._vault.transaction() as db:
            db.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?)", (job, what, bytes(sealed)))

    def _get(self, job: str, what: str) -> bytes:
        with self._vault.transaction() as db:
            row = db.execute("SELECT sealed FROM jobs WHERE (job, what) = (?, ?)", (job, what)).fetchone()
        return b"" if row is None else self._open(job, what, row[0])

    def _open(self, job: str, what: str, sealed: object) -> bytes:
        if not isinstance(sealed, bytes):
            raise self._damaged("a row makes no sense")
        try:
            (data,) = self._vault.unseal(("training", job, what), 1, len(sealed), [sealed])
        except (VaultError, ValueError):
            raise self._damaged(f"the {what[:20]} of training {job[:8]} is not as it was written") from None
        return bytes(data)
