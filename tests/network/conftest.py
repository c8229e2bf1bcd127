"""Clusters on loopback for the tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
import zmq

from parties.local.ports import reserved_ports
from parties.members.cluster import Cluster
from parties.members.cluster_file import Settings
from parties.members.keys import KeyPair
from parties.wire.channel import Channel
from parties.wire.events import Event
from parties.wire.messages import ChannelOffered, ChannelWanted, Envelope, Hello, Message, decode, encode
from parties.wire.transport import Endpoint
from parties.wire.version import package_version


@dataclass
class Site:
    """A cluster with everybody's keys at hand."""

    cluster: Cluster
    keys: dict[str, KeyPair]
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def endpoint(self, name: str, *, cluster: Cluster | None = None) -> Endpoint:
        cluster = cluster or self.cluster
        me = cluster.member(name)
        endpoint = Endpoint(cluster, me, self.keys[name], bind=me.is_server)
        return await self.stack.enter_async_context(endpoint)

    async def endpoints(self, *names: str) -> list[Endpoint]:
        made = [await self.endpoint(name) for name in names]
        for one in made:
            await one.connect([n for n in names if n != one.me.name and self.cluster.member(n).is_server], 20)
        return made

    def rogue(self, name: str, at: str) -> Rogue:
        """A hostile process that holds the key of ``name`` and speaks to the server ``at``."""
        rogue = Rogue(self, self.keys[name], at)
        self.stack.callback(rogue.close)
        return rogue

    def with_settings(self, **changes: float) -> Site:
        settings = Settings(**{**_as_dict(self.cluster.settings), **changes})  # type: ignore[arg-type]
        return replace(self, cluster=replace(self.cluster, settings=settings))


def _as_dict(settings: Settings) -> dict[str, float]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


class Rogue:
    """A raw DEALER with a legitimate key, which says whatever the test wants."""

    def __init__(self, site: Site, keys: KeyPair, at: str) -> None:
        self.incarnation = b"rogue..."
        server = site.cluster.member(at)
        self._server = server.name
        self._greeting = Hello(package_version(), site.cluster.fingerprint, 1)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.curve_publickey = keys.curve.encode()
        self.socket.curve_secretkey = keys.secret.encode()
        self.socket.curve_serverkey = server.curve.encode()
        self.socket.connect(f"tcp://{server.address}")

    def greet(self, sequence: int = 0) -> None:
        self.say(self._greeting, sequence)

    def say(self, message: Message, sequence: int, *payload: bytes) -> None:
        self.raw(*encode(message, payload, Envelope(self.incarnation, sequence)))

    def raw(self, *frames: bytes | memoryview) -> None:
        self.socket.send_multipart(frames, copy=True)

    async def offered(self, random: bytes) -> ChannelOffered:
        """Greets, asks for a data channel, and is offered one."""
        self.greet()
        self.say(ChannelWanted(random), 1)
        async with asyncio.timeout(20):
            while True:
                if self.socket.poll(0):
                    answer = decode(self._server, self.socket.recv_multipart())[1]
                    if isinstance(answer, ChannelOffered):
                        return answer
                await asyncio.sleep(0.002)

    def close(self) -> None:
        self._context.destroy(0)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    keys = {name: KeyPair.generate() for name in ("dealer", "p0", "p1", "clinic", "stranger")}
    stack = contextlib.AsyncExitStack()
    dealer, *parties = stack.enter_context(reserved_ports(3))
    cluster = Cluster.build(
        "test",
        dealer=(f"127.0.0.1:{dealer}", keys["dealer"].public),
        parties=[(f"p{i}", f"127.0.0.1:{port}", keys[f"p{i}"].public) for i, port in enumerate(parties)],
        clients=[("clinic", keys["clinic"].public)],
        settings=Settings(peer_timeout=1.0),
    )
    site = Site(cluster, keys, stack)
    async with stack:
        yield site


PATIENCE = 20.0
"""s within which what has to come comes, also on a machine that does much else."""


async def until(condition: Callable[[], object]) -> None:
    """Waits for what nobody tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


async def next_of(endpoint: Endpoint, *kinds: type, within: float = PATIENCE) -> Event:
    """The next event of one of these kinds; others are passed over."""
    async with asyncio.timeout(within):
        while True:
            event = await endpoint.receive()
            if isinstance(event, kinds):
                return event


async def standing(endpoint: Endpoint, peer: str) -> Channel:
    """The data channel for what ``endpoint`` sends to that peer, once it stands."""
    await until(lambda: endpoint._link(peer).sending is not None)
    channel = endpoint._link(peer).sending
    assert channel is not None
    return channel


@pytest.fixture
def expect() -> Callable[..., Awaitable[Event]]:
    return next_of


__all__ = ["Rogue", "Site", "standing", "until"]
