"""A server's part in ``tessera status``.

What a client can cause by asking is bounded: one question of its is answered at a time, one each `PAUSE` s; whoever is
faster is told when to come again.  The look at disk and peers that an answer takes is one for all who ask
(`parties.operate.status.look`).  A client learns of its own runs, of models that it may know of, and of others' runs
their number.
"""

from __future__ import annotations

import time

from parties.members.cluster import Member
from parties.messages.check import CheckRefused
from parties.messages.status import AskStatus, ServerStatus
from parties.messages.uploads import MAX_SECRETS
from parties.operate.site import Site
from parties.operate.status.look import Look
from parties.wire.messages import Payload
from parties.wire.version import package_version

PAUSE = 0.2
"""s between two answers to one client."""


class StatusDesk:
    """Registers its handler at ``server`` when it is made."""

    def __init__(self, server: Site, look: Look) -> None:
        self._server, self._look = server, look
        self._started = time.monotonic()
        self._answering: set[str] = set()
        self._answered: dict[str, float] = {}
        server.on(AskStatus, self._on_ask)

    def _on_ask(self, client: Member, message: AskStatus, _: Payload) -> None:
        pause = self._answered.get(client.name, float("-inf")) + PAUSE - time.monotonic()
        if client.name in self._answering or pause > 0:
            reason = f"busy: {client.name} has just asked for its status; try again later"
            refused = CheckRefused(request=message.request, wait=max(pause, PAUSE), reason=reason)
            self._server.tell([client.name], refused)
            return
        self._answering.add(client.name)
        self._server.spawn(self._answer(client, message))

    async def _answer(self, client: Member, message: AskStatus) -> None:
        try:
            seen = await self._look.look()
            jobs = self._server.jobs.values()
            own = sum(1 for job in jobs if job.client == client)
            status = ServerStatus(
                request=message.request,
                version=package_version(),
                uptime=time.monotonic() - self._started,
                secrets=tuple(self._server.versions_seen_by(client))[:MAX_SECRETS],
                stock=None if seen.stock is None else dict(seen.stock),
                own_runs=own,
                other_runs=len(jobs) - own,
                peers=seen.peers,
                workers=self._server.workers,
            )
            self._server.tell([client.name], status)
        finally:
            self._answering.discard(client.name)
            self._answered[client.name] = time.monotonic()
