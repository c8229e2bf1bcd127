"""Checked ranges: no value that lies in its range is refused, and none that does not gets through."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import MacCheckError, ProgramError, RangeError
from mpc.objective import ANY, LATENCY, Objective
from mpc.operation import Input, PartyContext, Stored, Value
from mpc.program import Expression, Program
from mpc.rings import BITS, FIELD, FieldRing, field, known_rings
from mpc.rings.field import P
from mpc.rings.prg import Seed
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.lowering.in_range import within
from protocols.lowering.plan import plan
from protocols.operations.fourier import Fourier
from protocols.operations.in_range import Coefficients, Ranged
from protocols.operations.linear import Declare
from protocols.operations.mask import Mask
from protocols.readings.memory import run_in_memory
from protocols.readings.party import OutOfRange
from protocols.trace.secret_tensor import graph_of, leaf

STRICT = Objective(ANY, Security.MALICIOUS)
PLANNED = {"bits": LATENCY, "with MACs": STRICT}
RUNS = [(2, Security.SEMI_HONEST), (3, Security.SEMI_HONEST), (2, Security.MALICIOUS), (3, Security.MALICIOUS)]
RANGES = [(0, 0), (0, 1), (-1, 1), (-3, 4), (0, 255), (-(2**16), 2**16), (5, 2**40 + 9), (-(2**57), 2**58)]


def around(low: int, high: int) -> list[int]:
    """Both ends and what is beside them; zero, the middle, and the elements where the field wraps."""
    marks = (low, high, 0, (low + high) // 2, P // 2, low + (1 << 58), high - low, 2**59)
    return sorted({(mark + d) % P for mark in marks for d in (-1, 0, 1)})


def opened(t: TensorType, value: int, mask: int, ring: str) -> int:
    """V of one value under one mask, as a single party would open it; other masks and coefficients are drawn."""
    rings, one, f = known_rings(), PartyContext(0, 1), FieldRing()
    x = Expression(Stored((1,), t.fraction_bits, t.low, t.high, "model", "x"))
    program = Program.of([within(x, LATENCY if ring == BITS else STRICT)])
    a = f.full((1,), mask)
    masks: list[Any] = []
    values: list[Value] = []
    for i, node in enumerate(program.nodes):
        types, operation = program.input_types(node), node.operation
        seed = Seed(bytes(range(16))).derive(f"{i} {value} {mask}")
        drawn = a if isinstance(operation, Stored) else rings[node.type.ring].sample(seed, node.type.shape)
        masks.append(drawn)
        dealt = [
            part for c in program.correlations[i] for part in c.make(rings, [masks[node.inputs[j]] for j in c.operands])
        ]
        inputs = [values[j] for j in node.inputs]
        if isinstance(operation, Stored):
            values.append(Value(f.subtract(f.full((1,), value), a), a))
        elif isinstance(operation, Coefficients):
            values.append(Value(None, drawn))
        elif isinstance(operation, Mask):
            ring_of, whole = rings[node.type.ring], inputs[0]
            total = one.fold(whole, types[0])
            values.append(Value(ring_of.subtract(total, drawn), drawn))
        else:
            values.append(operation.evaluate(one, types, inputs, operation.prepare(one, types, inputs, dealt)))
    return int(one.fold(values[-1], program.nodes[-1].type))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("ring", [BITS, pytest.param(FIELD, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_every_edge_of_range_and_field_under_every_edge_of_masks(low: int, high: int, ring: str) -> None:
    """Masks where c - r wraps, and where it nearly does, among them: no seed would find these."""
    t = TensorType((1,), 0, float(low), float(high), Form.MASKED)
    assert Ranged.of(t) == (low, high - low)
    rng = np.random.default_rng(1)
    values = around(low, high)
    for value in values if ring == BITS else values[::4]:
        # r = -a, so that c = x - L + r: near 0, near p, near 2^60, and such that c is near 0 or near W.
        shift = (value - low) % P
        near = [0, 1, P - 1, 2**60, 2**60 - 1, -shift, high - low - shift, high - low, P - (high - low), P // 2 - shift]
        for r in {(n + d) % P for n in near for d in (-1, 0, 1)} | {int(rng.integers(P))}:
            inside = (value - low) % P <= high - low
            assert (opened(t, value, -r % P, ring) == 0) == inside, (value, r)


def model(secure: Any, shape: tuple[int, ...], low: float, high: float, planned: Objective, bits: int = 16) -> Program:
    x = secure.secret(shape, low, high, bits)
    return plan(graph_of([x * secure.stored("w", shape)]), planned, checked=True)


@pytest.mark.parametrize(
    ("name", "parties", "security"),
    # Bits have no MACs.
    [(name, *run) for name in PLANNED for run in RUNS if name != "bits" or run[1] is Security.SEMI_HONEST],
)
def test_values_in_range_go_on_and_one_of_many_that_is_not_ends_the_run(
    secure: Any, name: str, parties: int, security: Security
) -> None:
    shape = (5, 7)
    program = model(secure, shape, -1.0, 1.0, PLANNED[name])
    store = secure.store({"w": np.ones(shape, np.uint64)}, parties)
    raw = np.random.default_rng(0).integers(-(2**16), 2**16, shape, endpoint=True)
    raw[0, :2] = -(2**16), 2**16
    done = run_in_memory(program, [field.from_signed(raw)], parties=parties, store=store, security=security)
    assert np.array_equal(field.to_signed(done.outputs[0]), raw)
    for value in (2**16 + 1, -(2**16) - 1, 2**40, -(2**59), P // 2, P // 2 + 1, (2**16 + 1) * 2**44):
        elements = field.from_signed(raw)
        elements[3, 4] = value % P
        with pytest.raises(OutOfRange) as caught:
            run_in_memory(program, [elements], parties=parties, store=store, security=security)
        assert isinstance(caught.value.source, Input)


@pytest.mark.parametrize("parties", [2, 3])
def test_with_macs_the_same_of_what_is_stored(secure: Any, parties: int) -> None:
    for last, inside in ((2**16, True), (2**16 + 1, False), (P // 2, False)):
        values = field.from_signed(np.array([0, -(2**16), last]))
        store = secure.store({"x": values}, parties)
        if inside:
            run = secure.as_predicted(data(STRICT), [], parties, Security.MALICIOUS, store)
            assert np.array_equal(run.outputs[0], values)
            continue
        with pytest.raises(OutOfRange) as caught:
            run_in_memory(data(STRICT), [], parties=parties, store=store, security=Security.MALICIOUS)
        assert isinstance(caught.value.source, Stored)


@pytest.mark.parametrize(("parties", "security"), RUNS)
def test_a_run_costs_what_is_predicted_and_the_check_takes_no_round_of_a_deep_program(
    secure: Any, parties: int, security: Security
) -> None:
    def written(stored: bool) -> Program:
        x = secure.secret((4, 6), -1.0, 1.0)
        w = secure.stored("w", (4, 6)) if stored else secure.secret((4, 6))
        for _ in range(4):
            x = (x * w).sigmoid(interval=(-4, 4))
        planned = PLANNED["with MACs" if security is Security.MALICIOUS else "bits"]
        return plan(graph_of([x]), planned, checked=True)

    program = written(stored=True)
    assert program.checked == {program.inputs[0]}
    assert program.rounds == written(stored=False).rounds == 7
    store = secure.store({"w": np.full((4, 6), 2**13, np.uint64)}, parties)
    secure.as_predicted(program, [np.zeros((4, 6), np.uint64)], parties, security, store)
    check = cost(program, parties, security).layers["range check"]
    if security is Security.SEMI_HONEST:
        # Of 48 signs, four digits each and a bit; and one element.
        assert (check.rounds, check.opened_bytes, check.dealt_bytes) == (0, 42 + 6 + 8, 109 * 3 + 22 * 6 + 24 * 24 + 8)
    else:
        # 18 bits and a coefficient of each value.
        assert (check.rounds, check.opened_bytes, check.dealt_bytes) == (0, 8, 24 * (18 * 16 + 8) + 16)


def test_a_weight_can_be_read_bit_by_bit_through_a_periodic_activation_unless_ranges_are_checked(secure: Any) -> None:
    """An input of 2^j moves one bit of a weight to where half a period is, and those below to known places."""
    bias, weight = 0.75, -11213
    x = secure.secret((1,), -1.0, 1.0)
    y = (x * secure.stored("w", (1,)) + bias).sigmoid(interval=(-8, 8))
    fit = y.node.operation.fit
    unchecked, checked = (plan(graph_of([y]), checked=which) for which in (False, True))
    (activation,) = [node for node in unchecked.nodes if isinstance(node.operation, Fourier)]
    raised = unchecked.nodes[activation.inputs[0]].type.fraction_bits - (14 + 16)
    half = activation.operation.period_bits - 1 - raised
    store = secure.store({"w": field.from_signed(np.array([weight]))}, 2)

    def predicted(program: Program, bit: int) -> float:
        raw = field.from_signed(np.array([1 << (half - bit)]))
        run = run_in_memory(program, [raw], store=store)
        return float(fixed_point.decode(run.outputs[0], y.type.fraction_bits)[0])

    found = 0
    for bit in range(15):
        seen = predicted(unchecked, bit)
        near, far = (fit(bias + 2.0 ** (half - bit - 30) * (found + (b << bit))) for b in (0, 1))
        found |= int(abs(seen - far) < abs(seen - near)) << bit
        with pytest.raises(OutOfRange):
            predicted(checked, bit)
    assert found - (found >> 14 << 15) == weight


def data(planned: Objective) -> Program:
    """Of what is stored, whoever it is of."""
    x = Expression(Stored((3,), 16, -1.0, 1.0, "model", "x"))
    return Program.of([x], [within(x, planned)], objective=planned)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("honest", [True, False])
def test_who_lies_about_what_the_check_opens_fails_the_mac_check(secure: Any, honest: bool, stored: bool) -> None:
    """Whether to have an honest client blamed, or to get a hostile one's values through, by what makes 0 of it."""
    program = data(STRICT) if stored else model(secure, (3,), -1.0, 1.0, STRICT)
    seeds, values = secure.seeds(2, 5), field.from_signed(np.array([1, -(2**16), 2**16 if honest else 2**16 + 1]))
    raw = [values] if not stored else []
    store = secure.store({"w": np.ones(3, np.uint64), "x": values}, 2)
    verdict = next(i for i, node in enumerate(program.nodes) if node.operation.settles)
    last = program.depths[verdict] - 1
    others: list[Any] = []

    def watch(number: int, sender: int, receiver: int, vector: Any) -> Any:
        if number == last and sender == 0:
            others.append(vector.copy())
        return vector

    with contextlib.suppress(OutOfRange):
        run_in_memory(program, raw, store=store, security=Security.MALICIOUS, tamper=watch, seeds=seeds)

    def lie(number: int, sender: int, receiver: int, vector: Any) -> Any:
        if number == last and sender == 1:
            changed = vector.copy()
            # V alone is opened in this round.
            changed[0] = (P - others[0][0]) % P if not honest else (changed[0] + np.uint64(7)) % P
            return changed
        return vector

    with pytest.raises(MacCheckError):
        run_in_memory(program, raw, store=store, security=Security.MALICIOUS, tamper=lie, seeds=seeds)
    for wrong in range(last + 1):

        def flip(number: int, sender: int, receiver: int, vector: Any, wrong: int = wrong) -> Any:
            return (vector + np.uint64(1)) % np.uint64(P) if (number, sender) == (wrong, 1) else vector

        with pytest.raises(MacCheckError):
            run_in_memory(program, raw, store=store, security=Security.MALICIOUS, tamper=flip, seeds=seeds)


def test_what_is_not_a_check_of_what_it_says_is_no_program(secure: Any) -> None:
    """Digits of another input, coefficients that somebody knows, values that are computed: none passes for a check."""
    x, other = (leaf(Input((3,), 16, -1.0, 1.0)).node.lowered[LATENCY] for _ in range(2))
    real = within(x, LATENCY)
    _, coefficients, signs = real.inputs
    known = Expression(Input((3,), 0, -(2.0**59), 2.0**59))
    computed = Expression(Declare(-1.0, 1.0), (x,))
    for inputs in (
        (other, coefficients, signs),
        (x, known, signs),
        (computed, coefficients, signs),
        (x, coefficients, signs.inputs[0].inputs[0]),
        (x, coefficients, Expression(Input((1,), 0, 0.0, 255.0, BITS))),
    ):
        with pytest.raises(ProgramError):
            Program.of([Expression(real.operation, inputs)])
    assert Program.of([real]).checked == {0}


def test_a_range_that_is_too_wide_is_refused_when_it_is_planned(secure: Any) -> None:
    for low, high in ((-(2.0**42), 2.0**42), (0.0, 2.0**43)):
        with pytest.raises(RangeError, match="declare a tighter one"):
            plan(graph_of([secure.secret((2,), low, high), secure.stored("w", (2,))]), checked=True)
    assert not plan(graph_of([secure.secret((2,), -(2.0**42), 2.0**42) * 1.0]), checked=True).checked
