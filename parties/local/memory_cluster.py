"""``MemoryCluster``: dealer, parties and clients in one process, for tests and notebooks."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future

from mpc.errors import UsageError
from mpc.rings import Rings, compiling
from parties.local.cheating import cheating
from parties.members.cluster_file import Settings
from parties.members.keys import KeyPair
from parties.servers.party import PartyServer
from parties.servers.process import make_server
from parties.trial import TrialCluster
from parties.unclosed import closed, opened
from parties.wire.memory import MemoryNetwork


class MemoryCluster(TrialCluster):
    """Context manager: a dealer and ``parties`` parties in a thread of this process.

    >>> with MemoryCluster(parties=2, security="malicious") as cluster, Client(cluster) as client:
    ...     print(client.reveal(client.share([1.0, 2.0]) ** 2))

    It starts in milliseconds, needs no ports, and runs the code of real servers, every message encoded, numbered and
    checked.  What it is not: there are no processes and no sockets, so nothing is encrypted on its way, no server can
    be killed or frozen alone, and all share one interpreter and its speed.  Whoever holds the process holds everything,
    secrets included; ``LocalCluster`` has processes, and only separate hosts keep secrets.

    Args:
        parties: how many, at least 2.
        security: ``"semi-honest"`` (the default, unless ``settings`` say otherwise) or ``"malicious"``.
        clients: names of the clients that are given keys; the first is the default client.
        settings: of the cluster file.
        rings: what all of them compute with, by default the usual.

    Raises UsageError for fewer than two parties, no clients, or a security that does not exist.
    """

    def __init__(
        self,
        parties: int = 2,
        *,
        security: str | None = None,
        clients: tuple[str, ...] = ("client",),
        settings: Settings | None = None,
        rings: Rings | None = None,
    ) -> None:
        super().__init__(parties, security=security, clients=clients, settings=settings)
        if rings is not None:
            self.rings = rings
        self.transport: MemoryNetwork = MemoryNetwork()
        self._thread: threading.Thread | None = None
        self._stop: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._party_servers: dict[str, PartyServer] = {}

    def __repr__(self) -> str:
        state = "running" if self._thread is not None else "not running"
        return f"<MemoryCluster of {self._parties} parties, {self._settings.security}, {state}>"

    def _start(self) -> None:
        compiling.warm_up()
        # No ports: one host, whose name says why nobody else will find it.
        keys = self._gather([f"memory:{number}" for number in range(1, self._parties + 2)])
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(keys, started)), name="tessera servers", daemon=True
        )
        self._thread.start()
        opened(self)
        started.result()

    async def _serve(self, keys: dict[str, KeyPair], started: Future[None]) -> None:
        stop = asyncio.Event()
        self._stop = asyncio.get_running_loop(), stop
        with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
            tasks: list[asyncio.Task[None]] = []
            try:
                for member in self._cluster.servers:
                    data = f"{folder}/{member.name}"
                    server = make_server(self._cluster, member, keys[member.name], data, self.transport, self.rings)
                    if isinstance(server, PartyServer):
                        self._party_servers[member.name] = server
                    tasks.append(asyncio.create_task(server.serve(), name=f"tessera {member.name}"))
                    await server.listening.wait()
                started.set_result(None)
                await stop.wait()
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @contextlib.contextmanager
    def cheating(self, party: str, by: float = 1.0) -> Iterator[None]:
        """Meanwhile this party, ``"party0"`` and so on, cheats: what it tells of results makes each ``by`` more.

        To see what a party can do that does not keep to the protocol: in semi-honest security the client gets that
        result; with MACs it gets ``MacCheckError``.  Raises UsageError.
        """
        self._check_running()
        if party not in self._party_servers:
            raise UsageError(f"no party is called {party!r}: there are {', '.join(self._party_servers)}")
        with cheating(self._party_servers[party], by, self.rings):
            yield

    def close(self) -> None:
        """End the servers, and remove what they have written.  Idempotent."""
        closed(self)
        if self._stop is not None:
            loop, stop = self._stop
            loop.call_soon_threadsafe(stop.set)
            self._stop = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._party_servers.clear()
        self.client_keys.clear()
