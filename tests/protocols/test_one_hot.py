"""Tables of functions of small secret numbers: exact, in the one round that opens the number, at every mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import ProgramError, ShapeError, UnsupportedError
from mpc.objective import LATENCY
from mpc.rings import field, field_of, known_rings
from mpc.rings.places import modulus
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.operations.comparison import Comparison
from protocols.operations.one_hot import MOST_PLACES, OneHot
from protocols.readings.memory import run_in_memory

RUNS = [(2, Security.SEMI_HONEST), (5, Security.SEMI_HONEST), (3, Security.MALICIOUS)]


@pytest.mark.parametrize("count", [1, 2, 3, 10, 16, 255, 256, 1024])
def test_at_every_opened_number(count: int) -> None:
    """Small ones, where a difference wraps past p or not, and those at both ends of the field."""
    ring = field_of(known_rings())
    assert count <= modulus(count) < 2 * count + 2
    opened = np.unique([0, 1, 2, count - 2, count - 1, count, count + 1, 2**60, field.P - 1, field.P - count])
    opened = opened[opened >= 0].astype(np.uint64)
    for x in {0, 1, count // 2, max(0, count - 2), count - 1} & set(range(count)):
        hidden = ring.subtract(opened, ring.full(opened.shape, x))
        found = ring.differences(opened, count, ring.one_hot(hidden, count))
        assert np.array_equal(found, np.tile(np.arange(count) == x, (opened.size, 1)))


@pytest.mark.parametrize(("parties", "security"), RUNS)
def test_any_function_of_a_byte(secure: Any, parties: int, security: Security) -> None:
    raw = np.resize(np.arange(256), (4, 70))
    table = np.stack([np.sin(np.arange(256) / 9), np.arange(256) // 3], 1)
    x = secure.secret(raw.shape, 0, 255, 0)
    program = secure.program(x.chosen_from(table), x.chosen_from(table[:, 1]))
    assert program.rounds == 0
    own = 8 * x.size if security is Security.MALICIOUS else 0
    each = 2344 * (2 if security is Security.MALICIOUS else 1)
    assert cost(program, parties, security).offline_dealer_bytes[-1] - 16 - own == each * x.size
    run = run_in_memory(program, [field.from_signed(raw)], parties=parties, security=security)
    both, whole = (
        fixed_point.decode(out, program.nodes[i].type.fraction_bits)
        for out, i in zip(run.outputs, program.outputs, strict=True)
    )
    assert np.array_equal(whole, table[raw, 1])
    assert np.abs(both - table[raw]).max() <= 2.0**-17


@pytest.mark.parametrize(("parties", "security"), RUNS)
def test_a_secret_table(secure: Any, parties: int, security: Security) -> None:
    """Of rows, as an embedding is: a round more, and what is dealt does not grow with rows times columns."""
    rng = np.random.default_rng(0)
    rows, raw = rng.integers(-99, 99, (50, 6)), rng.integers(0, 50, 20)
    x, table = secure.secret((20,), 0, 49, 0), secure.secret((50, 6), -99, 99, 0)
    program = secure.program(np.take(table, x, 0), table.take(x, 0))
    assert program.rounds == 1
    run = run_in_memory(program, [field.from_signed(raw), field.from_signed(rows)], parties=parties, security=security)
    assert all(np.array_equal(fixed_point.decode(out, 0), rows[raw]) for out in run.outputs)


def test_what_is_computed_takes_the_round_that_opens_it(secure: Any) -> None:
    raw = np.array([3, 0, 7])
    x, y = secure.secret((3,), 0, 1, 0), secure.secret((3,), 0, 7, 0)
    program = secure.program((x * y).chosen_from(np.arange(8.0) ** 2))
    assert program.rounds == 1
    run = run_in_memory(program, [field.from_signed(np.array([1, 0, 1])), field.from_signed(raw)])
    assert fixed_point.decode(run.outputs[0], 0).tolist() == [9, 0, 49]


def test_large_numbers_are_compared(secure: Any) -> None:
    """Where there would be a table for each that is far larger than what is asked for."""
    for high, depth in ((MOST_PLACES, MOST_PLACES), (100, 5)):
        x = secure.secret((3,), 0, high, 0)
        program = secure.program(x.one_hot(depth), objective=LATENCY)
        assert any(isinstance(node.operation, Comparison) for node in program.nodes)
        raw = np.array([0, 4, high])
        run = run_in_memory(program, [field.from_signed(raw)])
        assert np.array_equal(fixed_point.decode(run.outputs[0], 0), raw[:, None] == np.arange(depth))


def test_what_has_no_place_is_refused(secure: Any) -> None:
    x = TensorType((3,), 0, 0.0, 9.0, Form.MASKED)
    assert OneHot(10).result(x).shape == (3, 10)
    for count, t in (
        (9, x), (0, x), (MOST_PLACES + 1, x), (10, x.replace(low=-1.0)), (10, x.replace(fraction_bits=1)),
        (10, x.replace(form=Form.SHARED)),
    ):  # fmt: skip
        with pytest.raises(ProgramError):
            OneHot(count).result(t)
    with pytest.raises(UnsupportedError):
        secure.secret((2,)).chosen_from(np.arange(9.0))
    with pytest.raises(ShapeError):
        np.take(secure.secret((0, 2)), secure.secret((2,), 0, 3, 0), 0)


def test_counts_of_candidates(secure: Any) -> None:
    """In place of what nobody may know: which values there are."""
    real = np.array([[0.5, 1.25, 0.5], [-2.0, 1.25, 0.5]])
    program = secure.program(secure.secret(real.shape).value_counts([0.5, 1.25, -2.0, 3.0, 0.1]))
    run = run_in_memory(program, [fixed_point.encode(real, 16)])
    assert fixed_point.decode(run.outputs[0], 0).tolist() == [3, 2, 1, 0, 0]
    with pytest.raises(UnsupportedError, match=r"value_counts\(candidates\)"):
        np.unique(secure.secret((3,)), return_counts=True)


@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("bits", [0, 16])
def test_what_is_chosen_lies_where_the_table_does(secure: Any, bits: int, *, secret: bool) -> None:
    """It was said to lie in as many times that as there are places; beyond the end there is 0."""
    table = np.array([10.0, 20.0, 11.0])
    for most, low in ((2, 10.0), (5, 0.0)):
        of = secure.secret((3,), 10.0, 20.0, bits) if secret else table + (0.3 if bits else 0.0)
        found = secure.secret((4,), 0, most, 0).chosen_from(of)
        assert low - 0.001 <= found.type.low <= low + 0.3
        assert 20.0 <= found.type.high <= 20.301
    whole = secure.secret((4,), 0, 2, 0).chosen_from(table)
    assert (whole.type.low, whole.type.high, whole.type.fraction_bits) == (10.0, 20.0, 0)
