"""Parties of a cluster in this process whose runs are on workers."""

from __future__ import annotations

import asyncio
from typing import Any

from parties.worker.within import Within


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


async def on_workers(site: Any, *names: str, count: int = 2, kind: type[Within] = Within) -> dict[str, Any]:
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
