"""What has arrived and not been taken up: handed out in turns, one of each member that has any."""

from __future__ import annotations

from collections import OrderedDict, deque

from parties.wire.events import ClusterChanged, Event, PeerDown


class Arrivals:
    """Events by whom they are from or about; of one member in their order, whatever others send."""

    def __init__(self) -> None:
        self._by_member: OrderedDict[str, deque[Event]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, event: Event) -> None:
        """Behind what there is of that member."""
        self._count += 1
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
        if events:
            self._by_member[name] = events
        return event

    def clear(self) -> None:
        """There is nothing any more."""
        self._by_member.clear()
        self._count = 0


def _member_of(event: Event) -> str:
    if isinstance(event, ClusterChanged):
        return ""
    return event.peer.name if isinstance(event, PeerDown) else event.sender.name
