"""Round trip and bandwidth of a link, measured by either end in a way that leaves room for the runs beside it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from time import perf_counter

from mpc.errors import PeerError, PeerUnavailable, ProtocolViolation, RemoteError, printable
from parties.check.messages import CheckMessage, CheckRefused, Probe, Probed
from parties.check.reach import Reach, explanation, probe
from parties.cluster import Member
from parties.wire.events import Delivery
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


class Busy(RemoteError):  # noqa: N818 - says what happened
    """The server will not look now; worth another try after ``wait`` s."""

    def __init__(self, peer: str, message: CheckRefused) -> None:
        super().__init__(peer, printable(message.reason))
        self.wait = message.wait


class Answers:
    """Who is expected to answer which question, and what came."""

    def __init__(self) -> None:
        self._awaited: dict[str, tuple[str, asyncio.Future[Delivery]]] = {}

    @contextlib.contextmanager
    def awaited(self, peer: str) -> Iterator[tuple[str, asyncio.Future[Delivery]]]:
        """The id of a new question to ``peer``, and its answer to be."""
        query = secrets.token_hex(16)
        future: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self._awaited[query] = peer, future
        try:
            yield query, future
        finally:
            del self._awaited[query]
            # Nobody will fetch an error that comes after this.
            future.cancel()

    def take(self, delivery: Delivery) -> None:
        """An answer; one that nobody waits for, or from somebody else, is dropped."""
        message, sender = delivery.message, delivery.sender.name
        if not isinstance(message, CheckMessage):
            return
        peer, future = self._awaited.get(message.query, ("", None))
        if future is None or peer != sender or future.done():
            return
        if isinstance(message, CheckRefused):
            future.set_exception(Busy(sender, message))
        else:
            future.set_result(delivery)

    def fail(self, peer: str, error: PeerError) -> None:
        """Nothing more will come from the peer."""
        for expected, future in self._awaited.values():
            if expected == peer and not future.done():
                future.set_exception(error)


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
        limit = self._endpoint.cluster.settings.max_message_bytes
        for size in (size for size in LADDER if size <= limit):
            seconds = await self._probe(peer, size, patience, there=there)
            # A tenth at least: the round trip measured may have been an unlucky one.
            rate = size / max(seconds - round_trip, seconds / 10)
            if seconds - round_trip > LONG_ENOUGH:
                break
        return rate

    async def _probe(self, peer: str, size: int, patience: float, *, there: bool) -> float:
        with self._answers.awaited(peer) as (query, future):
            # Zeros will do: what goes over the wire is encrypted, and nothing on the way can compress it.
            payload = [bytes(size)] if there else []
            started = perf_counter()
            self._endpoint.send(peer, Probe(query=query, reply=0 if there else size), payload)
            delivery = await answer_in(future, peer, patience)
            seconds = perf_counter() - started
        if not isinstance(delivery.message, Probed) or payload_bytes(delivery.buffers) != (0 if there else size):
            raise ProtocolViolation(peer, "answered a probe with something else")
        return seconds


async def answer_in(future: asyncio.Future[Delivery], peer: str, patience: float) -> Delivery:
    """The answer.  Raises PeerUnavailable when there is none in ``patience`` s, or what it failed with."""
    try:
        async with asyncio.timeout(patience):
            return await future
    except TimeoutError:
        raise PeerUnavailable(
            peer,
            f"did not answer within {patience:g} s: it is frozen or overloaded, or the link carries next to nothing",
        ) from None
