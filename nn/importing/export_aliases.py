"""Whether what a network changes in place has no other name that torch.export does not know of.  Needs torch.

Some operations may or may not give the very tensor that they are given (``contiguous``, dropout in evaluation): in
torch's memory a change is seen under both names, in an exported program under one.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping

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
    """Whether each change of what depends on the inputs ``taken`` is of a tensor that nobody reads under a name that
    may be its own, or a copy's.
    """
    of_input: set[fx.Node] = set()
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if name_of(node) in OF_SIZES:
            continue
        if node.name in taken or any(each in of_input for each in node.all_input_nodes):
            of_input.add(node)
            if not all(_is_its_own(each, node, order) for each in _changed(node)):
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
    if isinstance(node.target, torch._ops.OpOverload) and not _is_off(node):
        for argument, given in zip(node.target._schema.arguments, node.args, strict=False):
            if argument.is_write and isinstance(given, fx.Node):
                yield given
        for argument in node.target._schema.arguments:
            given = node.kwargs.get(argument.name)
            if argument.is_write and isinstance(given, fx.Node):
                yield given


def _is_off(node: fx.Node) -> bool:
    """Whether it is a dropout in evaluation, which changes nothing."""
    return "dropout_" in name_of(node) and node.args[2:] == (False,)


def _is_its_own(tensor: fx.Node, change: fx.Node, order: Mapping[fx.Node, int]) -> bool:
    """Whether what ``change`` writes to is a part of what was computed anew, and nobody reads it later by a name that
    was there before and may or may not be the same tensor's.
    """
    certain = _names(tensor, {True})
    every = _names(tensor, {True, False})
    roots = [node for node in every if not any(True for _ in _operands(node))]
    if not all(isinstance(root.target, torch._ops.OpOverload) for root in roots):
        return False
    before = [node for node in every - certain if order[node] < order[change]]
    return all(order[user] <= order[change] for node in before for user in node.users)


def _names(tensor: fx.Node, kinds: Collection[bool]) -> set[fx.Node]:
    """All nodes that are the same memory by steps of these kinds: those that torch.export knows of, and others."""
    found, waiting = {tensor}, [tensor]
    for node in waiting:  # that grows on the way
        around = [
            *_operands(node),
            *((user, kind) for user in node.users for up, kind in _operands(user) if up is node),
        ]
        more = {other for other, kind in around if kind in kinds} - found
        found |= more
        waiting += more
    return found


def _operands(node: fx.Node) -> Iterator[tuple[fx.Node, bool]]:
    """What its result is in the memory of, and whether that is certain: of a view, or the very same, changed."""
    given = node.all_input_nodes
    if not given:
        return
    if name_of(node) in _MAYBE_THE_SAME:
        yield given[0], False
    elif node.target is operator.getitem:
        yield given[0], True
    elif isinstance(node.target, torch._ops.OpOverload):
        for argument, result in zip(node.target._schema.arguments, [*node.args], strict=False):
            if argument.alias_info is not None and isinstance(result, fx.Node):
                yield result, True
        for argument in node.target._schema.arguments:
            written = node.kwargs.get(argument.name)
            if argument.alias_info is not None and isinstance(written, fx.Node):
                yield written, True
