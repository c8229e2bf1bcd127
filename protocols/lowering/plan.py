"""Planning: from what was written to the program that computes it.

Two steps, in this order:

* ``REWRITES``: from a graph to one that means the same and is cheaper;
* ``lowered``: node by node, by the rules of ``protocols/lowering/rules.py``.

A node is lowered as soon as it is written, so that what cannot be shown to fit is refused at the line that wrote it.
Its lowering stays with it, for every program that it becomes part of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mpc.errors import UsageError
from mpc.objective import LATENCY, Objective
from mpc.operation import Stored
from mpc.program import Expression, OversizedProgram, Program
from protocols.lowering.in_range import to_check, within
from protocols.lowering.intervals import assumptions, watched
from protocols.lowering.planner import FRACTION_BITS, Planner
from protocols.lowering.precision import watch
from protocols.lowering.rules import Operand, lower
from protocols.trace.mathematics import Assume, Graph, Node, Public, Secret, written

Rewrite = Callable[[Graph, Objective], Graph]

REWRITES: tuple[Rewrite, ...] = ()
"""Applied in order, each to what the one before has made."""


def plan(graph: Graph, objective: Objective = LATENCY, *, checked: bool = False) -> Program:
    """The program of ``graph``: what is masked, opened and truncated where, and which variant of a protocol is used.

    ``checked``: where something stored is read, the parties find out whether what comes from others lies in its range
    (``in_range.py``), and results hang on whether all values stay in the intervals of functions (``intervals.py``).
    Whether they are where they are assumed to be is found out anyway.
    Raises RangeError for what cannot be shown to fit the field, UsageError for what no server would take.
    """
    graph = rewritten(graph, objective)
    chosen = _told_apart(graph, objective)
    outputs, kept = ([lowered(x, chosen) for x in nodes] for nodes in (graph.outputs, graph.kept))
    checks = [within(lowered(x, chosen), objective) for x in (_to_check(graph) if checked else ())]
    gated = checked and any(isinstance(x.source, Stored) for x in _secrets(graph))
    assumed = assumptions([*outputs, *kept])
    if not gated:
        said = {lowered(x, chosen) for x in written((*graph.outputs, *graph.kept)) if isinstance(x.operation, Assume)}
        assumed = [x for x in assumed if x in said]
    outputs, hang = watched(outputs, kept, assumed, objective.security, gated=gated)
    watches = bool(hang) or len(outputs) > len(graph.outputs)
    if checks or watches:
        # With MACs they are others.
        chosen = Objective(chosen.round_bytes, objective.security)
    try:
        program = Program.of(outputs, [*kept, *checks, *hang], graph.precision, chosen, graph.keeping)
        program.encode()
    except OversizedProgram as error:
        raise UsageError(
            f"{error}: compute it in several runs, on parts or with client.keep in between, and with operations on"
            " whole tensors instead of loops over elements"
        ) from None
    return program


def leaves(graph: Graph, objective: Objective = LATENCY) -> list[Node]:
    """The secrets that ``plan(graph, objective)`` reads, in its order: inputs, whose values come with a run, and stored
    ones.
    """
    graph = rewritten(graph, objective)
    chosen = _told_apart(graph, objective)
    targets = (*graph.outputs, *graph.kept)
    secrets = {lowered(x, chosen): x for x in written(targets) if isinstance(x.operation, Secret)}
    order = Program.order(lowered(x, chosen) for x in targets)
    return [secrets[x] for x in order if x in secrets]


def _secrets(graph: Graph) -> Iterator[Secret]:
    """All that it reads, in the order in which they were written."""
    for x in written((*graph.outputs, *graph.kept)):
        if isinstance(x.operation, Secret):
            yield x.operation


def _to_check(graph: Graph) -> list[Node]:
    """The secrets whose values parties check, in the order in which they were written."""
    sources = [x for x in written((*graph.outputs, *graph.kept)) if isinstance(x.operation, Secret)]
    needed = to_check([(x.source, x.weight) for x in _secrets(graph)])
    return [x for x, checked in zip(sources, needed, strict=True) if checked]


def _told_apart(graph: Graph, objective: Objective) -> Objective:
    """``objective``, or the usual one where no variant is chosen: that program has been made as it was written."""
    return objective if any(lowered(x).varies for x in (*graph.outputs, *graph.kept)) else LATENCY


def rewritten(graph: Graph, objective: Objective) -> Graph:
    """``graph`` after all of ``REWRITES``."""
    for rewrite in REWRITES:
        graph = rewrite(graph, objective)
    return graph


def lowered(node: Node, objective: Objective = LATENCY) -> Expression:
    """What ``node`` is lowered to, and with it whatever it depends on: once, in the order in which it was written.

    The order counts: a tensor that several layers open is opened under the name of the first.
    """

    def missing(x: Node) -> bool:
        return objective not in x.lowered and (x is node or not isinstance(x.operation, Public))

    for each in written([node], missing):
        usual = each.lowered.get(LATENCY)
        if usual is not None and not usual.varies:
            # No variant has been chosen on the way there, so it would be made alike.
            each.lowered.setdefault(objective, usual)
            continue
        planner = Planner(each.label, FRACTION_BITS if each.precision is None else each.precision, objective)
        found = lower(planner, each.operation, [_operand(x, objective) for x in each.inputs])
        # Of two threads that plan what they share the first has made it for both.
        made = each.lowered.setdefault(objective, found)
        if made is not found:
            continue
        # Layers of a network are watched when it is first used, and not with each prediction (``watch_layers``).
        if not each.label:
            watch(each, made)
    return node.lowered[objective]


def _operand(node: Node, objective: Objective) -> Operand:
    return node.operation.values if isinstance(node.operation, Public) else node.lowered[objective]
