"""Workers within the process of their head: for tests and simulations."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from mpc.errors import TesseraError
from parties.worker.worker import Worker

_HOST = "127.0.0.1"


class Within:
    """A `parties.servers.crew.Workforce` of tasks; links are real, and sealed.

    Args:
        wanted: how many workers.
        make: a worker that others reach at this host.
    """

    host = _HOST

    def __init__(self, wanted: int, make: Callable[[str], Worker] = Worker) -> None:
        self.wanted, self._make = wanted, make
        self.workers: dict[int, Worker] = {}
        """By number, those that are there."""
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def start(self, number: int, address: str, head: bytes, door: bytes) -> bytes:
        self.workers[number] = worker = self._make(_HOST)
        self.tasks[number] = asyncio.get_running_loop().create_task(worker.serve(address, head, door))
        return worker.key.public

    async def end(self, number: int) -> None:
        task = self.tasks.pop(number, None)
        self.workers.pop(number, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, TesseraError):
                await task

    def close(self) -> None:
        for task in self.tasks.values():
            task.cancel()
