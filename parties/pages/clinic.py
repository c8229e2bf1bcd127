"""The server of ``tessera clinic``: an answer in steps to each photograph."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from aiohttp import web

from mpc.errors import NoAnswer, NotPermitted
from parties.client.async_client import AsyncClient
from parties.pages.advice import Advice
from parties.pages.guard import refusal
from parties.pages.page import Page
from parties.pages.prediction import predict, what_it_says

MAX_BYTES = 20_000_000
"""Of a photograph's file."""
TOO_LARGE = f"the photograph is larger than {MAX_BYTES // 1_000_000} MB: make the picture smaller first"
MAX_AT_ONCE = 4
"""Predictions in progress; beyond it a photograph is refused as busy."""
UPLOAD_SECONDS = 60.0
"""That a browser may take to hand a photograph over."""


class ClinicPage(Page):
    """Serves the page of one client's, on which photographs are looked at by one model."""

    command = "tessera clinic"
    largest = MAX_BYTES
    files: ClassVar = {
        "/": ("clinic.html", "text/html"),
        "/clinic.css": ("clinic.css", "text/css"),
        "/clinic.js": ("clinic.js", "text/javascript"),
    }
    advice: ClassVar[Advice] = {
        NoAnswer: "Take another photograph, of one spot and in even light; if it recurs, tell the model's owner.",
        NotPermitted: "The model's owner can allow it, with tessera allow.",
    }

    def __init__(self, client: AsyncClient, model: str) -> None:
        super().__init__(client)
        self._model = model
        self._in_progress = 0

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/about", self.answering(self._about))
        router.add_post("/api/predict", self._predict)

    async def _about(self, _: web.Request) -> web.Response:
        """Whom and what the page is about; the model says itself what it takes."""
        takes, _classes = what_it_says(await self.client.model(self._model))
        said = {"model": self._model, "subject": takes.subject, "max_bytes": MAX_BYTES, "too_large": TOO_LARGE}
        return web.json_response({**self.about(), **said})

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
            return await self.stream(request, predict(self.client, self._model, photograph))
        finally:
            self._in_progress -= 1
