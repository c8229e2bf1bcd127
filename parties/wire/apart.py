"""Messages whose large buffers go beside the link, over its data channel.

Such a message's envelope says so, and its third frame names the channel, the length of each buffer, and whether it goes
there; the others follow as frames, in their order, and those that do are sealed to the digest of the first three
frames.  These name the sender's process, the message's number on its link, and in the header whatever it is about: a
run or an upload, a round, a chunk.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from mpc.errors import ProtocolViolation
from parties.wire.channel import sealed_bytes
from parties.wire.data_keys import NAME, binding_of
from parties.wire.links import Link
from parties.wire.messages import (
    MAX_BUFFERS,
    Buffer,
    Envelope,
    Message,
    Payload,
    as_bytes,
    encode_envelope,
    encode_header,
    payload_bytes,
)

LARGE = 1 << 18
"""Bytes of a buffer from which on its message goes over the channel."""
LEAST = 1 << 12
"""Bytes from which on the other buffers of such a message go with it; and those of messages behind others of their lane
that wait there: they would wait for them, in their receiver's memory, which has room for so much (`lanes`)."""

# Twice the length of a buffer, and 1 if it goes over the channel.
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Apart:
    """A message in its two halves."""

    frames: list[bytes | memoryview]
    """What goes over the link."""
    binding: bytes
    large: list[bytes | memoryview]
    """What goes over the channel."""

    @classmethod
    def of(cls, message: Message, buffers: Sequence[Buffer], envelope: Envelope, channel: bytes) -> Apart:
        """Those of `LEAST` bytes apart.  Raises ValueError as `encode`; payload is not copied."""
        views = [as_bytes(buffer) for buffer in buffers]
        lengths = channel + struct.pack(f"<{len(views)}Q", *(2 * len(v) + (len(v) >= LEAST) for v in views))
        heads = [encode_envelope(envelope._replace(apart=True)), encode_header(message), lengths]
        small, large = ([view for view in views if (len(view) >= LEAST) is wanted] for wanted in (False, True))
        return cls([*heads, *small], binding_of(heads), large)


class Put(Protocol):
    """Sends the frames of what carries the link's next number; False if they cannot go now."""

    def __call__(self, link: Link, frames: list[bytes | memoryview], /, *, copy: bool) -> bool: ...


def send_apart(
    link: Link, message: Message, buffers: Sequence[Buffer], envelope: Envelope, put: Put, *, copy: bool
) -> bool | None:
    """Sends the message in two halves; False if it cannot go now, None if there is no channel, or nothing for it."""
    channel = link.sending
    if channel is None:
        return None
    wanted = LEAST if channel.carries(message.lane) else LARGE
    if all(payload_bytes((buffer,)) < wanted for buffer in buffers):
        return None
    apart = Apart.of(message, buffers, envelope, channel.name)
    large = [bytes(buffer) for buffer in apart.large] if copy else apart.large
    if channel.full or not put(link, apart.frames, copy=copy):
        return False
    channel.send(message.lane, apart.binding, large)
    link.traffic.bytes_sent += sealed_bytes([len(buffer) for buffer in large])
    return True


@dataclass(frozen=True)
class Layout:
    """What the frames of such a message say of its payload."""

    channel: bytes
    lengths: list[int]
    """Of all buffers."""
    apart: list[bool]
    """Which of them come over the channel."""
    binding: bytes
    small: bytes
    """The others, one after the other: as frames they would take many times their bytes while they wait."""

    @classmethod
    def read(cls, sender: str, frames: Sequence[memoryview]) -> Layout:
        """Of frames that came over the link.  Raises ProtocolViolation."""
        said = frames[2] if len(frames) > 2 else memoryview(b"")
        count, rest = divmod(len(said) - NAME, _LENGTH.size)
        if rest or not 1 <= count <= MAX_BUFFERS:
            raise ProtocolViolation(sender, f"announced buffers in {len(said)} bytes, which no message does")
        entries = struct.unpack_from(f"<{count}Q", said, NAME)
        lengths, apart = [entry >> 1 for entry in entries], [bool(entry & 1) for entry in entries]
        here = [length for length, there in zip(lengths, apart, strict=True) if not there]
        large = [length for length, there in zip(lengths, apart, strict=True) if there]
        if here != list(map(len, frames[3:])) or min(large, default=0) < LEAST:
            raise ProtocolViolation(sender, "announced other buffers than it sent, or no large one")
        return cls(bytes(said[:NAME]), lengths, apart, binding_of(frames[:3]), b"".join(frames[3:]))

    @property
    def large(self) -> list[int]:
        """Lengths of the buffers that come over the channel."""
        return [length for length, apart in zip(self.lengths, self.apart, strict=True) if apart]

    def together(self, large: Payload) -> Payload:
        """All buffers, with those that have come."""
        here, there = memoryview(self.small), iter(large)
        payload, start = [], 0
        for length, apart in zip(self.lengths, self.apart, strict=True):
            payload.append(next(there) if apart else here[start : start + length])
            start += 0 if apart else length
        return payload
