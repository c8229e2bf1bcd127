"""Planning as a pass: what is written is mathematics, rules make it a program, and rewrites come before them."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import numpy as np
import pytest

import mpc.program
from mpc.errors import RangeError, ShapeError, UsageError
from mpc.objective import LATENCY, TRAFFIC, Objective
from mpc.operation import Input, Stored
from mpc.program import Program
from protocols.lowering import plan as planning
from protocols.lowering.plan import leaves, lowered, plan
from protocols.lowering.planner import Planner
from protocols.lowering.rules import lower
from protocols.trace import mathematics as m
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of, leaf


def kinds(x: SecretTensor) -> list[type[Any]]:
    """What was written, in order."""
    return [type(node.operation) for node in m.written([x.node])]


def test_what_is_written_is_mathematics(secure: Any) -> None:
    """No masks and no truncations, however many the program needs."""
    x, w = secure.secret((1, 1, 4, 4)), secure.stored("w", (2, 1, 3, 3))
    y = (x.conv2d(w).sigmoid(interval=(-9, 9)).avg_pool2d(2) ** 3).mean()
    assert kinds(y) == [m.Secret, m.Secret, m.Conv2d, m.Apply, m.AveragePool2d, m.Polynomial, m.Mean]
    names = {node.operation.name for node in plan(graph_of([y])).nodes}
    assert {"mask", "fourier", "sum_pool2d", "divide"} <= names


def test_a_node_is_lowered_once_for_each_objective(secure: Any) -> None:
    x = secure.secret((3,))
    y = (x * x).labelled("layer") * 0.3 + 1
    z = y.relu() * x
    assert lowered(z.node) is lowered(z.node, LATENCY)
    traffic = lowered(z.node, TRAFFIC)
    assert traffic is lowered(z.node, TRAFFIC) is not lowered(z.node)
    # What comes before the first variant is the same node.
    assert lowered(y.node) is lowered(y.node, TRAFFIC)
    assert plan(graph_of([y]), TRAFFIC).encode() == plan(graph_of([y])).encode()


def test_what_objectives_share_is_the_same_program_as_apart(secure: Any) -> None:
    def written() -> SecretTensor:
        x = secure.secret((3, 4))
        y = (x * x).labelled("first").relu()
        return (y.sum(0) > 0.5).where(y[0], x[1] * y[1]).labelled("last") + x[2].relu()

    shared, apart = written(), written()
    for each in m.written([apart.node]):
        # As if it had never been written for another.
        each.lowered.clear()
    assert lowered(apart.node, TRAFFIC).varies
    assert LATENCY not in apart.node.lowered
    assert Program.of([lowered(shared.node, TRAFFIC)], [], graph_of([shared]).precision, TRAFFIC).digest == (
        Program.of([lowered(apart.node, TRAFFIC)], [], graph_of([apart]).precision, TRAFFIC).digest
    )


def test_the_objective_reaches_the_rules(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int, Objective]] = []

    def watched(planner: Planner, operation: Any, operands: Any) -> Any:
        seen.append((planner.label, planner.fraction_bits, planner.objective))
        return lower(planner, operation, operands)

    monkeypatch.setattr(planning, "lower", watched)
    y = secure.secret((3,)).labelled("layer").precise(12).relu()
    plan(graph_of([y]), TRAFFIC)
    # What was shared is the same for both.
    assert seen == [("", 16, LATENCY), ("layer", 12, LATENCY), ("layer", 12, TRAFFIC)]


def test_what_has_no_variants_is_not_lowered_again(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    y = -secure.secret((3,))
    monkeypatch.setattr(planning, "lower", lambda *_: pytest.fail("lowered again"))
    assert plan(graph_of([y]), TRAFFIC).objective == LATENCY
    assert len(leaves(graph_of([y]), TRAFFIC)) == 1


def test_rewrites_come_before_lowering(secure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, each on what the one before made; ``leaves`` follows them."""
    x, y = secure.secret((3,)), secure.secret((2,))

    def doubled(graph: m.Graph, objective: Objective) -> m.Graph:
        outputs = tuple(m.Node(m.Add(), (node, node)) for node in graph.outputs)
        return dataclasses.replace(graph, outputs=outputs)

    def reversed_and_negated(graph: m.Graph, objective: Objective) -> m.Graph:
        assert objective is TRAFFIC
        return dataclasses.replace(graph, outputs=tuple(m.Node(m.Negate(), (n,)) for n in reversed(graph.outputs)))

    monkeypatch.setattr(planning, "REWRITES", (doubled, reversed_and_negated))
    graph = graph_of([x, y])
    program = plan(graph, TRAFFIC)
    assert [n.operation.name for n in program.nodes] == ["input", "add", "negate"] * 2
    assert leaves(graph, TRAFFIC) == [y.node, x.node]


def test_leaves_are_in_the_order_of_the_program(secure: Any) -> None:
    a, b, w, unused = secure.secret((2,)), secure.secret((3,)), secure.stored("w", (3,)), secure.secret((4,))
    graph = graph_of([b * w, a.sum() + b], {"kept": a})
    program = plan(graph)
    assert leaves(graph) == [b.node, w.node, a.node]
    assert [program.nodes[i].type.shape for i in program.inputs] == [(3,), (2,)]
    assert set(program.kept) == {"kept"}
    assert unused.node not in leaves(graph)


def test_a_leaf_is_any_secret() -> None:
    for source in (Input((2,), 16, -1.0, 1.0), Stored((2,), 14, -1.0, 1.0, "slot", "w", 2.0)):
        x = leaf(source, precision=12)
        assert (x.shape, x.precision, x.node.operation) == ((2,), 12, m.Secret(source))
        assert lowered(x.node).operation == source


def test_public_numbers_are_those_that_were_written(secure: Any) -> None:
    """Whoever changes an array later changes no program, of whatever objective."""
    array = np.ones(3)
    y = secure.secret((3,)) + array
    array[:] = 7
    programs = [plan(graph_of([y]), objective) for objective in (LATENCY, TRAFFIC)]
    assert len({program.digest for program in programs}) == 1


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda x: (x + 2.0**40) * (x + 2.0**40), RangeError),
        (lambda x: x + np.ones(4), ShapeError),
        (lambda x: concatenate([x, np.ones((2, 2))]), ShapeError),
        (lambda x: x.within(5, 6), RangeError),
    ],
)
def test_errors_come_at_the_line_that_wrote_it(secure: Any, build: Any, error: type[Exception]) -> None:
    x = secure.secret((3,))
    with pytest.raises(error):
        build(x)
    # And nothing of it is left in what is written next.
    assert plan(graph_of([x * 2])).encode() == plan(graph_of([secure.secret((3,)) * 2])).encode()


def test_planning_is_linear_in_what_is_written(secure: Any) -> None:
    """Each node is lowered once, however deep what it stands on is, and needs no deep stack."""
    x = secure.secret(())
    for _ in range(3000):
        x = -x
    for objective in (LATENCY, TRAFFIC):
        assert len(plan(graph_of([x]), objective).nodes) == 3001


def test_every_operation_of_mathematics_is_a_value_but_public_numbers() -> None:
    for kind in get_args(m.Mathematics):
        assert dataclasses.is_dataclass(kind)
        assert kind.__dataclass_params__.frozen
        assert kind.__dataclass_params__.eq is (kind is not m.Public)


@pytest.mark.parametrize(
    ("limit", "most", "sentence"),
    [
        ("MAX_NODES", 30, "1 to 30 nodes, not "),
        ("MAX_OPERANDS", 30, "at most 30 operands"),
        ("MAX_ELEMENTS", 1000, "more than 1,000 elements"),
        ("MAX_BYTES", 1000, "over the limit of 1,000"),
    ],
)
def test_what_no_server_would_take_is_refused_when_it_is_planned(
    secure: Any, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, sentence: str
) -> None:
    """As the caller's mistake, with what to do, before anything is sent: servers would refuse it with other words."""
    x = secure.secret((50,))
    y = sum((x * np.linspace(0, 1 + i, 50) for i in range(30)), start=x)
    plan(graph_of([y]))
    monkeypatch.setattr(mpc.program, limit, most)
    with pytest.raises(UsageError, match=f"{sentence}.*compute it in several runs"):
        plan(graph_of([y]))
