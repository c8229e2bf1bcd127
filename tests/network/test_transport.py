"""Messages between well-behaved members over real CURVE connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zmq

from mpc.errors import (
    AuthenticationError,
    ConfigurationError,
    PeerUnavailable,
    RemoteError,
    VersionMismatch,
)
from mpc.rings.ring import as_array
from parties.members.cluster import Role
from parties.wire import arrivals, sockets, transport
from parties.wire.events import Delivery, LinkFault, PeerRestarted
from parties.wire.messages import Message
from parties.wire.transport import Endpoint
from parties.wire.wires import Trouble

from .conftest import until


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


Expect = Callable[..., Awaitable[Any]]


class Note(Message, frozen=True):
    text: str


class OnlyDealer(Message, frozen=True):
    senders: ClassVar[frozenset[Role]] = frozenset({Role.DEALER})


async def test_servers_exchange_arrays_both_ways(site: Any, expect: Expect) -> None:
    a, b = await site.endpoints("p0", "p1")
    array = np.arange(100_000, dtype=np.uint64)
    assert a.send("p1", Note("x"), [array, b"", array[:3], np.zeros((2, 0), np.uint64)]) == array.nbytes + 24
    got = await expect(b, Delivery)
    assert got.sender == b.cluster.member("p0")
    assert got.message == Note("x")
    assert [len(buffer) for buffer in got.buffers] == [array.nbytes, 0, 24, 0]
    np.testing.assert_array_equal(as_array(got.buffers[0]), array)
    np.testing.assert_array_equal(as_array(got.buffers[2]), array[:3])
    b.send("p0", Note("y"))
    assert (await expect(a, Delivery)).message == Note("y")


async def test_a_large_payload_is_received_without_a_copy(site: Any, expect: Expect) -> None:
    a, b = await site.endpoints("p0", "p1")
    a.send("p1", Note("big"), [np.ones(1 << 20, np.uint64)])
    got = await expect(b, Delivery)
    array = as_array(got.buffers[0])
    assert array.flags.aligned
    assert np.shares_memory(array, np.frombuffer(got.buffers[0], np.uint8))


async def test_a_client_is_answered_by_every_server(site: Any, expect: Expect) -> None:
    dealer, p0, p1, clinic = await site.endpoints("dealer", "p0", "p1", "clinic")
    for server in (dealer, p0, p1):
        clinic.send(server.me.name, Note("hello"), [b"12345678"])
        asked = await expect(server, Delivery)
        assert (asked.sender.name, asked.sender.role) == ("clinic", Role.CLIENT)
        server.send("clinic", Note(server.me.name), asked.buffers)
        answer = await expect(clinic, Delivery)
        assert (answer.sender.name, answer.message.text) == (server.me.name, server.me.name)
        assert bytes(answer.buffers[0]) == b"12345678"


@pytest.mark.parametrize("eager", [False, True])
async def test_thousands_of_messages_arrive_in_order(site: Any, expect: Expect, eager: bool) -> None:
    # What a receiver takes nothing of for so long is lost with its connection.
    a, b = await site.with_settings(peer_timeout=30).endpoints("p0", "p1")
    count = 6_000
    for i in range(count):
        a.send("p1", Note(str(i)), [b"8 bytes."])
    if eager:
        with b.low_latency():
            got = [await expect(b, Delivery) for _ in range(count)]
    else:
        got = [await expect(b, Delivery) for _ in range(count)]
    assert [event.message.text for event in got] == [str(i) for i in range(count)]
    assert b.traffic("p0").messages_received == count
    assert b.traffic("p0").payload_received == a.traffic("p1").payload_sent == 8 * count
    # What links say to each other about their data channel may still be on its way.
    await until(lambda: b.traffic("p0").bytes_received == a.traffic("p1").bytes_sent)
    assert a.traffic("p1").bytes_sent > 8 * count


async def test_64_mebibytes(site: Any, expect: Expect) -> None:
    a, b = await site.endpoints("p0", "p1")
    array = np.random.default_rng(1).integers(0, 1 << 61, 1 << 23, dtype=np.uint64)
    assert a.send("p1", Note("big"), [array]) == 1 << 26
    got = await expect(b, Delivery, within=20)
    np.testing.assert_array_equal(as_array(got.buffers[0]), array)


async def test_the_limit_on_payload_is_the_sender_s_first(site: Any) -> None:
    site = site.with_settings(max_message_mb=1)
    a, _ = await site.endpoints("p0", "p1")
    with pytest.raises(ConfigurationError, match=r"2\.0 MiB .* to p1 .* limit of 1 MiB"):
        a.send("p1", Note("big"), [np.zeros(1 << 18, np.uint64)])
    with pytest.raises(ValueError, match="C-contiguous"):
        a.send("p1", Note("x"), [np.zeros((4, 4), np.uint64).T[:, :2]])


async def test_ping_measures_the_round_trip(site: Any) -> None:
    a, _, clinic = await site.endpoints("p0", "p1", "clinic")
    assert 0 < await a.ping("p1") < 1
    assert a.round_trip("p1") is not None
    assert (a.last_heard("p1") or 0.0) < 1
    assert 0 < await clinic.ping("p0") < 1
    assert 0 < await a.ping("clinic") < 1


async def test_nobody_there(site: Any) -> None:
    a = await site.endpoint("p0")
    with pytest.raises(PeerUnavailable, match=r"p1: no answer at tcp://127\.0\.0\.1:\d+ within 0\.3 s"):
        await a.connect(["p1"], 0.3)
    with pytest.raises(PeerUnavailable, match="Note cannot be sent"):
        a.send("p1", Note("x"))
    with pytest.raises(PeerUnavailable, match="not connected"):
        await a.ping("p1")
    with pytest.raises(ConfigurationError, match="no link to 'nobody': it has links to dealer, p1, clinic"):
        a.send("nobody", Note("x"))
    with pytest.raises(PeerUnavailable, match="clinic: has not connected to us"):
        await a.connect(["clinic"], 0.1)


async def test_a_stranger_learns_that_it_is_one(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    p0 = await site.endpoint("p0")
    theirs = replace(
        site.cluster,
        clients=(replace(site.cluster.clients[0], name="stranger", key=site.keys["stranger"].public),),
    )
    stranger = await site.endpoint("stranger", cluster=theirs)
    with caplog.at_level(logging.WARNING), pytest.raises(AuthenticationError, match="p0: does not let us in"):
        await stranger.connect(["p0"], 20)
    assert "refused a connection" in caplog.text
    assert site.keys["stranger"].secret not in caplog.text
    with pytest.raises(PeerUnavailable):
        stranger.send("p0", Note("let me in"))
    assert all(p0.traffic(member).bytes_received == 0 for member in ("p1", "dealer", "clinic"))


async def test_a_stranger_gets_in_once_the_server_runs_with_the_new_file(site: Any) -> None:
    theirs = replace(
        site.cluster,
        clients=(replace(site.cluster.clients[0], name="stranger", key=site.keys["stranger"].public),),
    )
    p0 = await site.endpoint("p0")
    stranger = await site.endpoint("stranger", cluster=theirs)
    with pytest.raises(AuthenticationError):
        await stranger.connect(["p0"], 20)
    await p0.close()
    await site.endpoint("p0", cluster=theirs)
    await stranger.connect(["p0"], 20)


async def test_an_impostor_server_is_noticed(site: Any) -> None:
    """Something listens at p1's address, but does not hold p1's key."""
    theirs = replace(
        site.cluster,
        parties=(site.cluster.parties[0], replace(site.cluster.parties[1], key=site.keys["stranger"].public)),
    )
    site.keys["p1"], real = site.keys["stranger"], site.keys["p1"]
    await site.endpoint("p1", cluster=theirs)
    site.keys["p1"] = real
    p0 = await site.endpoint("p0")
    with pytest.raises(AuthenticationError, match="does not hold the key that the cluster file lists"):
        await until(lambda: p0._wires.outboxes["p1"].trouble is Trouble.HANDSHAKE)
        await p0.connect(["p1"], 0.1)


def test_the_wrong_key_file_or_role(site: Any) -> None:
    p0 = site.cluster.member("p0")
    with pytest.raises(ConfigurationError, match="does not hold p0's key, but that of p1"):
        Endpoint(site.cluster, p0, site.keys["p1"], bind=True)
    with pytest.raises(ConfigurationError, match="does not hold p0's key: its public key is"):
        Endpoint(site.cluster, p0, site.keys["stranger"], bind=True)
    with pytest.raises(ConfigurationError, match="has to listen"):
        Endpoint(site.cluster, p0, site.keys["p0"], bind=False)
    with pytest.raises(ConfigurationError, match="must not listen"):
        Endpoint(site.cluster, site.cluster.member("clinic"), site.keys["clinic"], bind=True)


async def test_a_message_its_sender_may_not_send(site: Any, expect: Expect) -> None:
    p0, p1 = await site.endpoints("p0", "p1")
    p0.send("p1", OnlyDealer())
    fault = await expect(p1, LinkFault)
    assert isinstance(fault.error, AuthenticationError)
    assert str(fault.error) == "p0: is a party and may not send OnlyDealer"
    p0.send("p1", Note("fine"))
    assert (await expect(p1, Delivery)).message == Note("fine")


async def test_another_version_is_refused_on_both_sides(
    site: Any, expect: Expect, monkeypatch: pytest.MonkeyPatch
) -> None:
    p0 = await site.endpoint("p0")
    ours = transport.package_version()
    monkeypatch.setattr(transport, "package_version", lambda: "9.9.9")
    clinic = await site.endpoint("clinic")
    with pytest.raises(VersionMismatch, match=f"p0: runs Tessera {ours}, we run 9.9.9"):
        await clinic.connect(["p0"], 20)
    fault = await expect(p0, LinkFault)
    assert isinstance(fault.error, VersionMismatch)
    assert f"runs Tessera 9.9.9, we run {ours}" in str(fault.error)
    with pytest.raises(VersionMismatch):
        clinic.send("p0", Note("x"))


async def test_another_cluster_file_is_refused(site: Any) -> None:
    await site.endpoint("p0")
    p1 = await site.endpoint("p1", cluster=replace(site.cluster, name="other"))
    with pytest.raises(VersionMismatch, match=f"cluster file {site.cluster.fingerprint[:16]}, number 1, we with"):
        await p1.connect(["p0"], 20)


async def test_a_port_in_use(site: Any) -> None:
    await site.endpoint("p0")
    port = site.cluster.member("p0").address.rpartition(":")[2]
    with pytest.raises(ConfigurationError, match=f"port {port} on host 127.0.0.1 is already in use"):
        await site.endpoint("p0")


async def test_an_address_of_another_machine(site: Any) -> None:
    elsewhere = replace(site.cluster, dealer=replace(site.cluster.dealer, address="192.0.2.1:7000"))
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1 is not an address of this machine"):
        await site.endpoint("dealer", cluster=elsewhere)


async def test_listen_overrides_the_address_to_bind(site: Any) -> None:
    p0 = site.cluster.parties[0]
    elsewhere = replace(
        site.cluster,
        parties=(replace(p0, address="192.0.2.1:7000", listen=p0.address), site.cluster.parties[1]),
    )
    await site.endpoint("p0", cluster=elsewhere)


async def test_a_restarted_peer_is_announced_and_usable(site: Any, expect: Expect) -> None:
    p0, p1, clinic = await site.endpoints("p0", "p1", "clinic")
    p0.send("p1", Note("before"))
    await expect(p1, Delivery)
    await p1.close()
    again = await site.endpoint("p1")
    assert (await expect(p0, PeerRestarted)).sender.name == "p1"
    assert (await expect(clinic, PeerRestarted)).sender.name == "p1"
    await p0.connect(["p1"], 20)
    await again.connect(["p0"], 20)
    p0.send("p1", Note("after"))
    assert (await expect(again, Delivery)).message == Note("after")
    again.send("p0", Note("back"))
    assert (await expect(p0, Delivery)).message == Note("back")


async def test_messages_sent_to_the_dead_do_not_reach_their_successor(site: Any, expect: Expect) -> None:
    p0, p1 = await site.endpoints("p0", "p1")
    await p1.close()
    lost = 0
    for _ in range(50):
        try:
            p0.send("p1", Note("stale"))
        except PeerUnavailable:
            lost += 1
        await asyncio.sleep(0.002)
    assert lost > 0
    again = await site.endpoint("p1")
    await p0.connect(["p1"], 20)
    p0.send("p1", Note("fresh"))
    event = await again.receive()
    assert isinstance(event, Delivery), event
    assert event.message == Note("fresh")


async def test_the_same_key_twice_cuts_off_the_first(site: Any, expect: Expect) -> None:
    p0, first = await site.endpoints("p0", "clinic")
    second = await site.endpoint("clinic")
    await second.connect(["p0"], 20)
    assert (await expect(p0, PeerRestarted)).sender.name == "clinic"
    first.send("p0", Note("still here?"))
    fault = await expect(first, LinkFault)
    assert isinstance(fault.error, RemoteError)
    assert "another process has connected with the key of clinic" in str(fault.error)
    with pytest.raises(RemoteError):
        first.send("p0", Note("x"))
    second.send("p0", Note("mine"))
    assert (await p0.receive()).message == Note("mine")  # type: ignore[union-attr]


async def test_closing_leaves_nothing(site: Any) -> None:
    def sockets() -> set[int]:
        gc.collect()
        return {id(s) for s in gc.get_objects() if isinstance(s, zmq.Socket) and not s.closed}

    with zmq.Context() as context, context.socket(zmq.PUSH) as warm_up:
        # pyzmq's own collector of sent buffers starts with the first and lives as long as the process.
        warm_up.bind("inproc://x")
        with contextlib.suppress(zmq.Again):
            warm_up.send(bytes(1 << 17), zmq.NOBLOCK, copy=False)
    before, before_sockets = asyncio.all_tasks(), sockets()
    p0, p1, clinic = await site.endpoints("p0", "p1", "clinic")
    p0.send("p1", Note("unread"), [np.zeros(100_000, np.uint64)])
    waiting = asyncio.create_task(clinic.receive())
    await asyncio.sleep(0.05)
    for endpoint in (p0, p1, clinic, p0):
        await endpoint.close()
    with pytest.raises(PeerUnavailable, match="this endpoint is closed"):
        await waiting
    with pytest.raises(PeerUnavailable):
        p0.send("p1", Note("x"))
    await until(lambda: asyncio.all_tasks() == before and sockets() <= before_sockets)


async def test_a_port_is_free_again_after_close_and_after_a_failed_start(site: Any) -> None:
    p0 = await site.endpoint("p0")
    with pytest.raises(ConfigurationError):
        await site.endpoint("p0")
    await p0.close()
    await site.endpoint("p0")


async def test_the_event_loop_gets_its_turns_in_low_latency(site: Any, expect: Expect) -> None:
    a, b = await site.endpoints("p0", "p1")
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    counter = asyncio.create_task(count())
    with a.low_latency(), b.low_latency():
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            a.send("p1", Note("x"))
            await expect(b, Delivery)
    counter.cancel()
    assert turns > 10


async def test_nothing_is_read_beyond_the_backlog(site: Any, expect: Expect) -> None:
    a, b = await site.with_settings(peer_timeout=30).endpoints("p0", "p1")
    for i in range(arrivals.BACKLOG + 1000):
        a.send("p1", Note(str(i)))
    await asyncio.sleep(0.3)
    assert b.traffic("p0").messages_received <= arrivals.BACKLOG
    for i in range(arrivals.BACKLOG + 1000):
        assert (await expect(b, Delivery)).message == Note(str(i))


@pytest.mark.parametrize("host", ["localhost", "[::1]"])
async def test_other_ways_to_write_an_address(site: Any, expect: Expect, host: str) -> None:
    if host == "[::1]":
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6):
                pass
        except OSError:
            pytest.skip("no IPv6 here")

    def moved(member: Any) -> Any:
        return replace(member, address=f"{host}:{member.address.rpartition(':')[2]}")

    cluster = replace(site.cluster, dealer=moved(site.cluster.dealer), parties=tuple(map(moved, site.cluster.parties)))
    elsewhere = replace(site, cluster=cluster)
    a, b = await elsewhere.endpoints("p0", "p1")
    a.send("p1", Note("over " + host))
    assert (await expect(b, Delivery)).message == Note("over " + host)


async def test_starting_and_closing_leaks_no_descriptor(site: Any) -> None:
    async def once() -> int:
        p0 = await site.endpoint("p0")
        clinic = await site.endpoint("clinic")
        await clinic.connect(["p0"], 20)
        await clinic.close()
        await p0.close()
        return open_descriptors()

    await once()
    before = await once()
    for _ in range(5):
        await once()
    await until(lambda: open_descriptors() <= before)


async def test_who_takes_connections_and_says_nothing_is_not_taken_for_a_stranger(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen process: its host's kernel goes on taking connections for it."""
    monkeypatch.setattr(sockets, "HANDSHAKE_SECONDS", 0.6)
    host, _, port = str(site.cluster.member("p0").address).rpartition(":")
    silent = await asyncio.start_server(lambda *_: None, host, int(port))
    try:
        clinic = await site.endpoint("clinic")
        with pytest.raises(PeerUnavailable, match=r"takes connections at .* but does not answer: is it frozen"):
            await until(lambda: clinic._wires.outboxes["p0"].trouble is Trouble.SILENT)
            await clinic.connect(["p0"], 0.1)
    finally:
        silent.close()
