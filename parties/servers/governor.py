"""One account for each member: whatever it asks of a server is charged to it before it is done.

A request is bytes that are held, a program that has to be decoded and checked, memory, and time.  All of that is known,
or bounded, by what a message says of itself before anybody looks into it: its length, and the number of nodes that the
head of a program announces.  So

* *memory* for the request, and for what decoding makes of it, is set aside as for the run that may come of it
  (`parties.servers.admission`), and a member for whom there is none is refused before anything is decoded;
* *time* is had in turns (`parties.servers.scheduling`), each piece charged with what it is expected to take: decoding,
  typing and policy at the *desk*, dealing and preparing *offline*, rounds *online*, and what is written at the *disk*;
  what takes long gives way between its steps (`parties.servers.pace`);
* *requests* that are answered once (`RequestMessage`) have a rate, and no more than so many are in progress;
* *what is stored* has quotas for each owner (`parties.stored.quotas`, `parties.host.disk`,
  `parties.stock.dealer_stock`);
* *words before their time*, about runs that are not known yet, are kept in a bounded number for each member that says
  such, the oldest of its own forgotten first (`parties.servers.early`).
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from mpc.errors import ServerBusy
from mpc.program import Program
from mpc.program_format import nodes_announced
from parties.members.cluster import Cluster, Member
from parties.servers.admission import Admission, memory_for_runs
from parties.servers.pace import Pace
from parties.servers.scheduling import Turns, Workers
from parties.stored.quotas import Quotas
from parties.wire.buckets import Bucket
from protocols.operations.assume import Assume

BYTES_PER_NODE = 7 << 8
"""Memory that a node of a program takes once it is decoded and checked; as measured, with what is derived from it."""

SECONDS_PER_NODE = 15e-6
SECONDS_PER_BYTE = 1e-8
"""That a server is at work at the desk, about."""

SECONDS_PER_ASSUMPTION = 5e-4
"""For each that something is assumed of: what has to count it is made anew, and compared."""
_ASSUMPTION = re.escape(msgspec.msgpack.encode(Assume.__struct_config__.tag))

DEALING_SECONDS_PER_NODE = 2e-5
DEALING_SECONDS_PER_ELEMENT = 1.5e-8
"""That dealing for a run, or preparing it, takes about; of a network's elements 6 to 20 ns, by how many there are."""

EVALUATING_SECONDS_PER_NODE = 1e-5
EVALUATING_SECONDS_PER_ELEMENT = 5e-9
"""That all rounds of a run take about."""

MAX_REQUESTS = 64
"""Of one member, in progress."""

REQUESTS_AT_ONCE, REQUESTS_PER_SECOND = 500, 200
"""Questions that a client may ask: so many at once, and so many each second for ever; what is written counts as several
(``RequestMessage.weight``).  As many more are refused with a reason; who goes on beyond those is shown out
(`parties.wire.expelling`)."""

LEAST_WIDTH = 3
"""Turns at a time: two are kept for those who have none, so two that are always at work leave one to a third."""


class Estimate(NamedTuple):
    """Of a program that nobody has looked into yet."""

    memory: int
    """Bytes."""
    seconds: float


def estimate(program: memoryview) -> Estimate:
    """What decoding and checking it takes.  Raises ProgramError for what does not begin like a program."""
    size, nodes = len(program), nodes_announced(program)
    seconds = size * SECONDS_PER_BYTE + nodes * SECONDS_PER_NODE
    # Found by its name, which others may be called by: that is no less than there are.
    assumptions = min(nodes, len(re.findall(_ASSUMPTION, program)))
    # As it came, and as it is encoded anew for its digest.
    return Estimate(2 * size + nodes * BYTES_PER_NODE, seconds + assumptions * SECONDS_PER_ASSUMPTION)


@dataclass
class Charge:
    """Memory set aside for something of a member's, until it is released."""

    member: str
    size: int
    _give_back: Callable[[str, int], None]

    def release(self) -> None:
        """Idempotent."""
        self._give_back(self.member, self.size)
        self.size = 0


class Governor:
    """Of one server: the accounts of all members."""

    def __init__(self, cluster: Cluster, member: Member, places: int = 1) -> None:
        """``places``: machines like this one that it has work done on: as many times the turns and the memory."""
        name, patience = member.name, cluster.settings.round_timeout / 2
        width = max(LEAST_WIDTH, (os.cpu_count() or 1) // cluster.servers_beside(member)) * places
        self._server, self._security = name, cluster.settings.security
        memory = memory_for_runs(cluster, member)
        self.admission = Admission(name, memory, cluster.settings.security, clients=len(cluster.clients), places=places)
        self.pace = Pace()
        # Apart, so that nobody's dealing delays a round that others wait for, or what is done in no time.
        self.long = Workers(name, width, patience, self.pace)
        self.desk, self.offline = (Workers(name, width, patience, self.pace, self.long) for _ in range(2))
        self.online = Workers(name, width, patience, self.pace)
        self.disk = Turns(name, 1, patience)
        """What is written in the order in which it was asked for, of each member."""
        self.uploads = Turns(name, 2, patience)
        """Pieces of uploads, beside that: some are as long as what they belong to is large."""
        self.quotas = Quotas(name, len(cluster.clients), memory)
        """Of what is stored."""
        self._requests: Counter[str] = Counter()
        self._questions: dict[str, Bucket] = {}
        self._refusals: dict[str, Bucket] = {}

    @property
    def waiting(self) -> int:
        """Pieces of work whose turn has not come."""
        return sum(
            turns.waiting for turns in (self.long, self.desk, self.offline, self.online, self.disk, self.uploads)
        )

    def close(self) -> None:
        """What has not begun never will."""
        for workers in (self.long, self.desk, self.offline, self.online):
            workers.close()

    # -- requests --------------------------------------------------------------------------------------------------

    def hears(self, sender: Member) -> bool:
        """Whether a request that is refused is answered: not those of who sends far too many."""
        return self._refusals.setdefault(sender.name, Bucket(REQUESTS_AT_ONCE, REQUESTS_PER_SECOND)).take()

    def admit(self, sender: Member) -> None:
        """Whether another request of that member is looked at.  Raises ServerBusy."""
        if self._requests[sender.name] >= MAX_REQUESTS:
            raise ServerBusy(
                self._server, f"{MAX_REQUESTS} requests of {sender.name} are in progress, and it may have no more: try"
                " again when some are answered",
            )  # fmt: skip

    def admit_question(self, client: Member, weight: int) -> None:
        """Whether that client has not asked too much of late.  Raises ServerBusy."""
        if not self._questions.setdefault(client.name, Bucket(REQUESTS_AT_ONCE, REQUESTS_PER_SECOND)).take(weight):
            raise ServerBusy(
                self._server,
                f"{client.name} asks more than {REQUESTS_PER_SECOND} times a second: try again more slowly",
            )

    def begun(self, member: str) -> None:
        """Something that a request has started."""
        self._requests[member] += 1

    def ended(self, member: str) -> None:
        """It is over."""
        self._requests[member] -= 1

    # -- memory ----------------------------------------------------------------------------------------------------

    def charge_program(self, client: str, program: memoryview) -> tuple[Charge, float]:
        """Memory for a program that is to be decoded, and the seconds that that takes.

        Raises ServerBusy, TooLarge, and ProgramError for what is no program.
        """
        found = estimate(program)
        return self.charge(client, found.memory, "decoding this program"), found.seconds

    def learn(self, program: Program) -> None:
        """What is asked of it in the event loop, and takes long to find out the first time: call it from a thread."""
        self.admission.size_of(program)
        longest_step_seconds(program)
        program.schedule(self._security)

    def part_seconds(self, program: Program) -> float:
        """That dealing, or preparing, one of its parts takes about (``mpc.schedule``)."""
        return dealing_seconds(program) / len(program.schedule(self._security).parts)

    def charge(self, client: str, size: int, what: str) -> Charge:
        """So many bytes for ``what``.  Raises ServerBusy, TooLarge."""
        self.admission.hold(client, size, what)
        return Charge(client, size, self.admission.give_back)


def dealing_seconds(program: Program) -> float:
    """That dealing for a run, or preparing it, takes about."""
    return program.elements * DEALING_SECONDS_PER_ELEMENT + len(program.nodes) * DEALING_SECONDS_PER_NODE


def evaluating_seconds(program: Program) -> float:
    """That computing takes about in all rounds of a run."""
    return _evaluating(len(program.nodes), program.elements)


def step_seconds(program: Program, number: int) -> float:
    """That computing takes about in the step before round ``number``, or at the end; none in a check's rounds."""
    return _evaluating(*program.steps[number]) if number < len(program.steps) else 0.0


def longest_step_seconds(program: Program) -> float:
    """That computing takes about between two rounds, at most."""
    return max(_evaluating(*step) for step in program.steps)


def _evaluating(nodes: int, elements: int) -> float:
    return elements * EVALUATING_SECONDS_PER_ELEMENT + nodes * EVALUATING_SECONDS_PER_NODE
