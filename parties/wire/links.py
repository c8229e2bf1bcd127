"""One link per peer: the order of its messages, which process is at the other end, when it was last heard."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field

from mpc.errors import PeerError
from parties.members.cluster import Member
from parties.wire.buckets import Bucket
from parties.wire.channel import Channel
from parties.wire.lanes import Lanes
from parties.wire.messages import Envelope, Hello, HelloReply

_REMEMBERED = 32

BULK = 16 << 20
"""Bytes of payload from which on a message is announced, as it may take longer than a peer may be silent."""
# What even a slow network carries, in bytes per second; and the most that is granted, in seconds.
_SLOWEST = 4e6
_LONGEST = 60.0


@dataclass(slots=True)
class Traffic:
    """Counters of one peer.

    ``messages_*`` and ``payload_*`` count the application's messages and the bytes of their payload frames;
    ``bytes_*`` counts all that was said, with envelopes, headers and the link's own messages (what CURVE and
    TCP add is left out).
    """

    messages_sent: int = 0
    payload_sent: int = 0
    bytes_sent: int = 0
    messages_received: int = 0
    payload_received: int = 0
    bytes_received: int = 0


class Order(enum.Enum):
    """How a message stands to those before it on its link."""

    NEXT = enum.auto()  # as it should be
    GAP = enum.auto()  # messages before it are missing
    REPEATED = enum.auto()  # its number has been seen
    FIRST = enum.auto()  # the greeting of the first process we meet
    RESTARTED = enum.auto()  # the greeting of a process in the place of another
    REPLACED = enum.auto()  # from a process whose place another has taken
    UNGREETED = enum.auto()  # from a process that has not greeted


@dataclass(slots=True, eq=False)
class Link:
    """State of the link to ``peer``; times are readings of the liveness clock, in seconds.

    Attributes:
        outgoing: number of the next message to it.
        incarnation: which process of the peer's we listen to; None before its first greeting.
        expected: number of the next message from it.
        replaced: former incarnations, with the number that the next message to each would have.
        agreed: its greeting matched our version and cluster.
        refusal: why it did not, or why the peer would not have us.
        greeting: the last that it sent.
        behind: one of us has yet to go on to the other's cluster file; None if that is not so.
        route: a client's current routing id at our inbox.
        established: set while greetings have been exchanged on the current connection.
        heard: when something valid last came from it; None: never.
        broken: since when it has had no connection; None while it has one.
        excused: until when silence is no wonder, as a big message is on its way, to it or from it.
        bulk_at: when the last big message to it was sent, by the monotonic clock.
        down: its loss has been reported, and it has not been heard from since.
        pings: sent and unanswered, by nonce: when, and who waits.
        round_trip: last measured, s.
        sending, receiving: the data channels for what goes to it and comes from it, one for both with a client;
            None: over CURVE.
        lanes: messages of it that wait for what is on its way; None: never any.
        vain: how many messages of a client may come to nothing now; None: none has.
    """

    peer: Member
    outgoing: int = 0
    incarnation: bytes | None = None
    expected: int = 0
    replaced: dict[bytes, int] = field(default_factory=dict)
    agreed: bool = False
    refusal: PeerError | None = None
    greeting: Hello | HelloReply | None = None
    behind: PeerError | None = None
    route: bytes | None = None
    established: asyncio.Event = field(default_factory=asyncio.Event)
    heard: float | None = None
    broken: float | None = float("-inf")
    excused: float = float("-inf")
    bulk_at: float = float("-inf")
    down: bool = False
    pings: dict[int, tuple[float, asyncio.Future[float] | None]] = field(default_factory=dict)
    round_trip: float | None = None
    sending: Channel | None = None
    receiving: Channel | None = None
    lanes: Lanes | None = None
    vain: Bucket | None = None
    traffic: Traffic = field(default_factory=Traffic)

    def admit(self, envelope: Envelope, *, greeting: bool) -> Order:
        """Takes note of a message's envelope.

        A process not met before may begin at any number, but only with a greeting.  From then on numbers go
        up by one; after a gap the link goes on from there.
        """
        incarnation, sequence, _ = envelope
        if incarnation != self.incarnation:
            return self._meet(incarnation, sequence) if greeting else self._ungreeted(incarnation)
        if sequence < self.expected:
            return Order.REPEATED
        gap = sequence > self.expected
        self.expected = sequence + 1
        return Order.GAP if gap else Order.NEXT

    def _ungreeted(self, incarnation: bytes) -> Order:
        return Order.REPLACED if incarnation in self.replaced else Order.UNGREETED

    def _meet(self, incarnation: bytes, sequence: int) -> Order:
        if incarnation in self.replaced:
            return Order.REPLACED
        former, self.incarnation = self.incarnation, incarnation
        self.expected = sequence + 1
        self.agreed = False
        if former is None:
            return Order.FIRST
        self.replaced[former] = self.outgoing
        if len(self.replaced) > _REMEMBERED:
            del self.replaced[next(iter(self.replaced))]
        return Order.RESTARTED

    def excuse(self, now: float, size: int) -> None:
        """A message of ``size`` bytes is on its way; pings and their answers queue behind it."""
        self.excused = min(max(now, self.excused) + size / _SLOWEST, now + _LONGEST)

    def lose(self, now: float) -> None:
        """The connection is gone."""
        self.established.clear()
        self.route = None
        if self.broken is None:
            self.broken = now

    def forget(self) -> None:
        """Nobody waits any more."""
        for _, waiter in self.pings.values():
            if waiter is not None:
                waiter.cancel()
        self.pings.clear()
