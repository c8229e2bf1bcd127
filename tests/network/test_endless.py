"""Members whose messages have no end, or too many frames, or who come over and over: memory and files stay bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mpc.errors import ProtocolViolation
from parties.wire import door
from parties.wire.events import Delivery, LinkFault
from parties.wire.messages import MAX_BUFFERS, PIECE, Envelope, Message, encode

from .conftest import until

Expect = Callable[..., Awaitable[Any]]

LIMIT = 16 << 20
"""Bytes of payload that a message may have here; and frames, each within the limit of its own, that are beyond it."""
BEYOND = [bytes(PIECE)] * 32
LOOKED = 0.15
"""s in which connections have been looked at once more."""


class Spoken(Message, frozen=True):
    number: int


@dataclass
class Narrows:
    """A way to a server on which a message stops in its middle: ``most`` bytes, or hardly more, pass, each way."""

    most: int = 1 << 62
    passed: asyncio.Event = field(default_factory=asyncio.Event)
    """So many have been."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    """The rest may follow."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """The connection is over."""
    port: int = 0

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        count = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(PIECE):
                count += len(data)
                writer.write(data)
                await writer.drain()
                if count >= self.most:
                    self.passed.set()
                    await self.opened.wait()
        self.ended.set()
        writer.close()


@contextlib.asynccontextmanager
async def narrows(address: str) -> AsyncIterator[Narrows]:
    way, tasks = Narrows(), set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = address.rpartition(":")
        there, onwards = await asyncio.open_connection(host, int(port))
        tasks.update(map(asyncio.ensure_future, (way.forward(reader, onwards), way.forward(there, writer))))

    server = await asyncio.start_server(connect, "127.0.0.1")
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def small(site: Any) -> Any:
    return site.with_settings(max_message_mb=LIMIT >> 20)


def through(site: Any, way: Narrows, rogue: Any) -> Any:
    """The rogue goes this way from now on."""
    rogue.socket.disconnect(f"tcp://{site.cluster.member('p0').address}")
    rogue.socket.connect(f"tcp://127.0.0.1:{way.port}")
    return rogue


@pytest.mark.parametrize("name", ["clinic", "p1"])
async def test_a_message_without_an_end(small: Any, expect: Expect, name: str) -> None:
    p0 = await small.endpoint("p0")
    async with narrows(small.cluster.member("p0").address) as way:
        way.most = LIMIT + (12 << 20)
        rogue = through(small, way, small.rogue(name, "p0"))
        rogue.greet()
        rogue.say(Spoken(1), 1)
        await expect(p0, Delivery)
        await asyncio.sleep(LOOKED)
        rogue.raw(*encode(Spoken(2), BEYOND, Envelope(rogue.incarnation, 2)))
        fault = await expect(p0, LinkFault)
        assert fault.sender.name == name
        assert isinstance(fault.error, ProtocolViolation)
        assert f"more than a message may have, {LIMIT} bytes" in str(fault.error)
        await asyncio.wait_for(way.ended.wait(), 20)


async def test_a_message_without_an_end_from_a_server(small: Any, expect: Expect) -> None:
    """Also on the way back, which the other end has opened."""
    cluster = small.cluster
    p0, others = cluster.parties[0], cluster.parties[1:]
    async with narrows(p0.address) as way:
        behind = replace(p0, address=f"127.0.0.1:{way.port}", listen=p0.address)
        small = replace(small, cluster=replace(cluster, parties=(behind, *others)))
        server, client = await small.endpoints("p0", "clinic")
        way.most = LIMIT + (12 << 20)
        await asyncio.sleep(LOOKED)
        link = server._link("clinic")
        frames = encode(Spoken(1), BEYOND, Envelope(server._incarnation, link.outgoing))
        assert server._wires.answer(link, link.route, frames)
        fault = await expect(client, LinkFault)
        assert fault.sender.name == "p0"
        assert "no end of it: the connection was cut" in str(fault.error)


async def test_a_message_that_takes_its_time(small: Any, expect: Expect) -> None:
    """The largest that there may be, in as many frames as it may have, and most of it long before the rest."""
    p0 = await small.endpoint("p0")
    async with narrows(small.cluster.member("p0").address) as way:
        way.most = LIMIT - (1 << 19)
        rogue = through(small, way, small.rogue("clinic", "p0"))
        rogue.greet()
        rogue.say(Spoken(1), 1, *[bytes(LIMIT // MAX_BUFFERS)] * MAX_BUFFERS)
        await asyncio.wait_for(way.passed.wait(), 20)
        await asyncio.sleep(3 * LOOKED)
        assert not way.ended.is_set()
        way.opened.set()
        event = await expect(p0, Delivery, LinkFault)
        assert event.message == Spoken(1)
        assert len(event.buffers) == MAX_BUFFERS


async def test_more_frames_than_a_message_has(site: Any, expect: Expect) -> None:
    """They are not kept one by one, each an object; what comes next is read as ever."""
    site = site.with_settings(max_message_mb=1)
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    rogue.raw(*encode(Spoken(1), [b""] * (3 * MAX_BUFFERS), Envelope(rogue.incarnation, 1)))
    assert "sent a message of 0 frames" in str((await expect(p0, LinkFault)).error)
    rogue.say(Spoken(2), 1)
    assert (await expect(p0, Delivery)).message == Spoken(2)


async def crowd(site: Any, p0: Any, expect: Expect) -> list[Any]:
    """More connections than a key may have, each once the one before has been heard of."""
    rogues = [site.rogue("clinic", "p0") for _ in range(door.CONNECTIONS + 3)]
    for number, rogue in enumerate(rogues):
        rogue.incarnation = number.to_bytes(8, "little")
        rogue.greet()
        rogue.say(Spoken(number), 1)
        while (await expect(p0, Delivery)).message != Spoken(number):
            pass
    return rogues


async def test_many_connections_with_one_key(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogues = await crowd(site, p0, expect)
    await until(lambda: len(p0._wires._door._members) <= door.CONNECTIONS)
    assert not any(rogue.socket.closed for rogue in rogues)
    honest = await site.endpoint("p1")
    await honest.connect(["p0"], 20)


async def test_many_connections_with_one_key_before_any_has_ended(
    site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ takes its time: what has been cut already is not taken for what is to be cut."""
    cut = []
    monkeypatch.setattr(door._Connection, "cut", lambda connection: cut.append(connection.route))
    p0 = await site.endpoint("p0")
    await crowd(site, p0, expect)
    assert len(set(cut)) == 3
