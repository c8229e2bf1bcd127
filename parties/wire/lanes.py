"""Messages whose large buffers are still on their way, and those that must not overtake them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mpc.errors import ProtocolViolation
from parties.wire.arrivals import BESIDE
from parties.wire.events import Delivery

MOST = 4096
"""Messages of one peer that may wait so."""
MOST_BYTES = 8 << 20
"""What they may have come with, and hold, beside large buffers."""


@dataclass(slots=True, eq=False)
class Slot:
    """The place of a message in its lane."""

    lane: str
    size: int
    delivery: Delivery | None
    """None until all of it is there."""


class Lanes:
    """Of one peer: within a lane (`Message.lane`) messages come in their order, and each lane for itself."""

    def __init__(self, peer: str, emit: Callable[[Delivery], None]) -> None:
        self._peer, self._emit = peer, emit
        self._lanes: dict[str, deque[Slot]] = {}
        self._count = self._bytes = 0

    def put(self, delivery: Delivery, size: int) -> None:
        """A message that is all there, of so many bytes.  Raises ProtocolViolation where too many wait."""
        lane = delivery.message.lane
        if lane in self._lanes:
            self._append(Slot(lane, size + BESIDE * len(delivery.buffers), delivery))
        else:
            self._emit(delivery)

    def announce(self, lane: str, size: int) -> Slot:
        """A message whose large buffers come later; it has so many other bytes.  Raises as ``put``."""
        slot = Slot(lane, size, None)
        self._append(slot)
        return slot

    def fill(self, slot: Slot, delivery: Delivery) -> None:
        """It is all there."""
        slot.delivery = delivery
        lane = self._lanes[slot.lane]
        while lane and (ready := lane[0].delivery) is not None:
            self._drop(lane.popleft())
            self._emit(ready)
        if not lane:
            del self._lanes[slot.lane]

    def give_up(self) -> list[Delivery]:
        """What is not all there never will be: what waited behind it, in order; nothing waits any more."""
        waiting = [slot.delivery for lane in self._lanes.values() for slot in lane if slot.delivery is not None]
        self._lanes.clear()
        self._count = self._bytes = 0
        return waiting

    def __len__(self) -> int:
        return self._count

    def _append(self, slot: Slot) -> None:
        if self._count >= MOST or (self._count and self._bytes + slot.size > MOST_BYTES):
            raise ProtocolViolation(self._peer, "sent more behind a large message than may wait for it")
        self._lanes.setdefault(slot.lane, deque()).append(slot)
        self._count += 1
        self._bytes += slot.size

    def _drop(self, slot: Slot) -> None:
        self._count -= 1
        self._bytes -= slot.size
