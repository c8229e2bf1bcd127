"""The larger of values, against NumPy: types, ties, broadcasting, windows, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.cost import cost
from mpc.errors import RangeError
from mpc.objective import ANY, Objective
from mpc.security import Security
from tests.protocols.test_comparison import PARTIES, around, computed

OF_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "maximum": np.maximum,
    "minimum": np.minimum,
    "clip": lambda x, y: np.clip(x, -3, 2) + y * 0,
    "from below": lambda x, y: np.clip(x, y, None),
    "from above": lambda x, y: np.clip(x, None, y),
    "abs": lambda x, y: abs(x) - np.abs(y),
    "public": lambda x, y: np.maximum(x, np.arange(x.shape[-1]) % 5 - 2) - np.minimum(3, y),
}


@pytest.mark.parametrize("name", OF_TWO)
@pytest.mark.parametrize(("parties", "security"), PARTIES[:2] + PARTIES[3:])
def test_integers_are_exact(secure: Any, name: str, parties: int, security: Security) -> None:
    function = OF_TWO[name]
    x, y = (side.reshape(-1) for side in np.meshgrid(np.arange(-6, 7), np.arange(-6, 7)))
    tensors = (secure.secret(x.shape, -6, 6, 0) for _ in range(2))
    program = secure.program(function(*tensors), objective=Objective(ANY, security))
    (found,) = computed(program, x, y, parties=parties, security=security)
    assert np.array_equal(found, function(x, y))


@pytest.mark.parametrize("name", OF_TWO)
def test_reals_are_right_to_a_unit(secure: Any, name: str) -> None:
    """Of more fraction bits than are kept, too."""
    function = OF_TWO[name]
    rng = np.random.default_rng(3)
    raw = [(4.0 * 2**29 * rng.uniform(-1, 1, 300)).astype(np.int64) for _ in range(2)]
    raw[1][:100] = raw[0][:100] + rng.integers(-3, 4, 100)
    program = secure.program(function(*(secure.secret((300,), -4.1, 4.1, 29) for _ in range(2))))
    (found,) = computed(program, *raw, parties=2, security=Security.SEMI_HONEST)
    assert np.abs(found - function(*(r / 2**29 for r in raw))).max() <= 2 * 2.0**-16


def test_broadcasting_and_ranges(secure: Any) -> None:
    x, y = secure.secret((3, 1), -2.0, 5.0, 4), secure.secret((4,), 0.0, 1.0, 4)
    assert np.maximum(x, y).shape == (3, 4)
    assert (np.maximum(x, y).type.low, np.maximum(x, y).type.high) == (0.0, 5.0)
    assert (np.minimum(y, x).type.low, np.minimum(y, x).type.high) == (-2.0, 1.0)
    assert (abs(x).type.low, abs(x).type.high) == (0.0, 5.0)
    assert (np.clip(x, -1, 2).type.low, np.clip(x, -1, 2).type.high) == (-1.0, 2.0)
    assert np.maximum(y, -1.0).type.low == 0.0
    with pytest.raises(RangeError, match="min that is not above"):
        x.clip(2, 1)


WINDOWS = [
    (2, None, 0, (2, 2, 4, 6)),
    (3, 2, 1, (1, 2, 7, 5)),
    ((2, 3), (1, 2), (1, 0), (2, 1, 3, 6)),
    (1, 2, 0, (1, 1, 3, 3)),
    (3, 1, 0, (1, 1, 3, 3)),
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "shape"), WINDOWS)
@pytest.mark.parametrize(("low", "high"), [(-8, 7), (-8, -3), (2, 9)])
@pytest.mark.parametrize("rectified", [False, True])
def test_pools_are_torchs(
    secure: Any, kernel: Any, stride: Any, padding: Any, shape: Any, low: int, high: int, rectified: bool
) -> None:
    raw = np.random.default_rng(1).integers(low, high + 1, shape)
    x = secure.secret(shape, low, high, 0)
    program = secure.program((x.relu() if rectified else x).max_pool2d(kernel, stride, padding))
    (found,) = computed(program, raw, parties=2, security=Security.SEMI_HONEST)
    tensor = torch.tensor(raw, dtype=torch.float64)
    tensor = tensor.relu() if rectified else tensor
    assert np.array_equal(found, torch.nn.functional.max_pool2d(tensor, kernel, stride, padding).numpy())


def test_a_relu_is_pooled_first(secure: Any) -> None:
    """A gate for each window, not for each element; its layer keeps its name."""
    x = secure.secret((1, 4, 8, 8), -1.0, 1.0)
    y = x.labelled("act").relu().labelled("pool").max_pool2d(2)
    program, first = secure.program(y), secure.program(x.max_pool2d(2).relu())
    assert cost(program, 2).online_bytes_per_party == cost(first, 2).online_bytes_per_party
    assert program.rounds == first.rounds == 5
    assert cost(program, 2).layers["act"].opened < cost(program, 2).layers["pool"].opened


@settings(max_examples=20)
@given(st.integers(1, 2**56), st.data())
def test_the_extremes_of_any_range(secure: Any, magnitude: int, data: st.DataObject) -> None:
    raw = around(magnitude)
    other = np.array(data.draw(st.permutations(list(raw))), np.int64)
    x, y = (secure.secret(raw.shape, -magnitude, magnitude, 0) for _ in range(2))
    program = secure.program(np.maximum(x, y))
    (found,) = computed(program, raw, other, parties=2, security=Security.SEMI_HONEST)
    assert np.array_equal(found, np.maximum(raw, other).astype(float))
