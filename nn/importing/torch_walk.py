"""A walk over a traced graph that does not end at the first thing that has no counterpart.  Needs torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import fx

from mpc.errors import TesseraError
from nn.activations import Interval
from nn.importing.blockers import SMOOTH, Blocker, refused
from nn.importing.torch_in_place import STALE, needed, without_changes
from nn.importing.torch_layers import MODULES
from nn.importing.torch_modules import OPTIONS, is_torchs_own, make_layer
from nn.importing.torch_trace import WHOLE, Trace

SHAPE = "shape"
"""In a node's ``meta``: its tensor's, where an example was run through."""


class _Lost(NamedTuple):
    """What comes of something that could not be converted: no reason of its own to refuse what follows."""


LOST = _Lost()


class _LostOperandError(Exception):
    """What is asked for has come to nothing, and that has been said."""


class Walk:
    """Visits the nodes that the result depends on; ``values`` is what became of each.

    A subclass has a method ``_op`` for each kind of node.  What it raises is put down, with its place, and the walk
    goes on: what depends on that is left alone.
    """

    def __init__(self, traced: Trace, interval: Interval | None) -> None:
        self.traced = traced
        self.holder = traced.holder
        self.interval = interval
        self.values: dict[fx.Node, Any] = {}
        self.blockers = list(traced.blockers)
        self._said = {blocker.source for blocker in traced.blockers if blocker.source}
        self.source = ""
        """The line of forward that is being looked at."""
        self.refused: set[str] = set()
        """Classes of torch's own layers that have no parts, and no counterpart."""

    def walk(self) -> None:
        """Visit them all."""
        graph = self.traced.graph
        of_its_own = without_changes(graph, self.holder)
        for node in of_its_own:
            reason = "it changes the module's own weights or buffers"
            remedy = "leave that out in evaluation (self.training), or compute it anew: y = y + 1"
            self.blockers.append(Blocker(self.where(node), reason, remedy, self.source_of(node)))
        wanted = set(graph.nodes) if self.traced.stopped else needed(graph)
        for node in graph.nodes:
            if node in wanted:
                self.source = self.source_of(node)
                self.values[node] = LOST if node in of_its_own else self._visit(node)
        if self.traced.stopped:
            self._look_at_the_rest({node.target for node in graph.nodes if node.op == "call_module"})

    def _visit(self, node: fx.Node) -> Any:
        try:
            if STALE in node.meta:
                raise refused(
                    f"it reads a tensor that {node.meta[STALE]!r} has changed in place through another view of it",
                    "compute that anew: y = y + 1, or without inplace=True",
                )
            if node.target in self.traced.whole:
                return LOST
            return getattr(self, f"_{node.op}")(node)
        except _LostOperandError:
            return LOST
        except Exception as error:  # noqa: BLE001 - arguments are whatever forward makes of them
            if self.source in self._said and node.op != "call_module":
                return LOST  # of the very line that could not be followed
            if node.op == "call_module" and _is_single(module := self.holder.get_submodule(str(node.target))):
                self.refused.add(type(module).__name__)
            remedy = OPTIONS if isinstance(error, TesseraError) and node.op != "output" else SMOOTH
            self.blockers.append(Blocker.of(self.where(node), error, self.source, remedy))
            return LOST

    def _look_at_the_rest(self, seen: Iterable[Any]) -> None:
        """The layers that were not come to: each may have a reason of its own."""
        for target, module in self.holder.named_modules():
            if _is_single(module) and target not in set(seen):
                try:
                    make_layer(module, self.interval)
                except Exception as error:  # noqa: BLE001 - as above
                    self.refused.add(type(module).__name__)
                    where = f"layer {path_of(target)!r} is {type(module).__name__}"
                    self.blockers.append(Blocker.of(where, error, "", OPTIONS))

    def operand(self, node: fx.Node) -> Any:
        """What became of it.  Raises _LostOperandError."""
        value = self.values[node]
        if value is LOST:
            raise _LostOperandError
        return value

    def where(self, node: fx.Node) -> str:
        """As a sentence begins."""
        if node.op == "call_module":
            module = self.holder.get_submodule(str(node.target))
            return f"layer {path_of(node.target)!r} is {type(module).__name__}"
        if node.op in ("call_function", "call_method"):
            path = next(reversed(node.meta.get("nn_module_stack", {"": None})), "").partition("@")[0]
            return f"{name_of(node.target)!r} in forward of {'the model' if path in ('', WHOLE) else path_of(path)}"
        return "the result of forward" if node.op == "output" else f"{path_of(node.target)!r} in forward"

    def source_of(self, node: fx.Node) -> str:
        """The line of forward; of what only torch's own code calls, whose."""
        if node.meta.get("source"):
            return str(node.meta["source"])
        paths = [path for path in node.meta.get("nn_module_stack", {}) if path != node.target]
        module = self.holder.get_submodule(paths[-1].partition("@")[0] if paths else WHOLE)
        return f"forward of {type(module).__name__}"


def _is_single(module: torch.nn.Module) -> bool:
    """Whether it is a layer, and not made of others."""
    return type(module) in MODULES or (is_torchs_own(module) and not list(module.children()))


class _Shapes(fx.Interpreter):
    """Runs the graph, and notes each tensor's shape."""

    def __init__(self, traced: Trace) -> None:
        super().__init__(traced.holder, graph=traced.graph)
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor):
            n.meta[SHAPE] = tuple(result.shape)
        return result


def note_shapes(traced: Trace, example: torch.Tensor) -> None:
    """Note every value's shape, by running a copy of the example through.  Raises what forward raises."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        _Shapes(traced).run(example.clone())


def name_of(target: Any) -> str:
    """A function's or method's."""
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def path_of(target: Any) -> str:
    """A name of the graph, as the module calls it; a module that is a single layer is called ``0``."""
    return "0" if target == WHOLE else str(target).removeprefix(f"{WHOLE}.")
