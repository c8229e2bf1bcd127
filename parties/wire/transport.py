"""Authenticated, numbered, watched links between the members of a cluster: one `Endpoint` per process.

The dealer and the parties bind one ROUTER each (the inbox) and connect one DEALER (an outbox) to every other
server's inbox, so two servers talk over two connections, one each way.  Clients bind nothing: they connect an
outbox to every server and are answered over the same connection.  All of it is CURVE, and only keys in the
cluster file get in.

What a peer does wrong never raises out of `Endpoint.receive`: it comes out of it as an event (see
`parties.wire.events`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import math
import os
from collections.abc import Collection, Iterator, Sequence
from time import monotonic

from mpc.errors import ConfigurationError, PeerError, PeerUnavailable
from parties.host.dumps import no_core_files
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.wire.apart import send_apart
from parties.wire.arrivals import Arrivals
from parties.wire.connecting import await_greeting
from parties.wire.events import Event, LinkFault, PeerDown
from parties.wire.expelling import Expelling
from parties.wire.following import peers_of
from parties.wire.links import BULK, Link, Traffic
from parties.wire.liveness import Liveness, Watch, note_ping
from parties.wire.messages import (
    MAX_BUFFERS,
    Buffer,
    Envelope,
    Hello,
    HelloReply,
    Incoming,
    Message,
    Ping,
    encode,
    payload_bytes,
)
from parties.wire.receiver import Receiver
from parties.wire.socket_wires import SocketWires
from parties.wire.version import package_version
from parties.wire.wires import Owner, Transport, Trouble, Way

log = logging.getLogger(__name__)

# s after which even a stream of messages that are there already gives the event loop a turn.
_TURN = 5e-3
# Messages that are handled before one more is read in between: the next of a member that sends little is not behind all
# that another has sent.
_MANY = 8


class Endpoint(Expelling):
    """One process's end of all its links.

    Belongs to one event loop and is not thread-safe; one task at a time may be in `receive`.  ``async with``
    starts and closes it.  A long computation belongs in a thread: an event loop that is held up for
    ``peer_timeout`` answers no pings, and peers will think the process frozen.

    Args:
        cluster: who takes part.
        me: which of its members this process is.
        keys: the key pair of ``me``.
        bind: whether to listen; so for servers, not so for clients.
        transport: what carries the frames.

    Raises:
        ConfigurationError: ``keys`` are not ``me``'s, or ``bind`` does not go with its role.
    """

    def __init__(
        self, cluster: Cluster, me: Member, keys: KeyPair, *, bind: bool, transport: Transport = SocketWires
    ) -> None:
        if keys.public != me.key:
            other = cluster.by_key(keys.public)
            raise ConfigurationError(
                f"the key file does not hold {me.name}'s key, but that of {other.name} ({other.role}): give the right"
                f" key file, or start {other.name} with it"
                if other is not None
                else f"the key file does not hold {me.name}'s key: its public key is {keys.public}, "
                f"the cluster file lists {me.key}; give the right key file, or correct the cluster file"
            )
        if bind != me.is_server:
            raise ConfigurationError(
                f"{me.name} is a {me.role} and {'must not' if bind else 'has to'} listen: start it as one"
            )
        super().__init__(cluster, me)
        no_core_files()
        self._limit = cluster.max_message_bytes
        self._incarnation = os.urandom(8)
        self._links = {peer.name: Link(peer) for peer in peers_of(cluster, me)}
        self._events = Arrivals()
        self._waiter: asyncio.Future[None] | None = None
        self._nonces = itertools.count()
        self._eager = 0
        self._turn_at = 0.0
        self._running = False
        self._liveness = Liveness(
            self._links,
            cluster.settings.peer_timeout,
            read=self._catch_up,
            ping=self._probe,
            report=lambda link, error: self._emit(PeerDown(link.peer, error)),
        )
        self._receiver = Receiver(
            package_version(),
            me.role,
            self.newest,
            self._limit,
            in_vain=self._in_vain,
            now=self._liveness.now,
            emit=self._emit,
            transmit=self._transmit,
            turn_away=self._turn_away,
            returned=self._liveness.returned,
            go_on=self._newer,
            arrange=lambda link, message: self._wires.arrange(link, message),
        )
        self._wires = transport(
            cluster,
            me,
            keys,
            self._links,
            Owner(
                on_up=self._greet,
                on_down=lambda link: link.lose(self._liveness.now()),
                on_departure=self._probe_clients,
                on_message=self._receiver.take,
                on_fault=lambda link, error: self._emit(LinkFault(link.peer, error)),
                has_room=self._events.has_room,
                incarnation=self._incarnation,
                now=self._liveness.now,
                transmit=self._transmit,
                on_channel_lost=self._receiver.channel_lost,
            ),
        )

    # --- life

    async def start(self) -> None:
        """Listens, and begins to connect to the servers; does not wait for them (see `connect`).

        Raises:
            ConfigurationError: the port is in use, or the address is not this machine's or makes no sense.
        """
        if self._running:
            return
        await self._wires.open()
        self._heart = asyncio.create_task(self._liveness.run(), name="tessera liveness")
        self._running = True

    async def close(self) -> None:
        """Drops all connections and what is still queued, and ends every task of the endpoint.  Idempotent.

        A task in `receive` or `ping` gets `PeerUnavailable`.
        """
        if not self._running:
            return
        self._running = False
        self._heart.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._heart
        await self._wires.close()
        for link in self._links.values():
            link.forget()
        self._events.clear()
        self._wake()

    async def __aenter__(self) -> Endpoint:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # --- reaching peers

    async def connect(self, peers: Collection[str] | None = None, deadline: float = 10.0) -> None:
        """Waits until each peer, by default every server, has answered our greeting.

        Args:
            peers: names; for a client's name, waits until the client has greeted us.
            deadline: s for all of them together.

        Raises:
            PeerUnavailable: no answer in time.
            AuthenticationError: the peer does not let our key in, or does not hold the key listed for it.
            VersionMismatch: another version of Tessera, or another cluster file.
        """
        names = self._wires.outboxes if peers is None else peers
        for name in names:
            self._link(name)

        def find(name: str) -> tuple[Link, Way | None] | PeerError:
            if self.newest is not self.succession:
                # One has told us; others may not even be there any more.
                return self._cannot_go_on()
            return self._link(name), self._wires.outboxes.get(name)

        def denied_for_good() -> bool:
            """By one server alone, it may be that it has yet to hear of our file, which has followed another."""
            ways = self._wires.outboxes.values()
            return not self.cluster.former or all(way.trouble is Trouble.DENIED for way in ways)

        waits = (
            await_greeting(self.me, functools.partial(find, name), deadline, denied_for_good) for name in tuple(names)
        )
        errors = await asyncio.gather(*waits)
        for error in errors:
            if error is not None:
                raise error

    async def ping(self, peer: str, deadline: float | None = None) -> float:
        """Measures the round trip to the peer's event loop and back, in s.

        Raises:
            PeerUnavailable: not connected, or no answer within ``deadline`` s (by default ``peer_timeout``).
        """
        link = self._link(peer)
        limit = self.cluster.settings.peer_timeout if deadline is None else deadline
        waiter: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        if not self._probe(link, waiter):
            raise PeerUnavailable(peer, "is not connected")
        done, _ = await asyncio.wait((waiter,), timeout=limit)
        if done and not waiter.cancelled():
            return waiter.result()
        raise PeerUnavailable(peer, f"did not answer a ping within {limit:g} s")

    def watch(self, peers: Collection[str]) -> Watch:
        """Until the watch is stopped, the loss of any of these peers comes out of `receive`, once each."""
        return self._liveness.watch(frozenset(self._link(name).peer.name for name in peers))

    def connected(self, peer: str) -> bool:
        """Whether greetings have been exchanged with the peer over a connection that still stands."""
        return self._link(peer).established.is_set()

    def last_heard(self, peer: str) -> float | None:
        """Seconds since anything valid came from the peer, without those that our own event loop was held up.

        None: never.  Only a watched peer is sure to say something every second.
        """
        heard = self._link(peer).heard
        return None if heard is None else self._liveness.now() - heard

    def round_trip(self, peer: str) -> float | None:
        """The last round trip measured, by `ping` or by a watch, in s; None: none yet."""
        return self._link(peer).round_trip

    def traffic(self, peer: str) -> Traffic:
        """Counters of the link, live."""
        return self._link(peer).traffic

    # --- messages

    def send(self, peer: str, message: Message, buffers: Sequence[Buffer] = (), *, copy: bool = False) -> int:
        """Queues a message; never blocks.

        Args:
            buffers: C-contiguous arrays, memoryviews or bytes, one payload frame each.  With ``copy=False``
                those of 64 KiB and more are sent from where they are, later: **do not write to them again**,
                ever.  (Dropping them is fine.)  If one has 256 KiB or more, all of 4 KiB and more go over the data
                channel, if there is one.

        Returns:
            Bytes of payload.

        Raises:
            PeerUnavailable: there is no connection, or 10,000 messages wait already, or 2,048 large ones.
            VersionMismatch, RemoteError: the greeting failed, or the peer refused the link.
            ConfigurationError: more payload than ``max_message_mb`` allows.
        """
        link = self._link(peer)
        if link.refusal is not None and not link.agreed:
            raise link.refusal
        if link.behind is not None:
            raise link.behind
        payload = payload_bytes(buffers)
        if payload > self._limit or len(buffers) > MAX_BUFFERS:
            raise ConfigurationError(
                f"a message of {payload / (1 << 20):.1f} MiB in {len(buffers)} buffers to {peer} is beyond "
                f"the limit of {self._limit >> 20} MiB and {MAX_BUFFERS} buffers: send less at once, "
                "or raise max_message_mb, and memory_mb, in everybody's cluster file"
            )
        if not (self._running and self._send(link, message, buffers, payload, copy=copy)):
            raise PeerUnavailable(
                peer, f"{type(message).__name__} cannot be sent: it is not connected, or does not read"
            )
        link.traffic.messages_sent += 1
        link.traffic.payload_sent += payload
        return payload

    async def receive(self) -> Event:
        """The next message, or the next thing that became known about a peer.

        Raises:
            PeerUnavailable: the endpoint is closed.
        """
        if self._eager and self._running and not self._events:
            until = monotonic() + _TURN
            while self._running and not self._events and self._wires.read_one(wait=True):
                if monotonic() > until:
                    # What is answered here, or is a part of something, makes no event, however much of it comes.
                    await asyncio.sleep(0)
                    until = monotonic() + _TURN
            if self._running and not self._events:
                self._wires.read()
        if self._events and monotonic() > self._turn_at:
            await asyncio.sleep(0)
            self._turn_at = monotonic() + _TURN
        while not self._events:
            if not self._running:
                raise PeerUnavailable(self.me.name, "this endpoint is closed")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
            self._turn_at = monotonic() + _TURN
        event = self._events.take()
        if len(self._events) > _MANY:
            self._wires.read_one(wait=False)
        if self._events.resumes():
            asyncio.get_running_loop().call_soon(self._wires.read)
        return event

    @contextlib.contextmanager
    def low_latency(self) -> Iterator[None]:
        """Within it `receive` blocks for up to a millisecond before it leaves the wait to the event loop.

        That saves the event loop's part of the latency of each message, at the cost of every other task's.
        """
        self._eager += 1
        try:
            yield
        finally:
            self._eager -= 1
            self._wires.read()

    # --- inside

    def _link(self, name: str) -> Link:
        try:
            return self._links[name]
        except KeyError:
            raise ConfigurationError(
                f"{self.me.name} has no link to {name!r}: it has links to {', '.join(self._links)}"
            ) from None

    def _send(self, link: Link, message: Message, buffers: Sequence[Buffer], payload: int, *, copy: bool) -> bool:
        envelope = Envelope(self._incarnation, link.outgoing)
        sent = send_apart(link, message, buffers, envelope, self._put, copy=copy)
        if sent is not None:
            return sent
        if payload >= BULK and self._transmit(link, Incoming(payload)):
            link.excuse(self._liveness.now(), payload)
            link.bulk_at = monotonic()
            envelope = Envelope(self._incarnation, link.outgoing)
        return self._put(link, encode(message, buffers, envelope), copy=copy)

    def _put(self, link: Link, frames: list[bytes | memoryview], *, copy: bool) -> bool:
        """Sends what carries the link's next number; False if it cannot go now."""
        sent = self._wires.send(link, frames, copy=copy)
        if sent:
            link.outgoing += 1
            link.traffic.bytes_sent += sum(map(len, frames))
        return sent

    def _transmit(self, link: Link, message: Message, payload: Sequence[bytes] = ()) -> bool:
        return self._put(link, encode(message, payload, Envelope(self._incarnation, link.outgoing)), copy=True)

    def _probe(self, link: Link, waiter: asyncio.Future[float] | None = None) -> bool:
        nonce = next(self._nonces)
        sent = self._running and self._transmit(link, Ping(nonce))
        if sent:
            note_ping(link, nonce, monotonic(), waiter)
        return sent

    def _probe_clients(self) -> None:
        for link in self._links.values():
            if link.route is not None:
                self._probe(link)

    def _catch_up(self) -> bool:
        self._wires.catch_up()
        return self._events.has_room()

    def _emit(self, event: Event) -> None:
        self._events.put(event)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _greet(self, link: Link) -> None:
        if link.broken is not None and math.isfinite(link.broken):
            self._liveness.returned(link)
        link.broken = link.refusal = None
        self._transmit(link, Hello(*self._receiver.greeting))
        if link.incarnation is not None:
            # It may have greeted us while there was no way to answer.
            self._transmit(link, HelloReply(*self._receiver.greeting))
