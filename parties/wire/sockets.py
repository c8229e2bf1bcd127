"""ZeroMQ sockets with every option that matters here, and the two things asyncio needs to use them.

Plain sockets that never block, driven by the event loop: `Readable` calls back when there is something to
read.  Unlike those of ``zmq.asyncio`` they can also be polled directly, where the event loop's share of the
latency counts.
"""

from __future__ import annotations

import asyncio
import errno
import socket as stdlib_socket
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

import zmq

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.wire.messages import MAX_HEADER_BYTES, PIECE
from parties.wire.wires import EAGER_WAIT
from parties.wire.zap import DOMAIN

Socket: TypeAlias = "zmq.Socket[bytes]"
Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

# In messages.  Past it a send fails at once, which the caller hears of; nothing is dropped silently.
HIGH_WATER_MARK = 10_000
UNREAD = 4
"""Messages of one connection that libzmq has before we read them, charged to nobody: the others wait where they are."""

HANDSHAKE_SECONDS = 5.0
"""After which a connection that has not completed its handshake is cut."""

# Connections that the kernel keeps until they are accepted; it may have a lower limit of its own (somaxconn).
_BACKLOG = 1024
# Events handled before the event loop gets a turn: strangers who come and go must not keep it busy.
_AT_ONCE = 64
# s that a connection is idle before the kernel asks whether the host is there, s between its questions, and how many:
# that only clears away connections to hosts that vanished without a word.  Silence is judged much sooner, and by the
# application (see `liveness`).  Not ZeroMQ's own heartbeats: where a peer breaks a connection of which more is unread
# than `UNREAD`, the next of them ends this process (libzmq 4.3.5: `out_event` asserts `!_io_error`).
_KEEPALIVE = ((zmq.TCP_KEEPALIVE_IDLE, 10), (zmq.TCP_KEEPALIVE_INTVL, 5), (zmq.TCP_KEEPALIVE_CNT, 4))
# As plain numbers: the enumerations cost microseconds where they are used once per frame.
_NOW = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)
_MONITOR_EVENT = struct.Struct("=hi")


def inbox(context: Context, keys: KeyPair, cluster: Cluster) -> Socket:
    """A ROUTER, not bound yet, that takes CURVE connections which the context's `Gatekeeper` lets in."""
    router = context.socket(zmq.ROUTER)
    _common(router, keys, cluster)
    router.setsockopt(zmq.BACKLOG, _BACKLOG)
    router.curve_server = True
    router.zap_domain = DOMAIN
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    # An answer to a client that has gone must fail, not vanish.
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return router


def outbox(context: Context, keys: KeyPair, peer: Member, cluster: Cluster) -> Socket:
    """A DEALER, not connected yet, that only ever talks to the holder of ``peer``'s secret key."""
    dealer = context.socket(zmq.DEALER)
    _common(dealer, keys, cluster)
    dealer.curve_publickey = keys.curve.encode("ascii")
    dealer.curve_serverkey = peer.curve.encode("ascii")
    # Queue for a live connection only, and drop the queue with it: a restarted peer never meets stale
    # messages.
    dealer.setsockopt(zmq.IMMEDIATE, 1)
    dealer.setsockopt(zmq.RECONNECT_IVL, 100)
    dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 1_000)
    dealer.setsockopt(zmq.CONNECT_TIMEOUT, 3_000)
    dealer.setsockopt(zmq.TCP_KEEPALIVE, 1)
    for option, number in _KEEPALIVE:
        dealer.setsockopt(option, number)
    if peer.address is not None and peer.address.startswith("["):
        dealer.setsockopt(zmq.IPV6, 1)
    return dealer


def _common(socket: Socket, keys: KeyPair, cluster: Cluster) -> None:
    socket.curve_secretkey = keys.secret.encode("ascii")
    socket.linger = 0
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, UNREAD)
    socket.setsockopt(zmq.RCVTIMEO, EAGER_WAIT)
    socket.setsockopt(zmq.HANDSHAKE_IVL, round(1e3 * HANDSHAKE_SECONDS))
    # What nobody confirms for so long ends the connection.  A new one is tried every few seconds, whereas TCP would
    # try to save the old one ever more rarely, and notice late that a network is whole again.
    socket.setsockopt(zmq.TCP_MAXRT, round(1e3 * cluster.settings.peer_timeout))
    # Per frame, before any memory is set aside; libzmq closes the connection.  The slack is CURVE's own.  How many
    # frames there may be no option says: see `inflow`.
    socket.setsockopt(zmq.MAXMSGSIZE, max(PIECE, MAX_HEADER_BYTES) + 1024)


async def bind(router: Socket, me: Member) -> None:
    """Binds ``router`` where ``me`` listens.  ConfigurationError: the port is taken, or not ours."""
    family, number, port = await bound_to(me)
    address = me.listen or me.address
    host = str(address).rpartition(":")[0]
    if family == stdlib_socket.AF_INET6:
        router.setsockopt(zmq.IPV6, 1)
        number = f"[{number}]"
    try:
        router.bind(f"tcp://{number}:{port}")
    except zmq.ZMQError as error:
        if error.errno == errno.EADDRINUSE:
            reason = (
                f"port {port} on host {host} is already in use: "
                f"stop the process that has it, or give {me.name} another address"
            )
        elif error.errno in (errno.EADDRNOTAVAIL, errno.ENODEV):
            reason = (
                f"host {host} is not an address of this machine: "
                f"start {me.name} on its own host, or set `listen` for it in the cluster file"
            )
        else:
            reason = f"{me.name} cannot listen on {address}: {error.strerror}"
        raise ConfigurationError(reason) from error


async def bound_to(me: Member) -> tuple[stdlib_socket.AddressFamily, str, int]:
    """Where ``me`` listens: the family of the address, its host in numbers, and the port.  ConfigurationError."""
    address = me.listen or me.address
    if address is None:
        raise ConfigurationError(f"{me.name} is a client and has no address to listen on")
    host, _, port = address.rpartition(":")
    try:
        # libzmq binds to numbers only.
        found = await asyncio.get_running_loop().getaddrinfo(
            host.strip("[]"), int(port), type=stdlib_socket.SOCK_STREAM
        )
    except OSError as error:
        raise ConfigurationError(
            f"host {host} of {me.name} cannot be resolved ({error.strerror}): correct its address"
        ) from error
    return found[0][0], str(found[0][4][0]), int(port)


def readable(socket: Socket) -> bool:
    """Whether there is something to read right now."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _READABLE)


def send(socket: Socket, frames: Sequence[bytes | memoryview], *, copy: bool) -> None:
    """Queues one message, or raises zmq.Again at once.  (Half the cost of ``send_multipart``.)"""
    last = len(frames) - 1
    for frame in frames[:last]:
        socket.send(frame, _MORE, copy)
    socket.send(frames[last], _NOW, copy)


def receive(socket: Socket, most: int, *, wait: bool = False) -> list[zmq.Frame]:
    """The next message, whose frames are not copied, or raises zmq.Again: at once, or after `EAGER_WAIT` ms.

    Of one of more than ``most`` frames, which is none of ours, only the first is left.
    """
    frame = socket.recv(0 if wait else _NOW, False)
    frames = [frame]
    while frame.more:
        frame = socket.recv(_NOW, False)
        frames.append(frame)
        if len(frames) > most:
            while socket.getsockopt(zmq.RCVMORE):
                socket.recv(_NOW, False)
            return frames[:1]
    return frames


class Readable:
    """Calls ``callback`` from the event loop whenever ``socket`` may have something to read.

    ZeroMQ's descriptor is edge-triggered, and *any* use of the socket may swallow the edge.  So the callback
    must read until there is no more, and whoever sends on the socket calls `recheck` afterwards.
    """

    def __init__(self, socket: Socket, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = socket
        self._callback = callback
        self._descriptor = socket.fileno()
        self._loop.add_reader(self._descriptor, self._call)
        self._loop.call_soon(self._call)

    def recheck(self) -> None:
        """Sees to it that what has become readable in the meantime is read."""
        if readable(self._socket):
            self._loop.call_soon(self._call)

    def close(self) -> None:
        """No more calls.  Call before closing the socket; idempotent."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = -1

    def _call(self) -> None:
        if self._descriptor >= 0:
            self._callback()


class Monitor:
    """Calls ``callback(event, value)`` from the event loop for each of ``events`` that ``socket`` sees."""

    def __init__(self, socket: Socket, events: int, callback: Callable[[int, int], None]) -> None:
        self._watched = socket
        self._callback = callback
        endpoint = f"inproc://monitor-{id(self):x}"
        socket.monitor(endpoint, events)
        self._pair: Socket = socket.context.socket(zmq.PAIR)
        # No limit: at one, libzmq's thread would wait for us, all other connections with it, and `close` for ever.
        self._pair.setsockopt(zmq.RCVHWM, 0)
        self._pair.connect(endpoint)
        self._readable = Readable(self._pair, self._read_some)

    def close(self) -> None:
        """Ends monitoring.  Call before closing the socket."""
        self._readable.close()
        self._watched.disable_monitor()
        self._pair.close(0)

    def read(self) -> None:
        """Handles what has happened so far, now."""
        while self._read_one():
            pass

    def _read_some(self) -> None:
        for _ in range(_AT_ONCE):
            if not self._read_one():
                return
        self._readable.recheck()

    def _read_one(self) -> bool:
        if self._pair.closed or not readable(self._pair):
            return False
        event, value = _MONITOR_EVENT.unpack(self._pair.recv_multipart(_NOW)[0])
        self._callback(event & 0xFFFF, value)
        return True
