"""Large buffers beside the links of endpoints: where they go, in which order, and who cannot get in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from mpc.errors import ConfigurationError, PeerLost, PeerUnavailable, ProtocolViolation
from parties.local.ports import reserved_ports
from parties.wire import channel as channels
from parties.wire import data_port, lanes
from parties.wire.apart import LARGE, Apart
from parties.wire.channel import Channel, sealed_bytes
from parties.wire.channels import Channels
from parties.wire.data_keys import NAME
from parties.wire.data_port import PROOF
from parties.wire.events import Delivery, LinkFault, PeerRestarted
from parties.wire.messages import ChannelWanted, Envelope, HelloReply, Message, Ping

from .conftest import standing, until

Expect = Callable[..., Awaitable[Any]]

AT_ONCE = data_port.PATIENCE - 1
"""s."""


class Told(Message, frozen=True):
    number: int
    of: str = ""

    @property
    def lane(self) -> str:
        return self.of


async def pair(site: Any, *names: str) -> list[Any]:
    """Endpoints with channels among all of them."""
    made = await site.endpoints(*names)
    for one in made:
        for other in made:
            if one is not other:
                await standing(one, other.me.name)
    return made


def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of all buffers that go over channels from now on."""
    lengths: list[int] = []
    send = Channel.send

    def noted(channel: Channel, lane: str, binding: bytes, buffers: Any) -> None:
        lengths.extend(map(len, buffers))
        send(channel, lane, binding, buffers)

    monkeypatch.setattr(Channel, "send", noted)
    return lengths


@pytest.mark.parametrize(("sender", "receiver"), [("p0", "p1"), ("clinic", "p0"), ("p0", "clinic"), ("p1", "dealer")])
async def test_large_buffers_go_apart(
    site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch, sender: str, receiver: str
) -> None:
    a, b = await pair(site, sender, receiver)
    apart = count(monkeypatch)
    before = b.traffic(sender).payload_received
    buffers = [os.urandom(n) for n in (LARGE, 5, LARGE - 1, 3 << 20, 0)]
    assert a.send(receiver, Told(1), buffers) == sum(map(len, buffers))
    a.send(receiver, Told(2), [b"small"])
    event = await expect(b, Delivery)
    assert event.message == Told(1)
    assert [bytes(buffer) for buffer in event.buffers] == buffers
    assert apart == [LARGE, LARGE - 1, 3 << 20]
    assert (await expect(b, Delivery)).message == Told(2)
    assert b.traffic(sender).payload_received - before == sum(map(len, buffers)) + 5
    assert sealed_bytes(apart) > sum(apart)


async def test_where_there_is_no_data_port_all_goes_over_curve(
    site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = site.cluster
    parties = tuple(replace(party, data_port=0) for party in cluster.parties)
    site = replace(site, cluster=replace(cluster, parties=parties))
    apart = count(monkeypatch)
    p0, clinic = await site.endpoints("p0", "clinic")
    await asyncio.sleep(0.05)
    clinic.send("p0", Told(1), [bytes(LARGE)])
    assert (await expect(p0, Delivery)).message == Told(1)
    assert not apart


async def test_a_port_that_is_taken(site: Any) -> None:
    (port,) = site.stack.enter_context(reserved_ports(1))
    cluster = replace(site.cluster, dealer=replace(site.cluster.dealer, data_port=port))
    wanted = f"data_port {port}: it is already in use"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(ConfigurationError, match=wanted):
        await site.endpoint("dealer", cluster=cluster)
    dealer = await site.endpoint("dealer", cluster=cluster)
    assert dealer._wires._channels._port.number == port


def rooms(endpoint: Any, link: str) -> Callable[[bool], None]:
    """Says whether there is room for what comes over that peer's channel."""
    channel = endpoint._link(link).receiving

    def say(room: bool) -> None:
        channel._has_room = lambda: room
        channel.read()

    return say


async def test_what_is_small_overtakes_what_is_large_in_other_lanes(site: Any, expect: Expect) -> None:
    p0, p1 = await pair(site, "p0", "p1")
    say = rooms(p1, "p0")
    say(False)
    p0.send("p1", Told(1, "a"), [bytes(20 << 20)])
    p0.send("p1", Told(2, "a"))
    p0.send("p1", Told(3, "b"), [bytes(LARGE)])
    p0.send("p1", Told(4, "b"))
    p0.send("p1", Told(5, "c"))
    assert (await expect(p1, Delivery)).message == Told(5, "c")
    assert await p0.ping("p1", 1) < 1, "and so do pings"
    say(True)
    came = [(await expect(p1, Delivery)).message for _ in range(4)]
    assert [told.number for told in came if told.of == "a"] == [1, 2]
    assert [told.number for told in came if told.of == "b"] == [3, 4]
    p0.send("p1", Told(6, "a"))
    assert (await expect(p1, Delivery)).message == Told(6, "a")
    assert len(p1._link("p0").lanes) == 0


async def test_what_waits_for_a_large_message_waits_at_its_sender(
    site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its own lane, and as far as it is worth a frame: its receiver has its head alone."""
    p0, p1 = await pair(site, "p0", "p1")
    rooms(p1, "p0")(False)
    apart = count(monkeypatch)
    p0.send("p1", Told(0, "a"), [bytes(64 << 20)])
    for number in range(1, 201):
        p0.send("p1", Told(number, "a"), [bytes(LARGE - 1), b"small"])
    p0.send("p1", Told(201, "b"), [bytes(LARGE - 1)])
    assert (await expect(p1, Delivery)).message == Told(201, "b")
    assert apart == [64 << 20, *[LARGE - 1] * 200]
    rooms(p1, "p0")(True)
    for number in range(201):
        event = await expect(p1, Delivery)
        assert event.message == Told(number, "a")
    assert [len(buffer) for buffer in event.buffers] == [LARGE - 1, 5]
    p0.send("p1", Told(202, "a"), [bytes(LARGE - 1)])
    assert (await expect(p1, Delivery)).message == Told(202, "a")
    assert len(apart) == 201


async def test_many_large_messages_come_in_their_order(site: Any, expect: Expect) -> None:
    """Also while the receiver takes them up slowly; and no more of them lie there than may."""
    p0, clinic = await pair(site, "p0", "clinic")
    for number in range(60):
        clinic.send("p0", Told(number), [bytes([number]) * (1 << 20)])
    await asyncio.sleep(0.3)
    assert p0.traffic("clinic").payload_received <= (8 << 20) + (1 << 20)
    for number in range(60):
        event = await expect(p0, Delivery)
        assert event.message == Told(number)
        assert bytes(event.buffers[0][:: 1 << 18]) == bytes([number]) * 4


async def test_low_latency_reads_and_writes_channels(site: Any, expect: Expect) -> None:
    p0, p1 = await pair(site, "p0", "p1")
    with p0.low_latency(), p1.low_latency():
        for number in range(3):
            p0.send("p1", Told(number), [bytes(30 << 20)])
            p1.send("p0", Told(number), [bytes(30 << 20)])
            both = await asyncio.gather(expect(p0, Delivery), expect(p1, Delivery))
            assert [event.message for event in both] == [Told(number)] * 2


async def faults(endpoint: Any, expect: Expect) -> PeerLost:
    event = await expect(endpoint, LinkFault)
    assert event.error.peer == event.sender.name
    assert isinstance(event.error, PeerLost)
    return event.error


async def test_a_channel_that_breaks_loses_its_messages_and_is_made_anew(site: Any, expect: Expect) -> None:
    """Both ends hear of it, typed; what waited behind comes; the link goes on."""
    p0, clinic = await pair(site, "p0", "clinic")
    former = clinic._link("p0").sending
    rooms(p0, "clinic")(False)
    clinic.send("p0", Told(1), [bytes(64 << 20)])
    clinic.send("p0", Told(2))
    clinic.send("p0", Told(3, "other"))
    assert (await expect(p0, Delivery)).message == Told(3, "other")
    p0._link("clinic").receiving._connection.shutdown(socket.SHUT_RDWR)
    p0._link("clinic").receiving.end("broke")
    assert "its data connection broke: messages on the way are lost" in str(await faults(p0, expect))
    assert (await expect(p0, Delivery)).message == Told(2)
    assert "its data connection" in str(await faults(clinic, expect))
    clinic.send("p0", Told(4), [bytes(LARGE)])
    assert (await expect(p0, Delivery)).message == Told(4), "over CURVE"
    assert (await standing(clinic, "p0")).name != former.name
    clinic.send("p0", Told(5), [bytes(LARGE)])
    assert (await expect(p0, Delivery)).message == Told(5)


async def test_a_changed_byte_on_the_way(site: Any, expect: Expect) -> None:
    """Somebody in the network changes what goes to the data port of a server."""
    p0, clinic = await pair(site, "p0", "clinic")
    channel = clinic._link("p0").sending
    seal = channel._sealer.seal

    def changed(data: memoryview, binding: bytes, out: memoryview) -> int:
        size = seal(data, binding, out)
        out[size // 2] ^= 1
        return size

    channel._sealer.seal = changed
    clinic.send("p0", Told(1), [bytes(LARGE)])
    assert "brought what does not belong there" in str(await faults(p0, expect))
    clinic.send("p0", Told(2))
    assert (await expect(p0, Delivery)).message == Told(2)


async def test_who_gets_no_answer_asks_again_when_greeted(
    site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    p0 = await site.endpoint("p0")
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(Channels, "_offer", lambda channels, link, wanted: asked.append(wanted))
        clinic = await site.endpoint("clinic")
        await clinic.connect(["p0"], 20)
        await until(lambda: asked)
    assert clinic._link("p0").sending is None
    p0._transmit(p0._link("clinic"), HelloReply(*p0._receiver.greeting))
    await standing(clinic, "p0")
    assert len(asked) == 1


async def test_another_process_has_another_channel(site: Any, expect: Expect) -> None:
    p0, clinic = await pair(site, "p0", "clinic")
    former = p0._link("clinic").receiving
    again = await site.endpoint("clinic")
    await again.connect(["p0"], 20)
    await expect(p0, PeerRestarted)
    await standing(again, "p0")
    assert former.closed
    assert p0._link("clinic").receiving.name == again._link("p0").sending.name != former.name
    again.send("p0", Told(1), [bytes(LARGE)])
    assert (await expect(p0, Delivery)).message == Told(1)
    assert clinic._link("p0").sending is None or clinic._link("p0").sending.name != former.name


async def test_a_channel_goes_with_its_connection(site: Any, expect: Expect) -> None:
    p0, clinic = await pair(site, "p0", "clinic")
    former = clinic._link("p0").sending
    await p0.close()
    await until(lambda: clinic._link("p0").sending is None)
    assert former.closed
    p0 = await site.endpoint("p0")
    await clinic.connect(["p0"], 20)
    await standing(clinic, "p0")
    clinic.send("p0", Told(1), [bytes(LARGE)])
    assert (await expect(p0, Delivery)).message == Told(1)


async def test_what_nobody_takes_is_not_queued_for_ever(
    site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    p0, p1 = await pair(site, "p0", "p1")
    monkeypatch.setattr(channels, "_MOST", 3)
    rooms(p1, "p0")(False)
    with pytest.raises(PeerUnavailable, match="does not read"):
        for number in range(200):
            p0.send("p1", Told(number), [bytes(1 << 20)])
    rooms(p1, "p0")(True)
    for told in range(number):
        assert (await expect(p1, Delivery)).message == Told(told)
    p0.send("p1", Told(number), [bytes(1 << 20)])
    assert (await expect(p1, Delivery)).message == Told(number)


# --- strangers


def knock(server: Any, *said: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server._wires._channels._port.number))
    connection.setblocking(False)
    for words in said:
        connection.send(words)
    return connection


async def closed(connection: socket.socket) -> None:
    """It is, without a word, and sooner than who says nothing."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(AT_ONCE):
            assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""
    connection.close()


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: tessera.example\r\n\r\n", b"\xff" + bytes(9 + 64), bytes(PROOF)]
)
async def test_garbage_is_not_answered(site: Any, said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    p0 = await site.endpoint("p0")
    await closed(knock(p0, said))
    assert "names no channel that was offered" in caplog.text
    assert not p0._wires._channels._port._strangers


async def test_who_says_little_or_nothing_is_cut_in_time(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_port, "PATIENCE", 0.5)
    p0 = await site.endpoint("p0")
    connections = [knock(p0), knock(p0, b"x"), knock(p0, b"x" * (PROOF - 1))]
    await until(lambda: len(p0._wires._channels._port._strangers) == 3)
    await asyncio.gather(*map(closed, connections))
    assert not p0._wires._channels._port._strangers


async def test_of_many_strangers_the_latest_stay_and_members_get_in(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    port = p0._wires._channels._port
    port._limit = 8
    connections = [knock(p0) for _ in range(20)]
    await until(lambda: len(port._strangers) == 8)
    await asyncio.gather(*map(closed, connections[:12]))
    clinic = await site.endpoint("clinic")
    await standing(clinic, "p0")
    for connection in connections:
        connection.close()


async def test_no_descriptors(site: Any) -> None:
    """The listener rests, and the oldest stranger gives up its own."""
    p0 = await site.endpoint("p0")
    port = p0._wires._channels._port
    oldest = knock(p0)
    await until(lambda: len(port._strangers) == 1)

    true = port._listener

    class Exhausted:
        fileno = true.fileno

        def accept(self) -> None:
            raise OSError(24, "Too many open files")

    port._listener = Exhausted()
    port._accept()
    port._listener = true
    await closed(oldest)
    clinic = await site.endpoint("clinic")
    await standing(clinic, "p0")


async def test_a_name_without_the_secret(site: Any) -> None:
    """Whoever has seen the name go by gets nowhere; and it is of no use any more."""
    p0 = await site.endpoint("p0")
    await site.rogue("clinic", "p0").offered(b"r" * 32)
    offers = p0._wires._channels._offers
    ((name, offer),) = offers.items()
    await closed(knock(p0, name + os.urandom(PROOF - NAME)))
    assert not offers
    assert p0._link("clinic").receiving is None
    assert repr(offer.keys) == f"ChannelKeys(name={name!r})"


async def test_a_proof_counts_once(site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch) -> None:
    p0 = await site.endpoint("p0")
    proofs = []
    admit = p0._wires._channels._port._admit

    def noted(proof: bytes, connection: socket.socket) -> bool:
        proofs.append(proof)
        return admit(proof, connection)

    p0._wires._channels._port._admit = noted
    clinic = await site.endpoint("clinic")
    channel = await standing(clinic, "p0")
    await closed(knock(p0, proofs[0]))
    assert not channel.closed
    clinic.send("p0", Told(1), [bytes(LARGE)])
    assert (await expect(p0, Delivery)).message == Told(1)


async def test_an_offer_is_of_the_process_that_asked(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    await rogue.offered(b"r" * 32)
    ((name, offer),) = p0._wires._channels._offers.items()
    rogue.incarnation = b"another."
    rogue.greet()
    await expect(p0, PeerRestarted)
    assert not p0._wires._channels._admit(name + bytes(PROOF - NAME), socket.socket())
    assert offer.incarnation == b"rogue..."


async def test_no_channel_before_a_greeting(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.say(ChannelWanted(b"r" * 32), 0)
    assert "before its greeting" in str((await expect(p0, LinkFault)).error)
    assert not p0._wires._channels._offers


# --- members who announce what they do not send


async def test_an_announcement_for_no_channel(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    rogue.raw(*Apart.of(Told(1), [bytes(LARGE)], Envelope(rogue.incarnation, 1), b"c" * NAME).frames)
    assert "its data connection broke" in str(await faults(p0, expect))
    rogue.say(Told(2), 2)
    assert (await expect(p0, Delivery)).message == Told(2)


def announced(*lengths: int, small: tuple[bytes, ...] = ()) -> list[bytes]:
    """Those of `LARGE` apart; of no more bits than there are."""
    entries = [(2 * length + (length >= LARGE)) % (1 << 64) for length in lengths]
    return [b"c" * NAME + struct.pack(f"<{len(entries)}Q", *entries), *small]


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([], "announced buffers in 0 bytes"),
        ([b"c" * NAME], "announced buffers in 16 bytes"),
        ([b"c" * (NAME - 1)], "announced buffers in 15 bytes"),
        ([*announced(LARGE)[:1], b""], "other buffers"),
        ([announced(LARGE)[0] + b"x"], "announced buffers in 25 bytes"),
        ([announced(*[LARGE] * ((1 << 14) + 1))[0]], "announced buffers in 131096 bytes"),
        (announced(5, small=(b"12345",)), "no large one"),
        (announced(LARGE, 5, small=(b"1234",)), "other buffers"),
        (announced(LARGE, 5), "other buffers"),
        (announced(LARGE, 5, 5, small=(b"12345",)), "other buffers"),
        ([b"c" * NAME + struct.pack("<2Q", 2 * LARGE + 1, 2 * 5 + 1)], "no large one"),
        ([b"c" * NAME + struct.pack("<2Q", 2 * LARGE + 1, 1)], "no large one"),
        ([b"c" * NAME + struct.pack("<Q", 2 * LARGE), bytes(LARGE)], "no large one"),
        (announced(LARGE, 1 << 40), "beyond the limit of"),
        (announced((1 << 64) - 1, (1 << 64) - 1), "beyond the limit of"),
    ],
)
async def test_announcements_that_make_no_sense(site: Any, expect: Expect, frames: list[bytes], complaint: str) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    envelope, header = Apart.of(Told(1), [bytes(LARGE)], Envelope(rogue.incarnation, 1), b"c" * NAME).frames[:2]
    rogue.raw(envelope, header, *frames)
    error = (await expect(p0, LinkFault)).error
    assert isinstance(error, ProtocolViolation)
    assert complaint in str(error)
    rogue.say(Told(2), 2)
    assert (await expect(p0, Delivery)).message == Told(2)


async def test_a_message_of_the_links_own_is_not_apart(site: Any, expect: Expect) -> None:
    p0 = await site.endpoint("p0")
    rogue = site.rogue("clinic", "p0")
    rogue.greet()
    rogue.raw(*Apart.of(Ping(1), [bytes(LARGE)], Envelope(rogue.incarnation, 1), b"c" * NAME).frames)
    assert "sent a Ping with buffers apart" in str((await expect(p0, LinkFault)).error)


async def test_what_is_announced_and_does_not_come(site: Any, expect: Expect) -> None:
    """It is given up after ``peer_timeout``, and until then holds up nobody."""
    p0, clinic = await pair(site, "p0", "clinic")
    other = await site.endpoint("p1")
    await other.connect(["p0"], 20)
    clinic._link("p0").sending.send = lambda lane, binding, buffers: None
    clinic.send("p0", Told(1), [bytes(16 << 20)])
    other.send("p0", Told(2), [bytes(LARGE)])
    assert (await expect(p0, Delivery)).message == Told(2)
    assert "brought nothing for 1 s" in str(await faults(p0, expect))
    await until(lambda: clinic._link("p0").sending is None)


async def test_more_behind_a_large_message_than_may_wait(
    site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST", 5)
    p0, clinic = await pair(site, "p0", "clinic")
    clinic._link("p0").sending.send = lambda lane, binding, buffers: None
    clinic.send("p0", Told(0), [bytes(LARGE)])
    for number in range(1, 6):
        clinic.send("p0", Told(number))
    error = (await expect(p0, LinkFault)).error
    assert isinstance(error, ProtocolViolation)
    assert "more behind a large message than may wait" in str(error)
    assert len(p0._link("clinic").lanes) <= 5


async def test_more_bytes_behind_a_large_message_than_may_wait(site: Any, expect: Expect) -> None:
    p0, clinic = await pair(site, "p0", "clinic")
    clinic._link("p0").sending.send = lambda lane, binding, buffers: None
    clinic.send("p0", Told(0), [bytes(LARGE)])
    for number in range(1, 3):
        clinic.send("p0", Told(number), [bytes(LARGE - 1)] * 20)
    error = (await expect(p0, LinkFault)).error
    assert "more behind a large message than may wait" in str(error)


async def test_a_role_that_may_not_send_it(site: Any, expect: Expect) -> None:
    """The channel ends with what is not taken: nobody would know what comes next over it."""
    p0, clinic = await pair(site, "p0", "clinic")
    channel = p0._link("clinic").receiving
    clinic.send("p0", ServersOnly(1), [bytes(LARGE)])
    assert "may not send ServersOnly" in str((await expect(p0, LinkFault)).error)
    assert channel.closed
    await asyncio.sleep(0)
    clinic.send("p0", Told(2))
    assert (await expect(p0, Delivery)).message == Told(2)


class ServersOnly(Message, frozen=True):
    senders = frozenset()  # type: ignore[assignment]
    number: int


async def test_an_operator_asks_for_none(site: Any) -> None:
    from parties.wire.following import operator

    p0 = await site.endpoint("p0")
    assert not Channels(operator(p0.me), p0._wires._owner, 1.0)._wanted
