"""A model in the fixed-point numbers that parties compute with: exactly what they would give, without shares."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mpc import fixed_point
from mpc.operation import Input
from mpc.program import Program
from mpc.rings.field import FieldArray
from mpc.tensor_type import Shape
from nn.architecture import Architecture
from nn.interface import Interface
from nn.layer import Array, pair
from nn.layers import Conv2d, Linear
from nn.model import Model
from protocols.lowering.plan import plan
from protocols.readings.clear import clear
from protocols.trace.secret_tensor import graph_of, leaf

MOST_PRODUCTS = 1 << 36
"""Of numbers: a minute; BERT-base at 128 tokens takes 6 s.  A network that multiplies more for one input is not
evaluated like this."""


class Results(NamedTuple):
    """Of a model, and the greatest magnitude that they are known to stay below."""

    values: Array
    magnitude: float


def fixed_point_results(model: Model, x: Array, low: float, high: float) -> Results:
    """What the parties' program gives for inputs in [low, high].  Raises RangeError for what cannot be shown to fit."""
    program = fixed_point_program(model, x.shape, low, high)
    # A bit may come behind it.
    result, *_ = clear(program, [fixed_point.encode(x, model.interface.fraction_bits)], _Stored(model.encode()))
    t = program.nodes[program.outputs[0]].type
    return Results(fixed_point.decode(result, t.fraction_bits), t.magnitude)


class _Stored(Mapping[tuple[str, str], FieldArray]):
    """Weights by slot and name, each encoded when it is asked for."""

    def __init__(self, tensors: Mapping[str, FieldArray]) -> None:
        self._tensors = tensors

    def __getitem__(self, key: tuple[str, str]) -> FieldArray:
        return self._tensors[key[1]]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (("model", name) for name in self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def fixed_point_program(model: Model, shape: Shape, low: float, high: float) -> Program:
    """The parties' program for such inputs.  Raises RangeError."""
    secret = leaf(Input(shape, model.interface.fraction_bits, low, high))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever asks compares, and says what is wrong
        return plan(graph_of([model.forward(secret, model.description.stored("model"))]))


def up_to(model: Model, step: int) -> Model:
    """The model that ends with this step's result."""
    whole = model.architecture
    steps = whole.steps[: step + 1]
    names = {s.name for s in steps}
    # What is a later layer's is its own here.
    tied = {name: held for name, held in whole.tied.items() if {whole.owner(name), whole.owner(held)} <= names}
    first = Architecture(steps, whole.input_shape, tied)
    weights = {name: model.weights[whole.tied.get(name, name)] for name in first.parameters}
    return Model(first, weights, Interface(model.interface.input))


def products(model: Model, x: Array) -> int:
    """Of numbers, in its linear layers, for these inputs."""
    total = 0
    for step, value in zip(model.architecture.steps, model.values(x)[1:], strict=True):
        if isinstance(step.layer, Linear):
            total += value.size * step.layer.in_features
        elif isinstance(step.layer, Conv2d):
            window: Shape = pair(step.layer.kernel_size)
            total += value.size * math.prod(window) * step.layer.in_channels // step.layer.groups
    return total
