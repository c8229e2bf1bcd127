"""The client's side of a run's inputs: what it sends to every party is x - a, for the mask a that it was told.

Security: a is uniform, masks this one tensor, and no n - 1 parties know it; so x - a is uniform whatever x is.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc.program import Program
from mpc.rings import Array, Rings, known_rings
from protocols.randomness.source import ClientRandomness


def masked_inputs(
    program: Program, inputs: Sequence[Array], randomness: ClientRandomness, rings: Rings | None = None
) -> list[Array]:
    """x - a of each input, in the program's order."""
    rings = known_rings() if rings is None else rings
    of_inputs = [rings[program.nodes[i].type.ring] for i in program.inputs]
    return [r.subtract(x, a) for r, x, a in zip(of_inputs, inputs, randomness.input_masks, strict=True)]
