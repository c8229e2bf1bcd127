"""A party's side of training jobs: runs that the coordinator begins in a client's name, as far as its order goes.

Whatever the coordinator says, this party runs no program that the client has not signed for, on no other versions and
by no other rules, not twice, and not more often; and each run passes all that a run of the client's own has to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mpc.errors import ProgramError, ProtocolViolation
from parties.members.cluster import Member
from parties.messages.bindings import BoundProgram
from parties.messages.jobs import MOST_REVEALED, GoOn, JobOrder, Result, RunJob, job_of, read_order, run_of
from parties.messages.requests import signed_in
from parties.messages.runs import Outputs, Prepare
from parties.servers.jobs_desk import JobsDesk
from parties.servers.party_job import PartyJob
from parties.stored.policy import LookUp
from parties.stored.stored_version import StoredVersion
from parties.stored.version_database import VersionDatabase
from parties.wire.messages import Buffer, Payload, as_bytes

if TYPE_CHECKING:
    from parties.servers.party import PartyServer


class PartyJobs(JobsDesk):
    """Handles the messages of runs of jobs, as far as they are others than those of a client's."""

    def __init__(self, server: PartyServer, database: VersionDatabase, look_up: LookUp[StoredVersion]) -> None:
        super().__init__(server, database, look_up)
        self._party = server
        server.on(RunJob, self._on_run)
        server.on(GoOn, self._on_go_on)

    def _on_run(self, dealer: Member, message: RunJob, payload: Payload) -> None:
        if len(payload) != 2:
            raise ProtocolViolation(dealer.name, "sent a run of a job without its order and its program")
        signed = signed_in(payload[0])
        cluster = self._server.cluster
        order = JobOrder.read(signed, cluster)
        client = cluster.client(order.client)
        job, number = job_of(signed), message.number
        if client is None or message.run != run_of(job, message.serial):
            raise ProtocolViolation(dealer.name, "sent a run of a job under another name than it has")
        read_order(signed, cluster, client.name)
        if number >= order.checkpoints or (number and message.parent >= message.serial):
            raise ProtocolViolation(dealer.name, "sent a run that a job does not have")
        bindings = order.bindings(job, number, message.parent)
        prepare = Prepare(run=message.run, bindings=bindings, keep=order.name, soon=True)

        def begin() -> None:
            held = self.book.add(signed, order)
            self.book.begin(held, message.serial)

        def check(bound: BoundProgram) -> None:
            check_run(bound, order, number)
            found = self._look_up(order.slot)
            if found is None or found.policy.descent.parts != order.first + number:
                raise ProgramError(f"what lies under {order.name!r} is not at checkpoint {number} of the job")

        self._party.begin(client, prepare, payload[1], job, begin, check)

    def _on_go_on(self, dealer: Member, message: GoOn, _: Payload) -> None:
        job = self._server.jobs.get(message.run)
        if job is None or not job.training:
            raise ProtocolViolation(dealer.name, "goes on with a run that is not of a job")
        self._party.online.begin(job, dealer)

    def note(self, job: PartyJob, report: Outputs, outputs: Sequence[Buffer]) -> None:
        """What the run reveals to its client, for when it comes.  Blocks.  Raises VaultError."""
        payload = tuple(bytes(as_bytes(output)) for output in outputs)
        encoded = msgspec.msgpack.encode(Result(msgspec.msgpack.encode(report), payload, job.assigned.masks))
        self.book.tables.write_result(job.training, job.run, encoded)


def check_run(bound: BoundProgram, order: JobOrder, number: int) -> None:
    """The program is the one that is ordered, and needs nobody.  Raises ProgramError."""
    program = bound.program
    if program.digest != order.planned(number).program:
        raise ProgramError("a job's client has signed for another program")
    if program.supplied:
        raise ProgramError("a run of a job has no inputs: there may be nobody to send them")
    results = [program.nodes[i] for i in program.results]
    if len(program.outputs) != len(order.reveals) or sum(node.type.size for node in results) > MOST_REVEALED:
        raise ProgramError("a job reveals something else than it says, or too much")
