"""A cluster within this process: no sockets, one event loop, and every server's tables at hand."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mpc import schedule
from mpc.rings import compiling
from mpc.security import Security
from parties import AsyncClient, Cluster, KeyPair, Settings
from parties.local.ports import reserved_ports
from parties.servers.process import make_server
from parties.wire.memory import MemoryNetwork
from parties.wire.messages import Message
from parties.wire.socket_wires import SocketWires
from parties.wire.transport import Endpoint
from parties.wire.wires import Transport

# Importable by name, as everything that many test modules share.
_spec = importlib.util.spec_from_file_location("cheats", Path(__file__).with_name("cheats.py"))
_module = importlib.util.module_from_spec(_spec)  # type: ignore[arg-type]
sys.modules["cheats"] = _module
_spec.loader.exec_module(_module)  # type: ignore[union-attr]

Change = Callable[[Any, list[Any]], Sequence[tuple[Message, Sequence[Any]]]]


ROUND_TIMEOUT = 1.5
"""s: some twenty tests wait until it is over."""


@dataclass
class Site:
    cluster: Cluster
    keys: dict[str, KeyPair]
    folder: Path
    transport: Transport
    servers: dict[str, Any] = field(default_factory=dict)
    workforces: dict[str, Any] = field(default_factory=dict)
    """Of parties that compute on workers."""
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Of what is to be let go once all servers have stopped."""

    async def start(self, *names: str) -> None:
        """Starts these servers, on the data that is there."""
        for name in names:
            server = make_server(
                self.cluster,
                self.cluster.member(name),
                self.keys[name],
                self.data(name),
                self.transport,
                workforce=self.workforces.get(name),
            )
            self.servers[name], self.tasks[name] = server, asyncio.create_task(server.serve())
        for name in names:
            await self.servers[name].listening.wait()

    async def stop(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await asyncio.gather(*(self.tasks.pop(name) for name in names), return_exceptions=True)

    async def restart(self, *names: str) -> None:
        await self.stop(*names)
        await self.start(*names)

    def data(self, name: str) -> Path:
        """A server's data folder."""
        return self.folder / name

    def client(self, name: str = "clinic") -> AsyncClient:
        return AsyncClient(self.cluster, self.keys[name], transport=self.transport)

    def endpoint(self, name: str) -> Endpoint:
        """Of a client that says what it likes."""
        return Endpoint(self.cluster, self.cluster.member(name), self.keys[name], bind=False, transport=self.transport)

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

    def overhear(self, server: str, heard: list[bytes], kind: type[Message] = Message) -> None:
        """Collects all payload that ``server`` sends from now on, in messages of that kind."""

        def listen(message: Message, buffers: list[Any]) -> Sequence[tuple[Message, Sequence[Any]]]:
            heard.extend(bytes(buffer) for buffer in buffers)
            return [(message, buffers)]

        self.corrupt(server, kind, listen)

    async def settled(self) -> None:
        """Waits until no server has a run in progress."""
        await self.until(lambda: not any(server.jobs for server in self.servers.values()))

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not condition():  # noqa: ASYNC110 - the servers know nothing of being watched
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def opened(
    folder: Path,
    security: Security,
    parties: int = 2,
    transport: Transport | None = None,
    clients: Sequence[str] = ("clinic", "company"),
    settings: Settings | None = None,
) -> AsyncIterator[Site]:
    compiling.warm_up()
    names = [f"party{i}" for i in range(parties)]
    keys = {name: KeyPair.generate() for name in ("dealer", *names, *clients)}
    stack = contextlib.ExitStack()
    dealer, *ports = stack.enter_context(reserved_ports(parties + 1))
    cluster = Cluster.build(
        "within",
        dealer=(f"127.0.0.1:{dealer}", keys["dealer"].public),
        parties=[(name, f"127.0.0.1:{port}", keys[name].public) for name, port in zip(names, ports, strict=True)],
        clients=[(name, keys[name].public) for name in clients],
        settings=settings or Settings(threads=1, peer_timeout=1.5, round_timeout=ROUND_TIMEOUT, security=security),
    )
    site = Site(cluster, keys, folder, transport or MemoryNetwork(), stack=stack)
    try:
        await site.start(*(server.name for server in cluster.servers))
        yield site
    finally:
        await site.stop(*site.tasks)
        stack.close()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any of those below: what is dealt for large programs may take long, on a busy machine."""
    monkeypatch.setattr(sys.modules[__name__], "ROUND_TIMEOUT", 10.0)


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of some layers are dealt in several parts."""
    monkeypatch.setattr(schedule, "PART", 4000)
    monkeypatch.setattr(schedule, "AHEAD", 12_000)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A dealer, two parties, and keys for the clients ``clinic`` and ``company``."""
    async with opened(tmp_path, Security.SEMI_HONEST) as site:
        yield site


@pytest.fixture
async def wired(tmp_path: Path) -> AsyncIterator[Site]:
    """As ``site``, over real sockets with real keys."""
    async with opened(tmp_path, Security.SEMI_HONEST, transport=SocketWires) as site:
        yield site


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Site]:
    """As ``wired``, with time for large models: nobody is at fault who takes long on a busy machine."""
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=20)
    async with opened(tmp_path, Security.SEMI_HONEST, transport=SocketWires, settings=settings) as site:
        yield site


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Site]:
    """As ``site``, in malicious security."""
    async with opened(tmp_path, Security.MALICIOUS) as site:
        yield site


@pytest.fixture
async def strict3(tmp_path: Path) -> AsyncIterator[Site]:
    """As ``strict``, with three parties."""
    async with opened(tmp_path, Security.MALICIOUS, 3) as site:
        yield site


@pytest.fixture(params=[2, 3])
async def strict_any(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """As ``strict``, with two parties and with three."""
    async with opened(tmp_path, Security.MALICIOUS, request.param) as site:
        yield site


@pytest.fixture(params=itertools.product([Security.SEMI_HONEST, Security.MALICIOUS], [2, 3]), ids=str)
async def every(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """As ``site``, in both kinds of security, with two parties and with three."""
    async with opened(tmp_path, *request.param) as site:
        yield site


@pytest.fixture(params=[Security.SEMI_HONEST, Security.MALICIOUS], ids=str)
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """As ``site``, in both kinds of security."""
    async with opened(tmp_path, request.param) as site:
        yield site
