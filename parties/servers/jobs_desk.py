"""What every server does for training jobs, by itself: ends one when its client says so, and shows it its results."""

from __future__ import annotations

import asyncio
from typing import Any

from mpc.errors import NoSuchName
from parties.members.cluster import Member
from parties.messages.jobs import FetchResults, JobStopped, ResultsFound, State, StopJob
from parties.servers.server import Server
from parties.stored.job_book import HeldJob, JobBook
from parties.stored.policy import LookUp
from parties.stored.version_database import VersionDatabase


class JobsDesk:
    """Handles the messages about jobs that every server takes."""

    def __init__(self, server: Server[Any], database: VersionDatabase, look_up: LookUp[Any]) -> None:
        def in_use(slot: str) -> str:
            found = look_up(slot)
            return "" if found is None else found.policy.version

        self._server, self._look_up = server, look_up
        self.book = JobBook(server.member.name, database.jobs, lambda: server.cluster, in_use)
        server.on(StopJob, lambda client, message, _: server.answer(client, message, self._stop(client, message)))
        server.on(
            FetchResults, lambda client, message, _: server.answer(client, message, self._results(client, message))
        )

    async def _stop(self, client: Member, message: StopJob) -> None:
        held = self.book.of(client.name, message.job)
        if held is not None:
            await self._server.governor.disk.in_thread(client.name, lambda: self.book.end(held, State.STOPPED))
            self.stopped(held)
        self._server.tell([client.name], JobStopped(request=message.request, found=held is not None))

    def stopped(self, held: HeldJob) -> None:
        """A run of it ends: what it has opened is uniform."""
        for job in list(self._server.jobs.values()):
            if job.training == held.job:
                job.released = True
                self._server.end(job)

    async def _results(self, client: Member, message: FetchResults) -> None:
        held = self._own(client, message.job)
        tables = self.book.tables
        found = await asyncio.to_thread(lambda: [tables.result(held.job, run) for run in message.runs])
        self._server.tell([client.name], ResultsFound(request=message.request), found)

    def _own(self, client: Member, job: str) -> HeldJob:
        held = self.book.of(client.name, job)
        if held is None:
            raise NoSuchName(f"there is no job {job[:8]} of {client.name}'s: `tessera jobs` lists them")
        return held
