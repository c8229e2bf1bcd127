"""What becomes of arriving messages: checked, then answered if they are the link's own, else passed on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from mpc.errors import (
    AuthenticationError,
    ConfigurationError,
    PeerError,
    PeerLost,
    ProtocolViolation,
    RemoteError,
    VersionMismatch,
    printable,
)
from parties.members.cluster import Role
from parties.members.succession import Succession
from parties.wire.apart import Layout
from parties.wire.channel import sealed_bytes
from parties.wire.data_keys import NAME
from parties.wire.events import Delivery, Event, LinkFault, PeerRestarted
from parties.wire.lanes import Lanes
from parties.wire.links import BULK, Link, Order
from parties.wire.liveness import note_pong
from parties.wire.messages import (
    SERVERS,
    ChannelOffered,
    ChannelWanted,
    Envelope,
    Hello,
    HelloReply,
    Incoming,
    Message,
    Payload,
    Ping,
    Pong,
    Refused,
    Succeeded,
    check_frames,
    decode_envelope,
    decode_header,
    joined,
)

log = logging.getLogger(__name__)

_QUOTED = 500
"""Characters of what a peer says in words."""
_UNGREETED = "sent a message before its greeting"
_LINK_MESSAGES = (ChannelOffered, ChannelWanted, Hello, HelloReply, Incoming, Ping, Pong, Refused, Succeeded)


class Receiver:
    """Checks and sorts messages, each attributed to a link by the key it came with.

    Every peer has to run our package version and our cluster file; one that has an older file is told what followed it,
    and what a peer tells of newer ones is gone on to, if it is signed.

    Args:
        version: of the package.
        me: our own role.
        succession: of cluster files; the last is ours.
        limit: most payload bytes of a message.
        now: the liveness clock.
        emit: takes an event for the application.
        transmit: answers.
        turn_away: tells a process, by its incarnation and route, that another has taken its place.
        returned: a client is there again over another connection.
        go_on: takes a newer succession, which becomes ours unless it raises PeerError.
        arrange: takes what is said about data channels; or None, when greetings agree.
        in_vain: a message has come to nothing, or is the link's own.
    """

    def __init__(
        self,
        version: str,
        me: Role,
        succession: Succession,
        limit: int,
        *,
        now: Callable[[], float],
        emit: Callable[[Event], None],
        transmit: Callable[..., bool],
        turn_away: Callable[[Link, bytes, bytes | None], None],
        returned: Callable[[Link], None],
        go_on: Callable[[Link, Succession], None],
        arrange: Callable[[Link, ChannelWanted | ChannelOffered | None], None],
        in_vain: Callable[[Link], None],
    ) -> None:
        self._version, self._me = version, me
        self.succession = succession
        self.successor: Succession | None = None
        """What another takes our place with, once we have ended."""
        self._limit = limit
        self._in_vain = in_vain
        self._now, self._emit, self._transmit = now, emit, transmit
        self._turn_away, self._returned, self._go_on, self._arrange = turn_away, returned, go_on, arrange

    @property
    def greeting(self) -> tuple[str, str, int]:
        """What we say first."""
        cluster = self.succession.cluster
        return self._version, cluster.fingerprint, cluster.number

    def take(self, link: Link, frames: Sequence[memoryview], route: bytes | None) -> None:
        """Takes in one message, with the route back if it came through the inbox.  Never raises."""
        try:
            self._take(link, frames, route)
        except PeerError as error:
            self._in_vain(link)
            if isinstance(error, VersionMismatch):
                link.refusal, link.agreed = error, False
                link.established.clear()
            self._emit(LinkFault(link.peer, _bare(error)))
        except Exception:
            self._in_vain(link)
            log.exception("a message from %s could not be handled", link.peer.name)
            self._emit(LinkFault(link.peer, ProtocolViolation(link.peer.name, "sent what cannot be handled")))

    def _take(self, link: Link, frames: Sequence[memoryview], route: bytes | None) -> None:
        name = link.peer.name
        size = sum(map(len, frames))
        link.traffic.bytes_received += size
        check_frames(name, frames)
        envelope = decode_envelope(name, frames[0])
        try:
            self._take_by(envelope, link, frames, size, route)
        except PeerError:
            if envelope.apart:
                self._forsake(link, frames)
            raise

    def _take_by(
        self, envelope: Envelope, link: Link, frames: Sequence[memoryview], size: int, route: bytes | None
    ) -> None:
        name = link.peer.name
        due = link.expected
        # A header that makes no sense is complained of only once its message is counted, or the next were out
        # of order.
        layout: Layout | None = None
        payload = size - len(frames[0]) - len(frames[1])
        message: Message | PeerError
        try:
            if envelope.apart:
                layout = Layout.read(name, frames)
                payload = sum(layout.lengths)
            message = self._header(link, frames[1], payload)
            if envelope.apart and isinstance(message, _LINK_MESSAGES):
                raise ProtocolViolation(name, f"sent a {type(message).__name__} with buffers apart")
        except ProtocolViolation as error:
            message = error
        order = link.admit(envelope, greeting=isinstance(message, Hello | HelloReply))
        gap = None
        if order is not Order.NEXT:
            if order is Order.REPLACED:
                self._turn_away(link, envelope.incarnation, route)
                return
            gap = self._out_of_order(link, order, envelope.sequence, due, message)
        link.heard, link.down = self._now(), False
        if route is not None and not link.peer.is_server:
            if route != link.route and order in (Order.NEXT, Order.GAP):
                # What it could not send meanwhile has no number, and leaves no gap: that a run is given up, perhaps.
                self._returned(link)
            link.route, link.broken = route, None
        if isinstance(message, _LINK_MESSAGES):
            # The link's own business goes on after a gap; often it is the greeting of a new connection.
            if gap is not None:
                self._emit(LinkFault(link.peer, gap))
            self._link_message(link, message, joined(name, frames[2:]))
            return
        if gap is not None:
            raise gap
        if isinstance(message, PeerError):
            raise message
        if not link.agreed:
            raise link.refusal or link.behind or ProtocolViolation(name, _UNGREETED)
        if layout is not None:
            self._await(link, message, layout, size)
            return
        if payload >= BULK:
            link.excused = link.heard
        delivery = Delivery(link.peer, message, joined(name, frames[2:]))
        self._lanes(link).put(delivery, size)
        _count(link, payload)

    def _await(self, link: Link, message: Message, layout: Layout, size: int) -> None:
        """The rest of the message comes over the data channel."""
        channel = link.receiving
        if channel is None or channel.name != layout.channel:
            raise PeerLost(link.peer.name, "its data connection broke, and messages with it")
        lanes = self._lanes(link)
        slot = lanes.announce(message.lane, size)

        def whole(large: Payload) -> None:
            link.traffic.bytes_received += sealed_bytes(layout.large)
            _count(link, sum(layout.lengths))
            lanes.fill(slot, Delivery(link.peer, message, layout.together(large)))

        channel.expect(layout.binding, layout.large, whole)

    def _lanes(self, link: Link) -> Lanes:
        if link.lanes is None:
            link.lanes = Lanes(link.peer.name, self._emit)
        return link.lanes

    def _forsake(self, link: Link, frames: Sequence[memoryview]) -> None:
        """A message is not taken: what it announces comes all the same, and nothing behind it could be read."""
        if link.receiving is not None and bytes(frames[2][:NAME] if len(frames) > 2 else b"") == link.receiving.name:
            link.receiving.end("was to bring what cannot be taken")

    def channel_lost(self, link: Link, reason: str, received: bool, unsent: bool) -> None:
        """A data channel has ended: ``received``, if that from which messages came."""
        expected = received and link.lanes is not None and len(link.lanes) > 0
        waiting = link.lanes.give_up() if link.lanes is not None and expected else []
        if expected or unsent:
            error = PeerLost(link.peer.name, f"its data connection {reason}: messages on the way are lost")
            self._emit(LinkFault(link.peer, error))
        for delivery in waiting:
            self._emit(delivery)

    def _out_of_order(
        self, link: Link, order: Order, sequence: int, due: int, message: Message | PeerError
    ) -> PeerError | None:
        """Raises for a message that does not count; returns the complaint about a gap before it."""
        name = link.peer.name
        match order:
            case Order.UNGREETED:
                raise ProtocolViolation(name, _UNGREETED)
            case Order.REPEATED:
                raise ProtocolViolation(name, f"repeated message {sequence} when {due} was due")
            case Order.RESTARTED:
                for channel in (link.sending, link.receiving):
                    if channel is not None:
                        channel.end("was that of another process")
                self._emit(PeerRestarted(link.peer))
            case Order.GAP if isinstance(message, Hello | HelloReply):
                # The first words over a new connection: what the old one still had to carry went with it.
                return PeerLost(name, f"its connection broke, and messages of it were lost ({sequence - due})")
            case Order.GAP:
                return ProtocolViolation(
                    name, f"sent message {sequence} when {due} was due: {sequence - due} lost on the way"
                )
        return None

    def _header(self, link: Link, frame: memoryview, payload: int) -> Message | PeerError:
        name = link.peer.name
        if payload > self._limit:
            return ProtocolViolation(name, f"sent a message of {payload} bytes, beyond the limit of {self._limit}")
        try:
            message = decode_header(name, frame)
        except ProtocolViolation as error:
            return error
        if link.peer.role not in message.senders:
            return AuthenticationError(name, f"is a {link.peer.role} and may not send {type(message).__name__}")
        return message

    def _link_message(self, link: Link, message: Message, payload: Sequence[memoryview]) -> None:
        self._in_vain(link)
        match message:
            case Hello():
                if self._gives_way(link, message):
                    return
                self._transmit(link, HelloReply(*self.greeting))
                self._compare(link, message)
                if link.agreed and not link.peer.is_server:
                    link.established.set()
            case HelloReply():
                self._compare(link, message)
                if link.agreed and link.broken is None:
                    link.established.set()
                    self._arrange(link, None)
            case Succeeded():
                self._succeed(link, payload)
            case ChannelWanted() | ChannelOffered():
                if link.agreed:
                    self._arrange(link, message)
            case Incoming(payload_bytes=size):
                link.excuse(self._now(), size)
            case Ping(nonce=nonce):
                self._transmit(link, Pong(nonce))
            case Pong(nonce=nonce):
                note_pong(link, nonce, monotonic())
            case Refused(reason=reason):
                link.agreed = False
                link.established.clear()
                link.refusal = RemoteError(link.peer.name, printable(reason[:_QUOTED]))
                raise link.refusal

    def _compare(self, link: Link, greeting: Hello | HelloReply) -> None:
        version, fingerprint, number = self.greeting
        link.greeting = greeting
        if greeting.package_version == version and greeting.cluster_fingerprint == fingerprint:
            link.agreed, link.refusal, link.behind = True, None, None
            return
        link.agreed = False
        link.established.clear()
        name = link.peer.name
        if greeting.package_version != version:
            other = printable(greeting.package_version[:_QUOTED])
            raise VersionMismatch(name, f"runs Tessera {other}, we run {version}: install one release everywhere")
        older = greeting.cluster_number < number
        different = VersionMismatch(
            name,
            f"runs with cluster file {printable(greeting.cluster_fingerprint[:16])}, number {greeting.cluster_number},"
            f" we with {fingerprint[:16]}, number {number}: give every process the same file",
        )
        if older and self._me in SERVERS:
            self._transmit(link, Succeeded(), self.succession.since(greeting.cluster_fingerprint))
        if greeting.cluster_number == number:
            raise different
        # Whoever is behind is told, by us or by others who know how it came to that, and greets again.
        link.behind = different

    def _gives_way(self, link: Link, greeting: Hello) -> bool:
        """Whether we are about to end for newer cluster files that the peer does not know.

        It is greeted as by who comes after us, and told, so that it waits for that one and begins nothing here.
        """
        newer = self.successor
        steps = [] if newer is None else newer.since(greeting.cluster_fingerprint)
        if newer is None or not steps:
            return False
        link.greeting, link.agreed = greeting, False
        link.established.clear()
        self._transmit(link, HelloReply(self._version, newer.cluster.fingerprint, newer.cluster.number))
        self._transmit(link, Succeeded(), steps)
        return True

    def _succeed(self, link: Link, steps: Sequence[memoryview]) -> None:
        """Our cluster file is not the newest, says a server."""
        if not steps:
            raise link.behind or ProtocolViolation(link.peer.name, "spoke of newer cluster files, and sent none")
        try:
            newer = self.succession.told(steps)
        except ConfigurationError as error:
            raise ProtocolViolation(link.peer.name, f"sent a cluster file that cannot follow ours: {error}") from None
        if newer is not self.succession:
            self._go_on(link, newer)
        self._transmit(link, Hello(*self.greeting))
        # To what it has said before, with the file that it has told us of.
        self._transmit(link, HelloReply(*self.greeting))

    def compare_again(self, links: Iterable[Link]) -> None:
        """We have gone on: those agree with us that have been there before us, and are told that we are there."""
        version, fingerprint, _ = self.greeting
        for link in links:
            seen = link.greeting
            if seen is not None and (seen.package_version, seen.cluster_fingerprint) == (version, fingerprint):
                link.agreed, link.refusal, link.behind = True, None, None
                if link.broken is None:
                    link.established.set()
                self._transmit(link, HelloReply(*self.greeting))


def _bare(error: PeerError) -> PeerError:
    """The same, without where it was raised: that would keep the message for as long as somebody has the error."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def _count(link: Link, payload: int) -> None:
    link.traffic.messages_received += 1
    link.traffic.payload_received += payload
