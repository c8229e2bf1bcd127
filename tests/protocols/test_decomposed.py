"""Ranges that a client shows its inputs to lie in, by their bits: whatever it sends, no other value gets through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mpc.cost import cost
from mpc.errors import ProgramError
from mpc.objective import ANY, Objective
from mpc.operation import Input, PartyContext, Stored, Value
from mpc.program import Expression, Program
from mpc.rings import FieldRing, bits_of, field, known_rings
from mpc.rings.field import P
from mpc.rings.prg import Seed
from mpc.security import Security
from protocols.lowering.in_range import within
from protocols.lowering.plan import plan
from protocols.operations.decomposed import Decomposed, Recomposed, weights
from protocols.operations.in_range import Coefficients, Ranged
from protocols.readings.inputs import masked_inputs
from protocols.trace.secret_tensor import graph_of

STRICT = Objective(ANY, Security.MALICIOUS)
RANGES = [(0, 0), (0, 1), (-1, 1), (-3, 4), (0, 255), (-(2**16), 2**16), (5, 2**40 + 9), (-(2**57), 2**58)]
FIELD = FieldRing()


def test_sums_of_weights_are_all_integers_up_to_the_width_and_nothing_else() -> None:
    for width in range(80):
        sums = {0}
        for weight in weights(width):
            sums |= {s + weight for s in sums}
        assert sums == set(range(width + 1)), width


def verdict(x: Input, value: int, sent: list[int] | None, seed: int = 0) -> int:
    """V of one value, for what a client sends as its bits, or else for what it should."""
    rings, one, bits = known_rings(), PartyContext(0, 1), bits_of(known_rings())
    check = Program.of([within(Expression(x), STRICT)])
    values: list[Value] = []
    masks: list[Any] = []
    for i, node in enumerate(check.nodes):
        types, operation = check.input_types(node), node.operation
        masks.append(rings[node.type.ring].sample(Seed(bytes(16)).derive(f"{i} {seed}"), node.type.shape))
        if isinstance(operation, Input):
            values.append(Value(FIELD.subtract(FIELD.full((1,), value), masks[i]), masks[i]))
        elif isinstance(operation, Coefficients):
            values.append(Value(None, masks[i]))
        elif isinstance(operation, Decomposed):
            own = operation.clear(rings, types, [FIELD.full((1,), value)])
            # The other bits of the byte are nobody's.
            plain = own if sent is None else np.array(sent, np.uint8).reshape(-1, 1) | np.uint8(0xA6)
            values.append(Value(bits.subtract(plain, masks[i]), None))
        else:
            operands = [masks[j] for j in node.inputs]
            dealt = [part for c in check.correlations[i] for part in c.make(rings, operands)]
            values.append(operation.evaluate(one, types, [values[j] for j in node.inputs], dealt))
    return int(one.fold(values[-1], check.nodes[-1].type))


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_bits_that_are_honest_pass_for_each_edge_of_the_range_and_no_edge_of_the_field_beside_it(
    low: int, high: int
) -> None:
    x = Input((1,), 0, float(low), float(high))
    marks = (low, high, 0, (low + high) // 2, P // 2, low + (1 << 58), high - low, 2**59)
    for value in sorted({(mark + d) % P for mark in marks for d in (-1, 0, 1)}):
        inside = (value - low) % P <= high - low
        for seed in range(3):
            assert (verdict(x, value, None, seed) == 0) == inside, value


@pytest.mark.parametrize("high", [0, 1, 2, 5, 6, 8])
def test_no_bits_at_all_pass_for_a_value_that_they_are_not(high: int) -> None:
    """All that a client could send, for all values in the range and some beside it."""
    x, each = Input((1,), 0, -2.0, float(high - 2)), weights(high)
    for pattern in range(1 << len(each)):
        sent = [pattern >> k & 1 for k in range(len(each))]
        meant = sum(w * bit for w, bit in zip(each, sent, strict=True)) - 2
        for value in range(-4, high + 3):
            assert (verdict(x, value % P, sent) == 0) == (value == meant)


@pytest.mark.parametrize("parties", [2, 3])
def test_what_a_client_sends_is_counted_and_takes_one_element_of_the_first_round(secure: Any, parties: int) -> None:
    shape = (3, 5)
    x = secure.secret(shape, -1.0, 1.0)
    program = plan(graph_of([x * secure.stored("w", shape)]), STRICT, checked=True)
    assert program.rounds == 1
    assert len(program.supplied) == 2
    store = secure.store({"w": np.ones(shape, np.uint64)}, parties)
    raw = field.from_signed(np.random.default_rng(0).integers(-(2**16), 2**16, shape, endpoint=True))
    run = secure.as_predicted(program, [raw], parties, Security.MALICIOUS, store)
    assert np.array_equal(run.outputs[0], raw)
    predicted = cost(program, parties, Security.MALICIOUS)
    assert predicted.online_client_bytes == parties * sum(array.nbytes for array in run.masked)
    assert [array.nbytes for array in run.masked] == [8 * 15, 18 * 2]
    assert predicted.layers["range check"].opened_bytes == 8
    assert predicted.offline_client_bytes == sum(
        len(part) if isinstance(part, bytes) else part.nbytes for part in run.dealing.for_client()
    )


def test_bits_that_are_sent_are_uniform_whatever_they_are_of() -> None:
    """Each of them is one under a mask's bit of one, and its own under one of zero."""
    x = Expression(Input((8,), 0, 0.0, 255.0))
    program = Program.of([within(x, STRICT)])
    rng, values = np.random.default_rng(3), np.array([0, 255, 1, 254, 128, 127, 85, 170], np.uint64)
    masks: list[Any] = [FIELD.zeros((8,)), rng.integers(0, 256, (8, 1), np.uint8)]
    sent = masked_inputs(program, [values], SimpleNamespace(input_masks=masks))  # type: ignore[arg-type]
    own = sum((np.unpackbits(row, bitorder="little").astype(int) << k) for k, row in enumerate(sent[1] ^ masks[1]))
    assert np.array_equal(own, values)


def test_bits_of_what_no_client_knows_or_of_another_input_are_no_program() -> None:
    x, other = (Expression(Input((3,), 16, -1.0, 1.0)) for _ in range(2))
    real = within(x, STRICT)
    assert isinstance(real.operation, Recomposed)
    assert Program.of([real]).checked == {0}
    _, coefficients, bits = real.inputs
    stored = Expression(Stored((3,), 16, -1.0, 1.0, "model", "x"))
    known = Expression(Input((3,), 0, -(2.0**59), 2.0**59))
    for inputs in ((other, coefficients, bits), (x, known, bits), (x, coefficients, known)):
        with pytest.raises(ProgramError):
            Program.of([Expression(Recomposed(), inputs)])
    with pytest.raises(ProgramError, match="its input"):
        Program.of([Expression(Decomposed(), (stored,))])
    with pytest.raises(ProgramError, match="tells of masks"):
        Program.of([bits])
    assert Ranged.of(x.type).width == 2**17
