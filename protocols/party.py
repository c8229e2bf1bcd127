"""A party's reading of a program: what it prepares offline, what it computes and sends online.

Without input or output of its own: ``online`` is a generator that yields what the party sends to every other party in a
round and is sent what they sent, in order of party.  Whoever drives it (sockets, or a list in a test) moves bytes.

    run = PartyRun(program, party=0, parties=2, seed=seed, corrections=(), stored=store)
    exchange = run.online(masked_inputs)
    outgoing = next(exchange)                 # one buffer per round
    outgoing = exchange.send(received)        # ... until StopIteration, whose value are the outputs' shares
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence

import numpy as np

from mpc import field
from mpc.errors import ProgramError, TesseraError
from mpc.field import FieldArray
from mpc.operation import Input, PartyContext, Stored, Value
from mpc.prg import Seed
from mpc.program import Node, Program
from mpc.tensor_type import Form
from protocols.dealer import dealt_stream, mask_stream, output_stream

Exchange = Generator[FieldArray, Sequence[FieldArray], list[FieldArray]]


class UnreducedOpening(TesseraError):  # noqa: N818 - says what came, not that it is an error
    """Another party sent a number outside the field; ``position`` is its place among those received."""

    def __init__(self, position: int) -> None:
        super().__init__("an opening holds a number outside the field")
        self.position = position


class PartyRun:
    """One run at one party.  Made offline, then ``online`` once: masks are used once."""

    def __init__(
        self,
        program: Program,
        *,
        party: int,
        parties: int,
        seed: Seed,
        corrections: Sequence[FieldArray],
        stored: Mapping[tuple[str, str], Value],
    ) -> None:
        """``corrections`` are the last party's (flat arrays, in the program's order) and empty for the others.

        Raises ProgramError when they, or ``stored``, do not go with the program.
        """
        self.program = program
        self.context = PartyContext(party, parties)
        self.seconds: dict[str, float] = defaultdict(float)
        """Time spent computing online, by label."""
        self._seed = seed
        self._values: list[Value | None] = [None] * len(program.nodes)
        self._prepared: list[object] = [None] * len(program.nodes)
        self._used = False
        self._prepare(self._check_corrections(corrections), stored)

    # -- offline ---------------------------------------------------------------------------------------------------

    def _check_corrections(self, corrections: Sequence[FieldArray]) -> list[list[FieldArray]] | None:
        """Corrections by node, or None for a party that expands everything from its seed."""
        if self.context.index < self.context.parties - 1:
            if corrections:
                raise ProgramError("only the last party takes corrections")
            return None
        expected = [shape for dealt in self.program.dealt for shape in dealt]
        if len(corrections) != len(expected):
            raise ProgramError(f"{len(corrections)} corrections, but the program needs {len(expected)}")
        flat = iter(zip(corrections, expected, strict=True))
        by_node: list[list[FieldArray]] = []
        for dealt in self.program.dealt:
            arrays = []
            for _ in dealt:
                array, shape = next(flat)
                if array.dtype != np.uint64 or array.size != int(np.prod(shape)) or not field.is_reduced(array):
                    raise ProgramError("a correction of the wrong size, or with a number outside the field")
                arrays.append(array.reshape(shape))
            by_node.append(arrays)
        return by_node

    def _prepare(self, corrections: list[list[FieldArray]] | None, stored: Mapping[tuple[str, str], Value]) -> None:
        for i, node in enumerate(self.program.nodes):
            operation, types = node.operation, self.program.input_types(node)
            inputs = [self._value(j) for j in node.inputs]
            if isinstance(operation, Stored):
                self._values[i] = _stored_value(operation, stored)
                continue
            if isinstance(operation, Input) or operation.opens:
                share = mask_stream(self._seed, i).elements(node.type.shape)
                self._values[i] = Value(None, share, pending=True)
                continue
            if node.type.form is Form.MASKED:
                self._prepared[i] = operation.on_masks(types, [v.share for v in inputs], [v.public for v in inputs])
            else:
                self._prepared[i] = operation.prepare(self.context, types, inputs, self._dealt(i, corrections))
            if any(value.pending for value in inputs):
                share = self._prepared[i] if node.type.form is Form.MASKED else None  # type: ignore[assignment]
                self._values[i] = Value(None, share, pending=True)
            else:
                self._values[i] = operation.evaluate(self.context, types, inputs, self._prepared[i])
        self._output_masks = [
            output_stream(self._seed, k).elements(self.program.nodes[i].type.shape)
            for k, i in enumerate(self.program.outputs)
        ]

    def _dealt(self, node: int, corrections: list[list[FieldArray]] | None) -> list[FieldArray]:
        if corrections is not None:
            return corrections[node]
        shapes = self.program.dealt[node]
        return [dealt_stream(self._seed, node, part).elements(shape) for part, shape in enumerate(shapes)]

    # -- online ----------------------------------------------------------------------------------------------------

    def online(self, masked_inputs: Sequence[FieldArray]) -> Exchange:
        """Run on ``masked_inputs`` (x - a of each input, in order); returns this party's masked share of each output.

        Raises ProgramError for inputs that do not go with the program, UnreducedOpening for a bad opening.
        """
        if self._used:
            raise ProgramError("this run's masks have been used: a second run needs fresh ones")
        self._used = True
        self._take_inputs(masked_inputs)
        return self._rounds()

    def _take_inputs(self, masked_inputs: Sequence[FieldArray]) -> None:
        if len(masked_inputs) != len(self.program.inputs):
            raise ProgramError(f"{len(masked_inputs)} inputs, but the program takes {len(self.program.inputs)}")
        for i, array in zip(self.program.inputs, masked_inputs, strict=True):
            shape = self.program.nodes[i].type.shape
            if array.dtype != np.uint64 or array.shape != shape or not field.is_reduced(array):
                raise ProgramError(f"an input is not an array of shape {shape} of field elements")
            self._values[i] = Value(array, self._value(i).share)

    def _rounds(self) -> Exchange:
        program = self.program
        waiting: list[list[int]] = [[] for _ in range(program.rounds + 1)]
        for i, depth in enumerate(program.depths):
            if self._value(i).pending:
                waiting[depth].append(i)
        for nodes in waiting:
            opening = [i for i in nodes if program.nodes[i].operation.opens]
            if opening:
                yield from self._open(opening)
            for i in nodes:
                if not program.nodes[i].operation.opens:
                    self._evaluate(i, program.nodes[i])
        return [self._output(k, i) for k, i in enumerate(program.outputs)]

    def _evaluate(self, i: int, node: Node) -> None:
        start = time.perf_counter()
        inputs = [self._value(j) for j in node.inputs]
        self._values[i] = node.operation.evaluate(
            self.context, self.program.input_types(node), inputs, self._prepared[i]
        )
        self._prepared[i] = None
        self.seconds[node.label] += time.perf_counter() - start

    def _open(self, nodes: Sequence[int]) -> Generator[FieldArray, Sequence[FieldArray], None]:
        """One round: open every mask of this depth together."""
        start = time.perf_counter()
        ends = np.cumsum([self.program.nodes[i].type.size for i in nodes])
        total = np.empty(ends[-1], dtype=np.uint64)
        public: list[FieldArray | None] = []
        for i, part in zip(nodes, np.split(total, ends[:-1]), strict=True):
            operand = self._value(self.program.nodes[i].inputs[0])
            mask = self._value(i).share
            assert mask is not None  # noqa: S101 - made so in _prepare
            if operand.share is None:
                field.negate(mask.reshape(-1), out=part)
            else:
                field.subtract(operand.share.reshape(-1), mask.reshape(-1), out=part)
            public.append(operand.public)
        label = self.program.nodes[nodes[0]].label
        self.seconds[label] += time.perf_counter() - start
        # The buffer that is sent may still be on its way when the sum is formed: add up in another one.
        received = yield total
        start = time.perf_counter()
        total = total.copy()
        if len(received) != self.context.parties - 1 or any(incoming.shape != total.shape for incoming in received):
            raise ProgramError("a round takes one buffer from each other party, as long as the one sent")
        for position, incoming in enumerate(received):
            if not field.accumulate(total, incoming):
                raise UnreducedOpening(position)
        for i, known, part in zip(nodes, public, np.split(total, ends[:-1]), strict=True):
            opened = part.reshape(self.program.nodes[i].type.shape)
            self._values[i] = Value(opened if known is None else field.add(opened, known), self._value(i).share)
        self.seconds[label] += time.perf_counter() - start

    def _output(self, k: int, i: int) -> FieldArray:
        """A share of the output plus a share of its mask, which the client alone knows."""
        share = self.context.fold(self._value(i), self.program.nodes[i].type.shape)
        return field.add(share, self._output_masks[k])

    def _value(self, i: int) -> Value:
        value = self._values[i]
        if value is None:
            raise ProgramError(f"node {i} has no value yet")
        return value


def _stored_value(operation: Stored, stored: Mapping[tuple[str, str], Value]) -> Value:
    value = stored.get((operation.store, operation.tensor))
    if value is None or value.public is None or value.public.shape != operation.shape:
        raise ProgramError(
            f"this party holds no tensor {operation.tensor!r} of the model:"
            " ask for it again with client.model(name), or upload it again"
        )
    return value
