"""What has come and nobody has taken up yet is bounded in bytes, wherever it lies; the rest waits at its sender."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from parties.members.cluster import Member, Role
from parties.wire.arrivals import BACKLOG, BACKLOG_BYTES, Arrivals
from parties.wire.events import Delivery, PeerDown
from parties.wire.inflow import taken
from parties.wire.messages import Message
from parties.wire.sockets import UNREAD

MIB = 1 << 20
MEMBERS = [Member(name, Role.PARTY, i, "127.0.0.1:1", "key") for i, name in enumerate("ab")]


class Piece(Message, frozen=True):
    number: int


def test_there_is_room_for_so_many_events_and_bytes() -> None:
    arrivals = Arrivals()
    one, other = MEMBERS
    half = memoryview(bytes(BACKLOG_BYTES // 2))
    arrivals.put(Delivery(one, Piece(0), [half[1:], half[:1]]))
    assert arrivals.has_room()
    arrivals.put(Delivery(other, Piece(1), [half]))
    assert not arrivals.resumes(), "nobody has been told that there is no room"
    assert not arrivals.has_room()
    assert not arrivals.resumes()
    arrivals.take()
    assert [arrivals.resumes(), arrivals.resumes(), arrivals.has_room()] == [True, False, True]
    arrivals.put(Delivery(other, Piece(2), [half]))
    arrivals.clear()
    for i in range(BACKLOG):
        assert arrivals.has_room()
        arrivals.put(Delivery(one, Piece(i), []) if i % 2 else PeerDown(other, None))  # type: ignore[arg-type]
    assert not arrivals.has_room()
    while len(arrivals) > BACKLOG // 2:
        assert not arrivals.resumes()
        arrivals.take()
    assert arrivals.resumes()


async def test_what_one_sends_is_neither_read_ahead_nor_in_the_way(
    site: Any, expect: Callable[..., Awaitable[Any]]
) -> None:
    """A hundred MiB to a server that is held up take some of its memory, and another's message is not behind them."""
    flooding, server, other = await site.with_settings(peer_timeout=30).endpoints("clinic", "p1", "p0")
    for i in range(50):
        flooding.send("p1", Piece(i), [bytes(2 * MIB)])
    await asyncio.sleep(0.5)
    assert server.traffic("clinic").payload_received <= BACKLOG_BYTES + 2 * MIB
    (connection,) = (one for one in server._wires._door._members.values() if one.route == server._link("clinic").route)
    # One more is on its way through libzmq, and encryption adds to all.
    assert taken(connection._descriptor) < BACKLOG_BYTES + 2 * MIB * (UNREAD + 3)
    other.send("p1", Piece(-1))
    order = [(await expect(server, Delivery)).message.number for _ in range(51)]
    assert sorted(order) == list(range(-1, 50))
    assert [number for number in order if number >= 0] == list(range(50)), "each in its order"
    assert order.index(-1) <= BACKLOG_BYTES // (2 * MIB) + UNREAD + 2


@pytest.mark.parametrize("count", [3, 200])
async def test_a_message_is_read_whatever_its_size(
    site: Any, expect: Callable[..., Awaitable[Any]], count: int
) -> None:
    """One alone may be more than what may wait; small ones after it come too."""
    a, b = await site.endpoints("p0", "p1")
    a.send("p1", Piece(0), [bytes(BACKLOG_BYTES + MIB)])
    for i in range(1, count):
        a.send("p1", Piece(i), [b"small"])
    for i in range(count):
        assert (await expect(b, Delivery)).message == Piece(i)
