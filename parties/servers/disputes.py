"""Three parties or more that have not all seen the same: who has told two of them different things.

Whoever notices says what each party has signed to it (`parties.messages.evidence.SeenSaid`), the others say the same
of what was signed to them, and all compare.  Nobody goes on with the run: it ends with the name of a party that has
signed two different things, or else, all having heard the same, of the one that says it has seen something else.
"""

from __future__ import annotations

from mpc.errors import ProtocolViolation, TesseraError
from parties.members.cluster import Member
from parties.messages.runs import Disputed
from parties.servers.party_job import PartyJob
from parties.servers.server import Server
from parties.wire.messages import Payload


class Disputes:
    """A party's part in them."""

    def __init__(self, server: Server[PartyJob]) -> None:
        self._server = server
        self._peers = [party for party in server.cluster.parties if party != server.member]
        server.on(Disputed, self._on_disputed)

    def begin(self, job: PartyJob) -> bool:
        """Say what has been heard; whether there is anything to compare: of two, each has heard the other alone."""
        if len(self._peers) < 2 or job.testimony is None or job.disputed:
            return False
        try:
            job.testimony.check_seen()
        except TesseraError as error:
            self._server.fail(job, error)
            return True
        job.disputed = True
        self._server.set_deadline(job)
        message = Disputed(run=job.run, joined=job.testimony.agreed, statements=job.testimony.seen)
        self._server.tell([peer.name for peer in self._peers], message)
        self._compare(job)
        return True

    def join(self, job: PartyJob) -> None:
        """Another one may have begun: say what was heard, once there is all of it."""
        begun = not all(message.joined for message in job.disputes.values())
        if begun and not job.disputed and job.testimony is not None and job.testimony.seen:
            self.begin(job)

    def _on_disputed(self, sender: Member, message: Disputed, _: Payload) -> None:
        job = self._server.jobs.get(message.run)
        if job is None or job.exchange is None or len(self._peers) < 2 or sender.name in job.disputes:
            raise ProtocolViolation(sender.name, "disputes a run in which there is nothing to dispute")
        job.disputes[sender.name] = message
        if job.disputed:
            self._compare(job)
        else:
            self.join(job)

    def _compare(self, job: PartyJob) -> None:
        """Once it shows who it was, the run is over."""
        error = self._culprit(job)
        if error is not None:
            self._server.fail(job, error)

    def _culprit(self, job: PartyJob) -> TesseraError | None:
        testimony = job.testimony
        if testimony is None:
            return None
        heard = [(peer, job.disputes[peer.name]) for peer in self._peers if peer.name in job.disputes]
        try:
            for peer, message in heard:
                testimony.compare_seen(peer, message)
        except TesseraError as error:
            return error
        return testimony.settle() if len(heard) == len(self._peers) else None
