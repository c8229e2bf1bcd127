"""Keys of a data channel, and the frames that are sealed under them: AES-256-GCM, with counters as nonces.

Both ends draw 32 random bytes and tell them each other over CURVE, which nobody else reads and which vouches for who
has sent them.  HKDF-SHA256 of the two makes a *name*, which is no secret, and a secret for each direction; its
``info`` names the keys of both ends and their incarnations.  So every channel has secrets of its own, and they are as
short-lived as the CURVE sessions that they come from: who reads a member's key later reads no frame.

A frame opens only under the secret of its channel and direction, at its place in the order of its direction (the
nonce), at its length, and with the *binding* that it was sealed with: the digest of the message it belongs to.

*Limits.*  Nonces never repeat under a secret.  Its key is another after `RENEWED` bytes, derived one way: 2^30 blocks
under one key leave an adversary an advantage of less than 2^60 / 2^128 against secrecy, and a forged frame of b blocks
opens with a probability of at most b / 2^128 (McGrew, Viega, The Security and Performance of the Galois/Counter Mode,
INDOCRYPT 2004; NIST SP 800-38D).
"""

from __future__ import annotations

import hashlib
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from parties.host.processor import cpu_info, features_of

RENEWED = 1 << 34
"""Bytes that are sealed under one key."""
RANDOM = 32
"""Bytes that each end draws."""
NAME = 16
"""Bytes of a channel's name."""
TAG = 16
"""Bytes by which a frame is longer than what it carries."""
SLACK = 16
"""Bytes that have to be there behind what a frame is sealed into, or opened into; they stay as they are."""

_SECRET = 32


def hardware_aes() -> bool:
    """Whether the processor has AES: without it CURVE is about as fast, and its time does not depend on data."""
    said = cpu_info()
    if not said:
        return platform.machine().lower() in ("x86_64", "amd64", "arm64", "aarch64")
    return "aes" in features_of(said)


class End(NamedTuple):
    """What one end of a channel puts into its keys."""

    key: str
    """Its public key."""
    incarnation: bytes
    random: bytes = b""


@dataclass(frozen=True)
class ChannelKeys:
    """Of one channel."""

    name: bytes
    dialler: bytes = field(repr=False)
    """The secret of what the dialling end sends."""
    acceptor: bytes = field(repr=False)

    @classmethod
    def agreed(cls, dialler: End, acceptor: End) -> ChannelKeys:
        """Of the two ends, each of which has the other's random bytes over CURVE."""
        ends = (dialler, acceptor)
        info = b"tessera data channel" + b"".join(_sized(end.key.encode("ascii"), end.incarnation) for end in ends)
        block = HKDF(SHA256(), NAME + 2 * _SECRET, None, info).derive(dialler.random + acceptor.random)
        return cls(block[:NAME], block[NAME : NAME + _SECRET], block[NAME + _SECRET :])


class _Chain:
    """The keys and nonces of one direction, one after the other."""

    def __init__(self, secret: bytes) -> None:
        self._secret, self._key = secret, b""
        self._left = self._count = 0

    def next(self, size: int) -> tuple[AES, bytes]:
        """What seals the next frame, of ``size`` bytes."""
        if size > self._left or not self._count:
            block = HKDFExpand(SHA256(), 2 * _SECRET, b"tessera data key").derive(self._secret)
            self._secret, self._key = block[:_SECRET], block[_SECRET:]
            self._left = RENEWED
        self._left -= size
        self._count += 1
        return AES(self._key), self._count.to_bytes(12, "little")


class Sealer:
    """Seals the frames of one direction."""

    def __init__(self, secret: bytes) -> None:
        self._chain = _Chain(secret)

    def seal(self, data: bytes | memoryview, binding: bytes, out: memoryview) -> int:
        """Writes the next frame to ``out``, longer by ``TAG`` and ``SLACK`` at least; how many bytes it has."""
        cipher, nonce = self._chain.next(len(data))
        encryptor = Cipher(cipher, GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(binding)
        encryptor.update_into(data, out)
        encryptor.finalize()
        out[len(data) : len(data) + TAG] = encryptor.tag
        return len(data) + TAG


class Opener:
    """Opens what the `Sealer` of the other end has sealed, in that order."""

    def __init__(self, secret: bytes) -> None:
        self._chain = _Chain(secret)

    def open(self, frame: memoryview, binding: bytes, out: memoryview) -> None:
        """Writes what the frame carries to ``out``, which is longer by ``SLACK`` at least.

        Raises InvalidTag where it is not the frame that is due; what ``out`` has then means nothing.
        """
        data, tag = frame[:-TAG], frame[-TAG:]
        cipher, nonce = self._chain.next(len(data))
        decryptor = Cipher(cipher, GCM(nonce, bytes(tag))).decryptor()
        decryptor.authenticate_additional_data(binding)
        decryptor.update_into(data, out)
        decryptor.finalize()


def binding_of(frames: Sequence[bytes | memoryview]) -> bytes:
    """SHA-256 of these frames of a message, which say all that it is but for its large buffers."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(struct.pack("<Q", len(frame)))
        digest.update(frame)
    return digest.digest()


def _sized(*parts: bytes) -> bytes:
    return b"".join(struct.pack("<Q", len(part)) + part for part in parts)
