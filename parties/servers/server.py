"""What the dealer's and a party's process have in common: a loop over events, and runs that may fail one by one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping

from mpc.errors import (
    PeerError,
    PeerLost,
    PeerUnavailable,
    ProtocolViolation,
    TesseraError,
)
from parties.host import logs
from parties.host.counters import Metrics
from parties.host.log_quota import caused_by
from parties.members.cluster import Member
from parties.messages.check import RoomSeen
from parties.messages.conversation import RequestMessage
from parties.messages.evidence import Evidence, session_failed
from parties.messages.failures import fault_of
from parties.messages.runs import Failed, Prepare, RunMessage
from parties.messages.status import SecretSeen, WorkersSeen
from parties.operate.audit.desk import AuditDesk
from parties.operate.cluster.desk import ClusterDesk
from parties.operate.status.look import Look
from parties.servers.governor import Governor
from parties.servers.host import Host
from parties.servers.proofs import Proofs
from parties.servers.runs import JobT, Runs
from parties.servers.succeeding import Succeeding
from parties.wire.events import ClusterChanged, Delivery, Event, PeerDown, PeerRestarted
from parties.wire.messages import Message
from parties.wire.transport import Endpoint
from protocols.randomness.source import RandomnessSource

log = logging.getLogger(__name__)

LAST_WORDS = 1.0
"""s that a server which stops waits for each peer to have read what it was told."""


class Server(Runs[JobT]):
    """Base of ``DealerServer`` and ``PartyServer``: its life, and whatever happens to it.

    A handler is registered with ``on`` for a message class; it may raise a TesseraError, which fails the run the
    message belongs to and nothing else.  One that comes from a client fails nothing of another client's.
    """

    def __init__(self, host: Host[RandomnessSource], make_job: Callable[[str, str], JobT], places: int = 1) -> None:
        """``places``: machines that it computes on."""
        self.cluster, self.member = cluster, member = host.cluster, host.member
        super().__init__(Governor(cluster, member, places), make_job)
        self.endpoint = Endpoint(cluster, member, host.keys, bind=True, transport=host.transport)
        self.listening = asyncio.Event()
        self.metrics = Metrics()
        self.look = Look(self)
        self.audit = AuditDesk(self, host.keys, host.folder)
        self.succeeding = Succeeding(self)
        self._cluster_desk = ClusterDesk(self, host.record, self.succeeding)
        self.proofs = Proofs(self, host.keys, host.folder, self.audit, self.proven)
        self._leaving = self._over = False

    # -- life ------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Serve until cancelled, or until ``succeeding`` has a successor; runs end with it.

        Raises ConfigurationError when the address cannot be bound.
        """
        async with self.endpoint, self.audit:
            self.spawn(self._cluster_desk.work())
            self.listening.set()
            log.info("%s listens at %s", self.member.name, self.member.listen or self.member.address)
            try:
                while not self._over:
                    self._handle(await self.endpoint.receive())
            finally:
                await self.end_tasks()
                for job in list(self.jobs.values()):
                    # One that is ready has no deadline, and nobody is left to hear that its client has gone.
                    self.end(job, Failed(run=job.run, fault=fault_of(PeerLost(self.member.name, "was stopped"))))
                self.governor.close()

    async def leave(self, grace: float) -> None:
        """Take no new runs or uploads, let runs in progress end for up to ``grace`` s, and fail what is left of them.

        Returns once every peer in reach has read what it was told; ``serve`` may be cancelled then.
        """
        self._leaving = True
        log.info("%s stops: %d runs in progress", self.member.name, len(self.jobs))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self.jobs:
                    self._emptied.clear()
                    await self._emptied.wait()
        for job in list(self.jobs.values()):
            self.fail(job, PeerLost(self.member.name, f"was stopped, and the run was not over within {grace:g} s"))
        # Of our own name is whoever operates us: the answer to the last signature is on its way there.
        peers = [member.name for member in self.cluster.members if self.endpoint.connected(member.name)]
        await asyncio.gather(*map(self._heard_out, peers))

    async def _heard_out(self, peer: str) -> None:
        """Closing drops what is still queued; whoever answers a ping has read everything before it."""
        with contextlib.suppress(PeerError):
            await self.endpoint.ping(peer, LAST_WORDS)

    def check_staying(self) -> None:
        """Whether anything may be begun.

        Raises PeerUnavailable, naming this server, when it stops: what is begun now would not be ended; DiskFull
        or ServerBusy when it cannot say in its audit log what it does.
        """
        self.audit.check()
        if self._leaving:
            raise PeerUnavailable(
                self.member.name, "is being stopped, and begins nothing new: try again when it is back"
            )

    def _handle(self, event: Event) -> None:
        if isinstance(event, ClusterChanged):
            self._over = True
            return
        sender = event.peer if isinstance(event, PeerDown) else event.sender
        with caused_by(sender.name):
            if isinstance(event, Delivery):
                self._deliver(event)
            elif isinstance(event, PeerRestarted):
                self._fail_all(sender, PeerLost(sender.name, "restarted in the middle of a run"))
            else:
                self._fail_all(sender, event.error)

    def _deliver(self, delivery: Delivery) -> None:
        sender, message = delivery.sender, delivery.message
        if sender.key in self.succeeding.gone:
            # It was there when a newer cluster file came into force.
            log.info("%s of %s, who is no member any more, or has another key", type(message).__name__, sender.name)
            return
        if isinstance(message, RunMessage) and message.run not in self.jobs and not isinstance(message, Prepare):
            self.endpoint.in_vain(sender.name)
        with self._about(sender, message):
            if isinstance(message, RunMessage) and message.run in self._ended:
                self._late(sender, message, self._ended[message.run])
            else:
                self.take(delivery)

    def _about(self, sender: Member, message: Message) -> contextlib.AbstractContextManager[None]:
        """What is logged of the message is about its run, and that run's client."""
        run = message.run if isinstance(message, RunMessage) else ""
        job = self.jobs.get(run)
        client = sender if job is None or job.client is None else job.client
        self.governor.pace.heard(client.name)
        return logs.about(run, "" if client.is_server else client.name)

    def _late(self, sender: Member, message: RunMessage, failure: Failed | None) -> None:
        """A message of a run that is over here."""
        if isinstance(message, Prepare):
            repeated = ProtocolViolation(sender.name, "asked for a run whose id has been used")
            self.tell([sender.name], failure or Failed(run=message.run, fault=fault_of(repeated)))
        elif isinstance(message, Failed) and sender.is_server:
            # Its check may have failed after ours had passed.
            self.proofs.take(message.evidence, sender)

    def refuse(self, sender: Member, message: Message, error: TesseraError) -> None:
        """Fail the run that the message belongs to, if the sender has a part in it."""
        job = self.jobs.get(message.run) if isinstance(message, RunMessage) else None
        if job is not None and self._takes_part(job, sender):
            self.fail(job, error)
            return
        if isinstance(message, RequestMessage):
            self.refuse_request(sender, message, error)
            return
        log.warning("%s of %s refused: %s", type(message).__name__, sender.name, error)
        self.audit.refused(sender.name, type(message).__name__, type(error).__name__)
        if isinstance(message, RunMessage):
            self.tell([sender.name], Failed(run=message.run, fault=fault_of(error)))

    def refuse_request(self, sender: Member, message: RequestMessage, error: TesseraError) -> None:
        super().refuse_request(sender, message, error)
        self.audit.refused(sender.name, type(message).__name__, type(error).__name__)

    # -- what there is ---------------------------------------------------------------------------------------------

    def fresh_stock(self) -> Mapping[str, int]:
        """Items of preprocessing that are fresh here, by program.  Blocks.  Raises VaultError."""
        return {}

    @property
    def workers(self) -> WorkersSeen | None:
        """That it computes on, if it does on such."""
        return None

    @property
    def versions_held(self) -> int:
        """How many models, of all owners."""
        return 0

    def versions_here(self) -> Iterable[SecretSeen]:
        """All that are in use."""
        return ()

    def room_for(self, client: Member) -> RoomSeen:
        """What may be stored and run for that client."""
        return RoomSeen((), self.governor.admission.largest)

    def versions_seen_by(self, client: Member) -> Iterable[SecretSeen]:
        """Those in use that the client may know of."""
        return ()

    @property
    def work_waiting(self) -> int:
        """Pieces of work that wait for their client's turn."""
        return self.governor.waiting

    # -- who has cheated -------------------------------------------------------------------------------------------

    def proven(self, evidence: Evidence) -> None:
        """Somebody has not kept to the protocol, and that is certain."""
        if session := session_failed(evidence):
            self.cheated(session)

    def cheated(self, session: str) -> None:
        """A check has failed in a run with an item of that session: nothing of it is to be used any more."""
