"""Division by public whole numbers: off by less than one unit, for every place of the wrap, whatever the size."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import fixed_point
from mpc.errors import ProgramError
from mpc.operation import Input
from mpc.rings import FieldRing, field
from mpc.security import Security
from mpc.tensor_type import Form, TensorType
from protocols.operations.quotient import MAX_DIVISOR, Quotient
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import leaf

Raw = npt.NDArray[np.uint64]
LIMIT = 2**59 - 2**39
DIVISORS = [2, 3, 5, 7, 9, 10, 25, 375, 2**16 - 1, 1_000_003, MAX_DIVISOR - 1, MAX_DIVISOR]


@pytest.mark.parametrize("divisor", DIVISORS)
def test_off_by_less_than_one_unit_and_unbiased(secure: Any, divisor: int) -> None:
    rng = np.random.default_rng(divisor)
    count = 100_000
    ends = np.array([LIMIT, -LIMIT, 0, 1, -1, LIMIT - 1, divisor, -divisor, divisor - 1])
    x = np.concatenate([rng.choice(ends, count // 2), rng.integers(-LIMIT, LIMIT, count - count // 2)])
    mask = rng.integers(0, field.P, count, dtype=np.uint64)
    mask[:8] = 0, 1, field.P - 1, 2**60, 2**60 - 1, 2**59, divisor, field.P - divisor
    # |result d - x| < d, in integers.
    error = secure.divided(Quotient(divisor), x, mask) * divisor - x
    assert np.abs(error).max() < divisor
    assert abs((error / divisor).mean()) < 6 * 0.5 / count**0.5


def test_a_large_divisor_takes_what_its_largest_multiple_leaves_room_for(secure: Any) -> None:
    divisor = 3 * 2**46 + 1
    largest = int((2**59 // divisor * divisor) * (1 - 2.0**-20))
    x = np.array([largest, -largest, 0, 1, -1, divisor, -divisor] * 1000)
    mask = np.random.default_rng(1).integers(0, field.P, x.size, dtype=np.uint64)
    assert np.abs(secure.divided(Quotient(divisor), x, mask) * divisor - x).max() < divisor
    assert Quotient(divisor).result(TensorType((), 0, -float(largest), 0.0, Form.MASKED)).low < 0
    with pytest.raises(ProgramError):
        Quotient(divisor).result(TensorType((), 0, -float(LIMIT), 0.0, Form.MASKED))


@pytest.mark.parametrize("divisor", DIVISORS)
@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("below", [0, 1])
def test_each_place_of_the_wrap(secure: Any, divisor: int, upper: int, below: int) -> None:
    """x + K + r wraps past p exactly when r >= 2^60 and the sum comes out below 2^60."""
    r = {(0, 0): 2**60 - 5, (0, 1): 12_345, (1, 0): 2**60 + 7, (1, 1): field.P - 3}[upper, below]
    x = {(0, 0): LIMIT, (0, 1): -777_777, (1, 0): -LIMIT, (1, 1): 2**58 + 9}[upper, below]
    (result,) = secure.divided(Quotient(divisor), np.array([x]), np.array([-r % field.P], np.uint64)).tolist()
    assert result in {x // divisor, x // divisor + 1}
    assert abs(result * divisor - x) < divisor


def test_clear_is_the_floor() -> None:
    x = field.from_signed(np.array([7, -7, 9, -9, 0]))
    assert field.to_signed(FieldRing().quotient_signed(x, 3)).tolist() == [2, -3, 3, -3, 0]


@pytest.mark.parametrize("security", list(Security))
@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize("shape", [(), (0,), (3, 1, 2)])
def test_between_parties(secure: Any, parties: int, shape: tuple[int, ...], security: Security) -> None:
    x = leaf(Input(shape, 30, -(2.0**28), 2.0**28))
    raw = np.resize(np.array([2**58, -(2**58), 0, 1, -1, 12345678901234]), shape).astype(np.int64)
    program = secure.program(x / 7)
    assert [node.operation.name for node in program.nodes] == ["input", "quotient"]
    assert program.rounds == 0
    (out,) = run_in_memory(program, [field.from_signed(raw)], parties=parties, security=security).outputs
    assert out.shape == shape
    assert (np.abs(field.to_signed(out) * 7 - raw) < 7).all()


@settings(max_examples=150)
@given(
    st.integers(0, 40), st.integers(1, 2**29), st.booleans(), st.floats(0, 1), st.integers(0, 16)
)  # fmt: skip
def test_a_quotient_is_right_to_one_unit_whatever_its_size(
    secure: Any, log2: int, divisor: int, mean: bool, part: float, bits: int
) -> None:
    """By a constant or by an opening, as the planner likes."""
    high = 2.0**log2
    value = np.trunc(part * high * 2**bits) / 2**bits
    x = leaf(Input((), bits, 0.0, high))
    y = x.broadcast_to((divisor % 50 + 1,)).mean() if mean else x / divisor
    wanted = value if mean else value / divisor
    program = secure.program(y)
    raw = fixed_point.encode(np.array(value), bits)
    (out,) = run_in_memory(program, [raw]).outputs
    assert abs(float(fixed_point.decode(out, y.type.fraction_bits)) - wanted) <= 2.0**-bits


@pytest.mark.parametrize(
    ("divisor", "t"),
    [
        (0, TensorType((), 16, -1.0, 1.0, Form.MASKED)),
        (1, TensorType((), 16, -1.0, 1.0, Form.MASKED)),
        (-3, TensorType((), 16, -1.0, 1.0, Form.MASKED)),
        (MAX_DIVISOR + 1, TensorType((), 16, -1.0, 1.0, Form.MASKED)),
        (3, TensorType((), 16, -1.0, 1.0, Form.SHARED)),
        (3, TensorType((), 16, -1.0, 1.0, Form.PUBLIC)),
        (3, TensorType((), 16, -(2.0**43), 2.0**43, Form.MASKED)),
    ],
)
def test_what_cannot_be_divided_is_refused(divisor: int, t: TensorType) -> None:
    with pytest.raises(ProgramError):
        Quotient(divisor).result(t)
