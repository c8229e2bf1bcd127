"""What a step of training opens, and in how many rounds: a tensor that is masked once serves forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import pytest

import nn
from mpc.program import Program
from mpc.rings import FIELD
from mpc.tensor_type import Shape
from protocols import graph_of, plan
from protocols.trace.gradients import grad

RATE_BITS = 11
"""Fraction bits that a rate of 0.1 takes."""
Build = Callable[[Any, Mapping[str, Any], int], Any]


def program(secure: Any, build: Build, shapes: Mapping[str, Shape], steps: int, bits: Mapping[str, int]) -> Program:
    """Steps one after the other, on stored data and from stored parameters and state."""
    optimizer = nn.SGD(lr=0.1, momentum=0.9)
    weights = {name: secure.stored(name, s, -1.0, 1.0, bits.get(name, 20) + RATE_BITS) for name, s in shapes.items()}
    state = {
        slot: secure.stored(slot, s, -4.0, 4.0, bits.get(slot.removesuffix(".momentum"), 20))
        for slot, s in optimizer.slots(shapes).items()
    }
    for step in range(steps):
        gradients = grad(build(secure, weights, step), weights)
        weights, state = optimizer.step(weights, state, gradients, step)
    return plan(graph_of(list(weights.values())))


def of_a_step(secure: Any, build: Build, shapes: Mapping[str, Shape], bits: Mapping[str, int]) -> tuple[int, int]:
    """Rounds, and field elements opened."""
    one, two = (program(secure, build, shapes, steps, bits) for steps in (1, 2))
    opened = [sum(n.type.size for n in p.nodes if n.operation.opens and n.type.ring == FIELD) for p in (one, two)]
    return two.rounds - one.rounds, opened[1] - opened[0]


BATCH, FEATURES, CLASSES, HIDDEN = 16, 12, 5, 8


def data(secure: Any, step: int) -> tuple[Any, Any]:
    x = secure.stored(f"x{step}", (BATCH, FEATURES), 0.0, 1.0, 8)
    return x.labelled("first"), secure.stored(f"y{step}", (BATCH, CLASSES), 0.0, 1.0, 0)


def regression(secure: Any, w: Mapping[str, Any], step: int) -> Any:
    x, y = data(secure, step)
    return nn.CrossEntropyLoss()((x @ w["w"] + w["b"]).within(-2, 2), y)


def perceptron(secure: Any, w: Mapping[str, Any], step: int) -> Any:
    x, y = data(secure, step)
    one = (x @ w["w1"] + w["b1"]).within(-4, 4).relu().truncate(16).labelled("second")
    two = (one @ w["w2"] + w["b2"]).within(-4, 4).relu().truncate(16).labelled("third")
    return nn.CrossEntropyLoss()((two @ w["w3"] + w["b3"]).within(-2, 2), y)


LOSS = 4 * BATCH * CLASSES + BATCH


def test_softmax_regression_opens_a_velocity_and_no_weight(secure: Any) -> None:
    shapes = {"w": (FEATURES, CLASSES), "b": (CLASSES,)}
    # Velocities of as many bits as the gradient has: 8 of x, 16 of softmax - y, 4 of the mean.
    found = of_a_step(secure, regression, shapes, {"w": 28, "b": 28})
    assert found == (6, (FEATURES + 1) * CLASSES + LOSS)


def test_a_perceptron_opens_each_value_once(secure: Any) -> None:
    sizes = [FEATURES, HIDDEN, HIDDEN, CLASSES]
    shapes: dict[str, Shape] = {}
    for i, (rows, columns) in enumerate(pairwise(sizes), start=1):
        shapes |= {f"w{i}": (rows, columns), f"b{i}": (columns,)}
    rounds, opened = of_a_step(secure, perceptron, shapes, {"w1": 32, "b1": 24})
    parameters = sum(math.prod(shape) for shape in shapes.values())
    first = FEATURES * HIDDEN + HIDDEN
    assert rounds == 5 * 2 + 5 + 1
    # Before and after each ReLU, forward and backward; no more of the deeper layers' parameters than both O and W'.
    assert opened <= BATCH * 4 * 2 * HIDDEN + LOSS + 2 * parameters - first


@pytest.mark.parametrize("build", [regression, perceptron])
def test_nothing_is_opened_under_a_name_twice(secure: Any, build: Build) -> None:
    """Every opening has a mask of its own: it is one node."""
    shapes = {"w": (FEATURES, CLASSES), "b": (CLASSES,)}
    if build is perceptron:
        shapes = {"w1": (FEATURES, 4), "b1": (4,), "w2": (4, 4), "b2": (4,), "w3": (4, CLASSES), "b3": (CLASSES,)}
    made = program(secure, build, shapes, 2, {})
    operands = [node.inputs for node in made.nodes if node.operation.opens and node.inputs]
    assert len(set(operands)) == len(operands)
