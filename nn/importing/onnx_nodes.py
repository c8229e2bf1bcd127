"""One node of an ONNX graph, as its operator asks for it.  Needs onnx."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from onnx import AttributeProto, NodeProto

from mpc.tensor_type import MAX_DIMENSIONS, Shape
from nn.importing.batch_layout import Layout
from nn.importing.blockers import refused
from nn.importing.building import Known, Tensor
from nn.importing.onnx_file import READ, array_of, said
from nn.layer import Array, Layer, axis_of

if TYPE_CHECKING:
    from nn.importing.onnx_graph import Graph

Value = Any
"""What depends on the input, or a constant; or a list of all results of a node that gives several."""

_KINDS: dict[Any, Callable[[AttributeProto], Any]] = {
    AttributeProto.FLOAT: lambda a: float(a.f),
    AttributeProto.INT: lambda a: int(a.i),
    AttributeProto.STRING: lambda a: a.s.decode(),
    AttributeProto.TENSOR: lambda a: array_of(a.t),
    AttributeProto.FLOATS: lambda a: tuple(map(float, a.floats)),
    AttributeProto.INTS: lambda a: tuple(map(int, a.ints)),
    AttributeProto.STRINGS: lambda a: tuple(s.decode() for s in a.strings),
}
_Kind = TypeVar("_Kind", bound=int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...])


class Node:
    """One node, for its operator to ask."""

    def __init__(self, graph: Graph, number: int, proto: NodeProto) -> None:
        self.graph = graph
        self.proto = proto
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
        if type(value) is not type(default) or (isinstance(value, tuple) and len(value) > 2 * MAX_DIMENSIONS):
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

    def value(self, i: int) -> Any:
        """Whatever input ``i`` is."""
        if not self.has(i):
            raise refused(f"it has no input {i}", READ)
        return self.graph.value(self._inputs[i])

    def operand(self, i: int) -> Tensor | Known:
        """A tensor, or real numbers."""
        value = self.graph.as_tensor(self.value(i))
        if isinstance(value, Known) and value.values.dtype != np.float64:
            raise refused(f"its input {i} holds integers", READ)
        found: Tensor | Known = value
        return found

    def place(self, i: int) -> Tensor:
        """A tensor that depends on the graph's input."""
        return self.graph.tensor(self.graph.as_tensor(self.value(i)))

    def plain(self, i: int) -> Tensor:
        """The same, with the batch first and alone."""
        return self.graph.plain(self.place(i))

    def constant(self, i: int) -> Array:
        """Real numbers that the file holds."""
        value = self.operand(i)
        if isinstance(value, Tensor):
            raise refused(f"its input {i} is computed, and no constant of the file", READ)
        numbers: Array = value.values
        return numbers

    def known(self, i: int) -> np.ndarray:
        """Numbers that the file holds, of any type."""
        value = self.value(i)
        if not isinstance(value, Known):
            raise refused(f"its input {i} is computed, and no constant of the file", READ)
        found: np.ndarray = value.values
        return found

    def number(self, i: int) -> float:
        """One number that the file holds."""
        value = self.known(i)
        if value.size != 1:
            raise refused(f"its input {i} is not a single number", READ)
        return float(value.item())

    def integers(self, i: int) -> tuple[int, ...]:
        """Integers that the file holds, or that come of sizes."""
        value = self.value(i)
        if (
            not isinstance(value, Known)
            or value.values.dtype.kind != "i"
            or value.values.ndim > 1
            or value.values.size > 2 * MAX_DIMENSIONS
        ):
            raise refused(f"its input {i} is no constant row of a few integers", READ)
        return tuple(map(int, value.values.reshape(-1)))

    def axes(self, i: int, tensor: Tensor) -> tuple[int, ...]:
        """Of an attribute, or input ``i``, sorted, from 0; all of them where nothing is said."""
        found = self.attribute("axes")
        rank = len(tensor.layout.shape)
        if self.has(i):
            found = self.integers(i)
        axes = found or range(rank)
        return tuple(sorted({axis_of(int(axis), rank) for axis in axes}))

    def rank(self, tensor: Tensor) -> int:
        """How many dimensions a tensor has, the batch's among them."""
        return len(tensor.layout.shape)

    @property
    def shapes(self) -> list[Shape]:
        """Of what it gives, for the batch that sizes are for.  Raises UnsupportedError where that is not known."""
        found = [self.graph.sizes_of(name) for name in self.proto.output if name]
        if any(each is None for each in found):
            raise refused("its result's sizes are only known when it runs", READ)
        return [each for each in found if each is not None]

    def is_used(self, i: int) -> bool:
        """Whether anything takes its result ``i``."""
        return i < len(self.proto.output) and bool(self.graph.uses[self.proto.output[i]])

    def add(self, layer: Layer, *inputs: Tensor, layout: Layout | None = None, **weights: Array) -> Tensor:
        """A step."""
        held = {name: Known(np.asarray(values)) for name, values in weights.items()}
        return self.graph.add(layer, *inputs, layout=layout, **held)

    def same(self, layer: Layer, x: Tensor, **weights: Array) -> Tensor:
        """A step that changes no sizes."""
        return self.add(layer, x, layout=x.layout, **weights)
