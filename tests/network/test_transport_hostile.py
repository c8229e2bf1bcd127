"""A member with a legitimate key that says whatever it likes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from mpc.errors import ProtocolViolation, VersionMismatch
from parties.wire.events import Delivery, LinkFault, PeerDown, PeerRestarted
from parties.wire.messages import PROTOCOL_VERSION, Envelope, Message, Ping, encode_envelope, encode_header

Expect = Callable[..., Awaitable[Any]]


class Word(Message, frozen=True):
    number: int


async def fault(expect: Expect, endpoint: Any) -> ProtocolViolation:
    event = await expect(endpoint, LinkFault)
    assert event.sender.name == event.error.peer
    assert isinstance(event.error, ProtocolViolation)
    return event.error


@pytest.mark.parametrize("name", ["clinic", "p1"])
async def test_a_gap_a_duplicate_and_a_replay(site: Any, expect: Expect, name: str) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue(name, "p0")
    rogue.greet()
    for i in (1, 2, 3):
        rogue.say(Word(i), i)
        assert (await expect(p0, Delivery)).message == Word(i)
    rogue.say(Word(9), 9)
    assert str(await fault(expect, p0)) == f"{name}: sent message 9 when 4 was due: 5 lost on the way"
    rogue.say(Word(10), 10)
    assert (await p0.receive()).message == Word(10)
    rogue.say(Word(10), 10)
    assert str(await fault(expect, p0)) == f"{name}: repeated message 10 when 11 was due"
    rogue.say(Word(2), 2)
    assert "repeated message 2 when 11 was due" in str(await fault(expect, p0))
    rogue.say(Word(11), 11)
    assert (await p0.receive()).message == Word(11)


async def test_a_replay_is_no_sign_of_life(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    rogue.say(Word(1), 1)
    await expect(p0, Delivery)
    with p0.watch(["clinic"]):
        for _ in range(40):
            rogue.say(Word(1), 1)
            event = await expect(p0, LinkFault, PeerDown)
            if isinstance(event, PeerDown):
                break
            await asyncio.sleep(0.05)
    assert isinstance(event, PeerDown)
    assert "silent" in str(event.error)


async def test_no_greeting(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.say(Word(0), 0)
    assert str(await fault(expect, p0)) == "clinic: sent a message before its greeting"
    rogue.greet(1)
    rogue.say(Word(2), 2)
    assert (await p0.receive()).message == Word(2)


async def test_a_former_incarnation_cannot_come_back(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    rogue.incarnation = b"second.."
    rogue.greet()
    assert isinstance(await p0.receive(), PeerRestarted)
    rogue.incarnation = b"rogue..."
    rogue.greet(1)
    rogue.say(Word(2), 2)
    rogue.incarnation = b"second.."
    rogue.say(Word(1), 1)
    event = await p0.receive()
    assert isinstance(event, Delivery), event
    assert event.message == Word(1)


def envelope(sequence: int) -> bytes:
    return encode_envelope(Envelope(b"rogue...", sequence))


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (b"", "malformed header"),
        (b"\xc1", "malformed header"),
        (b"\x80", "malformed header"),
        (bytes(range(100, 200)), "malformed header"),
        (msgspec.msgpack.encode({"type": "Unknown"}), "Invalid value 'Unknown'"),
        (msgspec.msgpack.encode({"type": "Word"}), "missing required field `number`"),
        (msgspec.msgpack.encode({"type": "Word", "number": "1"}), "Expected `int`, got `str`"),
        (msgspec.msgpack.encode({"type": "Word", "number": 1, "more": 2}), "unknown field `more`"),
        (msgspec.msgpack.encode({"type": "Word", "number": 1}) + b"x", "malformed header"),
        (b"\x91" * 5000, "malformed header"),
        (b"x" * ((1 << 20) + 1), "header of 1048577 bytes"),
    ],
)
async def test_a_malformed_header(site: Any, expect: Expect, header: bytes, complaint: str) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("p1", "p0")
    rogue.greet()
    rogue.raw(envelope(1), header, b"payload")
    assert complaint in str(await fault(expect, p0))
    rogue.say(Word(2), 2)
    assert (await p0.receive()).message == Word(2), "the link goes on, in sequence"


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([b""], "message of 1 frames"),
        ([b"x"], "message of 1 frames"),
        ([b"", b""], "not a Tessera message"),
        ([os.urandom(24), b"x"], "not a Tessera message"),
        ([envelope(1)], "message of 1 frames"),
        ([envelope(1)[:20], b"x"], "envelope of 20 bytes instead of 25"),
        ([envelope(1) + b"x", b"x"], "envelope of 26 bytes instead of 25"),
        ([envelope(1), encode_header(Ping(1)), *([b""] * ((1 << 14) + 1))], "message of 16387 frames"),
    ],
)
async def test_garbage(site: Any, expect: Expect, frames: list[bytes], complaint: str) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    rogue.raw(*frames)
    assert complaint in str(await fault(expect, p0))
    rogue.say(Word(1), 1)
    assert (await p0.receive()).message == Word(1)


async def test_another_protocol_version(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.raw(b"TESR\x63\0\0\0" + b"whatever comes then", b"x")
    event = await expect(p0, LinkFault)
    assert isinstance(event.error, VersionMismatch)
    assert f"speaks protocol version 99, we speak {PROTOCOL_VERSION}:" in str(event.error)


async def test_a_frame_over_the_limit_never_gets_in(site: Any, expect: Expect) -> None:
    site = site.with_settings(max_message_mb=1)
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    rogue.say(Word(1), 1)
    await expect(p0, Delivery)
    with p0.watch(["clinic"]):
        rogue.raw(envelope(2), encode_header(Word(2)), bytes(2 << 20))
        event = await expect(p0, PeerDown, Delivery)
        assert isinstance(event, PeerDown)
        assert "connection closed" in str(event.error)
    rogue.say(Word(3), 3)
    assert "1 lost on the way" in str(await fault(expect, p0))


async def test_frames_that_are_too_much_together(site: Any, expect: Expect) -> None:
    site = site.with_settings(max_message_mb=1)
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    for number, buffers in enumerate(([bytes(1 << 20)] * 4, [bytes((1 << 20) + 1)], [b"x", bytes(1 << 20)]), 1):
        rogue.say(Word(number), number, *buffers)
        assert "beyond the limit of 1048576" in str(await fault(expect, p0))
    rogue.say(Word(4), 4, bytes(1 << 20))
    assert len((await expect(p0, Delivery)).buffers[0]) == 1 << 20


async def test_a_fault_of_one_peer_does_not_touch_another(site: Any, expect: Expect) -> None:
    p0, clinic = await site.endpoints("p0", "clinic")
    rogue = site.rogue("p1", "p0")
    rogue.greet()
    for i in range(50):
        rogue.raw(b"garbage", os.urandom(30))
        clinic.send("p0", Word(i))
    words = []
    while len(words) < 50:
        event = await p0.receive()
        if isinstance(event, Delivery):
            assert event.sender.name == "clinic"
            words.append(event.message)
        else:
            assert event.sender.name == "p1"
    assert words == [Word(i) for i in range(50)]
