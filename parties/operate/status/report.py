"""What ``tessera status`` saw: rows, the tables and the JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mpc.errors import PeerError, PeerUnavailable, printable
from parties.members.cluster import Cluster, Member
from parties.messages.status import PeerSeen, SecretSeen, ServerStatus

_RIGHT = frozenset({"up", "runs: yours", "others'", "models", "in stock", "round trip"})


@dataclass(frozen=True)
class ServerRow:
    """One server as the client sees it: what it says and the round trip to it in s, or the error."""

    server: Member
    status: ServerStatus | None = None
    round_trip: float | None = None
    error: PeerError | None = None

    def to_dict(self) -> dict[str, Any]:
        status, error = self.status, self.error
        found: dict[str, Any] = {
            "name": self.server.name,
            "role": str(self.server.role),
            "address": self.server.address,
            "ok": error is None,
            "error": None if error is None else str(error),
            "kind": None if error is None else type(error).__name__,
            "round_trip_seconds": self.round_trip,
        }
        if status is not None:
            found |= {
                "version": printable(status.version),
                "uptime_seconds": status.uptime,
                "runs": {"yours": status.own_runs, "others": status.other_runs},
                "models": [msgspec.to_builtins(model) for model in status.secrets],
                "stock": status.stock,
                "workers": None if status.workers is None else msgspec.to_builtins(status.workers),
                "peers": [
                    {"name": peer.peer, "connected": peer.connected, "round_trip_seconds": peer.round_trip}
                    for peer in status.peers
                ],
            }
        return found


@dataclass(frozen=True)
class StatusReport:
    """Servers in the cluster file's order; ``when`` is in s since 1970."""

    cluster: Cluster
    me: Member
    when: float
    rows: Sequence[ServerRow] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all servers answered."""
        return all(row.error is None for row in self.rows)

    @property
    def exit_code(self) -> int:
        return 0 if self.ok else PeerUnavailable.exit_code

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON; times in seconds."""
        return {
            **self._failure(),
            "cluster": self.cluster.name,
            "fingerprint": self.cluster.fingerprint,
            "client": self.me.name,
            "time": datetime.fromtimestamp(self.when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "ok": self.ok,
            "exit_code": self.exit_code,
            "servers": [row.to_dict() for row in self.rows],
        }

    def _failure(self) -> dict[str, object]:
        """Of the first server that did not answer, whatever the reason."""
        error = next((row.error for row in self.rows if row.error is not None), None)
        return {} if error is None else PeerUnavailable(error.peer, error.reason).to_dict()

    def render(self) -> RenderableType:
        """Tables of servers, their links, models and stock; then a sentence for each that did not answer."""
        parts: list[RenderableType] = [self._title(), self._server_table(), self._link_table()]
        if any(status.workers for _, status in self._answered()):
            parts.append(self._worker_table())
        if models := self._models():
            parts.append(_model_table(models))
        if any(status.stock for _, status in self._answered()):
            parts.append(self._stock_table())
        return Group(*parts, *self._failures())

    def _title(self) -> Text:
        when = datetime.fromtimestamp(self.when).astimezone()
        return Text(f"cluster {self.cluster.name}, as {self.me.name} may see it, {when:%Y-%m-%d %H:%M:%S}")

    def _answered(self) -> Iterator[tuple[Member, ServerStatus]]:
        for row in self.rows:
            if row.status is not None:
                yield row.server, row.status

    def _server_table(self) -> Table:
        table = _table("server", "state", "version", "up", "runs: yours", "others'", "models", "in stock", "round trip")
        for row in self.rows:
            status = row.status
            if status is None:
                table.add_row(row.server.name, "[bold red]DOWN[/]", *["-"] * 7)
                continue
            table.add_row(
                row.server.name,
                "[green]OK[/]",
                escape(printable(status.version)),
                _duration(status.uptime),
                f"{status.own_runs:,}",
                f"{status.other_runs:,}",
                f"{len(status.secrets):,}",
                "?" if status.stock is None else f"{sum(status.stock.values()):,}",
                _trip(row.round_trip),
            )
        return table

    def _link_table(self) -> Table:
        """A row for each server that answered, with its links to the others."""
        names = [server.name for server in self.cluster.servers]
        table = _table("link from", *(f"to {name}" for name in names))
        for server, status in self._answered():
            links = {peer.peer: peer for peer in status.peers}
            table.add_row(server.name, *(_link(links.get(name)) for name in names))
        return table

    def _worker_table(self) -> Table:
        """A row for each party that computes on workers."""
        table = _table("party", "workers wanted", "there", "their runs", numbers=True)
        for server, status in self._answered():
            if status.workers is not None:
                there = status.workers.runs
                table.add_row(server.name, f"{status.workers.wanted:,}", f"{len(there):,}", f"{sum(there.values()):,}")
        return table

    def _models(self) -> dict[SecretSeen, list[str]]:
        """Versions in use, and the servers that say so."""
        found: dict[SecretSeen, list[str]] = {}
        for server, status in self._answered():
            for model in status.secrets:
                found.setdefault(model, []).append(server.name)
        return dict(sorted(found.items(), key=lambda pair: (pair[0].name, pair[0].version)))

    def _stock_table(self) -> Table:
        """Items by program; a run takes one at every server, so the fewest count."""
        answered = list(self._answered())
        table = _table("program", *(server.name for server, _ in answered), numbers=True)
        programs = sorted({program for _, status in answered for program in status.stock or {}})
        for program in programs:
            table.add_row(program, *(_stock(status, program) for _, status in answered))
        return table

    def _failures(self) -> Iterator[Text]:
        for row in self.rows:
            if row.error is not None:
                yield Text.assemble(("DOWN", "bold red"), f"  {row.error}")
            elif row.status is not None and row.status.stock is None:
                yield Text.assemble(("WARN", "bold yellow"), f"  {row.server.name}: its ledger does not answer")


def _model_table(models: dict[SecretSeen, list[str]]) -> Table:
    table = _table("model", "owner", "version", "at")
    for model, servers in models.items():
        table.add_row(escape(model.name), escape(model.owner), model.version[:8], ", ".join(servers))
    return table


def _table(*headings: str, numbers: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(headings):
        right = heading in _RIGHT or (numbers and i > 0)
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    return table


def _stock(status: ServerStatus, program: str) -> str:
    return "?" if status.stock is None else f"{status.stock.get(program, 0):,}"


def _link(peer: PeerSeen | None) -> str:
    if peer is None:
        return "-"
    return _trip(peer.round_trip) if peer.connected else "[bold red]cut[/]"


def _trip(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"


def _duration(seconds: float) -> str:
    """Its two greatest units: ``3 d 4 h``."""
    units: Iterable[tuple[str, int]] = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    whole = int(seconds)
    parts: list[str] = []
    for unit, size in units:
        count, whole = divmod(whole, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
