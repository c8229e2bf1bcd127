"""What a dealer's worker deals for one run, collected from it by the last party, or by the worker that has the run.

The dealer's head tells the party where (``Source``), and both ends one secret: what goes over the link is theirs to
know.  The head says of each part that it has been dealt, and of none what it is.
"""

from __future__ import annotations

import asyncio

from mpc.errors import PeerLost, ProtocolViolation
from mpc.program import Program
from parties.members.cluster import Cluster
from parties.messages.runs import Source
from parties.messages.workers import PartDealt
from parties.wire.direct import DirectLink, dial, shared_keys
from parties.wire.messages import Message, Payload

ABOUT = b"tessera dealt"
"""What such a link is for."""


class Collecting:
    """Of one run; made in the event loop."""

    def __init__(self, cluster: Cluster, source: Source, program: Program) -> None:
        self._dealer, self._patience = cluster.dealer.name, cluster.settings.round_timeout
        self._source = source
        self._most = max(program.schedule(cluster.settings.security).dealt)
        self._loop = asyncio.get_running_loop()
        self._link: DirectLink | None = None
        self._over = False

    async def part(self) -> Payload:
        """The next one.  Raises PeerLost, ProtocolViolation."""
        try:
            async with asyncio.timeout(self._patience):
                link = self._link = self._link or await self._dial()
                if self._over:
                    link.close()
                message, payload = await self._received(link)
        except TimeoutError:
            raise PeerLost(self._dealer, "has a worker that sent nothing of what it has dealt in time") from None
        if not isinstance(message, PartDealt):
            raise ProtocolViolation(self._dealer, "has a worker that sent something else than what was dealt")
        return payload

    async def _dial(self) -> DirectLink:
        source = self._source
        keys = shared_keys(source.secret, ABOUT)
        return await dial(self._dealer, source.address, source.door, keys, self._most)

    async def _received(self, link: DirectLink) -> tuple[Message, Payload]:
        try:
            return await link.receive()
        except PeerLost:
            raise PeerLost(
                self._dealer, "has lost the worker that dealt for this run, of which nothing was revealed: run it again"
            ) from None

    def wait(self) -> Payload:
        """Likewise.  Blocks: in a thread."""
        return asyncio.run_coroutine_threadsafe(self.part(), self._loop).result()

    def close(self) -> None:
        """Nothing more is wanted.  Idempotent."""
        self._over = True
        if self._link is not None:
            self._link.close()
