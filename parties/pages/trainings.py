"""The server of ``tessera jobs --page``: trainings at the parties, what they reveal as it comes, their end and sequel.

It shows what ``tessera jobs`` prints, to whoever has the client's key: where all trainings stand that are the client's
or read what it owns, and of its own what is revealed to it at each checkpoint.  It opens nothing that the command
does not, and nothing of it is kept here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar

from aiohttp import web

from mpc.errors import LimitReached, NoAnswer, NotPermitted
from parties.client.async_client import AsyncClient
from parties.client.training_job import Standing, TrainingJob
from parties.pages.advice import Advice
from parties.pages.guard import refusal
from parties.pages.page import Page, Step

MAX_AT_ONCE = 8
"""Trainings that are followed; beyond it one is refused as busy."""


class TrainingsPage(Page):
    """Serves the page of one client's trainings."""

    command = "tessera jobs --page"
    files: ClassVar = {
        "/": ("trainings.html", "text/html"),
        "/trainings.css": ("trainings.css", "text/css"),
        "/trainings.js": ("trainings.js", "text/javascript"),
        "/chart.js": ("chart.js", "text/javascript"),
    }
    advice: ClassVar[Advice] = {
        NoAnswer: "The network is as it was at the last checkpoint: go on from there with a smaller rate.",
        NotPermitted: "The data's owners can allow it (tessera requests); then resume it.",
        LimitReached: "The data's owners can allow more runs (tessera approve --runs); then resume it.",
    }

    def __init__(self, client: AsyncClient) -> None:
        super().__init__(client)
        self._followed = 0

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_get("/api/about", self._about)
        router.add_get("/api/jobs", self.answering(self._jobs))
        router.add_get("/api/jobs/{job}/follow", self.answering(self._follow))
        router.add_post("/api/jobs/{job}/stop", self.answering(self._stop))
        router.add_post("/api/jobs/{job}/resume", self.answering(self._resume))

    async def _about(self, _: web.Request) -> web.Response:
        return web.json_response(self.about())

    async def _jobs(self, _: web.Request) -> web.Response:
        """All of them, the newest first."""
        found = await self.client.standings()
        return web.json_response({"jobs": [self._shown(job, standing) for job, standing in found]})

    def _shown(self, job: TrainingJob, standing: Standing) -> Step:
        order = job.order
        return {
            **standing.to_dict(),
            "id": job.id,
            "name": order.slot,
            "own": job.own,
            "reveals": list(order.reveals),
            "first": order.first * order.steps,
            "since": order.when,
            "error": None if standing.error is None else self.failure(standing.error),
        }

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """A line for each checkpoint, until the training is over, or the page has been closed."""
        if self._followed >= MAX_AT_ONCE:
            return refusal(429, "Busy", f"{MAX_AT_ONCE} pages follow trainings already: close one of them")
        self._followed += 1
        try:
            return await self.stream(request, _made(await self._job(request)))
        finally:
            self._followed -= 1

    async def _stop(self, request: web.Request) -> web.Response:
        job = await self._job(request)
        await job.stop()
        return web.json_response(self._shown(job, await job.standing()))

    async def _resume(self, request: web.Request) -> web.Response:
        job = await (await self._job(request)).resume()
        return web.json_response(self._shown(job, await job.standing()))

    async def _job(self, request: web.Request) -> TrainingJob:
        """Raises NoSuchName."""
        return await self.client.job(request.match_info["job"])


async def _made(job: TrainingJob) -> AsyncGenerator[Step, None]:
    if job.own:
        for made in await job.before():
            yield {"step": "made", "made": made.to_dict()}
    async for made in job.follow():
        yield {"step": "made", "made": made.to_dict()}
    yield {"step": "over"}
