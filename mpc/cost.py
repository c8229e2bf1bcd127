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

ELEMENT_BYTES = 8


@dataclass(frozen=True)
class LayerCost:
    """What one layer of a program costs each party online, and the dealer offline."""

    rounds: int
    opened: int
    """Elements a party opens; it sends each of them to every other party."""
    dealt: int
    """Correlated elements dealt; the last party receives each of them, the others expand a seed."""


@dataclass(frozen=True)
class Cost:
    """Predicted rounds and payload bytes of one run."""

    parties: int
    online_rounds: int
    """Openings and the reveal."""
    online_bytes_per_party: int
    """Sent by each party: openings to every other party, and its share of the outputs to the client."""
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


def cost(program: Program, parties: int) -> Cost:
    """What a run of ``program`` among ``parties`` costs."""
    opened = sum(node.type.size for node in program.nodes if node.operation.opens)
    corrections = sum(math.prod(shape) for dealt in program.dealt for shape in dealt)
    revealed = sum(program.nodes[i].type.size for i in program.outputs)
    supplied = sum(program.nodes[i].type.size for i in program.inputs)
    seeds = [SEED_BYTES] * parties
    seeds[-1] += ELEMENT_BYTES * corrections
    return Cost(
        parties=parties,
        online_rounds=program.rounds + 1,
        online_bytes_per_party=ELEMENT_BYTES * (opened * (parties - 1) + revealed),
        online_client_bytes=ELEMENT_BYTES * supplied * parties,
        offline_dealer_bytes=tuple(seeds),
        offline_client_bytes=SEED_BYTES * parties * len(program.inputs) + ELEMENT_BYTES * revealed,
        layers=_layers(program),
    )


def _layers(program: Program) -> dict[str, LayerCost]:
    """Per label, in order of appearance.  A round that several layers share counts for the first of them."""
    labels = dict.fromkeys(node.label for node in program.nodes if not isinstance(node.operation, Input))
    rows = {label: [0, 0, 0] for label in labels}
    rounds_seen: set[int] = set()
    for node, depth, dealt in zip(program.nodes, program.depths, program.dealt, strict=True):
        if node.operation.opens:
            rows[node.label][0] += depth not in rounds_seen
            rows[node.label][1] += node.type.size
            rounds_seen.add(depth)
        if dealt:
            rows[node.label][2] += sum(math.prod(shape) for shape in dealt)
    return {label: LayerCost(*row) for label, row in rows.items()}
