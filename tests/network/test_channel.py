"""A data channel by itself, with whoever sits between its ends: what was not sent so is never handed out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from parties.host import processor
from parties.wire import channel as channels
from parties.wire import data_keys
from parties.wire.channel import FRAME, Channel, sealed_bytes
from parties.wire.data_keys import TAG, ChannelKeys, End, Opener, Sealer

from .conftest import until

A, B = End("a" * 80, b"process1", b"1" * 32), End("b" * 80, b"process2", b"2" * 32)
BINDING = b"m" * 32
SEALED = FRAME + TAG


@dataclass
class Side:
    """One end, and what becomes of it."""

    connection: socket.socket
    room: bool = True
    clock: float = 0.0
    got: list[list[bytes]] = field(default_factory=list)
    lost: list[tuple[str, bool]] = field(default_factory=list)

    def opened(self, sealer: Sealer, opener: Opener) -> Channel:
        return Channel(
            self.connection,
            b"n" * 16,
            sealer,
            opener,
            has_room=lambda: self.room,
            now=lambda: self.clock,
            timeout=5.0,
            on_lost=lambda channel, reason, unsent: self.lost.append((reason, unsent)),
        )

    def take(self, buffers: Sequence[memoryview]) -> None:
        self.got.append([bytes(buffer) for buffer in buffers])


@dataclass
class Line:
    """Two ends, and the wires between them, in nobody's hands but the test's."""

    keys: ChannelKeys
    dialler: Side
    acceptor: Side
    out: socket.socket
    into: socket.socket
    there: Channel = field(init=False)
    here: Channel = field(init=False)

    def __post_init__(self) -> None:
        self.there = self.dialler.opened(Sealer(self.keys.dialler), Opener(self.keys.acceptor))
        self.here = self.acceptor.opened(Sealer(self.keys.acceptor), Opener(self.keys.dialler))

    async def sent(self, size: int) -> bytes:
        """So many bytes of what the dialler has sent."""
        loop, data = asyncio.get_running_loop(), bytearray()
        while len(data) < size:
            some = await asyncio.wait_for(loop.sock_recv(self.out, size - len(data)), 20)
            assert some
            data += some
        return bytes(data)

    async def bring(self, data: bytes) -> None:
        """To the acceptor, which has read it then."""
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.into, data), 20)
        for _ in range(20):
            await asyncio.sleep(0.002)
            self.here.read()


def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    for end in (one, other):
        end.setblocking(False)
    with one, other:
        yield one, other


@contextlib.contextmanager
def line_of(keys: ChannelKeys) -> Iterator[Line]:
    pair = contextlib.contextmanager(tcp)
    with pair() as (one, out), pair() as (into, other):
        line = Line(keys, Side(one), Side(other), out, into)
        yield line
        line.there.close()
        line.here.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    with line_of(ChannelKeys.agreed(A, B)) as line:
        yield line


def content(*lengths: int) -> list[bytes]:
    return [os.urandom(length) for length in lengths]


@pytest.mark.parametrize(
    "lengths", [[1], [FRAME], [FRAME + 1], [FRAME - 1, 3 * FRAME, 5], [100] * 50, [9 * FRAME + 12345]]
)
async def test_buffers_arrive(line: Line, lengths: list[int]) -> None:
    sent = content(*lengths)
    line.there.send("", BINDING, sent)
    line.here.expect(BINDING, lengths, line.acceptor.take)
    size = sealed_bytes(lengths)
    while size:
        part = min(size, 700_001)
        await line.bring(await line.sent(part))
        size -= part
    assert line.acceptor.got == [sent]
    assert not line.acceptor.lost + line.dialler.lost
    with pytest.raises(BlockingIOError):
        line.out.recv(1)


async def test_both_directions_at_once(line: Line) -> None:
    """A connection of its own, read and written in turns of the loop."""
    with contextlib.contextmanager(tcp)() as (one, other):
        sides = Side(one), Side(other)
        keys = line.keys
        a = sides[0].opened(Sealer(keys.dialler), Opener(keys.acceptor))
        b = sides[1].opened(Sealer(keys.acceptor), Opener(keys.dialler))
        messages = [content(40 * FRAME + 1), content(FRAME, 7)]
        for sender, receiver, side in ((a, b, sides[1]), (b, a, sides[0])):
            for message in messages:
                sender.send("", BINDING, message)
                receiver.expect(BINDING, list(map(len, message)), side.take)
        await until(lambda: all(len(side.got) == 2 for side in sides))
        assert sides[0].got == sides[1].got == messages
        a.close()
        b.close()


def changed(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        copy = bytearray(data)
        copy[at] ^= 1
        return bytes(copy)

    return change


TAMPERED: dict[str, Callable[[bytes], bytes]] = {
    "the first byte changed": changed(0),
    "a byte in the middle changed": changed(SEALED + 1000),
    "a byte of a tag changed": changed(SEALED - 1),
    "the last byte changed": changed(-1),
    "two frames swapped": lambda data: data[SEALED : 2 * SEALED] + data[:SEALED] + data[2 * SEALED :],
    "a frame twice": lambda data: data[:SEALED] + data[:SEALED] + data[SEALED:],
    "a frame in the place of the next": lambda data: data[:SEALED] * 2 + data[2 * SEALED :],
    "a frame missing": lambda data: data[SEALED:] + bytes(SEALED),
    "a byte more": lambda data: b"\0" + data,
    "a byte less": lambda data: data[1:] + b"\0",
    "nothing of it": lambda data: os.urandom(len(data)),
}


@pytest.mark.parametrize("how", TAMPERED)
async def test_what_was_not_sent_so_is_not_handed_out(line: Line, how: str) -> None:
    sent = content(3 * FRAME)
    line.there.send("", BINDING, sent)
    data = await line.sent(sealed_bytes([3 * FRAME]))
    line.here.expect(BINDING, [3 * FRAME], line.acceptor.take)
    await line.bring(TAMPERED[how](data))
    ((reason, unsent),) = line.acceptor.lost
    assert "does not belong there" in reason
    assert not unsent
    assert not line.acceptor.got
    assert line.here.closed


async def test_a_message_again(line: Line) -> None:
    """Its frames, once they have been taken, are none any more, whatever is due."""
    message = content(FRAME)
    line.there.send("", BINDING, message)
    data = await line.sent(SEALED)
    for _ in range(2):
        line.here.expect(BINDING, [FRAME], line.acceptor.take)
        await line.bring(data)
    assert line.acceptor.got == [message]
    assert "does not belong there" in line.acceptor.lost[0][0]


@pytest.mark.parametrize("cut", [0, 1, SEALED - 1, SEALED, SEALED + 1])
async def test_a_message_without_its_end(line: Line, cut: int) -> None:
    line.there.send("", BINDING, content(2 * FRAME))
    data = await line.sent(2 * SEALED)
    line.here.expect(BINDING, [2 * FRAME], line.acceptor.take)
    line.into.sendall(data[:cut])
    line.into.shutdown(socket.SHUT_WR)
    await line.bring(b"")
    assert [reason for reason, _ in line.acceptor.lost] == ["was closed at the other end"]
    assert not line.acceptor.got


OTHERS = {
    "a link between others": (A._replace(key="c" * 80), B),
    "a former process": (A._replace(incarnation=b"process0"), B),
    "a former process at the other end": (A, B._replace(incarnation=b"process0")),
    "an earlier connection": (A._replace(random=b"0" * 32), B),
    "an earlier answer": (A, B._replace(random=b"0" * 32)),
    "the other way round": (B, A),
}


@pytest.mark.parametrize("which", OTHERS)
async def test_a_frame_of_another_channel(line: Line, which: str) -> None:
    other = ChannelKeys.agreed(*OTHERS[which])
    assert len({other.name, line.keys.name}) == 2
    assert len({other.dialler, other.acceptor, line.keys.dialler, line.keys.acceptor}) == 4
    out = memoryview(bytearray(SEALED + data_keys.SLACK))
    line.here.expect(BINDING, [FRAME], line.acceptor.take)
    await line.bring(bytes(out[: Sealer(other.dialler).seal(bytes(FRAME), BINDING, out)]))
    assert "does not belong there" in line.acceptor.lost[0][0]


async def test_its_own_frames_do_not_come_back(line: Line) -> None:
    line.here.send("", BINDING, content(FRAME))
    line.here.expect(BINDING, [FRAME], line.acceptor.take)
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < SEALED:
        data += await loop.sock_recv(line.into, SEALED - len(data))
    await line.bring(data)
    assert "does not belong there" in line.acceptor.lost[0][0]


@pytest.mark.parametrize(
    ("binding", "lengths"),
    [
        (b"x" * 32, [FRAME, FRAME]),
        (BINDING, [2 * FRAME - 1]),
        (BINDING, [FRAME - 1, FRAME + 1]),
        (BINDING, [FRAME // 2]),
    ],
)
async def test_a_frame_is_of_its_message_and_length(line: Line, binding: bytes, lengths: list[int]) -> None:
    line.there.send("", BINDING, content(FRAME, FRAME))
    line.here.expect(binding, lengths, line.acceptor.take)
    await line.bring(await line.sent(2 * SEALED))
    assert "does not belong there" in line.acceptor.lost[0][0]
    assert not line.acceptor.got


async def test_keys_are_renewed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """At both ends after as many bytes; and no key and nonce are used twice."""
    monkeypatch.setattr(data_keys, "RENEWED", 2 * FRAME)
    used: list[tuple[bytes, bytes]] = []
    following = data_keys._Chain.next

    def noted(chain: data_keys._Chain, size: int) -> tuple[object, bytes]:
        cipher, nonce = following(chain, size)
        used.append((chain._key, nonce))
        return cipher, nonce

    message = content(7 * FRAME + 1)
    with monkeypatch.context() as patch:
        patch.setattr(data_keys._Chain, "next", noted)
        line.there.send("", BINDING, message)
        data = await line.sent(sealed_bytes([len(message[0])]))
    line.here.expect(BINDING, [len(message[0])], line.acceptor.take)
    await line.bring(data)
    assert line.acceptor.got == [message]
    assert len(used) == len(set(used)) == 8
    assert len({key for key, _ in used}) == 4
    assert len({nonce for _, nonce in used}) == 8


async def test_nothing_is_read_where_there_is_no_room(line: Line) -> None:
    """A message waits in the network and at its sender; one that has been begun is read on."""
    with contextlib.contextmanager(tcp)() as (one, other):
        sender, side = Side(one), Side(other, room=False)
        a = sender.opened(Sealer(line.keys.dialler), Opener(line.keys.acceptor))
        b = side.opened(Sealer(line.keys.acceptor), Opener(line.keys.dialler))
        message = content(64 << 20)
        a.send("", BINDING, message)
        b.expect(BINDING, [64 << 20], side.take)
        await asyncio.sleep(0.1)
        assert a.sends
        assert not b._frame
        side.clock = 100.0
        b.judge()
        assert not side.lost, "it is not its peer's fault"
        side.room = True
        b.read()
        await asyncio.sleep(0)
        side.room = False
        await until(lambda: side.got)
        assert side.got == [message]
        a.close()
        b.close()


async def test_silence_is_judged(line: Line) -> None:
    line.there.send("", BINDING, content(2 * FRAME))
    data = await line.sent(2 * SEALED)
    line.acceptor.clock = 10.0
    line.here.judge()
    line.here.expect(BINDING, [2 * FRAME], line.acceptor.take)
    line.acceptor.clock = 14.0
    await line.bring(data[:100])
    line.acceptor.clock = 18.5
    line.here.judge()
    assert not line.acceptor.lost
    line.acceptor.clock = 19.5
    line.here.judge()
    assert "brought nothing for 5 s" in line.acceptor.lost[0][0]


async def test_bytes_that_nothing_has_announced_stay_where_they_are(line: Line) -> None:
    line.there.send("", BINDING, content(FRAME))
    data = await line.sent(SEALED)
    await line.bring(data)
    assert not line.here._frame
    assert not line.here._reading, "the loop is not kept busy by them"
    line.here.expect(BINDING, [FRAME], line.acceptor.take)
    await line.bring(b"")
    assert len(line.acceptor.got) == 1


async def test_an_end_is_noticed_when_nothing_is_due(line: Line) -> None:
    line.into.close()
    await until(lambda: line.acceptor.lost)
    assert [reason for reason, _ in line.acceptor.lost] == ["was closed at the other end"]


async def test_what_could_not_be_sent_is_told(line: Line) -> None:
    line.there.send("", BINDING, content(64 << 20))
    line.out.close()
    async with asyncio.timeout(20):
        while not line.dialler.lost:
            line.there.send("", BINDING, content(1))
            await asyncio.sleep(0.01)
    ((_, unsent),) = line.dialler.lost
    assert unsent
    assert line.there.closed


def test_secrets_are_not_shown() -> None:
    keys = ChannelKeys.agreed(A, B)
    assert repr(keys) == f"ChannelKeys(name={keys.name!r})"


def test_both_ends_make_the_same_keys() -> None:
    assert ChannelKeys.agreed(A, B) == ChannelKeys.agreed(A, B)
    # Lengths are part of what goes in: no two pairs of ends say the same.
    assert ChannelKeys.agreed(A._replace(key="a" * 79), B) != ChannelKeys.agreed(
        A._replace(key="a" * 79, incarnation=b"a" + A.incarnation), B
    )


def test_where_there_is_no_aes(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    info = tmp_path / "cpuinfo"  # type: ignore[operator]
    monkeypatch.setattr(processor, "_CPUINFO", info)
    assert data_keys.hardware_aes() == (data_keys.platform.machine() in ("x86_64", "aarch64", "arm64", "AMD64"))
    for line, has in (("flags : fpu sse2 aes avx", True), ("flags : fpu sse2 vaes2", False)):
        info.write_text(line)
        assert data_keys.hardware_aes() is has


def test_a_frame_is_small_beside_a_turn() -> None:
    assert FRAME < channels._TURN
