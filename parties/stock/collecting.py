"""What a dealer's worker deals, collected from it by the last party, or by the worker of it that has the run.

The dealer's head tells the party where (``Source``), and both ends one secret: what goes over the link is theirs to
know.  The head says of each part that it has been dealt, and of none what it is.
"""

from __future__ import annotations

import asyncio

from mpc.errors import PeerLost, ProtocolViolation
from parties.members.cluster import Cluster
from parties.messages.runs import Source
from parties.messages.workers import PartDealt
from parties.wire.direct import DirectLink, dial, shared_keys
from parties.wire.messages import Message, Payload, payload_bytes

ABOUT = b"tessera dealt"
"""What such a link is for."""


class Collecting:
    """Of one dealing; made in the event loop.  ``wanted``: for what it is, in an error."""

    def __init__(self, cluster: Cluster, source: Source, wanted: str = "this run") -> None:
        self._dealer, self._patience = cluster.dealer.name, cluster.settings.round_timeout
        self.source, self._wanted = source, wanted
        self._loop = asyncio.get_running_loop()
        self._link: DirectLink | None = None
        self._over = False

    async def part(self, size: int) -> Payload:
        """The next one, of so many bytes.  Raises PeerLost, ProtocolViolation."""
        try:
            async with asyncio.timeout(self._patience):
                link = self._link = self._link or await self._dial()
                if self._over:
                    link.close()
                message, payload = await self._received(link, size)
        except TimeoutError:
            raise PeerLost(self._dealer, "has a worker that sent nothing of what it has dealt in time") from None
        if not isinstance(message, PartDealt) or payload_bytes(payload) != size:
            raise ProtocolViolation(self._dealer, "has a worker that sent something else than what was dealt")
        return payload

    async def _dial(self) -> DirectLink:
        source = self.source
        return await dial(self._dealer, source.address, source.door, shared_keys(source.secret, ABOUT), 0)

    async def _received(self, link: DirectLink, size: int) -> tuple[Message, Payload]:
        try:
            return await link.receive(size)
        except PeerLost:
            raise PeerLost(
                self._dealer,
                f"has lost the worker that dealt for {self._wanted}, of which nothing was revealed: run it again",
            ) from None

    def wait(self, size: int) -> Payload:
        """Likewise.  Blocks: in a thread."""
        return asyncio.run_coroutine_threadsafe(self.part(size), self._loop).result()

    def close(self) -> None:
        """Nothing more is wanted.  Idempotent."""
        self._over = True
        if self._link is not None:
            self._link.close()
