"""Round trip and bandwidth of a link, measured by either end in a way that leaves room for the runs beside it."""

from __future__ import annotations

from time import perf_counter

from mpc.errors import PeerError, PeerUnavailable, ProtocolViolation
from parties.members.cluster import Member
from parties.messages.check import Probe, Probed, Reach
from parties.operate.check.asking import Answers, answer_in
from parties.operate.check.reach import explanation, probe
from parties.wire.messages import payload_bytes
from parties.wire.transport import Endpoint

PINGS = 5

LADDER = tuple(1 << n for n in range(15, 23))
"""Bytes of one probe after the other, 32 KiB to 4 MiB: together just under 8 MiB."""

LADDER_BYTES = sum(LADDER)

LONG_ENOUGH = 0.2
"""s; a probe that takes longer is the last one.  Messages of runs wait behind a probe, for about as long at most."""

_HOPELESS = 1.0
"""s given to a server at which nothing listens: it may be about to start."""


class Prober:
    """Measures links of ``endpoint``; whoever receives its messages hands the answers to ``answers``."""

    def __init__(self, endpoint: Endpoint, answers: Answers) -> None:
        self._endpoint = endpoint
        self._answers = answers

    async def look(self, server: Member, patience: float) -> tuple[Reach, float | PeerError]:
        """How far TCP gets, and the fastest of a few round trips in s, or what is wrong; in about ``patience`` s."""
        name, address = server.name, server.address or ""
        reach = Reach.OPEN
        try:
            if not self._endpoint.connected(name):
                reach = await probe(address, patience / 2)
                hopeless = reach in (Reach.REFUSED, Reach.UNRESOLVED, Reach.UNREACHABLE)
                await self._endpoint.connect([name], min(patience / 2, _HOPELESS) if hopeless else patience / 2)
            limit = patience / 2
            return Reach.OPEN, min([await self._endpoint.ping(name, limit) for _ in range(PINGS)])
        except PeerUnavailable:
            if reach is Reach.OPEN:
                # Established once does not mean that packets still get through.
                reach = await probe(address, patience / 4)
            return reach, PeerUnavailable(name, explanation(server, reach))
        except PeerError as error:
            # What was the matter before counts for nothing where no connection gets through now.
            return reach, error if reach is Reach.OPEN else PeerUnavailable(name, explanation(server, reach))

    async def upload(self, peer: str, round_trip: float, patience: float) -> float:
        """Bytes per second to the peer.  Raises PeerError."""
        return await self._climb(peer, round_trip, patience, there=True)

    async def download(self, peer: str, round_trip: float, patience: float) -> float:
        """Bytes per second from the peer.  Raises PeerError."""
        return await self._climb(peer, round_trip, patience, there=False)

    async def _climb(self, peer: str, round_trip: float, patience: float, *, there: bool) -> float:
        """Ever bigger probes, until one takes long enough to tell; each waits for the answer to the one before."""
        rate = 0.0
        limit = self._endpoint.cluster.max_message_bytes
        for size in (size for size in LADDER if size <= limit):
            seconds = await self._probe(peer, size, patience, there=there)
            # A tenth at least: the round trip measured may have been an unlucky one.
            rate = size / max(seconds - round_trip, seconds / 10)
            if seconds - round_trip > LONG_ENOUGH:
                break
        return rate

    async def _probe(self, peer: str, size: int, patience: float, *, there: bool) -> float:
        with self._answers.awaited(peer) as (request, future):
            # Zeros will do: what goes over the wire is encrypted, and nothing on the way can compress it.
            payload = [bytes(size)] if there else []
            started = perf_counter()
            self._endpoint.send(peer, Probe(request=request, reply=0 if there else size), payload)
            delivery = await answer_in(future, peer, patience)
            seconds = perf_counter() - started
        if not isinstance(delivery.message, Probed) or payload_bytes(delivery.buffers) != (0 if there else size):
            raise ProtocolViolation(peer, "answered a probe with something else")
        return seconds
