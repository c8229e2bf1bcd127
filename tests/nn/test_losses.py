"""Losses against torch's, and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn

import nn
from mpc.errors import ShapeError, UnsupportedError
from protocols.trace.gradients import grad
from tests.protocols.test_gradients import revealed

RNG = np.random.default_rng(3)
PREDICTED = np.trunc(RNG.uniform(-2, 2, (6, 4)) * 2**16) / 2**16
WANTED = np.trunc(RNG.uniform(-2, 2, (6, 4)) * 2**16) / 2**16
BITS = RNG.integers(0, 2, (6, 4)).astype(np.float64)
CLASSES = RNG.integers(0, 4, 6)
ONE_HOT = np.eye(4)[CLASSES]
MIXED = np.array([0.5, 0.25, 0.125, 0.125])[RNG.permuted(np.tile(np.arange(4), (6, 1)), axis=1)]
WEIGHTS = (0.5, 1.0, 2.0, 1.5)

LOSSES: dict[str, tuple[Any, Any, Any]] = {
    "MSE": (nn.MSELoss(), tn.MSELoss(), WANTED),
    "sum of squares": (nn.MSELoss(reduction="sum"), tn.MSELoss(reduction="sum"), WANTED),
    "smooth L1": (nn.SmoothL1Loss(beta=0.5), tn.SmoothL1Loss(beta=0.5), WANTED),
    "Huber": (nn.HuberLoss(delta=0.75), tn.HuberLoss(delta=0.75), WANTED),
    "hinge embedding": (nn.HingeEmbeddingLoss(margin=0.5), tn.HingeEmbeddingLoss(margin=0.5), 2 * BITS - 1),
    "hinge": (nn.HingeLoss(), lambda x, y: (1 - x * y).relu().mean(), 2 * BITS - 1),
    "BCE": (nn.BCEWithLogitsLoss(), tn.BCEWithLogitsLoss(), BITS),
    "BCE, weighted": (
        nn.BCEWithLogitsLoss(pos_weight=3.0), tn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), BITS,
    ),
    "cross-entropy": (nn.CrossEntropyLoss(), tn.CrossEntropyLoss(), ONE_HOT),
    "cross-entropy of mixed targets": (
        nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.25),
        tn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS, dtype=torch.float64), label_smoothing=0.25),
        MIXED,
    ),
    "cross-entropy of class numbers": (
        nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=0.1),
        tn.CrossEntropyLoss(weight=torch.tensor(WEIGHTS, dtype=torch.float64), label_smoothing=0.1),
        CLASSES,
    ),
}  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.parametrize("bound", [2.0, 30.0])
@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_torchs(secure: Any, name: str, secret: bool, bound: float) -> None:
    ours, theirs, target = LOSSES[name]
    if secret and target is CLASSES:
        pytest.skip("class numbers are public")
    x = torch.tensor(PREDICTED, requires_grad=True)
    wanted = theirs(x, torch.tensor(target))
    wanted.backward()
    secrets = [secure.secret(PREDICTED.shape, -bound, bound)]
    secrets += [secure.secret(target.shape, -2.0, 2.0)] if secret else []
    loss = ours(secrets[0], secrets[1] if secret else target)
    arrays = [PREDICTED, target] if secret else [PREDICTED]
    *_, value, gradient = revealed(secure, [*secrets, loss, grad(loss, secrets[0])], arrays)
    assert ours.plain(PREDICTED, target) == pytest.approx(wanted.item(), abs=1e-12)
    assert value == pytest.approx(wanted.item(), abs=2e-3)
    assert np.abs(gradient - x.grad.numpy()).max() < 2e-4


def test_the_value_costs_nothing_unless_it_is_revealed(secure: Any) -> None:
    x = secure.secret((8, 7), -2.0, 2.0)
    y = secure.stored("labels", (8, 7), 0.0, 1.0, 0)
    gradient = grad(nn.CrossEntropyLoss()(x * 1.0 + 0.0 * x, y), x)
    assert gradient.shape == x.shape


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.CrossEntropyLoss(label_smoothing=1.0), "label_smoothing"),
        (lambda: nn.HuberLoss(delta=0.0), "delta"),
        (lambda: nn.CrossEntropyLoss().plain(np.zeros((2, 3)), np.array([0, 3])), "class numbers"),
        (lambda: nn.CrossEntropyLoss().plain(np.zeros((2, 3)), np.array([[1.0, 0, 0], [0, 2, 0]])), "sum up to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, match: str) -> None:
    with pytest.raises(UnsupportedError, match=match):
        make()


def test_shapes_go_together(secure: Any) -> None:
    for loss in (nn.MSELoss(), nn.CrossEntropyLoss()):
        with pytest.raises(ShapeError):
            loss(secure.secret((2, 3)), np.zeros((3, 2)))
