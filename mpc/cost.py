"""The cost reading of a program: rounds and payload bytes per party and phase, before anything runs.

Payload is what a protocol must send: field elements and seeds.  Frames, headers and encryption come on top and are
counted apart by the transport.  The measured payload of a run equals this prediction to the byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mpc.operation import Input
from mpc.prg import SEED_BYTES
from mpc.program import Program
from mpc.security import Security

ELEMENT_BYTES = 8
WORDS = 8
"""Elements that 32 bytes (a hash, a nonce) take on the wire: 32 bits each."""
CHECK = "MAC check"
"""The label of what the check of a run costs."""
CHECK_ROUNDS = 3
CHECK_ELEMENTS = WORDS + 2 * WORDS + WORDS + 1 + WORDS
"""Sent to each other party: a commitment to a coin, a hash and the coin, a commitment to sigma, sigma and its nonce."""


@dataclass(frozen=True)
class LayerCost:
    """What one layer of a program costs each party online, and the dealer offline."""

    rounds: int
    opened: int
    """Elements a party opens; it sends each of them to every other party."""
    dealt: int
    """Correlated elements and MACs dealt; the last party receives each of them, the others expand a seed."""


@dataclass(frozen=True)
class Cost:
    """Predicted rounds and payload bytes of one run."""

    parties: int
    online_rounds: int
    """Openings, with MACs the check, and the reveal."""
    online_bytes_per_party: int
    """Sent by each party: openings (and checks) to every other party, and its share of the outputs to the client."""
    online_client_bytes: int
    """Sent by the client: its masked inputs, to every party."""
    offline_dealer_bytes: tuple[int, ...]
    """Sent by the dealer to each party: a seed, and to the last one the corrections."""
    offline_client_bytes: int
    """Sent by the dealer to the client: seeds of its input masks, and its output masks."""
    layers: Mapping[str, LayerCost]

    @property
    def offline_bytes(self) -> int:
        return sum(self.offline_dealer_bytes) + self.offline_client_bytes

    def __str__(self) -> str:
        return (
            f"{self.parties} parties: online {self.online_rounds} rounds, {self.online_bytes_per_party:,} bytes sent"
            f" per party; offline {self.offline_bytes:,} bytes from the dealer"
        )


def cost(program: Program, parties: int, security: Security = Security.SEMI_HONEST) -> Cost:
    """What a run of ``program`` among ``parties`` costs."""
    malicious = security is Security.MALICIOUS
    layers = _layers(program, security)
    opened = sum(layer.opened for layer in layers.values())
    corrections = sum(layer.dealt for layer in layers.values())
    revealed = sum(program.nodes[i].type.size for i in program.outputs) * (2 if malicious else 1)
    supplied = sum(program.nodes[i].type.size for i in program.inputs)
    seeds = [SEED_BYTES] * parties
    seeds[-1] += ELEMENT_BYTES * corrections
    return Cost(
        parties=parties,
        online_rounds=online_rounds(program, security),
        online_bytes_per_party=ELEMENT_BYTES * (opened * (parties - 1) + revealed + (1 if malicious else 0)),
        online_client_bytes=ELEMENT_BYTES * supplied * parties,
        offline_dealer_bytes=tuple(seeds),
        offline_client_bytes=SEED_BYTES * parties * len(program.inputs) + ELEMENT_BYTES * revealed,
        layers=layers,
    )


def online_rounds(program: Program, security: Security) -> int:
    """Openings, the reveal and, malicious, the check, whose first commitments go with the first opening."""
    if security is Security.SEMI_HONEST:
        return program.rounds + 1
    return max(program.rounds, 1) + CHECK_ROUNDS + 1


def _layers(program: Program, security: Security) -> dict[str, LayerCost]:
    """Per label, in order of appearance.  A round that several layers share counts for the first of them."""
    dealt = [sum(math.prod(shape) for shape in shapes) for shapes in program.corrected(security)]
    labels = dict.fromkeys(
        n.label for n, k in zip(program.nodes, dealt, strict=True) if k or not isinstance(n.operation, Input)
    )
    rows = {label: [0, 0, 0] for label in labels}
    rounds_seen: set[int] = set()
    for node, depth, count in zip(program.nodes, program.depths, dealt, strict=True):
        if node.operation.opens:
            rows[node.label][0] += depth not in rounds_seen
            rows[node.label][1] += node.type.size
            rounds_seen.add(depth)
        if count:
            rows[node.label][2] += count
    if security is Security.MALICIOUS:
        rows[CHECK] = [online_rounds(program, security) - 1 - program.rounds, CHECK_ELEMENTS, 0]
    return {label: LayerCost(*row) for label, row in rows.items()}
