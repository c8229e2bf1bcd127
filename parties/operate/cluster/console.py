"""Talking to servers about cluster files: as a client to all of them, or as who operates one to that one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from mpc.errors import ConfigurationError, PeerError, ProtocolViolation
from parties.members.cluster import Cluster, Member, Role
from parties.members.keys import KeyPair
from parties.members.succession import Step, Succession
from parties.messages.cluster import MAX_PROPOSALS, AskCluster, ClusterSeen, FileProposed, ProposeFile
from parties.messages.conversation import RequestMessage
from parties.messages.status import SecretSeen
from parties.operate.check.asking import Asker, asking
from parties.operate.cluster.proposals import Proposals
from parties.wire.events import Delivery
from parties.wire.socket_wires import SocketWires
from parties.wire.transport import Endpoint
from parties.wire.wires import Transport


@dataclass(frozen=True)
class Seen:
    """What servers say; ``models`` and ``stock`` are None for who has not to sign."""

    succession: Succession
    proposals: tuple[Step, ...]
    models: tuple[SecretSeen, ...] | None
    stock: int | None
    unreached: tuple[PeerError, ...]

    @property
    def cluster(self) -> Cluster:
        """What is in force."""
        return self.succession.cluster


class Console:
    """From `consoling`."""

    def __init__(self, asker: Asker, reached: Iterable[str], unreached: Iterable[PeerError]) -> None:
        self._asker, self._reached = asker, tuple(reached)
        self._unreached = tuple(unreached)

    @property
    def me(self) -> Member:
        """Who talks."""
        return self._asker.me

    async def look(self) -> Seen:
        """What those in reach say.  Raises PeerError when none of them answers."""
        answers = await self._ask_all(lambda request: AskCluster(request=request))
        succession = self._asker.endpoint.newest
        proposals = Proposals(succession)
        models: set[SecretSeen] | None = None
        stock: int | None = None
        for server, delivery in answers.items():
            message = delivery.message
            if not isinstance(message, ClusterSeen) or len(delivery.buffers) > MAX_PROPOSALS:
                raise ProtocolViolation(server, "answered a question about cluster files with something else")
            for encoded in delivery.buffers:
                # One that has been overtaken meanwhile, or that is not right, is none.
                with contextlib.suppress(ConfigurationError):
                    proposals.take(Step.decode(encoded))
            if message.models is not None:
                models = (models or set()) | set(message.models)
            if message.stock is not None:
                stock = max(stock or 0, message.stock)
        found = None if models is None else tuple(sorted(models, key=lambda m: (m.owner, m.name, m.version)))
        return Seen(succession, proposals.steps, found, stock, self._unreached)

    async def send(self, step: Step) -> frozenset[str]:
        """A file with our signature, to all in reach; whose signatures are missing.  Raises TesseraError."""
        encoded = step.encode()
        answers = await self._ask_all(lambda request: ProposeFile(request=request), [encoded])
        missing: list[frozenset[str]] = []
        for server, delivery in answers.items():
            if not isinstance(delivery.message, FileProposed):
                raise ProtocolViolation(server, "answered a proposal with something else")
            missing.append(frozenset(delivery.message.missing))
        return frozenset.intersection(*missing)

    async def _ask_all(
        self, question: Callable[[str], RequestMessage], payload: Sequence[bytes] = ()
    ) -> dict[str, Delivery]:
        """The answers of those that give one.  Raises what the first has failed with when there is none."""
        asker = self._asker
        asked = (asker.ask(server, question, asker.patience, payload) for server in self._reached)
        found = await asyncio.gather(*asked, return_exceptions=True)
        answers = {s: answer for s, answer in zip(self._reached, found, strict=True) if isinstance(answer, Delivery)}
        if not answers:
            raise next(answer for answer in found if isinstance(answer, BaseException))
        return answers


@contextlib.asynccontextmanager
async def consoling(
    cluster: Cluster, keys: KeyPair, patience: float, transport: Transport = SocketWires
) -> AsyncIterator[Console]:
    """Somebody who is connected to at least one server, and goes by the newest file.

    Raises ConfigurationError for a key that the file does not list, PeerError when no server is reached.
    """
    known = Succession.begin(cluster)
    while True:
        cluster = known.cluster
        async with asking(cluster, keys, patience, operators=True, transport=transport, known=known) as asker:
            endpoint = asker.endpoint
            names = [s.name for s in cluster.servers if asker.me.role is not Role.OPERATOR or s.name == asker.me.name]
            tried = dict(zip(names, await asyncio.gather(*(_reach(endpoint, n, patience) for n in names)), strict=True))
            if endpoint.newest.cluster.fingerprint == endpoint.cluster.fingerprint:
                reached = [name for name, error in tried.items() if error is None]
                errors = [error for error in tried.values() if error is not None]
                if not reached:
                    raise errors[0]
                yield Console(asker, reached, errors)
                return
            # With other servers, or settings: it is begun anew.
            known = endpoint.newest


async def _reach(endpoint: Endpoint, server: str, patience: float) -> PeerError | None:
    try:
        await endpoint.connect([server], patience)
    except PeerError as error:
        return error
    return None
