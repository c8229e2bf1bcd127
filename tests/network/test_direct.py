"""Direct links: only who has the key that was vouched for comes in, and what is malformed, or too large, ends them."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest

from mpc.errors import PeerLost, ProtocolViolation
from parties.wire.data_keys import NAME, TAG
from parties.wire.direct import FRAME, Doors, LinkKey, dial
from parties.wire.messages import Ping

MOST = 1 << 22


@contextlib.asynccontextmanager
async def doors():
    opened = Doors("worker", "127.0.0.1")
    await opened.open()
    try:
        yield opened
    finally:
        opened.close()


def agreed(about=b"run"):
    mine, theirs = LinkKey(), LinkKey()
    return mine.agreed(theirs.public, about, we_dial=True), theirs.agreed(mine.public, about, we_dial=False)


@contextlib.asynccontextmanager
async def linked(most=MOST):
    dialler, acceptor = agreed()
    async with doors() as here:
        door = here.reserve("party1", most)
        coming = asyncio.create_task(here.come_in(door, acceptor))
        there = await dial("party0", here.address, door, dialler, most)
        link = await coming
        yield there, link
        for one in (there, link):
            one.close()


async def test_messages_go_both_ways():
    async with linked() as (there, here):
        buffers = [np.arange(n, dtype=np.uint8) for n in (0, 1, FRAME - 1, FRAME, 3 * FRAME + 5)]
        assert there.send(Ping(nonce=1), buffers) == sum(len(b) for b in buffers)
        here.send(Ping(nonce=2))
        delivered = asyncio.create_task(there.deliver(Ping(nonce=1), buffers))
        for _ in range(2):
            message, payload = await here.receive()
            assert message == Ping(nonce=1)
            assert [bytes(b) for b in payload] == [b.tobytes() for b in buffers]
        await delivered
        assert await there.receive() == (Ping(nonce=2), [])


async def test_who_comes_before_its_key_is_known_waits():
    dialler, acceptor = agreed()
    async with doors() as here:
        door = here.reserve("party1", MOST)
        coming = asyncio.create_task(dial("party0", here.address, door, dialler, MOST))
        await asyncio.sleep(0.05)
        assert not coming.done()
        await here.come_in(door, acceptor)
        await coming


async def test_another_key():
    _, acceptor = agreed()
    stranger, _ = agreed()
    async with doors() as here:
        door = here.reserve("party1", MOST)
        coming = asyncio.create_task(here.come_in(door, acceptor))
        with pytest.raises((PeerLost, ProtocolViolation), match="party0"):
            await dial("party0", here.address, door, stranger, MOST)
        with pytest.raises(ProtocolViolation, match="party1: came with another key"):
            await coming


@pytest.mark.parametrize("about", [b"run", b"another"])
async def test_keys_are_of_one_link(about):
    """Another run's are others, and so are both directions'."""
    mine, theirs = LinkKey(), LinkKey()
    keys, others = (mine.agreed(theirs.public, a, we_dial=True) for a in (b"run", about))
    assert (keys == others) is (about == b"run")
    assert keys.dialler != keys.acceptor
    with pytest.raises(ValueError):
        mine.agreed(bytes(32), b"run", we_dial=True)


async def test_no_door_no_answer():
    dialler, acceptor = agreed()
    async with doors() as here:
        door = here.reserve("party1", MOST)
        with pytest.raises(PeerLost, match="cannot be reached"):
            await dial("party0", here.address, bytes(NAME), dialler, MOST)
        coming = asyncio.create_task(here.come_in(door, acceptor))
        (await dial("party0", here.address, door, dialler, MOST)).close()
        await coming
        # It is for one attempt.
        with pytest.raises(PeerLost):
            await dial("party0", here.address, door, dialler, MOST)


async def test_the_wrong_acceptor():
    """Somebody listens who knows the door, and not the key."""
    dialler, _ = agreed()

    async def answer(reader, writer):
        await reader.readexactly(NAME + TAG)
        writer.write(bytes(TAG))

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(ProtocolViolation, match="another key"):
            await dial("party0", f"{host}:{port}", bytes(NAME), dialler, MOST)


@pytest.mark.parametrize("change", ["bit", "twice", "large", "header", "lengths"])
async def test_what_is_wrong_ends_it(change):
    async with linked(most=1000) as (there, here):
        write = there._stream.write
        match change:
            case "bit":
                there._stream.write = lambda first, *more: write(bytearray([first[0] ^ 1, *first[1:]]), *more)
                there.send(Ping(nonce=1))
            case "twice":
                there._stream.write = lambda *frames: write(*(frame for each in frames for frame in (each, each)))
                there.send(Ping(nonce=1))
            case "large":
                there.send(Ping(nonce=1), [bytes(1001)])
            case "header":
                write(there._sealed((1 << 31).to_bytes(4, "little") + bytes(12)))
            case "lengths":
                write(there._sealed(b"\1\0\0\0\1\0\0\0" + (9).to_bytes(8, "little")))
                write(there._sealed(b"\0" + (10).to_bytes(8, "little")))
        with pytest.raises(ProtocolViolation, match="party1"):
            await here.receive()
            await here.receive()


async def test_an_end_is_noticed():
    async with linked() as (there, here):
        there.abort()
        with pytest.raises(PeerLost, match="party1"):
            await here.receive()
