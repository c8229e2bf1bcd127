"""A silent peer is judged by its silence, however often somebody begins to watch it."""

from __future__ import annotations

import asyncio

from mpc.errors import PeerLost
from parties.members.cluster import Member, Role
from parties.wire.links import Link
from parties.wire.liveness import Liveness


async def test_new_watches_do_not_put_the_verdict_off() -> None:
    link = Link(Member("party1", Role.PARTY, 1, "127.0.0.1:7001", "k" * 40))
    found: list[PeerLost] = []
    liveness = Liveness(
        {"party1": link}, 0.5, read=lambda: True, ping=lambda _: None, report=lambda _, error: found.append(error)
    )
    task = asyncio.create_task(liveness.run())
    watches = []
    for _ in range(20):
        watches.append(liveness.watch(frozenset({"party1"})))
        await asyncio.sleep(0.05)
    task.cancel()
    assert found
    assert found[0].peer == "party1"
    for watch in watches:
        watch.stop()
