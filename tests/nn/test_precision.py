"""The number of fraction bits that a model is computed with."""

from __future__ import annotations

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import RangeError
from mpc.operation import Input
from nn import Model
from nn.activations import Sigmoid
from nn.architecture import Sequential
from nn.layer import Array
from nn.layers import Linear
from protocols.lowering.plan import plan
from protocols.readings.memory import MemoryStore, run_in_memory
from protocols.trace.secret_tensor import graph_of, leaf


@pytest.fixture
def model(rng: np.random.Generator) -> Model:
    layers = Sequential({"fc1": Linear(6, 5), "act": Sigmoid(), "fc2": Linear(5, 3)})
    weights = {
        "fc1.weight": rng.normal(size=(5, 6)), "fc1.bias": rng.normal(size=5),
        "fc2.weight": rng.normal(size=(3, 5)), "fc2.bias": rng.normal(size=3),
    }  # fmt: skip
    return Model(layers.architecture((6,)), weights)


def largest_error(model: Model, x: Array, bits: int) -> float:
    program = model.description.program(x.shape, fraction_bits=bits, precision=bits)
    run = run_in_memory(program, [fixed_point.encode(x, bits)], store=MemoryStore("model", model.encode(), 2))
    result = fixed_point.decode(run.outputs[0], program.nodes[program.outputs[0]].type.fraction_bits)
    return float(np.abs(result - model.plain(x)).max())


def test_the_default_is_16(model: Model) -> None:
    usual = model.description.program((4, 6))
    assert model.description.program((4, 6), fraction_bits=16, precision=16).digest == usual.digest
    assert model.description.program((4, 6), precision=10).digest != usual.digest
    assert model.cost((4, 6)) == model.cost((4, 6), precision=16)


def test_more_bits_are_nearer_to_float64(model: Model, rng: np.random.Generator) -> None:
    x = rng.uniform(-1, 1, (200, 6))
    errors = [largest_error(model, x, bits) for bits in (6, 10, 16)]
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert errors[2] < 2e-3


@pytest.mark.parametrize("bits", [5, 30, 61])
def test_what_does_not_fit_is_refused(model: Model, bits: int) -> None:
    with pytest.raises(RangeError, match=f"not {bits}"):
        model.description.program((1, 6), precision=bits)
    if bits > 60:
        with pytest.raises(RangeError, match="fraction bits do not fit the field"):
            model.description.program((1, 6), fraction_bits=bits)


def test_what_a_network_is_off_by_is_bounded(model: Model, rng: np.random.Generator) -> None:
    """By its fits and all rounding, against the exact functions of weights as they were given."""
    x = rng.uniform(-1, 1, (50, 6))
    secret = leaf(Input(x.shape, 16, -1.0, 1.0))
    y = model.forward(secret, model.description.stored("model"))
    run = run_in_memory(plan(graph_of([y])), [fixed_point.encode(x, 16)], store=MemoryStore("model", model.encode(), 2))
    off = np.abs(fixed_point.decode(run.outputs[0], y.type.fraction_bits) - model.plain(x, exact=True)).max()
    assert off <= y.error.absolute <= 100 * off
    assert y.error.source.endswith(", in act")
