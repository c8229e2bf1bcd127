"""A server's part in ``tessera check``: it looks at its own links and data folder for a client, and answers probes.

What a member of the cluster can cause by asking is bounded.  A server looks around for one client at a time and
measures one link at a time; a second asker is told when to come again.  The bytes that each member may have sent to it
or on its behalf come out of an `Allowance`.  A server only ever connects to addresses in its own cluster file, and runs
go on: nothing here blocks the event loop, and probes end when one takes longer than `probing.LONG_ENOUGH`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from mpc.errors import PeerError, ProtocolViolation
from parties.members.cluster import Member
from parties.messages.check import (
    MAX_PROBE_BYTES,
    CheckMessage,
    CheckRefused,
    FolderSeen,
    LinkSeen,
    LookAround,
    Looked,
    Measure,
    Measured,
    Probe,
    Probed,
    Reach,
)
from parties.messages.failures import fault_of
from parties.operate.check.asking import Answers, Busy
from parties.operate.check.data_folder import look_at_folder
from parties.operate.check.probing import LADDER_BYTES, Prober
from parties.operate.site import Site
from parties.wire.events import Delivery
from parties.wire.messages import Payload, payload_bytes

CAPACITY = 64 << 20
"""Bytes that a member may cause at once, as by one check of a cluster of five servers."""

REFILL = 16 << 20
"""Bytes per second that it may cause for ever."""

_AGAIN = 0.5
_PAUSE = 0.2
"""s between two looks for one client: each may write to the disk."""


class Allowance:
    """A token bucket in bytes: `CAPACITY` at once, `REFILL` per second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._left = float(CAPACITY)
        self._at = now()

    def wait(self, size: int) -> float:
        """Takes ``size`` bytes and returns 0, or takes none and returns the s until there will be as many."""
        now = self._now()
        self._left = min(float(CAPACITY), self._left + (now - self._at) * REFILL)
        self._at = now
        if size <= self._left:
            self._left -= size
            return 0.0
        return (size - self._left) / REFILL


class CheckDesk:
    """Registers its handlers at ``server`` when it is made.

    Args:
        folder: the server's data folder.
        databases: raises TesseraError when the data files in it cannot be written now; blocks.
    """

    def __init__(self, server: Site, folder: str | os.PathLike[str], databases: Callable[[], None]) -> None:
        self._server, self._folder, self._databases = server, folder, databases
        self._answers = Answers()
        self._prober = Prober(server.endpoint, self._answers)
        self._allowances: dict[str, Allowance] = {}
        self._looked_at: dict[str, float] = {}
        self._looking = self._measuring = False
        self._folder_look: asyncio.Task[FolderSeen] | None = None
        server.on(LookAround, self._on_look)
        server.on(Measure, self._on_measure)
        server.on(Probe, self._on_probe)
        server.on(Probed, self._on_answer)
        server.on(CheckRefused, self._on_answer)

    # -- questions -------------------------------------------------------------------------------------------------

    def _on_look(self, client: Member, message: LookAround, _: Payload) -> None:
        pause = self._looked_at.get(client.name, float("-inf")) + _PAUSE - time.monotonic()
        if self._looking or pause > 0:
            self._refuse(client, message, _AGAIN if self._looking else pause, "busy: it is looking already")
            return
        self._looking = True
        self._server.spawn(self._look(client, message))

    async def _look(self, client: Member, message: LookAround) -> None:
        try:
            peers = [server for server in self._server.cluster.servers if server != self._server.member]
            folder, links = await asyncio.gather(
                self._look_at_folder(message.patience),
                asyncio.gather(*(self._prober.look(peer, message.patience) for peer in peers)),
            )
            seen = tuple(_seen(peer, *link) for peer, link in zip(peers, links, strict=True))
            room = self._server.room_for(client)
            self._say(client, Looked(request=message.request, clock=time.time(), folder=folder, room=room, links=seen))
        finally:
            self._looking = False
            self._looked_at[client.name] = time.monotonic()

    async def _look_at_folder(self, patience: float) -> FolderSeen:
        """A disk that hangs costs one thread, however often it is asked about."""
        if self._folder_look is None or self._folder_look.done():
            look = asyncio.to_thread(look_at_folder, self._folder, self._databases)
            self._folder_look = asyncio.get_running_loop().create_task(look)
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(self._folder_look)
        except TimeoutError:
            return FolderSeen(0, 0, f"the disk of its data folder has not answered within {patience:g} s: see to it")

    def _on_measure(self, client: Member, message: Measure, _: Payload) -> None:
        peer = self._server.cluster.member(message.peer)
        if not peer.is_server or peer == self._server.member:
            raise ProtocolViolation(client.name, "asked for the bandwidth of a link that is not between servers")
        if self._measuring:
            self._refuse(client, message, _AGAIN, "busy: it is measuring already")
        elif self._allowed(client, message, LADDER_BYTES):
            self._measuring = True
            self._server.spawn(self._measure(client, message, peer))

    async def _measure(self, client: Member, message: Measure, peer: Member) -> None:
        timeout = self._server.cluster.settings.peer_timeout
        try:
            round_trip = await self._server.endpoint.ping(peer.name, timeout)
            rate = await self._prober.upload(peer.name, round_trip, timeout)
            self._say(client, Measured(request=message.request, rate=rate))
        except Busy as error:
            self._refuse(client, message, error.wait, f"{peer.name}: {error.reason}")
        except PeerError as error:
            self._say(client, Measured(request=message.request, fault=fault_of(error)))
        finally:
            self._measuring = False

    # -- probes ----------------------------------------------------------------------------------------------------

    def _on_probe(self, sender: Member, message: Probe, payload: Payload) -> None:
        size = payload_bytes(payload)
        if size > MAX_PROBE_BYTES:
            raise ProtocolViolation(sender.name, f"sent a probe of {size} bytes (limit {MAX_PROBE_BYTES})")
        if self._allowed(sender, message, size + message.reply):
            self._say(sender, Probed(request=message.request), bytes(message.reply))

    def _on_answer(self, sender: Member, message: Probed | CheckRefused, payload: Payload) -> None:
        self._answers.take(Delivery(sender, message, payload))

    # -- bounds ----------------------------------------------------------------------------------------------------

    def _allowed(self, sender: Member, message: CheckMessage, size: int) -> bool:
        wait = self._allowances.setdefault(sender.name, Allowance()).wait(size)
        if wait:
            self._refuse(sender, message, wait, f"busy: {sender.name} has had it measure a great deal already")
        return not wait

    def _refuse(self, sender: Member, message: CheckMessage, wait: float, reason: str) -> None:
        self._say(
            sender, CheckRefused(request=message.request, wait=min(wait, 60.0), reason=f"{reason}; try again later")
        )

    def _say(self, member: Member, message: CheckMessage, payload: bytes = b"") -> None:
        self._server.tell([member.name], message, [payload] if payload else [])


def _seen(peer: Member, reach: Reach, found: float | PeerError) -> LinkSeen:
    if isinstance(found, PeerError):
        return LinkSeen(peer.name, reach, fault=fault_of(found))
    return LinkSeen(peer.name, reach, round_trip=found)
