"""The table of torch's own operations, and what its entries share.  Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from nn.importing.batch_layout import Layout
from nn.importing.blockers import refused
from nn.importing.export_graph import Graph, Known, Operator, Tensor, numbers
from nn.layer import Layer

OPERATORS: dict[str, Operator] = {}
"""By name, without the overload."""

_Operator = TypeVar("_Operator", bound=Operator)


def operator(*names: str) -> Callable[[_Operator], _Operator]:
    """What these become: a function of the graph and the operation's arguments, which adds steps or refuses."""

    def known(made: _Operator) -> _Operator:
        OPERATORS.update({f"aten.{name}": made for name in names})
        return made

    return known


def beside(graph: Graph, x: Any, layout: Layout) -> Tensor:
    """An operand that goes with tensors of this layout."""
    if isinstance(x, Known):
        return Tensor(graph.parameter(x, layout), layout)
    tensor = graph.tensor(x)
    missing = len(layout.shape) - len(tensor.layout.shape)
    if missing > 0:
        tensor = graph.reshaped(tensor, (*(1,) * missing, *tensor.layout.shape))
    own = tensor.layout
    if (own.axis, own.before, own.after) != (layout.axis, layout.before, layout.after):
        raise refused("its operands have the batch in different places", "bring it to the same dimension before")
    return tensor


def widest(*operands: Any) -> Layout:
    """Of those that depend on the input, the one of most dimensions."""
    return max((each.layout for each in operands if isinstance(each, Tensor)), key=lambda layout: len(layout.shape))


def single(x: Any) -> float | None:
    """A public number: a literal, or a constant of one that is nobody's weight."""
    if isinstance(x, int | float):
        return float(x)
    if isinstance(x, Known) and not x.name and x.values.numel() == 1:
        return float(numbers(x).item())
    return None


def binary(graph: Graph, layer: Layer, x: Any, y: Any) -> Tensor:
    layout = widest(x, y)
    made = layout.resized(graph.shape)
    return graph.add(layer, beside(graph, x, layout), beside(graph, y, layout), layout=made)
