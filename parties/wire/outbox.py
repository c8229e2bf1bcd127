"""The connecting half of a link to a server: keeps trying, and knows why it does not get through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import zmq

from mpc.errors import ConfigurationError
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.wire import sockets
from parties.wire.inflow import Inflow
from parties.wire.wires import Trouble

_RETRY = 1.0
_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)


class Outbox:
    """Connects to ``peer``'s inbox, and again whenever the connection breaks.

    Args:
        on_up: a connection is ready, authenticated both ways; called before anything is sent over it.
        on_down: it broke.
        on_readable: there may be something to read from `socket`.
    """

    def __init__(
        self,
        context: sockets.Context,
        keys: KeyPair,
        peer: Member,
        cluster: Cluster,
        *,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_readable: Callable[[], None],
    ) -> None:
        self._context, self._keys, self._cluster = context, keys, cluster
        self._loop = asyncio.get_running_loop()
        self._on_up, self._on_down, self._on_readable = on_up, on_down, on_readable
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        self.peer = peer
        self.up = False
        self.trouble: Trouble | None = None
        self.troubled_at = float("-inf")
        self._connected_at = float("-inf")
        self.inflow = Inflow(-1)
        """Of the connection that stands."""
        self._open()

    def _open(self) -> None:
        self._retry = None
        self.socket = sockets.outbox(self._context, self._keys, self.peer, self._cluster)
        self._monitor = sockets.Monitor(self.socket, _EVENTS, self._on_event)
        self._readable = sockets.Readable(self.socket, self._on_readable)
        try:
            self.socket.connect(f"tcp://{self.peer.address}")
        except zmq.ZMQError as error:
            self.close()
            raise ConfigurationError(
                f"address {self.peer.address} of {self.peer.name} cannot be used: {error.strerror}"
            ) from error

    def _shut(self, linger: int = 0) -> None:
        self._readable.close()
        self._monitor.close()
        self.socket.close(linger)

    def close(self, linger: int = 0) -> None:
        """Drops the connection, and after ``linger`` ms whatever is still queued for it.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.up = False
        if self._retry is not None:
            self._retry.cancel()
        else:
            self._shut(linger)

    def send(self, frames: list[bytes | memoryview], *, copy: bool) -> bool:
        """Queues a message; False if there is no connection or its queue is full."""
        if not self.up:
            return False
        try:
            sockets.send(self.socket, frames, copy=copy)
        except zmq.Again:
            return False
        finally:
            # An attempt that fails may have swallowed the edge just as well.
            self._readable.recheck()
        return True

    def catch_up(self) -> None:
        """Takes note, now, of what has happened to the connection."""
        if not self._closed and self._retry is None:
            self._monitor.read()

    def endless(self, limit: int) -> bool:
        """Cuts the connection if more has come over it than a message of ``limit`` bytes, without an end.

        All whole messages have been read.
        """
        self.catch_up()
        endless = self.up and self.inflow.endless(limit)
        if endless:
            self.inflow.cut()
        return endless

    def _on_event(self, event: int, descriptor: int) -> None:
        if self._closed:
            return
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.up = True
            self.trouble = None
            self._on_up()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._note(Trouble.DENIED)
            # libzmq gives up for good here, and a second connect() on the socket is ignored.
            self._shut()
            self._retry = self._loop.call_later(_RETRY, self._open)
        elif event == zmq.EVENT_CONNECTED:
            self.inflow = Inflow(descriptor)
            self._connected_at = monotonic()
        elif event == zmq.EVENT_DISCONNECTED:
            if self.up:
                self.up = False
                self._on_down()
        elif event == zmq.EVENT_CLOSED:
            self._note(Trouble.UNREACHABLE)
        else:
            # Who has another key breaks off at once; who is frozen lets the time for a handshake run out.
            patient = monotonic() - self._connected_at > sockets.HANDSHAKE_SECONDS / 2
            self._note(Trouble.SILENT if patient else Trouble.HANDSHAKE)

    def _note(self, trouble: Trouble) -> None:
        self.trouble = trouble
        self.troubled_at = monotonic()
