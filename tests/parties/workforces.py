"""Parties of a cluster in this process whose runs are on workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from parties.worker.within import Within
from parties.worker.worker import Worker


class Machines(Within):
    """Machines that leave with all workers that are on them, and join again."""

    def __init__(self, wanted: int) -> None:
        super().__init__(wanted)
        self._there = asyncio.Event()
        self.join()

    def join(self) -> None:
        self._there.set()

    def leave(self) -> None:
        self._there.clear()
        for task in self.tasks.values():
            task.cancel()

    async def start(self, number: int, address: str, head: bytes, door: bytes) -> bytes:
        await self._there.wait()
        return await super().start(number, address, head, door)


async def on_workers(site: Any, *names: str, count: int = 2, kind: Callable[[int], Within] = Within) -> dict[str, Any]:
    """From now on these parties, by default all, have so many workers each."""
    names = names or tuple(party.name for party in site.cluster.parties)
    await site.stop(*names)
    site.workforces.update({name: kind(count) for name in names})
    await site.start(*names)
    await all_there(site, *names)
    return {name: site.workforces[name] for name in names}


async def all_there(site: Any, *names: str) -> None:
    """Returns once all workers are."""
    await site.until(lambda: all(len(seen.runs) == seen.wanted for seen in (site.servers[n].workers for n in names)))


def running(site: Any, name: str) -> list[Any]:
    """The workers of a party, as their head knows them."""
    return list(site.servers[name]._engine.crew.workers.values())


class Shelving(Within):
    """Workers with shelves, each one of its own below ``folder``, or all together one."""

    def __init__(self, wanted: int, folder: Path, *, together: bool = False) -> None:
        super().__init__(wanted)
        self.folder, self._together = folder, together

    async def start(self, number: int, address: str, head: bytes, door: bytes) -> bytes:
        own = self.folder if self._together else self.folder / str(number)
        self._make = lambda host: Worker(host, stock=str(own))
        return await super().start(number, address, head, door)

    def lying(self) -> list[Path]:
        """Folders of items, on all shelves."""
        return [path for path in self.folder.rglob("?" * 32) if path.is_dir() and len(path.parent.name) == 32]
