"""A page's server: files that never change, and an API behind a guard, whose failures all have one form."""

from __future__ import annotations

import contextlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from importlib import resources
from typing import Any, ClassVar

from aiohttp import web

from mpc.errors import PeerError, TesseraError
from parties.client.async_client import AsyncClient
from parties.pages.advice import Advice, advice
from parties.pages.guard import HEADERS, guard

log = logging.getLogger(__name__)

Step = dict[str, Any]
"""What a page is told: ``step`` says what it is about, ``failed`` being one."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHARED = {
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Page(ABC):
    """Serves one client's page."""

    command: ClassVar[str]
    """What serves it."""
    files: ClassVar[Mapping[str, tuple[str, str]]]
    """By path: its file in ``static``, and what it is."""
    advice: ClassVar[Advice]
    """What a person at this page can do about a failure, beside what holds everywhere."""
    largest: ClassVar[int] = 1 << 16
    """Bytes of a request's body."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client

    @abstractmethod
    def routes(self, router: web.UrlDispatcher) -> None:
        """Adds the API, below ``/api/``."""

    def runner(self, token: str, names: frozenset[str]) -> web.AppRunner:
        """To be set up and given a site; ``names`` are the hosts that requests may be for."""
        app = web.Application(middlewares=[guard(token, names, self.command)], client_max_size=self.largest)
        for path, (file, kind) in {**_SHARED, **self.files}.items():
            body = resources.files("parties.pages").joinpath("static", file).read_bytes()
            app.router.add_get(path, _static(body, kind))
        self.routes(app.router)
        # A page that is closed ends what it had asked for; nothing is logged of requests.
        return web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)

    def about(self) -> Step:
        """Whose page it is, and which servers answer."""
        cluster = self.client.cluster
        return {
            "cluster": cluster.name,
            "client": self.client.member.name,
            "dealer": cluster.dealer.address,
            "parties": [{"name": party.name, "address": party.address} for party in cluster.parties],
            "security": str(cluster.settings.security),
        }

    def failure(self, error: TesseraError) -> Step:
        """What went wrong, and what to do about it."""
        peer = error.peer if isinstance(error, PeerError) else ""
        return {
            "step": "failed",
            "error": type(error).__name__,
            "peer": peer,
            "message": str(error),
            "advice": advice(error, self.command, self.advice),
            "exit_code": error.exit_code,
        }

    def answering(self, handler: Handler) -> Handler:
        """What raises nothing: a typed error is an answer as well."""

        async def answered(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except TesseraError as error:
                return web.json_response(self.failure(error), status=502)

        return answered

    async def stream(self, request: web.Request, steps: AsyncGenerator[Step, None]) -> web.StreamResponse:
        """One JSON object a line, as the steps are done; the last may be what went wrong."""
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the page has been closed: what it asked for is given up
            async with contextlib.aclosing(self._told(steps)) as told:
                async for step in told:
                    await response.write(json.dumps(step).encode() + b"\n")
            await response.write_eof()
        return response

    async def _told(self, steps: AsyncGenerator[Step, None]) -> AsyncGenerator[Step, None]:
        try:
            async with contextlib.aclosing(steps):
                async for step in steps:
                    yield step
        except TesseraError as error:
            yield self.failure(error)
        except Exception:  # a bug of ours must not leave the page waiting
            log.exception("%s: internal error", self.command)
            message = f"internal error; see {self.command}'s log"
            yield {"step": "failed", "error": "InternalError", "message": message}


def _static(body: bytes, kind: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8" if kind.startswith("text/") else None)

    return handler
