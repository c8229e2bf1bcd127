"""A truncation and a product in one opening: as the two one after the other, an opening and a round less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import ProgramError, ShapeError
from mpc.objective import ANY, LATENCY, Objective
from mpc.operation import PartyContext, Value
from mpc.rings import field, known_rings
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.operations.truncated_product import TruncatedMultiply
from protocols.readings.memory import run_in_memory
from protocols.trace import mathematics as m

LIMIT = 2**58


def masked(shape: tuple[int, ...], bits: int, magnitude: float) -> TensorType:
    return TensorType(shape, bits, -magnitude, magnitude, Form.MASKED)


@pytest.mark.parametrize("bits", [(1, 0), (20, 0), (40, 0), (20, 5), (0, 7), (33, 1)])
def test_each_is_off_by_less_than_a_unit_and_right_on_average(bits: tuple[int, int]) -> None:
    rng = np.random.default_rng(bits)
    count = 20_000
    reach = LIMIT >> bits[0] if bits[0] else 8
    x = rng.integers(-LIMIT, LIMIT, count) if bits[0] else rng.integers(-8, 9, count)
    x[:7] = np.minimum([LIMIT, -LIMIT, 0, 1, -1, 2 ** bits[0], -(2 ** bits[0])], x.max())
    y = rng.integers(-3, 4, count) << bits[1]
    y += rng.integers(0, 1 << bits[1], count) if bits[1] else 0
    masks = [rng.integers(0, field.P, count, dtype=np.uint64) for _ in range(2)]
    for mask, shift in zip(masks, bits, strict=True):
        rng.shuffle(mask)
        mask[:8] = 0, 1, field.P - 1, 2**60, 2**60 - 1, 2**59, 2**shift, field.P - 2**shift
    operation = TruncatedMultiply(bits)
    types = masked((count,), bits[0], float(reach)), masked((count,), bits[1], 4.0)
    assert operation.result(*types).form is Form.SHARED
    opened = [field.subtract(field.from_signed(v), mask) for v, mask in zip((x, y), masks, strict=True)]
    (correlation,) = operation.correlations(*types)
    dealt = [*correlation.make(known_rings(), masks), *masks]
    assert [part.shape for part in dealt[:-2]] == [part.shape for part in correlation.parts]
    first = [rng.integers(0, field.P, count, dtype=np.uint64) for _ in dealt]
    total = field.zeros((count,))
    second = [field.subtract(d, s) for d, s in zip(dealt, first, strict=True)]
    for party, shares in enumerate((first, second)):
        context = PartyContext(party, 2)
        inputs = [Value(e, share) for e, share in zip(opened, shares[-2:], strict=True)]
        total = field.add(total, context.fold(operation.evaluate(context, types, inputs, shares[:-2]), types[0]))
    exact = [v.astype(object) / 2**b for v, b in zip((x, y), bits, strict=True)]
    whole = [v >> b for v, b in zip((x, y), bits, strict=True)]
    corners = [(whole[0] + i) * (whole[1] + j) for i in range(2 if bits[0] else 1) for j in range(2 if bits[1] else 1)]
    found = field.to_signed(total)
    assert np.any([found == corner for corner in corners], axis=0).all()
    # Rounded up and down by chance, so that the mean is that of the exact product.
    larger = np.maximum(np.maximum(np.abs(exact[0]), np.abs(exact[1])), 1.0).astype(float)
    off = np.array([float(f) - float(a * b) for f, a, b in zip(found, *exact, strict=True)]) / larger
    assert abs(off.mean()) < 6 * off.std() / count**0.5 + 1e-12


@pytest.mark.parametrize(
    ("parties", "security"), [(2, Security.SEMI_HONEST), (3, Security.SEMI_HONEST), (3, Security.MALICIOUS)]
)
@pytest.mark.parametrize("shape", [(5, 4), (5, 1), (4,)])
def test_it_is_what_the_planner_makes_of_a_product(secure: Any, parties: int, security: Security, shape: Any) -> None:
    x, y = secure.secret((5, 4), -4.0, 4.0, 40), secure.secret(shape, -1.0, 1.0, 40)
    result = x._joined(m.Multiply(at_once=True), x, y)
    objective = Objective(ANY, security) if security is Security.MALICIOUS else LATENCY
    program = secure.program(result, objective=objective)
    assert [n.operation.name for n in program.nodes if n.operation.name.startswith("truncated")] == [
        "truncated_multiply"
    ]
    reals = [np.random.default_rng(i).uniform(-1, 1, s) * (4, 1)[i] for i, s in enumerate(((5, 4), shape))]
    raw = [fixed_point.encode(r, b) for r, b in zip(reals, (40, 40), strict=True)]
    run = run_in_memory(program, raw, parties=parties, security=security)
    found = fixed_point.decode(run.outputs[0], result.type.fraction_bits)
    assert np.abs(found - reals[0] * reals[1]).max() <= result.error.absolute < 1e-4


def test_it_saves_an_opening_and_a_round(secure: Any) -> None:
    x, y = (secure.secret((8,), -1.0, 1.0, 20) for _ in range(2))
    z = x * y
    at_once, apart = (secure.program(z._joined(m.Multiply(at_once), z, y)) for at_once in (True, False))
    assert (at_once.rounds, apart.rounds) == (1, 2)
    assert cost(apart, 2).online_bytes_per_party - cost(at_once, 2).online_bytes_per_party == 8 * 8
    secure.as_predicted(at_once, [field.zeros((8,))] * 2, security=Security.SEMI_HONEST)


def test_operands_that_do_not_go_together_are_refused() -> None:
    x, y = masked((2, 3), 20, 1.0), masked((4,), 20, 1.0)
    for types in ((x,), (x, y.replace(form=Form.SHARED)), (x.replace(form=Form.SHARED), x), (x, y)):
        with pytest.raises((ProgramError, ShapeError)):
            TruncatedMultiply((4, 0)).result(*types)
    with pytest.raises(ProgramError):
        TruncatedMultiply((21, 0)).result(x, x)
    with pytest.raises(ProgramError):
        TruncatedMultiply((0, 0)).result(x, x)
