"""What servers have put down of a client's runs and secrets, each in words that it has signed."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mpc.errors import ProtocolViolation, ServerBusy
from parties.client.switchboard import Switchboard
from parties.members.cluster import Cluster, Member
from parties.messages.audit import AskAudit, AuditShown, Place
from parties.operate.audit.entry import Entry, read_line
from parties.operate.audit.facts import kind_of
from parties.operate.audit.looking import concerns
from parties.operate.audit.words import sentence
from parties.wire.events import Delivery

_PAUSE = 0.25
"""s."""


@dataclass(frozen=True)
class AuditEntry:
    """An entry of a server's audit log."""

    server: str
    number: int
    when: datetime
    """By that server's clock."""
    kind: str
    """What it is about: ``"run"``, ``"rule"``, ``"upload"``, ``"refused"``, ..."""
    text: str
    """In words."""
    line: str = field(repr=False)
    """As it is in the log, in JSON, signed: who has the cluster file can check it without us."""

    def __str__(self) -> str:
        return f"{self.when:%Y-%m-%d %H:%M:%S}  {self.server:<12}  {self.kind:<8}  {self.text}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "server": self.server,
            "number": self.number,
            "time": self.when.isoformat(timespec="milliseconds"),
            "kind": self.kind,
            "text": self.text,
            "line": self.line,
        }


async def audit(board: Switchboard, cluster: Cluster, me: Member, since: int, patience: float) -> list[AuditEntry]:
    """What every server says, in the order of time.  Raises PeerError."""
    found = []
    for server in cluster.servers:
        place: Place | None = Place()
        while place is not None:
            delivery = await _asked(board, server.name, since, place, patience)
            found += [_shown(server, entry, line) for entry, line in _read(server, delivery, me)]
            place = _next(server, delivery, place)
    return sorted(found, key=lambda entry: entry.when)


async def _asked(board: Switchboard, server: str, since: int, place: Place, patience: float) -> Delivery:
    """A piece.  Many follow each other, and a server takes only so many questions of a client's at a time."""
    give_up = time.monotonic() + patience
    while True:
        message = AskAudit(request=secrets.token_hex(16), since=since, place=place)
        try:
            return (await board.ask(message, AuditShown, [server], patience))[server]
        except ServerBusy:
            if time.monotonic() > give_up:
                raise
            await asyncio.sleep(_PAUSE)


def _read(server: Member, delivery: Delivery, me: Member) -> Iterator[tuple[Entry, bytes]]:
    """Raises ProtocolViolation for what the server has not signed, or is not about us."""
    for line in b"".join(map(bytes, delivery.buffers)).splitlines():
        try:
            entry = read_line(line)
        except ValueError:
            raise ProtocolViolation(server.name, "sent entries of its audit log that are none") from None
        if not entry.signed_by(server):
            raise ProtocolViolation(
                server.name, f"sent entry {entry.number} of its audit log, which it has not signed under its key of now"
            )
        if not concerns(entry.what, me.name):
            raise ProtocolViolation(server.name, "sent entries of its audit log about others")
        yield entry, line


def _next(server: Member, delivery: Delivery, place: Place) -> Place | None:
    message = delivery.message
    more = message.more if isinstance(message, AuditShown) else None
    if more is not None and (more.file, more.at) <= (place.file, place.at):
        raise ProtocolViolation(server.name, "shows its audit log in circles")
    return more


def _shown(server: Member, entry: Entry, line: bytes) -> AuditEntry:
    when = datetime.fromtimestamp(entry.when / 1000, UTC)
    return AuditEntry(server.name, entry.number, when, kind_of(entry.what), sentence(entry.what), line.decode())
