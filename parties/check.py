"""``tessera check``: is every server there, with the right key and version, and how far away is it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mpc.errors import PeerError
from parties.cluster import Cluster, Member
from parties.keys import KeyPair
from parties.transport import Endpoint

PINGS = 5


@dataclass(frozen=True)
class Row:
    """What was found out about one server."""

    server: Member
    round_trip: float | None
    error: PeerError | None

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def exit_code(self) -> int:
        return 0 if self.error is None else self.error.exit_code

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.server.name,
            "role": str(self.server.role),
            "address": self.server.address,
            "ok": self.ok,
            "round_trip_seconds": self.round_trip,
            "error": None if self.error is None else str(self.error),
        }

    def __str__(self) -> str:
        if self.error is not None:
            return f"FAIL  {self.error}"
        return f"ok    {self.server.name} at {self.server.address}: {(self.round_trip or 0) * 1e3:.2f} ms round trip"


async def check(cluster: Cluster, keys: KeyPair, timeout: float) -> list[Row]:
    """One row per server; the fastest of a few round trips."""
    member = cluster.by_key(keys.public)
    if member is None or member.is_server:
        # Endpoint would say so less clearly.
        from mpc.errors import ConfigurationError

        raise ConfigurationError("your key is not a client's in the cluster file: add it under [[client]]")
    rows = []
    async with Endpoint(cluster, member, keys, bind=False) as endpoint:
        for server in cluster.servers:
            try:
                await endpoint.connect([server.name], timeout)
                trips = [await endpoint.ping(server.name) for _ in range(PINGS)]
                rows.append(Row(server, min(trips), None))
            except PeerError as error:
                rows.append(Row(server, None, error))
    return rows
