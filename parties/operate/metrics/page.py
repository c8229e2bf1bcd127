"""The one page that scrapers get, on the server's own event loop, and at little cost to it whoever asks.

A request may have `MAX_REQUEST` bytes and take `PATIENCE` s with its answer; `MAX_CONNECTIONS` are served at a time,
and the rest closed.  One connection, one request; one connection taken in `PACE` s, while others wait in the kernel.
The page is made at most once in `FRESH` s: who asks more often gets the same again.  It says nothing that is secret,
and is not encrypted: whoever can connect can read it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

from mpc.errors import ConfigurationError

log = logging.getLogger(__name__)

MAX_REQUEST = 8192
"""Bytes of a request, headers and all."""

PATIENCE = 5.0
"""s from a connection until its end."""

MAX_CONNECTIONS = 16
FRESH = 0.5
PACE = 0.01

_WAITING = 64
"""Connections that the kernel keeps for us."""

_MORE = 4
"""Times `MAX_REQUEST` bytes that may still come after the answer."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_END = b"\r\n\r\n"


class Page:
    """Context manager: answers ``GET /metrics`` at ``address`` with what ``render`` makes.

    Raises ConfigurationError, on entering, when the address cannot be bound.
    """

    def __init__(self, render: Callable[[], Awaitable[bytes]], address: tuple[str, int]) -> None:
        self._render = render
        self._address = address
        self._connections: set[asyncio.Task[None]] = set()
        self._rendering = asyncio.Lock()
        self._text = b""
        self._made = float("-inf")
        self.url = ""
        """Where it is; with the port that was chosen, if any would do."""

    async def __aenter__(self) -> Page:
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=_WAITING)
        except OSError as error:
            raise ConfigurationError(
                f"metrics cannot be served at {host}:{port} ({error.strerror or error}): give another --metrics"
            ) from None
        self._listener.setblocking(False)
        name = f"[{host}]" if family is socket.AF_INET6 else host
        self.url = f"http://{name}:{self._listener.getsockname()[1]}/metrics"
        self._accepting = asyncio.get_running_loop().create_task(self._accept(), name="tessera metrics")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        tasks = [self._accepting, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Who connects a thousand times a second must not keep the event loop from its runs.
            await asyncio.sleep(PACE)
            try:
                connection, _ = await loop.sock_accept(self._listener)
            except OSError:
                continue  # it has gone already, or there are no descriptors left: see next time
            if len(self._connections) >= MAX_CONNECTIONS:
                connection.close()
                continue
            task = loop.create_task(self._serve(connection))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_REQUEST)
        except OSError:
            connection.close()
            return
        try:
            await self._answer(reader, writer)
        except Exception:
            log.exception("a scraper could not be answered")
        finally:
            # Whatever it did not read is not kept for it.
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                writer.write(await self._response(reader))
                await writer.drain()
                writer.write_eof()
                # Until it has all of it and hangs up: closed with unread bytes, it might see a reset instead.
                for _ in range(_MORE):
                    if not await reader.read(MAX_REQUEST):
                        break
        except (TimeoutError, OSError, EOFError):
            pass  # a scraper that does not go on has only itself to blame

    async def _response(self, reader: asyncio.StreamReader) -> bytes:
        try:
            request = await reader.readuntil(_END)
        except asyncio.LimitOverrunError:
            return _response("431 Request Header Fields Too Large")
        method, path, protocol = (*request.split(b"\r\n", 1)[0].split(b" "), b"", b"")[:3]
        if not protocol.startswith(b"HTTP/1."):
            return _response("400 Bad Request")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", headers=["Allow: GET, HEAD"])
        if path.partition(b"?")[0] != b"/metrics":
            return _response("404 Not Found")
        return _response("200 OK", await self._page(), CONTENT_TYPE, head=method == b"HEAD")

    async def _page(self) -> bytes:
        async with self._rendering:
            if time.monotonic() - self._made > FRESH:
                self._text = await self._render()
                self._made = time.monotonic()
            return self._text


def _response(
    status: str,
    body: bytes = b"",
    kind: str = "text/plain; charset=utf-8",
    *,
    head: bool = False,
    headers: Sequence[str] = (),
) -> bytes:
    lines = f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"
    start = "".join(f"{line}\r\n" for line in (*lines, *headers, ""))
    return start.encode("ascii") + (b"" if head else body)
