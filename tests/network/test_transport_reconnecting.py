"""Connections that break while both processes live on: what was on its way is lost, and not in silence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from mpc.errors import PeerLost
from parties.local.ports import reserved_ports
from parties.wire.events import Delivery, LinkFault, PeerDown
from parties.wire.messages import Message
from parties.wire.transport import Endpoint

Expect = Callable[..., Awaitable[Any]]


class Scribble(Message, frozen=True):
    text: str


class Relay:
    """Stands in for p0's address and passes everything on to where it listens, until its connections are broken."""

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
        self._open: set[asyncio.StreamWriter] = set()
        self.silent = False
        """Swallow what comes from now on, as a network does that is about to break."""

    async def start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    def break_all(self) -> None:
        self.silent = False
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, away = await asyncio.open_connection("127.0.0.1", self._target)
        self._open |= {writer, away}
        await asyncio.gather(self._pass(reader, away), self._pass(there, writer))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                if not self.silent:
                    target.write(data)
                    await target.drain()


@pytest.fixture
async def relayed(site: Any) -> AsyncIterator[tuple[Relay, Endpoint, Endpoint]]:
    """A relay, p0 behind it, and the clinic, which is connected to it."""
    (port,) = site.stack.enter_context(reserved_ports(1))
    p0, p1 = site.cluster.parties
    site.cluster = replace(site.cluster, parties=(replace(p0, listen=f"127.0.0.1:{port}"), p1))
    relay = Relay(int(p0.address.rpartition(":")[2]), port)
    async with await relay.start():
        server = await site.endpoint("p0")
        clinic = await site.endpoint("clinic")
        await clinic.connect(["p0"], 20)
        yield relay, server, clinic
        relay.break_all()


async def test_what_a_breaking_connection_swallowed_is_reported_at_both_ends(relayed: Any, expect: Expect) -> None:
    relay, p0, clinic = relayed
    clinic.send("p0", Scribble("arrives"))
    assert (await expect(p0, Delivery)).message == Scribble("arrives")
    with clinic.watch(["p0"]):
        relay.silent = True
        clinic.send("p0", Scribble("is lost"))
        await asyncio.sleep(0.1)
        relay.break_all()
        down = await expect(clinic, PeerDown)
        assert isinstance(down.error, PeerLost)
        assert down.error.peer == "p0"
        fault = await expect(p0, LinkFault)
        # Nobody is accused of anything: messages were lost, not forged.
        assert isinstance(fault.error, PeerLost)
        assert "connection broke" in str(fault.error)
    await clinic.connect(["p0"], 20)
    clinic.send("p0", Scribble("arrives again"))
    assert (await expect(p0, Delivery)).message == Scribble("arrives again")


async def test_a_connection_that_breaks_between_runs_hurts_nobody(relayed: Any, expect: Expect) -> None:
    relay, p0, clinic = relayed
    relay.break_all()
    await asyncio.sleep(0.3)
    await clinic.connect(["p0"], 20)
    with clinic.watch(["p0"]):
        clinic.send("p0", Scribble("arrives"))
        event = await expect(p0, Delivery, LinkFault)
        if isinstance(event, LinkFault):
            # A question for a data channel was on its way when the connection broke: told before anything that is new.
            assert isinstance(event.error, PeerLost)
            event = await expect(p0, Delivery, LinkFault)
        assert event.message == Scribble("arrives")
        with pytest.raises(TimeoutError):
            await expect(clinic, PeerDown, within=0.6)
