"""Whose work is done next: what keeps one member from crowding out the others.

A free turn goes to the waiting member with the fewest turns, and among those to the one that has had the least time
(start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996).  What a piece of work is expected to take is charged
when it begins, and set right by what it took when it ends: a hundred runs of one client delay another client's by one
piece of work, not by a hundred.  The last free turns are kept for members that have none, so that a long piece of work
delays its own member.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from mpc.errors import ServerBusy
from parties.servers.pace import LONG, Pace

Result = TypeVar("Result")

# Free turns, where there are three or more, that only members who have none are given.
_KEPT = 2

# s of processor time after which work was not short, and how long that is held against its member.
_TOO_LONG, _WHILE = 0.25, 10.0


@dataclass
class _Waiting:
    """A piece of work, and the seconds that it is expected to take."""

    turn: asyncio.Future[None]
    seconds: float


@dataclass
class _Queue:
    """A member's work: how much is being done, what is waiting, and the seconds it has had."""

    had: float = 0.0
    running: int = 0
    waiting: deque[_Waiting] = field(default_factory=deque)


class Turns:
    """Of members, at what ``width`` pieces of work are done of at a time.

    Args:
        server: whose turns they are, for errors.
        patience: s that a piece of work waits for its turn before it is refused.
    """

    def __init__(self, server: str, width: int, patience: float) -> None:
        self._server = server
        self._patience = patience
        self._free = width
        self._kept = min(_KEPT, max(1, width - 1))
        self._queues: dict[str, _Queue] = {}
        self._level = 0.0
        """What the member that began last had had by then: where one begins that comes back."""

    @property
    def waiting(self) -> int:
        """Pieces of work whose turn has not come."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    @contextlib.asynccontextmanager
    async def turn(self, member: str) -> AsyncIterator[None]:
        """Within it is that member's turn, however long it takes to come."""
        queue = await self._begin(member, 0.0, None)
        started = time.monotonic()
        try:
            yield
        finally:
            self._ended(queue, time.monotonic() - started)

    async def in_thread(self, member: str, work: Callable[[], Result]) -> Result:
        """``work()`` in a thread of asyncio's, within that member's ``turn``."""
        async with self.turn(member):
            return await asyncio.to_thread(work)

    async def _begin(self, member: str, seconds: float, patience: float | None) -> _Queue:
        """Returns when it is this member's turn, with ``seconds`` charged to it.  Raises ServerBusy."""
        queue = self._queues.setdefault(member, _Queue())
        if not queue.running and not queue.waiting:
            # Time in which it wanted nothing is not saved up.
            queue.had = max(queue.had, self._level)
        turn = asyncio.get_running_loop().create_future()
        waiting = _Waiting(turn, seconds)
        queue.waiting.append(waiting)
        self._give_turns()
        try:
            async with asyncio.timeout(patience):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._ended(queue, -seconds)
            elif waiting in queue.waiting:
                queue.waiting.remove(waiting)
            if isinstance(error, TimeoutError):
                raise ServerBusy(
                    self._server, f"has been at work for others for {self._patience:g} s: try again later"
                ) from None
            raise
        return queue

    def _ended(self, queue: _Queue, seconds: float) -> None:
        """A turn is over, which took so many seconds more than was charged for it."""
        queue.had += seconds
        queue.running -= 1
        self._free += 1
        self._give_turns()

    def _give_turns(self) -> None:
        while self._free:
            ready = [q for q in self._queues.values() if q.waiting and (self._free > self._kept or not q.running)]
            if not ready:
                return
            queue = min(ready, key=lambda q: (q.running, q.had))
            waiting = queue.waiting.popleft()
            if waiting.turn.cancelled():  # its task is about to notice
                continue
            self._level = queue.had
            queue.had += waiting.seconds
            queue.running += 1
            self._free -= 1
            waiting.turn.set_result(None)


class Workers(Turns):
    """Threads that do the work of several members in turns.

    Args:
        long: those for what takes long, if it is to be done elsewhere: what is short waits for no other member's long
            work then.
        pace: by which it is done.
    """

    def __init__(
        self, server: str, width: int, patience: float, pace: Pace | None = None, long: Workers | None = None
    ) -> None:
        super().__init__(server, width, patience)
        self._pace = Pace() if pace is None else pace
        self._pool = ThreadPoolExecutor(width, thread_name_prefix="tessera-work")
        self._long = long
        self._slow_until: dict[str, float] = {}
        """When what a member calls short is taken at its word again."""

    def close(self) -> None:
        """What has not begun never will."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(
        self,
        member: str,
        work: Callable[[], Result],
        *,
        seconds: float = 0.0,
        patient: bool = False,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Result:
        """``work()`` in a thread, in this member's turn; what it raises is raised.

        ``seconds``: what it is expected to take.  Raises ServerBusy if its turn does not come in time, unless
        ``patient``; TesseraError once it is ``unwanted``.
        """
        if self._long is not None:
            if seconds >= LONG or time.monotonic() < self._slow_until.get(member, 0.0):
                return await self._long.run(member, work, seconds=seconds, patient=patient, unwanted=unwanted)
            work = self._watched(member, work)
        queue = await self._begin(member, seconds, None if patient else self._patience)
        loop, started = asyncio.get_running_loop(), time.monotonic()

        def over(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(self._ended, queue, time.monotonic() - started - seconds)

        def paced() -> Result:
            with self._pace.working(member, seconds, unwanted):
                return work()

        future = self._pool.submit(contextvars.copy_context().run, paced)
        # Not when this task ends, which may be cancelled while the thread is at work.
        future.add_done_callback(over)
        try:
            return await asyncio.wrap_future(future)
        finally:
            # What it raised knows this frame: each would keep the other, and all that the work had in its hands.
            del future

    def _watched(self, member: str, work: Callable[[], Result]) -> Callable[[], Result]:
        """Whoever's short work turns out to be long has it done as such for a while."""

        def watched() -> Result:
            before = time.thread_time()
            try:
                return work()
            finally:
                if time.thread_time() - before > _TOO_LONG:
                    self._slow_until[member] = time.monotonic() + _WHILE

        return watched
