"""What ``tessera check`` found out, and what is wrong: rows, warnings, the table and the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpc.errors import PeerError
from parties.host.disk import RESERVE
from parties.members.cluster import Cluster, Member
from parties.messages.check import FolderSeen, Quota, Reach, RoomSeen

CLOCK_TOLERANCE = 2.0
"""s between clocks from which on a warning is given.

Nothing that Tessera promises depends on the time of day: every deadline is counted by a clock of the host's own.  What
suffers is reading: log lines and metrics of several hosts cannot be put side by side.
"""

LOW_SPACE = 2 * RESERVE
"""Free bytes below which a warning is given: a few hundred items of preprocessing of a small network."""

NEARLY = 0.9
"""Of a quota, from which on a warning is given."""

WIDTH = 120
"""Columns where stdout is not a terminal."""


@dataclass
class LinkRow:
    """One direction between two members.  ``rate`` is in bytes per second, None where it was not measured.

    ``witness`` has noticed the error: the sender, if nobody is named.
    """

    sender: Member
    receiver: Member
    reach: Reach | None = None
    round_trip: float | None = None
    rate: float | None = None
    error: PeerError | None = None
    witness: Member | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        return {
            "from": self.sender.name,
            "to": self.receiver.name,
            "ok": self.ok,
            "tcp": None if self.reach is None else str(self.reach),
            "round_trip_seconds": self.round_trip,
            "bytes_per_second": self.rate,
            **_blame(self.error),
        }


@dataclass
class HostRow:
    """One server as the client sees it.  ``clock``: s that its clock is ahead of ours; None where it is not known."""

    server: Member
    error: PeerError | None = None
    round_trip: float | None = None
    clock: float | None = None
    folder: FolderSeen | None = None
    room: RoomSeen | None = None

    @property
    def largest_upload(self) -> int | None:
        """Bytes that it would take from us now; None where nothing is uploaded to it, or it is not known."""
        if self.folder is None or self.room is None or self.room.held is None:
            return None
        # It comes, and stays, and others are left as much.
        return max(0, self.folder.free - RESERVE - self.room.held) // 2

    def to_dict(self) -> dict[str, Any]:
        folder, room = self.folder, self.room
        return {
            "name": self.server.name,
            "role": str(self.server.role),
            "address": self.server.address,
            "ok": self.error is None,
            "round_trip_seconds": self.round_trip,
            "clock_ahead_seconds": self.clock,
            "data_folder": None
            if folder is None
            else {"ok": not folder.problem, "free": folder.free, "total": folder.total},
            "largest_upload": self.largest_upload,
            "largest_run_elements": None if room is None else room.elements,
            "quotas": None
            if room is None
            else {str(quota.what): {"used": quota.used, "most": quota.most} for quota in room.quotas},
            **_blame(self.error),
        }


@dataclass(frozen=True)
class Stored:
    """A secret that the client may use: how much an upload of it takes, and a run on one input, if it is a model."""

    name: str
    ours: bool
    size: int
    """In bytes."""
    elements: int | None
    """None where that is not known."""
    complete: bool
    unequal: bool
    """Whether some parties know other rules than others."""


@dataclass
class Report:
    """Hosts in the cluster file's order; links from the client first, to it next, then between servers."""

    cluster: Cluster
    me: Member
    hosts: list[HostRow] = field(default_factory=list)
    links: list[LinkRow] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return next(self.errors(), None) is None

    @property
    def exit_code(self) -> int:
        """That of the first failure, or 0."""
        return 0 if self.ok else self.first_failure().exit_code

    def first_failure(self) -> PeerError:
        """Of a report that is not `ok`."""
        return next(self.errors())[1]

    def errors(self) -> Iterator[tuple[str, PeerError]]:
        """Who noticed what."""
        for link in self.links:
            if link.error is not None:
                yield (link.witness or link.sender).name, link.error
        for host in self.hosts:
            if host.error is not None:
                yield self.me.name, host.error

    def failures(self) -> list[str]:
        """One sentence for each thing that is wrong, with who noticed it."""
        noticed: dict[str, list[str]] = {}
        for who, error in self.errors():
            seen_by = noticed.setdefault(str(error), [])
            if who not in seen_by:
                seen_by.append(who)
        return [f"{text} (noticed by {', '.join(who)})" for text, who in noticed.items()]

    def warnings(self) -> list[str]:
        """What will do for now."""
        return [
            *self._clock_warnings(),
            *self._space_warnings(),
            *self._quota_warnings(),
            *self._size_warnings(),
            *self._rule_warnings(),
        ]

    def _clock_warnings(self) -> Iterator[str]:
        clocks = {host.server.name: host.clock for host in self.hosts if host.clock is not None}
        if not clocks:
            return
        clocks[self.me.name] = 0.0
        # The clock in the middle: whoever is wrong alone is named, this host too.
        middle = median(clocks.values())
        for name, clock in clocks.items():
            if abs(clock - middle) > CLOCK_TOLERANCE:
                where = "ahead of" if clock > middle else "behind"
                yield (
                    f"{name}: its clock is {abs(clock - middle):.1f} s {where} the others': runs do not mind, but its "
                    "log and metrics cannot be compared with theirs; set up time synchronisation (NTP) on that host"
                )

    def _space_warnings(self) -> Iterator[str]:
        for host in self.hosts:
            if host.folder is not None and not host.folder.problem and host.folder.free < LOW_SPACE:
                yield (
                    f"{host.server.name}: {_size(host.folder.free)} are free on the disk of its data folder: make room "
                    "before models or preprocessing no longer fit"
                )

    def _quota_warnings(self) -> Iterator[str]:
        for host in self.hosts:
            for quota in host.room.quotas if host.room is not None else ():
                if quota.used >= NEARLY * quota.most:
                    beyond = (
                        "runs, uploads and orders are refused; they come back over a day: use larger batches, or raise"
                        " audit_mb"
                        if quota.what is Quota.AUDIT
                        else "uploads and rules are refused; remove what is not needed (tessera rm, tessera allow"
                        " --nothing)"
                    )
                    yield (
                        f"{host.server.name}: {self.me.name} has {quota.used:,} of {quota.most:,} {quota.what}: beyond"
                        f" them {beyond}"
                    )

    def _size_warnings(self) -> Iterator[str]:
        for host in self.hosts:
            largest = host.largest_upload
            for secret in self.stored:
                if largest is not None and secret.ours and secret.size > largest:
                    yield (
                        f"{host.server.name}: another upload like {secret.name} ({_size(secret.size)}) would be"
                        f" refused: its disk has room for {_size(largest)}; make room there"
                    )
                if host.room is not None and (secret.elements or 0) > host.room.elements:
                    yield (
                        f"{host.server.name}: runs of {secret.name} are refused: one input takes {secret.elements:,}"
                        f" elements, and its memory has room for {host.room.elements:,} of one client; raise memory_mb"
                    )

    def _rule_warnings(self) -> Iterator[str]:
        for secret in self.stored:
            if not secret.complete:
                yield f"{secret.name} is not at all parties, so runs of it are refused: its owner must upload it again"
            elif secret.unequal:
                yield (
                    f"the parties know different rules of {secret.name}, so some may refuse runs of it: its owner must"
                    " say again what is allowed (tessera allow)"
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; times in seconds, sizes in bytes."""
        return {
            **({} if self.ok else self.first_failure().to_dict()),
            "cluster": self.cluster.name,
            "fingerprint": self.cluster.fingerprint,
            "client": self.me.name,
            "ok": self.ok,
            "exit_code": self.exit_code,
            "servers": [host.to_dict() for host in self.hosts],
            "links": [link.to_dict() for link in self.links],
            "failures": self.failures(),
            "warnings": self.warnings(),
        }

    def print(self, console: Console) -> None:
        """Tables of servers and links, then a sentence for each failure and warning."""
        console.print(self._host_table())
        console.print(self._link_table())
        for text in self.failures():
            console.print(f"[bold red]FAIL[/]  {escape(text)}", soft_wrap=True, highlight=False)
        for text in self.warnings():
            console.print(f"[bold yellow]WARN[/]  {escape(text)}", soft_wrap=True, highlight=False)
        if self.ok:
            console.print(
                f"[bold green]OK[/]    cluster {escape(self.cluster.name)}: all links, both ways", highlight=False
            )

    def _host_table(self) -> Table:
        table = _table("server", "address", "state", "clock", "free space")
        for host in self.hosts:
            clock = "-" if host.clock is None else f"{round(host.clock, 2) + 0.0:+.2f} s"
            free = "-" if host.folder is None else _size(host.folder.free)
            table.add_row(host.server.name, host.server.address or "", _state(host.error), clock, free)
        return table

    def _link_table(self) -> Table:
        table = _table("from", "to", "state", "tcp", "round trip", "bandwidth")
        for link in self.links:
            trip = "-" if link.round_trip is None else f"{link.round_trip * 1e3:.2f} ms"
            rate = "-" if link.rate is None else f"{_size(link.rate)}/s"
            reach = "-" if link.reach is None else str(link.reach)
            table.add_row(link.sender.name, link.receiver.name, _state(link.error), reach, trip, rate)
        return table


def stdout_console() -> Console:
    """A terminal's own width; else wide enough for the tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _blame(error: PeerError | None) -> dict[str, str | None]:
    if error is None:
        return {"error": None, "kind": None, "at_fault": None}
    return {"error": str(error), "kind": type(error).__name__, "at_fault": error.peer}


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        right = heading in ("clock", "free space", "round trip", "bandwidth")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    return table


def _state(error: PeerError | None) -> str:
    return "[green]OK[/]" if error is None else "[bold red]FAIL[/]"


def _size(count: float) -> str:
    """Three digits or so: ``12.3 MB``."""
    units: Sequence[str] = ("B", "kB", "MB", "GB", "TB")
    for unit in units[:-1]:
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.4g} {units[-1]}"
