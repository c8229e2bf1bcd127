"""Direct links: TCP connections between the workers of parties, and from a worker to its head, sealed.

No key of theirs is in a cluster file.  Each end makes an X25519 key pair (RFC 7748) for one link, and is told the
other's public key by somebody it trusts: heads tell each other over CURVE which key a run's worker has, and each tells
its own worker (`parties.servers.placing`).  So what two workers share is known to nobody else, not even to who later
reads a server's key, and a worker accepts no key but those that were vouched for, each for one link of one run.  Frames
are sealed as on data channels (`parties.wire.data_keys`): AES-256-GCM, counters as nonces, a key for each direction;
the derivation names both public keys and what the link is for.

Whoever is dialled has drawn a *door* for that link, 16 random bytes that the dialling end learns with the key.  A
connection begins with a hash of its door, which is for one attempt, and a frame that only the key makes; everything
else is closed without an answer (`parties.wire.data_port`).  So whoever names an address has a worker connect to it,
but does not choose a byte of what is sent there.  What comes behind it is a sequence of messages, as on links of
members (`parties.wire.messages`): nothing is unpickled, and no length is believed beyond what may come.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mpc.errors import ConfigurationError, PeerLost, ProtocolViolation
from parties.members.cluster import Member, Role
from parties.wire.data_keys import NAME, SLACK, TAG, ChannelKeys, End, Opener, Sealer
from parties.wire.data_port import DataPort, connected
from parties.wire.messages import (
    MAX_BUFFERS,
    MAX_HEADER_BYTES,
    Buffer,
    Message,
    Payload,
    as_bytes,
    decode_header,
    encode_header,
)
from parties.wire.stream import Stream

FRAME = 1 << 18
"""Bytes that a frame of a buffer carries, at most."""

NO_LIMIT = 1 << 50
"""Bytes that a message of a process of one's own may have."""

# Bytes of the header, how many buffers there are, and their bytes in all.
_HEAD = struct.Struct("<IIQ")
_LENGTH = struct.Struct("<Q")
_CONNECT = 5.0
_PATIENCE_MS = 60_000


class LinkKey:
    """An X25519 key pair for one link; its repr shows nothing."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def agreed(self, other: bytes, about: bytes, *, we_dial: bool) -> ChannelKeys:
        """The secrets of a link with the holder of ``other``.  Raises ValueError for what is no key."""
        secret = self._private.exchange(X25519PublicKey.from_public_bytes(other))
        dialler, acceptor = (self.public, other) if we_dial else (other, self.public)
        return ChannelKeys.agreed(End(dialler.hex(), about, secret), End(acceptor.hex(), about))


def shared_keys(secret: bytes, about: bytes) -> ChannelKeys:
    """Of a link whose ends were told one secret, by somebody who may know what goes over it."""
    return ChannelKeys.agreed(End("", about, secret), End("", about))


class DirectLink:
    """One end of a link that stands; ``peer`` is who errors name.  One task at a time may ``receive``."""

    def __init__(
        self,
        peer: str,
        stream: Stream,
        sealer: Sealer,
        opener: Opener,
        most: int,
    ) -> None:
        """``most``: bytes of payload that one message from there may have."""
        self.peer = peer
        self._stream = stream
        self._sealer, self._opener, self._most = sealer, opener, most

    def send(self, message: Message, buffers: Sequence[Buffer] = ()) -> int:
        """Queues a message; bytes of its payload.  Buffers may change once it has returned."""
        pieces = [as_bytes(buffer) for buffer in buffers]
        self._stream.write(*self._frames(message, pieces))
        return sum(map(len, pieces))

    async def deliver(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Sends a message, each frame once the ones before are on their way, so that nothing is kept a second time.

        Nothing else may be sent until it returns, and buffers stay as they are.  Raises PeerLost.
        """
        for frame in self._frames(message, [as_bytes(buffer) for buffer in buffers]):
            self._stream.write(frame)
            await self.flush()

    async def flush(self) -> None:
        """Returns once what is queued is not much any more.  Raises PeerLost."""
        try:
            await self._stream.flush()
        except OSError:
            raise self._lost() from None

    async def receive(self, most: int | None = None) -> tuple[Message, Payload]:
        """The next message; if that is to be known better, of ``most`` bytes of payload.

        Raises PeerLost; ProtocolViolation for what is none, or too large.
        """
        try:
            return await self._receive(self._most if most is None else most)
        except OSError:
            raise self._lost() from None
        except InvalidTag:
            raise ProtocolViolation(self.peer, "sent a frame that does not open, or another than was due") from None

    async def _receive(self, most: int) -> tuple[Message, Payload]:
        header, count, size = _HEAD.unpack(await self._open(_HEAD.size))
        if header > MAX_HEADER_BYTES or count > MAX_BUFFERS or size > most:
            raise ProtocolViolation(self.peer, f"sent a message of {count} buffers and {size} bytes, which is too much")
        head = await self._open(header + _LENGTH.size * count)
        lengths = [length for (length,) in _LENGTH.iter_unpack(head[header:])]
        if sum(lengths) != size:
            raise ProtocolViolation(self.peer, "sent a message whose buffers are not as long as it says")
        message = decode_header(self.peer, head[:header])
        return message, [await self._buffer(length) for length in lengths]

    async def _buffer(self, length: int) -> memoryview:
        buffer = np.empty(length + SLACK, np.uint8).data
        for start in range(0, length, FRAME):
            size = min(FRAME, length - start)
            self._opener.open(await self._stream.read(size + TAG), b"", buffer[start:])
        return buffer[:length]

    async def _open(self, size: int) -> memoryview:
        out = memoryview(bytearray(size + SLACK))
        self._opener.open(await self._stream.read(size + TAG), b"", out)
        return out[:size]

    def _frames(self, message: Message, pieces: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
        """A message, sealed frame by frame."""
        header = encode_header(message)
        yield self._sealed(_HEAD.pack(len(header), len(pieces), sum(map(len, pieces))))
        yield self._sealed(header + b"".join(_LENGTH.pack(len(piece)) for piece in pieces))
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), FRAME):
                yield self._sealed(view[start : start + FRAME])

    def _sealed(self, data: bytes | memoryview) -> memoryview:
        out = memoryview(bytearray(len(data) + TAG + SLACK))
        return out[: self._sealer.seal(data, b"", out)]

    def _lost(self) -> PeerLost:
        return PeerLost(self.peer, "closed the direct link")

    def close(self) -> None:
        """What is queued still goes, if it can.  Idempotent."""
        self._stream.close()

    def abort(self) -> None:
        """At once.  Idempotent."""
        self._stream.abort()


@dataclass(eq=False)
class _Door:
    """A link that is to come in."""

    peer: str
    most: int
    future: asyncio.Future[DirectLink]
    keys: ChannelKeys | None = None
    come: tuple[bytes, socket.socket] | None = None
    """Who is there before the key is known."""


class Doors:
    """Where one process is dialled: ``host``, at the first free one of ``ports`` (0: any)."""

    def __init__(self, name: str, host: str, ports: Sequence[int] = (0,)) -> None:
        self._name, self._host, self._ports = name, host, ports
        self._port: DataPort | None = None
        self._doors: dict[bytes, _Door] = {}

    @property
    def address(self) -> str:
        """``host:port``, once open."""
        return f"{self._host}:{0 if self._port is None else self._port.number}"

    async def open(self) -> None:
        """Raises ConfigurationError where all ports are taken, or the host is not ours."""
        for number in self._ports:
            # What a data port belongs to is a member; this one is in no file.
            me = Member(self._name, Role.PARTY, 0, f"{self._host}:1", "", data_port=number)
            port = DataPort(me, self._admit)
            try:
                await port.open()
            except ConfigurationError:
                if number == self._ports[-1]:
                    raise
            else:
                self._port = port
                return

    def close(self) -> None:
        """Nobody comes in any more.  Idempotent."""
        if self._port is not None:
            self._port.close()
        for shown in tuple(self._doors):
            self._forget(shown)

    def reserve(self, peer: str, most: int, door: bytes = b"") -> bytes:
        """A door for one link with ``peer``; that one, if it has been drawn for this."""
        door = door or os.urandom(NAME)
        self._doors[_shown(door)] = _Door(peer, most, asyncio.get_running_loop().create_future())
        return door

    async def come_in(self, door: bytes, keys: ChannelKeys) -> DirectLink:
        """The link, once who has the other key has come.  Raises PeerLost where the door has been forgotten."""
        here = self._doors[_shown(door)]
        here.keys = keys
        if here.come is not None:
            self._check(_shown(door), here)
        try:
            return await here.future
        finally:
            self.forget(door)

    def forget(self, door: bytes) -> None:
        """Nobody comes in by it any more.  Idempotent."""
        self._forget(_shown(door))

    def _forget(self, shown: bytes) -> None:
        here = self._doors.pop(shown, None)
        if here is not None:
            here.future.cancel()
            if here.come is not None:
                here.come[1].close()

    def _admit(self, proof: bytes, connection: socket.socket) -> bool:
        shown = proof[:NAME]
        here = self._doors.get(shown)
        if here is None or here.come is not None or here.future.done():
            return False
        here.come = proof[NAME:], connection
        if here.keys is not None:
            self._check(shown, here)
        return True

    def _check(self, shown: bytes, here: _Door) -> None:
        if here.keys is None or here.come is None or here.future.done():
            return
        frame, connection = here.come
        here.come = None
        opener = Opener(here.keys.dialler)
        try:
            opener.open(memoryview(frame), shown, memoryview(bytearray(SLACK)))
        except InvalidTag:
            connection.close()
            here.future.set_exception(ProtocolViolation(here.peer, "came with another key than was vouched for"))
            return
        sealer, stream = Sealer(here.keys.acceptor), _stream(connection)
        stream.write(_proof(sealer, shown))
        here.future.set_result(DirectLink(here.peer, stream, sealer, opener, here.most))


async def dial(peer: str, address: str, door: bytes, keys: ChannelKeys, most: int) -> DirectLink:
    """A link with ``peer``, which stands once it has proved to have the other key.

    Raises PeerLost where it does not come about; ProtocolViolation for another key.
    """
    host, _, port = address.rpartition(":")
    sealer, opener, shown = Sealer(keys.dialler), Opener(keys.acceptor), _shown(door)
    try:
        async with asyncio.timeout(_CONNECT):
            connection = await connected(host.strip("[]"), int(port))
            stream = _stream(connection)
            try:
                stream.write(bytearray(shown), _proof(sealer, shown))
                opener.open(await stream.read(TAG), shown, memoryview(bytearray(SLACK)))
            except BaseException:
                stream.abort()
                raise
    except (OSError, TimeoutError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no answer"
        raise PeerLost(peer, f"cannot be reached at {address} ({why}): its workers must be") from None
    except InvalidTag:
        raise ProtocolViolation(peer, "has another key at the end of a direct link than was vouched for") from None
    return DirectLink(peer, stream, sealer, opener, most)


def _shown(door: bytes) -> bytes:
    return hashlib.sha256(b"tessera door" + door).digest()[:NAME]


def _proof(sealer: Sealer, door: bytes) -> memoryview:
    out = memoryview(bytearray(TAG + SLACK))
    return out[: sealer.seal(b"", door, out)]


def _stream(connection: socket.socket) -> Stream:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _PATIENCE_MS)
    return Stream(connection, 2 * (FRAME + TAG))
