"""Questions to servers about themselves and their links: asked under an id, answered once or refused for now."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mpc.errors import ConfigurationError, PeerError, PeerLost, PeerUnavailable, RemoteError, printable
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.members.succession import Succession
from parties.messages.check import CheckRefused
from parties.messages.conversation import RequestMessage
from parties.messages.failures import error_of
from parties.wire.events import Delivery, Event, LinkFault, PeerDown, PeerRestarted
from parties.wire.following import operator
from parties.wire.socket_wires import SocketWires
from parties.wire.transport import Endpoint
from parties.wire.wires import Transport

Result = TypeVar("Result")
Question = Callable[[str], RequestMessage]
"""Makes the message, given the id."""


class Busy(RemoteError):  # noqa: N818 - says what happened
    """The server will not look now; worth another try after ``wait`` s."""

    def __init__(self, peer: str, message: CheckRefused) -> None:
        super().__init__(peer, printable(message.reason))
        self.wait = message.wait


class Answers:
    """Who is expected to answer which question, and what came."""

    def __init__(self) -> None:
        self._awaited: dict[str, tuple[str, asyncio.Future[Delivery]]] = {}

    @contextlib.contextmanager
    def awaited(self, peer: str) -> Iterator[tuple[str, asyncio.Future[Delivery]]]:
        """The id of a new question to ``peer``, and its answer to be."""
        request = secrets.token_hex(16)
        future: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        self._awaited[request] = peer, future
        try:
            yield request, future
        finally:
            del self._awaited[request]
            # Nobody will fetch an error that comes after this.
            future.cancel()

    def take(self, delivery: Delivery) -> None:
        """An answer; one that nobody waits for, or from somebody else, is dropped."""
        message, sender = delivery.message, delivery.sender.name
        if not isinstance(message, RequestMessage):
            return
        peer, future = self._awaited.get(message.request, ("", None))
        if future is None or peer != sender or future.done():
            return
        if isinstance(message, CheckRefused):
            future.set_exception(Busy(sender, message))
        elif message.failure is not None:
            future.set_exception(error_of(message.failure, sender))
        else:
            future.set_result(delivery)

    def fail(self, peer: str, error: PeerError) -> None:
        """Nothing more will come from the peer."""
        for expected, future in self._awaited.values():
            if expected == peer and not future.done():
                future.set_exception(error)

    def handle(self, event: Event) -> None:
        """Whatever a client's endpoint received: an answer, or the loss of who should give it."""
        if isinstance(event, Delivery):
            self.take(event)
        elif isinstance(event, PeerRestarted):
            self.fail(event.sender.name, PeerLost(event.sender.name, "restarted when it was asked: ask again"))
        elif isinstance(event, PeerDown):
            self.fail(event.peer.name, event.error)
        elif isinstance(event, LinkFault):
            self.fail(event.sender.name, event.error)


async def answer_in(future: asyncio.Future[Delivery], peer: str, patience: float) -> Delivery:
    """The answer.  Raises PeerUnavailable when there is none in ``patience`` s, or what it failed with."""
    try:
        async with asyncio.timeout(patience):
            return await future
    except TimeoutError:
        raise PeerUnavailable(
            peer,
            f"did not answer within {patience:g} s: it is frozen or overloaded, or the link carries next to nothing",
        ) from None


@dataclass(frozen=True)
class Asker:
    """A client that asks; from `asking`."""

    cluster: Cluster
    me: Member
    endpoint: Endpoint
    answers: Answers
    patience: float
    """s."""

    async def ask(self, server: str, question: Question, patience: float, payload: Sequence[bytes] = ()) -> Delivery:
        """The answer to one question.  Raises PeerError; `Busy` when it is worth another try."""
        with self.answers.awaited(server) as (request, future):
            self.endpoint.send(server, question(request), payload)
            return await answer_in(future, server, patience)

    async def insist(self, attempt: Callable[[], Awaitable[Result]], until: float | None = None) -> Result:
        """Again and again while the server says that it is busy: for ``patience`` s, or until that monotonic time.

        Raises PeerError.
        """
        limit = time.monotonic() + self.patience if until is None else until
        while True:
            try:
                return await attempt()
            except Busy as busy:
                if time.monotonic() + busy.wait > limit:
                    raise
                await asyncio.sleep(busy.wait)


@contextlib.asynccontextmanager
async def asking(
    cluster: Cluster,
    keys: KeyPair,
    patience: float,
    *,
    operators: bool = False,
    transport: Transport = SocketWires,
    known: Succession | None = None,
) -> AsyncIterator[Asker]:
    """A client that asks servers, and gives each ``patience`` s; with ``operators`` also who operates one: that one.

    ``known``: the files that ``cluster`` has followed.

    Raises ConfigurationError when the key is no client's, or ``patience`` makes no sense.
    """
    member = cluster.by_key(keys.public)
    if member is not None and member.is_server and operators:
        member = operator(member)
    if member is None or member.is_server:
        raise ConfigurationError(
            f"the cluster file lists no client with the key {keys.public}: if it has been added since, take the newest"
            " file (tessera cluster show --out FILE, by a member); else have it proposed (tessera cluster propose)"
        )
    if not patience > 0:
        raise ConfigurationError(f"a timeout of {patience:g} s: give more than 0")
    endpoint = Endpoint(cluster, member, keys, bind=False, transport=transport)
    if known is not None:
        endpoint.succession = known
    async with endpoint:
        answers = Answers()

        async def listen() -> None:
            while True:
                answers.handle(await endpoint.receive())

        listening = asyncio.get_running_loop().create_task(listen(), name="tessera answers")
        try:
            yield Asker(cluster, member, endpoint, answers, patience)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
