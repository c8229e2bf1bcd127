"""Whether what a network changes in place has no other name that torch.export does not know of.  Needs torch.

Some operations may or may not give the very tensor that they are given (``contiguous``, dropout in evaluation): in
torch's memory a change is seen under both names, in an exported program under one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import fx

_MAYBE_THE_SAME = frozenset(
    f"aten.{name}"
    for name in ("dropout", "feature_dropout", "alpha_dropout", "contiguous", "to", "reshape", "flatten", "type_as")
)


OF_SIZES = frozenset(
    f"aten.{name}"
    for name in (
        "new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like", "fill",
    )
)  # fmt: skip
"""What takes of a tensor its sizes and type alone."""


def is_clear(graph: fx.Graph, taken: Collection[str]) -> bool:
    """Whether each change of what depends on the inputs ``taken`` is of a tensor that nobody else has."""
    of_input: set[fx.Node] = set()
    for node in graph.nodes:
        if name_of(node) in OF_SIZES:
            continue
        if node.name in taken or any(each in of_input for each in node.all_input_nodes):
            of_input.add(node)
            if not all(_is_its_own(each) for each in _changed(node)):
                return False
    return True


def name_of(node: fx.Node) -> str:
    """``aten.add`` of ``aten.add.Tensor``."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket)
    return str(getattr(target, "__name__", target))


def _changed(node: fx.Node) -> Iterator[fx.Node]:
    """The operands that it writes to."""
    if isinstance(node.target, torch._ops.OpOverload):
        for argument, given in zip(node.target._schema.arguments, node.args, strict=False):
            if argument.is_write and isinstance(given, fx.Node):
                yield given
        for argument in node.target._schema.arguments:
            given = node.kwargs.get(argument.name)
            if argument.is_write and isinstance(given, fx.Node):
                yield given


def _is_its_own(node: fx.Node) -> bool:
    """Whether it is a part of what was computed anew, of which every other name is one that torch.export knows of."""
    while _gives_its_operand(node):
        if name_of(node) in _MAYBE_THE_SAME or not node.all_input_nodes:
            return False
        node = node.all_input_nodes[0]
    if not isinstance(node.target, torch._ops.OpOverload) or name_of(node) in _MAYBE_THE_SAME:
        return False
    names = [node]
    for each in names:  # that grows on the way
        if any(name_of(user) in _MAYBE_THE_SAME for user in each.users):
            return False
        names += [user for user in each.users if _gives_its_operand(user)]
    return True


def _gives_its_operand(node: fx.Node) -> bool:
    """Whether its result is in the memory of what it is given: a view, or the very same, changed."""
    target: Any = node.target
    return isinstance(target, torch._ops.OpOverload) and any(r.alias_info is not None for r in target._schema.returns)
