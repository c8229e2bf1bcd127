"""A server's audit log on its disk: appended to, durable, one chain whatever happens.

*What lies where.*  In ``audit/`` of the data folder, files of about `MAX_FILE_BYTES` and `MAX_FILE_AGE` at most; each
begins with an entry that names the server and its key, whose ``previous`` is the hash of the last entry of the file
before.  ``audit.sqlite`` is the log's *anchor*: sealed under the server's key, the number and hash of an entry that is
certainly on the disk, and what the other servers have signed last of theirs.

*Order.*  Entries are written and flushed, then the anchor is.  So after a crash at any moment the anchored entry is
there, and behind it whole entries, of which the last may be torn: what is none is cut off at the next start, with a
note.  If the anchored entry is *not* there, no crash has done it.  The log then goes on behind the anchor, in a new
file that says so: numbers of what is lost are never given again, so that verification, and what other servers keep,
show what is missing.

*Failing.*  What could not be written is written the next time, under the same numbers, in place of what the failed
attempt has left.

*Deleting.*  Files whose entries are all older than ``audit_days`` (of the cluster file; 0 keeps them) go, oldest first,
once an entry says up to where; for nothing else.  How fast the log can grow is a matter of `Quotas`.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from mpc.decoders import msgpack_decoder
from mpc.errors import TesseraError, unwritable
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.messages.audit import SignedHead
from parties.operate.audit.entry import Entry, Head, next_line, read_line
from parties.operate.audit.facts import Broken, Deleted, Fact, File, Started, Stopped, Unsaid, kind_of
from parties.operate.audit.files import FOLDER, file_name, lines, log_files
from parties.operate.audit.quota import Quotas
from parties.operate.audit.recovery import Anchor, found
from parties.stored.vault import Vault, VaultError
from parties.wire.version import package_version

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 16 << 20
MAX_FILE_AGE = 7 * 86_400_000
"""ms, from its first entry."""

_DAY = 86_400_000
_SCHEMA = "CREATE TABLE anchor (one INTEGER PRIMARY KEY CHECK (one = 1), sealed BLOB NOT NULL);"
_LABEL = ("anchor",)


class AuditFailed(TesseraError):  # noqa: N818 - says what happened
    """The log cannot be written now; nothing that was in it is lost."""


class Happened(NamedTuple):
    """A fact, and when, in ms since 1970."""

    when: int
    what: Fact


def now() -> int:
    """In ms since 1970."""
    return int(time.time() * 1000)


class AuditLog:
    """Open, and nobody else's.  Calls block, on the disk and on each other: make them from worker threads.

    Raises, when made, ConfigurationError as `Vault` does and for a folder that cannot be used; DiskFull, VaultError.
    """

    def __init__(self, folder: str | os.PathLike[str], keys: KeyPair, member: Member, cluster: Cluster) -> None:
        self._folder = Path(folder) / FOLDER
        self._keys, self._member, self._cluster = keys, member, cluster
        self._lock = threading.Lock()
        self.quotas = Quotas(member.name, lambda: self._cluster.settings.audit_mb, now)
        self.head: Head
        """Of what is on the disk."""
        self._descriptor = -1
        self._vault = Vault(folder, "audit.sqlite", keys, purpose="audit", member=member.name, schema=_SCHEMA)
        try:
            self._start()
        except BaseException:
            self._release()
            raise

    def __repr__(self) -> str:
        return f"<AuditLog {self._folder}, {self.head.number} entries>"

    def append(self, happened: Sequence[Happened]) -> None:
        """Durably, all of it or nothing.  Raises AuditFailed."""
        with self._lock:
            self._append(happened)

    def anchor(self, peers: Mapping[str, SignedHead]) -> None:
        """What is on the disk by now cannot be taken back unseen; nor what peers have signed.  Raises VaultError."""
        with self._lock:
            self._peers = dict(peers)
            self._anchor()

    @property
    def peers(self) -> Mapping[str, SignedHead]:
        """As of the last anchor."""
        return self._peers

    def go_on_behind(self, head: Head) -> None:
        """This server has signed that head, so that what is here is an old copy.  Raises AuditFailed, VaultError."""
        with self._lock:
            if head.log != self.head.log or head.number <= self.head.number:
                return
            note = Broken(head.number, head.hash, f"the data folder is an old copy, as of entry {self.head.number}")
            self.head, self._began = head, 0
            self._append([Happened(now(), note)])
            self._anchor()

    def prune(self, days: int) -> None:
        """Delete files of which all is older than that; 0: none.  Raises AuditFailed, VaultError."""
        with self._lock:
            old: list[Path] = []
            for path, following in itertools.pairwise(log_files(self._folder)) if days else ():
                first = _first_entry(following)
                if first is None or first.when > now() - days * _DAY:
                    break
                old.append(path)
                upto = Deleted(first.number - 1, first.previous)
            if old:
                self._append([Happened(now(), upto)])
                self._anchor()
            for path in old:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """More calls do nothing."""
        with self._lock:
            try:
                if self._descriptor >= 0:
                    self._append([Happened(now(), Stopped())])
                    self._anchor()
            finally:
                self._release()

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._vault.close()

    # -- at the start ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            anchor = self._read_anchor()
            files = {int(path.stem): path for path in log_files(self._folder)}
            start = found(anchor, files, self._member)
            self.head, self._peers = start.head, dict(anchor.peers) if anchor else {}
            self.quotas.restore(anchor.used if anchor else {})
            if start.at is None:
                self._file = max([0 if anchor is None else anchor.file, *files])
                self._begin_file()
            else:
                for number in files:
                    if number > start.file:
                        files[number].unlink()
                first = _first_entry(files[start.file])
                # A file is signed under the key that it begins with: another one begins with another key.
                ours = first is not None and isinstance(first.what, File) and first.what.key == self._keys.public
                self._file, self._size, self._began = start.file, start.at, first.when if first and ours else 0
                self._open(os.O_WRONLY)
            started = Started(package_version(), self._cluster.fingerprint, start.clean)
            self._put([Happened(now(), fact) for fact in (*start.notes, started)])
        except OSError as error:
            raise unwritable(f"audit log {self._folder}", error) from error
        self._anchor()

    def _read_anchor(self) -> Anchor | None:
        with self._vault.transaction() as db:
            rows = db.execute("SELECT sealed FROM anchor").fetchall()
        if not rows:
            return None
        try:
            (encoded,) = self._vault.unseal(_LABEL, 1, len(rows[0][0]), [rows[0][0]])
            anchor: Anchor = msgpack_decoder(Anchor).decode(encoded)
        except (ValueError, TypeError) as error:
            raise VaultError(f"data file of {self._folder} makes no sense: see to the disk") from error
        return anchor

    # -- writing -----------------------------------------------------------------------------------------------------

    def _anchor(self) -> None:
        encoded = msgspec.msgpack.encode(Anchor(self.head, self._file, self._peers, dict(self.quotas.used)))
        (sealed,) = self._vault.seal(_LABEL, [encoded], chunk_bytes=len(encoded) + 64)
        with self._vault.transaction() as db:
            db.execute("INSERT OR REPLACE INTO anchor VALUES (1, ?)", (bytes(sealed),))

    def _append(self, happened: Sequence[Happened]) -> None:
        try:
            self._put(happened)
        except OSError as error:
            raise AuditFailed(f"audit log {self._folder} cannot be written: {error.strerror}") from error

    def _put(self, happened: Sequence[Happened]) -> None:
        full = self._size >= MAX_FILE_BYTES or now() - self._began > MAX_FILE_AGE
        if self._size and full:
            self._begin_file()
        text, head = bytearray(), self.head
        heading = [] if self._size else [Happened(now(), self._heading())]
        for when, what in (*heading, *happened):
            head, line = self._line(head, when, what)
            text += line + b"\n"
        os.ftruncate(self._descriptor, self._size)
        _write(self._descriptor, text, self._size)
        os.fsync(self._descriptor)
        self.head = head
        self._size += len(text)

    def _line(self, head: Head, when: int, what: Fact) -> tuple[Head, bytes]:
        """One that can be read again, whatever the fact: types are checked when a line is read, and not before."""
        try:
            after, line = next_line(head, when, what, self._keys)
            read_line(line)
        except ValueError:
            log.error("something of the kind %r cannot be put down in the audit log", kind_of(what))
            return next_line(head, when, Unsaid(kind_of(what)), self._keys)
        return after, line

    def _heading(self) -> File:
        return File(self._member.name, self._keys.public, self._cluster.name)

    def _begin_file(self) -> None:
        former = self._descriptor
        self._file += 1
        self._open(os.O_WRONLY | os.O_CREAT)
        if former >= 0:
            os.close(former)
        self._size, self._began = 0, now()

    def _open(self, flags: int) -> None:
        path = self._folder / file_name(self._file)
        self._descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write(descriptor: int, text: bytearray, at: int) -> None:
    view = memoryview(text)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written


def _first_entry(path: Path) -> Entry | None:
    """Of a file, if it is one."""
    line = next(lines(path), None)
    try:
        return None if line is None else read_line(line.text)
    except ValueError:
        return None
