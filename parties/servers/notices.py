"""Whoever is connected is told that something has become of what it asks or is asked: not what, which it then asks.

So a notice says nothing, and to be told once too often, or by a server that lies, costs a look.  What is looked at, in
a moment after anything has changed that leave depends on, is each approved request's secrets: which version is in use
there, and by which rules its client may use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from typing import Any

from parties.messages.requests import RequestsChanged, UseRequest
from parties.servers.server import Server
from parties.stored.policy import LookUp
from parties.stored.requests import RequestBook

MOMENT = 0.2
"""s in which what happens is gathered."""


class Notices:
    """Of one server, for what is in ``book``; ``look_up`` says what secrets there are."""

    def __init__(self, server: Server[Any], book: RequestBook, look_up: LookUp[Any]) -> None:
        self._server, self._book, self._look_up = server, book, look_up
        self._told = self._standing()
        """As of the last look."""
        self._names: set[str] = set()
        self._gathering = False
        server.whenever_leave_changes(self._soon)

    def changed(self, request: UseRequest) -> None:
        """Whoever it concerns is told: who has done it, too, who may look elsewhere."""
        self._names |= {request.client, *request.owners}
        self._soon()

    def _soon(self) -> None:
        if not self._gathering:
            self._gathering = True
            self._server.spawn(self._tell())

    async def _tell(self) -> None:
        await asyncio.sleep(MOMENT)
        self._gathering = False
        standing = self._standing()
        for request, found in standing.items():
            if self._told.get(request, found) != found:
                self._names |= {request.client, *request.owners}
        self._told = standing
        names, self._names = self._names, set()
        self._server.tell(filter(self._server.endpoint.connected, names), RequestsChanged())

    def _standing(self) -> dict[UseRequest, Hashable]:
        """Of each request that somebody has approved, what that depends on."""
        return {request: tuple(self._found(request.client, slots)) for request, slots in self._book.approved()}

    def _found(self, client: str, slots: Iterable[str]) -> Iterable[Hashable]:
        for slot in slots:
            found = self._look_up(slot)
            yield (
                None
                if found is None
                else (
                    found.policy.version,
                    frozenset(found.policy.of(client)),
                    tuple(frozenset(found.policy.of(client, other)) for other in sorted(found.policy.others)),
                )
            )
