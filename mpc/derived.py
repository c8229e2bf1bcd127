"""What follows from an operation and the types of its operands: found once for all nodes that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mpc.correlation import Correlation, Part
from mpc.operation import Operand, Operation, Placed
from mpc.schedule import words
from mpc.tensor_type import TensorType


class Derived(NamedTuple):
    """Of a node."""

    type: TensorType
    correlations: tuple[Correlation, ...]
    dealt: tuple[Part, ...]
    """The tensors of its correlations, one after the other."""
    words: int
    """Of its result, in words of 8 bytes."""
    dealt_words: int


class Typing:
    """Of one program's nodes."""

    def __init__(self) -> None:
        self._known: dict[tuple[Operation, tuple[TensorType, ...]], Derived] = {}

    def of(
        self, operation: Operation, types: tuple[TensorType, ...], nodes: Sequence[Placed], inputs: Sequence[int]
    ) -> Derived:
        """Of an operation on those of the nodes, which have these types.

        Raises what its typing rule does, and where more has to be true of its operands.
        """
        known = self._known.get((operation, types))
        result = operation.result(*types).check() if known is None else known.type
        if type(operation).check_operands is not Operation.check_operands:
            operation.check_operands([Operand(nodes, i) for i in inputs])
        if known is None:
            correlations = operation.correlations(*types)
            dealt = tuple(part for correlation in correlations for part in correlation.parts)
            known = Derived(result, correlations, dealt, words(result), sum(map(words, dealt)))
            self._known[operation, types] = known
        return known
