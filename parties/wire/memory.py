"""Wires within one process: no sockets, no ports, no encryption; everything above them is what hosts run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.wire.links import Link
from parties.wire.messages import ChannelOffered, ChannelWanted
from parties.wire.sockets import HIGH_WATER_MARK
from parties.wire.wires import Owner, Trouble

# Bytes below which a frame is copied when it is sent, whatever the sender says: as ZeroMQ's binding does.
_COPIED = 64 << 10


class MemoryNetwork:
    """Connects the members that are given it as their transport, each on an event loop and a thread of its own or not.

    Who a message is from is known by the wires it came over, as keys are checked where an `Endpoint` is made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[bytes, MemoryWires] = {}
        self._broken: set[frozenset[str]] = set()

    def __call__(
        self, cluster: Cluster, me: Member, keys: KeyPair, links: Mapping[str, Link], owner: Owner
    ) -> MemoryWires:
        return MemoryWires(self, me, links, owner)

    def break_link(self, one: str, other: str) -> None:
        """Cuts the connections between two members, until ``mend_link``."""
        with self._lock:
            self._broken.add(frozenset((one, other)))
        self.changed(departed=True)

    def mend_link(self, one: str, other: str) -> None:
        """They can connect again, and do."""
        with self._lock:
            self._broken.discard(frozenset((one, other)))
        self.changed()

    def join(self, wires: MemoryWires) -> None:
        """Raises ConfigurationError for a second server of one name."""
        with self._lock:
            if wires.me.is_server and any(other.me.name == wires.me.name for other in self._open.values()):
                raise ConfigurationError(f"{wires.me.name} runs already in this process")
            self._open[wires.route] = wires
        self.changed()

    def leave(self, wires: MemoryWires) -> None:
        with self._lock:
            self._open.pop(wires.route, None)
        self.changed(departed=True)

    def server(self, peer: Member, seen_by: Member) -> MemoryWires | None:
        """That server's wires, if there is a way to them."""
        with self._lock:
            # As over sockets: who looks for it at a former address finds nobody there.
            sought = peer.name, peer.key, peer.address
            found = (w for w in self._open.values() if w.me.is_server and (w.me.name, w.me.key, w.me.address) == sought)
            return None if frozenset((peer.name, seen_by.name)) in self._broken else next(found, None)

    def at(self, route: bytes, seen_by: Member) -> MemoryWires | None:
        """The wires of that route, if there is a way to them."""
        with self._lock:
            found = self._open.get(route)
            return None if found is None or frozenset((found.me.name, seen_by.name)) in self._broken else found

    def changed(self, *, departed: bool = False) -> None:
        """Everybody looks around."""
        with self._lock:
            everyone = list(self._open.values())
        for wires in everyone:
            wires.call(lambda wires=wires: wires.look(departed=departed))  # type: ignore[misc]


@dataclass
class _Way:
    """To a server; None where nobody listens."""

    to: MemoryWires | None = None
    trouble: Trouble | None = None
    troubled_at: float = float("-inf")

    @property
    def up(self) -> bool:
        return self.to is not None


class MemoryWires:
    """One member's wires; see `Wires`.  What is sent is read in a later turn of the receiver's event loop."""

    def __init__(self, network: MemoryNetwork, me: Member, links: Mapping[str, Link], owner: Owner) -> None:
        self._network, self._links, self._owner = network, links, owner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived: deque[tuple[MemoryWires, list[bytes | memoryview]]] = deque()
        self._out: set[str] = set()
        """Clients that have been shown out."""
        self.me = me
        self.route = b""
        self.outboxes: dict[str, _Way] = {}

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.route = os.urandom(8)
        self._network.join(self)
        self.outboxes.update((name, _Way()) for name, link in self._links.items() if link.peer.is_server)

    async def close(self) -> None:
        self._network.leave(self)
        self._loop = None
        self.outboxes.clear()
        self._arrived.clear()

    def go_on(self, cluster: Cluster, dropped: Sequence[Link]) -> None:
        for link in dropped:
            self.outboxes.pop(link.peer.name, None)
        for name, link in self._links.items():
            if link.peer.is_server:
                self.outboxes.setdefault(name, _Way())
        self._network.changed()

    def show_out(self, link: Link, seconds: float) -> bool:
        one, other = self.me.name, link.peer.name
        if self._loop is None or other in self._out:
            return False
        self._out.add(other)
        self._loop.call_soon(self._network.break_link, one, other)

        def over() -> None:
            self._out.discard(other)
            self._network.mend_link(one, other)

        self._loop.call_later(seconds, over)
        return True

    def lets_in(self, member: Member) -> bool:
        """Whether we list its key, as a gatekeeper does; called by the other end, in its thread."""
        link = self._links.get(member.name)
        return link is not None and link.peer.key == member.key

    def send(self, link: Link, frames: list[bytes | memoryview], *, copy: bool) -> bool:
        way = self.outboxes.get(link.peer.name)
        if way is not None:
            return way.to is not None and way.to.take_in(self, frames, copy=copy)
        return link.route is not None and self.answer(link, link.route, frames, copy=copy)

    def answer(self, link: Link, route: bytes, frames: list[bytes | memoryview], *, copy: bool = True) -> bool:
        receiver = self._network.at(route, self.me)
        if receiver is None and route == link.route:
            self._owner.on_down(link)
        return receiver is not None and receiver.take_in(self, frames, copy=copy)

    def arrange(self, link: Link, message: ChannelWanted | ChannelOffered | None) -> None:
        """Buffers go from hand to hand here."""

    def catch_up(self) -> None:
        self.read()

    def read(self) -> None:
        while self._arrived and self._owner.has_room():
            self._read()

    def read_one(self, *, wait: bool) -> bool:
        """Never blocks: whoever would send may be waiting for this event loop."""
        if not self._arrived:
            return False
        self._read()
        return True

    def _read(self) -> None:
        sender, frames = self._arrived.popleft()
        link = self._links.get(sender.me.name)
        if link is not None and sender.me.name not in self._out and self.lets_in(sender.me):
            # Only now, as it would leave a socket: who has changed a buffer since is found out.
            self._owner.on_message(
                link, [memoryview(bytes(f)) for f in frames], sender.route if self.me.is_server else None
            )

    def take_in(self, sender: MemoryWires, frames: list[bytes | memoryview], *, copy: bool) -> bool:
        """Called by the sender, in its thread: queues a message.  False if there is no room, or nobody any more."""
        if self._loop is None or len(self._arrived) >= HIGH_WATER_MARK:
            return False
        self._arrived.append((sender, [bytes(f) if copy or len(f) < _COPIED else f for f in frames]))
        self.call(self.read)
        return True

    def look(self, *, departed: bool) -> None:
        """Connects to whoever has come, and takes note of who has gone."""
        for name, way in tuple(self.outboxes.items()):
            former, way.to = way.to, self._network.server(self._links[name].peer, self.me)
            way.trouble = None
            if way.to is not None and not way.to.lets_in(self.me):
                way.to, way.trouble, way.troubled_at = None, Trouble.DENIED, float("inf")
            if former is not None and way.to is not former:
                self._owner.on_down(self._links[name])
            if way.to is not None and way.to is not former:
                self._owner.on_up(self._links[name])
        if departed and self.me.is_server:
            self._owner.on_departure()

    def call(self, callback: Callable[[], None]) -> None:
        """In a turn of this member's event loop, if it still turns."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(callback)
