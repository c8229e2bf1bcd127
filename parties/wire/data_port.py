"""Where data channels come in: a second port of a server, at which nobody is heard who does not know a secret.

Whoever connects has `PATIENCE` seconds and `PROOF` bytes: the name of a channel that was offered over CURVE to a
member, and a frame that takes its secret.  Anything else is closed, without an answer.  Until then a connection is a
stranger's; of these the latest `STRANGERS` stay, so a member gets through, which takes it a round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from mpc.errors import ConfigurationError
from parties.members.cluster import Member
from parties.wire.data_keys import NAME, TAG
from parties.wire.door import limit
from parties.wire.refusals import RefusalLog
from parties.wire.sockets import bound_to

log = logging.getLogger(__name__)

PROOF = NAME + TAG
"""Bytes that a member sends first."""
PATIENCE = 5.0
"""s for them."""
STRANGERS = 256
"""Connections that have not proved anything, at most; fewer where the process may not open many files."""

_BACKLOG = 256
# Connections that are accepted before the event loop gets a turn; and s until another is tried where there are no
# descriptors.
_AT_ONCE = 16
_EXHAUSTED = 0.1


@dataclass(eq=False)
class _Stranger:
    connection: socket.socket
    timer: asyncio.TimerHandle
    said: bytes = b""


class DataPort:
    """Listens, once open.

    Args:
        admit: takes a connection and the `PROOF` bytes that came over it, or not.
    """

    def __init__(self, me: Member, admit: Callable[[bytes, socket.socket], bool]) -> None:
        self._me, self._admit = me, admit
        self._loop = asyncio.get_running_loop()
        self._strangers: dict[socket.socket, _Stranger] = {}
        self._limit = limit(STRANGERS, 16)
        self._refusals = RefusalLog(log)
        self._listener: socket.socket | None = None
        self._resting: asyncio.TimerHandle | None = None
        self.number = 0
        """Of the port."""

    async def open(self) -> None:
        """Raises ConfigurationError: the port is taken, or the host is not ours."""
        family, host, _ = await bound_to(self._me)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, self._me.data_port or 0))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            taken = error.errno == errno.EADDRINUSE
            raise ConfigurationError(
                f"{self._me.name} cannot listen at data_port {self._me.data_port}: "
                f"{'it is already in use: stop the process that has it, or give another' if taken else error.strerror}"
            ) from error
        listener.setblocking(False)
        self._listener, self.number = listener, listener.getsockname()[1]
        self._loop.add_reader(listener, self._accept)

    def close(self) -> None:
        """Idempotent."""
        if self._listener is None:
            return
        if self._resting is not None:
            self._resting.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        for stranger in tuple(self._strangers.values()):
            self._turn_out(stranger)
        self._refusals.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._listener is None:
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._rest()
                return
            connection.setblocking(False)
            timer = self._loop.call_later(PATIENCE, self._too_late, connection)
            self._strangers[connection] = stranger = _Stranger(connection, timer)
            self._loop.add_reader(connection, self._hear, stranger)
            if len(self._strangers) > self._limit:
                self._turn_out(next(iter(self._strangers.values())))
                self._refusals.note("too many connections to the data port: closed the oldest of %d", self._limit)

    def _rest(self) -> None:
        """There are no descriptors: whoever has had one longest gives it up, and nobody is busy asking for more."""
        if self._strangers:
            self._turn_out(next(iter(self._strangers.values())))
        self._refusals.note("no more files may be opened: connections to the data port wait")
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._resting = self._loop.call_later(_EXHAUSTED, self._loop.add_reader, self._listener, self._accept)

    def _hear(self, stranger: _Stranger) -> None:
        try:
            said = stranger.connection.recv(PROOF - len(stranger.said))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            said = b""
        stranger.said += said
        if said and len(stranger.said) < PROOF:
            return
        del self._strangers[stranger.connection]
        self._forget(stranger)
        if not (said and self._admit(stranger.said, stranger.connection)):
            stranger.connection.close()
            if said:
                self._refusals.note("refused a connection to the data port, which names no channel that was offered")

    def _too_late(self, connection: socket.socket) -> None:
        stranger = self._strangers.get(connection)
        if stranger is not None:
            self._turn_out(stranger)

    def _turn_out(self, stranger: _Stranger) -> None:
        del self._strangers[stranger.connection]
        self._forget(stranger)
        with contextlib.suppress(OSError):
            stranger.connection.close()

    def _forget(self, stranger: _Stranger) -> None:
        stranger.timer.cancel()
        self._loop.remove_reader(stranger.connection)


async def connected(host: str, port: int) -> socket.socket:
    """A connection to one, by whoever comes in there.  Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    with contextlib.ExitStack() as undo:
        connection = undo.enter_context(socket.socket(family, kind, protocol))
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
        undo.pop_all()
        return connection
