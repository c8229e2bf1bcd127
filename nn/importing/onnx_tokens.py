"""Tokens (`nn.importing.tokens`) in an ONNX graph.  Needs onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, TensorProto
from onnx.reference import ReferenceEvaluator

from nn.importing.building import Building, Known, Tensor, embedded
from nn.importing.tokens import Tokens

if TYPE_CHECKING:
    from nn.importing.onnx_graph import Graph

_MOVES = frozenset(("Unsqueeze", "Squeeze", "Reshape", "Flatten"))
_POINTWISE = frozenset(
    """
    Abs Add And Cast Clip Equal Greater GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Not Or Sub
    Where Xor
    """.split()  # noqa: SIM905 - so many
)
_SAME = frozenset(("Cast", "Identity", "DequantizeLinear"))


def vocabulary(name: str, nodes: Sequence[NodeProto], stored: Mapping[str, TensorProto]) -> int:
    """How many tokens the smallest table has that an input is looked up in; 0 if it is not."""
    rows = {key: int(tensor.dims[0]) for key, tensor in stored.items() if tensor.dims}
    own, sizes = {name}, list[int]()
    for node in nodes:
        if node.op_type == "Constant":
            tensors = [a.t for a in node.attribute if a.name == "value" and a.t.dims]
            rows |= {node.output[0]: int(tensors[0].dims[0])} if tensors else {}
        elif node.op_type in _SAME and node.input and node.input[0] in rows:
            rows[node.output[0]] = rows[node.input[0]]
        if not own & set(node.input):
            continue
        if node.op_type == "Gather" and node.input[1] in own:
            along = next((a.i for a in node.attribute if a.name == "axis"), 0)
            if not along and node.input[0] in rows:
                sizes.append(rows[node.input[0]])
        elif node.op_type in _MOVES | _SAME and node.input[0] in own:
            own.add(node.output[0])
    return min(sizes, default=0)


def of_tokens(graph: Graph, node: NodeProto, values: Sequence[Any]) -> Any:
    """What a node makes of them, if that is a table again, or looked up in one; None else."""
    kind, first = node.op_type, values[0]
    if kind == "Gather" and isinstance(first, Known) and isinstance(values[1], Tokens):
        along = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return None if along else _looked_up(graph, values[1], first)
    if kind in _MOVES and isinstance(first, Tokens):
        (name,) = node.output
        shape = graph.sizes_of(name)
        if shape is None:
            return None
        made = first.layout.reshaped(shape, graph.batch)
        behind = made.resized((*shape, len(first.table)))
        return Tokens(graph.laid_out(first.tensor, behind), first.table)
    if kind not in _POINTWISE:
        return None
    own = [each for each in values if isinstance(each, Tokens)]
    rest = [each for each in values if not isinstance(each, Tokens)]
    if any(each.tensor != own[0].tensor for each in own):
        return None
    if any(not isinstance(each, Known) or each.values.size != 1 for each in rest):
        return None
    names = [name for name in node.input if name]
    fed = {
        name: each.table if isinstance(each, Tokens) else each.values.reshape(())
        for name, each in zip(names, values, strict=True)
    }
    with np.errstate(all="ignore"):
        (table,) = ReferenceEvaluator(node, opsets=graph.opsets).run(None, fed)
    return Tokens(own[0].tensor, np.asarray(table))


def as_numbers(graph: Building, tokens: Tokens) -> Tensor:
    """The numbers that a table says."""
    found = embedded(graph, tokens.tensor, Known(tokens.table.astype(np.float64)[:, None]))
    return graph.laid_out(found, tokens.layout)


def _looked_up(graph: Building, tokens: Tokens, weight: Known) -> Tensor:
    """Rows of a weight of any dimensions, at the places that the table says."""
    count = len(weight.values)
    itself = np.array_equal(tokens.table, np.arange(count))
    places = tokens.table.astype(np.int64) % count
    rows = weight if itself else Known(weight.values[places])
    flat = Known(rows.values.reshape(len(rows.values), -1), rows.name)
    found = embedded(graph, tokens.tensor, flat)
    shape = (*tokens.layout.shape, *weight.values.shape[1:])
    return graph.laid_out(found, found.layout.resized(shape))
