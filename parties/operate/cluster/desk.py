"""A server's part in agreeing on another cluster file.

Whoever has to sign sends a file with its signature to a server: to its own, if it is one (over the link that a server
has with its operator), or, as a client, to all.  Servers tell each other what they have of it, and the first that has
all signatures records the file and goes on to it; links tell the others, who check the signatures by themselves.  So
nobody decides but the signers, and no server has to be there for another to go on.

*Going on.*  If the servers are the same and run by the same settings, the server goes on as it is: whoever stays is
not disturbed, whoever went or has another key loses runs, uploads and links (`parties.servers.succeeding`).
Otherwise it ends its runs and begins anew, in the same process, with the file that it has recorded.  A server that is
no member any more, or has another key there, stops with a sentence that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from mpc.errors import (
    ConfigurationError,
    NotPermitted,
    PeerError,
    ProtocolViolation,
    TesseraError,
    VersionMismatch,
)
from parties.members.cluster import Member, Role
from parties.members.succession import MAX_TEXT, Step, Succession, is_smooth
from parties.messages.cluster import AskCluster, ClusterSeen, FileProposed, ProposeFile, Signatures
from parties.messages.conversation import RequestFailed, RequestMessage
from parties.messages.failures import fault_of
from parties.messages.uploads import MAX_SECRETS
from parties.operate.cluster.proposals import Proposals
from parties.operate.cluster.record import ClusterRecord
from parties.operate.site import Site, Successive
from parties.stored.vault import VaultError
from parties.wire.messages import Payload

log = logging.getLogger(__name__)

MAX_STEP_BYTES = 2 * MAX_TEXT


class ClusterDesk:
    """Registers its handlers at ``server`` when it is made; ``work`` keeps telling the others."""

    def __init__(self, server: Site, record: ClusterRecord, succeeding: Successive) -> None:
        self._server, self._record, self._succeeding = server, record, succeeding
        self._proposals = Proposals(record.succession)
        server.endpoint.succession = record.succession
        server.endpoint.on_newer = self.go_on
        server.on(AskCluster, lambda asker, message, _: server.spawn(self._answer(asker, message)))
        server.on(ProposeFile, lambda signer, message, payload: server.spawn(self._propose(signer, message, payload)))
        server.on(Signatures, lambda _, __, payload: server.spawn(self._hear(payload)))

    async def work(self) -> None:
        """For ever.  Raises VaultError when the record cannot be written."""
        self._record.keep(self._record.succession)
        for step in self._record.proposed:
            self._take(step)
        while True:
            self._go_on_if_signed()
            # Again and again: one of them may have been away.
            self._tell_others()
            await asyncio.sleep(self._server.cluster.settings.peer_timeout)

    # -- what is proposed ------------------------------------------------------------------------------------------

    async def _propose(self, signer: Member, message: ProposeFile, payload: Payload) -> None:
        try:
            if all(signer.name != other.name for other in self._server.cluster.signers):
                raise NotPermitted(f"{signer.name} has not to sign cluster files: the settings name others")
            if len(payload) != 1:
                raise ProtocolViolation(signer.name, "proposed no cluster file, or several")
            step = await self._read(payload[0])
            if signer.name not in step.signatures:
                raise ProtocolViolation(signer.name, "proposed a cluster file without signing it")
            if self._take(step):
                self._tell_others()
            missing = frozenset() if self._is_past(step) else self._proposals.missing(step)
        except TesseraError as error:
            self._refuse(signer, message, error)
            return
        self._server.tell([signer.name], FileProposed(request=message.request, missing=tuple(sorted(missing))))
        self._go_on_if_signed()

    async def _hear(self, payload: Payload) -> None:
        news = False
        for encoded in payload:
            try:
                news |= self._take(await self._read(encoded))
            except ConfigurationError as error:
                # Of a file that has been overtaken, perhaps.
                log.debug("a proposed cluster file is passed over: %s", error)
        if news:
            self._tell_others()
            self._go_on_if_signed()

    async def _read(self, encoded: memoryview) -> Step:
        """Raises ConfigurationError."""
        if len(encoded) > MAX_STEP_BYTES:
            raise ConfigurationError(f"a cluster file of more than {MAX_TEXT} characters")
        step = Step.decode(encoded)
        # In a thread: it may be long, and is not the last that is made of it here.
        await asyncio.to_thread(step.cluster)
        return step

    def _take(self, step: Step) -> bool:
        """Whether there was anything new.  Raises ConfigurationError, VaultError."""
        news = not self._is_past(step) and self._proposals.take(step)
        if news:
            self._record.propose(self._proposals.steps)
        return news

    def _is_past(self, step: Step) -> bool:
        """In force, or followed by others already."""
        return self._record.succession.knows(step.cluster().fingerprint)

    def _tell_others(self) -> None:
        for other in self._server.cluster.servers if self._proposals.steps else ():
            if other != self._server.member:
                self._server.spawn(self._tell(other.name))

    async def _tell(self, other: str) -> None:
        """Once it is there: we may have started this moment."""
        with contextlib.suppress(PeerError):
            await self._server.endpoint.connect([other], self._server.cluster.settings.peer_timeout)
            self._server.tell([other], Signatures(), [step.encode() for step in self._proposals.steps])

    def _refuse(self, asker: Member, message: RequestMessage, error: TesseraError) -> None:
        log.warning("%s of %s refused: %s", type(message).__name__, asker.name, error)
        self._server.tell([asker.name], RequestFailed(request=message.request, fault=fault_of(error)))

    # -- what there is ---------------------------------------------------------------------------------------------

    async def _answer(self, asker: Member, message: AskCluster) -> None:
        models = stock = None
        if asker.role is Role.OPERATOR or asker in self._server.cluster.signers:
            models = tuple(self._server.versions_here())[:MAX_SECRETS]
            try:
                stock = sum((await asyncio.to_thread(self._server.fresh_stock)).values())
            except VaultError as error:
                log.warning("%s", error)
        seen = ClusterSeen(request=message.request, models=models, stock=stock)
        self._server.tell([asker.name], seen, [step.encode() for step in self._proposals.steps])

    # -- going on --------------------------------------------------------------------------------------------------

    def _go_on_if_signed(self) -> None:
        step = self._proposals.complete()
        if step is not None:
            self.go_on(self._record.succession.followed_by([step]))

    def go_on(self, succession: Succession) -> None:
        """Goes by a succession file from now on; raises VersionMismatch if it cannot, or has to begin anew for
        that."""
        former, new = self._server.cluster, succession.cluster
        member = self._server.member
        anew = VersionMismatch(member.name, f"begins anew with cluster file {new.number}")
        if new.number <= self._record.succession.cluster.number:
            raise anew
        try:
            self._record.keep(succession)
            self._record.propose(())
        except VaultError as error:
            log.error("cannot go on to cluster file %d: %s", new.number, error)
            raise VersionMismatch(member.name, f"cannot record cluster file {new.number}") from None
        self._proposals = Proposals(succession)
        log.warning("cluster file %d is in force", new.number)
        if is_smooth(former, new) and member == next((m for m in new.servers if m.name == member.name), None):
            self._succeeding.go_on(succession)
        else:
            self._succeeding.begin_anew(succession)
            raise anew
