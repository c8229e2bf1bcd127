"""Whose work is done next, and how much of it is taken on: what keeps one client from crowding out the others.

*Bounds* (``Admission``).  A server takes on a bounded number of runs, and a bounded amount of memory for them, and no
more than a share of either for any one client.  What is beyond is refused at once, as ``ServerBusy``; nothing of it
has been begun.

*Turns* (``Workers``).  Work that takes a thread waits for its turn.  A free turn goes to the waiting client with the
fewest turns, and among those to the one that has had the least time (start-time fair queueing: Goyal, Vin and Cheng,
SIGCOMM 1996; with time as measured): a hundred runs of one client delay another client's by one piece of work, not by
a hundred.  The last free turn is kept for clients that have none, so that a long piece of work delays its own client.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mpc.errors import ProgramError, ServerBusy
from mpc.program import Program
from mpc.security import Security
from parties.cluster import Cluster, Member

Result = TypeVar("Result")

MAX_RUNS = 256
"""In progress or announced at a server."""
MAX_RUNS_PER_CLIENT = 64

BYTES_PER_ELEMENT = {Security.SEMI_HONEST: 20, Security.MALICIOUS: 32}
"""Memory that a run takes at its height, for each of ``Program.elements``; as measured at the dealer, who takes most of
it, if briefly.  A party takes 8 to 11, and 15 to 20 with MACs."""

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Admission:
    """How many runs, and how much memory for them, a server has taken on, and for whom.

    Args:
        server: its name.
        memory: bytes that runs may take in all.
        security: what the bytes of a run depend on.
        shared: whether there are several clients; then one has half of the memory at most.
    """

    def __init__(self, server: str, memory: int, security: Security, *, shared: bool) -> None:
        self._server = server
        self._memory = memory
        self._share = memory // 2 if shared else memory
        self._bytes_per_element = BYTES_PER_ELEMENT[security]
        self._runs: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()

    def begin(self, client: str) -> None:
        """Another run of that client.  Raises ServerBusy."""
        if self._runs[client] >= MAX_RUNS_PER_CLIENT:
            raise ServerBusy(
                self._server, f"{self._runs[client]} runs of {client} are in progress, and a client may have no more: "
                "finish or release some first",
            )  # fmt: skip
        self._runs[client] += 1

    def check_size(self, program: Program) -> int:
        """Bytes that a run of it takes.  Raises ProgramError if no client may ever have so much."""
        size = program.elements * self._bytes_per_element
        if size > self._share:
            raise ProgramError(
                f"a run of this program takes about {size >> 20} MiB, and {self._server} gives a client "
                f"{self._share >> 20}: use smaller batches (`predict` does), or raise memory_mb in the cluster file"
            )
        return size

    def reserve(self, client: str, program: Program) -> int:
        """Sets aside the bytes that a run of it takes, and returns how many.  Raises ServerBusy, ProgramError."""
        size = self.check_size(program)
        free = min(self._share - self._reserved[client], self._memory - self._reserved.total())
        if size > free:
            raise ServerBusy(
                self._server, f"it has {max(0, free) >> 20} MiB left for runs of {client}, and this one takes about "
                f"{size >> 20}: try again when others have ended",
            )  # fmt: skip
        self._reserved[client] += size
        return size

    def end(self, client: str, reserved: int) -> None:
        """A run that was begun is over, and gives back what was set aside for it."""
        self._runs[client] -= 1
        self._reserved[client] -= reserved


def memory_for_runs(cluster: Cluster, member: Member) -> int:
    """Bytes: the cluster file's setting, or half of the host's memory divided among the servers on that host."""
    if cluster.settings.memory_mb:
        return cluster.settings.memory_mb << 20
    return _host_memory() // (2 * cluster.servers_beside(member))


def _host_memory() -> int:
    """Bytes of memory, of this machine or of the container that we are in."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such container, or no limit
        return physical


@dataclass
class _Queue:
    """A client's work: how much is being done, what is waiting, and the seconds it has had."""

    had: float = 0.0
    running: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Workers:
    """Threads that do the work of several clients in turns.

    Args:
        server: whose they are, for errors.
        width: how many turns at a time, at least 2.
        patience: s that a piece of work waits for its turn before it is refused.
    """

    def __init__(self, server: str, width: int, patience: float) -> None:
        self._server = server
        self._patience = patience
        self._free = width
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="tessera-work")
        self._queues: dict[str, _Queue] = {}
        self._level = 0.0
        """What the client that began last had had by then: where one begins that comes back."""

    @property
    def waiting(self) -> int:
        """Pieces of work whose turn has not come."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    def close(self) -> None:
        """What has not begun never will."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, client: str, work: Callable[[], Result], *, patient: bool = False) -> Result:
        """``work()`` in a thread, in this client's turn; what it raises is raised.

        Raises ServerBusy if its turn does not come in time, unless ``patient``.
        """
        queue = self._queues.setdefault(client, _Queue())
        await self._turn(queue, None if patient else self._patience)
        loop, started = asyncio.get_running_loop(), time.monotonic()

        def over(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._ended, queue, time.monotonic() - started)

        future = self._pool.submit(contextvars.copy_context().run, work)
        # Not when this task ends, which may be cancelled while the thread is at work.
        future.add_done_callback(over)
        return await asyncio.wrap_future(future)

    async def _turn(self, queue: _Queue, patience: float | None) -> None:
        if not queue.running and not queue.waiting:
            # Time in which it wanted nothing is not saved up.
            queue.had = max(queue.had, self._level)
        turn = asyncio.get_running_loop().create_future()
        queue.waiting.append(turn)
        self._give_turns()
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._ended(queue, 0.0)
            elif turn in queue.waiting:
                queue.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise ServerBusy(
                    self._server, f"has been at work for others for {self._patience:g} s: try again later"
                ) from None
            raise

    def _ended(self, queue: _Queue, seconds: float) -> None:
        queue.had += seconds
        queue.running -= 1
        self._free += 1
        self._give_turns()

    def _give_turns(self) -> None:
        while self._free:
            ready = [q for q in self._queues.values() if q.waiting and (self._free > 1 or not q.running)]
            if not ready:
                return
            queue = min(ready, key=lambda q: (q.running, q.had))
            turn = queue.waiting.popleft()
            if turn.cancelled():  # its task is about to notice
                continue
            self._level = queue.had
            queue.running += 1
            self._free -= 1
            turn.set_result(None)
