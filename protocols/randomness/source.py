"""What a source of correlated randomness is to everybody else: what it makes, and what a party and a client hold of it.

A source gives every party shares of fresh masks and of the correlations that a program's operations name
(``mpc/correlation.py``), with MACs shares of a key and of all MACs; and the client, who is to supply inputs and learn
outputs, the masks of those.  Parties run on a `PartyRandomness` and clients on a `ClientRandomness`, wherever they come
from: the trusted dealer (``dealt.py``) is one source.

What a source cannot make it refuses in ``check``, which clients, parties and the source itself call on a program before
anything is made for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mpc.correlation import Correlation
from mpc.errors import UnsupportedError
from mpc.program import Program
from mpc.rings import Array, Rings, known_rings, ring_called
from mpc.rings.prg import Seed
from mpc.security import Security

Payload = Sequence[bytes | bytearray | memoryview]
"""Bytes from elsewhere."""


class PartyRandomness(ABC):
    """One party's part for one run, by node of the program.  Each share is asked for once; its repr shows nothing.

    What belongs to the first part of the program (``mpc/schedule.py``) is there, and of each of the others once it has
    been taken.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    @abstractmethod
    def take(self, payload: Payload) -> None:
        """What the source sent of the next part of the program.  Raises ProgramError if it does not go with that."""

    @abstractmethod
    def mask(self, node: int) -> Array:
        """A share of the node's own mask."""

    @abstractmethod
    def dealt(self, node: int) -> list[Array]:
        """Shares of the parts of the node's correlations; of what a node lends (``mpc/loans.py``), of that."""

    @abstractmethod
    def mask_mac(self, node: int) -> Array:
        """A share of the MAC of the node's own mask."""

    @abstractmethod
    def dealt_macs(self, node: int) -> list[Array]:
        """Shares of the MACs of those parts."""

    @abstractmethod
    def output_mask(self, output: int) -> Array:
        """A share of an output's mask, which the client alone knows."""

    @abstractmethod
    def output_mac_mask(self, output: int) -> Array:
        """A share of the mask of an output's MAC, which the client alone knows."""

    @property
    @abstractmethod
    def key_stream(self) -> Seed:
        """The stream of this party's share of the run's MAC key."""

    @property
    @abstractmethod
    def kept_stream(self) -> Seed:
        """The seed of this party's shares of the masks of what the run keeps."""


class ClientRandomness(ABC):
    """A client's part for one run; its repr shows nothing."""

    input_masks: Sequence[Array]
    """Of all that it sends, in the program's order."""
    output_masks: Sequence[Array]
    """Of what each party will send, in its order (``protocols/readings/reveal.py``)."""
    key_commitments: Sequence[bytes]
    """With MACs: to each party's share of the key."""
    digest: str
    """With MACs: what the parties compare with what was made for this client; else empty."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class RandomnessSource(ABC):
    """Makes the correlated randomness of runs, of what a process computes with."""

    name: str

    def __init__(self, rings: Rings | None = None) -> None:
        """``rings``: what stands behind each algebra in this process, by default the usual."""
        self.rings = known_rings() if rings is None else rings

    def check(self, program: Program, security: Security) -> None:
        """Raises UnsupportedError, naming the operation, for a program that this source cannot make randomness for."""
        for i, node in enumerate(program.nodes):
            for correlation in program.correlations[i]:
                if not self.makes(correlation):
                    raise UnsupportedError(
                        f"node {i} ({node.operation.name}) needs {type(correlation).__name__}, which {self.name} cannot"
                        " make: write it with other operations, or use a cluster with another source of randomness"
                    )
            ring = ring_called(node.type.ring)
            keyed = security is Security.MALICIOUS and node.operation.authenticated
            if keyed and (ring is None or not ring.macs):
                raise UnsupportedError(
                    f"node {i} ({node.operation.name}) lives in the {node.type.ring}, which has no MACs: it can be"
                    " computed in semi-honest security only"
                )

    @abstractmethod
    def makes(self, correlation: Correlation) -> bool:
        """Whether it can make this correlation."""

    @abstractmethod
    def for_party(
        self, program: Program, security: Security, *, party: int, parties: int, payload: Payload
    ) -> PartyRandomness:
        """A party's part, from what the source sent it first.  Raises ProgramError for what does not go with the
        program."""

    @abstractmethod
    def for_client(self, program: Program, security: Security, parties: int, payload: Payload) -> ClientRandomness:
        """The client's part, from what the source sent it.  Raises ProgramError likewise."""
