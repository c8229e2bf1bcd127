"""Who is still there: peers that somebody watches are pinged, and judged by what is heard from them."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic

from mpc.errors import PeerLost
from parties.wire.links import Link

log = logging.getLogger(__name__)

PING_INTERVAL = 1.0
TICK = 0.1
# After a connection breaks: time for it to come back before the peer counts as gone, and for a new one in its
# place to be greeted.  A killed process is thus noticed in half a second.
GRACE = 0.35
# The longest that a tick may take and count in full; beyond it the event loop was held up.
STALL = 0.5
_UNANSWERED = 64


class Watch:
    """Peers whose loss matters to somebody; from `Endpoint.watch`.  A context manager; or `stop` it."""

    def __init__(self, stop: Callable[[Watch], None], peers: frozenset[str]) -> None:
        self.peers = peers
        self._stop: Callable[[Watch], None] | None = stop

    def stop(self) -> None:
        """Ends it; idempotent."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop(self)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Liveness:
    """Pings watched peers and reports those that are lost.

    Silence is measured by a clock that stands still while this process does.  When our own event loop was
    held up (a long computation, a debugger, SIGSTOP), that time is not held against anyone, and whatever
    arrived meanwhile is read before anybody is judged.

    Args:
        links: by peer name.
        peer_timeout: s of silence after which a watched peer is lost.
        read: reads all that has arrived; returns False if some was left, as the application does not keep up.
        ping: sends a `Ping` if it can.
        report: takes the verdict on a link, once.
    """

    def __init__(
        self,
        links: Mapping[str, Link],
        peer_timeout: float,
        *,
        read: Callable[[], bool],
        ping: Callable[[Link], object],
        report: Callable[[Link, PeerLost], None],
    ) -> None:
        self._links = links
        self._timeout = peer_timeout
        self._read, self._ping, self._report = read, ping, report
        self._watched: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._ticked = monotonic()
        self._lag = 0.0
        self._interval = min(PING_INTERVAL, peer_timeout / 4)
        self._next_ping = 0.0

    def now(self) -> float:
        """Seconds that this process has been awake."""
        return min(monotonic(), self._ticked + STALL) - self._lag

    def watch(self, peers: frozenset[str]) -> Watch:
        """Begins to watch; a peer that has no connection now is reported at the next tick."""
        now = self.now()
        for name in peers:
            if not self._watched[name]:
                # Not again for a further watch: new runs, one after the other, would put the verdict off for ever.
                self._since[name] = now
            self._links[name].down = False
        self._watched.update(peers)
        return Watch(self._unwatch, peers)

    def returned(self, link: Link) -> None:
        """A connection that had broken stands again: what was on its way to a watched peer may never have arrived."""
        if self._watched[link.peer.name] and not link.down:
            link.down = True
            self._report(link, PeerLost(link.peer.name, "its connection broke: what was on the way to it is lost"))

    def _unwatch(self, watch: Watch) -> None:
        self._watched -= Counter(watch.peers)

    async def run(self) -> None:
        """Never returns; cancel it."""
        while True:
            await asyncio.sleep(TICK)
            try:
                self._tick()
            except Exception:
                log.exception("the liveness check failed")

    def _tick(self) -> None:
        time = monotonic()
        self._lag += max(0.0, time - self._ticked - STALL)
        self._ticked = time
        # ZeroMQ's descriptors are edge-triggered, and an edge can be missed: whatever is there is read now.
        complete = self._read()
        if not self._watched:
            return
        now = self.now()
        if now >= self._next_ping:
            self._next_ping = now + self._interval
            for name in self._watched:
                if name in self._links:
                    self._ping(self._links[name])
        if complete:
            for name in tuple(self._watched):
                # Who is no member any more is nobody's loss.
                if name in self._links:
                    self._judge(self._links[name], now)

    def _judge(self, link: Link, now: float) -> None:
        if link.down:
            return
        name = link.peer.name
        heard = max(self._since[name], link.excused)
        if link.heard is not None:
            heard = max(heard, link.heard)
        # A link that was never up may only be waiting for its peer to start: that is judged by silence.
        if link.broken is not None and math.isfinite(link.broken) and now - link.broken > GRACE:
            reason = "its connection closed: the process died or was stopped, or the network failed"
        elif now - heard > self._timeout:
            reason = f"silent for {now - heard:.1f} s (peer_timeout is {self._timeout:g} s): frozen or cut off"
        else:
            return
        link.down = True
        self._report(link, PeerLost(name, reason))


def note_ping(link: Link, nonce: int, time: float, waiter: asyncio.Future[float] | None) -> None:
    """Remembers a ping that is on its way."""
    link.pings[nonce] = (time, waiter)
    while len(link.pings) > _UNANSWERED:
        _, forgotten = link.pings.pop(next(iter(link.pings)))
        if forgotten is not None:
            forgotten.cancel()


def note_pong(link: Link, nonce: int, time: float) -> None:
    """Takes the answer; one that nobody asked for is ignored."""
    sent, waiter = link.pings.pop(nonce, (None, None))
    if sent is not None:
        link.round_trip = time - sent
        if sent >= link.bulk_at:
            # It was asked after our last big message, and so has that behind it.
            link.excused = float("-inf")
        if waiter is not None and not waiter.done():
            waiter.set_result(link.round_trip)
