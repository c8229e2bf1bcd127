"""Optimisers against torch's, in the clear reading, and what they do to digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import nn
from mpc import fixed_point
from mpc.errors import RangeError, ShapeError, UnsupportedError, UsageError
from mpc.rings import field
from protocols.readings.memory import run_in_memory
from protocols.trace.gradients import grad

START = {"w": np.array([[0.5, -0.25], [0.75, 0.125]]), "b": np.array([0.25, -0.5])}
TARGET = {"w": np.array([[-0.5, 0.25], [0.125, 0.5]]), "b": np.array([0.0, 0.75])}


def descended(secure: Any, optimizer: nn.Optimizer, steps: int, bits: dict[str, tuple[float, int]]) -> dict[str, Any]:
    """Parameters after steps down a bowl that is not round, in one program."""
    weights = {name: secure.secret(w.shape, -2.0, 2.0, 40) for name, w in START.items()}
    state = {}
    for slot, shape in optimizer.slots({name: w.shape for name, w in START.items()}).items():
        low, count = bits[slot.rpartition(".")[2]]
        state[slot] = secure.secret(shape, low, 4.0, count)
    secrets = [*weights.values(), *state.values()]
    for step in range(steps):
        loss = sum(((w.labelled("bowl") - TARGET[n]).square() * (1.0 + (n == "w"))).sum() for n, w in weights.items())
        weights, state = optimizer.step(weights, state, grad(loss, weights), step)
    program = secure.program(*secrets, *weights.values())
    start = [fixed_point.encode(w, 40) for w in START.values()]
    start += [field.zeros(x.shape) for x in secrets[len(start) :]]
    outputs = run_in_memory(program, start).outputs[len(secrets) :]
    return {name: fixed_point.decode(raw, 40) for name, raw in zip(weights, outputs, strict=True)}


def torchs(make: Any, optimizer: nn.Optimizer, steps: int, max_norm: float | None = None) -> dict[str, Any]:
    weights = {name: torch.tensor(w, requires_grad=True) for name, w in START.items()}
    other = make(weights.values())
    for step in range(steps):
        other.param_groups[0]["lr"] = optimizer.rate(step)
        other.zero_grad()
        sum(((w - torch.tensor(TARGET[n])).square() * (1.0 + (n == "w"))).sum() for n, w in weights.items()).backward()
        if max_norm is not None:
            torch.nn.utils.clip_grad_norm_(weights.values(), max_norm)
        other.step()
    return {name: w.detach().numpy() for name, w in weights.items()}


DESCENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "momentum": ({"momentum": 0.75}, {"momentum": 0.75}),
    "nesterov": ({"momentum": 0.75, "nesterov": True}, {"momentum": 0.75, "nesterov": True}),
    "decay": ({"momentum": 0.5, "weight_decay": 0.125}, {"momentum": 0.5, "weight_decay": 0.125}),
    "steps": ({"schedule": nn.StepLR(2, 0.5)}, {}),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("bits", [12, 20, 40])
@pytest.mark.parametrize("name", DESCENTS)
def test_sgd_is_torchs(secure: Any, name: str, bits: int) -> None:
    ours, theirs = DESCENTS[name]
    optimizer = nn.SGD(lr=0.05, **ours)
    found = descended(secure, optimizer, 4, {"momentum": (-4.0, bits)})
    wanted = torchs(lambda ws: torch.optim.SGD(ws, lr=0.05, **theirs), optimizer, 4)
    for key, w in wanted.items():
        assert np.abs(found[key] - w).max() < 8 * 2.0**-bits * 0.05 + 2e-5


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_gradients_are_clipped_together(secure: Any, max_norm: float) -> None:
    optimizer = nn.SGD(lr=0.1, max_norm=max_norm)
    found = descended(secure, optimizer, 2, {})
    wanted = torchs(lambda ws: torch.optim.SGD(ws, lr=0.1), optimizer, 2, max_norm)
    for key, w in wanted.items():
        assert np.abs(found[key] - w).max() < 1e-4


def test_adam_is_nearly_torchs(secure: Any) -> None:
    optimizer = nn.Adam(lr=0.05)
    found = descended(secure, optimizer, 3, {"exp_avg": (-4.0, 24), "exp_avg_sq": (0.0, optimizer.square_bits)})
    wanted = torchs(lambda ws: torch.optim.Adam(ws, lr=0.05, betas=optimizer.coefficients), optimizer, 3)
    for key, w in wanted.items():
        assert np.abs(found[key] - w).max() < 2e-4


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        (nn.StepLR(3, 0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5)),
        (nn.CosineAnnealingLR(7, 0.01), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 7, 0.01)),
        (
            nn.OneCycleLR(0.5, 10, pct_start=0.4),
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=10, pct_start=0.4),
        ),
    ],
)
def test_schedules_are_torchs(schedule: nn.Schedule, theirs: Any) -> None:
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.25)
    schedulers = theirs(other)
    for step in range(10):
        assert schedule(0.25, step) == pytest.approx(other.param_groups[0]["lr"], abs=1e-12)
        assert nn.SGD(lr=0.25, schedule=schedule).rate(step) == pytest.approx(schedule(0.25, step), rel=2.0**-8)
        other.step()
        schedulers.step()


def test_the_smallest_rate_loses_nothing_on_average(secure: Any) -> None:
    """What is below a unit of a parameter moves it by one now and then: by as much as it should, on average."""
    optimizer = nn.SGD(lr=1e-6, momentum=0.5)
    count, steps, bits = 20_000, 4, 24
    w = secure.secret((count,), -1.0, 1.0, bits)
    v = secure.secret((count,), -4.0, 4.0, 16)
    weights, state = {"w": w}, {"w.momentum": v}
    for step in range(steps):
        weights, state = optimizer.step(weights, state, {"w": weights["w"] * 0.0 + 0.625}, step)
    program = secure.program(w, v, weights["w"])
    outputs = run_in_memory(program, [field.zeros((count,)), field.zeros((count,))]).outputs
    moved = fixed_point.decode(outputs[-1], bits)
    wanted = -optimizer.rate(0) * 0.625 * sum(2.0 - 0.5**k for k in range(steps))
    # A step moves by 17 to 33 units; of one rounding that always goes down, half a unit a step would be seen.
    assert moved.mean() == pytest.approx(wanted, abs=6 * steps**0.5 * 2.0**-bits / count**0.5)


def test_what_makes_no_sense_is_refused(secure: Any) -> None:
    for arguments in ({"lr": 0.0}, {"momentum": 1.0}, {"nesterov": True}, {"max_norm": 0.0}):
        with pytest.raises(UnsupportedError):
            nn.SGD(**{"lr": 0.1, **arguments})
    with pytest.raises(UnsupportedError):
        nn.Adam(lr=0.1, eps=1e-8)
    w = secure.secret((2,))
    with pytest.raises(RangeError, match="leave nothing of eps"):
        nn.Adam(lr=0.1).step({"w": w}, {"w.exp_avg": w, "w.exp_avg_sq": w}, {"w": w}, 0)
    sgd = nn.SGD(lr=0.1, momentum=0.5)
    with pytest.raises(UsageError, match="state that its slots say"):
        sgd.step({"w": w}, {}, {"w": w}, 0)
    with pytest.raises(ShapeError, match="gradient of w"):
        sgd.step({"w": w}, {"w.momentum": w}, {"w": w.sum()}, 0)
