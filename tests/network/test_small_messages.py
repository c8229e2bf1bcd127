"""Members who send little, and often: it takes no more of a server than what it is worth."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from mpc.errors import PeerUnavailable
from parties.wire.apart import LARGE, Apart
from parties.wire.data_keys import ChannelKeys, End, Sealer
from parties.wire.events import Delivery, LinkFault
from parties.wire.messages import Envelope, Message, Ping, encode

from .conftest import standing, until

Expect = Callable[..., Awaitable[Any]]
_RANDOM = b"r" * 32


class Large(Message, frozen=True):
    number: int
    of: str = ""

    @property
    def lane(self) -> str:
        return self.of


class Member:
    """A rogue with a member's key, and a data channel of its own."""

    def __init__(self, site: Any, server: Any, name: str) -> None:
        self._site, self._server, self._name = site, server, name
        self.rogue = site.rogue(name, server.me.name)
        self.sequence = 1
        """Of its last message, once it has greeted and asked for a channel."""
        self.connection: socket.socket

    async def connected(self) -> Member:
        offer = await self.rogue.offered(_RANDOM)
        here = End(self._site.keys[self._name].public, self.rogue.incarnation, _RANDOM)
        keys = ChannelKeys.agreed(here, End(self._server.me.key, self._server._incarnation, offer.random))
        self.name, self.sealer = keys.name, Sealer(keys.dialler)
        self.connection = socket.create_connection(("127.0.0.1", offer.port))
        self.connection.sendall(keys.name + self.sealed(b"", keys.name))
        await until(lambda: self._server._link(self._name).receiving is not None)
        return self

    def sealed(self, data: bytes, binding: bytes) -> bytes:
        out = bytearray(len(data) + 64)
        return bytes(out[: self.sealer.seal(data, binding, memoryview(out))])

    def say(self, message: Message) -> None:
        self.sequence += 1
        self.rogue.say(message, self.sequence)

    def announce(self, message: Message, *buffers: bytes) -> Apart:
        """Without what it announces."""
        self.sequence += 1
        apart = Apart.of(message, buffers, Envelope(self.rogue.incarnation, self.sequence), self.name)
        self.rogue.raw(*apart.frames)
        return apart


async def turns_of(server: Any, seconds: float) -> int:
    """How often another task has its turn while the server waits for what does not come."""
    turns = 0
    until = time.monotonic() + seconds

    async def count() -> None:
        nonlocal turns
        while time.monotonic() < until:
            await asyncio.sleep(0.005)
            turns += 1

    # Whoever holds the event loop up for ever is to fail, not to hang.
    rescue = threading.Timer(seconds + 2, lambda: setattr(server, "_running", False))
    rescue.start()
    with server.low_latency():
        counting = asyncio.create_task(count())
        receiving = asyncio.create_task(server.receive())
        await asyncio.wait((counting,))
        receiving.cancel()
        with contextlib.suppress(asyncio.CancelledError, PeerUnavailable):
            await receiving
    rescue.cancel()
    server._running = True
    return turns


async def test_pings_do_not_hold_a_waiting_server_up(site: Any) -> None:
    server = await site.endpoint("p0")
    member = await Member(site, server, "clinic").connected()
    for _ in range(9_000):
        member.say(Ping(1))
    assert await turns_of(server, 0.3) > 10


async def test_a_fault_keeps_nothing_of_the_message(site: Any, expect: Expect) -> None:
    """However many wait to be heard of: each would hold what it complains of, and nobody has counted that."""
    server = await site.endpoint("p0")
    member = await Member(site, server, "clinic").connected()
    member.name = bytes(16)
    member.announce(Large(1), bytes(LARGE))
    member.rogue.raw(*encode(Large(2), (), Envelope(member.rogue.incarnation, 0)))
    member.rogue.raw(b"rubbish", b"")
    for complaint in ("data connection broke", "repeated message 0", "not a Tessera message"):
        error = (await expect(server, LinkFault)).error
        assert complaint in str(error)
        assert (error.__traceback__, error.__context__, error.__cause__) == (None, None, None)


async def test_what_waits_is_bounded_in_buffers_too(site: Any, expect: Expect) -> None:
    """Empty ones weigh nothing on a wire, and in memory a kilobyte each; those of what is announced are joined."""
    server = await site.endpoint("p0")
    member = await Member(site, server, "clinic").connected()
    apart = member.announce(Large(1), bytes(LARGE), *[b""] * 1000, b"x")
    assert (await settled(server, member))._bytes < 20_000
    for number in range(2, 5):
        member.sequence += 1
        envelope = Envelope(member.rogue.incarnation, member.sequence)
        member.rogue.raw(*encode(Large(number), [b""] * 4000, envelope))
    error = (await expect(server, LinkFault)).error
    assert "more behind a large message than may wait" in str(error)
    member.connection.sendall(member.sealed(apart.large[0], apart.binding))
    event = await expect(server, Delivery)
    assert [len(buffer) for buffer in event.buffers] == [LARGE, *[0] * 1000, 1]
    assert bytes(event.buffers[-1]) == b"x"


async def settled(server: Any, member: Member) -> Any:
    """The lanes of a member all of whose messages have been read."""
    async with asyncio.timeout(20):
        while server._link("clinic").expected <= member.sequence:
            server._wires.read()
            await asyncio.sleep(0.002)
    return server._link("clinic").lanes


async def test_an_honest_sender_of_many_buffers_is_not_blamed(site: Any, expect: Expect) -> None:
    """Of several large messages at once, such as what is dealt for several runs."""
    a, b = await site.endpoints("p0", "p1")
    await standing(a, "p1")
    channel = b._link("p0").receiving
    channel._has_room = lambda: False
    buffers = [bytes(20 * LARGE), *[bytes(LARGE - 1)] * 30]
    for number in range(4):
        a.send("p1", Large(number, str(number)), buffers)
    await asyncio.sleep(0.1)
    b._wires.read()
    channel._has_room = lambda: True
    channel.read()
    for _ in range(4):
        event = await expect(b, Delivery, LinkFault)
        assert isinstance(event, Delivery), event
        assert [len(buffer) for buffer in event.buffers] == list(map(len, buffers))
