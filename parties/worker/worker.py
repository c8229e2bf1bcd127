"""``Worker``: does the work that its head places on it, and keeps what that reads while it is in use.

It holds no key of its head's, no ledger and no rules: which run may be computed, with which randomness, has been
decided, and written down, when it hears of it.  It is told by its head alone, over a direct link
(`parties.wire.direct`), and meets other parties' workers run by run.  What it knows is gone with it.

Whose worker it is says what work there is: a party's computes runs (`parties.worker.computing`), a dealer's makes
corrections (`parties.worker.dealing`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpc.errors import ConfigurationError, PeerError, ProgramError
from mpc.rings import Rings
from parties.members.cluster import Cluster, Member, Role
from parties.messages.fields import MAX_TEXT
from parties.messages.workers import ABOUT, BEAT, Beat, Settle, Settled
from parties.servers.freed import wiped
from parties.stock.shelf import Shelf
from parties.wire.direct import NO_LIMIT, DirectLink, Doors, LinkKey, dial
from parties.wire.messages import Payload
from parties.worker.computing import Computing
from parties.worker.dealing import DealingWork
from parties.worker.post import Post, Work
from protocols.randomness.dealt import TrustedDealer

if TYPE_CHECKING:
    from mpc.rings.on_torch.wiping import DeviceMemory

log = logging.getLogger(__name__)


class Worker:
    """One of a party's, or of the dealer's.

    Args:
        host: at which others reach it.
        ports: at the first free one of these.
        rings: what it computes with.
        memory: of the card that it computes on.
        stock: the folder in which a party's keeps what is dealt ahead of time; without, its head does.
    """

    def __init__(
        self,
        host: str,
        ports: Sequence[int] = (0,),
        rings: Rings | None = None,
        memory: DeviceMemory | None = None,
        stock: str = "",
    ) -> None:
        self._doors = Doors("worker", host, ports)
        self._source, self._memory, self._stock = TrustedDealer(rings), memory, stock
        self._shelf: Shelf | None = None
        self.key = LinkKey()
        """Of its link with the head."""
        self.does: Work | None = None
        """What it does, once it knows whose it is."""

    async def serve(self, address: str, head: bytes, door: bytes) -> None:
        """Until the head ends it, or is gone.  ``head``: its public key for this link, and the door to come in by.

        Raises PeerError where it cannot be reached, ConfigurationError where this host is not as it says.
        """
        await self._doors.open()
        link = await dial("the head", address, door, self.key.agreed(head, ABOUT, we_dial=True), NO_LIMIT)
        post: Post | None = None
        try:
            message, payload = await link.receive()
            if not isinstance(message, Settle):
                raise ProgramError("the head does not say which cluster this is")
            cluster = _cluster(payload)
            post = Post(cluster, cluster.member(message.member), link, self._doors, self._source)
            shelf, trouble = await self._open_shelf(post.me)
            self.does = does = self._work(post)
            where = self._doors.address, os.getpid(), platform.node()[:255]
            link.send(Settled(*where, shelf, trouble))
            beating = post.spawn(_beat(link))
            if self._memory is not None:
                post.spawn(wiped(self._memory))
            while not beating.done():
                message, payload = await link.receive()
                if isinstance(message, Settle):
                    # Members have come or gone; whose worker this is does not change.
                    post.cluster = _cluster(payload)
                else:
                    does.hear(message, payload)
        except PeerError as error:
            log.info("the head is gone: %s", error)
        finally:
            if self.does is not None:
                self.does.close()
            if post is not None:
                post.close()
            self._doors.close()
            link.close()

    async def _open_shelf(self, me: Member) -> tuple[str, str]:
        """Which it is, or why there is none: the worker can do without."""
        if not self._stock or me.role is not Role.PARTY:
            return "", ""
        try:
            self._shelf = await asyncio.to_thread(Shelf, self._stock, me.name)
        except ConfigurationError as error:
            return "", str(error)[:MAX_TEXT]
        return self._shelf.id, ""

    def _work(self, post: Post) -> Work:
        """As whose worker it is says."""
        return DealingWork(post) if post.me.role is Role.DEALER else Computing(post, shelf=self._shelf)


def _cluster(payload: Payload) -> Cluster:
    return Cluster.loads(bytes(payload[0]).decode(), source="what the head has sent")


async def _beat(link: DirectLink) -> None:
    while True:
        link.send(Beat())
        await link.flush()
        await asyncio.sleep(BEAT)
