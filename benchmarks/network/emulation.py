"""``EmulatedNetwork``: hosts on this machine with links between them, and what these links were measured to do.

::

    with EmulatedNetwork(["client", "dealer", "party0", "party1"]) as network:
        network.shape(Link(40e-3, 100e6))          # everybody: 40 ms there and back, 100 Mbit/s each way
        network.shape(Link(60e-3, 10e6), "client")
        print(network.probe("party0", "party1"))
        with EmulatedCluster(network) as cluster, network.hosts["client"].entered(), Client(cluster) as client:
            ...
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.network.hosts import Host
from mpc.cost import Link
from mpc.errors import UsageError
from parties import LocalCluster
from parties.members.cluster_file import Settings

UNSHAPED = Link(0.0, math.inf)
PORT = 7000
_PROBE_PORT = 7999
_ROUND_TRIPS = 41
_PROBE_SECONDS = 0.6
"""How long a measurement of bandwidth sends at the rate asked for."""
_PROBE_BYTES = (1 << 20, 1 << 28)
"""At least and at most so many."""
_CHUNK = 1 << 18
_CALIBRATED = 1e-3
"""Seconds there and back."""


@dataclass(frozen=True)
class Probe:
    """What a path was measured to do, with TCP between two hosts."""

    round_trip: float
    """Seconds, the median of small messages there and back."""
    bandwidth: float
    """Bits per second of payload, one way, once the connection has picked up speed."""

    def as_asked(self, link: Link, tolerance: float = 0.15) -> bool:
        """Whether it is what ``link`` says, but for headers (5 %), 0.1 ms, and ``tolerance``."""
        slower = self.round_trip > link.round_trip * (1 + tolerance) + 1e-4
        faster = self.round_trip < link.round_trip * (1 - tolerance) - 1e-4
        narrow = self.bandwidth < link.bandwidth * (0.95 - tolerance) and math.isfinite(link.bandwidth)
        wide = self.bandwidth > link.bandwidth * (1 + tolerance)
        return not (slower or faster or narrow or wide)


class EmulatedNetwork:
    """Context manager: ``hosts`` with a wire each and a switch between them; nothing is delayed or limited at first.

    Raises UsageError where this machine has no network namespaces for us (see ``benchmarks.network.hosts``).
    """

    def __init__(self, hosts: Sequence[str], *, seed: int = 0) -> None:
        self._closing = contextlib.ExitStack()
        self._seed = seed
        self._names = list(hosts)
        self.hosts: dict[str, Host] = {}
        self._switch: subprocess.Popen[bytes] | None = None
        self._own_delay = 0.0
        """Seconds one way that the switch takes when it is asked for no delay."""

    def __enter__(self) -> EmulatedNetwork:
        with contextlib.ExitStack() as opened:
            for number, name in enumerate(self._names, 1):
                self.hosts[name] = opened.enter_context(Host(number))
            wires = [host.wire for host in self.hosts.values()]
            named = [f"{host.number}:{host.wire}" for host in self.hosts.values()]
            command = [sys.executable, "-m", "benchmarks.network.switch", "--seed", str(self._seed), *named]
            self._switch = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=wires
            )
            opened.callback(self._end_switch)
            self._calibrate()
            self._closing = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def __repr__(self) -> str:
        return f"<EmulatedNetwork of {', '.join(self._names)}>"

    def _end_switch(self) -> None:
        if self._switch is not None:
            self._switch.kill()
            self._switch.communicate()

    def _calibrate(self) -> None:
        """Find out what delay the switch itself adds to one that is asked for."""
        asked = Link(_CALIBRATED, math.inf)
        self.shape(asked)
        a, b, *_ = self._names
        self._own_delay = max(0.0, self.probe(a, b).round_trip - asked.round_trip) / 2
        self.shape(UNSHAPED)

    def shape(self, link: Link, *hosts: str, loss: float = 0.0, twice: float = 0.0) -> None:
        """Give these hosts (default: all) this link; a packet to or from them is lost with probability ``loss``,
        and comes a second time with probability ``twice``.

        What the switch itself takes is part of the delay.
        """
        for name in hosts or self._names:
            rate = link.bandwidth / 8 if math.isfinite(link.bandwidth) else None
            delay = max(0.0, link.delay - self._own_delay)
            self._command(link=[self.hosts[name].number, delay, rate, loss, twice])

    def cut(self, a: str, b: str) -> None:
        """From now on nothing passes between two hosts: no refusal, no reset, just silence."""
        self._command(cut=[self.hosts[a].number, self.hosts[b].number])

    def heal(self, a: str, b: str) -> None:
        """Undo ``cut``."""
        self._command(heal=[self.hosts[a].number, self.hosts[b].number])

    def report(self) -> dict[str, Any]:
        """What passed since the last report: packets, bytes, and packets that were dropped or doubled."""
        return self._command(report=True)

    def _command(self, **words: Any) -> dict[str, Any]:
        switch = self._switch
        if switch is None or switch.stdin is None or switch.stdout is None or switch.poll() is not None:
            raise UsageError("the emulated network's switch is not running")
        switch.stdin.write(json.dumps(words).encode() + b"\n")
        switch.stdin.flush()
        answer: dict[str, Any] = json.loads(switch.stdout.readline()) or {}
        return answer

    def probe(self, a: str, b: str, rate: float = math.inf) -> Probe:
        """Measure the path from ``a`` to ``b``; about a second.  ``rate``, in bits per second, is what to expect."""
        size = int(np.clip(rate / 8 * _PROBE_SECONDS, *_PROBE_BYTES))
        with self.hosts[b].run(lambda: socket.create_server((self.hosts[b].address, _PROBE_PORT))) as server:
            arrivals: list[tuple[float, int]] = []
            answering = threading.Thread(target=_answer, args=(server, size, arrivals), daemon=True)
            answering.start()
            address = (self.hosts[b].address, _PROBE_PORT)
            with self.hosts[a].run(lambda: socket.create_connection(address, timeout=10)) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                trips = [_round_trip(connection) for _ in range(_ROUND_TRIPS)]
                for start in range(0, size, _CHUNK):
                    connection.sendall(bytes(min(_CHUNK, size - start)))
                answering.join(60)
        if not arrivals or arrivals[-1][1] != size:
            raise UsageError(f"the emulated network lost the connection from {a} to {b}")
        # The first third goes by while TCP finds out how fast it may send.
        first = next(i for i, (_, count) in enumerate(arrivals) if count >= size / 3)
        (begin, before), (end, total) = arrivals[first], arrivals[-1]
        return Probe(float(np.median(trips)), 8 * (total - before) / (end - begin))


def _round_trip(connection: socket.socket) -> float:
    started = time.perf_counter()
    connection.sendall(b"?")
    if connection.recv(1) != b"!":
        raise UsageError("the emulated network does not carry what it should")
    return time.perf_counter() - started


def _answer(server: socket.socket, size: int, arrivals: list[tuple[float, int]]) -> None:
    """Answer the small messages, then note when how much of the large one was there."""
    connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_ROUND_TRIPS):
            connection.recv(1)
            connection.sendall(b"!")
        count = 0
        while count < size:
            got = len(connection.recv(_CHUNK))
            if not got:
                return
            count += got
            arrivals.append((time.perf_counter(), count))


class EmulatedCluster(LocalCluster):
    """A ``LocalCluster`` whose dealer and parties are on hosts of an ``EmulatedNetwork``, named as they are."""

    def __init__(
        self,
        network: EmulatedNetwork,
        parties: int = 2,
        *,
        security: str | None = None,
        settings: Settings | None = None,
        start_timeout: float = 120.0,
        verbose: bool = False,
    ) -> None:
        super().__init__(parties, security=security, settings=settings, start_timeout=start_timeout, verbose=verbose)
        self._network = network

    def _addresses(self, names: Sequence[str]) -> list[str]:
        return [f"{self._network.hosts[name].address}:{PORT}" for name in names]

    def _program(self, name: str) -> list[str]:
        return [*self._network.hosts[name].command(), *super()._program(name)]
