"""The table of torch's own operations.  Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from nn.importing.building import Known
from nn.importing.export_graph import Operator

OPERATORS: dict[str, Operator] = {}
"""By name, without the overload."""

_Operator = TypeVar("_Operator", bound=Operator)


def operator(*names: str) -> Callable[[_Operator], _Operator]:
    """What these become: a function of the graph and the operation's arguments, which adds steps or refuses."""

    def known(made: _Operator) -> _Operator:
        OPERATORS.update({f"aten.{name}": made for name in names})
        return made

    return known


def single(x: Any) -> float | None:
    """A public number: a literal, or a constant of one that is nobody's weight."""
    if isinstance(x, int | float):
        return float(x)
    if isinstance(x, Known) and not x.name and x.values.numel() == 1:
        return float(x.values.item())
    return None
