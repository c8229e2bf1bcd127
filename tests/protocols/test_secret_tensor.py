"""``SecretTensor`` as its users know it: NumPy's names, broadcasting and errors, and no secret anywhere in sight."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import EncodingError, RangeError, ShapeError, TesseraError, UnsupportedError
from protocols.lowering.plan import lowered
from protocols.trace.random import Random
from protocols.trace.secret_tensor import SecretTensor, concatenate, stack


@pytest.fixture
def x(secure: Any) -> SecretTensor:
    tensor = secure.secret((2, 3, 4))
    assert isinstance(tensor, SecretTensor)
    return tensor


EXPRESSIONS = {
    "+": lambda x, y: x + y,
    "- with scalars": lambda x, y: 2 - x + 0.5 - y - 1,
    "*": lambda x, y: x * y,
    "scalars": lambda x, y: -2 * x * 3 + y * 0.25,
    "arrays": lambda x, y: np.arange(4.0) * x - y * np.ones((3, 1)) + np.eye(4)[:3],
    "powers of two": lambda x, y: (x + y) / 16,
    "squares": lambda x, y: (x - y) ** 2,
    "@": lambda x, y: x @ y.transpose(0, 2, 1),
    "vectors": lambda x, y: x[0, 0] @ y[1, 2],
    "rows and columns": lambda x, y: x[0] @ y[0, 1] + y[1, :, 2] @ x[1] @ np.eye(4)[:, :3],
    "array @": lambda x, y: np.arange(6.0).reshape(2, 3) @ x,
    "sums": lambda x, y: x.sum() + y.sum(axis=0) - x.sum(axis=(0, -1), keepdims=True),
    "means": lambda x, y: x.mean(axis=2) + y.mean(axis=-1, keepdims=True)[..., 0],
    "shapes": lambda x, y: x.reshape(4, -1) + y.reshape((4, 6)) - x.T.reshape([4, 6]),
    "numpy shapes": lambda x, y: x.reshape(np.int64(24)) - y.reshape(np.array([2, 12])).reshape(-1),
    "axes": lambda x, y: x.transpose((2, 0, 1)) * y.transpose(-1, 0, 1),
    "slices": lambda x, y: x[1, ..., ::-1] + y[0, :, -3:-1:1][:, :1] + x[-1, None, 1, :, None][0, :, 0],
    "negative steps": lambda x, y: x[::-1, 2:0:-1, 3::-2],
    "numpy index": lambda x, y: x[np.int64(1), np.int32(-1)] * y[0, 1],
    "rows": lambda x, y: sum(row for row in x) - y[0],
    "nothing": lambda x, y: x[:, 3:] + y[:, 5:],
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_as_numpy(secure: Any, name: str) -> None:
    a, b = (secure.draw(i, (2, 3, 4), bits=12) for i in range(2))
    secure.check(EXPRESSIONS[name], a, b, bits=12, error=2.0**-13)


def test_scalars(secure: Any) -> None:
    a, b = (secure.draw(i, ()) for i in range(2))
    for build in (
        lambda x, y: x * y + 1,
        lambda x, y: x.T + y[...] - x[None][0],
        lambda x, y: (x.reshape(1) * y).sum(),
        lambda x, y: x.sum() - y.mean() + 3 * x,
    ):
        secure.check(build, a, b)
    secure.check(lambda x: x.expand_dims(0).squeeze(0).flatten(), a, reference=lambda x: x.reshape(1))
    secure.check(lambda x: x.pad([]).broadcast_to(()), a, reference=lambda x: x)
    secure.check(lambda x: stack([x, x]), a, reference=lambda x: np.stack([x, x]))


def test_layers_as_torch(secure: Any) -> None:
    image, weight = secure.draw(1, (2, 4, 7, 6)), secure.draw(2, (6, 2, 3, 2), -1, 1, 12)
    for stride, padding in ((1, 0), (2, 1), ((2, 1), (0, 1)), ([1, 2], [2, 0])):
        pair = (stride, stride) if isinstance(stride, int) else tuple(stride)
        pads = (padding, padding) if isinstance(padding, int) else tuple(padding)
        secure.check(
            lambda x, s=stride, p=padding: x.conv2d(weight, stride=s, padding=p, groups=2), image,
            reference=lambda x, s=pair, p=pads: torch.nn.functional.conv2d(
                torch.tensor(x), torch.tensor(weight), None, s, p, 1, 2
            ).numpy(),
        )  # fmt: skip


@settings(max_examples=60)
@given(st.floats(-1e4, 1e4).filter(lambda c: abs(c) > 1e-6), st.integers(0, 2**32 - 1))
def test_public_factors_of_any_size(secure: Any, factor: float, seed: int) -> None:
    """A small factor keeps as many digits as a large one."""
    a = secure.draw(seed, (5,), -8, 8)
    precise = 8 * abs(factor) * 2.0**-13
    secure.check(lambda x: x * factor, a, low=-8, high=8, error=precise, parties=(2,))
    secure.check(lambda x: x / factor, a, low=-8, high=8, error=8 / abs(factor) * 2.0**-13, parties=(2,)) if abs(
        factor
    ) > 1e-3 else None


def test_values_that_do_not_count_change_nothing(x: SecretTensor) -> None:
    assert +x is x
    assert x.reshape(2, 3, 4) is x
    assert len(x) == 2
    assert (x.ndim, x.size, x.shape) == (3, 24, (2, 3, 4))


@pytest.mark.parametrize(
    "build",
    [
        lambda x: x + np.ones((5,)),
        lambda x: x @ np.ones((3, 4)),
        lambda x: x @ 2.0,
        lambda x: x.sum(axis=3),
        lambda x: x.sum(axis=(0, 0)),
        lambda x: x[:0].mean(),
        lambda x: x.reshape(5, 5),
        lambda x: x.reshape(-1, -1),
        lambda x: x.reshape(-2, -12),
        lambda x: x[:0].reshape(0, -1),
        lambda x: x.transpose(0, 1),
        lambda x: x.transpose(0, 1, 1),
        lambda x: x.squeeze(0),
        lambda x: x.expand_dims(5),
        lambda x: x.broadcast_to((2, 3, 5)),
        lambda x: x.broadcast_to((4,)),
        lambda x: x.flatten(4),
        lambda x: x[0, 0, 0, 0],
        lambda x: x[..., ...],
        lambda x: x.pad([(1, 1)]),
        lambda x: x.pad([(1, 1), (0, 0), (-1, 0)]),
        lambda x: x.conv2d(np.ones((1, 1, 1, 1))),
        lambda x: x.reshape(1, 2, 3, 4).conv2d(np.ones((1, 3, 1, 1))),
        lambda x: x.reshape(1, 2, 3, 4).conv2d(np.ones((1, 2, 4, 1))),
        lambda x: x.reshape(1, 2, 3, 4).conv2d(np.ones((1, 2, 1, 1)), stride=0),
        lambda x: x.reshape(1, 2, 3, 4).conv2d(np.ones((1, 2, 1, 1)), stride=(1, 1, 1)),
        lambda x: x.avg_pool2d(2),
        lambda x: x.reshape(1, 2, 3, 4).avg_pool2d(0),
        lambda x: x.reshape(1, 2, 3, 4).avg_pool2d((-1, 2)),
        lambda x: x.reshape(1, 2, 3, 4).avg_pool2d(5),
        lambda x: x.reshape(1, 2, 3, 4).avg_pool2d(2, stride=0),
        lambda x: concatenate([]),
        lambda x: concatenate([x, x[0]]),
        lambda x: concatenate([x], axis=3),
        lambda x: stack([]),
        lambda x: stack([x, x[0]]),
    ],
)
def test_shapes_that_do_not_go_together(x: SecretTensor, build: Any) -> None:
    with pytest.raises(ShapeError) as caught:
        build(x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda x: x + "1",
        lambda x: x * [[1], [2, 3]],
        lambda x: x / "2",
        lambda x: x @ object(),
        lambda x: x * 1j,
        lambda x: x**0.5,
        lambda x: x**-1,
        lambda x: x ** (10**9),
        lambda x: x["a"],
        lambda x: x[1.0],
        lambda x: x.apply(np.tanh),
        lambda x: x._function("relu"),
    ],
)
def test_what_is_not_supported_says_so(x: SecretTensor, build: Any) -> None:
    with pytest.raises(UnsupportedError):
        build(x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 2.0**59])
@pytest.mark.parametrize(
    "build", [operator.add, operator.sub, operator.mul, lambda x, c: c - x, lambda x, c: x @ [c] * 4]
)
def test_public_values_that_do_not_fit(x: SecretTensor, build: Any, value: float) -> None:
    with pytest.raises((EncodingError, RangeError, ShapeError)):
        build(x, value)


def test_division_by_zero(x: SecretTensor) -> None:
    for divisor in (0, 0.0, np.array([1.0, 0.0, 2.0, 3.0])):
        with pytest.raises(ZeroDivisionError):
            x / divisor
    with pytest.raises(TesseraError):
        x / np.nan


def test_a_secret_decides_nothing(secure: Any, x: SecretTensor) -> None:
    with pytest.raises(TypeError, match="truth value"):
        bool(x)
    with pytest.raises(TypeError, match="no length"):
        len(secure.secret(()))
    with pytest.raises(IndexError):
        x[2]


def test_a_declared_range_is_a_promise(secure: Any, x: SecretTensor) -> None:
    y = x.within(-1, 10)
    assert (y.type.low, y.type.high) == (-1.0, 4.0)
    a = secure.draw(0, (5,), -1, 1)
    secure.check(lambda x: x.within(-1, 1) * 2, a, reference=lambda x: x * 2)


def test_truncation_on_request(secure: Any, x: SecretTensor) -> None:
    assert x.truncate(np.int64(9)).type.fraction_bits == 9
    assert secure.program(x.truncate(np.int64(9))).rounds == 0
    assert x.truncate(20).type.fraction_bits == 16
    with pytest.raises(RangeError):
        x.truncate(-1)


def test_labels_follow_operations(x: SecretTensor) -> None:
    y = (x.labelled("conv1") * x).sum()
    assert y.label == "conv1"
    assert y.node.label == lowered(y.node).label == "conv1"
    assert concatenate([np.ones((1, 3, 4)), x.labelled("join")]).label == "join"
    assert x.labelled("conv1").precise(12).label == "conv1"
    assert x.precise(12).labelled("conv1").precision == 12


def test_repr_shows_the_type_alone(secure: Any, x: SecretTensor) -> None:
    assert repr(x) == "<SecretTensor 2x3x4 in [-4, 4], 16 fraction bits, masked>"
    assert repr(secure.secret(())) == "<SecretTensor scalar in [-4, 4], 16 fraction bits, masked>"
    assert "array" not in repr(lowered((x * np.ones(4)).node)) + repr((x * np.ones(4)).node)


@pytest.mark.parametrize("wrong", [1.5, "a", None, True])
def test_lengths_are_whole_numbers(secure: Any, wrong: Any) -> None:
    x, places = secure.secret((2, 4)), secure.secret((3,), 0, 3, 0)
    calls = (x.reshape, x.topk, x.layer_norm, x.group_norm, places.one_hot, lambda n: Random().uniform(shape=(n,)))
    for call in calls:
        with pytest.raises(UnsupportedError, match="whole number"):
            call(wrong)
