"""Tokens (`nn.importing.tokens`) in what torch.export makes of a network.  Needs torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from nn.importing.building import Building, Known, Tensor, embedded
from nn.importing.export_aliases import name_of
from nn.importing.tokens import Tokens

_MOVES = frozenset(
    f"aten.{name}"
    for name in ("view", "_unsafe_view", "reshape", "flatten", "unsqueeze", "squeeze", "slice", "select", "contiguous")
)
_SAME = frozenset(f"aten.{name}" for name in ("to", "_to_copy", "clone", "detach", "alias", "contiguous", "type_as"))


def vocabulary(node: fx.Node) -> int:
    """How many tokens the smallest table has that an input's numbers are looked up in; 0 if they are not."""
    if node.meta["val"].is_floating_point():
        return 0
    depends = {node}
    for each in node.graph.nodes:
        if any(operand in depends for operand in each.all_input_nodes):
            depends.add(each)
    sizes, waiting, seen = list[int](), [node], {node}
    for each in waiting:  # that grows on the way
        for user in each.users:
            if name_of(user) == "aten.embedding" and user.args[1] is each:
                sizes.append(int(user.args[0].meta["val"].shape[0]))  # type: ignore[union-attr]
            elif (
                user not in seen
                and (is_pointwise(user) or name_of(user) in _MOVES | _SAME)
                # Of this token alone: a place, counted from what is no padding, is another number.
                and all(operand in seen or operand not in depends for operand in user.all_input_nodes)
            ):
                seen.add(user)
                waiting.append(user)
    return min(sizes, default=0)


def is_pointwise(node: fx.Node) -> bool:
    """Whether each number of its result is of one number of each operand."""
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def of_tokens(graph: Any, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Any:
    """What an operation makes of them, if that is a table again, or looked up in one; None else."""
    name = name_of(node)
    if name == "aten.embedding" and isinstance(args[0], Known) and isinstance(args[1], Tokens):
        return _looked_up(graph, args[1], args[0])
    if is_pointwise(node) or name in _SAME:
        return _computed(node, args, kwargs)
    if name in _MOVES and isinstance(args[0], Tokens):
        return _moved(graph, node, args, kwargs)
    return None


def as_numbers(graph: Any, argument: Any) -> Any:
    """Arguments with numbers in the place of tokens."""
    if isinstance(argument, Tokens):
        found = embedded(graph, argument.tensor, Known(argument.table.double()[:, None]))
        return graph.laid_out(found, argument.layout)
    if isinstance(argument, list):
        return [as_numbers(graph, each) for each in argument]
    return {k: as_numbers(graph, v) for k, v in argument.items()} if isinstance(argument, dict) else argument


def _looked_up(graph: Building, tokens: Tokens, weight: Known) -> Tensor:
    """Rows of a weight, at the places that the table says."""
    itself = torch.equal(tokens.table, torch.arange(len(weight.values)))
    return embedded(graph, tokens.tensor, weight if itself else Known(weight.values[tokens.table.long()]))


def _computed(node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Tokens | None:
    """A table of the results, where all else is single numbers."""
    found = [each for each in (*args, *kwargs.values()) if isinstance(each, Tokens)]
    rest = [each for each in (*args, *kwargs.values()) if not isinstance(each, Tokens)]
    if any(isinstance(each, Tensor) or (isinstance(each, Known) and each.values.numel() != 1) for each in rest):
        return None
    if any(each.tensor != found[0].tensor for each in found):
        return None

    def plain(each: Any) -> Any:
        if isinstance(each, Known):
            return each.values.reshape(())
        return each.table if isinstance(each, Tokens) else each

    target: Any = node.target
    table = target(*map(plain, args), **{name: plain(each) for name, each in kwargs.items()})
    return Tokens(found[0].tensor, table)


def _moved(graph: Any, node: fx.Node, args: list[Any], kwargs: dict[str, Any]) -> Tokens | None:
    """The same tokens in other places: as the operation moves them, with the axis of their vectors behind."""
    tokens, name = args[0], name_of(node)
    if name in ("aten.slice", "aten.select"):
        axis = args[1] if len(args) > 1 else 0
        args = [args[0], axis % len(tokens.layout.shape), *args[2:]]
    elif kwargs:
        return None
    tensor = graph.moved(node, [tokens.tensor, *args[1:]], kwargs, len(tokens.table))
    return Tokens(tensor, tokens.table)
