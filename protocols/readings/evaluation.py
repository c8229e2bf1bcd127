"""One evaluation of a program at a party: on its shares of the values, or on its shares of their MACs.

Both follow the same formulas; ``PartyContext`` says what tells them apart.  What is opened is given to both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mpc.errors import ProgramError
from mpc.operation import PartyContext, Stored, Value
from mpc.pace import paced
from mpc.program import Program
from mpc.rings import Array
from mpc.tensor_type import Form


class Evaluation:
    """The values of a program's nodes as far as they are known."""

    def __init__(self, program: Program, context: PartyContext) -> None:
        self._program = program
        self._context = context
        self._values: list[Value | None] = [None] * len(program.nodes)
        self._prepared: list[object] = [None] * len(program.nodes)
        self._offline: dict[int, Value] = {}
        """Values as they are before anything is opened, which may go on meanwhile, of nodes that are still to be taken
        while preparing: what is made of them does not depend on how far the run has got."""
        self._to_take = Counter(j for node in program.nodes for j in node.inputs)

    def value(self, i: int) -> Value:
        """Of a node that has one."""
        value = self._values[i]
        if value is None:
            raise ProgramError(f"node {i} has no value yet")
        return value

    def prepare(
        self,
        nodes: Sequence[int],
        stored: Callable[[int], Value],
        mask: Callable[[int], Array | None],
        dealt: Callable[[int], Sequence[Array]],
    ) -> None:
        """Offline, for one part after the other: all that does not depend on the run's inputs.

        For each node that has such, ``stored`` gives its stored value, ``mask`` the share of its own mask and ``dealt``
        those of its correlated tensors.
        """
        for i in paced(nodes):
            inputs = self._program.nodes[i].inputs
            self._offline[i] = self._values[i] = self._before(i, stored, mask, dealt)
            self._to_take.subtract(inputs)
            for j in {i, *inputs}:
                if not self._to_take[j]:
                    self._offline.pop(j, None)

    def _before(
        self,
        i: int,
        stored: Callable[[int], Value],
        mask: Callable[[int], Array | None],
        dealt: Callable[[int], Sequence[Array]],
    ) -> Value:
        """What a node is before inputs are there."""
        node = self._program.nodes[i]
        operation, types = node.operation, self._program.input_types(node)
        inputs = [self._offline[j] for j in node.inputs]
        if isinstance(operation, Stored):
            return stored(i)
        if operation.hides:
            # What hides nothing is its mask: it is there already.
            loans = self._program.loans
            taken = operation.opens or operation.supplied or i not in loans.untaken
            own = mask(i) if taken and i not in loans.borrowers else None
            return Value(None, own, pending=operation.opens or operation.supplied)
        prepared: Any
        masked = node.type.form is Form.MASKED and not operation.bare
        if masked and i in self._program.loans.untaken:
            prepared = self._context.ring(node.type).zeros(node.type.shape)
        elif masked:
            prepared = operation.on_masks(
                self._context.rings, types, [v.share for v in inputs], [v.public for v in inputs]
            )
        else:
            prepared = operation.prepare(self._context, types, inputs, dealt(i))
        if operation.bare or any(value.pending for value in inputs):
            self._prepared[i] = prepared
            return Value(None, prepared if masked else None, pending=True)
        return operation.evaluate(self._context, types, inputs, prepared)

    def open(self, i: int, public: Array, beside: dict[str, Any] | None = None) -> None:
        """The public part of a masked node has become known; ``beside`` is what another reading shares with this."""
        value = Value(public, None if self._program.nodes[i].operation.bare else self.value(i).share)
        value.beside = beside
        self._values[i] = value

    def forget(self, nodes: Iterable[int]) -> None:
        """Nodes that have no value any more."""
        for i in nodes:
            self._values[i] = None

    def evaluate(self, i: int) -> None:
        """A pending node whose operands are known."""
        self._values[i] = self._evaluated(i)

    def _evaluated(self, i: int) -> Value:
        node, prepared = self._program.nodes[i], self._prepared[i]
        self._prepared[i] = None
        inputs = [self.value(j) for j in node.inputs]
        return node.operation.evaluate(self._context, self._program.input_types(node), inputs, prepared)

    def difference(self, i: int, out: Array) -> None:
        """This party's share of what the opening of node ``i`` opens: the shared part of its operand, less its mask, or
        what it opens without one.
        """
        node = self._program.nodes[i]
        ring = self._context.ring(node.type)
        if node.operation.bare:
            ring.difference(self._context.fold(self._evaluated(i), node.type), None, out)
            return
        share, mask = self.value(node.inputs[0]).share, self.value(i).share
        if i in self._program.loans.borrowers:
            ring.difference(share, None, out)
        elif mask is None:
            raise ProgramError(f"node {i} has no mask")
        else:
            ring.difference(share, mask, out)

    def known(self, i: int, drawn: Value, out: Array) -> None:
        """This party's share of what is known of node ``i``: of its MAC, where that is what is evaluated."""
        ring = self._context.ring(self._program.nodes[i].type)
        ring.difference(self._context.share_of(drawn.public, ring), None, out)

    def folded(self, i: int) -> Array:
        """This party's share of the whole value of a node, its public part included."""
        return self._context.fold(self.value(i), self._program.nodes[i].type)
