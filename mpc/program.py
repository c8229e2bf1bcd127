"""A program is data: a typed graph of operations, serialised without pickle and checked like input from a stranger."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Union

import msgspec

from mpc.correlation import Correlation, Part
from mpc.decoders import msgpack_decoder
from mpc.errors import ProgramError, TesseraError, printable
from mpc.lazy import lazy
from mpc.objective import ANY, LATENCY, Objective
from mpc.operation import Input, Operand, Operation, Stored, registered
from mpc.pace import paced
from mpc.schedule import Schedule, held, words
from mpc.security import Security
from mpc.tensor_type import FIELD_BITS, MAX_SIZE, Form, TensorType

FORMAT = 2
PRECISION = 16
"""Fraction bits that a program computes with where its author does not say."""
MAX_NODES = 20_000
MAX_BYTES = 256 * 2**20
MAX_ELEMENTS = MAX_SIZE
"""Over all nodes of a program, all that is dealt and all outputs: what a party agrees to allocate."""
MAX_OPERANDS = 8 * MAX_NODES
"""Over all nodes of a program."""
MAX_LABEL = 200


class OversizedProgram(ProgramError):  # noqa: N818 - says what happened
    """A program that is beyond what any server takes, whatever its memory."""


class Expression:
    """A node of a program while it is being planned: immutable, and equal to itself alone."""

    __slots__ = (
        "__weakref__",
        "_derived",
        "inputs",
        "label",
        "like",
        "loss",
        "lost",
        "operation",
        "surely",
        "type",
        "varies",
    )

    def __init__(self, operation: Operation, inputs: tuple[Expression, ...] = (), label: str = "") -> None:
        self.operation = operation
        self.inputs = inputs
        self.label = label
        self.type: TensorType = operation.result(*(x.type for x in inputs)).check()
        self.varies: bool = operation.varies or any(x.varies for x in inputs)
        """Whether it would be another one, or depends on one that would, for another objective."""
        self._derived: dict[object, Expression] = {}
        self.lost = self.surely = 0.0
        """How far its values are from what is meant by them, at most and surely, beside what operations lose: a fit's
        error, rounding of a public number."""
        self.like: Mapping[Expression, float | tuple[float, float]] | None = None
        """Beside that, its values are so many times (at most, and surely) as far off as those of these, where that is
        known better than from its operands: order statistics as far as what they are of, what is meant as it is
        computed as nothing."""
        self.loss: Any = None
        """What follows from that, and from all that it depends on; kept by who finds out."""

    def lose(
        self,
        most: float = 0.0,
        surely: float | None = None,
        *,
        like: Mapping[Expression, float | tuple[float, float]] | None = None,
    ) -> Expression:
        """The same, of whose values so much is said to be lost here; of what is said of one, the most counts."""
        surely = most if surely is None else surely
        if most > self.lost or surely > self.surely or like is not None:
            self.lost, self.surely, self.loss = max(most, self.lost), max(surely, self.surely), None
            self.like = self.like if like is None else like
        return self

    def derive(self, operation: Operation, label: str, *others: Expression) -> Expression:
        """``operation`` of this, and of ``others`` that follow from it, made once: a tensor is masked and opened once
        however often it is used.
        """
        return self.once(operation, lambda: Expression(operation, (self, *others), label))

    def once(self, operation: object, made: Callable[[], Expression]) -> Expression:
        """What stands for ``operation`` of this, or for an operation and its other operands, ``made`` once."""
        if operation not in self._derived:
            self._derived[operation] = made()
        return self._derived[operation]

    def has(self, operation: Operation) -> bool:
        """Whether somebody has it by now."""
        return operation in self._derived

    def over(self, inputs: tuple[Expression, ...]) -> Expression:
        """The same of operands that have the same values, in another form; it has lost as much."""
        moved = Expression(self.operation, inputs, self.label)
        moved.lost, moved.surely, moved.like, moved.loss = self.lost, self.surely, self.like, self.loss
        return moved

    def __repr__(self) -> str:
        return f"<{self.operation.name}: {self.type}>"


class Node(msgspec.Struct, frozen=True, gc=False):
    """One operation of a program; ``inputs`` are indices of earlier nodes, ``label`` names the layer it belongs to."""

    operation: Operation
    inputs: tuple[int, ...]
    type: TensorType
    label: str = ""


_Indices = Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_NODES)]


class _WireNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    operation: msgspec.Raw
    inputs: _Indices
    type: TensorType
    label: str


class _WireProgram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    nodes: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_NODES)]
    """Each a `_WireNode`."""
    outputs: _Indices
    precision: int
    objective: Objective


_HEAD = b"\x85" + msgspec.msgpack.encode("format") + msgspec.msgpack.encode(FORMAT) + msgspec.msgpack.encode("nodes")
"""Of every encoded program: a map of five, whose second entry is the nodes."""


def nodes_announced(data: bytes | memoryview) -> int:
    """How many nodes an encoded program has, by its first bytes: what may be had of a stranger's before decoding it.

    Raises ProgramError for what does not begin like a program of this release, and beyond the limits.
    """
    if len(data) > MAX_BYTES:
        raise ProgramError(f"a program of {len(data)} bytes is over the limit of {MAX_BYTES}")
    array = bytes(data[len(_HEAD) : len(_HEAD) + 5])
    if bytes(data[: len(_HEAD)]) != _HEAD or not array:
        raise ProgramError("not a program: both sides need the same version")
    if array[0] >> 4 == 0x9:
        nodes = array[0] & 0xF
    else:
        width = {0xDC: 2, 0xDD: 4}.get(array[0], 0)
        nodes = int.from_bytes(array[1 : 1 + width], "big")
    if not 0 < nodes <= MAX_NODES:
        raise ProgramError(f"a program has 1 to {MAX_NODES} nodes, not {nodes}")
    return nodes


class Program:
    """Nodes in topological order and the indices of those that are revealed.  Always valid: checked when made.

    ``precision`` (``SecretTensor.precise``) and ``objective`` are what it was planned with and for: the nodes have
    their own fraction bits and protocols, but whoever would write the same program again has to know them.
    """

    correlations: tuple[tuple[Correlation, ...], ...]
    """Per node: what a source of randomness has to make for it."""
    elements: int
    """Of all nodes, of everything dealt and of all outputs, in words of 8 bytes (packed bits are 64 in one): a measure
    of the work and memory of a run."""

    def __init__(
        self,
        nodes: Sequence[Node],
        outputs: Sequence[int],
        precision: int = PRECISION,
        objective: Objective = LATENCY,
    ) -> None:
        self.nodes = tuple(nodes)
        self.outputs = tuple(outputs)
        self.precision = precision
        self.objective = objective
        self.correlations, self.elements = self._check()

    @classmethod
    def of(
        cls,
        outputs: Iterable[Expression],
        kept: Iterable[Expression] = (),
        precision: int = PRECISION,
        objective: Objective = LATENCY,
    ) -> Program:
        """The program that reveals ``outputs`` and computes ``kept``: all expressions they depend on, each once."""
        targets = list(outputs)
        order = cls.order([*targets, *kept])
        index = {id(x): i for i, x in enumerate(order)}
        nodes = [Node(x.operation, tuple(index[id(y)] for y in x.inputs), x.type, x.label) for x in order]
        return cls(nodes, [index[id(x)] for x in targets], precision, objective)

    @staticmethod
    def order(outputs: Iterable[Expression]) -> list[Expression]:
        """Everything ``outputs`` depend on, operands first: the order of the program's nodes."""
        done: set[int] = set()
        order: list[Expression] = []
        stack = [(x, False) for x in reversed(list(outputs))]
        while stack:
            x, operands_done = stack.pop()
            if id(x) in done:
                continue
            if operands_done:
                done.add(id(x))
                order.append(x)
            else:
                stack.append((x, True))
                stack.extend((y, False) for y in reversed(x.inputs))
        return order

    def input_types(self, node: Node) -> tuple[TensorType, ...]:
        return tuple(self.nodes[i].type for i in node.inputs)

    @lazy
    def inputs(self) -> tuple[int, ...]:
        """Indices of the nodes whose values a client supplies, in order."""
        return tuple(i for i, node in enumerate(self.nodes) if isinstance(node.operation, Input))

    @lazy
    def supplied(self) -> tuple[int, ...]:
        """Indices of the nodes that a client sends, masked, in order: ``inputs``, and what it computes of them."""
        return tuple(i for i, node in enumerate(self.nodes) if node.operation.supplied)

    @lazy
    def draws(self) -> tuple[int, ...]:
        """Indices of the nodes whose values nobody supplies: what all parties draw together."""
        return tuple(i for i, node in enumerate(self.nodes) if node.operation.opens and not node.inputs)

    @lazy
    def slots(self) -> tuple[str, ...]:
        """What stored secrets it reads, each once, in the order in which they appear."""
        return tuple(dict.fromkeys(n.operation.slot for n in self.nodes if isinstance(n.operation, Stored)))

    @lazy
    def checked(self) -> frozenset[int]:
        """Indices of the inputs and stored tensors whose values have to lie in their range for the run to go on."""
        return frozenset(node.inputs[0] for node in self.nodes if node.operation.checks)

    @property
    def flagged(self) -> bool:
        """Whether its last output is a bit that is said beside the others."""
        return bool(self.outputs) and self.nodes[self.outputs[-1]].operation.flags

    @property
    def results(self) -> tuple[int, ...]:
        """Its outputs but for that bit."""
        return self.outputs[:-1] if self.flagged else self.outputs

    @lazy
    def kept(self) -> Mapping[str, int]:
        """The nodes whose values stay on the parties, by the name of the stored tensor that each becomes."""
        return {node.operation.kept_as: i for i, node in enumerate(self.nodes) if node.operation.kept_as}

    @lazy
    def depths(self) -> tuple[int, ...]:
        """Per node: how many openings lie on the longest way to its value.  All openings at one depth share a round."""
        depths: list[int] = []
        for node in self.nodes:
            reached = max((depths[i] for i in node.inputs), default=0)
            depths.append(reached + (1 if node.operation.opens else 0))
        return tuple(depths)

    @lazy
    def held(self) -> int:
        """Words that a run holds at its height, without MACs."""
        return held(self)

    @lazy
    def _plain(self) -> Schedule:
        return Schedule(self, Security.SEMI_HONEST)

    @lazy
    def _keyed(self) -> Schedule:
        return Schedule(self, Security.MALICIOUS)

    def schedule(self, security: Security) -> Schedule:
        """When a run needs its randomness, and in which parts."""
        return self._plain if security is Security.SEMI_HONEST else self._keyed

    @lazy
    def rounds(self) -> int:
        """Rounds of openings among the parties; revealing the outputs is one more."""
        return max((d for d, n in zip(self.depths, self.nodes, strict=True) if n.operation.opens), default=0)

    @lazy
    def steps(self) -> tuple[tuple[int, int], ...]:
        """Between one round and the next: nodes, and what of ``elements`` falls to them."""
        nodes, elements = Counter[int](), Counter[int]()
        for node, depth, dealt in zip(self.nodes, self.depths, self.dealt, strict=True):
            nodes[depth] += 1
            elements[depth] += words(node.type) + sum(map(words, dealt))
        return tuple((nodes[depth], elements[depth]) for depth in sorted(nodes))

    @lazy
    def rings(self) -> tuple[str, ...]:
        """The algebras of its tensors, by name: the order in which a round's buffers are sent."""
        return tuple(sorted({node.type.ring for node in self.nodes}))

    @lazy
    def dealt(self) -> tuple[tuple[Part, ...], ...]:
        """Per node: the tensors of its correlations, one after the other."""
        return tuple(tuple(part for c in correlations for part in c.parts) for correlations in paced(self.correlations))

    @lazy
    def _with_macs(self) -> tuple[tuple[Part, ...], ...]:
        keyed = (n.operation.hides and n.operation.authenticated for n in self.nodes)
        masks = ((Part(n.type.shape, n.type.ring),) if k else () for n, k in zip(self.nodes, keyed, strict=True))
        return tuple((*dealt, *mask, *dealt) for dealt, mask in zip(self.dealt, masks, strict=True))

    def corrected(self, security: Security) -> tuple[tuple[Part, ...], ...]:
        """Per node: the tensors whose shares the last party is sent, as the others expand theirs from seeds.

        Correlated tensors; with MACs, then the MAC of the node's own mask, if it has one, and those of the tensors.
        """
        return self.dealt if security is Security.SEMI_HONEST else self._with_macs

    @lazy
    def _encoded(self) -> bytes:
        encode, raw = msgspec.msgpack.encode, msgspec.Raw
        wire = (_WireNode(raw(encode(n.operation)), n.inputs, n.type, n.label) for n in paced(self.nodes))
        encoded = encode(
            _WireProgram(FORMAT, [raw(encode(node)) for node in wire], self.outputs, self.precision, self.objective)
        )
        if len(encoded) > MAX_BYTES:
            raise OversizedProgram(f"a program of {len(encoded):,} bytes is over the limit of {MAX_BYTES:,}")
        return encoded

    def encode(self) -> bytes:
        """Raises OversizedProgram for what no server would read."""
        return self._encoded

    @lazy
    def digest(self) -> str:
        """SHA-256 of the encoding, in hexadecimal: what parties and dealer compare."""
        return hashlib.sha256(self._encoded).hexdigest()

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Program:
        """Read and check a program from a stranger.  Raises ProgramError; runs nothing of what it reads."""
        if len(data) > MAX_BYTES:
            raise ProgramError(f"a program of {len(data)} bytes is over the limit of {MAX_BYTES}")
        kinds = tuple(registered().values())
        operation = msgpack_decoder(Union[kinds]).decode  # noqa: UP007 - a union made at run time
        node = msgpack_decoder(_WireNode).decode
        try:
            wire: _WireProgram = msgpack_decoder(_WireProgram).decode(data)
            if wire.format != FORMAT:
                raise ProgramError(f"program format {wire.format} is not {FORMAT}: both sides need the same version")
            wire_nodes = map(node, paced(wire.nodes))
            nodes = [Node(operation(n.operation), n.inputs, n.type, n.label) for n in wire_nodes]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ProgramError(f"not a program: {printable(str(error))}") from None
        program = cls(nodes, wire.outputs, wire.precision, wire.objective)
        # Found here, where whoever reads it rests between steps: a server asks for it first, in its event loop.
        program.held  # noqa: B018
        return program

    def _check(self) -> tuple[tuple[tuple[Correlation, ...], ...], int]:
        """``correlations`` and ``elements``."""
        if not 0 < len(self.nodes) <= MAX_NODES:
            raise OversizedProgram(f"a program has 1 to {MAX_NODES} nodes, not {len(self.nodes)}")
        if not 0 < self.precision <= FIELD_BITS:
            raise ProgramError(f"a program computes with 1 to {FIELD_BITS} fraction bits, not {self.precision}")
        if not 0 <= self.objective.round_bytes <= ANY:
            raise ProgramError(f"a round is worth 0 to {ANY} bytes, not {self.objective.round_bytes}")
        kept = [node.operation.kept_as for node in self.nodes if node.operation.kept_as]
        if not (self.outputs or kept) or len(self.outputs) > MAX_NODES:
            raise ProgramError("a program reveals or keeps at least one value")
        if len(set(kept)) != len(kept):
            raise ProgramError("a program keeps two values under one name")
        if sum(len(node.inputs) for node in self.nodes) > MAX_OPERANDS:
            raise OversizedProgram(f"the nodes of a program have at most {MAX_OPERANDS} operands in all")
        elements, needed = 0, []
        blinding, spent, inner = set[int](), set[int](), set[int]()
        for i, node in enumerate(paced(self.nodes)):
            where = f"node {i} ({node.operation.name})"
            if len(node.label) > MAX_LABEL or not (node.label.isprintable() or not node.label):
                raise ProgramError(f"{where}: the label is not a short printable name")
            if min(node.inputs, default=0) < 0 or max(node.inputs, default=-1) >= i:
                raise ProgramError(f"{where}: its inputs are not all earlier nodes")
            types = tuple(self.nodes[j].type for j in node.inputs)
            if node.operation.blinds:
                blinding.add(i)
            elif blinding and (taken := blinding.intersection(node.inputs)):
                does = node.operation
                if taken & spent or not (does.settles or does.flags or does.gates or does.counts):
                    raise ProgramError(
                        f"{where}: coefficients that nobody knows hide one result, and serve nothing else"
                    )
                spent |= taken
            if any(self.nodes[j].operation.flags or self.nodes[j].operation.gates for j in node.inputs):
                raise ProgramError(
                    f"{where}: a gated result, or a bit beside the results, is revealed, and serves nothing else"
                )
            try:
                derived = node.operation.result(*types).check()
                node.operation.check_operands([Operand(self.nodes, j) for j in node.inputs])
                correlations = node.operation.correlations(*types)
                elements += words(derived) + sum(words(part) for c in correlations for part in c.parts)
                needed.append(correlations)
            except TesseraError as error:
                raise ProgramError(f"{where}: {error}") from None
            except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
                raise ProgramError(f"{where}: operands or attributes that do not go together") from None
            told = [k for k, j in enumerate(node.inputs) if j in inner]
            if any(k != node.operation.takes_inner for k in told):
                raise ProgramError(f"{where}: takes what tells of masks")
            if node.operation.inner or (told and node.operation.opens and not node.operation.settles):
                inner.add(i)
            if derived != node.type:
                raise ProgramError(f"{where}: declared as {node.type}, but it is {derived}")
            if elements > MAX_ELEMENTS:
                raise OversizedProgram(f"{where}: more than {MAX_ELEMENTS:,} elements in all")
        for output in self.outputs:
            if not 0 <= output < len(self.nodes):
                raise ProgramError(f"output {output} is not a node")
            if output in blinding:
                raise ProgramError(f"output {output} is known to nobody, and stays so")
            if self.nodes[output].type.form is Form.PUBLIC:
                raise ProgramError(f"output {output} is public: there is nothing to reveal")
            if output in inner:
                raise ProgramError(f"output {output} tells of masks: nobody may see it")
            elements += self.nodes[output].type.size
        if elements > MAX_ELEMENTS:
            raise OversizedProgram(f"more than {MAX_ELEMENTS:,} elements in all, outputs counted")
        return tuple(needed), elements

    def __repr__(self) -> str:
        kinds = ", ".join(f"{n} {k}" for k, n in Counter(n.operation.name for n in self.nodes).most_common())
        return f"<Program {self.digest[:8]}: {self.rounds} rounds + reveal; {kinds}>"
