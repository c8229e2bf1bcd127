"""A cluster within this process: real sockets and keys, one event loop, and every server's tables at hand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mpc import kernels
from parties import AsyncClient, Cluster, KeyPair, Settings
from parties.messages import Message
from parties.process import make_server

Change = Callable[[Any, list[Any]], Sequence[tuple[Message, Sequence[Any]]]]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


@dataclass
class Site:
    cluster: Cluster
    keys: dict[str, KeyPair]
    servers: dict[str, Any]

    def client(self, name: str = "clinic") -> AsyncClient:
        return AsyncClient(self.cluster, self.keys[name])

    def corrupt(self, server: str, kind: type[Message], change: Change) -> None:
        """From now on ``server`` sends what ``change(message, buffers)`` makes of each message of that kind."""
        endpoint = self.servers[server].endpoint
        honest = type(endpoint).send

        def send(peer: str, message: Message, buffers: Sequence[Any] = (), **options: Any) -> int:
            if not isinstance(message, kind):
                return honest(endpoint, peer, message, buffers, **options)
            return sum(honest(endpoint, peer, *said, **options) for said in change(message, list(buffers)))

        endpoint.send = send

    def restore(self, server: str) -> None:
        self.servers[server].endpoint.__dict__.pop("send", None)

    def overhear(self, server: str, heard: list[bytes]) -> None:
        """Collects all payload that ``server`` sends from now on."""

        def listen(message: Message, buffers: list[Any]) -> Sequence[tuple[Message, Sequence[Any]]]:
            heard.extend(bytes(buffer) for buffer in buffers)
            return [(message, buffers)]

        self.corrupt(server, Message, listen)

    async def settled(self) -> None:
        """Waits until no server has a run in progress."""
        await self.until(lambda: not any(server.jobs for server in self.servers.values()))

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - the servers know nothing of being watched
                await asyncio.sleep(0.01)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A dealer, two parties, and keys for the clients ``clinic`` and ``company``."""
    kernels.warm_up()
    keys = {name: KeyPair.generate() for name in ("dealer", "party0", "party1", "clinic", "company")}
    ports = free_ports(3)
    cluster = Cluster.build(
        "within",
        dealer=(f"127.0.0.1:{ports[0]}", keys["dealer"].public),
        parties=[(f"party{i}", f"127.0.0.1:{ports[i + 1]}", keys[f"party{i}"].public) for i in range(2)],
        clients=[(name, keys[name].public) for name in ("clinic", "company")],
        settings=Settings(threads=1, peer_timeout=1.5, round_timeout=1.5),
    )
    servers = {m.name: make_server(cluster, m, keys[m.name], tmp_path / m.name) for m in cluster.servers}
    tasks = [asyncio.create_task(server.serve()) for server in servers.values()]
    try:
        yield Site(cluster, keys, servers)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
