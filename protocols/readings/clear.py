"""The clear reading of a program: the exact fixed-point result on plain numbers, the oracle of every test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpc.errors import ProgramError
from mpc.operation import Input, Stored
from mpc.program import Program
from mpc.rings import Array, Rings, known_rings


def clear_values(
    program: Program,
    inputs: Sequence[Array],
    stored: Mapping[tuple[str, str], Array] | None = None,
    rings: Rings | None = None,
) -> list[Array]:
    """The value of every node, as elements of its ring at the node's fraction bits."""
    stored, rings = stored or {}, known_rings() if rings is None else rings
    if len(inputs) != len(program.inputs):
        raise ProgramError(f"{len(inputs)} inputs, but the program takes {len(program.inputs)}")
    given = dict(zip(program.inputs, inputs, strict=True))
    values: list[Array] = []
    for i, node in enumerate(program.nodes):
        operation = node.operation
        if isinstance(operation, Input):
            values.append(given[i])
        elif isinstance(operation, Stored):
            values.append(stored[operation.slot, operation.tensor])
        else:
            values.append(operation.clear(rings, program.input_types(node), [values[j] for j in node.inputs]))
    return values


def clear(
    program: Program,
    inputs: Sequence[Array],
    stored: Mapping[tuple[str, str], Array] | None = None,
) -> list[Array]:
    """The outputs alone."""
    values = clear_values(program, inputs, stored)
    return [values[i] for i in program.outputs]
