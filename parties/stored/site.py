"""What a server gives to who handles stored secrets in it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

from mpc.errors import TesseraError
from parties.cluster import Cluster, Member
from parties.counters import Metrics
from parties.messages.conversation import RequestMessage
from parties.wire.messages import Message, Payload
from parties.wire.transport import Endpoint

Handler = Callable[[Member, Any, Payload], None]
"""Of a message."""
Refusal = Callable[[Member, Any, TesseraError], None]
"""Of a message that its handler has not accepted."""


class Site(Protocol):
    """A server, as far as stored secrets are concerned."""

    cluster: Cluster
    endpoint: Endpoint
    metrics: Metrics

    @property
    def jobs(self) -> Mapping[str, object]:
        """Runs in progress."""

    def on(self, kind: type[Any], handler: Handler, refuse: Refusal | None = None) -> None:
        """Registers the handler of a message, and what is done with an error that it raises."""

    def tell(self, names: Iterable[str], message: Message, payload: Sequence[bytes] = ()) -> None:
        """Sends to whoever can be reached."""

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """A task that ends with the server."""

    def refuse_request(self, sender: Member, message: RequestMessage, error: TesseraError) -> None:
        """Tells the sender that it cannot have what it asks for."""

    def check_staying(self) -> None:
        """Raises PeerUnavailable when the server is being stopped."""
