"""Parties of a cluster in this process whose runs are on workers."""

from __future__ import annotations

from typing import Any

from parties.worker.within import Within


async def on_workers(site: Any, *names: str, count: int = 2) -> dict[str, Within]:
    """From now on these parties, by default all, have so many workers each."""
    names = names or tuple(party.name for party in site.cluster.parties)
    await site.stop(*names)
    site.workforces.update({name: Within(count) for name in names})
    await site.start(*names)
    await all_there(site, *names)
    return {name: site.workforces[name] for name in names}


async def all_there(site: Any, *names: str) -> None:
    """Returns once all workers are."""
    await site.until(lambda: all(len(seen.runs) == seen.wanted for seen in (site.servers[n].workers for n in names)))


def running(site: Any, name: str) -> list[Any]:
    """The workers of a party, as their head knows them."""
    return list(site.servers[name]._engine._workers.values())
