"""A server, as far as is known of it by what looks after it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

from mpc.errors import TesseraError
from parties.members.cluster import Cluster, Member
from parties.members.succession import Succession
from parties.messages.check import RoomSeen
from parties.messages.status import SecretSeen, WorkersSeen
from parties.wire.messages import Message, Payload
from parties.wire.transport import Endpoint

Handler = Callable[[Member, Any, Payload], None]
"""Of a message."""
Refusal = Callable[[Member, Any, TesseraError], None]
"""Of a message that its handler has not accepted."""


class Run(Protocol):
    """In progress at a server."""

    client: Member | None


class Successive(Protocol):
    """How a server goes to another cluster file."""

    def go_on(self, succession: Succession) -> None:
        """That succession's last file is in force, among the same servers and with the same settings."""

    def begin_anew(self, succession: Succession) -> None:
        """That succession's last file is in force; this server ends, and another one takes its place."""


class Site(Protocol):
    """What there is to see at a server, and to do there."""

    cluster: Cluster
    member: Member
    endpoint: Endpoint

    @property
    def jobs(self) -> Mapping[str, Run]:
        """Runs in progress."""

    def versions_here(self) -> Iterable[SecretSeen]:
        """All that are in use, of all owners."""

    @property
    def workers(self) -> WorkersSeen | None:
        """That it computes on, if it does on such."""

    @property
    def versions_held(self) -> int:
        """How many secrets are in use, of all owners."""

    def versions_seen_by(self, client: Member) -> Iterable[SecretSeen]:
        """Those in use that the client may know of."""

    def room_for(self, client: Member) -> RoomSeen:
        """What may be stored and run for that client."""

    def fresh_stock(self) -> Mapping[str, int]:
        """Items of preprocessing that are fresh here, by program.  Blocks.  Raises VaultError."""

    def on(self, kind: type[Any], handler: Handler, refuse: Refusal | None = None) -> None:
        """Registers the handler of a message, and what is done with an error that it raises."""

    def tell(self, names: Iterable[str], message: Message, payload: Sequence[bytes] = ()) -> None:
        """Sends to whoever can be reached."""

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """A task that ends with the server."""
