"""Connections that have not proved a key yet: how many there may be, and how much they may send.

libzmq cuts a connection that does not complete its handshake (`sockets.HANDSHAKE_SECONDS`), but until then it takes as
many as there are descriptors, and a first frame of any size that a member might send.  So each connection is a
stranger until it brings a message, which only the key of a member can.  Of strangers at most `limit` stay, the latest:
a member gets through in milliseconds, however many others hold connections open and say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
from collections.abc import Callable, Collection

import zmq

from parties.wire import sockets
from parties.wire.inflow import Inflow, received, shut
from parties.wire.refusals import RefusalLog

log = logging.getLogger(__name__)

DESCRIPTORS = 65536
"""Open files, and so connections, that a server asks for at most."""
STRANGERS = 1024
"""Connections without a proven key at most; fewer where the process may not open many files."""
STRANGERS_BYTES = 64 << 10
"""What one of them may send: a handshake has less than a kilobyte, and the first message of a member hardly more."""
CONNECTIONS = 16
"""Of one key, at a time.  Who has come back, or operates a server beside it, has a second one or a third."""

_LOOK = 0.1
# ZeroMQ tells of a broken connection a moment before it takes down the route to it.
_DISMANTLING = 0.02


class _Connection(Inflow):
    """A member's."""

    def __init__(self, descriptor: int, route: bytes, key: str) -> None:
        super().__init__(descriptor)
        self.route, self.key = route, key


def limit(most: int, part: int) -> int:
    """How many strangers there may be: one for each ``part`` of the descriptors of this process, and no more than
    ``most``."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if descriptors == resource.RLIM_INFINITY else max(1, min(most, descriptors // part))


class Door:
    """Watches who comes to an inbox, and who leaves.

    Args:
        inbox: not bound yet.
        read: reads what has arrived at the inbox; False if some was left.
        on_departure: a connection that had brought messages broke.
    """

    def __init__(self, inbox: sockets.Socket, *, read: Callable[[], bool], on_departure: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._read, self._on_departure = read, on_departure
        self._limit = limit(STRANGERS, 4)
        # By descriptor, the oldest first: whether it had sent too much when it was last looked at.
        self._strangers: dict[int, bool] = {}
        self._members: dict[int, _Connection] = {}
        self._routes: dict[bytes, _Connection] = {}
        """The same by route."""
        self._crowded = self._closed = False
        self._departures = 0
        self._departing: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._refusals = RefusalLog(log)
        self._monitor = sockets.Monitor(inbox, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED, self._on_event)

    def close(self) -> None:
        """Stops watching.  Call before closing the inbox."""
        self._closed = True
        for timer in (self._departing, self._looking):
            if timer is not None:
                timer.cancel()
        self._strangers.clear()
        self._monitor.close()
        self._refusals.close()

    def recognise(self, route: zmq.Frame, key: str) -> None:
        """A message came over this route, with the key of a member."""
        known = self._routes.get(route.bytes)
        if known is not None:
            known.heard()
            return
        # libzmq has told of a connection before anything came over it, but we may not have listened yet.
        self._monitor.read()
        descriptor = -1
        with contextlib.suppress(zmq.ZMQError):
            descriptor = int(route.get(zmq.SRCFD))
        if self._strangers.pop(descriptor, None) is None:
            # It has ended already, and left this behind.
            self._depart()
            return
        self._members[descriptor] = self._routes[route.bytes] = _Connection(descriptor, route.bytes, key)
        of_key = [connection for connection in self._members.values() if connection.key == key]
        # All of them: one that was cut stays listed until ZeroMQ has told of it, and another may come meanwhile.
        for connection in of_key[:-CONNECTIONS]:
            connection.cut()
            self._refusals.note("too many connections of one member: closed the oldest of %d", CONNECTIONS)

    def endless(self, limit: int) -> list[str]:
        """Cuts the connections over which more has come than a message of ``limit`` bytes, without an end; their keys.

        All whole messages have been read.
        """
        self._monitor.read()
        found = [connection for connection in self._members.values() if connection.endless(limit)]
        for connection in found:
            connection.cut()
            self._refusals.note("closed a member's connection: no end of a message within %d bytes", limit)
        return [connection.key for connection in found]

    def dismiss(self, keys: Collection[str]) -> None:
        """Whoever came with one of these is no member any more: its connections are over."""
        self._monitor.read()
        for connection in self._members.values():
            if connection.key in keys:
                connection.cut()

    def show_out(self, key: str) -> None:
        """A member has sent far too much: its connections are over.  Nothing, once this is closed."""
        if not self._closed:
            self.dismiss({key})
            self._refusals.note("closed the connections of a member that sends more than it may")

    def _on_event(self, event: int, descriptor: int) -> None:
        if event == zmq.EVENT_DISCONNECTED:
            self._strangers.pop(descriptor, None)
            member = self._members.pop(descriptor, None)
            if member is not None:
                self._routes.pop(member.route, None)
                self._depart()
            return
        self._strangers[descriptor] = False
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK, self._look)
        if len(self._strangers) > self._limit and not self._crowded:
            self._crowded = True
            self._loop.call_soon(self._thin_out)

    def _thin_out(self) -> None:
        """Closes the oldest strangers beyond the limit."""
        self._crowded = False
        # All that is known by now: a descriptor of a connection that has ended may be a member's already.
        self._monitor.read()
        while len(self._strangers) > self._limit:
            self._turn_out(next(iter(self._strangers)))
            self._refusals.note("too many connections that have not proved a key: closed the oldest of %d", self._limit)

    def _look(self) -> None:
        """Closes what has sent too much; it has had time to be recognised since it was last looked at."""
        self._looking = None
        if self._read():
            self._monitor.read()
            for descriptor, warned in tuple(self._strangers.items()):
                excessive = received(descriptor) > STRANGERS_BYTES
                if excessive and warned:
                    self._turn_out(descriptor)
                    self._refusals.note("closed a connection that sent over %d bytes and no key", STRANGERS_BYTES)
                else:
                    self._strangers[descriptor] = excessive
        if self._strangers:
            self._looking = self._loop.call_later(_LOOK, self._look)

    def _turn_out(self, descriptor: int) -> None:
        del self._strangers[descriptor]
        shut(descriptor)

    def _depart(self) -> None:
        self._departures += 1
        if self._departing is None:
            self._departing = self._loop.call_later(_DISMANTLING, self._tell, self._departures)

    def _tell(self, departures: int) -> None:
        """Says once that there were departures; and once more, later, if there have been others since."""
        again = self._departures > departures
        self._departing = self._loop.call_later(_DISMANTLING, self._tell, self._departures) if again else None
        self._on_departure()
