"""Who has no key, the wrong one, or the right one in the wrong role: shown the door, while members are served."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq

from benchmarks.strangers.outsiders import MIB, OPENINGS, Tally, Target, attack, command, greeting, header, say
from mpc.errors import AuthenticationError
from parties.members.keys import KeyPair
from parties.messages.runs import Dealt, Prepare
from parties.wire import door, sockets
from parties.wire.events import Delivery, Event, LinkFault
from parties.wire.messages import Message
from parties.wire.refusals import RefusalLog
from parties.wire.transport import Endpoint
from parties.wire.wires import Trouble

from .conftest import standing, until

Expect = Callable[..., Awaitable[Any]]

AT_ONCE = sockets.HANDSHAKE_SECONDS - 1.0
"""s within which a stranger is shown the door who makes no sense, and members are served, while one who says too little
is still waited for.  On an idle machine it takes a millisecond."""
HANDSHAKE = sockets.HANDSHAKE_SECONDS + 10.0


class Said(Message, frozen=True):
    number: int


@dataclass
class Guarded:
    """A server with an honest client that keeps talking to it, and all that the server's application is told."""

    server: Endpoint
    client: Endpoint
    target: Target
    events: list[Event] = field(default_factory=list)

    async def serves(self, number: int = 0) -> None:
        """The honest client is answered, and its message arrives; nothing else has."""
        assert await self.client.ping(self.server.me.name, AT_ONCE) < AT_ONCE
        self.client.send(self.server.me.name, Said(number))
        await until(lambda: self.events)
        (event,) = self.events
        assert isinstance(event, Delivery), event
        assert event.message == Said(number)
        assert event.sender.name == "clinic"
        self.events.clear()


@contextlib.asynccontextmanager
async def guarded(site: Any) -> AsyncIterator[Guarded]:
    server, client = await site.endpoints("p0", "clinic")
    found = Guarded(server, client, Target.at(server.me.address, server.me.curve))

    async def listen() -> None:
        while True:
            found.events.append(await server.receive())

    task = asyncio.create_task(listen())
    try:
        await found.serves()
        yield found
        await found.serves()
    finally:
        task.cancel()


@pytest.fixture
async def guard(site: Any) -> AsyncIterator[Guarded]:
    async with guarded(site) as found:
        yield found


async def closed_after(guard: Guarded, *pieces: bytes, pause: float = 0.0) -> float:
    """Seconds until a stranger who says this was shown the door; the honest client is served meanwhile."""
    tally = Tally()
    saying = asyncio.ensure_future(say(guard.target, tally, *pieces, pause=pause))
    await guard.serves()
    async with asyncio.timeout(HANDSHAKE):
        await saying
    assert (tally.opened, tally.closed) == (1, 1)
    return tally.longest_seconds


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# --- no key


@pytest.mark.parametrize("name", OPENINGS)
async def test_no_key(guard: Guarded, name: str) -> None:
    seconds = await closed_after(guard, OPENINGS[name]())
    # What may yet become a greeting is waited for.
    assert seconds < (HANDSHAKE if name in ("random bytes", "TLS") else AT_ONCE)


@pytest.mark.parametrize("flags", [0x02, 0x03, 0x06, 0x07])
async def test_an_announced_frame_beyond_the_limit(guard: Guarded, flags: int) -> None:
    limit = guard.server.cluster.max_message_bytes
    for size in (limit + 1025, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
        assert await closed_after(guard, greeting() + header(flags, size) + b"x") < AT_ONCE


@pytest.mark.parametrize("flags", [0x02, 0x03, 0x06, 0x07])
async def test_a_big_frame_instead_of_a_handshake(guard: Guarded, flags: int) -> None:
    """Within what a member may send, so that libzmq would take it all in."""
    tally = Tally()
    pieces = [greeting() + header(flags, 64 * MIB), *[bytes(MIB)] * 64]
    saying = asyncio.ensure_future(say(guard.target, tally, *pieces, pause=0.02))
    await guard.serves()
    await saying
    assert tally.closed == 1
    assert tally.sent_bytes < 64 * MIB, "closed in the middle of it"


async def test_silence_and_a_byte_a_second(guard: Guarded) -> None:
    seconds = await asyncio.gather(
        closed_after(guard), *(say_slowly(guard, greeting()[:n]) for n in (1, 10, 11, 12, 64)),
        say_slowly(guard, greeting() + command(b"\x05HELLO" + bytes(194))[:100]),
    )  # fmt: skip
    assert min(seconds) > AT_ONCE
    assert max(seconds) < HANDSHAKE


async def say_slowly(guard: Guarded, words: bytes) -> float:
    tally = Tally()
    await say(guard.target, tally, words[:-4], *(bytes([byte]) for byte in words[-4:]), pause=0.5)
    assert tally.closed == 1
    return tally.longest_seconds


# --- the wrong key


async def test_a_fresh_key(guard: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    stop, tally = asyncio.Event(), Tally()
    attacking = asyncio.ensure_future(attack("wrong key", guard.target, stop, rate=200, held=50, tally=tally))
    for number in range(10):
        await guard.serves(number)
        await asyncio.sleep(0.05)
    stop.set()
    await attacking
    assert tally.opened == tally.closed > 5
    said = [record.getMessage() for record in caplog.records if record.name == "parties.wire.zap"]
    assert len(said) == 5
    assert all(
        re.fullmatch(r"refused a connection from 127\.0\.0\.1: key [!-~]{40} is not in .*", line) for line in said
    )
    assert tally.longest_seconds < AT_ONCE


async def test_the_wrong_server_key(guard: Guarded, site: Any) -> None:
    """A member that mistakes another server for this one: this one cannot open what it says."""
    wrong = Target(guard.target.host, guard.target.port, site.keys["dealer"].curve)
    with handshaking(wrong, site.keys["clinic"]) as monitor:
        assert await failure(monitor) == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    await guard.serves()


@contextlib.contextmanager
def handshaking(target: Target, keys: KeyPair) -> Iterator[zmq.Socket[bytes]]:
    """The monitor of a client with these keys."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = context.socket(zmq.DEALER)
    client.curve_publickey, client.curve_secretkey = keys.curve.encode(), keys.secret.encode()
    client.curve_serverkey = target.key.encode()
    monitor = client.get_monitor_socket(zmq.EVENT_ALL)
    client.connect(f"tcp://{target.host}:{target.port}")
    client.send(b"nothing that arrives")
    try:
        yield monitor
    finally:
        client.disable_monitor()
        context.destroy(0)


async def failure(monitor: zmq.Socket[bytes]) -> int:
    failures = (
        zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    )
    async with asyncio.timeout(AT_ONCE):
        while True:
            while not monitor.poll(0):  # noqa: ASYNC110 - a plain socket
                await asyncio.sleep(0.01)
            event = int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder)
            assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED
            if event in failures:
                return event


# --- the right key in the wrong role


@pytest.mark.parametrize(
    ("name", "message", "role"),
    [
        ("clinic", Dealt("0" * 32, "clinic", "0" * 64, "0" * 64, ""), "client"),
        ("p1", Prepare("0" * 32), "party"),
    ],
)
async def test_a_key_in_another_role(site: Any, expect: Expect, name: str, message: Message, role: str) -> None:
    server = await site.endpoint("p0")
    rogue = site.rogue(name, "p0")
    rogue.greet()
    rogue.say(message, 1)
    event = await expect(server, LinkFault, Delivery)
    assert isinstance(event, LinkFault), event
    assert isinstance(event.error, AuthenticationError)
    assert f"is a {role} and may not send {type(message).__name__}" in str(event.error)


async def test_a_clients_key_at_a_servers_address(site: Any) -> None:
    """Whoever takes a server's place on the network needs its key; a client's, also listed, is not enough."""
    impostor = site.keys["stranger"]
    address = site.cluster.member("p0").address
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.curve_server, router.curve_secretkey = True, impostor.secret.encode()
    router.bind(f"tcp://{address}")
    try:
        clinic = await site.endpoint("clinic")
        with pytest.raises(AuthenticationError, match="does not hold the key that the cluster file lists"):
            await until(lambda: clinic._wires.outboxes["p0"].trouble is Trouble.HANDSHAKE)
            await clinic.connect(["p0"], 0.1)
        assert not router.poll(0), "not a word was said to it"
    finally:
        context.destroy(0)


# --- replays


class Eavesdropper:
    """Passes a connection on to a server, and keeps the bytes of the one who called."""

    def __init__(self, target: Target) -> None:
        self.target, self.heard = target, bytearray()

    async def __aenter__(self) -> Eavesdropper:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(self.target.host, self.target.port)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, copy: bytearray) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(1 << 16):
                    copy.extend(data)
                    sink.write(data)
            sink.close()

        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(pump(reader, forth, self.heard), pump(back, writer, bytearray()))


async def test_replays(site: Any, guard: Guarded, expect: Expect) -> None:
    """Every byte that a member once sent, sent again: the handshake's keys were for once."""
    async with Eavesdropper(guard.target) as tap:
        other = site.rogue("p1", "p0")
        other.socket.disconnect(f"tcp://{guard.server.me.address}")
        other.socket.connect(f"tcp://127.0.0.1:{tap.port}")
        other.greet()
        other.say(Said(7), 1)
        await until(lambda: guard.events)
        (event,) = guard.events
        assert isinstance(event, Delivery)
        assert event.message == Said(7)
        guard.events.clear()
        recorded = bytes(tap.heard)
    traffic = guard.server.traffic("p1")
    received = traffic.bytes_received
    hello = 64 + 202
    assert len(recorded) > hello + 257
    assert await closed_after(guard, recorded) < AT_ONCE
    assert await closed_after(guard, recorded, recorded) < AT_ONCE
    # Word by word, as a client would; but INITIATE returns the cookie of another WELCOME.
    assert recorded[hello] == 0x06
    initiate = hello + 9 + int.from_bytes(recorded[hello + 1 : hello + 9], "big")
    assert await closed_after(guard, recorded[:64], recorded[64:hello], recorded[hello:initiate], pause=0.05) < AT_ONCE
    # Without a handshake: what it was to be followed by.
    assert await closed_after(guard, recorded[:64] + recorded[initiate:]) < AT_ONCE
    assert traffic.bytes_received == received
    assert guard.events == []


# --- many


async def test_connections_that_are_held(site: Any, guard: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest strangers stay, up to the limit; a member that comes only now gets in at once."""
    before, tally, stop = descriptors(), Tally(), asyncio.Event()
    monkeypatch.setattr(door, "STRANGERS", 40)
    server = await site.endpoint("p1")
    target = Target.at(server.me.address, server.me.curve)
    holding = asyncio.ensure_future(attack("held connections", target, stop, rate=400, held=150, tally=tally))
    await until(lambda: tally.closed > 50)
    for _ in range(5):
        await guard.serves()
        await asyncio.sleep(0.1)
    late = await site.endpoint("dealer")
    await late.connect(["p1"], AT_ONCE)
    stop.set()
    await holding
    await late.close()
    await until(lambda: descriptors() < before + 30)


async def test_a_flood_while_the_event_loop_is_held_up() -> None:
    """What libzmq has to tell of a thousand connections does not make it wait for us, and members with it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inbox, member = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    inbox.setsockopt(zmq.BACKLOG, 1024)
    events: list[int] = []
    monitor = sockets.Monitor(
        inbox, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED, lambda event, _descriptor: events.append(event)
    )
    port = inbox.bind_to_random_port("tcp://127.0.0.1")
    member.connect(f"tcp://127.0.0.1:{port}")
    try:
        for _ in range(1500):
            with socket.create_connection(("127.0.0.1", port), 2):
                pass
            time.sleep(2e-4)  # noqa: ASYNC251 - to hold the event loop up is what this is about
        member.send(b"hello")
        assert inbox.poll(2000)
        assert events == []
        await until(lambda: events.count(zmq.EVENT_DISCONNECTED) >= 1500)
    finally:
        monitor.read()
        monitor.close()
        context.destroy(0)


async def test_departures_of_strangers_concern_nobody(guard: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(type(guard.server), "_probe", lambda _self, link, waiter=None: asked.append(link) or False)
    stop, tally = asyncio.Event(), Tally()
    flooding = asyncio.ensure_future(attack("connection flood", guard.target, stop, rate=500, tally=tally))
    await until(lambda: tally.opened > 50)
    stop.set()
    await flooding
    await asyncio.sleep(0.1)
    assert asked == []
    monkeypatch.undo()


async def test_a_members_departure_is_noticed_amid_a_flood(site: Any) -> None:
    server, client = await site.endpoints("p0", "clinic")
    stop, tally = asyncio.Event(), Tally()
    target = Target.at(server.me.address, server.me.curve)
    flooding = asyncio.ensure_future(attack("connection flood", target, stop, rate=300, tally=tally))
    for number in range(3):
        await until(lambda number=number: tally.opened > 20 * (number + 1) and server.connected("clinic"))
        await client.close()
        await until(lambda: not server.connected("clinic"))
        await client.start()
        await client.connect(["p0"], 20)
    stop.set()
    await flooding


async def test_every_departure_is_reported_once_its_route_is_gone() -> None:
    """However soon after the one before; and not one by one."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    inbox, reports = context.socket(zmq.ROUTER), []
    porter = door.Door(inbox, read=lambda: True, on_departure=lambda: reports.append(time.monotonic()))
    port = inbox.bind_to_random_port("tcp://127.0.0.1")
    members = [context.socket(zmq.DEALER) for _ in range(20)]
    try:
        for number, member in enumerate(members):
            member.connect(f"tcp://127.0.0.1:{port}")
            member.send(b"hello")
            assert inbox.poll(2000)
            porter.recognise(sockets.receive(inbox, 2)[0], str(number))
        for member in members[1:]:
            member.close(0)
        # Less than libzmq needs to take a route down.
        await asyncio.sleep(0.014)
        last = time.monotonic()
        members[0].close(0)
        await until(lambda: reports and reports[-1] > last + 0.014)
        assert len(reports) < len(members) / 2
    finally:
        porter.close()
        context.destroy(0)


# --- what is logged


async def test_what_is_logged_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    refusals = RefusalLog(logging.getLogger("strangers"))
    with caplog.at_level(logging.WARNING):
        for number in range(10_000):
            refusals.note("number %d", number)
        assert [r.getMessage() for r in caplog.records] == [f"number {n}" for n in range(5)]
        refusals.close()
        refusals.close()
    assert caplog.records[-1].getMessage() == "refused 9995 more connections within 10 s"
    assert len(caplog.records) == 6


def test_a_server_asks_for_the_descriptors_it_may_have() -> None:
    script = (
        "import resource; from parties.servers.process import raise_descriptor_limit as ask;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, min(hard, 3000))); ask();"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    printed = subprocess.run([sys.executable, "-c", script], env=_environment(), capture_output=True, check=True).stdout
    soft, hard = map(int, printed.split())
    assert soft == hard > 64


# --- a process of its own, with few descriptors

_SERVER = """
import asyncio, resource, sys
from parties.members.cluster import Cluster
from parties.members.keys import KeyPair
from parties.wire.transport import Endpoint
from parties.wire.wires import Trouble

async def serve(path, key):
    cluster = Cluster.load(path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]),) * 2)
    async with Endpoint(cluster, cluster.member("p0"), KeyPair.load(key), bind=True) as endpoint:
        print("ready", flush=True)
        while True:
            print(await endpoint.receive(), flush=True)

asyncio.run(serve(*sys.argv[1:3]))
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


@dataclass
class Apart:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    target: Target

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def status(self, name: str) -> int:
        """Of ``/proc/PID/status``, in bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def apart(site: Any, folder: Path, files: int) -> Iterator[Apart]:
    (folder / "cluster.toml").write_text(site.cluster.dumps(), encoding="utf-8")
    site.keys["p0"].save(folder / "p0.key")
    command = [sys.executable, "-c", _SERVER, str(folder / "cluster.toml"), str(folder / "p0.key"), str(files)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=_environment())
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Apart(process, Target.at(site.cluster.member("p0").address, site.keys["p0"].curve))
    finally:
        process.kill()
        said, _ = process.communicate()
    assert said == b"", "the application was told something"


async def test_few_descriptors(site: Any, tmp_path: Path) -> None:
    """More connections than the process may open: members are served, and get in; no processor is kept busy."""
    with apart(site, tmp_path, files=100) as server:
        before = server.descriptors()
        clinic = await site.endpoint("clinic")
        await clinic.connect(["p0"], 20)
        stop, tally = asyncio.Event(), Tally()
        holding = asyncio.ensure_future(
            attack("held connections", server.target, stop, rate=200, held=300, tally=tally)
        )
        await until(lambda: tally.closed > 50)
        cpu, began = server.cpu_seconds(), time.monotonic()
        for _ in range(10):
            assert await clinic.ping("p0", AT_ONCE) < AT_ONCE
            await asyncio.sleep(0.1)
        assert server.cpu_seconds() - cpu < 0.8 * (time.monotonic() - began), "accept fails over and over"
        assert server.descriptors() <= before + 25 + 10
        other = await site.endpoint("p1")
        await other.connect(["p0"], 20)
        await until(lambda: tally.closed > 150)
        stop.set()
        await holding
        await other.close()
        await clinic.close()
        await until(lambda: server.descriptors() <= before + 2)
        assert server.process.poll() is None
    # Six for each ten seconds, however many connections.
    assert len((tmp_path / "log").read_text(encoding="utf-8").splitlines()) < 30


ALL = ("no key", "wrong key", "garbage", "slow-loris", "connection flood", "held connections", "giant frames")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ALL, "streamed frames"])
async def test_memory_and_descriptors_return(site: Any, tmp_path: Path, name: str) -> None:
    """Thousands of connections; afterwards the process is as it was."""
    held, rate = (8, 20) if name == "streamed frames" else (500, 500)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with apart(site, tmp_path, files=min(hard, 4096)) as server:
        clinic = await site.endpoint("clinic")
        await clinic.connect(["p0"], 20)
        await standing(clinic, "p0")
        before, memory = server.descriptors(), server.status("VmRSS:")
        stop, tally = asyncio.Event(), Tally()
        attacking = asyncio.ensure_future(attack(name, server.target, stop, rate=rate, held=held, tally=tally))
        until = time.monotonic() + 10
        while time.monotonic() < until:
            # Answered before anybody would take the server for frozen.
            await clinic.ping("p0", 5.0)
            await asyncio.sleep(0.02)
        peak = server.status("VmHWM:")
        stop.set()
        await attacking
        async with asyncio.timeout(HANDSHAKE):
            while server.descriptors() > before:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert tally.longest_seconds < HANDSHAKE
        assert peak < memory + 1024 * MIB
        assert server.status("VmRSS:") < memory + 32 * MIB
    # Six for each ten seconds, of thousands.
    assert len((tmp_path / "log").read_text(encoding="utf-8").splitlines()) < 60
