"""What ``tessera check --json`` has measured of each pair of members, as links to predict and plan by.

A round waits for the slowest pair of parties, and dealing for the slowest of the dealer's links: so the longest round
trip and the least bandwidth of each kind count.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from mpc.cost import Link
from mpc.errors import UsageError
from parties.members.cluster import Role


class Measured(msgspec.Struct):
    """One direction between two members."""

    sender: str = msgspec.field(name="from")
    receiver: str = msgspec.field(name="to")
    round_trip_seconds: float | None = None
    bytes_per_second: float | None = None


class Server(msgspec.Struct):
    """Of the cluster."""

    name: str
    role: str


class CheckReport(msgspec.Struct):
    """What counts here of what ``tessera check --json`` prints."""

    cluster: str
    client: str
    servers: list[Server]
    links: list[Measured]


class Links(NamedTuple):
    """Of a cluster that was measured."""

    name: str
    parties: int
    servers: Link
    dealer: Link
    client: Link

    @property
    def objective(self) -> Link:
        """What to plan by: a round waits for the parties' links, and most bytes are the dealer's."""
        return Link(self.servers.round_trip, min(self.servers.bandwidth, self.dealer.bandwidth))


def read_links(path: Path) -> Links:
    """Raises UsageError for a file that is not such a report, or lacks figures."""
    try:
        report = msgspec.json.decode(path.read_bytes(), type=CheckReport)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is not what tessera check --json prints: {error}") from None
    dealers = {server.name for server in report.servers if server.role == Role.DEALER}
    parties = {server.name for server in report.servers if server.role == Role.PARTY}
    if len(dealers) != 1 or len(parties) < 2:
        raise UsageError(f"{path}: it has {len(dealers)} dealers and {len(parties)} parties, and a cluster has 1 and 2")
    return Links(
        report.cluster,
        len(parties),
        _slowest(path, report.links, parties, parties),
        _slowest(path, report.links, dealers, parties),
        _slowest(path, report.links, {report.client}, dealers | parties),
    )


def _slowest(path: Path, links: Iterable[Measured], some: set[str], others: set[str]) -> Link:
    """Of all between the two, in either direction."""
    between = [
        x for x in links if any(a in some and b in others for a, b in ((x.sender, x.receiver), (x.receiver, x.sender)))
    ]
    trips = [x.round_trip_seconds for x in between if x.round_trip_seconds is not None]
    rates = [x.bytes_per_second for x in between if x.bytes_per_second]
    if not trips or not rates:
        raise UsageError(
            f"{path} has no round trip and bandwidth of the links between {', '.join(sorted(some))} and"
            f" {', '.join(sorted(others))}: run tessera check --json without --no-bandwidth, when all servers are up"
        )
    return Link(max(trips), 8 * min(rates))
