"""A TCP connection as bytes in order, with no copy that need not be.

asyncio's own streams copy what the socket does not take at once, what comes in twice, and reallocate either while it
grows: of large messages that took several times as long as sealing and opening them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections import deque

ENOUGH = 1 << 16
"""Bytes that may be queued when ``flush`` returns."""
AT_ONCE = 64
"""Pieces that are handed to the socket in one call, at most."""


class Stream:
    """Of one connection that stands; made in the event loop, where all of it happens.  One task at a time may ``read``.

    Args:
        ahead: bytes that are taken from the socket before somebody asks for them.
    """

    def __init__(self, connection: socket.socket, ahead: int) -> None:
        connection.setblocking(False)
        self._loop, self._socket = asyncio.get_running_loop(), connection
        self._buffer = memoryview(bytearray(ahead))
        self._start = self._end = 0
        """Of what has come and nobody has read."""
        self._ended = self._closing = self._closed = False
        """Nothing more comes; nothing more is to be sent; nothing can be."""
        self._reading = self._writing = False
        """Whether the event loop watches the socket for it."""
        self._queue = deque[memoryview]()
        self._queued = 0
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._watch()

    # -- what comes ------------------------------------------------------------------------------------------------

    async def read(self, size: int) -> memoryview:
        """The next bytes, which are there until the caller waits for something.  Raises OSError where none come."""
        while self._end - self._start < size:
            if self._ended:
                raise ConnectionResetError
            self._make_room(size)
            self._news.clear()
            await self._news.wait()
        found = self._buffer[self._start : self._start + size]
        self._start += size
        self._watch()
        return found

    def _make_room(self, size: int) -> None:
        """For so many from the start on."""
        if size > len(self._buffer) - self._start:
            kept = self._buffer[self._start : self._end]
            into = self._buffer if size <= len(self._buffer) else memoryview(bytearray(size))
            into[: len(kept)] = kept
            self._buffer, self._start, self._end = into, 0, len(kept)
        self._watch()

    def _watch(self) -> None:
        """If there is room."""
        room = self._end < len(self._buffer) or self._start == self._end
        wanted = room and not self._ended
        if wanted and not self._reading:
            self._loop.add_reader(self._socket, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._socket)
        self._reading = wanted

    def _readable(self) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        try:
            count = self._socket.recv_into(self._buffer[self._end :])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            count = 0
        self._end += count
        self._ended = self._ended or not count
        self._watch()
        self._news.set()

    # -- what goes -------------------------------------------------------------------------------------------------

    def write(self, *pieces: bytearray | memoryview) -> None:
        """Queues them, which stay as they are from now on; nothing once the connection is closed or broken."""
        if self._closing or self._closed:
            return
        self._queue.extend(map(memoryview, pieces))
        self._queued += sum(map(len, pieces))
        if not self._writing:
            self._send()

    async def flush(self) -> None:
        """Returns once little is queued.  Raises OSError where nothing can be sent any more."""
        while self._queued > ENOUGH and not self._closed:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            raise ConnectionResetError

    def _send(self) -> None:
        """As much as the socket takes."""
        try:
            while self._queue:
                self._sent(self._socket.sendmsg(itertools.islice(self._queue, AT_ONCE)))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.abort()
            return
        if bool(self._queue) is not self._writing:
            self._writing = bool(self._queue)
            if self._writing:
                self._loop.add_writer(self._socket, self._send)
            else:
                self._loop.remove_writer(self._socket)
        if self._queued <= ENOUGH:
            self._room.set()
        if self._closing and not self._queue:
            self.abort()

    def _sent(self, count: int) -> None:
        self._queued -= count
        while self._queue and count >= len(self._queue[0]):
            count -= len(self._queue.popleft())
        if count:
            self._queue[0] = self._queue[0][count:]

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """What is queued still goes, if it can; nothing more comes.  Idempotent."""
        self._closing = self._ended = True
        if not self._queue:
            self.abort()
        else:
            self._watch()
            self._news.set()

    def abort(self) -> None:
        """At once.  Idempotent."""
        if self._closed:
            return
        self._closed = self._ended = True
        self._watch()
        if self._writing:
            self._loop.remove_writer(self._socket)
        self._queue.clear()
        self._queued = 0
        with contextlib.suppress(OSError):
            self._socket.close()
        self._news.set()
        self._room.set()
