"""Training jobs: what a client orders under its signature, and the messages by which it is begun, followed and stopped.

client --StartJob--> dealer; it --JobStarted--> client              from now on the client may go
client --ListJobs--> dealer; it --JobList--> client                 its own, and those that read what it owns
client --FollowJob--> dealer; it --JobNews--> client                once something has become of it
client --FetchJob--> dealer; it --JobFound--> client                the order, and its programs
client --FetchResults--> servers; each --ResultsFound--> client     what was revealed to it meanwhile
client --StopJob--> servers; each --JobStopped--> client
server --RequestFailed--> client                                    it may not, or there is none

dealer --RunJob--> parties                                          a run of it: instead of the client's ``Prepare``
party  --Ready--> dealer
dealer --GoOn--> parties                                            instead of the client's ``Inputs``: there are none

What an order names is all that is done in its name.  Each party reads it for itself, with every run: who has signed it,
which program it is, on which versions and by which rules, which run of the job it is, and how many there may be.  The
dealer says when a run begins, and nothing else: a run is called as the order and its number say (`run_of`), so what a
run has kept is seen to be the job's by its name, and none is begun twice.
"""

from __future__ import annotations

import hashlib
import time
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec

from mpc.decoders import from_msgpack
from mpc.errors import ProgramError, RunExpired
from parties.members.cluster import Cluster, Role
from parties.messages.bindings import OWNER, Binding, Bindings, Leave, slot_of
from parties.messages.conversation import WRITTEN, RequestMessage
from parties.messages.failures import Fault
from parties.messages.fields import FROM_CLIENT, FROM_DEALER, Count, Digest, Id, Name, Seconds
from parties.messages.requests import CLOCKS, MAX_STATEMENT_BYTES, Signed, Statement, When
from parties.messages.runs import RunMessage
from parties.wire.messages import SERVERS

MOST_CHECKPOINTS = 100_000
MOST_REVEALED = 4096
"""Numbers that a run of a job reveals: servers keep them until its client comes for them."""
MOST_AT_ONCE = 64
"""Checkpoints that are asked about at once."""
LONGEST = 90 * 86_400.0
"""s that an order holds."""


class Revealed(StrEnum):
    """What a result of each run says."""

    LOSS = "loss"
    """The mean of the losses of its steps."""
    CLASSES = "classes"
    """Of rows to validate, of each class, how many are found and how many there are."""


class State(StrEnum):
    """What has become of a job."""

    GOING = "going"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


class Planned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A program, and what is bound to its slots; to the network's, what there is when the job begins.

    ``others``: by which rules those allow it to whom the network belongs once a run of the job has kept it.
    """

    program: Digest
    bindings: Bindings
    others: Annotated[tuple[Leave, ...], msgspec.Meta(max_length=1000)] = ()


class JobOrder(Statement, frozen=True):
    """``client`` has ``checkpoints`` runs made, each from what the one before has kept as ``name``.

    ``runs``: the program of each, or one for all.  The first reads the version ``start``, for which ``first`` parts of
    the data have been drawn.  ``most`` runs may be begun in all, those that fail included, and none after ``until``.
    ``steps`` and ``epoch`` are those of a run, for who looks on.
    """

    purpose: ClassVar[str] = "training job"
    client: Name
    name: Name
    start: Id
    first: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
    checkpoints: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHECKPOINTS)]
    runs: Annotated[tuple[Planned, ...], msgspec.Meta(min_length=1, max_length=MOST_CHECKPOINTS)]
    most: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
    reveals: Annotated[tuple[Revealed, ...], msgspec.Meta(max_length=8)]
    steps: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
    epoch: Annotated[float, msgspec.Meta(gt=0, le=1e9)]
    when: When
    until: When

    @property
    def author(self) -> str:
        return self.client

    @property
    def slot(self) -> str:
        """Where the network lies."""
        return slot_of(self.client, self.name)

    @property
    def programs(self) -> tuple[str, ...]:
        """Their digests, each once, in the order in which they are run."""
        return tuple(dict.fromkeys(planned.program for planned in self.runs))

    @property
    def slots(self) -> frozenset[str]:
        """All that it reads."""
        return frozenset(binding.slot for planned in self.runs for binding in planned.bindings)

    def check(self, author: str) -> None:
        """It is that client's, makes sense, and holds now.  Raises ProgramError, RunExpired."""
        if self.client != author:
            raise ProgramError("this job is somebody else's")
        if len(self.runs) not in (1, self.checkpoints):
            raise ProgramError("a job has one program for all of its runs, or one for each")
        for planned in self.runs:
            own = [(b.version, b.rule) for b in planned.bindings if b.slot == self.slot]
            if own != [(self.start, OWNER)]:
                raise ProgramError("each run of a job reads the network that the one before has kept")
        now = time.time()
        if self.when > now + CLOCKS or self.until - self.when > LONGEST:
            raise ProgramError("this job begins later than today, or holds for too long")
        if self.until < now:
            raise RunExpired("the job's time is over: start another, which goes on with what there is")

    def planned(self, number: int) -> Planned:
        """Of the run to that checkpoint, from 0."""
        return self.runs[min(number, len(self.runs) - 1)]

    def bindings(self, job: str, number: int, parent: int) -> tuple[Binding, ...]:
        """Of that run, from what the run of the serial number ``parent`` has kept, if it is not the first."""
        planned = self.planned(number)
        if not number:
            return planned.bindings
        now = Binding(self.slot, run_of(job, parent), OWNER, planned.others)
        return tuple(now if b.slot == self.slot else b for b in planned.bindings)


def read_order(signed: Signed, cluster: Cluster, author: str) -> JobOrder:
    """What that client orders, if it holds now.  Raises ProgramError, RunExpired."""
    order = JobOrder.read(signed, cluster)
    order.check(author)
    return order


def job_of(signed: Signed) -> str:
    """What a job is called: nobody can make another of that name."""
    return hashlib.sha256(b"tessera job\n" + signed.said).hexdigest()[:32]


def run_of(job: str, serial: int) -> str:
    """What its runs are called, which are counted from 0, those that fail included; and what they keep."""
    return hashlib.sha256(f"tessera run of a job\n{job}\n{serial}".encode()).hexdigest()[:32]


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a run of a job has kept is in use."""

    serial: Count
    """The run's number."""
    when: When
    offline: Seconds
    online: Seconds
    """How long it took, by the dealer's clock; 0 where that was started again meanwhile."""


class JobSeen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job, as the dealer tells of it."""

    order: Signed
    state: State
    begun: Count
    """Runs, those that have failed included."""
    done: Count
    """Checkpoints."""
    fault: Fault | None = None
    """Why it has failed; or, while it goes on, why the last run has."""
    waits_for: Annotated[tuple[Name, ...], msgspec.Meta(max_length=1000)] = ()
    """Servers that cannot be reached."""
    made: Annotated[tuple[Checkpoint, ...], msgspec.Meta(max_length=MOST_AT_ONCE)] = ()
    """Of its checkpoints, those that were asked about."""


def seen_in(buffer: memoryview) -> JobSeen:
    """Of a payload frame.  Raises ProgramError."""
    if len(buffer) > 2 * MAX_STATEMENT_BYTES:
        raise ProgramError("a job beyond measure")
    found: JobSeen = from_msgpack(buffer, JobSeen, "this is no job")
    return found


# -- requests ----------------------------------------------------------------------------------------------------------


class StartJob(RequestMessage, frozen=True):
    """Payload: the signed `JobOrder`, and its programs in order."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    weight: ClassVar[int] = WRITTEN


class JobStarted(RequestMessage, frozen=True):
    """Kept, durably: it goes on whoever goes or comes."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    job: Id


class ListJobs(RequestMessage, frozen=True):
    """Which jobs are there of mine, or on what I own?"""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT


class JobList(RequestMessage, frozen=True):
    """Payload: a `JobSeen` each, without checkpoints; the newest first."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER


class FollowJob(RequestMessage, frozen=True):
    """What becomes of a job, of which the sender knows so many checkpoints: answered once there is another, or all is
    over, or in some seconds.  ``news``: or something has become of it."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    job: Id
    known: Count
    at_once: bool = False


class JobNews(RequestMessage, frozen=True):
    """Payload: a `JobSeen`, with checkpoints after those that are known."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER


class FetchJob(RequestMessage, frozen=True):
    """The programs of a job of the sender's."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    job: Id


class JobFound(RequestMessage, frozen=True):
    """Payload: its programs, in order."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER


class FetchResults(RequestMessage, frozen=True):
    """What was revealed to the sender in these runs of its job."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    job: Id
    runs: Annotated[tuple[Id, ...], msgspec.Meta(min_length=1, max_length=MOST_AT_ONCE)]


class ResultsFound(RequestMessage, frozen=True):
    """Payload: a `Result` for each of the runs; empty where there is none."""

    senders: ClassVar[frozenset[Role]] = SERVERS


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """What a server would have sent the client of a run: the header (``ClientMasks`` or ``Outputs``), and its payload.

    ``masks``: by a party, with MACs, the digest of those that it was told of.
    """

    header: bytes
    payload: tuple[bytes, ...]
    masks: str = ""


class StopJob(RequestMessage, frozen=True):
    """The sender's job is not to go on, and a run of it ends; what it has kept stays."""

    senders: ClassVar[frozenset[Role]] = FROM_CLIENT
    weight: ClassVar[int] = WRITTEN
    job: Id


class JobStopped(RequestMessage, frozen=True):
    """Done, durably; ``found`` says whether there was one."""

    senders: ClassVar[frozenset[Role]] = SERVERS
    found: bool


# -- runs --------------------------------------------------------------------------------------------------------------


class RunJob(RunMessage, frozen=True):
    """Get ready for the run to checkpoint ``number`` of a job, from what the run ``parent`` of it has kept.

    ``serial``: which of its runs it is.  Payload: the signed `JobOrder`, and the program.
    """

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
    serial: Count
    number: Count
    parent: Count


class GoOn(RunMessage, frozen=True):
    """All are ready."""

    senders: ClassVar[frozenset[Role]] = FROM_DEALER
