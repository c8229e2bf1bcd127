"""Programs with other operands, or other attributes, than they were planned with: refused, or they compute what they
say, and no more.

A result that is not that of the clear reading, or not in its range, depends on masks: who is shown the program cannot
know what it tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from mpc.errors import ProgramError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.operation import Input, Operation, Stored
from mpc.program import Expression, Program
from mpc.program_format import Node
from mpc.rings import field
from mpc.security import Security
from mpc.tensor_type import TensorType
from protocols.lowering import comparison
from protocols.lowering.in_range import within
from protocols.lowering.planner import Planner, constant
from protocols.operations import draw
from protocols.operations.bit_comparison import Sign
from protocols.operations.comparison import Comparison, Join
from protocols.operations.digits import Digits, Tables
from protocols.operations.in_range import Coefficients, Ends, Within
from protocols.operations.keep import Keep
from protocols.operations.linear import Add, Broadcast, Declare, Reshape, Subtract
from protocols.operations.nonzero import Nonzero
from protocols.operations.one_hot import OneHot
from protocols.operations.product import Multiply
from protocols.operations.residues import Factors, Residue, Residuosity
from protocols.operations.weighed import SignBits, Signed
from protocols.readings.clear import clear, clear_values
from protocols.readings.explain import Examined
from protocols.readings.memory import MemoryStore, run_in_memory

STRICT = Objective(ANY, Security.MALICIOUS)
OBJECTIVES = {"two rounds": LATENCY, "three": TRAFFIC, "MACs": STRICT}


def own(*shape: int, low: float = -100.0) -> Expression:
    return Expression(Input(shape, 0, low, 100.0))


def signs(objective: Objective) -> list[Expression]:
    """Of two of one type, in all ways that have digits of one type; what is let through is of that type too."""
    planner, x, y = Planner(objective=objective), own(3), own(3)
    return [
        comparison.ended(planner, x, -1),
        comparison.ended(planner, y, -1, x, below=True),
        comparison.ended(planner, x, -1, equal=True),
    ]


def thresholds(objective: Objective) -> list[Expression]:
    """Two of each value, by the tables of four of them."""
    planner, x = Planner(objective=objective), own(4)
    rows = planner.make(Broadcast((4, 2)), planner.make(Reshape((4, 1)), x))
    apart = planner.make(Subtract(), rows, constant(np.array([-30.0, 40.0])))
    return [comparison.ended(planner, apart, -1), comparison.ended(planner, x, -1)]


def checks(objective: Objective) -> list[Expression]:
    """Beside a comparison of what is checked."""
    x, y, z = own(2), own(2), Expression(Stored((2,), 0, -100.0, 100.0, "data", "z"))
    checks = [within(each, objective) for each in (x, y, z)]
    return [*checks, comparison.ended(Planner(objective=objective), x, -1)]


def gradients(objective: Objective) -> list[Expression]:
    """What is let through forwards, and another by the same bits on the way back."""
    planner, x, y, g = Planner(objective=objective), own(3), own(3), own(3)
    return [comparison.relu(planner, x), comparison.passed(planner, x, g), comparison.passed(planner, y, g)]


def places(objective: Objective) -> list[Expression]:
    x, y = own(2, low=0.0), Expression(Input((2,), 0, 0.0, 3.0))
    return [Expression(OneHot(101), (x,)), Expression(OneHot(4), (y,))]


def cuts(objective: Objective) -> list[Expression]:
    """What loses bits as it is let through."""
    planner = Planner(objective=objective)
    x, y = (Expression(Input((3,), 8, -4.0, 4.0)) for _ in range(2))
    through = [comparison.ended(planner, x, -1, y), comparison.ended(planner, y, -1, y, below=True)]
    dropping = [Expression(msgspec.structs.replace(z.operation, dropped=3), z.inputs) for z in through]
    own = comparison.ended(planner, x, -1, x)
    return [*dropping, Expression(msgspec.structs.replace(own.operation, dropped=3, own=True), own.inputs)]


PROGRAMS: dict[str, Callable[[Objective], list[Expression]]] = {
    "signs": signs, "thresholds": thresholds, "checks": checks, "places": places, "cuts": cuts, "gradients": gradients,
}  # fmt: skip


def forged(program: Program) -> Iterator[Program | None]:
    """Each with an operand, or an attribute, that is another; None for one that is refused."""
    for i, node in enumerate(program.nodes):
        for k, j in enumerate(node.inputs):
            for other, candidate in enumerate(program.nodes):
                if other != j and candidate.type == program.nodes[j].type:
                    inputs = (*node.inputs[:k], other, *node.inputs[k + 1 :])
                    yield rewritten(program, i, node.operation, inputs)
        for operation in altered(node.operation):
            yield rewritten(program, i, operation, node.inputs)


def altered(operation: Operation) -> Iterator[Operation]:
    changes: list[dict[str, Any]] = []
    if isinstance(operation, Tables | Digits):
        widths = operation.widths
        changes += [{"ignored": n} for n in (-1, 0, 1)] + [
            {"widths": widths[::-1]},
            {"widths": (*widths[1:], widths[0])},
        ]
    if isinstance(operation, Digits):
        changes += [{"thresholds": n} for n in (1, 2, 4, 8)] + [{"equal": not operation.equal}]
    if isinstance(operation, Comparison):
        changes += [{"ignored": n} for n in (0, 1, 5)] + [
            {"equal": not operation.equal},
            {"below": not operation.below},
        ]
        changes += [{"dropped": operation.dropped + n} for n in (-1, 1)] + [{"own": not operation.own}]
    if isinstance(operation, Residue):
        changes += [{"ignored": n} for n in (-1, 0, 1)] + [{"widths": operation.widths[::-1]}]
        changes += [{"first": operation.first + n} for n in (-1, 1)] + [{"count": operation.count + n} for n in (-1, 1)]
        changes += [{"equal": not operation.equal}]
    if isinstance(operation, Factors):
        changes += [{"count": operation.count + n} for n in (-1, 1)]
    if isinstance(operation, Join):
        changes += [{"groups": operation.groups[::-1]}]
    if isinstance(operation, Sign | SignBits):
        changes += [{"size": n} for n in range(1, 9)]
    if isinstance(operation, Sign | SignBits | Signed | Within):
        changes += [{"digits": operation.digits + n} for n in (-1, 1)]
    if isinstance(operation, Ends):
        changes += [{"widths": operation.widths[::-1]}]
    if isinstance(operation, OneHot):
        changes += [{"count": operation.count + n} for n in (-1, 1)]
    for change in changes:
        made = msgspec.structs.replace(operation, **change)
        if made != operation:
            yield made


def rewritten(program: Program, i: int, operation: Operation, inputs: tuple[int, ...]) -> Program | None:
    """With what depends on a node as a copy at the end, so that its operands may come after it."""
    nodes, moved = list(program.nodes), {}
    for n, node in enumerate(program.nodes):
        if n != i and not any(j in moved for j in node.inputs):
            continue
        used = operation if n == i else node.operation
        taken = inputs if n == i else tuple(moved.get(j, j) for j in node.inputs)
        if any(not isinstance(j, int) or j >= len(nodes) for j in taken):
            return None
        try:
            t = used.result(*(nodes[j].type for j in taken)).check()
        except ProgramError:
            return None
        moved[n] = len(nodes)
        nodes.append(Node(used, taken, t, node.label))
    # What is not needed any more would take coefficients that are for one.
    outputs = [moved.get(o, o) for o in program.outputs]
    try:
        return Program.decode(Program(*_needed(nodes, outputs), program.precision, program.objective).encode())
    except ProgramError:
        return None


def _needed(nodes: list[Node], outputs: list[int]) -> tuple[list[Node], list[int]]:
    needed = set[int]()
    waiting = list(outputs)
    while waiting:
        j = waiting.pop()
        if j not in needed:
            needed.add(j)
            waiting += nodes[j].inputs
    places = {j: n for n, j in enumerate(sorted(needed))}
    kept = [msgspec.structs.replace(nodes[j], inputs=tuple(places[k] for k in nodes[j].inputs)) for j in sorted(needed)]
    return kept, [places[o] for o in outputs]


def values(rng: np.random.Generator, t: TensorType) -> Any:
    low, high = (int(end * 2.0**t.fraction_bits) for end in (t.low, t.high))
    return field.from_signed(rng.integers(low, high + 1, t.shape))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("way", OBJECTIVES)
@pytest.mark.parametrize("of", PROGRAMS)
def test_it_is_refused_or_computes_what_it_says(of: str, way: str) -> None:
    objective, rng = OBJECTIVES[way], np.random.default_rng(7)
    program = Program.of(PROGRAMS[of](objective), objective=objective)
    made = list(forged(program))
    assert None in made
    assert any(made)
    z = field.from_signed(np.array([-100, 7]))
    store = MemoryStore("data", {"z": z}, 2)
    for one in [program, *filter(None, made)]:
        for _ in range(4):
            inputs = [values(rng, one.nodes[i].type) for i in one.inputs]
            run = run_in_memory(one, inputs, security=objective.security, store=store)
            wanted = clear(one, inputs, {("data", "z"): z})
            for o, found, meant in zip(one.outputs, run.outputs, wanted, strict=True):
                node = one.nodes[o]
                off = np.abs(field.to_signed(field.subtract(found, meant)))
                assert off.max(initial=0) <= node.operation.tolerance(*one.input_types(node)), [
                    (n.operation, n.inputs) for n in one.nodes
                ]


@pytest.mark.parametrize("way", OBJECTIVES)
def test_digits_without_some_bits_are_of_no_exact_comparison(way: str) -> None:
    made = comparison.ended(Planner(objective=OBJECTIVES[way]), own(3), 5)
    assert Program.of([made])
    refused(
        [Expression(msgspec.structs.replace(made.operation, ignored=-1), made.inputs)], "digits of such a comparison"
    )


def nonzero(x: Expression) -> Expression:
    return Expression(Nonzero(), (Planner().masked(x), Expression(Coefficients(x.type.size))))


def test_a_draw_is_for_its_bits_and_nothing_else() -> None:
    """What is opened of it is its mask's, to who sees it; and bits are of what nobody has a number of."""
    drawn, x = Expression(draw.Draw((2,), 3)), Expression(Input((2,), 0, 0.0, 7.0))
    assert Program.of([Expression(draw.Bits(3), (drawn,)), x])
    refused([drawn], "tells of masks")
    refused([Expression(Add(), (drawn, x))], "tells of masks")
    refused([Expression(OneHot(8), (drawn,))], "tells of masks")
    refused([comparison.ended(Planner(), drawn, -1)], "tells of masks")
    refused([Expression(draw.Bits(3), (x,))], "takes a draw")
    with pytest.raises(ProgramError, match="tells of masks"):
        Program.of([x], [Expression(Keep("u"), (drawn,))])


def test_a_bit_beside_results_is_revealed_and_nothing_else() -> None:
    """It is uniform where it is not 0, and types say 1."""
    x = own(2)
    bit = nonzero(x)
    assert Program.of([bit])
    for used in (Expression(Add(), (bit, x)), nonzero(bit), Expression(Reshape((2, 1)), (bit,))):
        refused([used], "serves nothing else")
    with pytest.raises(ProgramError, match="serves nothing else"):
        Program.of([x], [Expression(Keep("bit"), (bit,))])


def refused(outputs: list[Expression], why: str) -> None:
    with pytest.raises(ProgramError, match=why):
        Program.of(outputs)


@pytest.mark.parametrize("way", OBJECTIVES)
def test_whose_ranges_are_too_narrow_is_looked_at_as_parties_compute_it(way: str) -> None:
    """Then comparisons tell other bits than signs, and their sum is a copy."""
    objective = OBJECTIVES[way]
    planner, x = Planner(objective=objective), Expression(Stored((4,), 0, 0.0, 255.0, "north/d", "x"))
    total = planner.product(Multiply(), x, constant(0.0))
    for j in range(8):
        narrow = planner.make(Declare(1.0 - 2.0**j, 2.0**j - 1.0), x)
        bit = comparison.ended(planner, narrow, -1, below=True)
        if isinstance(bit.operation, Residuosity):
            # By one digit, which is exact for all; by several it would depend on masks.
            shown = Expression(Residue(-1, (j + 1,), 0, 1), (narrow, Expression(Factors(4))))
            bit = Expression(bit.operation, (narrow, shown))
        total = planner.sum(Add(), total, planner.product(Multiply(), bit, constant(2.0**j)))
    program, raw = Program.of([total], objective=objective), field.from_signed(np.array([3, 77, 200, 255]))
    run = run_in_memory(program, [], store=MemoryStore("north/d", {"x": raw}, 2), security=objective.security)
    found = clear_values(program, [], {("north/d", "x"): raw}, by_digits=True)[program.outputs[0]]
    assert run.outputs[0].tolist() == found.tolist() == raw.tolist()
    (telling,) = Examined(program).telling(["north/d"])
    assert telling.nearly == 4
