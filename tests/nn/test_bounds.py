"""What is declared of stored weights and of a network's values holds at the extremes, and says no more than it must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import EncodingError
from mpc.rings import known_rings
from nn import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    Linear,
    Matmul,
    Model,
    Parameter,
    Polynomial,
    Sequential,
    Sigmoid,
    StoredType,
)
from nn.architecture import Architecture, Step
from nn.layer import Layer, WeightArray
from protocols.readings.clear import clear_values


def model_of(architecture: Architecture, rng: Any) -> Model:
    """Weights of both signs, none near 0, so that sums along different axes differ."""
    weights = {
        name: rng.uniform(0.5, 1.0, shape) * rng.choice([-1.0, 1.0], shape)
        for name, shape in architecture.parameters.items()
    }
    return Model(architecture, {n: np.abs(w) if n.endswith("var") else w for n, w in weights.items()})


def extremes(model: Model, shape: tuple[int, ...], low: float, high: float, rng: Any) -> np.ndarray[Any, Any]:
    """Batches, as far as signs tell, that make an output smallest and largest; all at one end; and any."""
    base = model.plain(np.zeros(shape)).reshape(-1)
    size = int(np.prod(shape))
    slopes = np.stack([model.plain(e.reshape(shape)).reshape(-1) - base for e in np.eye(size)])
    found = [np.full(size, low), np.full(size, high), *rng.uniform(low, high, (4, size))]
    for column in slopes.T[:: max(1, len(base) // 8)]:
        found += [np.where(column > 0, high, low), np.where(column > 0, low, high)]
    return np.trunc(np.stack(found) * 2.0**16).reshape(-1, *shape) * 2.0**-16


LINEAR = [
    (Linear(8, 2, bias=False), (1, 8)),
    (Linear(2, 8, bias=False), (1, 2)),
    (Linear(3, 5, bias=False), (2, 4, 3)),
    (Conv2d(6, 1, 2, bias=False), (1, 6, 3, 3)),
    (Conv2d(1, 6, 2, bias=False), (1, 1, 3, 3)),
    (Conv2d(4, 2, (1, 3), groups=2, bias=False), (1, 4, 2, 4)),
    (Conv2d(2, 4, (4, 1), padding=(2, 0), stride=2, bias=False), (1, 2, 4, 3)),
]
OTHERS = [
    (Linear(8, 2), (1, 8)),
    (Conv2d(2, 3, (4, 3), padding="same"), (1, 2, 3, 3)),
    (BatchNorm2d(2), (1, 2, 2, 2)),
    (AvgPool2d((3, 2), padding=(1, 0), count_include_pad=False), (1, 1, 3, 4)),
    (Polynomial((0.5, -1.0, 0.25), interval=(-1.0, 2.0)), (1, 6)),
]


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("layer", "shape"), LINEAR + OTHERS, ids=repr)
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 2.0), (0.5, 2.0)])
def test_values_are_where_their_types_say(
    layer: Layer, shape: tuple[int, ...], low: float, high: float, rng: Any
) -> None:
    model = model_of(Sequential({"it": layer}).architecture(), rng)
    program = model.description.program(shape, low=low, high=high)
    stored = {("model", name): array for name, array in model.encode().items()}
    reached = 0.0
    for x in extremes(model, shape, low, high, rng):
        values = clear_values(program, [fixed_point.encode(x, 16)], stored)
        for node, each in zip(program.nodes, values, strict=True):
            real = fixed_point.decode(each, node.type.fraction_bits, known_rings()[node.type.ring])
            slack = 2.0**-45 * node.type.magnitude
            assert node.type.low - slack <= real.min(), node
            assert real.max() <= node.type.high + slack, node
        result = fixed_point.decode(values[program.outputs[0]], program.nodes[program.outputs[0]].type.fraction_bits)
        assert np.abs(result - model.plain(x)).max() < 1e-2
        reached = max(reached, float(np.abs(result).max()))
    if (layer, shape) in LINEAR and low == -high:
        # What is public of a weight's L1 norm is the next power of two.
        assert program.nodes[program.outputs[0]].type.magnitude <= 2.001 * reached


@pytest.mark.parametrize("shape", [(8, 2), (2, 8), (1, 3, 8, 2), (1, 3, 2, 8)])
def test_a_parameter_that_is_multiplied_by(shape: tuple[int, ...], rng: Any) -> None:
    batch = (*shape[:-2], 1, shape[-2])
    model = model_of(Architecture((Step("w", Parameter(shape), ()), Step("out", Matmul(), (0, 1)))), rng)
    program = model.description.program(batch)
    stored = {("model", name): array for name, array in model.encode().items()}
    declared = program.nodes[program.outputs[0]].type
    for x in extremes(model, batch, -1.0, 1.0, rng):
        values = clear_values(program, [fixed_point.encode(x, 16)], stored)
        real = fixed_point.decode(values[program.outputs[0]], declared.fraction_bits)
        assert declared.low <= real.min()
        assert real.max() <= declared.high


class TestStored:
    def test_a_gain_is_of_what_is_stored(self) -> None:
        """Rounding may make the sum larger: 1 before it, a unit more after."""
        unit = 2.0**-17
        values = np.array([[0.5 + 0.6 * unit], [0.25 - 0.3 * unit], [0.25 - 0.3 * unit]])
        array = WeightArray(values, (0,))
        t = StoredType.of(array, "w")
        assert t.fraction_bits == 17
        stored = fixed_point.decode(t.encode(array, "w"), t.fraction_bits)
        assert np.abs(values).sum() <= 1.0 < np.abs(stored).sum()
        assert t.gain is not None
        assert t.gain >= np.abs(stored).sum()

    @pytest.mark.parametrize("value", [1.5, -1.5])
    def test_values_on_either_side_are_refused(self, value: float) -> None:
        t = StoredType.of(WeightArray(np.array([[1.0, -1.0]]), (0,)), "w")
        with pytest.raises(EncodingError, match=r"w has values outside \[-1, 1\]"):
            t.encode(WeightArray(np.array([[0.5, value]]), (0,)), "w")

    def test_another_shape_of_as_many_is_refused(self) -> None:
        t = StoredType.of(WeightArray(np.ones((2, 3)), (0,)), "w")
        with pytest.raises(EncodingError, match="shape"):
            t.encode(WeightArray(np.ones((3, 2)), (0,)), "w")

    def test_large_weights_take_fewer_bits(self) -> None:
        """A weight's fraction bits and its gain's share what the next layers leave of the field."""
        small, large = (StoredType.of(WeightArray(np.full((n, 2), 1.0), (0,)), "w") for n in (4, 4096))
        assert small.fraction_bits > large.fraction_bits

    def test_the_gain_comes_along(self) -> None:
        t = StoredType((8, 2), 14, -1.0, 1.0, 3.0)
        assert t.source("s", "w").type.gain == 3.0

    def test_a_deep_network_needs_its_gains(self, rng: Any) -> None:
        """With the number of products in place of their weights' sum, this would be truncated before each layer."""
        net = Sequential({"conv": Conv2d(8, 8, 5), "act": Sigmoid(), "flat": Flatten(), "fc": Linear(128, 4)})
        architecture = net.architecture((8, 8, 8))
        weights = {n: rng.normal(0, 0.01, s) for n, s in architecture.parameters.items()}
        layers = Model(architecture, weights).cost((1, 8, 8, 8)).layers
        assert sum(layer.rounds for name, layer in layers.items() if name in dict(net.layers)) == 2
