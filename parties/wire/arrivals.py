"""What has arrived and not been taken up: handed out in turns, one of each member that has any.

It is bounded, in events and in bytes, since nobody has been charged for it yet (`parties.servers.governor`).  Where
there is no room nothing more is read, connections fill up (`sockets.UNREAD`), and whoever sends has to wait.  That is
not for long: to take up a message is to look at its head, and to charge its member or to refuse it.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from parties.wire.events import ClusterChanged, Delivery, Event, PeerDown

BACKLOG = 4096
"""Events that may wait."""
BACKLOG_BYTES = 8 << 20
"""Of payload; one message more, of whatever size, may have come on top."""
BESIDE = 1 << 10
"""Bytes that a buffer takes in memory at least: one of none counts as well."""


class Arrivals:
    """Events by whom they are from or about; of one member in their order, whatever others send."""

    def __init__(self) -> None:
        self._by_member: OrderedDict[str, deque[Event]] = OrderedDict()
        self._count = self._bytes = 0
        self._stopped = False
        """Something may be unread, as there was no room."""

    def has_room(self) -> bool:
        """Whether more may be read; if not, `resumes` says when it may again."""
        room = self._count < BACKLOG and self._bytes < BACKLOG_BYTES
        self._stopped = self._stopped or not room
        return room

    def resumes(self) -> bool:
        """Whether there was no room, and half of it is free again.  True once: wires do not tell twice."""
        resumes = self._stopped and self._count <= BACKLOG // 2 and self._bytes <= BACKLOG_BYTES // 2
        self._stopped = self._stopped and not resumes
        return resumes

    def __len__(self) -> int:
        return self._count

    def put(self, event: Event) -> None:
        """Behind what there is of that member."""
        self._count += 1
        self._bytes += _bytes_of(event)
        name = _member_of(event)
        events = self._by_member.get(name)
        if events is None:
            self._by_member[name] = deque((event,))
        else:
            events.append(event)

    def take(self) -> Event:
        """The first of the member whose turn is longest ago.  There is one."""
        self._count -= 1
        name, events = self._by_member.popitem(last=False)
        event = events.popleft()
        self._bytes -= _bytes_of(event)
        if events:
            self._by_member[name] = events
        return event

    def clear(self) -> None:
        """There is nothing any more."""
        self._by_member.clear()
        self._count = self._bytes = 0


def _bytes_of(event: Event) -> int:
    return sum(max(len(buffer), BESIDE) for buffer in event.buffers) if isinstance(event, Delivery) else 0


def _member_of(event: Event) -> str:
    if isinstance(event, ClusterChanged):
        return ""
    return event.peer.name if isinstance(event, PeerDown) else event.sender.name
