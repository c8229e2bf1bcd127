"""Bytes over a connection: all, in order, whoever is slow, and an end that both see."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket

import pytest

from parties.wire.stream import ENOUGH, Stream

AHEAD = 1000


def pair() -> tuple[Stream, Stream]:
    one, other = socket.socketpair()
    # So that neither side takes much at once.
    for end in (one, other):
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, buffer, 4096)
    return Stream(one, AHEAD), Stream(other, AHEAD)


def pieces(seed: int, count: int, most: int) -> list[bytes]:
    draw = random.Random(seed)
    return [draw.randbytes(draw.randint(0, most)) for _ in range(count)]


@pytest.mark.parametrize("most", [7, AHEAD, 5 * AHEAD])
async def test_both_ways_at_once(most):
    """In pieces, and read in others, of which some are longer than what is taken ahead."""
    ends = pair()

    async def send(end: Stream, sent: list[bytes]) -> None:
        for piece in sent:
            end.write(bytearray(piece), bytearray(piece[:3]))
            await end.flush()

    async def read(end: Stream, expected: bytes) -> None:
        sizes = itertools.cycle(map(len, pieces(3, 77, most)))
        while expected:
            size = min(next(sizes), len(expected))
            assert bytes(await end.read(size)) == expected[:size]
            expected = expected[size:]

    sent = [pieces(1, 100, most), pieces(2, 150, most)]
    whole = [b"".join(piece + piece[:3] for piece in each) for each in sent]
    await asyncio.gather(*map(send, ends, sent), *map(read, reversed(ends), whole))
    ends[0].close()
    with pytest.raises(OSError):
        await ends[1].read(1)
    ends[1].close()


async def test_what_is_queued_still_goes():
    one, other = pair()
    one.write(bytearray(10 * ENOUGH))
    one.close()
    one.write(bytearray(1))
    for _ in range(10):
        await other.read(ENOUGH)
    with pytest.raises(OSError):
        await other.read(1)
    other.close()


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_whoever_waits_hears_of_the_end(how):
    one, other = pair()
    one.write(bytearray(10 * ENOUGH))
    flushing, reading = asyncio.create_task(one.flush()), asyncio.create_task(one.read(1))
    await asyncio.sleep(0)
    getattr(other, how)()
    for waiting in (flushing, reading):
        with pytest.raises(OSError):
            await waiting
    with pytest.raises(OSError):
        await one.flush()
    one.abort()
