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
from parties.wire.apart import Apart
from parties.wire.data_keys import ChannelKeys, End, Sealer
from parties.wire.messages import ChannelOffered, ChannelWanted, Envelope, Message, Ping, decode

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
        self.sequence = 0
        self.connection: socket.socket

    async def connected(self) -> Member:
        self.rogue.greet()
        self.say(ChannelWanted(_RANDOM))
        offer: Message | None = None
        async with asyncio.timeout(5):
            while not isinstance(offer, ChannelOffered):
                if self.rogue.socket.poll(0):
                    offer = decode(self._server.me.name, self.rogue.socket.recv_multipart())[1]
                await asyncio.sleep(0.002)
        here = End(self._site.keys[self._name].public, self.rogue.incarnation, _RANDOM)
        keys = ChannelKeys.agreed(here, End(self._server.me.key, self._server._incarnation, offer.random))
        self.name, self.sealer = keys.name, Sealer(keys.dialler)
        self.connection = socket.create_connection(("127.0.0.1", offer.port))
        self.connection.sendall(keys.name + self.sealed(b"", keys.name))
        async with asyncio.timeout(5):
            while self._server._link(self._name).receiving is None:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.002)
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
