"""Pseudo-random field elements from 16-byte seeds: AES-128 in counter mode.

A seed is a key; what it expands to is a pure function of it, so two processes that hold one seed hold the
same elements without a byte sent.  Who does not know the seed cannot tell the elements from uniform ones (AES
is a pseudo-random permutation; the 2^64-block birthday bound of counter mode is far away at the sizes used
here).

One seed, one purpose: derive a seed per purpose with `Seed.derive` and expand each once.  Expanding a seed
twice gives the same elements again, which as masks would be a two-time pad.

Uniformity is exact.  Of each 64-bit word 61 bits are kept: uniform in [0, 2^61), and uniform in the field but
for the one string p, which is not a field element.  A word that gives p (a chance of 2^-61 each) is drawn
again from a derived seed, in order, until none is left: conditioned on not being p, a word is uniform in [0,
p), and words are independent.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from hashlib import blake2s
from hmac import compare_digest
from math import prod

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from mpc.errors import UsageError
from mpc.rings import kernels, threads
from mpc.rings.field import FieldArray, P, Shape, add, multiply, subtract

SEED_BYTES = 16

_BLOCK = 16
# Words per call of the cipher: a piece is masked, or added, while it is in the L2 cache.
_PIECE = 1 << 14
_ZEROS = bytes(8 * _PIECE)
# Elements and raw bytes of one seed come from counters that never meet: their first.
_ELEMENTS, _RAW = 0, 1 << 127


def fresh_seed() -> bytes:
    """16 bytes from the operating system's cryptographic generator."""
    return secrets.token_bytes(SEED_BYTES)


class Seed:
    """A 16-byte secret that expands to field elements; its repr does not show it."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != SEED_BYTES:
            raise UsageError(f"a seed has {SEED_BYTES} bytes, not {len(key)}")
        self._key = bytes(key)

    def __repr__(self) -> str:
        return "Seed(...)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seed) and compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash(self._key)

    def __bytes__(self) -> bytes:
        """The secret itself, to be sent to the party it is meant for."""
        return self._key

    def derive(self, label: str | bytes) -> Seed:
        """An independent seed for this label: BLAKE2s keyed with this one.

        Labels are taken whole, with their type, so different labels never collide: neither "a" and b"a", nor
        "ab" and the seed of "b" under the seed of "a".
        """
        data = b"s" + label.encode() if isinstance(label, str) else b"b" + label
        return self._derived(data)

    def _derived(self, data: bytes) -> Seed:
        # The first byte tells the purpose: "s" and "b" labels of either type, "r" this module itself.
        return Seed(blake2s(data, digest_size=SEED_BYTES, key=self._key, person=b"tessera").digest())

    def elements(self, shape: int | Shape, since: int = 0) -> FieldArray:
        """Uniform field elements.  A seed is expanded once: see the module's docstring.

        ``since``: how many of them there are before these, an even number.
        """
        if since % 2:
            raise UsageError(f"elements are expanded from an even place on, not from {since}")
        shape = (shape,) if isinstance(shape, int) else shape
        out = np.empty(prod(shape), np.uint64)
        rejected: list[bool] = []

        def expand(first: int, last: int) -> None:
            stream = _words(self._key, min(last - first, _PIECE), since + first)
            for start in range(first, last, _PIECE):
                piece = out[start : min(start + _PIECE, last)]
                rejected.append(kernels.mask(stream(piece.size), piece))

        threads.cut(expand, out.size, _PIECE)
        if any(rejected) and since:
            # Which of those that are drawn again these are depends on all before them.
            out = self.elements(since + out.size)[since:]
        elif any(rejected):
            places = np.flatnonzero(out == P)
            out[places] = self._derived(b"rejected").elements(places.size)
        return out.reshape(shape)

    def words(self, count: int, used: np.uint64) -> npt.NDArray[np.uint64]:
        """``count`` words of uniform bits where ``used`` has them, and else 0, from the same bytes as `raw`."""
        out = np.empty(count, np.uint64)

        def expand(first: int, last: int) -> None:
            stream = _words(self._key, min(last - first, _PIECE), first, _RAW)
            for start in range(first, last, _PIECE):
                piece = out[start : min(start + _PIECE, last)]
                np.bitwise_and(stream(piece.size), used, out=piece)

        threads.cut(expand, count, _PIECE)
        return out

    def raw(self, count: int) -> npt.NDArray[np.uint8]:
        """`count` uniform bytes, independent of this seed's elements."""
        # The cipher asks for room for one block more than it writes.
        room = np.empty(count + _BLOCK, np.uint8)

        def expand(first: int, last: int) -> None:
            cipher = _cipher(self._key, _counter(_RAW, first))
            for start in range(first, last, len(_ZEROS)):
                size = min(len(_ZEROS), last - start)
                cipher.update_into(memoryview(_ZEROS)[:size], room[start : start + size + _BLOCK].data)

        threads.cut(expand, count, len(_ZEROS))
        return room[:count]


def elements_sum(seeds: Sequence[Seed], shape: int | Shape) -> FieldArray:
    """The sum mod p of the `elements` of all seeds, without holding the terms."""
    shape = (shape,) if isinstance(shape, int) else shape
    out = np.empty(prod(shape), np.uint64) if seeds else np.zeros(prod(shape), np.uint64)
    rejected: list[bool] = []

    def take(number: int, _: FieldArray, words: FieldArray, piece: FieldArray) -> None:
        rejected.append(kernels.mask_accumulate(piece, words) if number else kernels.mask(words, piece))

    taken(out, seeds, take, out)
    if any(rejected):
        out = np.zeros(prod(shape), np.uint64)
        for seed in seeds:
            add(out, seed.elements(out.size), out)
    return out.reshape(shape)


def elements_less(x: FieldArray, seeds: Sequence[Seed], factor: int = 1) -> FieldArray:
    """``factor`` x mod p, less the `elements` of all seeds, without holding those."""
    some, out, rejected = kernels.flat(x), np.empty(x.size, np.uint64), list[bool]()
    factors = np.uint64(factor % P), np.uint64(1)

    def take(number: int, source: FieldArray, words: FieldArray, piece: FieldArray) -> None:
        rejected.append(kernels.mask_less(source, factors[number > 0], words, piece))

    taken(some, seeds, take, out)
    if not seeds or any(rejected):
        out = subtract(multiply(some, np.asarray(factors[0])), elements_sum(seeds, some.size))
    return out.reshape(x.shape)


Taken = Callable[[int, FieldArray, FieldArray, FieldArray], None]
"""Of the number of a seed, what was made with those before it, words of it, and room for what is made of both."""


def taken(x: FieldArray, seeds: Sequence[Seed], take: Taken, out: FieldArray, *, raw: bool = False) -> None:
    """``out``, of x and the words of each seed, one after the other, piece by piece: a piece stays in the cache.

    Words are those of `Seed.elements`, or if ``raw`` of `Seed.raw`.
    """

    def expand(first: int, last: int) -> None:
        limit, counter = min(last - first, _PIECE), _RAW if raw else _ELEMENTS
        streams = [_words(seed._key, limit, first, counter) for seed in seeds]
        for start in range(first, last, _PIECE):
            source, piece = (array[start : min(start + _PIECE, last)] for array in (x, out))
            for number, stream in enumerate(streams):
                take(number, piece if number else source, stream(piece.size), piece)

    threads.cut(expand, out.size, _PIECE)


def _cipher(key: bytes, counter: bytes) -> CipherContext:
    return Cipher(AES(key), CTR(counter)).encryptor()


def _counter(first: int, byte: int) -> bytes:
    """That of the block which begins at this byte of the stream whose ``first`` counter is that."""
    return (first + byte // _BLOCK).to_bytes(_BLOCK, "big")


def _words(key: bytes, limit: int, first: int, counter: int = _ELEMENTS) -> Callable[[int], npt.NDArray[np.uint64]]:
    """The stream of a seed's 64-bit words (little-endian) from the ``first`` on, `limit` at a time at most.

    The words stand in a buffer that the next call overwrites.
    """
    cipher = _cipher(key, _counter(counter, 8 * first))
    # The cipher asks for room for one block more than it writes.
    buffer = bytearray(8 * limit + _BLOCK)
    words = np.frombuffer(buffer, "<u8")

    def take(count: int) -> npt.NDArray[np.uint64]:
        cipher.update_into(memoryview(_ZEROS)[: 8 * count], buffer)
        return words[:count].astype(np.uint64, copy=False)

    return take
