"""``tessera check``: is every server there, with the right key and version, and how far away is it?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from mpc.errors import ConfigurationError, PeerError
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


async def check(cluster: Cluster, keys: KeyPair, patience: float) -> list[Row]:
    """One row per server, each given ``patience`` s; raises ConfigurationError for a key that is no client's."""
    member = cluster.by_key(keys.public)
    if member is None or member.is_server:
        raise ConfigurationError(
            f"the cluster file lists no client with the key {keys.public}: add it under [[client]], on every host"
        )
    async with Endpoint(cluster, member, keys, bind=False) as endpoint:
        return list(await asyncio.gather(*(_look(endpoint, server, patience) for server in cluster.servers)))


async def _look(endpoint: Endpoint, server: Member, patience: float) -> Row:
    """The fastest of a few round trips, or what is wrong."""
    try:
        await endpoint.connect([server.name], patience)
        trips = [await endpoint.ping(server.name, patience) for _ in range(PINGS)]
    except PeerError as error:
        return Row(server, None, error)
    return Row(server, min(trips), None)
