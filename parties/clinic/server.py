"""The page's server: static files, and an answer in steps to each photograph."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator
from importlib import resources
from typing import Any

from aiohttp import web

from mpc.errors import PeerError, TesseraError
from parties.client.async_client import AsyncClient
from parties.clinic.advice import advice
from parties.clinic.guard import HEADERS, guard, refusal
from parties.clinic.prediction import Step, predict, what_it_says

log = logging.getLogger(__name__)

MAX_BYTES = 20_000_000
"""Of a photograph's file."""
TOO_LARGE = f"the photograph is larger than {MAX_BYTES // 1_000_000} MB: make the picture smaller first"
MAX_AT_ONCE = 4
"""Predictions in progress; beyond it a photograph is refused as busy."""
UPLOAD_SECONDS = 60.0
"""That a browser may take to hand a photograph over."""

_FILES = {
    "/": ("index.html", "text/html"),
    "/clinic.css": ("clinic.css", "text/css"),
    "/clinic.js": ("clinic.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class ClinicPage:
    """Serves one client's page."""

    def __init__(self, client: AsyncClient, model: str) -> None:
        self._client = client
        self._model = model
        self._in_progress = 0

    def runner(self, token: str, names: frozenset[str]) -> web.AppRunner:
        """To be set up and given a site; ``names`` are the hosts that requests may be for."""
        app = web.Application(middlewares=[guard(token, names)], client_max_size=MAX_BYTES)
        for path, (file, kind) in _FILES.items():
            body = resources.files("parties.clinic").joinpath("static", file).read_bytes()
            app.router.add_get(path, _static(body, kind))
        app.router.add_get("/api/about", self._about)
        app.router.add_post("/api/predict", self._predict)
        # A page that is closed ends what it had asked for; nothing is logged of requests.
        return web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)

    async def _about(self, _: web.Request) -> web.Response:
        """Whom and what the page is about; the model says itself what it takes."""
        cluster = self._client.cluster
        try:
            takes, _classes = what_it_says(await self._client.model(self._model))
        except TesseraError as error:
            return web.json_response(_failure(error), status=502)
        return web.json_response(
            {
                "cluster": cluster.name,
                "client": self._client.member.name,
                "dealer": cluster.dealer.address,
                "parties": [{"name": party.name, "address": party.address} for party in cluster.parties],
                "security": str(cluster.settings.security),
                "model": self._model,
                "subject": takes.subject,
                "max_bytes": MAX_BYTES,
                "too_large": TOO_LARGE,
            }
        )

    async def _predict(self, request: web.Request) -> web.StreamResponse:
        if self._in_progress >= MAX_AT_ONCE:
            return refusal(429, "Busy", f"{MAX_AT_ONCE} photographs are on their way already: wait for one of them")
        self._in_progress += 1
        try:
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    photograph = await request.read()
            except web.HTTPRequestEntityTooLarge:
                return refusal(413, "TooLarge", TOO_LARGE)
            except TimeoutError:
                return refusal(408, "Timeout", f"the photograph did not arrive within {UPLOAD_SECONDS:g} s")
            return await self._answer(request, photograph)
        finally:
            self._in_progress -= 1

    async def _answer(self, request: web.Request, photograph: bytes) -> web.StreamResponse:
        """One JSON object a line, as the steps are done; the last is the answer or what went wrong."""
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # the page has been closed: the run is given up
            async with contextlib.aclosing(self._steps(photograph)) as steps:
                async for step in steps:
                    await response.write(json.dumps(step).encode() + b"\n")
            await response.write_eof()
        return response

    async def _steps(self, photograph: bytes) -> AsyncGenerator[Step, None]:
        try:
            async with contextlib.aclosing(predict(self._client, self._model, photograph)) as steps:
                async for step in steps:
                    yield step
        except TesseraError as error:
            yield _failure(error)
        except Exception:  # a bug of ours must not leave the page waiting
            log.exception("a photograph could not be dealt with")
            yield {"step": "failed", "error": "InternalError", "message": "internal error; see tessera clinic's log"}


def _failure(error: TesseraError) -> Step:
    peer = error.peer if isinstance(error, PeerError) else ""
    return {
        "step": "failed",
        "error": type(error).__name__,
        "peer": peer,
        "message": str(error),
        "advice": advice(error),
        "exit_code": error.exit_code,
    }


def _static(body: bytes, kind: str) -> Any:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8" if kind.startswith("text/") else None)

    return handler
