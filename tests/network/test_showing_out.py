"""Clients that send far more than they may: told why, cut off, and let in again after a while; nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from mpc.errors import PeerError, RemoteError
from parties.wire import expelling, sockets
from parties.wire.buckets import Bucket
from parties.wire.events import Delivery, LinkFault
from parties.wire.messages import ChannelWanted, Envelope, Message, Ping, Refused, decode, encode_envelope

from .conftest import until

Expect = Callable[..., Awaitable[Any]]

MOST = 20
"""Messages at once here."""


class Mentioned(Message, frozen=True):
    number: int


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expelling, "VAIN_AT_ONCE", MOST)
    monkeypatch.setattr(expelling, "VAIN_PER_SECOND", MOST)
    monkeypatch.setattr(expelling, "OUT", 1.0)
    monkeypatch.setattr(sockets, "HANDSHAKE_SECONDS", 1.0)


def answers(rogue: Any) -> Iterator[Message]:
    """What the server has said and nobody has read."""
    while rogue.socket.poll(0):
        yield decode("p0", rogue.socket.recv_multipart())[1]


def connections(endpoint: Any) -> int:
    return len(endpoint._wires._door._members)


async def count_deliveries(endpoint: Any, found: list[Any]) -> None:
    while True:
        event = await endpoint.receive()
        if isinstance(event, Delivery):
            found.append(event)


@contextlib.asynccontextmanager
async def delivered(endpoint: Any) -> Any:
    found: list[Any] = []
    task = asyncio.create_task(count_deliveries(endpoint, found))
    try:
        yield found
    finally:
        task.cancel()


@pytest.mark.parametrize("kind", ["pings", "channels", "rubbish"])
async def test_whatever_it_sends_too_much_of(site: Any, kind: str) -> None:
    p0 = await site.endpoint("p0")
    made = {"pings": Ping, "channels": lambda _: ChannelWanted(os.urandom(32))}
    async with delivered(p0) as found:
        rogue, other = site.rogue("clinic", "p0"), site.rogue("p1", "p0")
        rogue.greet()
        other.greet()
        await until(lambda: connections(p0) == 2)
        for number in range(1, 3 * MOST):
            if kind == "rubbish":
                rogue.raw(encode_envelope(Envelope(rogue.incarnation, number)), b"rubbish")
            else:
                rogue.say(made[kind](number), number)
        said = list[Message]()

        def refused() -> bool:
            said.extend(answers(rogue))
            return any(isinstance(message, Refused) for message in said)

        await until(refused)
        (reason,) = [message.reason for message in said if isinstance(message, Refused)]
        assert "clinic sends more than 20 messages a second that come to nothing: its connection is closed" in reason
        await until(lambda: connections(p0) == 1)
        other.say(Mentioned(7), 1)
        await until(lambda: found and found[-1].sender.name == "p1")
        assert [delivery.sender.name for delivery in found] == ["p1"]


@pytest.mark.parametrize(("name", "kind"), [("p1", Ping), ("clinic", Mentioned)])
async def test_servers_are_not_nor_is_what_comes_to_something(
    site: Any, name: str, kind: Callable[[int], Message]
) -> None:
    p0 = await site.endpoint("p0")
    async with delivered(p0) as found:
        other = site.rogue(name, "p0")
        other.greet()
        for number in range(1, 3 * MOST):
            other.say(kind(number), number)
        other.say(Mentioned(0), 3 * MOST)
        await until(lambda: found and found[-1].message == Mentioned(0))
        assert connections(p0) == 1
        assert not any(isinstance(message, Refused) for message in answers(other))


async def test_its_key_is_not_let_in_for_a_while(site: Any) -> None:
    p0 = await site.endpoint("p0")
    async with delivered(p0) as found:
        rogue = site.rogue("clinic", "p0")
        rogue.greet()
        await until(lambda: connections(p0) == 1)
        began = monotonic()
        p0.show_out("clinic", "clinic is tried")
        p0.show_out("clinic", "clinic is tried again")
        await until(lambda: connections(p0) == 0)
        again = site.rogue("clinic", "p0")
        again.incarnation = b"again..."
        again.greet()
        again.say(Mentioned(1), 1)
        # A key that is listed, of somebody else.
        other = site.rogue("p1", "p0")
        other.greet()
        other.say(Mentioned(2), 1)
        await until(lambda: [d.message for d in found if d.sender.name == "p1"] == [Mentioned(2)])
        await until(lambda: [d.message for d in found if d.sender.name == "clinic"] == [Mentioned(1)])
        assert monotonic() - began > expelling.OUT
        assert [type(message) for message in answers(rogue)].count(Refused) == 1


async def test_a_client_of_ours_is_told_and_comes_back(site: Any, expect: Expect) -> None:
    p0, clinic = await site.endpoints("p0", "clinic")
    p0.show_out("clinic", "clinic asks far more than it may")
    fault = await expect(clinic, LinkFault)
    assert isinstance(fault.error, RemoteError)
    assert "asks far more than it may: its connection is closed for some 1 s" in str(fault.error)
    with pytest.raises(PeerError):
        clinic.send("p0", Mentioned(1))
    with pytest.raises(RemoteError, match="asks far more"):
        await clinic.connect(["p0"], 0.2)
    await until(lambda: clinic.connected("p0"))
    clinic.send("p0", Mentioned(2))
    assert (await expect(p0, Delivery)).message == Mentioned(2)


async def test_a_server_that_closes_meanwhile(site: Any) -> None:
    p0, _ = await site.endpoints("p0", "clinic")
    p0.show_out("clinic", "clinic is tried")
    await p0.close()
    await asyncio.sleep(0.1)
    await p0.start()
    p0.show_out("clinic", "clinic is tried")


def test_a_clock_fills_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("parties.wire.buckets.time.monotonic", lambda: now)
    bucket = Bucket(3, 2)
    assert [bucket.take(), bucket.take(2), bucket.take()] == [True, True, False]
    now = 1.25
    assert [bucket.take(3), bucket.take(2), bucket.take()] == [False, True, False]
    now = 1e9
    assert [bucket.take(4), bucket.take(3), bucket.take()] == [False, True, False]
