"""What goes over a wire: an envelope, a typed header, and payload frames.

One message is ``[envelope, header, payload, ...]``, each a ZeroMQ frame:

* the *envelope* is 25 bytes: magic, protocol version, the sender's incarnation (8 random bytes drawn when its
  process started), the message's number on this link, and whether large buffers go apart (`parties.wire.apart`);
* the *header* is a `Message` in MessagePack, named by its class, unknown fields refused;
* *payload* frames are raw bytes, in practice elements of rings (`mpc.rings`).  They are not looked at here.  A buffer
  is a frame, or, from `PIECE` bytes on, as many frames of just `PIECE` as it fills and one, maybe empty, of the rest:
  one piece is encrypted while another is under way and a third decrypted, and each while it lies in the cache.

Message types are the subclasses of `Message`, wherever they are defined::

    class StoreModel(Message, frozen=True):
        senders: ClassVar[frozenset[Role]] = frozenset({Role.CLIENT})
        name: str
        shapes: tuple[tuple[int, ...], ...]

Nothing here is ever unpickled, and a decoder that meets rubbish raises `ProtocolViolation` and nothing else.
"""

from __future__ import annotations

import functools
import operator
import struct
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from mpc.decoders import msgpack_decoder
from mpc.errors import ProtocolViolation, VersionMismatch, printable
from parties.members.cluster import Role

PROTOCOL_VERSION = 4
MAX_HEADER_BYTES = 1 << 20
MAX_BUFFERS = 1 << 14
"""Of the payload of one message."""
MAX_FRAMES = MAX_BUFFERS + 3
"""Of a message on a socket, with the route to its sender; beside those of a whole `PIECE`."""
PIECE = 1 << 20
"""Bytes of a payload frame, at most."""

_MAGIC = b"TESR"
_ENVELOPE = struct.Struct("<4sI8sQB")

ANYONE: frozenset[Role] = frozenset(Role)
MEMBERS: frozenset[Role] = ANYONE - {Role.OPERATOR}
SERVERS: frozenset[Role] = frozenset({Role.DEALER, Role.PARTY})

Number = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
"""Of a cluster file."""

Buffer = bytes | bytearray | memoryview | NDArray[Any]
Payload = list[memoryview]
"""What arrives behind a header, not copied."""


_kinds: dict[str, type[Message]] = {}


@functools.cache
def _decoder() -> msgspec.msgpack.Decoder[Message]:
    return msgpack_decoder(functools.reduce(operator.or_, _kinds.values()))


class Message(msgspec.Struct, frozen=True, tag_field="type", tag=True, forbid_unknown_fields=True):
    """Base of every message header.  A subclass is a wire type at once under its class name.

    ``senders`` is the set of roles that may send it; from anyone else it is refused before the application
    sees it.
    """

    senders: ClassVar[frozenset[Role]] = MEMBERS

    @property
    def lane(self) -> str:
        """Messages of one lane come in the order in which they were sent; others may overtake a large one."""
        return ""

    def __init_subclass__(cls) -> None:
        # Only the name is here already; the fields come later, so the decoder is built when it is first
        # needed.
        if cls.__name__ in _kinds:
            raise TypeError(f"there is a message type called {cls.__name__} already")
        _kinds[cls.__name__] = cls
        _decoder.cache_clear()


class Hello(Message, frozen=True):
    """First message on every connection: what the sender is running.  Answered with `HelloReply`."""

    senders: ClassVar[frozenset[Role]] = ANYONE
    package_version: str
    cluster_fingerprint: str
    cluster_number: Number


class HelloReply(Message, frozen=True):
    """Answer to `Hello`; each side compares both with its own and refuses a difference by itself."""

    senders: ClassVar[frozenset[Role]] = ANYONE
    package_version: str
    cluster_fingerprint: str
    cluster_number: Number


class Succeeded(Message, frozen=True):
    """Your cluster file has been followed by others.  Payload: these, signed (``parties.members.succession``), or the
    first of them; nothing from who does not know yours."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class Ping(Message, frozen=True):
    """Are you there?  Answered from the receiver's event loop, so that a stuck process does not answer."""

    senders: ClassVar[frozenset[Role]] = ANYONE
    nonce: int


class Pong(Message, frozen=True):
    """Answer to the `Ping` of that nonce."""

    senders: ClassVar[frozenset[Role]] = ANYONE
    nonce: int


class ChannelWanted(Message, frozen=True):
    """May I have a data channel to your data port?  To a server, once greetings agree; not answered where there is
    none (`parties.wire.channels`)."""

    random: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class ChannelOffered(Message, frozen=True):
    """Answer to the `ChannelWanted` of that random: connect there, with the keys that the two of us make."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    wanted: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    random: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Incoming(Message, frozen=True):
    """A big message follows; until it is through, nothing else of the sender's can be heard."""

    payload_bytes: Annotated[int, msgspec.Meta(ge=0)]


class Refused(Message, frozen=True):
    """The link itself is refused, in one sentence; no answer is expected."""

    reason: str


class Envelope(NamedTuple):
    """Who a message is from, as it claims, and where it stands in the order of its link."""

    incarnation: bytes
    sequence: int
    apart: bool = False


_encoder = msgspec.msgpack.Encoder()


def encode_header(message: Message) -> bytes:
    """The header frame.  Raises ValueError beyond `MAX_HEADER_BYTES`: bulk belongs in payload frames."""
    header = _encoder.encode(message)
    if len(header) > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {len(header)} bytes; the limit is {MAX_HEADER_BYTES}")
    return header


def decode_header(sender: str, frame: memoryview | bytes) -> Message:
    """The header in ``frame``.  Raises `ProtocolViolation` for anything but a known message."""
    if len(frame) > MAX_HEADER_BYTES:
        raise ProtocolViolation(sender, f"sent a header of {len(frame)} bytes (limit {MAX_HEADER_BYTES})")
    try:
        return _decoder().decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolViolation(sender, f"sent a malformed header ({printable(str(error)[:200])})") from None


def encode_envelope(envelope: Envelope) -> bytes:
    """The envelope frame, 25 bytes."""
    return _ENVELOPE.pack(_MAGIC, PROTOCOL_VERSION, envelope.incarnation, envelope.sequence, envelope.apart)


def decode_envelope(sender: str, frame: memoryview | bytes) -> Envelope:
    """The envelope in ``frame``.  Raises `ProtocolViolation`, or `VersionMismatch` for another version."""
    if len(frame) == _ENVELOPE.size:
        magic, version, incarnation, sequence, apart = _ENVELOPE.unpack(frame)
        if magic == _MAGIC and version == PROTOCOL_VERSION and apart <= 1:
            return Envelope(incarnation, sequence, bool(apart))
    if len(frame) < 8 or bytes(frame[:4]) != _MAGIC:
        raise ProtocolViolation(sender, "sent something that is not a Tessera message")
    version = int.from_bytes(frame[4:8], "little")
    if version != PROTOCOL_VERSION:
        # Another version's envelope may be of another length.
        raise VersionMismatch(
            sender,
            f"speaks protocol version {version}, we speak {PROTOCOL_VERSION}: run one release everywhere",
        )
    if len(frame) != _ENVELOPE.size:
        raise ProtocolViolation(sender, f"sent an envelope of {len(frame)} bytes instead of {_ENVELOPE.size}")
    raise ProtocolViolation(sender, "sent an envelope that makes no sense")


def encode(message: Message, buffers: Sequence[Buffer], envelope: Envelope) -> list[bytes | memoryview]:
    """The frames of a message.  Payload, which must be C-contiguous (else ValueError), is not copied."""
    frames: list[bytes | memoryview] = [encode_envelope(envelope), encode_header(message)]
    for buffer in buffers:
        data = as_bytes(buffer)
        frames.extend([data] if len(data) < PIECE else (data[i : i + PIECE] for i in range(0, len(data) + 1, PIECE)))
    return frames


def decode(sender: str, frames: Sequence[memoryview | bytes]) -> tuple[Envelope, Message, list[memoryview]]:
    """The message in ``frames``; ``sender`` is the name errors carry.  Payload is copied if it came in pieces.

    Raises:
        ProtocolViolation: anything malformed.
        VersionMismatch: another protocol version.
    """
    check_frames(sender, frames)
    envelope = decode_envelope(sender, frames[0])
    message = decode_header(sender, frames[1])
    return envelope, message, joined(sender, [memoryview(frame) for frame in frames[2:]])


def check_frames(sender: str, frames: Sequence[memoryview | bytes]) -> None:
    """Raises `ProtocolViolation` for more or fewer frames than a message has."""
    if len(frames) < 2 or sum(len(frame) != PIECE for frame in frames[2:]) > MAX_BUFFERS:
        raise ProtocolViolation(sender, f"sent a message of {len(frames)} frames")


def joined(sender: str, frames: Sequence[memoryview]) -> Payload:
    """The buffers that these payload frames make: copied if they came in pieces, else as they are.

    Raises `ProtocolViolation` for frames that no buffer is cut into.
    """
    payload: Payload = []
    pieces: list[memoryview] = []
    for frame in frames:
        if len(frame) > PIECE:
            raise ProtocolViolation(sender, f"sent a frame of {len(frame)} bytes (limit {PIECE})")
        pieces.append(frame)
        if len(frame) < PIECE:
            payload.append(frame if len(pieces) == 1 else _together(pieces))
            pieces = []
    if pieces:
        raise ProtocolViolation(sender, "sent the beginning of a buffer without its end")
    return payload


def _together(pieces: Sequence[memoryview]) -> memoryview:
    together = np.empty(sum(map(len, pieces)), np.uint8)
    for i, piece in enumerate(pieces):
        together[i * PIECE : i * PIECE + len(piece)] = piece
    return together.data


def payload_bytes(buffers: Sequence[Buffer]) -> int:
    """Bytes of payload that the buffers make."""
    return sum(b.nbytes if isinstance(b, np.ndarray | memoryview) else len(b) for b in buffers)


def as_bytes(buffer: Buffer) -> bytes | memoryview:
    """What goes over the wire.  Raises ValueError for an array that is not contiguous."""
    if isinstance(buffer, bytes):
        return buffer
    if isinstance(buffer, np.ndarray) and not buffer.flags.c_contiguous:
        raise ValueError("an array to send must be C-contiguous")
    view = buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)
    if not view.c_contiguous:
        raise ValueError("a buffer to send must be C-contiguous")
    # An empty view cannot be cast when one of its dimensions is 0.
    return view.cast("B") if view.nbytes else b""
