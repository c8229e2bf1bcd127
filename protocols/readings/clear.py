"""The clear reading of a program: the exact fixed-point result on plain numbers, the oracle of every test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mpc.errors import ProgramError
from mpc.operation import Stored
from mpc.program import Program
from mpc.rings import Array, Rings, known_rings
from protocols.operations.comparison import Comparison
from protocols.readings.drawing import AS_IT_IS, Order


def clear_values(
    program: Program,
    inputs: Sequence[Array],
    stored: Mapping[tuple[str, str], Array] | None = None,
    rings: Rings | None = None,
    drawn: Sequence[Array] = (),
    *,
    by_digits: bool = False,
    order: Order = AS_IT_IS,
    wanted: Collection[int] | None = None,
) -> list[Array]:
    """The value of every node, as elements of its ring at the node's fraction bits; of those that are not ``wanted``
    nothing once no node takes them.

    ``drawn``: the numbers that the program's draws are to be, in its order.  ``by_digits``: what parties make of values
    that are compared out of their range, instead of their signs.  ``order``: in which rows are drawn.
    """
    stored, rings = stored or {}, known_rings() if rings is None else rings
    if len(inputs) != len(program.inputs):
        raise ProgramError(f"{len(inputs)} inputs, but the program takes {len(program.inputs)}")
    if len(drawn) != len(program.draws):
        raise ProgramError(f"{len(drawn)} draws, but the program makes {len(program.draws)}")
    given = dict(zip((*program.inputs, *program.draws), (*inputs, *drawn), strict=True))
    values: list[Array] = []
    to_take = Counter(j for node in program.nodes for j in node.inputs)
    to_take.update(range(len(program.nodes)) if wanted is None else wanted)
    nothing = np.zeros(0)
    for i, node in enumerate(program.nodes):
        operation = node.operation
        if i in given:
            values.append(given[i])
        elif isinstance(operation, Stored):
            whole = stored[operation.slot, operation.tensor]
            ring = rings[node.type.ring]
            values.append(ring.take(whole, order.positions(operation), 0) if operation.rows else whole)
        else:
            means = operation.by_digits if by_digits and isinstance(operation, Comparison) else operation.clear
            values.append(means(rings, program.input_types(node), [values[j] for j in node.inputs]))
        to_take.subtract(node.inputs)
        for j in {i, *node.inputs}:
            if not to_take[j]:
                values[j] = nothing
    return values


def clear(
    program: Program,
    inputs: Sequence[Array],
    stored: Mapping[tuple[str, str], Array] | None = None,
    drawn: Sequence[Array] = (),
) -> list[Array]:
    """The outputs alone."""
    values = clear_values(program, inputs, stored, drawn=drawn, wanted=program.outputs)
    return [values[i] for i in program.outputs]
