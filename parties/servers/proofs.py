"""What a server says under its signature, and what it makes of evidence, its own and others'.

A word without evidence costs nobody but the run that it is about.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable

from mpc.errors import ConfigurationError, UsageError
from parties.members.cluster import Member
from parties.members.keys import KeyPair
from parties.messages.evidence import (
    PURPOSE,
    Evidence,
    FailedCheck,
    ItemSaid,
    OtherItem,
    RunSubject,
    Said,
    Statement,
    Verdict,
    failed_run,
    session_failed,
    signed_bytes,
    verify,
)
from parties.messages.runs import Dealt
from parties.messages.stock import Agreed
from parties.operate import evidence as kept
from parties.operate.audit import facts
from parties.operate.audit.desk import AuditDesk
from parties.operate.site import Site

log = logging.getLogger(__name__)


class Proofs:
    """One server's.  ``proven`` is called with evidence that holds."""

    def __init__(
        self,
        server: Site,
        keys: KeyPair,
        folder: str | os.PathLike[str],
        audit: AuditDesk,
        proven: Callable[[Evidence], None],
    ) -> None:
        self._server, self._keys, self._folder = server, keys, folder
        self._audit, self._proven = audit, proven
        # One file after the other: several tell of one thing at once.
        self._writing = asyncio.Lock()

    # -- what is signed --------------------------------------------------------------------------------------------

    def sign(self, said: Said) -> bytes:
        """This server's signature of what it says."""
        return self._keys.sign(PURPOSE, signed_bytes(said))

    def subject_of(self, message: Dealt | Agreed) -> RunSubject:
        """The run that a message is about, with its item."""
        return RunSubject(
            cluster=self._server.cluster.terms,
            run=message.run,
            program=message.program,
            bindings=message.bindings,
            session=message.session,
            number=message.number,
        )

    def item_signature(self, message: Dealt | Agreed) -> bytes:
        """That the run is to use its item, or uses it."""
        return self.sign(ItemSaid(self.subject_of(message)))

    def other_item(self, dealt: Dealt, party: Member, agreed: Agreed) -> OtherItem:
        """Evidence, if both have signed, that the party uses another item than it was assigned."""
        return OtherItem(
            Statement(self._server.cluster.dealer.name, ItemSaid(self.subject_of(dealt)), dealt.signature),
            Statement(party.name, ItemSaid(self.subject_of(agreed)), agreed.signature),
        )

    # -- what is proven --------------------------------------------------------------------------------------------

    def take(self, evidence: Evidence | None, source: Member) -> bool:
        """Whatever it proves is kept, and has consequences; whether it does.  ``source``: whose word it came with."""
        if evidence is None:
            return False
        try:
            verdict = verify(evidence, self._server.cluster)
        except UsageError as error:
            log.warning("%s accuses: %s", source.name, error)
            return False
        self._server.spawn(self._keep(evidence, verdict, source))
        self._proven(evidence)
        return True

    def of_session(self, session: str) -> FailedCheck | None:
        """What is kept of a check that has failed in a run with an item of that session.  Blocks."""
        with contextlib.suppress(ConfigurationError, OSError):
            for _, evidence in kept.found(self._folder):
                if isinstance(evidence, FailedCheck) and session_failed(evidence) == session:
                    return evidence
        return None

    async def _keep(self, evidence: Evidence, verdict: Verdict, source: Member) -> None:
        try:
            async with self._writing:
                piece = await asyncio.to_thread(kept.keep, self._folder, evidence, verdict)
        except OSError as error:
            log.warning("evidence cannot be written (%s), that %s", error.strerror, verdict.sentence)
            return
        if piece is not None:
            log.warning("%s: evidence is kept in %s", verdict.sentence, piece.path)
            self._audit.record(_fact(evidence, verdict, piece.digest, source))


def _fact(evidence: Evidence, verdict: Verdict, digest: str, source: Member) -> facts.Fact:
    of = failed_run(evidence.sigmas) if isinstance(evidence, FailedCheck) else None
    if of is None:
        return facts.Evidence(verdict.culprit, verdict.what, digest, verdict.run)
    destroyed = f"what was left of session {of.session}" if of.session else ""
    return facts.CheckFailed(of.run, source.name, destroyed)
