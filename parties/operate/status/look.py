"""What a server sees of its own disk and peers, for ``tessera status`` and metrics: looked up once for all who ask."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mpc.errors import PeerError
from parties.host import logs
from parties.messages.status import MAX_PROGRAMS, PREFIX, PeerSeen
from parties.operate.site import Site

FRESH = 1.0
"""s for which what was seen will do for whoever asks next."""

PATIENCE = 1.0
"""s given to the disk, and to peers that are connected, before the rest is told without them."""


@dataclass(frozen=True)
class Seen:
    """``stock``: fresh items by the first `PREFIX` digits of their program, at most `MAX_PROGRAMS`; None: no answer."""

    stock: Mapping[str, int] | None = None
    peers: tuple[PeerSeen, ...] = ()


class Look:
    """One for each server.  However often ``look`` is called, one look is in progress at a time, about one a second."""

    def __init__(self, server: Site) -> None:
        self._server = server
        self._look: asyncio.Task[Mapping[str, int] | None] | None = None
        self._disk: asyncio.Task[Mapping[str, int]] | None = None
        self._ended = float("-inf")

    async def look(self) -> Seen:
        """Stock and round trips as they are, or were within the last `FRESH` s; in `PATIENCE` s at most."""
        look = self._look
        if look is None or (look.done() and time.monotonic() - self._ended > FRESH):
            # For everybody: about no run or client, whoever is the first to ask.
            with logs.about():
                look = self._look = asyncio.get_running_loop().create_task(self._around())
        stock = await asyncio.shield(look)
        return Seen(stock, tuple(map(self._seen, self._peers())))

    async def _around(self) -> Mapping[str, int] | None:
        try:
            stock, _ = await asyncio.gather(self._stock(), asyncio.gather(*map(self._ping, self._peers())))
            return stock
        finally:
            self._ended = time.monotonic()

    def _peers(self) -> list[str]:
        return [peer.name for peer in self._server.cluster.servers if peer != self._server.member]

    async def _ping(self, peer: str) -> None:
        with contextlib.suppress(PeerError):
            await self._server.endpoint.ping(peer, PATIENCE)

    def _seen(self, peer: str) -> PeerSeen:
        endpoint = self._server.endpoint
        return PeerSeen(peer, endpoint.connected(peer), endpoint.round_trip(peer))

    async def _stock(self) -> Mapping[str, int] | None:
        """A disk that hangs costs one thread, however often it is asked; a damaged one is as good as none."""
        if self._disk is None or self._disk.done():
            work = asyncio.to_thread(self._server.fresh_stock)
            self._disk = asyncio.get_running_loop().create_task(work)
        done, _ = await asyncio.wait((self._disk,), timeout=PATIENCE)
        if not done or self._disk.exception() is not None:
            return None
        return by_prefix(self._disk.result())


def by_prefix(stock: Mapping[str, int]) -> Mapping[str, int]:
    """Items by the first digits of their program: of those programs of which there is most."""
    shortened: Counter[str] = Counter()
    for program, count in stock.items():
        shortened[program[:PREFIX]] += count
    return dict(heapq.nlargest(MAX_PROGRAMS, shortened.items(), key=lambda pair: (pair[1], pair[0])))
