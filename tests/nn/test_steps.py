"""Steps of whole networks, with the digits that a training gives its state: what they open, and what they learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import nn
from benchmarks.training import CASES as BENCHED
from benchmarks.twin import Twin
from mpc import fixed_point
from mpc.errors import UnsupportedError, UsageError
from mpc.operation import Input
from mpc.program import Program
from mpc.rings import FIELD, field
from mpc.tensor_type import Shape
from nn.activations import Sigmoid
from nn.architecture import Sequential
from nn.layers import AvgPool2d, Conv2d, Flatten, Linear
from nn.rectifiers import ReLU
from nn.training import Batch, Recipe, initial
from protocols import graph_of, leaf, plan
from protocols.lowering.plan import leaves
from protocols.readings.memory import run_in_memory

Reals = npt.NDArray[np.float64]
RATE = 2.0**-8
INTERVAL = (-8.0, 8.0)


def convolutional(side: int, channels: tuple[int, int, int], hidden: int, classes: int, act: Any) -> Sequential:
    """Two convolutions, each with means over 2x2 after its activation, and two layers."""
    blocks: dict[str, Any] = {}
    for i, (before, after) in enumerate(pairwise(channels), start=1):
        blocks |= {f"conv{i}": Conv2d(before, after, 3, padding=1), f"act{i}": act(), f"pool{i}": AvgPool2d(2)}
    wide = channels[-1] * (side // 4) ** 2
    blocks |= {"flatten": Flatten(), "fc1": Linear(wide, hidden), "act3": act(), "fc2": Linear(hidden, classes)}
    return Sequential(blocks)


def sigmoid() -> Sigmoid:
    return Sigmoid(interval=INTERVAL)


def recipe(layers: Sequential, shape: Shape, logits: float, lr: float = RATE, momentum: float = 0.5) -> Recipe:
    optimizer = nn.SGD(lr=lr, momentum=momentum)
    return Recipe(layers.architecture(shape), nn.CrossEntropyLoss(), optimizer, weights=1.0, logits=logits)


def read(secure: Any, shape: Shape, classes: int, batch: int, step: int = 0) -> Batch:
    x = secure.stored(f"x{step}", (batch, *shape), 0.0, 1.0, 8)
    return Batch([x], [secure.stored(f"y{step}", (batch, classes), 0.0, 1.0, 0)])


def steps(secure: Any, how: Recipe, shape: Shape, classes: int, batch: int, count: int) -> Program:
    types = how.described(read(secure, shape, classes, batch)).stored_types
    state = {name: t.source("network", name, weight=True) for name, t in types.items()}
    batches = [read(secure, shape, classes, batch, i) for i in range(count)]
    return plan(graph_of(list(how.after(state, batches, 0).state.values())))


def of_a_step(secure: Any, how: Recipe, shape: Shape, classes: int, batch: int) -> tuple[int, int, int]:
    """Rounds, field elements opened, and bytes of it and of bits."""
    one, two = (steps(secure, how, shape, classes, batch, count) for count in (1, 2))
    opens = [[node.type for node in p.nodes if node.operation.opens] for p in (one, two)]
    elements, bytes_ = (
        [sum(map(size, p)) for p in opens] for size in (lambda t: t.size * (t.ring == FIELD), lambda t: t.bytes)
    )
    return two.rounds - one.rounds, elements[1] - elements[0], bytes_[1] - bytes_[0]


def test_a_convolutional_network_opens_each_value_once(secure: Any) -> None:
    """z, s'(z) and dz before pooling, A and dA behind it; and 2 a weight, but for the first layer's."""
    batch, classes, hidden, side, channels = 4, 3, 5, 8, (1, 2, 3)
    how = recipe(convolutional(side, channels, hidden, classes, sigmoid), (1, side, side), 2.0, lr=2.0**-6)
    rounds, elements, _ = of_a_step(secure, how, (1, side, side), classes, batch)
    before = channels[1] * side**2 + channels[2] * (side // 2) ** 2 + hidden
    behind = channels[1] * (side // 2) ** 2 + channels[2] * (side // 4) ** 2 + hidden
    weights = [math.prod(shape) for shape in how.shapes.values() if len(shape) > 1]
    biases = sum(math.prod(shape) for shape in how.shapes.values() if len(shape) == 1)
    assert rounds == 4 * 3 + 5 + 1
    loss = 4 * batch * classes + batch
    assert elements == batch * (3 * before + 2 * behind) + loss + 2 * sum(weights) - weights[0] + biases


CASES: dict[str, tuple[Sequential, Shape, int, int, int, float]] = {
    "softmax regression": (Sequential({"out": Linear(1280, 7)}), (1280,), 7, 32, 6, 80e3),
    "CNN A": (convolutional(28, (3, 16, 32), 64, 7, sigmoid), (3, 28, 28), 7, 32, 18, 18.7e6),
    "CNN B": (convolutional(28, (3, 16, 32), 64, 7, ReLU), (3, 28, 28), 7, 32, 24, 15.1e6),
    "MLP": (
        Sequential({"a": Linear(784, 128), "r": ReLU(), "b": Linear(128, 128), "s": ReLU(), "out": Linear(128, 10)}),
        (784,), 10, 128, 16, 2.22e6,
    ),
    "CNN B, pooled first": (BENCHED["cnn-relu-pooled"].make(), (3, 28, 28), 7, 32, 21, 6.7e6),
}  # fmt: skip


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_what_a_step_takes(secure: Any, case: str) -> None:
    layers, shape, classes, batch, most, bytes_ = CASES[case]
    rounds, _, sent = of_a_step(secure, recipe(layers, shape, 2.0), shape, classes, batch)
    assert rounds <= most
    assert sent <= bytes_


def started(how: Recipe, batches: Sequence[Batch]) -> tuple[Program, list[str], list[str]]:
    """Steps whose state is revealed, and watched; and the names of its inputs and of its outputs."""
    types = how.described(batches[0]).stored_types
    state = {name: leaf(Input(t.shape, t.fraction_bits, t.low, t.high)) for name, t in types.items()}
    after = how.after(state, batches, 0, watched=True).state
    graph = graph_of([after[name] for name in types])
    named = {s.node: name for name, s in state.items()}
    named |= {s.node: f"{t}{i}" for i, batch in enumerate(batches) for t, (s,) in zip("xy", batch, strict=True)}
    return plan(graph), [named[node] for node in leaves(graph)], list(types)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("momentum", [0.0, 0.25])
@pytest.mark.parametrize("wrong", [None, 0, 2])
def test_what_leaves_its_range_in_any_step_is_seen(momentum: float, wrong: int | None) -> None:
    """By the last, gradients are back in their range, and weights have never left theirs."""
    count, batch = 3, 4
    optimizer = nn.SGD(lr=2.0**-8, momentum=momentum)
    how = Recipe(
        Sequential({"out": Linear(2, 1)}).architecture((2,)), nn.MSELoss(reduction="sum"), optimizer, remembered=1.0
    )
    rows = [
        Batch([leaf(Input((batch, 2), 8, -1.0, 1.0))], [leaf(Input((batch, 1), 8, -1.0, 1.0))]) for _ in range(count)
    ]
    program, order, names = started(how, rows)
    values = {name: fixed_point.encode(np.full((batch, 2), 0.5), 8) for name in order if name[0] == "x"}
    values |= {f"y{i}": fixed_point.encode(np.full((batch, 1), 0.5 * (i == wrong)), 8) for i in range(count)}
    values |= {name: field.zeros(program.nodes[i].type.shape) for name, i in zip(order, program.inputs, strict=True)
               if name not in values}  # fmt: skip
    outputs = run_in_memory(program, [values[name] for name in order]).outputs
    assert len(outputs) == len(names) + 1
    assert bool(outputs[-1].any()) == (wrong is not None)


def trained(
    how: Recipe, weights: Mapping[str, Reals], batches: Sequence[tuple[Reals, Reals]]
) -> tuple[dict[str, Reals], dict[str, Reals]]:
    """The weights at the end, as they are stored: of the parties, and of the twin."""
    x, y = batches[0]
    secrets = {"x": leaf(Input(x.shape, 8, 0.0, 1.0)), "y": leaf(Input(y.shape, 0, 0.0, 1.0))}
    types = how.described(Batch([secrets["x"]], [secrets["y"]])).stored_types
    state = {name: leaf(Input(t.shape, t.fraction_bits, t.low, t.high)) for name, t in types.items()}
    after = how.after(state, [Batch([secrets["x"]], [secrets["y"]])], 0).state
    graph = graph_of([after[name] for name in types])
    program = plan(graph)
    named = {s.node: name for name, s in (state | secrets).items()}
    order = [named[node] for node in leaves(graph)]
    stored = {name: tensor.values for name, tensor in how.architecture.tensors(weights).items()}
    start = {n: stored[n] if n in stored else np.zeros(t.shape) for n, t in types.items()}
    raw = {n: fixed_point.encode(w, types[n].fraction_bits) for n, w in start.items()}
    assert isinstance(how.optimizer, nn.SGD)
    twin = Twin(how.architecture, weights, how.optimizer)
    for number, (x, y) in enumerate(batches):
        given = raw | {"x": fixed_point.encode(x, 8), "y": fixed_point.encode(y, 0)}
        outputs = run_in_memory(program, [given[name] for name in order]).outputs
        raw = dict(zip(types, outputs, strict=False))
        twin.step(number, x, y)
    found = {n: fixed_point.decode(raw[n], types[n].fraction_bits) for n in weights}
    learnt = how.architecture.tensors(twin.weights)
    return found, {name: tensor.values for name, tensor in learnt.items()}


@pytest.mark.parametrize("count", [4, pytest.param(500, marks=pytest.mark.slow)])
def test_a_convolutional_network_is_its_twin(count: int) -> None:
    side, batch, classes = 8, 8, 3
    how = recipe(convolutional(side, (1, 3, 4), 6, classes, sigmoid), (1, side, side), 4.0, lr=0.05, momentum=0.9)
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, classes, (count, batch))
    x = np.floor(rng.uniform(0, 0.5, (count, batch, 1, side, side)) * 256) / 256
    x[..., :4, :4] += (kinds[..., None, None, None] == 1) * 0.25
    x[..., 4:, 4:] += (kinds[..., None, None, None] == 2) * 0.25
    start = {name: np.rint(w * 2.0**16) / 2.0**16 for name, w in initial(how.architecture).items()}
    found, wanted = trained(how, start, list(zip(x, np.eye(classes)[kinds], strict=True)))
    assert max(np.abs(w).max() for w in wanted.values()) < how.weights
    assert max(np.abs(found[name] - w).max() for name, w in wanted.items()) < 1e-3
    assert np.abs(found["fc2.weight"] - how.architecture.tensors(start)["fc2.weight"].values).max() > 1e-3


def test_only_some_layers_are_trained() -> None:
    """The others are kept as they are, and nothing is remembered of them; who names one that has no weights is told."""
    layers = Sequential({"a": Linear(3, 4), "r": ReLU(), "out": Linear(4, 2)}).architecture((3,))
    how = Recipe(layers, nn.MSELoss(), nn.SGD(lr=0.25, momentum=0.5), only=("out",))
    batch = Batch([leaf(Input((4, 3), 8, 0.0, 1.0))], [leaf(Input((4, 2), 8, 0.0, 1.0))])
    program, order, names = started(how, [batch])
    assert {name for name in names if "momentum" in name} == {"out.weight.momentum", "out.bias.momentum"}
    raw = {n: field.zeros(program.nodes[i].type.shape) for n, i in zip(order, program.inputs, strict=True)}
    raw |= {"x0": fixed_point.encode(np.full((4, 3), 0.5), 8), "y0": fixed_point.encode(np.full((4, 2), 0.5), 8)}
    bits = {n: program.nodes[i].type.fraction_bits for n, i in zip(order, program.inputs, strict=True)}
    raw["a.weight"] = fixed_point.encode(np.full(raw["a.weight"].shape, 0.25), bits["a.weight"])
    outputs = dict(zip(names, run_in_memory(program, [raw[n] for n in order]).outputs, strict=False))
    assert np.array_equal(outputs["a.weight"], raw["a.weight"])
    assert fixed_point.decode(outputs["out.bias"], bits["out.bias"]) == pytest.approx(0.125, abs=1e-4)
    with pytest.raises(UsageError, match="nothing to train in r: layers with weights are a, out"):
        _ = Recipe(layers, nn.MSELoss(), nn.SGD(lr=0.25), only=("r",)).learnt


@pytest.mark.parametrize(
    "optimizer",
    [
        nn.SGD(lr=2.0**-8, schedule=nn.StepLR(1, 0.5)),
        nn.SGD(lr=2.0**-8, schedule=nn.StepLR(1, 0.5), momentum=0.9, nesterov=True, weight_decay=1e-4),
        nn.Adam(lr=2.0**-8, schedule=nn.StepLR(1, 0.5)),
    ],
)
def test_rates_go_down_to_nothing(optimizer: nn.Optimizer) -> None:
    """With digits as before; where the rate is 0, weights stay as they are."""
    how = Recipe(Sequential({"out": Linear(3, 2)}).architecture((3,)), nn.MSELoss(), optimizer)
    batch = Batch([leaf(Input((4, 3), 8, 0.0, 1.0))], [leaf(Input((4, 2), 8, 0.0, 1.0))])
    types = how.described(batch).stored_types
    state = {name: leaf(Input(t.shape, t.fraction_bits, t.low, t.high)) for name, t in types.items()}
    for step in (0, 12, 26, 30):
        after = how.kept(state, [batch], step).state
        assert {name: x.type.fraction_bits for name, x in after.items()} == {
            n: t.fraction_bits for n, t in types.items()
        }
        assert (optimizer.rate(step) == 0) == (step == 30)
    if isinstance(optimizer, nn.SGD):
        assert after["out.weight"].node.inputs == (state["out.weight"].node,), "watched, and nothing else"
    with pytest.raises(UnsupportedError, match="lr is from"):
        nn.SGD(lr=1e-11)
