"""Where a log goes on when its server is started: what is on the disk, held against the anchor."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from parties.members.cluster import Member
from parties.messages.audit import SignedHead
from parties.operate.audit.entry import Entry, Head, after, beginning, read_line
from parties.operate.audit.facts import Broken, Cut, Fact, Stopped
from parties.operate.audit.files import Line, lines
from parties.operate.audit.quota import Used


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry that is certainly on the disk, in the file of that number; the last head of each other server; and what
    members had used of their quotas."""

    head: Head
    file: int
    peers: dict[str, SignedHead] = {}
    used: dict[str, Used] = {}


class Found(NamedTuple):
    """The log goes on behind ``head``: at byte ``at`` of file ``file``, or in a new one."""

    head: Head
    file: int = 0
    at: int | None = None
    notes: tuple[Fact, ...] = ()
    clean: bool = True


def found(anchor: Anchor | None, files: Mapping[int, Path], member: Member) -> Found:
    """``files`` by number.  Reads, and changes nothing."""
    if anchor is None and not files:
        return Found(beginning(secrets.token_hex(8)))
    first = max(files) if anchor is None else anchor.file
    head = None if anchor is None else Head(anchor.head.log, 0, "")
    anchored, clean, end = anchor is None, False, None
    for number in sorted(number for number in files if number >= first):
        for line in lines(files[number]):
            entry = _next(line, head, member if anchored else None)
            if entry is None:
                break
            head = after(entry, line.text)
            anchored = anchored or (anchor is not None and head == anchor.head)
            clean, end = isinstance(entry.what, Stopped), (number, line.at + len(line.text) + 1)
        else:
            continue
        break
    if anchor is not None and not anchored:
        reason = "entries up to here are not on the disk as they were written"
        return Found(anchor.head, notes=(Broken(anchor.head.number, anchor.head.hash, reason),), clean=False)
    if head is None or end is None:
        nothing = beginning(secrets.token_hex(8))
        reason = "what was here were no entries of this server's: a new log begins"
        return Found(nothing, notes=(Broken(0, nothing.hash, reason),), clean=False)
    notes: list[Fact] = []
    if anchor is None:
        notes.append(Broken(head.number, head.hash, "audit.sqlite, the log's anchor, was not there"))
    rest = _rest(files, *end)
    if rest:
        notes.append(Cut(len(rest), hashlib.sha256(rest).hexdigest()))
    return Found(head, *end, tuple(notes), clean and not notes)


def _next(line: Line, head: Head | None, signer: Member | None) -> Entry | None:
    """The entry of a line that follows ``head`` (any of that log, if its number is 0), signed by that member."""
    try:
        entry = read_line(line.text) if line.whole else None
    except ValueError:
        return None
    if entry is None or (signer is not None and not entry.signed_by(signer)):
        return None
    if head is not None and entry.log != head.log:
        return None
    if head is not None and head.number and (entry.number, entry.previous) != (head.number + 1, head.hash):
        return None
    return entry


def _rest(files: Mapping[int, Path], file: int, at: int) -> bytes:
    """What lies behind that byte of that file, and in those after it."""
    with files[file].open("rb") as last:
        last.seek(at)
        behind = last.read()
    return b"".join([behind, *(files[number].read_bytes() for number in sorted(files) if number > file)])
