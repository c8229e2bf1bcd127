"""Changes in place, written as what they mean: whoever reads a tensor later reads what it has become.

torch's tensors share memory.  ``y += 1``, ``x.mul_(2)`` and ``SiLU(inplace=True)`` change a tensor that forward may
read again under another name; a graph of values knows no such thing.  So each change makes a new value, and all later
uses of the tensor that it changed are uses of that one.  A view that overlaps it has no value then that could be named:
reading it is refused.  Needs torch.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx, nn

from nn.importing.torch_trace import CHANGING, is_size

_SAME = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_SAME_FUNCTIONS = frozenset(
    ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
)
"""What returns its very operand, in evaluation."""

_VIEW_NAMES = """
    as_strided broadcast_to broadcast_tensors chunk contiguous data detach diagonal expand expand_as flatten
    getattr getitem H hsplit vsplit dsplit tensor_split split split_with_sizes imag real mH mT T t movedim
    moveaxis narrow permute ravel reshape reshape_as select squeeze swapaxes swapdims transpose unbind unflatten
    unfold unsqueeze view view_as atleast_1d atleast_2d atleast_3d meshgrid values indices to type type_as float
    double half bfloat16 cpu to_dense
"""
_VIEWS = frozenset(_VIEW_NAMES.split())
"""What returns a view of its operand, or may."""

_OPERATORS = {getattr(operator, f"i{name}") for name in CHANGING}

STALE = "stale"
"""In a node's ``meta``: operands that have no value any more, by the name of what changed them."""


def without_changes(graph: fx.Graph, holder: nn.Module) -> set[fx.Node]:
    """Let each node read what its operands are by then; returns the changes of the module's own tensors."""
    memory: dict[fx.Node, fx.Node] = {}  # of each tensor, whose memory it is in
    named: dict[fx.Node, fx.Node] = {}  # and which view of that it is
    now: dict[fx.Node, fx.Node] = {}
    stale: dict[fx.Node, str] = {}
    of_its_own: set[fx.Node] = set()
    for node in graph.nodes:
        operands = [now.get(n, n) for n in node.all_input_nodes]
        if lost := [stale[n] for n in node.all_input_nodes if n in stale]:
            node.meta[STALE] = lost[0]
        first = node.kwargs.get("out") or (node.args[0] if node.args else node.kwargs.get("input"))
        node.args = fx.map_arg(node.args, lambda n: now.get(n, n))
        node.kwargs = fx.map_arg(node.kwargs, lambda n: now.get(n, n))
        memory[node] = named[node] = node
        if not isinstance(first, fx.Node) or is_size(first) or not operands:
            continue
        if not _changes(node, holder):
            if _is_same(node, holder):
                memory[node], named[node] = memory[first], named[first]
            elif _name(node) in _VIEWS or _is_view(node, holder):
                memory[node] = memory[first]
            continue
        changed, view = memory[first], named[first]
        memory[node], named[node] = changed, view
        if changed.op == "get_attr":
            of_its_own.add(node)
        for other in list(memory):
            if other is not node and memory[other] is changed:
                if named[other] is view:
                    now[other] = node
                else:
                    stale[other] = _name(node)
    return of_its_own


def _module(node: fx.Node, holder: nn.Module) -> nn.Module | None:
    return holder.get_submodule(str(node.target)) if node.op == "call_module" else None


def _changes(node: fx.Node, holder: nn.Module) -> bool:
    module = _module(node, holder)
    if module is not None:
        return bool(getattr(module, "inplace", False))
    name = _name(node)
    if node.op == "call_method":
        return name.endswith("_") and not name.endswith("__")
    if node.op != "call_function":
        return False
    in_place = (
        bool(node.kwargs.get("inplace", False))
        or node.kwargs.get("out") is not None
        or _argument(node, "inplace") is True
    )
    # torch.relu_, torch.nn.functional.relu_, operator.iadd, operator.setitem.
    return in_place or node.target in _OPERATORS or node.target is operator.setitem or name.rstrip("_") + "_" == name


def _argument(node: fx.Node, name: str) -> Any:
    """What a Python function is given under a name, by its place."""
    code = getattr(node.target, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code is not None else ()
    return node.args[names.index(name)] if name in names and names.index(name) < len(node.args) else None


def _is_same(node: fx.Node, holder: nn.Module) -> bool:
    module = _module(node, holder)
    return isinstance(module, _SAME) if module is not None else _name(node) in _SAME_FUNCTIONS


def _is_view(node: fx.Node, holder: nn.Module) -> bool:
    return isinstance(_module(node, holder), nn.Flatten | nn.Unflatten)


def _name(node: fx.Node) -> str:
    target = node.target
    if node.op == "call_module":
        return str(target).rpartition(".")[2]
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def needed(graph: fx.Graph) -> set[fx.Node]:
    """What the result depends on, once changes are values."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    found, rest = set[fx.Node](), [output]
    while rest:
        node = rest.pop()
        if node not in found:
            found.add(node)
            rest += node.all_input_nodes
    return found
