"""What a program assumes is looked at in steps, charged before, and no more of it than there are nodes for."""

from __future__ import annotations

import pytest

from mpc import pace
from mpc.objective import Objective
from mpc.operation import Input, Stored
from mpc.program import Expression, Program
from mpc.security import Security
from parties.servers.governor import SECONDS_PER_ASSUMPTION, estimate
from protocols.lowering import intervals
from protocols.lowering.intervals import is_gated
from protocols.lowering.plan import plan
from protocols.operations.assume import Assume
from protocols.trace.secret_tensor import graph_of, leaf


def sums() -> tuple[object, object]:
    x, w = leaf(Input((1,), 16, -1.0, 1.0)), leaf(Stored((1,), 16, -1.0, 1.0, "company/m", "w"))
    return (x + w) * (x + w), x


def honest(count: int, security: Security) -> Program:
    """Logarithms of many numbers, whose intervals are watched by digits."""
    y, _ = sums()
    logarithms = [(y + 1.5 + i / count / 100).log(interval=(1.0, 2.0)) for i in range(count)]
    return plan(graph_of([sum(logarithms[1:], logarithms[0])]), Objective(20 << 20, security), checked=True)


def crafted(count: int, security: Security) -> Program:
    """One result that hangs on one assumption, and on so many more that nobody looks at."""
    y, _ = sums()
    base = plan(graph_of([y.assumed(-1.0, 2.0)]), Objective(20 << 20, security), checked=True)
    at = next(k for k, node in enumerate(base.nodes) if isinstance(node.operation, Assume))
    made: list[Expression] = []
    last: Expression | None = None
    for k, node in enumerate(base.nodes):
        inputs = tuple(last if j == at and last is not None else made[j] for j in node.inputs)
        made.append(Expression(node.operation, inputs, node.label))
        if k == at:
            last = made[at]
            for i in range(count):
                last = Expression(Assume(-0.99 + i / count / 10, 1.9 - i / count / 10, 0), (last,))
    used = {j for node in base.nodes for j in node.inputs} | set(base.outputs)
    rest = [x for k, x in enumerate(made) if k not in used]
    return Program.of([made[k] for k in base.outputs], rest, base.precision, base.objective)


@pytest.mark.parametrize("security", Security)
def test_each_assumption_is_a_step(security: Security) -> None:
    program, pauses = honest(20, security), list[int]()
    assert is_gated(program)
    with pace.pausing(lambda: pauses.append(1)):
        assert is_gated(program)
    # And the program is gone through four times beside.
    assert len(pauses) >= 20 + 4 * (len(program.nodes) // pace.STEP)


@pytest.mark.parametrize("security", Security)
def test_what_a_program_has_no_room_to_look_at_is_not_made_anew(
    security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server would be at it for half a millisecond each, of programs that it refuses in the end."""
    assert not is_gated(crafted(1, security))
    program, made = crafted(100, security), list[object]()
    monkeypatch.setattr(intervals, "_counts", lambda *what: made.append(what))
    assert not is_gated(program)
    assert not made


@pytest.mark.parametrize("security", Security)
def test_assumptions_are_charged_before_anything_is_decoded(security: Security) -> None:
    for count in (1, 30):
        program = crafted(count, security)
        assumed = sum(isinstance(node.operation, Assume) for node in program.nodes)
        assert assumed == count + 1
        assert estimate(memoryview(program.encode())).seconds >= assumed * SECONDS_PER_ASSUMPTION
    plain = plan(graph_of([sums()[0]]), checked=True)
    assert estimate(memoryview(plain.encode())).seconds < SECONDS_PER_ASSUMPTION


@pytest.mark.parametrize("security", Security)
def test_what_types_promise_needs_no_look(security: Security) -> None:
    """However often it is assumed as well."""
    y, _ = sums()
    for i in range(50):
        y = y.assumed(-5.0 - i, 5.0 + i)
    assert is_gated(plan(graph_of([y.assumed(-1.0, 2.0)]), Objective(20 << 20, security), checked=True))
