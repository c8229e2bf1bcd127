"""The data channels of one process: asked for and offered over CURVE, dialled, taken in, and made anew when they break.

Whoever has connected to a server over CURVE, and whose greeting agrees, asks it for a channel; so connections go the
same way as those of the links, and clients listen nowhere.  Over the channel go the large buffers of what goes over
that CURVE connection: of two servers each dials one, for what it sends; a client dials one, for both directions.

A channel ends with the connection whose messages it serves, with the process at its other end, and when either end
says so.  Until there is one, and where there can be none (no data port, no way through a firewall, no AES in the
processor), everything goes over CURVE.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag

from parties.members.cluster import Member, Role
from parties.wire.channel import Channel
from parties.wire.data_keys import NAME, RANDOM, SLACK, ChannelKeys, End, Opener, Sealer, hardware_aes
from parties.wire.data_port import DataPort, connected
from parties.wire.links import Link
from parties.wire.messages import ChannelOffered, ChannelWanted
from parties.wire.wires import Owner

log = logging.getLogger(__name__)

_CONNECT = 3.0
"""s that a connection to a data port may take."""
# s until one that has failed, or broken, is tried again; twice as long each time, up to the last.
_RETRY, _RETRY_MOST = 0.5, 60.0


@dataclass(eq=False)
class _Wish:
    """For a channel to one server."""

    random: bytes = b""
    """What we have asked with; empty while we have not."""
    delay: float = _RETRY
    timer: asyncio.TimerHandle | None = None
    dialling: asyncio.Task[None] | None = None

    def forget(self) -> None:
        """Nothing is under way any more."""
        self.random = b""
        if self.timer is not None:
            self.timer.cancel()
        if self.dialling is not None:
            self.dialling.cancel()
        self.timer = self.dialling = None


@dataclass(frozen=True, eq=False)
class _Offer:
    """Of ours, to whoever comes and proves to have its secret."""

    link: Link
    incarnation: bytes | None
    keys: ChannelKeys = field(repr=False)


class Channels:
    """Of one process; see the module.

    Args:
        me: this process; a server listens, if it has a data port.
        timeout: s after which what does not come is not waited for.
    """

    def __init__(self, me: Member, owner: Owner, timeout: float) -> None:
        self._me, self._owner, self._timeout = me, owner, timeout
        self._wanted = hardware_aes() and me.role is not Role.OPERATOR and me.data_port != 0
        self._port: DataPort | None = None
        self._wishes: dict[Link, _Wish] = {}
        self._offers: dict[bytes, _Offer] = {}
        self._all: dict[Channel, Link] = {}

    async def open(self) -> None:
        """Raises ConfigurationError where a server cannot listen."""
        if self._wanted and self._me.is_server:
            port = DataPort(self._me, self._admit)
            await port.open()
            self._port = port

    def close(self) -> None:
        """Ends all of them.  Idempotent."""
        if self._port is not None:
            self._port.close()
            self._port = None
        for wish in self._wishes.values():
            wish.forget()
        self._wishes.clear()
        self._offers.clear()
        for channel, link in tuple(self._all.items()):
            channel.close()
            self._let_go(channel, link)

    # --- what happens on a link

    def arrange(self, link: Link, message: ChannelWanted | ChannelOffered | None) -> None:
        """The peer has said that over the link, on which greetings agree; or None: they do now."""
        if not self._wanted:
            return
        if isinstance(message, ChannelWanted):
            self._offer(link, message)
        elif isinstance(message, ChannelOffered):
            self._take_up(link, message)
        elif link.peer.is_server and link.sending is None:
            wish = self._wishes.get(link)
            # What has not been answered may not have been heard, or the answer has been lost.
            if wish is None or (wish.timer is None and wish.dialling is None):
                self._wish(link)

    def drop(self, link: Link, reason: str) -> None:
        """The connection that carried the link's messages is gone, and with it the channel for them."""
        wish = self._wishes.pop(link, None)
        if wish is not None:
            wish.forget()
        if link.sending is not None:
            link.sending.end(reason)

    def dismiss(self, link: Link, reason: str) -> None:
        """The peer is no member any more: no channel with it stands, and none that was offered will."""
        self.drop(link, reason)
        self._withdraw(link)
        if link.receiving is not None:
            link.receiving.end(reason)

    # --- reading and writing without the event loop

    def read(self) -> None:
        """What has come, as far as there is room."""
        for channel in tuple(self._all):
            channel.read()

    def catch_up(self) -> None:
        """As ``read``; and what does not come is given up."""
        for channel in tuple(self._all):
            channel.read()
            channel.judge()

    def busy(self) -> Iterator[Channel]:
        """Those that have something to read or to write."""
        return (channel for channel in self._all if channel.expects or channel.sends)

    # --- dialling

    def _wish(self, link: Link) -> None:
        wish = self._wishes.setdefault(link, _Wish())
        wish.random = os.urandom(RANDOM)
        if not self._owner.transmit(link, ChannelWanted(wish.random)):
            wish.forget()

    def _take_up(self, link: Link, offer: ChannelOffered) -> None:
        wish = self._wishes.get(link)
        # An answer to what was asked before the last connection is of no use.
        if wish is None or wish.dialling is not None or not hmac.compare_digest(offer.wanted, wish.random):
            return
        dialling = self._dial(link, wish, offer)
        wish.dialling = asyncio.get_running_loop().create_task(dialling, name="tessera data channel")

    async def _dial(self, link: Link, wish: _Wish, offer: ChannelOffered) -> None:
        host = str(link.peer.address).rpartition(":")[0].strip("[]")
        keys = self._keys(link, wish.random, offer.random, we_dial=True)
        try:
            async with asyncio.timeout(_CONNECT):
                connection = await connected(host, offer.port)
        except (OSError, TimeoutError) as error:
            log.info("no data channel to %s, port %d: %s", link.peer.name, offer.port, error or "no answer")
            wish.dialling = None
            self._again(link, wish)
            return
        channel = self._made(link, connection, keys, keys.dialler, keys.acceptor)
        try:
            connection.send(keys.name + channel.prove())
        except OSError as error:
            channel.end(f"broke ({error.strerror})")
            return
        if not self._me.is_server:
            link.receiving = channel
        channel.expect(channel.name, [0], lambda _: self._stands(link, channel))

    def _stands(self, link: Link, channel: Channel) -> None:
        """The server has proved, too, that it has the keys."""
        link.sending = channel
        wish = self._wishes.get(link)
        if wish is not None:
            wish.forget()
            wish.delay = _RETRY

    def _again(self, link: Link, wish: _Wish) -> None:
        """Asks once more, later, if the link still stands then."""
        wish.forget()
        wish.timer = asyncio.get_running_loop().call_later(wish.delay, self._retry, link, wish)
        wish.delay = min(2 * wish.delay, _RETRY_MOST)

    def _retry(self, link: Link, wish: _Wish) -> None:
        wish.timer = None
        if link.established.is_set() and link.sending is None:
            self._wish(link)

    # --- being dialled

    def _offer(self, link: Link, wanted: ChannelWanted) -> None:
        if self._port is None:
            return
        self._withdraw(link)
        random = os.urandom(RANDOM)
        keys = self._keys(link, wanted.random, random, we_dial=False)
        self._offers[keys.name] = _Offer(link, link.incarnation, keys)
        self._owner.transmit(link, ChannelOffered(wanted.random, random, self._port.number))

    def _withdraw(self, link: Link) -> None:
        for name in [name for name, offer in self._offers.items() if offer.link is link]:
            del self._offers[name]

    def _admit(self, proof: bytes, connection: socket.socket) -> bool:
        """Takes a connection to the data port, if it begins as an offered channel does."""
        name, frame = proof[:NAME], memoryview(proof)[NAME:]
        # Each offer is for one attempt.
        offer = self._offers.pop(name, None)
        if offer is None or not offer.link.agreed or offer.link.incarnation != offer.incarnation:
            return False
        link, keys = offer.link, offer.keys
        opener = Opener(keys.dialler)
        try:
            opener.open(frame, name, memoryview(bytearray(SLACK)))
        except InvalidTag:
            return False
        if link.receiving is not None:
            link.receiving.end("was replaced by another")
        channel = self._made(link, connection, keys, keys.acceptor, keys.dialler, opener)
        try:
            connection.send(channel.prove())
        except OSError:
            channel.close()
            self._let_go(channel, link)
            return True
        link.receiving = channel
        if not link.peer.is_server:
            link.sending = channel
        return True

    # --- both

    def _keys(self, link: Link, dialler: bytes, acceptor: bytes, *, we_dial: bool) -> ChannelKeys:
        here = End(self._me.key, self._owner.incarnation)
        there = End(link.peer.key, link.incarnation or b"")
        first, second = (here, there) if we_dial else (there, here)
        return ChannelKeys.agreed(first._replace(random=dialler), second._replace(random=acceptor))

    def _made(
        self,
        link: Link,
        connection: socket.socket,
        keys: ChannelKeys,
        ours: bytes,
        theirs: bytes,
        opener: Opener | None = None,
    ) -> Channel:
        channel = Channel(
            connection,
            keys.name,
            Sealer(ours),
            opener or Opener(theirs),
            has_room=self._owner.has_room,
            now=self._owner.now,
            timeout=self._timeout,
            on_lost=functools.partial(self._lost, link),
        )
        self._all[channel] = link
        return channel

    def _lost(self, link: Link, channel: Channel, reason: str, unsent: bool) -> None:
        received = link.receiving is channel
        self._let_go(channel, link)
        self._owner.on_channel_lost(link, reason, received, unsent)
        wish = self._wishes.get(link)
        if wish is not None and link.sending is None:
            self._again(link, wish)

    def _let_go(self, channel: Channel, link: Link) -> None:
        self._all.pop(channel, None)
        if link.sending is channel:
            link.sending = None
        if link.receiving is channel:
            link.receiving = None
