"""The trusted dealer as a source of randomness: what a party and a client make of what it sent them.

Every party gets a fresh seed.  Its shares of masks expand from it, one stream per node (``streams.py``); so do, at
every party but the last, its shares of what the dealer computes from masks: correlated tensors, and all MACs.  The last
party is sent the *corrections* that make those shares add up, an array each, in the program's order within one part of
it after the other (``mpc/schedule.py``).  How they are made is the dealer's reading of the program
(``protocols/readings/dealer.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mpc.correlation import Correlation, Part
from mpc.cost import COMMITMENT_BYTES
from mpc.errors import ProgramError
from mpc.program import Program
from mpc.rings import Array, Buffer, Rings, known_rings
from mpc.rings.prg import SEED_BYTES, Seed
from mpc.security import Security
from mpc.tensor_type import TensorType
from protocols.randomness.source import ClientRandomness, PartyRandomness, Payload, RandomnessSource
from protocols.randomness.streams import (
    dealt_stream,
    kept_stream,
    key_stream,
    lent_stream,
    output_mac_stream,
    output_stream,
    own_mask_stream,
)
from protocols.readings.dealer import Dealing, StoredMasks, correction_parts, deal, digest
from protocols.readings.drawing import AS_IT_IS, Order
from protocols.readings.reveal import masked_types


class TrustedDealer(RandomnessSource):
    """One process that makes everything, in the clear, and sees no data.  It makes whatever says how it is made."""

    name = "the dealer"

    def __repr__(self) -> str:
        return "TrustedDealer()"

    def makes(self, correlation: Correlation) -> bool:
        return type(correlation).make is not Correlation.make

    def deal(
        self,
        program: Program,
        parties: int,
        stored: Mapping[str, StoredMasks],
        security: Security,
        order: Order = AS_IT_IS,
    ) -> Dealing:
        """At the dealer: what everybody is sent for one run; see ``protocols.readings.dealer.deal``."""
        self.check(program, security)
        return deal(program, parties, stored, security, rings=self.rings, order=order)

    def corrections(
        self,
        program: Program,
        stored: Mapping[str, StoredMasks],
        security: Security,
        seeds: Sequence[Seed],
        order: Order = AS_IT_IS,
    ) -> Iterator[tuple[Buffer, ...]]:
        """Wherever they are made: the parts of the dealing of these seeds, which are for that one alone."""
        return correction_parts(program, stored, security, seeds, self.rings, order)

    def for_party(
        self, program: Program, security: Security, *, party: int, parties: int, payload: Payload
    ) -> DealtToParty:
        if not payload or len(payload[0]) != SEED_BYTES:
            raise ProgramError("a seed of the wrong length, or none: a party's randomness begins with its seed")
        return DealtToParty(
            program, security, party=party, parties=parties, seed=Seed(bytes(payload[0])), corrections=payload[1:],
            rings=self.rings,
        )  # fmt: skip

    def for_client(self, program: Program, security: Security, parties: int, payload: Payload) -> DealtToClient:
        return DealtToClient(program, security, parties, payload, self.rings)


class DealtToParty(PartyRandomness):
    """A seed and, at the last party, the corrections."""

    def __init__(
        self,
        program: Program,
        security: Security,
        *,
        party: int,
        parties: int,
        seed: Seed,
        corrections: Payload,
        rings: Rings | None = None,
    ) -> None:
        """``corrections``: of the first part; nothing for all but the last.  Raises ProgramError when they do not go
        with the program."""
        self._program = program
        self._seed = seed
        self._rings = known_rings() if rings is None else rings
        self._parts = program.corrected(security)
        self._to_come = iter(program.schedule(security).parts)
        self._is_last = party == parties - 1
        self._corrections: dict[tuple[int, int], Array] = {}
        """By node and place in it, of the part that was taken last, until they are asked for."""
        self.take(corrections)

    def take(self, payload: Payload) -> None:
        nodes = next(self._to_come, None)
        if nodes is None:
            raise ProgramError("more was dealt than the program needs")
        if not self._is_last:
            if payload:
                raise ProgramError("only the last party takes corrections")
            return
        needed = sum(len(self._parts[i]) for i in nodes)
        if len(payload) != needed:
            raise ProgramError(
                f"{len(payload)} corrections, but the program needs {needed}:"
                " dealer and parties must agree on the program and on the security"
            )
        flat = iter(payload)
        self._corrections = {
            (i, k): read(self._rings, next(flat), part, "a correction")
            for i in nodes
            for k, part in enumerate(self._parts[i])
        }

    @property
    def key_stream(self) -> Seed:
        return key_stream(self._seed)

    @property
    def kept_stream(self) -> Seed:
        return kept_stream(self._seed)

    def mask(self, node: int) -> Array:
        return self._expand(own_mask_stream(self._seed, self._program, node), self._program.nodes[node].type)

    def dealt(self, node: int) -> list[Array]:
        parts = self._program.dealt[node]
        if node in self._program.loans.lenders:
            return [self._expand(lent_stream(self._seed, node), part) for part in parts]
        return self._shares(node, 0, len(parts))

    def mask_mac(self, node: int) -> Array:
        first = len(self._program.dealt[node])
        return self._shares(node, first, first + 1)[0]

    def dealt_macs(self, node: int) -> list[Array]:
        end = len(self._parts[node])
        return self._shares(node, end - len(self._program.dealt[node]), end)

    def output_mask(self, output: int) -> Array:
        return self._expand(output_stream(self._seed, output), self._output(output))

    def output_mac_mask(self, output: int) -> Array:
        return self._expand(output_mac_stream(self._seed, output), self._output(output))

    def _output(self, output: int) -> TensorType:
        return self._program.nodes[self._program.outputs[output]].type

    def _expand(self, stream: Seed, t: TensorType | Part) -> Array:
        return self._rings[t.ring].sample(stream, t.shape)

    def _shares(self, node: int, start: int, end: int) -> list[Array]:
        """Of the tensors from the ``start``-th on that the last party has corrections for."""
        if self._is_last:
            return [self._corrections.pop((node, k)) for k in range(start, end)]
        parts = self._parts[node][start:end]
        return [self._expand(dealt_stream(self._seed, node, start + k), part) for k, part in enumerate(parts)]


class DealtToClient(ClientRandomness):
    """Per input every party's stream of its mask, joined; a mask per output and, with MACs, per output's MAC; then,
    with MACs, the commitments to the key, joined."""

    def __init__(
        self, program: Program, security: Security, parties: int, payload: Payload, rings: Rings | None = None
    ) -> None:
        """Raises ProgramError when ``payload`` does not go with the program."""
        rings = known_rings() if rings is None else rings
        masked = masked_types(program, security)
        malicious = security is Security.MALICIOUS
        supplied = len(program.supplied)
        if len(payload) != supplied + len(masked) + malicious:
            raise ProgramError("the wrong number of masks for a client")
        inputs = (program.nodes[i].type for i in program.supplied)
        self.input_masks = [
            rings[t.ring].sample_sum(read_seeds(data, parties), t.shape)
            for data, t in zip(payload[:supplied], inputs, strict=True)
        ]
        outputs = payload[supplied : supplied + len(masked)]
        self.output_masks = [read(rings, data, t, "a mask") for data, t in zip(outputs, masked, strict=True)]
        self.key_commitments = list(_cut(payload[-1], COMMITMENT_BYTES, parties)) if malicious else []
        self.digest = digest(payload) if malicious else ""


def read(rings: Rings, data: bytes | bytearray | memoryview, t: TensorType | Part, what: str) -> Array:
    """A tensor that came from elsewhere.  Raises ProgramError for another length, or what is no element of its ring."""
    ring = rings[t.ring]
    if len(data) != t.bytes:
        raise ProgramError(f"{what} of the wrong length: {len(data)} bytes, where the program has {t.bytes}")
    array = ring.read(memoryview(data), t.shape)
    if not ring.holds(array, t.shape):
        raise ProgramError(f"{what} has an element outside the {ring.name}")
    return array


def read_seeds(data: bytes | bytearray | memoryview, parties: int) -> tuple[Seed, ...]:
    """A seed of each party, joined, that came from elsewhere.  Raises ProgramError for another length."""
    return tuple(Seed(one) for one in _cut(data, SEED_BYTES, parties))


def _cut(data: bytes | bytearray | memoryview, length: int, count: int) -> Iterator[bytes]:
    if len(data) != length * count:
        raise ProgramError(f"a buffer of the wrong length: {len(data)} bytes, where {count} times {length} are needed")
    joined = bytes(data)
    return (joined[i : i + length] for i in range(0, len(joined), length))
