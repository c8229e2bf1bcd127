"""Steps of training on shares beside the same steps in float64, with the rate and the momentum as they are encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import nn
from mpc import fixed_point
from mpc.objective import ANY, LATENCY, Objective
from mpc.operation import Input
from mpc.program import Program
from mpc.rings import field
from mpc.security import Security
from protocols import graph_of, leaf, plan
from protocols.readings.memory import run_in_memory
from protocols.trace.gradients import grad

Reals = npt.NDArray[np.float64]
Loss = Callable[..., Any]


class Trained:
    """One program for all steps: new parameters and state are its results, and its inputs the next time."""

    def __init__(
        self,
        loss: Loss,
        optimizer: nn.Optimizer,
        parameters: Mapping[str, Reals],
        batch: Mapping[str, tuple[tuple[int, ...], float, float, int]],
        *,
        bound: float = 8.0,
        most: float = 8.0,
    ) -> None:
        self.optimizer, self.loss = optimizer, loss
        shapes = {name: w.shape for name, w in parameters.items()}
        bits = dict.fromkeys(shapes, optimizer.weight_bits)
        self.types = {name: (shape, -bound, bound, bits[name]) for name, shape in shapes.items()}
        slots = optimizer.slots(shapes)
        self.types |= {name: (shape, -most, most, optimizer.fraction_bits) for name, shape in slots.items()}
        self.types |= batch
        self.names, self.slots = list(shapes), list(slots)
        self.raw = {name: fixed_point.encode(w, bits[name]) for name, w in parameters.items()}
        self.raw |= {name: field.zeros(shape) for name, shape in slots.items()}
        self.programs: dict[float, tuple[Program, list[str], list[int]]] = {}

    def program(self, step: int) -> tuple[Program, list[str], list[int]]:
        """One for each learning rate, the names of its inputs in order, and the fraction bits of its results."""
        rate = self.optimizer.rate(step)
        if rate not in self.programs:
            secrets = {name: leaf(Input(shape, b, low, high)) for name, (shape, low, high, b) in self.types.items()}
            parameters = {name: secrets[name] for name in self.names}
            loss = self.loss(**{name: x for name, x in secrets.items() if name not in self.slots})
            found = self.optimizer.step(
                parameters, {name: secrets[name] for name in self.slots}, grad(loss, parameters), step
            )
            results = [*(found[0][name] for name in self.names), *(found[1][name] for name in self.slots), loss]
            program = plan(graph_of(results))
            named = {x.node.operation.source: name for name, x in secrets.items()}  # type: ignore[union-attr]
            order = [named[program.nodes[i].operation] for i in program.inputs]  # type: ignore[index]
            self.programs[rate] = program, order, [x.type.fraction_bits for x in results]
        return self.programs[rate]

    def step(self, number: int, **batch: Reals) -> float:
        """The loss before it."""
        program, order, bits = self.program(number)
        given = self.raw | {name: fixed_point.encode(x, self.types[name][3]) for name, x in batch.items()}
        outputs = run_in_memory(program, [given[name] for name in order]).outputs
        for name, raw, had in zip([*self.names, *self.slots], outputs, bits, strict=False):
            assert had == self.types[name][3]
            self.raw[name] = raw
        return float(fixed_point.decode(outputs[-1], bits[-1]))

    def values(self, name: str) -> Reals:
        return fixed_point.decode(self.raw[name], self.types[name][3])


def twin(
    loss: Loss, optimizer: nn.SGD, parameters: Mapping[str, Reals], batches: list[dict[str, Reals]]
) -> tuple[list[float], dict[str, Reals]]:
    """By torch, in float64."""
    weights = {name: torch.tensor(w, requires_grad=True) for name, w in parameters.items()}
    other = torch.optim.SGD(
        weights.values(),
        lr=1.0,
        momentum=optimizer.mu,
        nesterov=optimizer.nesterov,
        weight_decay=optimizer.weight_decay,
    )
    losses = []
    for step, batch in enumerate(batches):
        other.param_groups[0]["lr"] = optimizer.rate(step)
        other.zero_grad()
        value = loss(**weights, **{name: torch.tensor(x) for name, x in batch.items()})
        value.backward()
        if optimizer.max_norm is not None:
            torch.nn.utils.clip_grad_norm_(weights.values(), optimizer.max_norm)
        losses.append(value.item())
        other.step()
    return losses, {name: w.detach().numpy() for name, w in weights.items()}


def data(features: int, classes: int, rows: int, seed: int = 0) -> tuple[Reals, Reals]:
    """Features of 8 bits in [0, 1), and one-hot vectors of classes that have to do with them."""
    rng = np.random.default_rng(seed)
    x = np.floor(rng.uniform(0, 1, (rows, features)) * 256) / 256
    scores = (x - 0.5) @ rng.normal(size=(features, classes)) * 2 + rng.gumbel(size=(rows, classes)) * 0.3
    return x, np.eye(classes)[scores.argmax(1)]


def regression(bound: float) -> Loss:
    """With logits that are declared to stay within it."""

    def loss(x: Any, y: Any, w: Any, b: Any) -> Any:
        if isinstance(w, torch.Tensor):
            return torch.nn.functional.cross_entropy(x @ w + b, y)
        return nn.CrossEntropyLoss()((x.labelled("head") @ w + b).within(-bound, bound), y)

    return loss


def perceptron(bound: float) -> Loss:
    def loss(x: Any, y: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        if isinstance(w1, torch.Tensor):
            return torch.nn.functional.cross_entropy((x @ w1 + b1).relu() @ w2 + b2, y)
        hidden = (x.labelled("hidden") @ w1 + b1).within(-8.0, 8.0).relu().truncate(16)
        return nn.CrossEntropyLoss()((hidden.labelled("head") @ w2 + b2).within(-bound, bound), y)

    return loss


def beside(
    loss: Loss, optimizer: nn.SGD, parameters: Mapping[str, Reals], x: Reals, y: Reals, steps: int, batch: int
) -> tuple[Trained, Reals, dict[str, Reals]]:
    """Trained on shares, by how much the losses differ from the twin's, and the twin's weights."""
    order = np.random.default_rng(1).integers(0, len(x), (steps, batch))
    batches = [{"x": x[rows], "y": y[rows]} for rows in order]
    bits = optimizer.weight_bits
    exact = {name: np.rint(w * 2.0**bits) / 2.0**bits for name, w in parameters.items()}
    types = {"x": ((batch, x.shape[1]), 0.0, 1.0, 8), "y": ((batch, y.shape[1]), 0.0, 1.0, 0)}
    trained = Trained(loss, optimizer, exact, types)
    found = [trained.step(i, **one) for i, one in enumerate(batches)]
    losses, weights = twin(loss, optimizer, exact, batches)
    return trained, np.abs(np.array(found) - losses), weights


LENGTHS = [(30, 2.0), pytest.param(500, 16.0, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("steps", "bound"), LENGTHS)
def test_softmax_regression_is_its_twin(steps: int, bound: float) -> None:
    x, y = data(6, 3, 64)
    optimizer = nn.SGD(lr=0.1, momentum=0.9)
    trained, off, weights = beside(
        regression(bound), optimizer, {"w": np.zeros((6, 3)), "b": np.zeros(3)}, x, y, steps, 8
    )
    assert off.max() < 1e-3
    assert max(np.abs(trained.values(name) - w).max() for name, w in weights.items()) < 1e-3
    assert np.abs(weights["w"]).max() > 0.1


@pytest.mark.parametrize(("steps", "bound"), LENGTHS)
def test_a_perceptron_is_its_twin(steps: int, bound: float) -> None:
    x, y = data(5, 3, 64)
    rng = np.random.default_rng(2)
    shapes = {"w1": (5, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}
    parameters = {name: rng.uniform(-0.5, 0.5, shape) for name, shape in shapes.items()}
    optimizer = nn.SGD(lr=0.05, momentum=0.9)
    trained, off, weights = beside(perceptron(bound), optimizer, parameters, x, y, steps, 8)
    assert off.max() < 1e-3
    assert max(np.abs(trained.values(name) - w).max() for name, w in weights.items()) < 1e-3


def convolutional(x: Any, y: Any, k: Any, b: Any, w: Any) -> Any:
    if isinstance(k, torch.Tensor):
        maps = torch.nn.functional.max_pool2d(torch.nn.functional.conv2d(x, k, padding=1) + b, 2).relu()
        return torch.nn.functional.cross_entropy(maps.flatten(1) @ w, y)
    maps = (x.labelled("maps").conv2d(k, padding=1) + b).within(-4.0, 4.0).max_pool2d(2).relu().truncate(16)
    return nn.CrossEntropyLoss()((maps.labelled("head").flatten(1) @ w).within(-2.0, 2.0), y)


@pytest.mark.parametrize(
    ("security", "parties"), [(Security.SEMI_HONEST, 3), (Security.MALICIOUS, 2)], ids=["semi-honest", "malicious"]
)
def test_a_step_of_a_small_cnn_as_predicted_in_both_securities(secure: Any, security: Security, parties: int) -> None:
    rng = np.random.default_rng(4)
    shapes = {"k": (2, 1, 3, 3), "b": (2, 1, 1), "w": (8, 3)}
    x, y = np.floor(rng.uniform(0, 1, (4, 1, 4, 4)) * 256) / 256, np.eye(3)[[0, 2, 1, 1]]
    optimizer = nn.SGD(lr=0.1, momentum=0.5)
    bits = optimizer.weight_bits
    start = {name: np.rint(rng.uniform(-0.5, 0.5, s) * 2.0**bits) / 2.0**bits for name, s in shapes.items()}
    weights = {name: secure.secret(s, -1.0, 1.0, bits) for name, s in shapes.items()}
    state = {slot: secure.secret(s, -4.0, 4.0, 20) for slot, s in optimizer.slots(shapes).items()}
    batch = {"x": secure.secret(x.shape, 0.0, 1.0, 8), "y": secure.secret(y.shape, 0.0, 1.0, 0)}
    secrets = [*weights.values(), *state.values(), *batch.values()]
    loss = convolutional(**weights, **batch)
    after, _ = optimizer.step(weights, state, grad(loss, weights), 0)
    objective = Objective(ANY, security) if security is Security.MALICIOUS else LATENCY
    program = secure.program(*secrets, *after.values(), loss, objective=objective)
    given = [fixed_point.encode(w, bits) for w in start.values()]
    given += [*(field.zeros(v.shape) for v in state.values()), fixed_point.encode(x, 8), fixed_point.encode(y, 0)]
    outputs = secure.as_predicted(program, given, parties, security).outputs
    losses, wanted = twin(convolutional, optimizer, start, [{"x": x, "y": y}])
    for raw, name in zip(outputs[len(secrets) :], after, strict=False):
        assert np.abs(fixed_point.decode(raw, bits) - wanted[name]).max() < 1e-4
    assert fixed_point.decode(outputs[-1], loss.type.fraction_bits) == pytest.approx(losses[0], abs=1e-3)
