"""From the graph of an ONNX file to an architecture and its weights, node by node.  Needs onnx.

The file is a stranger's: of its nodes only those of constants are computed here (`onnx_folding`), once their sizes are
known.  Sizes are followed for a batch of a prime number of inputs, or of as many as the file is for, wherever the graph
puts it (`batch_layout`).
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, TypeProto
from onnx.helper import make_node, make_tensor_type_proto

from mpc.errors import EncodingError, UnsupportedError
from mpc.tensor_type import Shape
from nn.architecture import MAX_ELEMENTS, MAX_STEPS, Step
from nn.importing.batch_layout import Layout
from nn.importing.blockers import INSTEAD, Blocker, refused
from nn.importing.building import Building, Known, Tensor
from nn.importing.onnx_file import READ, Taken, array_of, said
from nn.importing.onnx_folding import FOLDED, MOST_SIZES, as_proto, folded, inferred, type_of
from nn.importing.onnx_nodes import Node
from nn.importing.onnx_rounded import Rounded
from nn.importing.onnx_tokens import as_numbers, of_tokens
from nn.importing.sklearn_trees import Read
from nn.importing.tokens import Tokens
from nn.inputs import Result
from nn.layer import Array, Layer
from nn.layers import Linear
from nn.parts import Part

_PAST = frozenset(("Add", "Where", "Cast", "Reshape", "Identity", "Mul", "Sub", "Expand", "Unsqueeze", "Slice"))
"""What comes between a mask and its softmax."""


class _LostError(Exception):
    """An operand comes from a node that stands in the way already."""


class Input(NamedTuple):
    """One of the graph's: what it is, its shape without the batch, and how many tokens there are; 0 for numbers."""

    taken: Taken
    shape: Shape
    tokens: int


class Graph(Building):
    """Constants and steps, as far as it has been walked; and what stands in the way."""

    def __init__(self, proto: ModelProto, batch: int) -> None:
        super().__init__(batch)
        self.results: dict[str, str] = {}
        """Of a step, by its name: the value of the graph that it gives."""
        self.uses: Counter[str] = Counter()
        self.outputs: tuple[Result, ...] = ()
        """Of several: they are a row, one after the other."""
        self.roundings: dict[int, float] = {}
        """Where the file rounds what depends on its input to few bits: places, and steps; 0 for a 255th of a range."""
        self.log_sums: dict[int, tuple[int, int]] = {}
        """Of logarithms of sums of exponentials, by place: of what, and along which axis of the model's tensor."""
        self.read: Read | None = None
        """What trees take rows of samples for, once these are rounded as inputs are."""
        self.has_trees = False
        """Whether trees of the input itself do."""
        self._proto = proto
        self.opsets = {o.domain: o.version for o in proto.opset_import}
        self._values: dict[str, Any] = {}
        self._origins: dict[int, str] = {}
        """Of arrays that are held in `_values`, which initializer each is."""
        self._types: dict[str, TypeProto] = {}
        self._takers: dict[str, list[NodeProto]] = {}
        self._stored = {t.name: t for t in proto.graph.initializer}
        self._node: Node
        self._elements = 0

    def walk(self, inputs: Sequence[Input], operators: Mapping[str, Any], wanted: Sequence[str]) -> list[Blocker]:
        """All that stands in the way.  What ``wanted`` outputs do not need is left out."""
        graph, blockers = self._proto.graph, list[Blocker]()
        nodes, needed = list[tuple[int, NodeProto]](), set(wanted)
        for number in reversed(range(len(graph.node))):
            node = graph.node[number]
            if needed & set(node.output) - {""}:
                nodes.append((number, node))
                needed.update(node.input)
        self.uses = Counter([*wanted, *(name for _, node in nodes for name in node.input)])
        for _, each in nodes:
            for name in each.input:
                self._takers.setdefault(name, []).append(each)
        self._take(inputs)
        for number, each in reversed(nodes):
            self._node = node_ = Node(self, number, each)
            value: Any = None
            try:
                value = self._converted(node_, each, operators)
            except _LostError:
                pass
            except Exception as error:  # noqa: BLE001 - a stranger's numbers, in whatever way they are none
                blockers.append(Blocker.of(f"node {node_.said!r} is {node_.kind}", error, node_.source, READ))
            found = value if isinstance(value, list) else [value]
            for name, one in itertools.zip_longest(each.output, found):
                if not name:
                    continue
                self._values[name] = one
                if isinstance(one, Tensor) and self.sizes_of(name) is None:
                    self._types[name] = make_tensor_type_proto(self.kind_of(name), one.layout.shape)
                if isinstance(one, Tensor) and one.place:
                    self.results.setdefault(self.steps[one.place - 1].name, name)
        if not blockers:
            blockers += self._ended(wanted)
        return blockers

    def _take(self, inputs: Sequence[Input]) -> None:
        """The model's one input is the graph's; of several, a row of all."""
        start = 0
        for each in inputs:
            kind = each.taken.kind if each.taken.is_whole else TensorProto.FLOAT
            self._types[each.taken.name] = make_tensor_type_proto(kind, (self.batch, *each.shape))
            behind = (each.tokens,) if each.tokens else ()
            whole = Layout((self.batch, *each.shape, *behind), 0, 1, 1)
            tensor = Tensor(0, whole)
            if len(inputs) > 1:
                self._node = Node(self, 0, make_node("Input", [], [each.taken.name], each.taken.name))
                self._node.source = f"input {self._node.said!r}"
                count = math.prod(whole.inner)
                tensor = self.add(Part(((start, 1, count),)), tensor, layout=Layout((self.batch, count), 0, 1, 1))
                tensor, start = self.laid_out(tensor, whole), start + count
            self._values[each.taken.name] = Tokens(tensor, np.arange(each.tokens)) if each.tokens else tensor

    def _converted(self, node: Node, proto: NodeProto, operators: Mapping[str, Any]) -> Any:
        if any(name in self._values or name in self._stored for name in proto.output if name):
            raise refused("its result has the name of another value", READ)
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        operator = operators.get(f"{domain}.{proto.op_type}" if domain else proto.op_type)
        if operator is None and (domain or proto.op_type not in FOLDED):
            of = f" of {said(proto.domain)}" if proto.domain else ""
            raise refused(f"operator {node.kind}{of} is not read", READ)
        values = [self.value(name) for name in proto.input if name]
        self._note_types(proto)
        # Where all is known, it is computed here; of sizes, that is always so.
        known = all(isinstance(each, Known) for each in values)
        if not domain and (proto.op_type in ("Shape", "Size") or (values and known and proto.op_type in FOLDED)):
            return folded(proto, self._fed(proto), self.opsets, self.sizes_of)
        if not domain and any(isinstance(each, Tokens) for each in values):
            found = of_tokens(self, proto, values)
            if found is not None:
                return found
        if operator is None:
            raise refused(f"operator {node.kind} of what depends on the input is not read", READ)
        value = operator(node)
        if not isinstance(value, list) and any(self.uses[name] for name in proto.output[1:]):
            raise refused("another result than its first is used", READ)
        node.finish()
        return value

    def _fed(self, proto: NodeProto) -> dict[str, np.ndarray]:
        """What a node that is computed here takes; of a tensor, whose sizes alone count, nothing in its sizes."""
        found = {}
        for name in filter(None, proto.input):
            value = self.value(name)
            if isinstance(value, Known):
                found[name] = value.values
            else:
                found[name] = np.broadcast_to(np.float32(0), self.as_tensor(value).layout.shape)
        return found

    def _ended(self, wanted: Sequence[str]) -> list[Blocker]:
        """The result is the last step's; several are joined to rows."""
        found = [self._values.get(name) for name in wanted]
        tensors = [self.as_tensor(each) for each in found]
        for name, each in zip(wanted, tensors, strict=True):
            what = "the graph's output" + (f" {said(name)!r}" if len(wanted) > 1 else "")
            if not isinstance(each, Tensor):
                return [Blocker(what, "it does not depend on its input", READ, "its outputs")]
            if not each.layout.is_plain:
                return [Blocker(what, "the batch is not its first dimension", READ, "its outputs")]
        self.outputs = self.ended(list(zip(map(said, wanted), tensors, strict=True)))
        return []

    # -- what operators ask for ----------------------------------------------------------------------------------------

    @property
    def shape(self) -> Shape:
        return self._node.shapes[0]

    @property
    def source(self) -> str:
        return self._node.source

    def named(self, weights: Mapping[str, Known]) -> str:
        """Without dots, which part weights from their layers."""
        return re.sub(r"[^A-Za-z0-9_]+", "_", self._node.said).strip("_") or "node"

    def origin(self, known: Known) -> str:
        return self._origins.get(id(_whole(known.values)), "")

    def array(self, known: Known) -> Array:
        values = np.asarray(known.values, np.float64)
        if not np.isfinite(values).all():
            raise EncodingError(f"it holds values that are not finite{INSTEAD}train the network again")
        return values

    def step(self, name: str, layer: Layer, inputs: list[int], weights: Mapping[str, Array]) -> int:
        self._elements += sum(map(math.prod, layer.parameters.values()))
        if self._elements > MAX_ELEMENTS or len(self.steps) >= MAX_STEPS:
            raise UnsupportedError(f"a model of more than {MAX_ELEMENTS} weights, or {MAX_STEPS} layers")
        return super().step(name, layer, inputs, weights)

    def value(self, name: str) -> Any:
        """What a name stands for.  Raises UnsupportedError."""
        if name not in self._values:
            if name not in self._stored:
                raise refused(f"nothing before it makes its input {said(name)!r}", READ)
            values = array_of(self._stored[name])
            self._values[name] = Known(values, said(name))
            self._origins[id(_whole(values))] = name
        found = self._values[name]
        if found is None:
            raise _LostError
        return found

    def read_by_trees(self, x: Tensor) -> Read | None:
        """What they take ``x`` for, if it is the input; None for what was computed, or without samples."""
        if x.place or self.read is None:
            return None
        self.has_trees = True
        return self.read

    def as_tensor(self, value: Any) -> Any:
        """A tensor that is held with more than its numbers, as one."""
        if isinstance(value, Tokens):
            return as_numbers(self, value)
        return value.tensor if isinstance(value, Rounded) else value

    def sizes_of(self, name: str) -> Shape | None:
        """Of a value of the graph, for the batch that sizes are for, as far as they are known."""
        found = self._types.get(name)
        if found is None or not found.tensor_type.HasField("shape"):
            return None
        dims = found.tensor_type.shape.dim
        if not all(d.HasField("dim_value") for d in dims):
            return None
        return tuple(d.dim_value for d in dims)

    def kind_of(self, name: str) -> int:
        """Of what numbers a value is, as onnx counts types; real ones where that is not known."""
        found = self._types.get(name)
        return TensorProto.FLOAT if found is None else int(found.tensor_type.elem_type)

    def feeds_softmax(self, name: str) -> bool:
        """Whether all that takes a value is a softmax, past what keeps numbers and sums."""
        waiting, seen = [name], {name}
        while waiting:
            takers = self._takers.get(waiting.pop(), [])
            past = [taker for taker in takers if taker.op_type != "Softmax"]
            if not takers or any(taker.op_type not in _PAST for taker in past):
                return False
            given = {taker.output[0] for taker in past}
            waiting += given - seen
            seen |= given
        return True

    def biased(self, x: Tensor, bias: Array, used: str) -> bool:
        """Whether a Linear without a bias, whose value ``used`` has no other use, has taken this one."""
        step = self.steps[x.place - 1] if x.place else None
        if step is None or not isinstance(step.layer, Linear) or step.layer.bias or self.uses[used] != 1:
            return False
        if self.results.get(step.name) != used:  # another name of it, and it may be used under its own
            return False
        width = step.layer.out_features
        if bias.shape[-1:] != (width,) or bias.size != width or bias.ndim > len(x.layout.shape):
            return False
        self.steps[x.place - 1] = Step(step.name, Linear(step.layer.in_features, width), step.inputs)
        self.weights[f"{step.name}.bias"] = bias.reshape(width)
        self.results[step.name] = self._node.result
        return True

    def _note_types(self, proto: NodeProto) -> None:
        """Types of what a node gives, as far as onnx can tell."""
        types, data = {}, {}
        for name in filter(None, proto.input):
            value = self.value(name)
            if isinstance(value, Known):
                types[name] = type_of(value.values)
                if value.values.size <= MOST_SIZES and value.values.dtype.kind in "iubf":
                    data[name] = as_proto(value.values, name)
            elif name in self._types:
                types[name] = self._types[name]
        self._types |= inferred(proto, types, data, self.opsets)


def _whole(array: np.ndarray) -> np.ndarray:
    """The array that another is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
