"""Exact comparison: every edge of every range, any number of parties, both kinds of security."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mpc import fixed_point
from mpc.cost import cost
from mpc.errors import ProgramError, RangeError, UnsupportedError
from mpc.program import Program
from mpc.rings import field
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.operations.comparison import EXACTLY, Compare, Digits, Window
from protocols.readings.clear import clear
from protocols.readings.memory import run_in_memory

Integers = npt.NDArray[np.int64]
TESTS: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("lt", "le", "gt", "ge", "eq", "ne")
}
PARTIES = [(2, Security.SEMI_HONEST), (3, Security.SEMI_HONEST), (5, Security.SEMI_HONEST), (4, Security.MALICIOUS)]


def around(magnitude: int) -> Integers:
    """Values up to ``magnitude``: ends, zero, powers of two, and one unit beside each."""
    marks = {0, magnitude, *(2**k for k in range(magnitude.bit_length()))}
    near = {m + d for m in marks for d in (-1, 0, 1)}
    return np.array(sorted(s * v for v in near for s in (-1, 1) if abs(v) <= magnitude), np.int64)


def computed(program: Program, *raw: Integers, parties: int, security: Security) -> list[npt.NDArray[np.float64]]:
    run = run_in_memory(program, [field.from_signed(r) for r in raw], parties=parties, security=security)
    bits = [program.nodes[i].type.fraction_bits for i in program.outputs]
    found = [fixed_point.decode(out, b) for out, b in zip(run.outputs, bits, strict=True)]
    for real, i in zip(found, program.outputs, strict=True):
        t = program.nodes[i].type
        assert not real.size or (real.min() >= t.low and real.max() <= t.high)
    return found


@pytest.mark.parametrize(("parties", "security"), PARTIES)
@pytest.mark.parametrize("magnitude", [1, 7, 2**18 + 1, 2**58])
def test_signs_at_every_edge(secure: Any, magnitude: int, parties: int, security: Security) -> None:
    raw = around(magnitude)
    x = secure.secret(raw.shape, -magnitude, magnitude, 0)
    program = secure.program(*(test(x, 0) for test in TESTS.values()), x.relu())
    wanted = [test(raw, 0) for test in TESTS.values()]
    *bits, relu = computed(program, raw, parties=parties, security=security)
    assert all(np.array_equal(found, w) for found, w in zip(bits, wanted, strict=True))
    assert np.array_equal(relu, np.maximum(raw, 0))


@pytest.mark.parametrize("name", TESTS)
def test_all_pairs_of_small_numbers(secure: Any, name: str) -> None:
    x, y = (side.reshape(-1) for side in np.meshgrid(np.arange(-8, 9), np.arange(-8, 9)))
    tensors = [secure.secret(x.shape, -8, 8, 0) for _ in range(2)]
    program = secure.program(TESTS[name](*tensors), np.where(TESTS[name](*tensors), *tensors))
    bit, chosen = computed(program, x, y, parties=3, security=Security.SEMI_HONEST)
    assert np.array_equal(bit, TESTS[name](x, y))
    assert np.array_equal(chosen, np.where(TESTS[name](x, y), x, y))
    assert program.rounds == (2 if name in ("eq", "ne") else 1)


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("threshold", [0.0, 0.25, 0.1, -0.1, 3.99999, 4.0, -4.0, 17.0, -1e300, np.inf, -np.inf])
def test_public_numbers_wherever_they_lie(secure: Any, name: str, threshold: float) -> None:
    raw = around(2**18)
    x = secure.secret(raw.shape)
    for y in (TESTS[name](x, threshold), TESTS[name](np.full(raw.shape, threshold), x)):
        (found,) = computed(secure.program(y), raw, parties=2, security=Security.SEMI_HONEST)
        wanted = TESTS[name](raw / 2**16, threshold) if y is not None else None
        reflected = TESTS[name](threshold, raw / 2**16)
        assert np.array_equal(found, wanted) or np.array_equal(found, reflected)


@pytest.mark.parametrize("ignored", [1, 7, 13])
def test_ignored_bits_change_the_sign_of_small_values_alone(secure: Any, ignored: int) -> None:
    """relu of products: right to one unit of 16 fraction bits, over all places of the masks' low bits."""
    raw = np.concatenate([around(2**20), np.arange(-(2**ignored) - 2, 2**ignored + 3)])
    x = secure.secret(raw.shape, -(2.0 ** (4 - ignored)), 2.0 ** (4 - ignored), 16 + ignored)
    program = secure.program(x.relu())
    (node,) = [n for n in program.nodes if isinstance(n.operation, Digits)]
    assert isinstance(node.operation, Digits)
    (found,) = computed(program, raw, parties=2, security=Security.SEMI_HONEST)
    unit = 2.0 ** -(16 + ignored)
    error = np.abs(found - np.maximum(raw, 0) * unit)
    assert error.max() <= 2.0 ** max(node.operation.ignored, 0) * unit <= 2.0**-16
    wrong = np.abs(raw)[error > 0]
    assert not wrong.size or wrong.max() <= 2.0**node.operation.ignored


def test_rounds_and_bytes_are_as_predicted(secure: Any) -> None:
    x, w = secure.secret((6, 4)), secure.stored("w", (4, 5))
    y = (x @ w).relu() @ w.T
    program = secure.program(y > 0)
    assert program.rounds == 5  # the product, its digits, relu; the second product, its digits
    for parties in (2, 3):
        for security in Security:
            predicted = cost(program, parties, security)
            assert predicted.online_rounds == program.rounds + (4 if security is Security.MALICIOUS else 1)


def test_what_a_range_tells_is_not_compared(secure: Any) -> None:
    x = secure.secret((3,), 1, 4)
    program = secure.program(x >= 0, x < 1, x.relu(), (-x).relu(), x > 5, x <= 4)
    assert program.rounds == 0
    raw = fixed_point.encode(np.array([1.0, 2.5, 4.0]), 16)
    values = [
        fixed_point.decode(v, program.nodes[i].type.fraction_bits)
        for v, i in zip(clear(program, [raw]), program.outputs, strict=True)
    ]
    assert [v.tolist() for v in values] == [[1] * 3, [0] * 3, [1, 2.5, 4], [0] * 3, [0] * 3, [1] * 3]


def test_bits_are_of_few_bits_where_ranges_are_narrow(secure: Any) -> None:
    def bits(low: float, high: float, fraction_bits: int = 16) -> int:
        program = secure.program(secure.secret((2,), low, high, fraction_bits) >= 0)
        (operation,) = [n.operation for n in program.nodes if isinstance(n.operation, Digits)]
        return sum(operation.widths)

    assert bits(-1, 1, 0) == 2
    assert bits(-4, 4) == 20
    assert bits(-16, 16) == 22


def test_what_is_too_large_is_refused(secure: Any) -> None:
    with pytest.raises(RangeError, match="too large to compare"):
        _ = secure.secret((2,), -(2.0**59), 2.0**59, 0) >= 0
    with pytest.raises(UnsupportedError, match="0 and 1"):
        np.where(secure.secret((2,)), 1.0, 0.0)


@pytest.mark.parametrize(
    ("ignored", "widths"),
    [
        (EXACTLY, (4, 4)),
        (EXACTLY, ()),
        (EXACTLY, (9,) * 3),
        (-2, (8,) * 3),
        (0, (8,) * 8),
        (0, (5, 0, 8, 8)),
        (50, (8, 8)),
    ],
)
def test_what_a_stranger_may_not_compare(ignored: int, widths: tuple[int, ...]) -> None:
    x = TensorType((3,), 16, -4.0, 4.0, Form.MASKED)
    assert not Window(EXACTLY, (4, 4)).takes(x)
    assert Digits(EXACTLY, (7, 7, 6)).result(x).shape == (5, 3)
    with pytest.raises(ProgramError):
        Digits(ignored, widths).result(x)
    with pytest.raises(ProgramError):
        Compare(EXACTLY, (7, 7, 6), False).result(x, Digits(EXACTLY, (7, 7, 6)).result(x))
