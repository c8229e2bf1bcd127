"""Exact truncation: off by less than one unit, unbiased, for every place of the wrap."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mpc.errors import ProgramError
from mpc.operation import Input
from mpc.rings import FieldRing, field
from mpc.tensor_type import Form, TensorType
from protocols.operations.truncation import Truncate, mask_quotient, opened_quotient
from protocols.readings.memory import run_in_memory
from protocols.trace.secret_tensor import leaf

Raw = npt.NDArray[np.uint64]
LIMIT = 2**59 - 1


@pytest.mark.parametrize("bits", [1, 10, 13, 20, 37, 58])
def test_off_by_less_than_one_unit_and_unbiased(secure: Any, bits: int) -> None:
    rng = np.random.default_rng(bits)
    count = 200_000
    ends = [LIMIT, -LIMIT, 0, 1, -1, LIMIT - 1, 2**bits, -(2**bits), 2**bits - 1]
    x = np.concatenate([rng.choice(np.array(ends), count // 2), rng.integers(-LIMIT, LIMIT, count - count // 2)])
    mask = rng.integers(0, field.P, count, dtype=np.uint64)
    mask[:6] = 0, 1, field.P - 1, 2**60, 2**60 - 1, 2**59
    result = secure.divided(Truncate(bits), x, mask)
    # In units of 2^-bits, so that nothing is lost to floats: |result 2^bits - x| < 2^bits.
    error = (result << bits) - x
    assert np.abs(error).max() < 2**bits
    rounded = error / 2.0**bits
    # The variance of stochastic rounding is at most 1/4.
    assert abs(rounded.mean()) < 6 * 0.5 / count**0.5


@pytest.mark.parametrize("bits", [1, 16, 40])
@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("below", [0, 1])
def test_each_place_of_the_wrap(secure: Any, bits: int, upper: int, below: int) -> None:
    """x + 2^59 + r wraps past p exactly when r >= 2^60 and the sum comes out below 2^60."""
    r = {(0, 0): 2**60 - 5, (0, 1): 12_345, (1, 0): 2**60 + 7, (1, 1): field.P - 3}[upper, below]
    x = {(0, 0): LIMIT, (0, 1): -777_777, (1, 0): -LIMIT, (1, 1): 2**58 + 9}[upper, below]
    mask = np.array([-r % field.P], np.uint64)
    opened = field.from_signed(np.array([x + r]))
    assert (mask_quotient(FieldRing(), mask, 1 << bits).wrap > 0).tolist() == [bool(upper)]
    assert opened_quotient(FieldRing(), opened, 1 << bits).below_half.tolist() == [below]
    assert (x + 2**59 + r >= field.P) == bool(upper and below)
    (result,) = secure.divided(Truncate(bits), np.array([x]), mask).tolist()
    assert result in {x >> bits, (x >> bits) + 1}
    assert abs((result << bits) - x) < 2**bits


def test_known_answer_of_a_wrap(secure: Any) -> None:
    """x = 100 by 2^3, r = p - 2: c = 100 + 2^59 - 2, so b = m = 1; 98 / 8 = 12 and r1 = (p - 2) // 8 = 2^58 - 1."""
    mask = np.array([2], np.uint64)
    high, wrap = mask_quotient(FieldRing(), mask, 8)
    assert (high.item(), wrap.item()) == (2**58 - 1, 2**58)
    quotient, below = opened_quotient(FieldRing(), np.array([98], np.uint64), 8)
    assert (quotient.item(), below.item()) == (12, 1)
    # 12 - (2^58 - 1) + 2^58 = 13.
    assert secure.divided(Truncate(3), np.array([100]), mask).tolist() == [13]


def test_a_wrap_loses_no_unit(secure: Any) -> None:
    """p is 2^61 - 1, not 2^61: with r's low bits all ones, x = 0 would come out as 1 if that were forgotten."""
    r = 2**60 + 2**59 + 2**10 - 1
    assert secure.divided(Truncate(10), np.array([0]), np.array([-r % field.P], np.uint64)).tolist() == [0]


def test_clear_is_the_floor() -> None:
    x = field.from_signed(np.array([5, -5, 8, -8, 0]))
    assert field.to_signed(FieldRing().quotient_signed(x, 4)).tolist() == [1, -2, 2, -2, 0]


@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize("shape", [(), (0,), (3, 1, 2)])
def test_between_parties(secure: Any, parties: int, shape: tuple[int, ...]) -> None:
    x = leaf(Input(shape, 40, -(2.0**18), 2.0**18))
    raw = np.resize(np.array([2**58, -(2**58), 0, 1, -1, 12345678901234]), shape).astype(np.int64)
    program = secure.program(x.truncate(9))
    (out,) = run_in_memory(program, [field.from_signed(raw)], parties=parties).outputs
    assert out.shape == shape
    assert (np.abs((field.to_signed(out) << 31) - raw) < 2**31).all()


@pytest.mark.parametrize(
    ("bits", "t"),
    [
        (0, TensorType((), 16, -1.0, 1.0, Form.MASKED)),
        (17, TensorType((), 16, -1.0, 1.0, Form.MASKED)),
        (59, TensorType((), 60, 0.0, 0.1, Form.MASKED)),
        (-1, TensorType((), 16, -1.0, 1.0, Form.MASKED)),
        (4, TensorType((), 16, -1.0, 1.0, Form.SHARED)),
        (4, TensorType((), 16, -1.0, 1.0, Form.PUBLIC)),
        (4, TensorType((), 16, -(2.0**43), 2.0**43, Form.MASKED)),
    ],
)
def test_what_cannot_be_truncated_is_refused(bits: int, t: TensorType) -> None:
    with pytest.raises(ProgramError):
        Truncate(bits).result(t)


def test_bits_of_the_mask_are_not_shown() -> None:
    assert "..." in repr(mask_quotient(FieldRing(), np.array([5], np.uint64), 8))
