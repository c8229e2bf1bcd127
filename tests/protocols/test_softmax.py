"""Softmax of any values against float64, and its layers against torch's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn

from mpc.errors import ShapeError, UnsupportedError
from mpc.rings import field
from mpc.security import Security
from nn import LogSoftmax, Softmax, from_torch
from protocols.readings.memory import run_in_memory
from tests.protocols.test_comparison import computed


@pytest.mark.parametrize(("bound", "count"), [(1.0, 2), (8.0, 7), (64.0, 10), (1000.0, 7), (8.0, 100)])
def test_it_is_right_whatever_the_range(secure: Any, bound: float, count: int) -> None:
    real = np.random.default_rng(count).uniform(-bound, bound, (20, count))
    real[0], real[1, 0] = bound, -bound
    raw = np.rint(real * 2**16).astype(np.int64)
    x = secure.secret(raw.shape, -bound, bound, 16)
    outputs = [x.softmax(), x.log_softmax(-1), x.logsumexp(1, keepdims=True)]
    found = computed(secure.program(*outputs), raw, parties=2, security=Security.SEMI_HONEST)
    exact = torch.tensor(raw / 2**16)
    wanted = [exact.softmax(1), exact.log_softmax(1), exact.logsumexp(1, keepdim=True)]
    for one, secret, other in zip(found, outputs, wanted, strict=True):
        assert np.abs(one - other.numpy()).max() <= min(1.5e-5, secret.error.absolute)
        assert secret.error.absolute <= 0.02
    # 1e-5, and what the rounding of an unlucky run adds.
    assert np.abs(found[0] - wanted[0].numpy()).max() <= 1.2e-5


def test_what_is_uncertain_itself_has_a_softmax(secure: Any) -> None:
    """The bound of what logits are off by may be large: that says nothing of the sum."""
    x = secure.secret((4, 7), -8.0, 8.0)
    for _ in range(4):
        x = (x * x - x).within(-8.0, 8.0)
    assert x.log_softmax().type.low < 0 < x.softmax().type.high


def test_of_seven_it_takes_few_rounds(secure: Any) -> None:
    assert secure.program(secure.secret((100, 7), -8.0, 8.0).softmax()).rounds == 7


@pytest.mark.parametrize("module", [tn.Softmax(dim=1), tn.LogSoftmax(dim=-1)])
def test_layers_are_torchs(module: tn.Module) -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    model = from_torch(module, x)
    assert type(model.architecture.steps[0].layer) is {tn.Softmax: Softmax, tn.LogSoftmax: LogSoftmax}[type(module)]
    assert np.abs(model.plain(x.numpy()) - module(x).numpy()).max() < 1e-12


def test_the_batch_is_not_mixed() -> None:
    for make in (lambda: Softmax(0), lambda: from_torch(tn.Softmax(0)), lambda: from_torch(tn.Softmax())):
        with pytest.raises(UnsupportedError):
            make()
    with pytest.raises(ShapeError):
        Softmax(-2).plain(np.zeros((2, 3)), weights={})


@pytest.mark.parametrize(
    ("reach", "count", "causal", "relative"),
    [
        (0.5, 7, False, False), (3.0, 16, True, False), (8.0, 40, False, False), (8.0, 24, True, False),
        (3.0, 21, True, True), (8.0, 13, False, True),
    ],
)  # fmt: skip
def test_about_the_mean_it_takes_no_maximum(
    secure: Any, reach: float, count: int, causal: bool, relative: bool
) -> None:
    """And errs by no more than it says, at the ends of what is assumed as well; beyond there is no answer."""
    seen = np.tri(count) if causal else np.ones((count, count))
    rng = np.random.default_rng(count)
    real = rng.uniform(-0.4, 0.4, (count, count)) * reach + rng.uniform(-9, 9, (count, 1))
    real[-1, 0] += 0.35 * reach
    real -= real[:, :1] * relative
    raw = np.rint(real * 2**16).astype(np.int64)
    x = secure.secret((count, count), -64.0, 64.0, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = x.softmax(where=seen, reach=reach, relative=relative)
    assert y.error.usual <= y.error.absolute <= 1e-3
    assert secure.program(y).rounds < secure.program(x.softmax(where=seen)).rounds
    found, bit = computed(secure.program(y), raw, parties=2, security=Security.SEMI_HONEST)
    assert not np.any(bit)
    wanted = torch.tensor(np.where(seen > 0, raw / 2**16, -np.inf)).softmax(1).numpy()
    assert np.abs(found - wanted).max() <= min(5e-4, y.error.absolute)
    if relative:
        raw[-1, 1:] += int(3 * reach * 2**16)
        run = run_in_memory(secure.program(y), [field.from_signed(raw)], parties=2, security=Security.SEMI_HONEST)
        assert np.array_equal(run.outputs[1].ravel() != 0, np.arange(count) == count - 1)


@pytest.mark.parametrize("causal", [False, True])
def test_of_what_is_relative_to_one_a_mean_takes_no_round(secure: Any, causal: bool) -> None:
    """However large the worst case is, by which the field has no room for a sum."""
    x, seen = secure.secret((64, 64), -(2.0**21), 2.0**21, 37), np.tri(64) if causal else None
    rounds = [secure.program(x.softmax(where=seen, reach=3.25, relative=small)).rounds for small in (False, True)]
    assert rounds[1] == rounds[0] - 2


def test_how_far_from_the_mean_is_a_number(secure: Any) -> None:
    x = secure.secret((3, 3), -1.0, 1.0, 16)
    for reach in (0.0, -1.0, 8.5, np.nan):
        with pytest.raises(UnsupportedError):
            x.softmax(reach=reach)
