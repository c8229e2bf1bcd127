"""Where a server has its work done: an `Engine`, in this process or on workers.  Here a party's, whose work is runs; a
dealer's is `parties.servers.dealing`.

Whichever it is, the head has decided before that the run may be, has read what it reads by the rules of that moment,
and has marked its preprocessing used: what an engine is given has no other use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from mpc.cost import first_of_check
from mpc.errors import ProgramError, ProtocolViolation
from mpc.program import Program
from mpc.rings import Array, Rings
from mpc.rings.prg import Seed
from mpc.schedule import Schedule
from mpc.security import Security
from parties.members.cluster import Cluster, Member
from parties.messages.bindings import BoundProgram
from parties.messages.evidence import RunSubject, Said
from parties.messages.runs import Source
from parties.messages.status import WorkersSeen
from parties.messages.workers import Place
from parties.servers.testimony import Testimony
from parties.stored.stored_version import ReadForRun
from protocols.randomness.source import Payload, RandomnessSource
from protocols.readings.party import PartyRun

TaskT = TypeVar("TaskT", contravariant=True)
MadeT = TypeVar("MadeT", covariant=True)


@dataclass(frozen=True, repr=False)
class Task:
    """A run to be prepared.  ``author``: whose inputs it takes; None where there are none."""

    of: RunSubject
    bound: BoundProgram
    client: str
    author: Member | None
    read: ReadForRun
    dealt: Payload
    size: int
    """Bytes of memory that it takes."""
    seconds: float
    """That preparing it takes, about."""
    place: Place | None = None
    """Where what was dealt beside the seed lies with a worker, if it was dealt ahead of time."""
    source: Source | None = None
    """Where what was dealt beside the seed is to be collected, if a worker computes the run."""


class PreparedRun(Protocol):
    """A run that is prepared, up to a part, wherever it will be computed (`protocols.readings.party.PartyRun`)."""

    program: Program
    schedule: Schedule
    prepared: int
    evaluated: int

    @property
    def seconds(self) -> Mapping[str, float]: ...
    @property
    def provided(self) -> bool: ...
    @property
    def kept(self) -> tuple[Seed, dict[str, Array]]: ...
    def prepare(self, payload: Payload) -> None: ...


class Made(NamedTuple):
    """``here``: to be computed in this process; else the run is on a worker."""

    run: PreparedRun
    here: tuple[PartyRun, Testimony] | None = None


class Engine(ABC, Generic[TaskT, MadeT]):
    """Of one server."""

    async def open(self) -> None:
        """To be called in the event loop, before anything else."""

    def close(self) -> None:
        """What is not over comes to nothing.  Idempotent."""

    def follow(self, cluster: Cluster) -> None:
        """The members are these now."""

    def sweep(self) -> None:
        """Versions may not be in use any more."""

    @abstractmethod
    def make(self, task: TaskT) -> MadeT:
        """It, up to its first part.  Blocks: in a thread.  Raises TesseraError."""

    def forget(self, run: str) -> None:
        """It is over."""

    def seen(self) -> WorkersSeen | None:
        """Its workers, if it has such."""
        return None


class LocalEngine(Engine[Task, Made]):
    """Computes in this process."""

    def __init__(
        self,
        cluster: Cluster,
        me: Member,
        source: RandomnessSource,
        sign: Callable[[Said], bytes],
    ) -> None:
        self._cluster, self._me, self._source, self._sign = cluster, me, source, sign

    def follow(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def _rings(self) -> Rings:
        return self._source.rings

    def make(self, task: Task) -> Made:
        run, testimony = first_part(
            self._cluster, self._me, self._source, self._sign, task.bound.program, task.of, task.author, task.read,
            task.dealt,
        )  # fmt: skip
        return Made(run, (run, testimony))


def first_part(
    cluster: Cluster,
    me: Member,
    source: RandomnessSource,
    sign: Callable[[Said], bytes],
    program: Program,
    of: RunSubject,
    author: Member | None,
    read: ReadForRun,
    dealt: Payload,
) -> tuple[PartyRun, Testimony]:
    """A run up to its first part, in whichever process computes it.  Raises ProtocolViolation, ProgramError."""
    security, parties = cluster.settings.security, len(cluster.parties)
    try:
        randomness = source.for_party(program, security, party=me.index, parties=parties, payload=dealt)
    except ProgramError as error:
        raise ProtocolViolation(cluster.dealer.name, f"sent the wrong randomness: {error}") from None
    run = PartyRun(
        program,
        party=me.index,
        parties=parties,
        randomness=randomness,
        stored=read.tensors,
        security=security,
        session=of.name(),
        rings=source.rings,
        order=read.order,
    )
    check = first_of_check(program) if security is Security.MALICIOUS else None
    return run, Testimony(cluster, me, sign, author, of, read.parts, check)
