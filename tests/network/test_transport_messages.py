"""Framing of messages, and the gatekeeper's answers, without a network."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest
import zmq
from zmq.utils import z85

from mpc.errors import ProtocolViolation
from mpc.rings.ring import as_array
from parties.members.keys import KeyPair
from parties.wire.messages import (
    MAX_BUFFERS,
    MAX_HEADER_BYTES,
    PIECE,
    Envelope,
    Hello,
    Message,
    Ping,
    Refused,
    decode,
    encode,
    encode_header,
)
from parties.wire.zap import Gatekeeper

ENVELOPE = Envelope(b"abcdefgh", (1 << 64) - 1)


def test_a_round_trip_does_not_copy_payload() -> None:
    array = np.arange(10, dtype=np.uint64).reshape(2, 5)
    frames = encode(Hello("1.0", "ff", 1), [array, b"raw", bytearray(b"x")], ENVELOPE)
    assert np.shares_memory(np.frombuffer(frames[2], np.uint8), array)
    envelope, message, buffers = decode("p0", frames)
    assert (envelope, message) == (ENVELOPE, Hello("1.0", "ff", 1))
    np.testing.assert_array_equal(as_array(buffers[0]), array.ravel())
    assert [bytes(b) for b in buffers[1:]] == [b"raw", b"x"]


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE - 8])
def test_large_buffers_go_in_pieces(size: int) -> None:
    large = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    frames = encode(Ping(1), [b"before", large, large[:0], large, b"after"], ENVELOPE)
    assert max(map(len, frames)) <= PIECE
    assert len(frames) == 2 + 3 + 2 * (size // PIECE + 1)
    assert all(np.shares_memory(np.frombuffer(f, np.uint8), large) for f in frames[2:] if len(f) == PIECE)
    before, first, empty, second, after = decode("p0", frames)[2]
    assert (bytes(before), bytes(empty), bytes(after)) == (b"before", b"", b"after")
    assert bytes(first) == bytes(second) == large.tobytes()
    assert as_array(second[: size // 8 * 8]).flags.aligned


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([bytes(PIECE)], "the beginning of a buffer without its end"),
        ([b"x", bytes(PIECE), bytes(PIECE)], "the beginning of a buffer without its end"),
        ([bytes(PIECE + 1)], f"a frame of {PIECE + 1} bytes"),
        ([bytes(PIECE), bytes(PIECE + 1), b""], f"a frame of {PIECE + 1} bytes"),
        ([b""] * (MAX_BUFFERS + 1), f"a message of {MAX_BUFFERS + 3} frames"),
        ([bytes(PIECE), *[b""] * (MAX_BUFFERS + 1)], f"a message of {MAX_BUFFERS + 4} frames"),
    ],
)
def test_what_no_buffer_is_cut_into(frames: list[bytes], complaint: str) -> None:
    with pytest.raises(ProtocolViolation, match=complaint):
        decode("p0", [*encode(Ping(1), (), ENVELOPE), *frames])
    assert len(decode("p0", [*encode(Ping(1), (), ENVELOPE), bytes(PIECE), *[b""] * MAX_BUFFERS])[2]) == MAX_BUFFERS


def test_an_unaligned_payload_becomes_an_aligned_array() -> None:
    raw = np.arange(4, dtype=np.uint64).tobytes()
    for shift in range(8):
        array = as_array(memoryview(bytes(shift) + raw)[shift:])
        assert array.flags.aligned
        np.testing.assert_array_equal(array, np.arange(4))
    assert as_array(b"").size == 0
    with pytest.raises(ValueError, match="size"):
        as_array(b"123")


@pytest.mark.parametrize("buffer", [np.zeros((3, 3))[:, 0], memoryview(b"12345678")[::2]])
def test_scattered_buffers_are_refused(buffer: memoryview) -> None:
    with pytest.raises(ValueError, match="C-contiguous"):
        encode(Ping(1), [buffer], ENVELOPE)


def test_bulk_does_not_belong_in_a_header() -> None:
    with pytest.raises(ValueError, match="header of"):
        encode_header(Refused("x" * MAX_HEADER_BYTES))


def test_two_types_of_one_name_are_refused_when_defined() -> None:
    with pytest.raises(TypeError, match="called Ping already"):
        type("Ping", (Message,), {}, frozen=True)


def test_no_random_bytes_do_more_than_raise() -> None:
    random = np.random.default_rng(5)
    good = encode(Hello("1.0", "ff", 1), [b"x"], ENVELOPE)
    for _ in range(3000):
        frames = [bytearray(frame) for frame in good]
        victim = frames[random.integers(2)]
        victim[random.integers(len(victim))] ^= 1 << random.integers(8)
        if random.integers(4) == 0:
            del victim[random.integers(len(victim)) :]
        try:
            _, message, _ = decode("p0", frames)
        except Exception as error:  # noqa: BLE001 - which ones there are is the question
            assert getattr(error, "peer", None) == "p0", error
        else:
            assert isinstance(message, Message)


def test_what_a_peer_wrote_is_quoted_in_brief() -> None:
    header = encode_header(Refused("y")).replace(b"Refused", b"Refuse!")
    with pytest.raises(ProtocolViolation, match="Invalid value 'Refuse!'"):
        decode("p0", [encode(Ping(1), (), ENVELOPE)[0], header])


async def test_the_gatekeeper_answers_anything() -> None:
    pair = KeyPair.generate()
    key = z85.decode(pair.curve)
    good = [b"1.0", b"7", b"tessera", b"127.0.0.1", b"", b"CURVE", key]
    with zmq.Context() as context:
        gatekeeper = Gatekeeper(context, [pair.curve])
        try:
            assert gatekeeper.judge(good) == [b"1.0", b"7", b"200", b"OK", pair.curve.encode(), b""]
            for wrong in (
                [],
                [b""],
                [b"1.0", b"7"],
                good[:6],
                [*good, b""],
                [*good[:6], key[:31]],
                [*good[:6], os.urandom(32)],
                [*good[:5], b"NULL", key],
                [*good[:2], b"elsewhere", *good[3:]],
                [*good[:3], b"\xff\xfe", b"", b"PLAIN", b"u", b"p"],
            ):
                answer = gatekeeper.judge(wrong)
                assert (len(answer), answer[2], answer[4]) == (6, b"400", b"")
        finally:
            gatekeeper.close()
            gatekeeper.close()
    await asyncio.sleep(0)
