"""How much is asked for: found out, and refused, before memory is spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from mpc.errors import UnsupportedError, UsageError
from mpc.program_format import MAX_BYTES

MAX_PUBLIC = MAX_BYTES // 8
"""Public numbers of one operand: a program holds 8 bytes of each."""

MAX_MOVED = MAX_BYTES // 4
"""Elements among which an arbitrary choice is made at a time: a program holds 4 bytes of each place."""

_DEEPEST = 64
"""Axes of an array of NumPy's, at most."""


def count_of(values: object) -> int:
    """How many numbers NumPy would read there, by shapes and lengths alone: of nested sequences, by the first of each.

    Where others in the sequence have other lengths, NumPy will read nothing.
    """
    count = 1
    for _ in range(_DEEPEST):
        shape = getattr(values, "shape", None)
        if isinstance(shape, tuple):
            return count * prod(shape)
        if not isinstance(values, Sequence) or isinstance(values, str | bytes):
            break
        count *= len(values)
        if not count:
            break
        values = values[0]
    return count


def check_public(values: object) -> None:
    """Raises UsageError for more public numbers than a program holds."""
    if (count := count_of(values)) > MAX_PUBLIC:
        raise UsageError(
            f"{count:,} public numbers, and a program holds {MAX_PUBLIC:,} at most: give a scalar or a row where they"
            " repeat themselves, work on parts, or upload them as a ts.DataSet"
        )


def check_moved(count: int) -> None:
    """Raises UnsupportedError for a choice of more elements, or among more, than a program holds the places of."""
    if count > MAX_MOVED:
        raise UnsupportedError(
            f"a choice among {count:,} elements: cut it into parts of {MAX_MOVED:,} with slices first"
        )
