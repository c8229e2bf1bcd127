"""What strangers do to a server's port, from a process of their own (`benchmarks.strangers.process`).

Everything but a wrong key is said in the bytes of ZMTP 3.1 (RFC 23, RFC 26), to be able to say what no library would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass

import zmq

from benchmarks.strangers.process import BEGINS, NICE, when_stdin_closes
from parties.members.cluster import Member
from parties.members.keys import KeyPair

RATE = 250
"""Connections per second that an attack opens at most: what is measured is the server, not who has more processors."""
HELD = 500
"""Connections that an attack keeps open at a time at most."""
MIB = 1 << 20


def greeting(mechanism: str = "CURVE", *, as_server: bool = False) -> bytes:
    """The first 64 bytes of a ZMTP 3.1 connection."""
    signature = b"\xff" + bytes(8) + b"\x7f"
    return signature + b"\x03\x01" + mechanism.encode().ljust(20, b"\0") + bytes([as_server]) + bytes(31)


def command(body: bytes) -> bytes:
    """A command frame, short where that is enough."""
    return b"\x04" + bytes([len(body)]) + body if len(body) < 256 else header(0x06, len(body)) + body


def header(flags: int, size: int) -> bytes:
    """The head of a long frame that announces ``size`` bytes; 0x02 a message, 0x03 one that goes on, 0x06 a command."""
    return struct.pack("!BQ", flags, size)


OPENINGS: dict[str, Callable[[], bytes]] = {
    "NULL": lambda: greeting("NULL") + command(b"\x05READY"),
    "PLAIN": lambda: greeting("PLAIN") + command(b"\x05HELLO" + b"\x05admin\x05admin"),
    "GSSAPI": lambda: greeting("GSSAPI") + command(b"\x08INITIATE" + bytes(64)),
    "ZMTP 1.0": lambda: b"\x01\x00" + b"\x05\x00abcd",
    "ZMTP 2.0": lambda: b"\xff" + bytes(7) + b"\x01\x7f" + b"\x01\x05" + b"\x00\x00",
    "as a server": lambda: greeting(as_server=True) + command(b"\x07WELCOME" + bytes(160)),
    "HELLO that is none": lambda: greeting() + command(b"\x05HELLO" + b"\x01\x00" + os.urandom(192)),
    "short HELLO": lambda: greeting() + command(b"\x05HELLO"),
    "INITIATE first": lambda: greeting() + command(b"\x08INITIATE" + os.urandom(300)),
    "message first": lambda: greeting() + b"\x00\x05hello",
    "empty command": lambda: greeting() + b"\x04\x00",
    "ERROR first": lambda: greeting() + command(b"\x05ERROR\x05what?"),
    "HTTP": lambda: b"GET / HTTP/1.1\r\nHost: tessera\r\n\r\n",
    "TLS": lambda: bytes.fromhex("16030100f8010000f40303") + os.urandom(240),
    "random bytes": lambda: os.urandom(400),
}
"""What somebody without a key may begin with: other mechanisms, other versions, handshakes that are none, garbage."""


@dataclass
class Tally:
    """What came of an attack: connections opened, or not even that, closed by the server; s until it did so."""

    opened: int = 0
    unopened: int = 0
    closed: int = 0
    sent_bytes: int = 0
    longest_seconds: float = 0.0


@dataclass(frozen=True)
class Target:
    """A server's port, its public key (which is no secret), and the bytes of a handshake that a client once made."""

    host: str
    port: int
    key: str
    recording: bytes = b""

    @classmethod
    def at(cls, address: str, key: str, recording: bytes = b"") -> Target:
        """Where HOST:PORT says."""
        host, _, port = address.rpartition(":")
        return cls(host, int(port), key, recording)


async def dial(target: Target, tally: Tally) -> socket.socket | None:
    """A connection that does not block; None if there is none to be had."""
    connection = socket.socket()
    connection.setblocking(False)
    try:
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_connect(connection, (target.host, target.port))
    except OSError:
        connection.close()
        tally.unopened += 1
        return None
    tally.opened += 1
    return connection


async def until_closed(connection: socket.socket, tally: Tally, since: float) -> None:
    """Waits until the server closes the connection; counts it."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv(connection, 4096):
            pass
    tally.closed += 1
    tally.longest_seconds = max(tally.longest_seconds, time.monotonic() - since)


async def say(target: Target, tally: Tally, *pieces: bytes, pause: float = 0.0) -> None:
    """Sends the pieces, ``pause`` s apart, then waits to be shown the door."""
    connection = await dial(target, tally)
    if connection is None:
        return
    since = time.monotonic()
    waiting = asyncio.ensure_future(until_closed(connection, tally, since))
    try:
        for piece in pieces:
            with contextlib.suppress(ConnectionError):
                await asyncio.get_running_loop().sock_sendall(connection, piece)
                tally.sent_bytes += len(piece)
            if pause:
                await asyncio.wait({waiting}, timeout=pause)
            if waiting.done():
                break
        await waiting
    finally:
        waiting.cancel()
        connection.close()


async def _no_key(target: Target, tally: Tally) -> None:
    await say(target, tally, OPENINGS["NULL"]())


async def _garbage(target: Target, tally: Tally) -> None:
    names = tuple(OPENINGS)
    await say(target, tally, OPENINGS[names[tally.opened % len(names)]]())


async def _replay(target: Target, tally: Tally) -> None:
    await say(target, tally, target.recording)


async def _slow_loris(target: Target, tally: Tally) -> None:
    await say(target, tally, *(bytes([byte]) for byte in greeting()), pause=1.0)


async def _flood(target: Target, tally: Tally) -> None:
    """Opened, and dropped at once: now with a reset, now without."""
    connection = await dial(target, tally)
    if connection is not None:
        if tally.opened % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


async def _hold(target: Target, tally: Tally) -> None:
    await say(target, tally)


async def _giant(target: Target, tally: Tally) -> None:
    """A frame of 256 MiB is announced before the handshake, and a mebibyte of it sent."""
    await say(target, tally, greeting(), header(0x06, 256 * MIB) + bytes(MIB))


async def _stream(target: Target, tally: Tally) -> None:
    """Frames as large as a member's may be, in place of a handshake: 256 MiB of them, as fast as it goes."""
    await say(target, tally, greeting(), *[header(0x06, MIB) + bytes(MIB)] * 256)


async def _wrong_key(target: Target, tally: Tally) -> None:
    """A CURVE client, with the server's true key and one of its own that nobody lists."""
    mine = KeyPair.generate()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    client = context.socket(zmq.DEALER)
    client.linger = 0
    client.curve_publickey, client.curve_secretkey = mine.curve.encode(), mine.secret.encode()
    client.curve_serverkey = target.key.encode()
    monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_CLOSED)
    since = time.monotonic()
    client.connect(f"tcp://{target.host}:{target.port}")
    try:
        while not monitor.poll(0):  # noqa: ASYNC110 - many such sockets, and nothing to be gained by haste
            await asyncio.sleep(0.01)
        event = struct.unpack("=hi", monitor.recv_multipart()[0])[0] & 0xFFFF
        if event == zmq.EVENT_CLOSED:
            tally.unopened += 1
        else:
            tally.opened += 1
            tally.closed += 1
            tally.longest_seconds = max(tally.longest_seconds, time.monotonic() - since)
    finally:
        client.disable_monitor()
        client.close(0)


ATTACKS: dict[str, Callable[[Target, Tally], Coroutine[None, None, None]]] = {
    "no key": _no_key,
    "wrong key": _wrong_key,
    "garbage": _garbage,
    "replayed handshake": _replay,
    "slow-loris": _slow_loris,
    "connection flood": _flood,
    "held connections": _hold,
    "giant frames": _giant,
    "streamed frames": _stream,
}
"""One connection of each attack; many are under way at a time."""


async def attack(
    name: str, target: Target, stop: asyncio.Event, *, rate: float = RATE, held: int = HELD, tally: Tally | None = None
) -> Tally:
    """Opens ``rate`` connections per second, ``held`` at a time at most, until ``stop`` is set."""
    tally = tally or Tally()
    running: set[asyncio.Task[None]] = set()
    started = time.monotonic()
    begun = 0
    while not stop.is_set():
        while len(running) < held and begun < (time.monotonic() - started) * rate:
            task = asyncio.create_task(ATTACKS[name](target, tally))
            running.add(task)
            task.add_done_callback(running.discard)
            begun += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await stop.wait()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return tally


async def _until_stdin_closes(name: str, target: Target, rate: float, held: int) -> Tally:
    stop = when_stdin_closes()
    print(BEGINS, flush=True)
    return await attack(name, target, stop, rate=rate, held=held)


def record_handshake(target: Target, keys: KeyPair) -> bytes:
    """What the client with these keys says to the server until it is let in.  Raises TimeoutError if it is not."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        stack.callback(context.destroy, 0)
        client = context.socket(zmq.DEALER)
        client.curve_publickey, client.curve_secretkey = keys.curve.encode(), keys.secret.encode()
        client.curve_serverkey = target.key.encode()
        monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        stack.callback(client.disable_monitor)
        client.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        near = stack.enter_context(listener.accept()[0])
        far = stack.enter_context(socket.create_connection((target.host, target.port)))
        deadline = time.monotonic() + 10
        while not monitor.poll(0):
            if time.monotonic() > deadline:
                raise TimeoutError("no handshake to record within 10 s")
            ready, _, _ = select.select([near, far], [], [], 0.01)
            for source, sink in ((near, far), (far, near)):
                if source in ready:
                    data = source.recv(4096)
                    sink.sendall(data)
                    if source is near:
                        heard += data
    return bytes(heard)


def words(name: str, server: Member, keys: KeyPair) -> list[str]:
    """The first arguments of `main`; the handshake that is replayed is made with these keys."""
    address = server.address or ""
    return [name, address, server.curve, record_handshake(Target.at(address, server.curve), keys).hex()]


def main(arguments: list[str]) -> None:
    """An attack's name, the server's HOST:PORT and key, a recorded handshake in hexadecimal, rate, connections held."""
    os.nice(NICE)
    name, address, key, recording, rate, held = arguments
    target = Target.at(address, key, bytes.fromhex(recording))
    print(json.dumps(asdict(asyncio.run(_until_stdin_closes(name, target, float(rate), int(held))))))


if __name__ == "__main__":
    main(sys.argv[1:])
