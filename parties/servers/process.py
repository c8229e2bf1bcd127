"""Start-up and end of a server process: memory, threads, kernels, signals."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import threadpoolctl

import protocols  # noqa: F401 - makes the operations known, whose kernels are warmed up
from mpc.errors import ConfigurationError
from mpc.rings import Rings, compiling, threads
from mpc.rings.devices import memory_on, rings_on
from parties.host.processor import cores
from parties.members.cluster import Cluster, Member, Role
from parties.members.keys import KeyPair
from parties.members.succession import Step, Succession
from parties.operate.cluster.record import ClusterRecord
from parties.operate.metrics.serving import serving
from parties.servers.crew import Workforce
from parties.servers.dealer import DealerServer
from parties.servers.freed import BUSY, Freed, wiped
from parties.servers.host import Host
from parties.servers.party import PartyServer
from parties.servers.service_manager import feed_watchdog, notify
from parties.wire.door import DESCRIPTORS
from parties.wire.socket_wires import SocketWires
from parties.wire.wires import Transport
from protocols.randomness.dealt import TrustedDealer

if TYPE_CHECKING:
    from mpc.rings.on_torch.wiping import DeviceMemory

READY = "ready"
"""Printed on stdout, alone on a line, once a server listens."""

SWITCH_INTERVAL = 5e-4
"""s that a thread of Python's goes on while the event loop waits for its turn: an eighth of a round among parties."""

GRACE = 10.0
"""s that runs in progress are given to end, by default, when a server is asked to stop."""


def tune(count: int) -> None:
    """Keep freed memory in the process, and compute with so many threads (0: as it is).

    glibc hands arrays of some 100 KB back to the kernel when they are freed, and pays for their pages again at the next
    one: several times the cost of the arithmetic on them.  What is too much of it goes back later (`freed`).
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        # Threshold of mmap, of trimming, padding at the top, and the number of arenas: what one thread has freed is
        # there for the next one, and is not kept once more by each.
        for parameter, value in ((-3, 1 << 30), (-1, 1 << 30), (-2, 64 << 20), (-8, 1)):
            libc.mallopt(parameter, value)
    if count:
        # Each computes tiles of its own (`mpc.rings.matrix`): BLAS's would only wait for each other beside them.
        threadpoolctl.threadpool_limits(1)
        threads.use(count)


def raise_descriptor_limit() -> None:
    """As many open files, and so connections, as the system grants this process, up to `DESCRIPTORS`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < granted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))


def threads_for(cluster: Cluster, member: Member) -> int:
    """The cluster file's setting, or all cores divided among the servers that share this one's host."""
    if cluster.settings.threads:
        return cluster.settings.threads
    return max(1, cores() // cluster.servers_beside(member))


def make_server(
    cluster: Cluster,
    member: Member,
    keys: KeyPair,
    folder: str | os.PathLike[str],
    transport: Transport = SocketWires,
    rings: Rings | None = None,
    following: Sequence[Step] = (),
    workforce: Workforce | None = None,
    source: Callable[[Rings | None], TrustedDealer] = TrustedDealer,
) -> DealerServer | PartyServer:
    """The server for that member's role, with its data in ``folder``.

    It goes by ``cluster``, or by what has followed that as far as the folder, or ``following``, says so.  ``rings``:
    what it computes with.  By default the usual; another array library comes in here, and nowhere else.
    ``workforce``: who starts the workers that a party computes on, if it does on such.  ``source``: of randomness, made
    for these rings.

    Raises ConfigurationError for a key that is not its own, or a folder that is not.
    """
    record = ClusterRecord(folder, cluster, following)
    member = current_member(record.succession, member, keys)
    host = Host(record, member, keys, folder, source(rings), transport, workforce)
    return DealerServer(host) if member.role is Role.DEALER else PartyServer(host)


def current_member(succession: Succession, member: Member, keys: KeyPair) -> Member:
    """What has become of the member by now.  Raises ConfigurationError when these keys do not serve it any more."""
    cluster = succession.cluster
    now = next((server for server in cluster.servers if server.name == member.name), None)
    if now is None:
        raise ConfigurationError(f"{member.name} is no server any more, by cluster file {cluster.number}: end it here")
    if now.key != keys.public and succession.holder(keys.public) == now.name:
        raise ConfigurationError(
            f"cluster file {cluster.number} gives {now.name} another key than this one: seal its data folder anew"
            " (tessera cluster rekey) and start it with the new key file"
        )
    return now


def run_server(
    cluster: Cluster,
    member: Member,
    keys: KeyPair,
    folder: str | os.PathLike[str],
    *,
    until_stdin_closes: bool = False,
    grace: float = GRACE,
    metrics: tuple[str, int] | None = None,
    following: Sequence[Step] = (),
    count: int = 0,
    device: str = "",
    workforce: Workforce | None = None,
    source: Callable[[Rings | None], TrustedDealer] = TrustedDealer,
) -> None:
    """Serve until SIGTERM or SIGINT, or until stdin closes: so a launcher's children end with it, however it ends.

    At the first signal nothing new is begun, runs in progress are given ``grace`` s to end, and those left are failed
    with an error that names this server.  A second signal, or the end of stdin, stops at once.

    ``metrics``: host and port at which to answer scrapers; where that is follows `READY` on stdout.

    ``count``: threads to compute with, if not as many as the cluster file says.

    ``workforce``, ``source``: as in ``make_server``.

    ``device``: what torch is to compute on, if not NumPy on the processor.  Raises ConfigurationError where it cannot.
    """
    tune(count or threads_for(cluster, member))
    rings, memory = rings_on(device) if device else None, memory_on(device)
    sys.setswitchinterval(SWITCH_INTERVAL)
    # What is here by now stays: looking for garbage among it again and again would hold everybody up.
    gc.collect()
    gc.freeze()
    raise_descriptor_limit()
    compiling.warm_up()
    again = True
    try:
        while again:
            server = make_server(
                cluster, member, keys, folder, rings=rings, following=following, workforce=workforce, source=source
            )
            asyncio.run(_serve_measured(server, until_stdin_closes, grace, metrics, memory))
            # Another cluster file, under which this process goes on, with a server made for it.
            again = server.succeeding.successor is not None
    finally:
        if memory is not None:
            memory.wipe_all()


async def _serve_measured(
    server: DealerServer | PartyServer,
    until_stdin_closes: bool,
    grace: float,
    metrics: tuple[str, int] | None,
    memory: DeviceMemory | None,
) -> None:
    if memory is not None:
        server.spawn(wiped(memory))
    async with serving(server, metrics) as url:
        await _serve(server, until_stdin_closes, grace, f"metrics at {url}" if url else "")


async def _serve(server: DealerServer | PartyServer, until_stdin_closes: bool, grace: float, notice: str) -> None:
    loop = asyncio.get_running_loop()
    stop, hurry = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (hurry if stop.is_set() else stop).set())
    if until_stdin_closes:
        # A daemon thread: reading stdin must not keep the process alive.
        threading.Thread(target=_await_end_of_stdin, args=(loop, stop, hurry), daemon=True).start()
    serving = loop.create_task(server.serve(), name="tessera server")
    stopping = loop.create_task(stop.wait())
    await asyncio.sleep(0)
    await asyncio.wait({serving, loop.create_task(server.listening.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if server.listening.is_set():
        print(READY, notice, sep="\n" if notice else "", flush=True)
        notify("READY=1")
        server.spawn(feed_watchdog())
        governor = server.governor
        most = min(governor.admission.memory // 2, BUSY)
        freed = Freed(most, quiet=lambda: not (server.jobs or governor.waiting))
        server.spawn(freed.work())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        notify("STOPPING=1")
        leaving = loop.create_task(server.leave(grace), name="tessera leaving")
        await asyncio.wait({serving, leaving, loop.create_task(hurry.wait())}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _await_end_of_stdin(loop: asyncio.AbstractEventLoop, *events: asyncio.Event) -> None:
    with contextlib.suppress(OSError, ValueError):
        # Not through the buffer: its lock, held by a thread that waits, makes the interpreter abort when it exits.
        # There is no stdin for who was started with it closed already.
        while sys.stdin is not None and os.read(sys.stdin.fileno(), 4096):
            pass
    for event in events:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(event.set)
