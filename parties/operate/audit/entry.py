"""An entry of an audit log: a fact with its place in the chain, signed.

On the disk it is a line of JSON, in one form only: what decodes to an entry but is not the line that this entry has is
none.  Its *hash* is SHA-256 of that line, signature included, and the next entry says it; so whoever has signed entry
n has signed all before it.  The signature covers all but itself, under a purpose of its own: an entry can be shown to
third parties alone, with the cluster file.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, NamedTuple

import msgspec

from mpc.decoders import json_decoder
from parties.members.cluster import Member
from parties.members.keys import KeyPair
from parties.messages.audit import LogId, Milliseconds
from parties.messages.fields import Digest
from parties.operate.audit.facts import AnyFact, Fact

MAX_LINE = 1 << 20
"""Bytes."""

_PURPOSE = "audit entry"
_encoder = msgspec.json.Encoder()


class Head(NamedTuple):
    """Where a log stands: its id, the number of its last entry and that one's hash."""

    log: str
    number: int
    hash: str


def beginning(log: str) -> Head:
    """Before the first entry."""
    return Head(log, 0, "0" * 64)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``what`` happened, the ``number``-th of its log, after the entry whose hash is ``previous``."""

    log: LogId
    number: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    previous: Digest
    when: Milliseconds
    what: AnyFact
    signature: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{128})?\Z")] = ""

    def signed_by(self, member: Member) -> bool:
        """Whether that member has written it."""
        return member.signed(bytes.fromhex(self.signature), _PURPOSE, _unsigned(self))


def _unsigned(entry: Entry) -> bytes:
    return _encoder.encode(msgspec.structs.replace(entry, signature=""))


def next_line(head: Head, when: int, what: Fact, keys: KeyPair) -> tuple[Head, bytes]:
    """The line of an entry after ``head``, without its line break; and where the log stands with it."""
    assert isinstance(what, AnyFact)  # noqa: S101 - for the type checker: the union lists every fact
    entry = Entry(head.log, head.number + 1, head.hash, when, what)
    signed = msgspec.structs.replace(entry, signature=keys.sign(_PURPOSE, _unsigned(entry)).hex())
    line = _encoder.encode(signed)
    return after(signed, line), line


def after(entry: Entry, line: bytes) -> Head:
    """Where the log stands with that entry, which has this line."""
    return Head(entry.log, entry.number, hashlib.sha256(line).hexdigest())


def read_line(line: bytes) -> Entry:
    """The entry of a line, without its line break.  Raises ValueError for what is none, or not in its one form."""
    if len(line) > MAX_LINE:
        raise ValueError("too long for an entry")
    try:
        entry: Entry = json_decoder(Entry).decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("not an entry") from None
    if not entry.signature or _encoder.encode(entry) != line:
        raise ValueError("not an entry as it is written")
    return entry
