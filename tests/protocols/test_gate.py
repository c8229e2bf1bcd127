"""Results hang on what is assumed: exact where it holds, uniform where it does not, and no program has it otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import NoAnswer, ProgramError, RangeError
from mpc.objective import ANY, LATENCY, TRAFFIC, Objective
from mpc.operation import Input
from mpc.program import Expression, Program
from mpc.rings import field
from mpc.security import Security
from protocols.lowering.comparison import compared
from protocols.lowering.intervals import LABEL, assumptions, is_gated, watched
from protocols.lowering.plan import lowered, plan
from protocols.lowering.planner import Planner, constant
from protocols.lowering.samples import samples
from protocols.operations.assume import Assume
from protocols.operations.astray import Astray, Span
from protocols.operations.gate import Gate
from protocols.operations.in_range import Coefficients
from protocols.operations.keep import Keep
from protocols.operations.linear import Add, Negate, Reshape
from protocols.operations.mask import Mask
from protocols.operations.nonzero import Nonzero, Zero
from protocols.operations.product import Multiply
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import SecretTensor, concatenate, graph_of

STRICT = Objective(ANY, Security.MALICIOUS)
RUNS = [(security, parties) for security in Security for parties in (2, 3)]
ONES = np.full((3,), 1 << 14, np.uint64)


def product(secure: Any, shape: tuple[int, ...] = (3,)) -> SecretTensor:
    """Values that anything may be, of somebody's weights."""
    made: SecretTensor = secure.secret(shape, -20.0, 20.0) * secure.stored("w", (3,))
    return made


def planned(
    *outputs: SecretTensor, objective: Objective = LATENCY, kept: dict[str, SecretTensor] | None = None
) -> Program:
    return plan(graph_of(outputs, kept), objective, checked=True)


def raw(*values: float) -> Any:
    return fixed_point.encode(np.array(values), 16)


@pytest.mark.parametrize(("security", "parties"), RUNS)
def test_results_are_exact_if_all_holds_and_nothing_if_not(secure: Any, security: Security, parties: int) -> None:
    """Also those that nothing is assumed of; at what is predicted."""
    x = product(secure)
    program = planned(x.assumed(-4, 4) * 2, x.sum(), objective=Objective(ANY, security))
    assert program.flagged
    assert is_gated(program)
    store = secure.store({"w": ONES}, parties)
    for values, holds in (((1.0, -3.1, 3.1), True), ((1.0, 4.0001, 0.0), False), ((-20.0, 20.0, 4.1), False)):
        run = secure.as_predicted(program, [raw(*values)], parties, security, store)
        twice, total, flag = run.outputs
        assert (not flag.any()) == holds
        for found, wanted, i in ((twice, np.array(values) * 2, 0), (total, np.sum(values), 1)):
            real = fixed_point.decode(found, program.nodes[program.outputs[i]].type.fraction_bits)
            assert (np.abs(real - wanted).max() < 1e-3) == holds


@pytest.mark.parametrize("security", Security)
def test_what_is_given_instead_is_uniform_whatever_the_result_is(secure: Any, security: Security) -> None:
    """Of every element by itself, and beside the others: bytes, and sums and differences of neighbours, are even."""
    size = 3000
    x = secure.secret((1, size), -20.0, 20.0) * secure.stored("w", (size,))
    program = planned(x.assumed(-4, 4), objective=Objective(ANY, security))
    store = secure.store({"w": np.full(size, 1 << 14, np.uint64)}, 2)
    for values in (np.r_[5.0, np.zeros(size - 1)], np.full(size, 20.0)):
        inputs = [fixed_point.encode(values[None], 16)]
        (found,), flag = run_in_memory(program, inputs, store=store, security=security).outputs
        assert flag.any()
        known = field.subtract(found, fixed_point.encode(values, 30))
        for one in (found, known, field.subtract(found[1:], found[:-1]), field.add(found[1:], found[:-1])):
            for shift in (0, 23, 53):
                counts = np.bincount((one >> np.uint64(shift)).astype(np.int64) & 15, minlength=16)
                # 15 degrees of freedom: beyond 60 once in two million.
                assert ((counts - len(one) / 16) ** 2).sum() / (len(one) / 16) < 60
        assert len(np.unique(found)) == size


@pytest.mark.parametrize(("security", "parties"), RUNS)
def test_of_a_batch_each_sample_goes_its_own_way(secure: Any, security: Security, parties: int) -> None:
    """Through convolutions, pools, layers and activations, of two assumptions."""
    images, w = secure.secret((4, 1, 4, 4), -8.0, 8.0), secure.stored("w", (2, 1, 3, 3))
    x = images.conv2d(w, padding=1).assumed(-30, 30).relu().avg_pool2d(2).reshape(4, -1)
    y = (x @ secure.stored("v", (8, 3))).sigmoid(interval=(-6, 6))
    program = planned(y, objective=Objective(ANY, security))
    assert is_gated(program)
    assert program.nodes[program.outputs[-1]].type.shape == (4,)
    rng = np.random.default_rng(5)
    weights = {"w": np.full((2, 1, 3, 3), 0.5), "v": np.round(rng.uniform(-0.2, 0.2, (8, 3)) * 2**14) / 2**14}
    store = secure.store({name: fixed_point.encode(v, 14) for name, v in weights.items()}, parties)
    values = rng.uniform(-1, 1, (4, 1, 4, 4))
    values[2] = 8.0
    run = secure.as_predicted(program, [fixed_point.encode(values, 16)], parties, security, store)
    assert (run.outputs[-1] != 0).tolist() == [False, False, True, False]
    alone = planned(y[:1] * 1.0)
    for k in range(4):
        moved = np.roll(values, -k, axis=0)
        moved[1:] = 0.0
        one = run_in_memory(alone, [fixed_point.encode(moved, 16)], parties=parties, store=store)
        near = [
            fixed_point.decode(run_.outputs[0], p.nodes[p.outputs[0]].type.fraction_bits)
            for run_, p in ((one, alone), (run, program))
        ]
        if k != 2:
            assert np.abs(near[0][0] - near[1][k]).max() < 1e-2


MIXED: dict[str, Callable[[SecretTensor, Any], SecretTensor]] = {
    "a sum over them": lambda x, w: x - x.sum(axis=0, keepdims=True),
    "running sums": lambda x, w: x.cumsum(axis=0),
    "turned round": lambda x, w: x.T @ x,
    "turned": lambda x, w: x.reshape(2, 6).T.reshape(4, 3),
    "shuffled": lambda x, w: x.take([1, 0, 2, 3], 0),
    "backwards": lambda x, w: x[::-1],
    "one repeated": lambda x, w: x[:1] + x * 0,
    "some at others' places": lambda x, w: concatenate([x[2:], x[:2]], axis=0),
    "others' products": lambda x, w: w[:4, :4] @ x,
    "compared with another": lambda x, w: (x[::-1] > 0) * x,
    "the other way round": lambda x, w: x.reshape(-1)[:4],
    "in one number": lambda x, w: x.sum(),
}
APART: dict[str, Callable[[SecretTensor, Any], SecretTensor]] = {
    "each by itself": lambda x, w: (x * x).sigmoid(),
    "by their own sums": lambda x, w: x - x.sum(axis=1, keepdims=True),
    "laid out anew": lambda x, w: x.reshape(4, 3, 1).transpose((0, 2, 1)).reshape(4, 3) @ w[:3],
    "compared": lambda x, w: x.relu() + np.maximum(x, x * 0.5 + w[:4, :3]),
    "beside others' numbers": lambda x, w: concatenate([x, w[:4, :2]], axis=1),
    "products of rows": lambda x, w: (x.reshape(4, 1, 3) @ x.reshape(4, 3, 1)).reshape(4, 1),
    "normalised": lambda x, w: x.softmax(),
    "padded, cut": lambda x, w: x.pad(((0, 0), (1, 1)))[:, :3],
}


@pytest.mark.parametrize("way", [*MIXED, *APART])
def test_what_samples_have_to_do_with_each_other_is_seen(secure: Any, way: str) -> None:
    make = MIXED.get(way) or APART[way]
    x = (secure.secret((4, 3), -20.0, 20.0) * secure.stored("v", (3,))).assumed(-4, 4)
    program = planned(make(x, secure.stored("w", (6, 6))))
    shape = program.nodes[program.outputs[-1]].type.shape
    assert shape == ((1,) if way in MIXED else (4,))
    assert is_gated(program)


def test_two_results_of_other_numbers_of_samples_hang_together(secure: Any) -> None:
    x = product(secure, (4, 3)).assumed(-4, 4)
    for others in ([x[:2]], [x.sum()], [x * 2, x[0]]):
        program = planned(x, *others)
        assert program.nodes[program.outputs[-1]].type.shape == (1,)
    assert planned(x, x * 2).nodes[planned(x, x * 2).outputs[-1]].type.shape == (4,)


@pytest.mark.parametrize(("security", "parties"), RUNS)
def test_nothing_is_kept_of_what_does_not_hold(secure: Any, security: Security, parties: int) -> None:
    program = planned(objective=Objective(ANY, security), kept={"y": product(secure).assumed(-4, 4)})
    assert not program.outputs
    assert is_gated(program)
    assert not program.checked - set(program.inputs)
    store = secure.store({"w": ONES}, parties)
    secure.as_predicted(program, [raw(1, 2, 3)], parties, security, store)
    with pytest.raises(NoAnswer, match="nothing was kept"):
        run_in_memory(program, [raw(1, 2, 4.5)], parties=parties, store=store, security=security)


def test_of_ones_own_a_bit_says_so_beside_the_results(secure: Any) -> None:
    x = secure.secret((3,), -20.0, 20.0)
    program = planned(x.assumed(-4, 4))
    assert program.flagged
    y, flag = run_in_memory(program, [raw(1, 2, 5)]).outputs
    assert flag.any()
    assert np.array_equal(y, raw(1, 2, 5))
    assert not planned(x.sigmoid(interval=(-8, 8))).flagged


Forge = Callable[[list[Expression], list[Expression], Any], list[Expression]]

# -- forgeries ---------------------------------------------------------------------------------------------------------


def _parts(secure: Any, objective: Objective) -> tuple[list[Expression], list[Expression], Any]:
    """Two results, what is assumed for them, and how to write the rest."""
    x = product(secure)
    ys = [x.assumed(-4, 4) * 2, (x * 0.5).sigmoid(interval=(-3, 3))]
    outputs = [lowered(y.node, objective) for y in ys]
    return outputs, assumptions(outputs), lambda of, some: watched(of, [], some, objective.security, gated=True).outputs


def _gate(y: Expression, counts: Expression) -> Expression:
    return Expression(Gate(), (y, counts, Expression(Coefficients(y.type.size), (), LABEL)), LABEL)


def _counts(made: list[Expression]) -> Expression:
    return made[0].inputs[1]


def _of_nothing(outputs: list[Expression], assumed: list[Expression], make: Any) -> list[Expression]:
    zero = Expression(Input((1,), 0, 0.0, 0.0))
    return [_gate(y, zero) for y in outputs]


def _less_what_the_client_says(outputs: list[Expression], assumed: list[Expression], make: Any) -> list[Expression]:
    """So that it is 0 where a guess is right."""
    counts = _counts(make(outputs, assumed))
    own = Expression(Input(counts.type.shape, 0, 0.0, 9.0))
    return _counted(outputs, counts, added=Expression(Multiply(), (own, own)))


def _counted(
    outputs: list[Expression],
    counts: Expression,
    spans: Callable[[Span], Span] = lambda span: span,
    added: Expression | None = None,
) -> list[Expression]:
    """By another count of the same values, in other spans, or with something added."""

    def again(x: Expression) -> Expression:
        operation = x.operation
        if not isinstance(operation, Astray):
            return x if added is None else Expression(Add(), (x, added))
        of, s, *rest = x.inputs
        last = [again(rest[0]), *rest[1:]] if rest else [] if added is None else [added]
        return Expression(Astray(operation.rows, spans(operation.span)), (of, Expression(s.operation), *last))

    moved = Expression(Mask(), (again(counts.inputs[0]),))
    return [_gate(y, moved) for y in outputs]


def _spans(change: Callable[[Span], Span]) -> Forge:
    return lambda outputs, assumed, make: _counted(outputs, _counts(make(outputs, assumed)), change)


def _of_other_ends(outputs: list[Expression], assumed: list[Expression], make: Any) -> list[Expression]:
    wider = [Expression(Assume(-19.0, 19.0, 3), x.inputs, x.label) for x in assumed]
    return [_gate(y, _counts(make(outputs, wider))) for y in outputs]


def _of_other_values(outputs: list[Expression], assumed: list[Expression], make: Any) -> list[Expression]:
    t = assumed[0].inputs[0].type
    own = Expression(Input(t.shape, t.fraction_bits, t.low, t.high))
    others = [Expression(x.operation, (own,), x.label) for x in assumed]
    return [_gate(y, _counts(make(outputs, others))) for y in outputs]


def _digit(outputs: list[Expression]) -> Expression:
    """Whole numbers of what is computed beyond an interval, masked, and flat."""
    compare = Planner(LABEL, objective=STRICT)
    x = compare.make(Reshape((outputs[1].type.size,)), outputs[1])
    return compare.masked(compared(compare, x, strictly=False, below=False))


def _scaled(kind: type[Nonzero | Zero], counts: Expression) -> Expression:
    return Expression(kind(), (counts, Expression(Coefficients(counts.type.size), (), LABEL)), LABEL)


FORGED: dict[str, Forge] = {
    "the bit of another number": lambda outputs, assumed, make: [
        *make(outputs, assumed)[:-1],
        _scaled(Nonzero, _digit(outputs)),
    ],
    "the bit of one assumption": lambda outputs, assumed, make: [
        *make(outputs, assumed)[:-1],
        _scaled(Nonzero, _counts(make(outputs, assumed[:1]))),
    ],
    "another's bit besides": lambda outputs, assumed, make: [
        *make(outputs, assumed)[:-1],
        _scaled(Nonzero, _digit(outputs)),
        make(outputs, assumed)[-1],
    ],
    "no gate": lambda outputs, assumed, make: [*outputs, make(outputs, assumed)[-1]],
    "no bit, and no gate": lambda outputs, assumed, make: outputs,
    "a gate for one": lambda outputs, assumed, make: [make(outputs, assumed)[0], *outputs[1:]],
    "an intermediate beside": lambda outputs, assumed, make: [*make(outputs, assumed)[:-1], outputs[1]],
    "what is assumed of, beside": lambda outputs, assumed, make: [*make(outputs, assumed)[:-1], assumed[0].inputs[0]],
    "by one assumption": lambda outputs, assumed, make: [
        _gate(y, _counts(make(outputs, assumed[:1]))) for y in outputs
    ],
    "each by its own": lambda outputs, assumed, make: [
        _gate(y, _counts(make(outputs, [one]))) for y, one in zip(outputs, assumed, strict=True)
    ],
    "of nothing": _of_nothing,
    "less what the client says": _less_what_the_client_says,
    "of other ends": _of_other_ends,
    "of other values": _of_other_values,
    "by coarser grains": _spans(lambda span: span._replace(ignored=span.ignored + 1)),
    "by more of them": _spans(lambda span: span._replace(bits=span.bits + 1, width=2 * span.width)),
    "from elsewhere": _spans(lambda span: span._replace(low=span.low + 1)),
    "of multiples": _spans(lambda span: span._replace(scale=1)),
}


@pytest.mark.parametrize("objective", [LATENCY, TRAFFIC, STRICT])
@pytest.mark.parametrize("way", FORGED)
def test_a_program_that_gives_results_otherwise_is_seen(secure: Any, way: str, objective: Objective) -> None:
    outputs, assumed, make = _parts(secure, objective)
    chosen = Objective(objective.round_bytes, objective.security)
    assert len(assumed) == 2
    assert is_gated(Program.of(make(outputs, assumed), objective=chosen))
    forged = FORGED[way](outputs, assumed, make)
    assert not is_gated(Program.decode(Program.of(forged, objective=chosen).encode()))


@pytest.mark.parametrize("objective", [LATENCY, STRICT])
def test_whether_there_is_an_answer_hangs_on_nothing_else(secure: Any, objective: Objective) -> None:
    """A run that ends where some number is not 0 tells that number, whatever becomes of the results."""
    chosen = Objective(objective.round_bytes, objective.security)
    outputs, assumed, make = _parts(secure, objective)
    given, other = make(outputs, assumed), _scaled(Zero, _digit(outputs))
    assert not is_gated(Program.of(given, [other], objective=chosen))
    assert not is_gated(Program.of([*given[:-1], _scaled(Zero, _digit(outputs))], objective=chosen))
    kept = [Expression(Keep("y"), (outputs[0],))]
    hang = watched([], kept, assumptions(kept), objective.security, gated=True).checks
    assert is_gated(Program.of([], [*kept, *hang], objective=chosen))
    assert not is_gated(Program.of([], [*kept, *hang, other], objective=chosen))
    assert not is_gated(Program.of([_scaled(Nonzero, _digit(outputs))], [*kept, *hang], objective=chosen))


def test_of_what_is_kept_too(secure: Any) -> None:
    outputs, assumed, make = _parts(secure, LATENCY)
    kept = [Expression(Keep("y"), (outputs[0],))]
    hang = watched([], kept, assumptions(kept), Security.SEMI_HONEST, gated=True).checks
    assert is_gated(Program.of([], [*kept, *hang]))
    assert not is_gated(Program.of([], kept))
    both = [Expression(Keep("y"), (outputs[0],)), Expression(Keep("z"), (outputs[1],))]
    assert not is_gated(Program.of([], [*both, *hang]))
    assert not is_gated(Program.of(make(outputs, assumed), kept))
    zero = Expression(Zero(), (Expression(Input((1,), 0, 0.0, 0.0)), Expression(Coefficients(1))))
    assert not is_gated(Program.of([], [*kept, zero]))


def test_samples_that_meet_are_not_gated_apart(secure: Any) -> None:
    """One is in its range, and its row of the result is another's."""
    x = product(secure, (4, 3)).assumed(-4, 4)
    apart, turned = (lowered(y.node) for y in (x * 2, x[::-1] * 2))
    made = watched([apart], [], assumptions([apart]), Security.SEMI_HONEST, gated=True).outputs
    assert samples([apart]) == 4
    assert samples([turned]) == 1
    forged = Program.of([_gate(turned, _counts(made)), made[-1]])
    assert not is_gated(forged)
    assert is_gated(Program.of(made))


def _with(astray: Expression, *inputs: Expression) -> Expression:
    return Expression(astray.operation, inputs)


def test_a_gate_is_of_coefficients_of_its_own_and_the_last_there_is(secure: Any) -> None:
    outputs, assumed, make = _parts(secure, LATENCY)
    made = make(outputs, assumed)
    y, counts, s = made[0].inputs
    known = Expression(Input(s.type.shape, 0, -(2.0**59), 2.0**59))
    few = Expression(Coefficients(2))
    again = Expression(Gate(), (outputs[1], counts, s))
    bit = Expression(Nonzero(), (counts, Expression(Coefficients(counts.type.size))))
    astray = counts.inputs[0]
    x, own, *others = astray.inputs
    fresh = Expression(own.operation)
    forged: list[Callable[[], list[Expression]]] = [
        lambda: [Expression(Gate(), (y, counts, known))],
        lambda: [Expression(Gate(), (y, counts, few))],
        lambda: [Expression(Gate(), (y, outputs[0], s))],
        lambda: [Expression(Gate(), (constant([1.0, 2.0, 3.0]), counts, s))],
        lambda: [made[0], again],
        lambda: [made[0], s],
        lambda: [made[0], bit, Expression(Add(), (made[0], outputs[0]))],
        lambda: [Expression(Mask(), (made[0],))],
        lambda: [astray],
        lambda: [counts],
        lambda: [Expression(Add(), (counts, counts))],
        lambda: [Expression(Negate(), (counts,))],
        lambda: [_gate(y, Expression(Mask(), (_with(astray, x, known, *others),)))],
        lambda: [_gate(y, Expression(Mask(), (_with(astray, x, own, astray),)))],
        lambda: [_gate(y, Expression(Mask(), (_with(astray, x, fresh, *others, astray),)))],
        lambda: [_gate(y, Expression(Mask(), (_with(astray, x, fresh, Expression(Negate(), (astray,))),)))],
        lambda: [_gate(y, Expression(Mask(), (Expression(Add(), (astray, *others)),)))],
        lambda: [_gate(y, astray)],
    ]
    assert Program.of([made[0], bit])
    assert Program.of([_gate(y, Expression(Mask(), (_with(astray, x, fresh, astray),)))])
    for make_one in forged:
        with pytest.raises((ProgramError, RangeError)):
            Program.of(make_one())
