"""What is done to the servers and clients of a soak: killed, frozen, stopped, and started again after a while."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import Sequence

from benchmarks.soak.attempts import Outage
from benchmarks.soak.crowd import Crowd
from benchmarks.soak.watching import ending
from mpc.errors import PeerError
from parties import LocalCluster
from parties.servers.process import GRACE
from parties.servers.server import LAST_WORDS

DOWN = (0.1, 3.0)
"""s that a server stays away, at least and at most, before it is started again."""

FROZEN = (1.2, 2.5)
"""As long as a server is frozen, in multiples of ``peer_timeout``: longer than peers wait."""

CLIENTS = 0.2
"""The part of faults that is a client's."""

TOGETHER = 0.2
"""The part of servers' faults that is of two at once."""

STOPPING = GRACE + LAST_WORDS + 5.0
"""s that a server may take to end after SIGTERM."""


class Chaos:
    """Does it at random moments, chosen by ``seed``.

    Args:
        cluster: whose servers.
        crowd: whose clients.
        clients: their names.
        faults: kinds, of ``command.FAULTS``.
        every: s from one fault's end to the next one's begin, on average.
        seed: of all choices.
        began: the time, as ``time.monotonic`` has it, from which times are counted.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        crowd: Crowd,
        clients: Sequence[str],
        faults: Sequence[str],
        every: float,
        seed: int,
        began: float,
    ) -> None:
        self.outages: list[Outage] = []
        self.problems: list[str] = []
        """Servers that did not end, or did not start, as they should."""
        self.down: set[str] = set()
        """What is down now."""
        self._cluster, self._crowd, self._clients = cluster, crowd, clients
        self._faults, self._every, self._began = faults, every, began
        self._choice = random.Random(seed)  # noqa: S311 - nothing secret
        self._frozen = cluster.cluster.settings.peer_timeout

    async def rage(self, spared: str, struck: asyncio.Event, over: asyncio.Event) -> None:
        """One fault after the other until ``over``; of all servers but ``spared``.  All are up when it returns.

        ``struck`` is set when the first server is about to be harmed.
        """
        servers = [name for name in self._cluster.processes if name != spared]
        while not await _within(over, self._choice.expovariate(1 / self._every)):
            if self._choice.random() < CLIENTS:
                await self._kill_client(self._choice.choice(self._clients))
                continue
            count = 2 if len(servers) > 1 and self._choice.random() < TOGETHER else 1
            victims = [(name, self._choice.choice(self._faults)) for name in self._choice.sample(servers, count)]
            struck.set()
            await asyncio.gather(*(self._harm(name, fault) for name, fault in victims))

    async def look(self) -> None:
        """Servers that have ended though nobody did anything to them are a problem; they are started again."""
        for name, process in list(self._cluster.processes.items()):
            code = process.poll()
            if code is not None and name not in self.down:
                self.problems.append(f"{name} ended by itself, with {ending(code)}: {self._cluster.log_tail(name)}")
                self.down.add(name)
                try:
                    await asyncio.to_thread(self._cluster.start_process, name)
                finally:
                    self.down.discard(name)

    async def _kill_client(self, name: str) -> None:
        began = self._now()
        await self._crowd.kill(name)
        self.outages.append(Outage(name, "kill", began, self._now()))

    async def _harm(self, name: str, fault: str) -> None:
        away, began = self._choice.uniform(*DOWN), self._now()
        frozen = self._frozen * self._choice.uniform(*FROZEN)
        process = self._cluster.processes[name]
        self.down.add(name)
        try:
            if fault == "freeze":
                process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(frozen)
                process.send_signal(signal.SIGCONT)
            else:
                process.send_signal(signal.SIGKILL if fault == "kill" else signal.SIGTERM)
                await asyncio.to_thread(self._await_end, name, process)
                await asyncio.sleep(away)
                await asyncio.to_thread(self._cluster.start_process, name)
        except PeerError as error:
            self.problems.append(f"after a {fault}: {error}")
        finally:
            self.down.discard(name)
            self.outages.append(Outage(name, fault, began, self._now()))

    def _await_end(self, name: str, process: subprocess.Popen[bytes]) -> None:
        try:
            code = process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            self.problems.append(f"{name} has not stopped within {STOPPING:g} s of SIGTERM")
            return
        if code not in (0, -signal.SIGKILL):
            self.problems.append(f"{name} ended with {ending(code)} after SIGTERM: {self._cluster.log_tail(name)}")

    def _now(self) -> float:
        return time.monotonic() - self._began


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Whether it is set by then."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
