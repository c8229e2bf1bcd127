"""All sockets of one process: its inbox, its outboxes, and the gatekeeper at the inbox."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence

import zmq

from mpc.errors import ProtocolViolation
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.wire import sockets
from parties.wire.channels import Channels
from parties.wire.door import Door
from parties.wire.links import Link
from parties.wire.messages import MAX_FRAMES, PIECE, ChannelOffered, ChannelWanted
from parties.wire.outbox import Outbox
from parties.wire.wires import EAGER_WAIT, Owner
from parties.wire.zap import Gatekeeper

_ALL = 1 << 62
_FAREWELL = 1000
"""ms for the last words to a server that has another key or address now, or is none any more."""
_LAST_WORDS = 0.05
"""s for those to a client that is shown out."""
# Messages that are read at a time, as they come, and when it matters who has sent any: connections have theirs read in
# turns, so of each that has some there is one among so many.
_SOME, _MOST = 16, 1024


class SocketWires:
    """Opens, reads, writes and closes the sockets; see `Wires`."""

    def __init__(self, cluster: Cluster, me: Member, keys: KeyPair, links: Mapping[str, Link], owner: Owner) -> None:
        self._cluster, self._me, self._keys = cluster, me, keys
        self._links, self._owner = links, owner
        self._by_key = _by_key(links)
        self._resources = contextlib.AsyncExitStack()
        self._inbox: sockets.Socket | None = None
        self._readable: sockets.Readable | None = None
        self._door: Door | None = None
        self._context: sockets.Context | None = None
        self._gatekeeper: Gatekeeper | None = None
        self._channels = Channels(me, owner, cluster.settings.peer_timeout)
        self.outboxes: dict[str, Outbox] = {}

    async def open(self) -> None:
        async with contextlib.AsyncExitStack() as undo:
            context: sockets.Context = zmq.Context()
            # Last to go; waits for every socket, none of which lingers.
            undo.callback(context.destroy, 0)
            if self._me.is_server:
                await self._listen(context, undo)
            await self._channels.open()
            undo.callback(self._channels.close)
            self._context = context
            undo.callback(setattr, self, "_context", None)
            undo.callback(self._close_outboxes)
            self._reach_all(context)
            self._resources = undo.pop_all()

    async def _listen(self, context: sockets.Context, undo: contextlib.AsyncExitStack) -> None:
        self._gatekeeper = Gatekeeper(context, [member.curve for member in self._cluster.members])
        undo.callback(self._gatekeeper.close)
        inbox = sockets.inbox(context, self._keys, self._cluster)
        undo.callback(inbox.close, 0)
        self._door = Door(inbox, read=self._catch_up_inbox, on_departure=self._owner.on_departure)
        undo.callback(self._door.close)
        await sockets.bind(inbox, self._me)
        self._inbox = inbox
        undo.callback(setattr, self, "_inbox", None)
        self._readable = sockets.Readable(inbox, self._read_some)
        undo.callback(self._readable.close)

    def _reach_all(self, context: sockets.Context) -> None:
        """Begins to connect to the servers to which it has not yet."""
        for name, link in self._links.items():
            if link.peer.is_server and name not in self.outboxes:
                self.outboxes[name] = self._reach(context, link)

    def _close_outboxes(self) -> None:
        for outbox in self.outboxes.values():
            outbox.close()
        self.outboxes.clear()

    def _reach(self, context: sockets.Context, link: Link) -> Outbox:
        outbox = Outbox(
            context,
            self._keys,
            link.peer,
            self._cluster,
            on_up=lambda: self._owner.on_up(link),
            on_down=lambda: self._down(link),
            on_readable=lambda: self._read_outbox(outbox),
        )
        return outbox

    def _down(self, link: Link) -> None:
        self._channels.drop(link, "went with the connection that it served")
        self._owner.on_down(link)

    async def close(self) -> None:
        await self._resources.aclose()

    def arrange(self, link: Link, message: ChannelWanted | ChannelOffered | None) -> None:
        self._channels.arrange(link, message)

    def go_on(self, cluster: Cluster, dropped: Sequence[Link]) -> None:
        self._cluster, self._by_key = cluster, _by_key(self._links)
        keys = frozenset(member.curve for member in cluster.members)
        if self._gatekeeper is not None and self._door is not None:
            self._gatekeeper.keys = keys
            self._door.dismiss({link.peer.curve for link in dropped} - keys)
        for link in dropped:
            self._channels.dismiss(link, "was that of no member any more")
            outbox = self.outboxes.pop(link.peer.name, None)
            if outbox is not None:
                # It has been told why, a moment ago.
                outbox.close(_FAREWELL)
        if self._context is not None:
            self._reach_all(self._context)

    def show_out(self, link: Link, seconds: float) -> bool:
        if self._gatekeeper is None or self._door is None or link.peer.curve in self._gatekeeper.out:
            return False
        loop, key, out = asyncio.get_running_loop(), link.peer.curve, self._gatekeeper.out
        out.add(key)
        loop.call_later(_LAST_WORDS, self._door.show_out, key)
        loop.call_later(seconds, out.discard, key)
        return True

    def send(self, link: Link, frames: list[bytes | memoryview], *, copy: bool) -> bool:
        outbox = self.outboxes.get(link.peer.name)
        if outbox is not None:
            return outbox.send(frames, copy=copy)
        return link.route is not None and self.answer(link, link.route, frames, copy=copy)

    def answer(self, link: Link, route: bytes, frames: list[bytes | memoryview], *, copy: bool = True) -> bool:
        if self._inbox is None or self._readable is None:
            return False
        try:
            sockets.send(self._inbox, [route, *frames], copy=copy)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            if route == link.route:
                self._down(link)
            return False
        finally:
            # An attempt that fails may have swallowed the edge just as well.
            self._readable.recheck()
        return True

    def catch_up(self) -> None:
        for outbox in tuple(self.outboxes.values()):
            outbox.catch_up()
        self.read()
        self._channels.catch_up()
        if self._owner.has_room():
            self._end_endless()

    def _end_endless(self) -> None:
        """Whoever sends a message without an end, which libzmq would keep for ever, has its connection cut."""
        limit = self._cluster.max_message_bytes
        found = [name for name, outbox in self.outboxes.items() if outbox.endless(limit)]
        links = [self._links[name] for name in found if name in self._links]
        if self._door is not None:
            links += [self._by_key[key] for key in self._door.endless(limit) if key in self._by_key]
        for link in links:
            reason = f"sent more than a message may have, {limit} bytes, and no end of it: the connection was cut"
            self._owner.on_fault(link, ProtocolViolation(link.peer.name, reason))

    def read(self) -> None:
        self._read_inbox(_MOST)
        if self._readable is not None:
            self._readable.recheck()
        for outbox in tuple(self.outboxes.values()):
            self._read_outbox(outbox)
        self._channels.read()

    def read_one(self, *, wait: bool) -> bool:
        channels = {channel.descriptor: channel for channel in self._channels.busy()}
        if self._inbox is not None and not channels:
            # What waits and reads in one call is at it a moment earlier.
            return self._read_inbox(1, wait=wait)
        poller = zmq.Poller()
        for descriptor, channel in channels.items():
            poller.register(descriptor, zmq.POLLIN * channel.expects | zmq.POLLOUT * channel.sends)
        outboxes = {outbox.socket: outbox for outbox in self.outboxes.values() if outbox.up}
        for socket in (self._inbox,) if self._inbox is not None else outboxes:
            poller.register(socket, zmq.POLLIN)
        milliseconds = EAGER_WAIT if wait else 0
        ready = poller.poll(milliseconds) if channels or outboxes or self._inbox is not None else []
        for found, _ in ready:
            if isinstance(found, int):
                channels[found].read()
                channels[found].write()
            elif found is self._inbox:
                self._read_inbox(1)
            else:
                self._read_outbox(outboxes[found], 1)
        return bool(ready)

    def _catch_up_inbox(self) -> bool:
        self._read_inbox(_MOST)
        return self._owner.has_room()

    def _read_some(self) -> None:
        """What comes fast is read a little at a time: in between, it and what others have sent is handled."""
        self._read_inbox(_SOME)
        if self._readable is not None and self._owner.has_room():
            self._readable.recheck()

    def _read_inbox(self, limit: int = _ALL, *, wait: bool = False) -> bool:
        """Whether there was anything."""
        if self._inbox is None or self._door is None or self._gatekeeper is None:
            return False
        out, found = self._gatekeeper.out, False
        for route, *frames in self._messages(self._inbox, limit, wait=wait):
            found = True
            # The key that the connection proved to have; a message's own word counts for nothing.
            key = str(route.get("User-Id"))
            link = self._by_key.get(key)
            if link is not None and key not in out:
                self._door.recognise(route, key)
                self._owner.on_message(link, [frame.buffer for frame in frames], route.bytes)
        return found

    def _read_outbox(self, outbox: Outbox, limit: int = _ALL) -> None:
        for frames in self._messages(outbox.socket, limit):
            link = self._links.get(outbox.peer.name)
            if link is None or self.outboxes.get(outbox.peer.name) is not outbox:
                return
            outbox.inflow.heard()
            self._owner.on_message(link, [frame.buffer for frame in frames], None)

    def _messages(self, socket: sockets.Socket, limit: int, *, wait: bool = False) -> Iterator[list[zmq.Frame]]:
        while limit > 0 and not socket.closed and self._owner.has_room():
            try:
                yield sockets.receive(socket, MAX_FRAMES + self._cluster.max_message_bytes // PIECE, wait=wait)
            except zmq.Again:
                return
            limit -= 1


def _by_key(links: Mapping[str, Link]) -> dict[str, Link]:
    return {link.peer.curve: link for link in links.values()}
