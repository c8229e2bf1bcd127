"""Three workers or more that have not all seen the same: as `parties.servers.disputes` does among parties.

What is said, and what comes of it, is the same, and goes over the workers' own links: whoever notices says what each
party has signed to it, the others say the same of what was signed to them, and all compare.  A worker's links say
things in order, so its dispute takes the place of the opening that its party would have sent next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from mpc.errors import PeerLost, ProtocolViolation, TesseraError
from parties.members.cluster import Member
from parties.messages.runs import Disputed, Opening
from parties.servers.testimony import Testimony
from parties.wire.direct import DirectLink
from parties.wire.messages import Message

_OPENINGS = 2
"""That a peer may have sent before it has heard of a dispute: it is ahead of us by one round, never by more."""


class Disputing:
    """Of one run; ``patience``: s that a worker is given to say what it has heard."""

    def __init__(
        self, peers: Sequence[Member], links: Mapping[int, DirectLink], testimony: Testimony, patience: float
    ) -> None:
        self._peers, self._links, self._testimony, self._patience = peers, links, testimony, patience
        self._said: dict[str, Disputed] = {}

    @property
    def possible(self) -> bool:
        """Of two, each has heard the other alone; and before all have said what they have seen, there is none."""
        return len(self._peers) > 1 and bool(self._testimony.seen)

    def take(self, peer: Member, message: Message) -> bool:
        """Whether the message is part of a dispute.  Raises ProtocolViolation where there is nothing to dispute."""
        if not isinstance(message, Disputed):
            return False
        if not self.possible or peer.name in self._said:
            raise ProtocolViolation(peer.name, "disputes a run in which there is nothing to dispute")
        self._said[peer.name] = message
        return True

    @property
    def begun(self) -> bool:
        """Whether another one has: who only joins has heard of it from somebody else, who is about to tell us."""
        return not all(message.joined for message in self._said.values())

    async def settle(self, run: str) -> TesseraError:
        """Say what was heard, and compare with what the others say; what it comes to."""
        testimony = self._testimony
        try:
            # Before it is passed on.
            testimony.check_seen()
            message = Disputed(run=run, joined=testimony.agreed, statements=testimony.seen)
            for link in self._links.values():
                link.send(message)
            await asyncio.gather(*map(self._compare, self._peers))
        except TesseraError as error:
            return error
        return testimony.settle()

    async def _compare(self, peer: Member) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._hear(peer)
        except TimeoutError:
            raise PeerLost(
                peer.name,
                f"did not say within {self._patience:g} s what it was sent, when all were not sent the same",
            ) from None
        self._testimony.compare_seen(peer, self._said[peer.name])

    async def _hear(self, peer: Member) -> None:
        openings = 0
        while peer.name not in self._said:
            message, _ = await self._links[peer.index].receive()
            openings += isinstance(message, Opening)
            if not self.take(peer, message) and (not isinstance(message, Opening) or openings > _OPENINGS):
                raise ProtocolViolation(peer.name, "sent something else than what it was sent, which is disputed")
