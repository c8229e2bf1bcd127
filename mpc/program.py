"""A program is data: a typed graph of operations, serialised without pickle and checked like input from a stranger."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mpc import program_format
from mpc.correlation import Correlation, Part
from mpc.derived import Derived, Typing
from mpc.errors import ProgramError, TesseraError
from mpc.lazy import lazy
from mpc.loans import Loans, loans
from mpc.objective import ANY, LATENCY, Objective
from mpc.operation import Input, Operation, Stored
from mpc.pace import paced
from mpc.program_format import DATA, MAX_BYTES, MAX_NODES, Keeping, Node
from mpc.schedule import Schedule, held
from mpc.security import Security
from mpc.tensor_type import FIELD_BITS, MAX_SIZE, Form, TensorType

PRECISION = 16
"""Fraction bits that a program computes with where its author does not say."""
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


def _operands_first(outputs: Iterable[Expression]) -> Iterator[Expression]:
    """``outputs`` and all that they depend on, each once."""
    done: set[int] = set()
    stack = [(x, False) for x in reversed(list(outputs))]
    while stack:
        x, operands_done = stack.pop()
        if id(x) in done:
            continue
        if operands_done:
            done.add(id(x))
            yield x
        else:
            stack.append((x, True))
            stack.extend((y, False) for y in reversed(x.inputs))


class Program:
    """Nodes in topological order and the indices of those that are revealed.  Always valid: checked when made.

    ``precision`` (``SecretTensor.precise``) and ``objective`` are what it was planned with and for: the nodes have
    their own fraction bits and protocols, but whoever would write the same program again has to know them.
    ``keeping`` says as what its values are kept.
    """

    correlations: tuple[tuple[Correlation, ...], ...]
    """Per node: what a source of randomness has to make for it."""
    dealt: tuple[tuple[Part, ...], ...]
    """Per node: the tensors of its correlations, one after the other."""
    elements: int
    """Of all nodes, of everything dealt and of all outputs, in words of 8 bytes (packed bits are 64 in one): a measure
    of the work and memory of a run."""

    def __init__(
        self,
        nodes: Sequence[Node],
        outputs: Sequence[int],
        precision: int = PRECISION,
        objective: Objective = LATENCY,
        keeping: Keeping = DATA,
    ) -> None:
        self.nodes = tuple(nodes)
        self.outputs = tuple(outputs)
        self.precision = precision
        self.objective = objective
        self.keeping = keeping
        self._derived, self.elements = self._check()
        self.correlations = tuple([found.correlations for found in self._derived])
        self.dealt = tuple([found.dealt for found in self._derived])

    @classmethod
    def of(
        cls,
        outputs: Iterable[Expression],
        kept: Iterable[Expression] = (),
        precision: int = PRECISION,
        objective: Objective = LATENCY,
        keeping: Keeping = DATA,
    ) -> Program:
        """The program that reveals ``outputs`` and computes ``kept``: all expressions they depend on, each once."""
        targets = list(outputs)
        order = cls.order([*targets, *kept])
        index = {id(x): i for i, x in enumerate(order)}
        nodes = [Node(x.operation, tuple(index[id(y)] for y in x.inputs), x.type, x.label) for x in order]
        return cls(nodes, [index[id(x)] for x in targets], precision, objective, keeping)

    @staticmethod
    def order(outputs: Iterable[Expression]) -> list[Expression]:
        """Everything ``outputs`` depend on, operands first: the order of the program's nodes."""
        return list(paced(_operands_first(outputs)))

    def input_types(self, node: Node) -> tuple[TensorType, ...]:
        return tuple([self.nodes[i].type for i in node.inputs])

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
    def drawn(self) -> tuple[str, ...]:
        """The slots of which it reads some rows, other ones in each run."""
        found = (n.operation for n in self.nodes if isinstance(n.operation, Stored))
        return tuple(dict.fromkeys(operation.slot for operation in found if operation.rows))

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
        for node in paced(self.nodes):
            reached = 0
            for i in node.inputs:
                reached = max(reached, depths[i])
            depths.append(reached + node.operation.opens)
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
        for found, depth in zip(paced(self._derived), self.depths, strict=True):
            nodes[depth] += 1
            elements[depth] += found.words + found.dealt_words
        return tuple((nodes[depth], elements[depth]) for depth in sorted(nodes))

    @lazy
    def rings(self) -> tuple[str, ...]:
        """The algebras of its tensors, by name: the order in which a round's buffers are sent."""
        return tuple(sorted({node.type.ring for node in self.nodes}))

    @lazy
    def loans(self) -> Loans:
        """Which masks are made of what would be dealt."""
        return loans(self)

    @lazy
    def _corrected(self) -> tuple[tuple[Part, ...], ...]:
        return tuple(() if i in self.loans.lenders else dealt for i, dealt in enumerate(self.dealt))

    @lazy
    def _with_macs(self) -> tuple[tuple[Part, ...], ...]:
        return tuple(
            (*corrected, *([Part(node.type.shape, node.type.ring)] if self.keyed(i) else []), *dealt)
            for i, (node, corrected, dealt) in enumerate(zip(self.nodes, self._corrected, self.dealt, strict=True))
        )

    def keyed(self, node: int) -> bool:
        """Whether its mask is its own, and has a MAC."""
        operation = self.nodes[node].operation
        return operation.hides and operation.authenticated and node not in self.loans.borrowers

    def corrected(self, security: Security) -> tuple[tuple[Part, ...], ...]:
        """Per node: the tensors whose shares the last party is sent, as the others expand theirs from seeds.

        Correlated tensors that are not lent; with MACs, then the MAC of the node's own mask, if it has one, and those
        of the tensors.
        """
        return self._corrected if security is Security.SEMI_HONEST else self._with_macs

    @lazy
    def _encoded(self) -> bytes:
        encoded = program_format.encode(self.nodes, self.outputs, self.precision, self.objective, self.keeping)
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
        return cls(*program_format.decode(data))

    def _refused(self, node: int, why: object) -> ProgramError:
        return ProgramError(f"{self._where(node)}: {why}")

    def _where(self, node: int) -> str:
        return f"node {node} ({self.nodes[node].operation.name})"

    def _check(self) -> tuple[tuple[Derived, ...], int]:
        """What follows of each node, and ``elements``."""
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
        if self.keeping != DATA and not kept:
            raise ProgramError("a program says as what it keeps its values, and keeps none")
        if sum(len(node.inputs) for node in self.nodes) > MAX_OPERANDS:
            raise OversizedProgram(f"the nodes of a program have at most {MAX_OPERANDS} operands in all")
        elements, derived, typing, nodes = 0, list[Derived](), Typing(), self.nodes
        blinding, spent, inner, ends = set[int](), set[int](), set[int](), set[int]()
        for i, node in enumerate(paced(nodes)):
            operation, inputs = node.operation, node.inputs
            if len(node.label) > MAX_LABEL or not node.label.isprintable():
                raise self._refused(i, "the label is not a short printable name")
            if inputs and (min(inputs) < 0 or max(inputs) >= i):
                raise self._refused(i, "its inputs are not all earlier nodes")
            if operation.blinds:
                blinding.add(i)
            elif blinding and (taken := blinding.intersection(inputs)):
                if taken & spent or not (operation.bare or operation.flags or operation.gates or operation.counts):
                    raise self._refused(i, "coefficients that nobody knows hide one result, and serve nothing else")
                spent |= taken
            if not ends.isdisjoint(inputs):
                raise self._refused(
                    i, "a gated result, or a bit beside the results, is revealed, and serves nothing else"
                )
            if operation.flags or operation.gates:
                ends.add(i)
            try:
                found = typing.of(operation, tuple([nodes[j].type for j in inputs]), nodes, inputs)
            except TesseraError as error:
                raise self._refused(i, error) from None
            except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
                raise self._refused(i, "operands or attributes that do not go together") from None
            told = [k for k, j in enumerate(inputs) if j in inner] if inner else []
            if told and any(k not in operation.takes_inner for k in told):
                raise self._refused(i, "takes what tells of masks")
            if operation.inner or (told and operation.opens and not operation.settles):
                inner.add(i)
            if found.type != node.type:
                raise self._refused(i, f"declared as {node.type}, but it is {found.type}")
            elements += found.words + found.dealt_words
            if elements > MAX_ELEMENTS:
                raise OversizedProgram(f"{self._where(i)}: more than {MAX_ELEMENTS:,} elements in all")
            derived.append(found)
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
        return tuple(derived), elements

    def __repr__(self) -> str:
        kinds = ", ".join(f"{n} {k}" for k, n in Counter(n.operation.name for n in self.nodes).most_common())
        return f"<Program {self.digest[:8]}: {self.rounds} rounds + reveal; {kinds}>"
