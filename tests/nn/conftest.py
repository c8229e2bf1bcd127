"""How the tests of this folder run a model: described, uploaded and evaluated as processes would, in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from mpc import fixed_point
from mpc.cost import Cost, cost
from mpc.operation import Input
from mpc.program import Program
from nn import Description, Model
from nn.layer import Array
from protocols.lowering.plan import plan
from protocols.readings.memory import MemoryStore, run_in_memory
from protocols.trace.secret_tensor import graph_of, leaf


@dataclass(frozen=True)
class Evaluation:
    result: Array
    cost: Cost
    program: Program


def evaluate(model: Model, x: Array, parties: int = 2, bound: float = 1.0) -> Evaluation:
    """Run ``model`` on ``x`` among parties in this process, by its description alone."""
    description = Description.decode(model.describe())
    secret = leaf(Input(x.shape, 16, -bound, bound))
    y = description.forward(secret, description.stored("model"))
    program = Program.decode(plan(graph_of([y]), checked=True).encode())
    store = MemoryStore("model", model.encode(), parties)
    run = run_in_memory(program, [fixed_point.encode(x, 16)], parties=parties, store=store)
    result = fixed_point.decode(run.outputs[0], y.type.fraction_bits)
    return Evaluation(result, cost(program, parties), program)


@pytest.fixture(name="evaluate")
def evaluate_fixture() -> Callable[..., Evaluation]:
    return evaluate


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
