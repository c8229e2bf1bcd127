"""How much a server takes on, and for whom: runs, and memory.

What is beyond is refused at once, as ``ServerBusy``; nothing of it has been begun.  Half of the memory is divided
evenly among the clients, and whatever others do, each has its part of that.  Of the other half a client may have as
much as it leaves to the others.
"""

from __future__ import annotations

from collections import Counter

from mpc.errors import ServerBusy, TooLarge
from mpc.program import Program
from mpc.security import Security
from parties.host.memory import host_memory
from parties.members.cluster import Cluster, Member

MAX_RUNS = 256
"""In progress or announced at a server; a client with less than its even part of them may have more begun."""
MAX_RUNS_PER_CLIENT = 64

RUNS_OF_A_PLACE, RUNS_OF_A_PLACE_PER_CLIENT = 4, 1
"""As many more for each further machine that runs are on."""

BYTES_PER_WORD = {Security.SEMI_HONEST: 12, Security.MALICIOUS: 32}
"""Memory that a run takes at its height, for each of its words (``words_of``): 8, and what is made of them meanwhile.
With MACs, as measured at the dealer, who takes most of it, if briefly; a party takes 15 to 20."""
BYTES_PER_NODE = {Security.SEMI_HONEST: 704, Security.MALICIOUS: 1344}
"""That it takes beside, for each node of the program, however small its arrays are; as measured at the last party."""


def words_of(program: Program, security: Security) -> int:
    """Words of 8 bytes by which the memory of a run is measured."""
    # With MACs what was opened is held until it is checked.
    return program.held if security is Security.SEMI_HONEST else program.elements


class Admission:
    """How many runs, and how much memory, a server has taken on, and for whom.

    Args:
        server: its name.
        memory: bytes in one place.
        security: what the bytes of a run depend on.
        clients: how many there are in the cluster.
        places: machines that runs are on, each of them on one.
    """

    def __init__(self, server: str, memory: int, security: Security, *, clients: int, places: int = 1) -> None:
        self.clients = max(1, clients)
        self._server, self._more = server, places - 1
        self.memory = memory * places
        self.at_once = memory
        """Bytes that one run may take."""
        self._security = security
        self._bytes_per_word, self._bytes_per_node = BYTES_PER_WORD[security], BYTES_PER_NODE[security]
        self._runs: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()

    # -- runs ------------------------------------------------------------------------------------------------------

    def begin(self, client: str) -> None:
        """Another run of that client.  Raises ServerBusy."""
        runs, most = self._runs[client], MAX_RUNS + RUNS_OF_A_PLACE * self._more
        if runs >= MAX_RUNS_PER_CLIENT + RUNS_OF_A_PLACE_PER_CLIENT * self._more:
            raise ServerBusy(
                self._server, f"{runs} runs of {client} are in progress, and a client may have no more: "
                "finish or release some first",
            )  # fmt: skip
        if self._runs.total() >= most and runs >= max(1, most // self.clients):
            raise ServerBusy(self._server, f"{self._runs.total()} runs are in progress: try again later")
        self._runs[client] += 1

    def end(self, client: str) -> None:
        """A run that was begun is over."""
        self._runs[client] -= 1

    # -- memory ----------------------------------------------------------------------------------------------------

    @property
    def share(self) -> int:
        """Bytes that a client may have when nobody else has any."""
        return min(self.at_once, self.memory if self.clients == 1 else self._own + self._common // 2)

    @property
    def _own(self) -> int:
        """Bytes that each client has for itself."""
        return self.memory // (2 * self.clients)

    @property
    def _common(self) -> int:
        return self.memory // 2

    @property
    def largest(self) -> int:
        """Words of the largest program that a client may run when nobody else runs any."""
        return self.share // self._bytes_per_word

    def size_of(self, program: Program) -> int:
        """Bytes that a run of it takes."""
        return words_of(program, self._security) * self._bytes_per_word + len(program.nodes) * self._bytes_per_node

    def check_size(self, program: Program) -> int:
        """Bytes that a run of it takes.  Raises TooLarge if no client may ever have so much."""
        return self._within_share(self.size_of(program), "a run of this program")

    def reserve(self, client: str, program: Program) -> int:
        """Sets aside the bytes that a run of it takes, and returns how many.  Raises ServerBusy, TooLarge."""
        return self.hold(client, self.size_of(program), "a run of this program")

    def hold(self, client: str, size: int, what: str) -> int:
        """Sets aside so many bytes for ``what``, and returns them.  Raises ServerBusy, TooLarge."""
        self._within_share(size, what)
        if size > (free := self._free(client)):
            raise ServerBusy(
                self._server, f"it has {free >> 20} MiB left for what {client} asks for, and {what} takes about "
                f"{size >> 20}: try again when other runs have ended",
            )  # fmt: skip
        self._reserved[client] += size
        return size

    def give_back(self, client: str, size: int) -> None:
        """What was set aside is free again."""
        self._reserved[client] -= size

    def _within_share(self, size: int, what: str) -> int:
        if size > self.share:
            raise TooLarge(
                self._server,
                f"{what} takes about {size >> 20} MiB, and a client is given {self.share >> 20}: use smaller batches"
                " (`predict` does), or raise memory_mb in the cluster file",
            )
        return size

    def _free(self, client: str) -> int:
        """Bytes that the client may have beside what it has."""
        has = self._reserved[client]
        if self.clients == 1:
            return max(0, self.memory - has)
        beyond = {name: max(0, held - self._own) for name, held in self._reserved.items()}
        left = self._common - sum(beyond.values())
        # Half of what is left, after it has got as much as it leaves.
        return max(0, self._own - has) + max(0, left - beyond.get(client, 0)) // 2


def memory_for_runs(cluster: Cluster, member: Member) -> int:
    """Bytes: the cluster file's setting, or half of the host's memory divided among the servers on that host."""
    if cluster.settings.memory_mb:
        return cluster.settings.memory_mb << 20
    return host_memory() // (2 * cluster.servers_beside(member))
