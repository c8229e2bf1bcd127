"""The clear reading of a program: the exact fixed-point result on plain numbers, the oracle of every test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpc.errors import ProgramError
from mpc.operation import Input, Stored
from mpc.program import Program
from mpc.rings.field import FieldArray


def clear_values(
    program: Program,
    inputs: Sequence[FieldArray],
    stored: Mapping[tuple[str, str], FieldArray] | None = None,
) -> list[FieldArray]:
    """The value of every node, as field elements at the node's fraction bits."""
    stored = stored or {}
    if len(inputs) != len(program.inputs):
        raise ProgramError(f"{len(inputs)} inputs, but the program takes {len(program.inputs)}")
    given = dict(zip(program.inputs, inputs, strict=True))
    values: list[FieldArray] = []
    for i, node in enumerate(program.nodes):
        operation = node.operation
        if isinstance(operation, Input):
            values.append(given[i])
        elif isinstance(operation, Stored):
            values.append(stored[operation.slot, operation.tensor])
        else:
            values.append(operation.clear(program.input_types(node), [values[j] for j in node.inputs]))
    return values


def clear(
    program: Program,
    inputs: Sequence[FieldArray],
    stored: Mapping[tuple[str, str], FieldArray] | None = None,
) -> list[FieldArray]:
    """The outputs alone."""
    values = clear_values(program, inputs, stored)
    return [values[i] for i in program.outputs]
