"""From the graph of an ONNX file to an architecture and its weights, node by node.  Needs onnx.

The file is a stranger's: nothing of it is run, and sizes are checked before an array is made.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from mpc.errors import EncodingError, UnsupportedError, UsageError, printable
from mpc.tensor_type import MAX_DIMENSIONS, Shape
from nn.architecture import MAX_ELEMENTS, MAX_STEPS, Step
from nn.functional import Mean, Parameter, Reshape
from nn.importing.blockers import INSTEAD, Blocker, refused
from nn.layer import MAX_WEIGHTS, Array, Layer
from nn.layers import Flatten, Identity, Linear
from nn.norms import Norm

Value = int | np.ndarray
"""A place among the architecture's values, or a constant: float64, or int64."""

READ = (
    "export the network with operators that are read (docs/models.md lists them) and fixed sizes but for the batch's,"
    " constants folded, or end it before this node"
)
_REALS = frozenset((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16))
_INTEGERS = frozenset((TensorProto.INT64, TensorProto.INT32))
_KINDS: dict[Any, Callable[[AttributeProto], Any]] = {
    AttributeProto.FLOAT: lambda a: float(a.f),
    AttributeProto.INT: lambda a: int(a.i),
    AttributeProto.STRING: lambda a: a.s.decode(),
    AttributeProto.TENSOR: lambda a: array_of(a.t),
    AttributeProto.FLOATS: lambda a: tuple(map(float, a.floats)),
    AttributeProto.INTS: lambda a: tuple(map(int, a.ints)),
}
_LONGEST_NAME = 60
_Kind = TypeVar("_Kind", bound=int | float | str | tuple[int, ...] | tuple[float, ...])


class _LostError(Exception):
    """An operand comes from a node that stands in the way already."""


class Taken(NamedTuple):
    """What the graph's one input is."""

    name: str
    dtype: Any
    sizes: tuple[int | None, ...]
    """The batch's first; None for what the file leaves open."""

    @property
    def shape(self) -> Shape | None:
        """One input's, where it is known."""
        if None in self.sizes[1:]:
            return None
        return tuple(n for n in self.sizes[1:] if n is not None)


class Node:
    """One node, for its operator to ask."""

    def __init__(self, graph: Graph, number: int, proto: NodeProto) -> None:
        self.graph = graph
        self.kind = said(proto.op_type)
        self.said = said(proto.name) or f"{self.kind}_{number}"
        self.source = f"node {number} of the graph"
        self._inputs: tuple[str, ...] = tuple(proto.input)
        self.result = proto.output[0]
        self._attributes = {a.name: a for a in proto.attribute}

    def take(self, name: str, default: _Kind) -> _Kind:
        """An attribute of the default's type.  Raises UnsupportedError."""
        value = self.attribute(name)
        if value is None:
            return default
        if type(value) is not type(default) or (isinstance(value, tuple) and len(value) > MAX_DIMENSIONS):
            raise refused(f"its {name} is not {type(default).__name__}, or too long", READ)
        return value

    def attribute(self, name: str) -> Any:
        """Its value; None where there is none."""
        found = self._attributes.pop(name, None)
        if found is None:
            return None
        if found.ref_attr_name or found.type not in _KINDS:
            raise refused(f"its {name} is no number, text or tensor", READ)
        return _KINDS[found.type](found)

    def only(self, name: str, wanted: int | float | str | tuple[int, ...], default: int | float | str) -> None:
        """Raise UnsupportedError for another value than the one that is supported."""
        value = self.attribute(name)
        if (default if value is None else value) != wanted:
            raise refused(f"its {name} is not {wanted!r}, which alone is supported", READ)

    def finish(self) -> None:
        """Raise UnsupportedError for attributes that nobody has asked for."""
        if self._attributes:
            names = ", ".join(sorted(said(name) for name in self._attributes))
            raise refused(f"its {names}: not known of {self.kind}", READ)

    def has(self, i: int) -> bool:
        """Whether there is an input ``i``."""
        return i < len(self._inputs) and bool(self._inputs[i])

    @property
    def count(self) -> int:
        """Of inputs."""
        return len(self._inputs)

    def operand(self, i: int) -> Value:
        """A place, or real numbers."""
        if not self.has(i):
            raise refused(f"it has no input {i}", READ)
        value = self.graph.value(self._inputs[i])
        if isinstance(value, np.ndarray) and value.dtype != np.float64:
            raise refused(f"its input {i} holds integers", READ)
        return value

    def name_of(self, i: int) -> str:
        """What input ``i`` is called in the graph."""
        return self._inputs[i]

    def place(self, i: int) -> int:
        """A tensor; a constant becomes a step of its own."""
        value = self.operand(i)
        return value if isinstance(value, int) else self.parameter(value)

    def constant(self, i: int) -> Array:
        """Real numbers that the file holds."""
        value = self.operand(i)
        if isinstance(value, int):
            raise refused(f"its input {i} is computed, and no constant of the file", READ)
        return value

    def integers(self, i: int) -> tuple[int, ...]:
        """Integers that the file holds."""
        value = self.graph.value(self._inputs[i])
        if isinstance(value, int) or value.dtype != np.int64 or value.ndim != 1 or value.size > MAX_DIMENSIONS:
            raise refused(f"its input {i} is no constant row of a few integers", READ)
        return tuple(map(int, value))

    def rank(self, place: int) -> int:
        """How many dimensions a tensor has, the batch's among them."""
        return self.graph.ranks[place]

    def add(self, layer: Layer, *inputs: int, **weights: Array) -> int:
        """A step's place."""
        return self.graph.add(self, layer, inputs, weights)

    def parameter(self, values: Array) -> int:
        """A constant as a step."""
        return self.graph.add(self, Parameter(values.shape), (), {"": values})


class Graph:
    """Constants and steps, as far as it has been walked; and what stands in the way."""

    def __init__(self, proto: GraphProto, rank: int, batch: int | None) -> None:
        self.batch = batch
        """How many images the file is for; None for any number."""
        self.steps: list[Step] = []
        self.weights: dict[str, Array] = {}
        self.ranks = [rank]
        self.lines: dict[str, str] = {}
        """Of each step: which node it is of."""
        self.results: dict[str, str] = {}
        """Of a step, by its name: the value of the graph that it gives."""
        self.uses: Counter[str] = Counter()
        self._values: dict[str, Value | None] = {}
        self._stored = {t.name: t for t in proto.initializer}
        self._names: set[str] = set()
        self._elements = 0

    def walk(self, proto: GraphProto, taken: str, operators: Mapping[str, Any]) -> list[Blocker]:
        """All that stands in the way.  What the output does not depend on is left out."""
        result, blockers = proto.output[0].name, list[Blocker]()
        nodes, wanted = list[tuple[int, NodeProto]](), {result}
        for number in reversed(range(len(proto.node))):
            node = proto.node[number]
            if wanted & set(node.output) - {""}:
                nodes.append((number, node))
                wanted.update(node.input)
        self.uses = Counter([result, *(name for _, node in nodes for name in node.input)])
        self._values = {taken: 0}
        for number, each in reversed(nodes):
            node = Node(self, number, each)
            value: Value | None = None
            try:
                value = self._converted(node, each, operators)
            except _LostError:
                pass
            except Exception as error:  # noqa: BLE001 - a stranger's numbers, in whatever way they are none
                blockers.append(Blocker.of(f"node {node.said!r} is {node.kind}", error, node.source, READ))
            for name in each.output[:1]:
                self._values[name] = value
                if isinstance(value, int) and value:
                    self.results.setdefault(self.steps[value - 1].name, name)
        if not blockers:
            blockers += self._ended(result)
        return blockers

    def _converted(self, node: Node, proto: NodeProto, operators: Mapping[str, Any]) -> Value:
        operator = operators.get(proto.op_type) if proto.domain in ("", "ai.onnx") else None
        if operator is None:
            of = f" of {said(proto.domain)}" if proto.domain else ""
            raise refused(f"operator {node.kind}{of} is not read", READ)
        if any(self.uses[name] for name in proto.output[1:]):
            raise refused("another result than its first is used", READ)
        if proto.output[0] in self._values or proto.output[0] in self._stored:
            raise refused("its result has the name of another value", READ)
        value: Value = operator(node)
        node.finish()
        return value

    def _ended(self, result: str) -> list[Blocker]:
        """The result is the last step's."""
        value = self._values.get(result)
        if not isinstance(value, int):
            return [Blocker("the graph's output", "it does not depend on its input", READ, "its outputs")]
        if value != len(self.steps) or not self.steps:
            self.steps.append(Step(self._fresh("output"), Identity(), (value,)))
        return []

    def value(self, name: str) -> Value:
        """What a name stands for.  Raises UnsupportedError."""
        if name not in self._values:
            if name not in self._stored:
                raise refused(f"nothing before it makes its input {said(name)!r}", READ)
            self._values[name] = array_of(self._stored[name])
        found = self._values[name]
        if found is None:
            raise _LostError
        return found

    def add(self, node: Node, layer: Layer, inputs: tuple[int, ...], weights: Mapping[str, Array]) -> int:
        self._elements += sum(map(math.prod, layer.parameters.values()))
        if self._elements > MAX_ELEMENTS or len(self.steps) >= MAX_STEPS:
            raise UnsupportedError(f"a model of more than {MAX_ELEMENTS} weights, or {MAX_STEPS} layers")
        name = self._fresh(node.said)
        self.steps.append(Step(name, layer, inputs))  # type: ignore[arg-type]
        self.weights |= {f"{name}.{local}" if local else name: values for local, values in weights.items()}
        self.lines[name] = node.source
        self.ranks.append(_rank(layer, [self.ranks[i] for i in inputs]))
        return len(self.steps)

    def biased(self, place: int, bias: Array, used: str, result: str) -> bool:
        """Whether a Linear without a bias, whose value ``used`` has no other use, has taken this one.

        ``result`` is what it gives then.
        """
        step = self.steps[place - 1] if place else None
        if step is None or not isinstance(step.layer, Linear) or step.layer.bias or self.uses[used] != 1:
            return False
        if self.results.get(step.name) != used:  # another name of it, and it may be used under its own
            return False
        width = step.layer.out_features
        if bias.shape[-1:] != (width,) or bias.size != width or bias.ndim > self.ranks[place]:
            return False
        self.steps[place - 1] = Step(step.name, Linear(step.layer.in_features, width), step.inputs)
        self.weights[f"{step.name}.bias"] = bias.reshape(width)
        self.results[step.name] = result
        return True

    def _fresh(self, said: str) -> str:
        """A name without dots, which part weights from their layers."""
        plain = re.sub(r"[^A-Za-z0-9_]+", "_", said).strip("_") or "node"
        name, number = plain, 1
        while name in self._names:
            name, number = f"{plain}_{number}", number + 1
        self._names.add(name)
        return name


def said(name: str | bytes) -> str:
    """A stranger's name, for a sentence; bytes where it is no UTF-8."""
    return printable(name if isinstance(name, str) else name.decode(errors="replace"))[:_LONGEST_NAME]


def array_of(tensor: TensorProto) -> np.ndarray:
    """Its numbers, float64 or int64.  Raises UnsupportedError or EncodingError."""
    name = said(tensor.name)
    shape = tuple(tensor.dims)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data or tensor.HasField("segment"):
        raise refused(f"the numbers of {name!r} are in another file", "save the model with its weights inside")
    if tensor.data_type not in _REALS | _INTEGERS:
        raise refused(f"{name!r} holds no real numbers of 16, 32 or 64 bits", "export the network in float32")
    if len(shape) > MAX_DIMENSIONS or min(shape, default=1) < 1 or math.prod(shape) > MAX_WEIGHTS:
        raise refused(f"{name!r} has shape {shape[: MAX_DIMENSIONS + 1]}", "give it no empty and no huge dimension")
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError):
        values = np.empty(0)
    if values.shape != shape:
        raise EncodingError(f"{name!r} does not hold the numbers of its shape{INSTEAD}export the network again")
    if tensor.data_type in _INTEGERS:
        return values.astype(np.int64)
    if not np.isfinite(values).all():
        raise EncodingError(f"{name!r} holds values that are not finite{INSTEAD}train the network again")
    return values.astype(np.float64)


def taken(graph: GraphProto) -> Taken:
    """The one input.  Raises UsageError."""
    stored = {t.name for t in graph.initializer}
    inputs = [i for i in graph.input if i.name not in stored]
    if len(inputs) != 1 or len(graph.output) != 1:
        reason = f"it has {len(inputs)} inputs and {len(graph.output)} outputs"
        raise refused(reason, "export one that takes one tensor and gives one")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in _REALS:
        raise refused("its input is no tensor of real numbers", "export one that takes float32")
    sizes = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    if not sizes or len(sizes) > MAX_DIMENSIONS or not all(n is None or 0 < n <= MAX_WEIGHTS for n in sizes):
        raise refused("its input is not of a batch's shape (N, ...)", "export one that takes a batch")
    if stored & {""} or graph.sparse_initializer:
        raise UsageError("weights without names, or sparse ones, are not read")
    dtypes = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}
    return Taken(inputs[0].name, dtypes[kind.elem_type], sizes)


def _rank(layer: Layer, ranks: list[int]) -> int:
    match layer:
        case Flatten():
            return 2
        case Reshape():
            return 1 + len(layer.shape)
        case Parameter():
            return len(layer.shape)
        case Mean() | Norm():
            return ranks[0] - (0 if layer.keepdim else len(layer.dim))
    return max(ranks)
