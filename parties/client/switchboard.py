"""A client's connections, and its conversations over them: whose message belongs to which, and which have failed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence

from mpc.errors import PeerLost, TesseraError, UsageError
from parties.client.conversation import Conversation
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.members.succession import Succession
from parties.messages.conversation import ConversationMessage, RequestMessage
from parties.messages.failures import error_of
from parties.messages.requests import RequestsChanged
from parties.messages.runs import Failed
from parties.wire.events import Delivery, Event, LinkFault, PeerDown, PeerRestarted
from parties.wire.messages import Buffer, Message
from parties.wire.transport import Endpoint
from parties.wire.wires import Transport

log = logging.getLogger(__name__)


class Switchboard:
    """Reads all that arrives for one client, and puts it into the conversation it belongs to."""

    def __init__(
        self, succession: Succession, member: Member, keys: KeyPair, connect_timeout: float, transport: Transport
    ) -> None:
        cluster = succession.cluster
        self._endpoint = Endpoint(cluster, member, keys, bind=False, transport=transport)
        self._endpoint.succession = succession
        self._connect_timeout = connect_timeout
        self._peer_timeout = cluster.settings.peer_timeout
        self._servers = [server.name for server in cluster.servers]
        self._conversations: dict[str, Conversation] = {}
        self._reader: asyncio.Task[None] | None = None
        self.news = asyncio.Event()
        """That something has become of requests since this was looked up, as a server says; then there is another."""

    @property
    def cluster(self) -> Cluster:
        """By the file that is in force, as far as we have been told."""
        return self._endpoint.cluster

    @property
    def newest(self) -> Succession:
        """Up to the newest file, which may have other servers or settings than ours."""
        return self._endpoint.newest

    async def start(self) -> None:
        """Connect to all servers.  Raises PeerError, and leaves nothing open."""
        await self._endpoint.start()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="tessera client")
        try:
            await self._endpoint.connect(deadline=self._connect_timeout)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections; conversations fail.  Idempotent."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        self._fail(UsageError("the client was closed before this was over"))
        await self._endpoint.close()

    async def reach(self, servers: Collection[str]) -> None:
        """Waits for servers that have lost their connection, having been restarted perhaps.  Raises PeerError."""
        if self._reader is None:
            raise UsageError("the client is not connected: use it in an `async with` statement")
        if not all(map(self._endpoint.connected, servers)):
            await self._endpoint.connect(servers, min(self._connect_timeout, self._peer_timeout))

    def send(self, server: str, message: Message, payload: Sequence[Buffer] = ()) -> int:
        """As ``Endpoint.send``."""
        return self._endpoint.send(server, message, payload)

    def tell(self, message: Message) -> None:
        """Send to every server that can be reached."""
        for server in self._servers:
            with contextlib.suppress(TesseraError):
                self._endpoint.send(server, message)

    # -- conversations ---------------------------------------------------------------------------------------------

    def begin(self, key: str, needs: Collection[str]) -> Conversation:
        """A conversation about the run, upload or request of that id, until ``end``."""
        conversation = self._conversations[key] = Conversation(needs)
        return conversation

    def end(self, key: str) -> None:
        """What still arrives of it is dropped.  Idempotent."""
        self._conversations.pop(key, None)

    def holds(self, key: str, conversation: Conversation) -> bool:
        """Whether it was begun here, and has not ended."""
        return self._conversations.get(key) is conversation

    @contextlib.contextmanager
    def conversation(self, key: str, needs: Collection[str]) -> Iterator[Conversation]:
        """A conversation that ends with the block."""
        try:
            with self.watching(needs):
                yield self.begin(key, needs)
        finally:
            self.end(key)

    async def ask(
        self,
        message: RequestMessage,
        answer: type[RequestMessage],
        servers: Sequence[str],
        patience: float,
        payload: Sequence[Buffer] = (),
    ) -> dict[str, Delivery]:
        """What each of these servers answers to a question, at most ``patience`` s apart.  Raises PeerError, and why it
        is refused."""
        with self.conversation(message.request, servers) as conversation:
            for server in servers:
                self.send(server, message, payload)
            return await conversation.take(answer, servers, patience)

    @contextlib.contextmanager
    def watching(self, servers: Collection[str]) -> Iterator[None]:
        """Within the block, the silence of any of these is noticed."""
        watch = self._endpoint.watch(servers)
        try:
            yield
        finally:
            watch.stop()

    # -- events ----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                self._handle(await self._endpoint.receive())
        except TesseraError as error:
            self._fail(error)
        except Exception:  # a bug of ours must not leave callers waiting
            log.exception("an event could not be handled")
            self._fail(TesseraError("internal error; see this process's log"))

    def _handle(self, event: Event) -> None:
        if isinstance(event, Delivery):
            self._deliver(event)
        elif isinstance(event, PeerRestarted):
            self._fail(PeerLost(event.sender.name, "restarted in the middle of a run"), event.sender)
        elif isinstance(event, PeerDown):
            self._fail(event.error, event.peer)
        elif isinstance(event, LinkFault):
            self._fail(event.error, event.sender)

    def _deliver(self, delivery: Delivery) -> None:
        message, sender = delivery.message, delivery.sender.name
        if isinstance(message, RequestsChanged):
            self.news.set()
            self.news = asyncio.Event()
            return
        if not isinstance(message, ConversationMessage):
            log.warning("%s sent %s, which is not for a client", sender, type(message).__name__)
            return
        conversation = self._conversations.get(message.conversation)
        if conversation is None:
            return  # late: given up or over
        if message.failure is not None:
            fault = message.credible(sender, self.cluster) if isinstance(message, Failed) else message.failure
            conversation.fail(error_of(fault, sender), told=True)
        else:
            conversation.put(delivery)

    def _fail(self, error: TesseraError, server: Member | None = None) -> None:
        """End the conversations that need ``server``, by default all."""
        for conversation in self._conversations.values():
            if server is None or server.name in conversation.needs:
                conversation.fail(error)
