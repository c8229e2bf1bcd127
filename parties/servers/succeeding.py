"""A server's going from one cluster file to the next: live, or by ending so that another can take its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpc.errors import AuthenticationError
from parties.members.cluster import Cluster
from parties.members.succession import Succession
from parties.operate.audit.facts import ClusterChange
from parties.operate.cluster.differences import differences

if TYPE_CHECKING:
    from parties.servers.server import Server

MOST_SAID = 500
"""Characters that the audit log has of what a file changes."""


class Succeeding:
    """Of one server.  ``whenever`` is who wants to know."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._followers: list[Callable[[Cluster], None]] = []
        self.gone = set[str]()
        """Keys of members that are none any more: what they have sent before may be on its way to be handled."""
        self.successor: Succession | None = None
        """What another server has to take its place with, once it has ended."""

    def whenever(self, follow: Callable[[Cluster], None]) -> None:
        """Have it called with each cluster file that this server goes on to, before anything else happens."""
        self._followers.append(follow)

    def go_on(self, succession: Succession) -> None:
        """The same servers and settings: whoever stays is not disturbed, and whoever has gone has nothing left here.

        A client that has gone, or that has another key, loses its runs first: no message of them leaves from then on.
        """
        server, new = self._server, succession.cluster
        self._put_down(succession)
        keys = {client.name: client.key for client in new.clients}
        gone = {client.name for client in server.cluster.clients if keys.get(client.name) != client.key}
        self.gone |= {member.key for member in server.cluster.members}
        self.gone -= {member.key for member in new.members}
        server.cluster, server.member = new, new.member(server.member.name)
        for job in list(server.jobs.values()):
            name = job.on_behalf or (job.client.name if job.client is not None else "")
            if name in gone:
                reason = f"is no client any more, or has another key, by cluster file {new.number}"
                server.fail(job, AuthenticationError(name, reason))
        server.governor.admission.clients = max(1, len(new.clients))
        for follow in self._followers:
            follow(new)
        # Of others, on what somebody owned who has gone.
        server.end_forbidden()
        # What others run on what an owner has left here, too.
        server.end_forbidden()
        server.endpoint.go_on(succession)

    def begin_anew(self, succession: Succession) -> None:
        """Other servers, settings, or another key or address of this one: whoever runs it makes another server."""
        self.successor = succession
        self._put_down(succession)
        self._server.endpoint.give_way(succession)
        self._server.spawn(self._end())

    def _put_down(self, succession: Succession) -> None:
        new, signers = succession.cluster, tuple(sorted(succession.steps[-1].signatures))
        change = "; ".join(differences(self._server.cluster, new))[:MOST_SAID]
        self._server.audit.record(ClusterChange(new.number, new.fingerprint, signers, change))

    async def _end(self) -> None:
        await self._server.leave(0.0)
        self._server.endpoint.end_for_newer()
