"""Sealing what lies on a disk: AES-256-GCM, in chunks, under a random key that a member's own key opens.

That key is sealed itself under one that comes from the member's CURVE secret by HKDF-SHA256, with a random salt and an
``info`` that names format and purpose, so no two files, purposes or formats share one.

*Nonces* are 96 random bits per chunk.  Two of q chunks share one with a probability of at most q^2 / 2^97: after 2^32
chunks, up to 64 PiB, that is 2^-33.  A counter would do worse: it goes back when an old copy of the file does.

*Associated data* of a chunk are purpose, member, a label of the caller's that names the thing, the chunk's index and
the number of chunks.  So a chunk opens in its own place only: neither under another label, nor in another order, nor
with one missing.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zmq.utils import z85

from parties.members.keys import KeyPair
from parties.wire.messages import Buffer

FORMAT = 2

_NONCE = 12
_TAG = 16
OVERHEAD = _NONCE + _TAG
"""Bytes that a sealed chunk has more than its plaintext."""
# The cipher wants room for one block less a byte behind what it writes.
_SLACK = 16
_WORD = struct.Struct("<Q")


class Streamed(NamedTuple):
    """A buffer of ``size`` bytes that is sealed as its pieces are made."""

    size: int
    pieces: Iterable[memoryview]

    @classmethod
    def of(cls, buffer: Buffer) -> Streamed:
        """One that is there as a whole."""
        view = _flat(buffer)
        return cls(len(view), [view])

    def checked(self) -> Iterator[memoryview]:
        """The pieces.  Raises ValueError when they have another length in all."""
        left = self.size
        for piece in self.pieces:
            left -= len(piece)
            if left < 0:
                break
            yield piece
        if left:
            raise ValueError(f"a streamed buffer of another length than {self.size} bytes")


class Sealing:
    """Seals and opens under one key; ``bound``, of purpose and member, is part of all associated data."""

    def __init__(self, key: bytes, bound: bytes) -> None:
        self._key, self._bound = key, bound

    def seal(
        self, label: Sequence[str], payload: Sequence[Buffer | Streamed], chunk_bytes: int
    ) -> Iterator[memoryview]:
        """Encrypts buffers, to be opened under the same label only.

        Yields chunks, each good until the next is asked for.  ``payload`` are C-contiguous buffers, which are not
        copied, or such as are made piece by piece, of which no more than a chunk is held.
        """
        buffers = [buffer if isinstance(buffer, Streamed) else Streamed.of(buffer) for buffer in payload]
        head = b"".join(map(_WORD.pack, [len(buffers), *(buffer.size for buffer in buffers)]))
        total = len(head) + sum(buffer.size + -buffer.size % 8 for buffer in buffers)

        def pieces() -> Iterator[memoryview]:
            yield memoryview(head)
            for buffer in buffers:
                yield from buffer.checked()
                # Each buffer begins at a multiple of 8 bytes, so that it can be read as field elements where it lies.
                yield memoryview(bytes(-buffer.size % 8))

        count = -(-total // chunk_bytes)
        sealed = memoryview(bytearray(min(chunk_bytes, total) + OVERHEAD + _SLACK))
        for part, chunk in enumerate(_cut(pieces(), chunk_bytes)):
            nonce = secrets.token_bytes(_NONCE)
            encryptor = Cipher(AES(self._key), GCM(nonce)).encryptor()
            encryptor.authenticate_additional_data(self._associated(label, part, count))
            sealed[:_NONCE] = nonce
            at = _NONCE
            for piece in chunk:
                at += encryptor.update_into(piece, sealed[at:])
            encryptor.finalize()
            sealed[at : at + _TAG] = encryptor.tag
            yield sealed[: at + _TAG]

    def unseal(self, label: Sequence[str], count: int, size: int, chunks: Iterable[object]) -> list[memoryview]:
        """The buffers that were sealed under ``label``, the caller's alone; each begins at a multiple of 8 bytes.

        ``count`` and ``size``: of chunks, and of their bytes in all.  All of it is authentic, or nothing is returned.
        Raises ValueError.
        """
        changed = ValueError("what was sealed has been changed")
        total = size - count * OVERHEAD
        if total < _WORD.size or total % _WORD.size:
            raise changed
        memory = np.empty(total + _SLACK, np.uint8).data
        at = part = 0
        for part, sealed in enumerate(chunks, start=1):
            if not isinstance(sealed, bytes | memoryview) or not OVERHEAD <= len(sealed) <= total - at + OVERHEAD:
                raise changed
            sealed = memoryview(sealed)
            decryptor = Cipher(AES(self._key), GCM(bytes(sealed[:_NONCE]), bytes(sealed[-_TAG:]))).decryptor()
            decryptor.authenticate_additional_data(self._associated(label, part - 1, count))
            at += decryptor.update_into(sealed[_NONCE:-_TAG], memory[at:])
            try:
                decryptor.finalize()
            except InvalidTag:
                raise changed from None
        if part != count or at != total:
            raise changed
        (buffers,) = _WORD.unpack_from(memory)
        at = _WORD.size * (1 + buffers)
        payload = []
        for (length,) in _WORD.iter_unpack(memory[_WORD.size : at]):
            payload.append(memory[at : at + length])
            at += length + -length % 8
        return payload

    def _associated(self, label: Sequence[str], part: int, count: int) -> bytes:
        return self._bound + joined(*label) + struct.pack("<II", part, count)


def bound_to(purpose: str, member: str) -> bytes:
    """What everything of that purpose and member is bound to."""
    return joined("tessera vault", str(FORMAT), purpose, member)


def _derive(keys: KeyPair, salt: bytes, purpose: str) -> AESGCM:
    info = joined("tessera vault", str(FORMAT), "AES-256-GCM", purpose)
    return AESGCM(HKDF(SHA256(), 32, salt, info).derive(z85.decode(keys.secret)))


def wrapped(keys: KeyPair, key: bytes, purpose: str, bound: bytes) -> list[tuple[str, bytes]]:
    """Rows of ``about`` that hold a file's key, for the holder of these keys."""
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(_NONCE)
    return [("salt", salt), ("key", nonce + _derive(keys, salt, purpose).encrypt(nonce, key, bound))]


def unwrapped(keys: KeyPair, about: Mapping[str, object], bound: bytes) -> bytes | None:
    """The key of the file that these rows are of; None for keys that are not its member's, and for changed rows."""
    salt, key = about.get("salt"), about.get("key")
    if not isinstance(salt, bytes) or not isinstance(key, bytes) or len(key) != 32 + OVERHEAD:
        return None
    try:
        return _derive(keys, salt, str(about.get("purpose"))).decrypt(key[:_NONCE], key[_NONCE:], bound)
    except InvalidTag:
        return None


def joined(*fields: str) -> bytes:
    """Fields with their number and lengths: no two lists of fields give the same bytes."""
    encoded = [field.encode() for field in fields]
    return b"".join([_WORD.pack(len(encoded)), *(_WORD.pack(len(e)) + e for e in encoded)])


def _flat(buffer: Buffer) -> memoryview:
    view = buffer.data if isinstance(buffer, np.ndarray) else memoryview(buffer)
    # An empty view cannot be cast when one of its dimensions is 0.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _cut(pieces: Iterable[memoryview], size: int) -> Iterator[list[memoryview]]:
    """The same bytes in lists of ``size`` bytes in all; the last list may have fewer."""
    chunk: list[memoryview] = []
    room = size
    for piece in pieces:
        while len(piece):
            chunk.append(piece[:room])
            piece = piece[len(chunk[-1]) :]
            room -= len(chunk[-1])
            if not room:
                yield chunk
                chunk, room = [], size
    if chunk:
        yield chunk
