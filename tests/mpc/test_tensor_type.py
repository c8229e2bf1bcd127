"""What is known of a tensor: checks, and numbers of any kind as the plain ones that are sent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mpc.errors import ProgramError, RangeError, ShapeError
from mpc.tensor_type import MAX_SIZE, TRUNCATION_BITS, Form, TensorType


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (-1,)},
        {"shape": (1,) * 17},
        {"low": 2.0},
        {"low": -math.inf},
        {"high": math.nan},
        {"high": math.inf},
        {"gain": -1.0},
        {"gain": math.nan},
        {"gain": math.inf},
    ],
)
def test_types_are_checked(change: dict[str, Any]) -> None:
    t = TensorType((2,), 4, -1.0, 1.0, Form.MASKED, 1.0)
    assert t.check() is t
    with pytest.raises(ProgramError):
        t.replace(**change).check()


@pytest.mark.parametrize(
    "change", [{"fraction_bits": -1}, {"fraction_bits": 61}, {"high": 2.0**57}, {"low": -(2.0**56)}]
)
def test_ranges_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(RangeError):
        TensorType((2,), 4, -1.0, 1.0, Form.MASKED).replace(**change).check()


@pytest.mark.parametrize("shape", [(2**40,), (2**62, 0), (2**16, 2**16), (2**20, 0, 2**20)])
def test_sizes_are_bounded_with_empty_axes_left_out(shape: tuple[int, ...]) -> None:
    assert math.prod(max(n, 1) for n in shape) > MAX_SIZE
    with pytest.raises(ShapeError, match="elements, empty axes not counted: work on parts of it"):
        TensorType(shape, 0, 0.0, 0.0, Form.MASKED).check()


def test_numbers_of_any_kind() -> None:
    shapes: list[Any] = [[np.int64(2), 3], [2, 3], (np.int64(2), np.int32(3))]
    for shape in shapes:
        t = TensorType(shape, 4, -1, np.float32(1), Form.MASKED, np.float64(2))
        assert t == TensorType((2, 3), 4, -1.0, 1.0, Form.MASKED, 2.0)
        assert [type(v) for v in (t.shape, t.low, t.high, t.gain, *t.shape)] == [tuple, float, float, float, int, int]


def test_bits() -> None:
    t = TensorType((2, 3), 4, -1.0, 8.0, Form.MASKED)
    assert (t.size, t.magnitude, t.bits) == (6, 8.0, 7.0)
    assert t.replace(low=0.0, high=0.0).bits == -math.inf
    assert t.replace(high=2.0**54).fits(TRUNCATION_BITS)
    assert not t.replace(high=2.0**55).fits(TRUNCATION_BITS)
    assert not t.replace(high=2.0**54).fits(TRUNCATION_BITS, extra=1)
    assert str(t) == "2x3 in [-1, 8], 4 fraction bits, masked"
