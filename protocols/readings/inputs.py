"""The client's side of a run's inputs: what it sends to every party is x - a, for the mask a that it was told.

So of what the program has the client compute of its inputs (``decomposed.py``).
Security: a is uniform, masks this one tensor, and no n - 1 parties know it; so x - a is uniform whatever x is.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc.errors import ProgramError
from mpc.operation import Input
from mpc.program import Program
from mpc.rings import Array, Rings, known_rings
from protocols.randomness.source import ClientRandomness


def masked_inputs(
    program: Program, inputs: Sequence[Array], randomness: ClientRandomness, rings: Rings | None = None
) -> list[Array]:
    """x - a of each input, and of what is computed of them, in the program's order."""
    rings = known_rings() if rings is None else rings
    if len(inputs) != len(program.inputs):
        raise ProgramError(f"{len(inputs)} inputs, but the program takes {len(program.inputs)}")
    given, masked = dict(zip(program.inputs, inputs, strict=True)), []
    for i, mask in zip(program.supplied, randomness.input_masks, strict=True):
        node, ring = program.nodes[i], rings[program.nodes[i].type.ring]
        if not isinstance(node.operation, Input):
            given[i] = node.operation.clear(rings, program.input_types(node), [given[j] for j in node.inputs])
        masked.append(ring.subtract(given[i], mask))
    return masked
