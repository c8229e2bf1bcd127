"""Layers that compare: the parties' result, the plain reference and torch agree, on any values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

import nn
from benchmarks.models import derm
from mpc.errors import ShapeError, UnsupportedError
from mpc.security import Security
from nn import Architecture, Layer, Model, Step, from_torch

UNIT = 2.0**-16

LAYERS: list[tuple[Layer, tn.Module, tuple[int, ...]]] = [
    (nn.ReLU(), tn.ReLU(), (2, 5)),
    (nn.ReLU(), tn.ReLU(inplace=True), (1, 2, 3, 3)),
    (nn.LeakyReLU(0.2), tn.LeakyReLU(0.2), (2, 5)),
    (nn.LeakyReLU(-1.5), tn.LeakyReLU(-1.5), (2, 5)),
    (nn.ReLU6(), tn.ReLU6(), (2, 9)),
    (nn.Hardtanh(-0.5, 2.0), tn.Hardtanh(-0.5, 2.0), (2, 9)),
    (nn.Hardsigmoid(), tn.Hardsigmoid(), (2, 9)),
    (nn.Hardswish(), tn.Hardswish(), (2, 9)),
    (nn.Softshrink(0.75), tn.Softshrink(0.75), (2, 9)),
    (nn.ELU(0.5), tn.ELU(0.5), (2, 9)),
    (nn.SELU(), tn.SELU(), (2, 9)),
    (nn.CELU(2.0), tn.CELU(2.0), (2, 9)),
    (nn.LogSigmoid(), tn.LogSigmoid(), (2, 9)),
    (nn.Softsign(), tn.Softsign(), (2, 9)),
    (nn.PReLU(), tn.PReLU(), (2, 3)),
    (nn.PReLU(2), tn.PReLU(2), (1, 2, 3, 3)),
    (nn.MaxPool2d(2, 2), tn.MaxPool2d(2), (2, 2, 4, 5)),
    (nn.MaxPool2d(3, 2, 1), tn.MaxPool2d(3, 2, 1), (1, 2, 5, 6)),
    (nn.MaxPool2d((1, 2), (2, 1)), tn.MaxPool2d((1, 2), (2, 1)), (1, 1, 3, 3)),
    (nn.AdaptiveMaxPool2d(), tn.AdaptiveMaxPool2d(1), (1, 3, 3, 2)),
]


def values(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """From -8 to 8, a third of them of -1, 0 and 1: ties."""
    mixed = np.where(rng.random(shape) < 0.3, rng.integers(-1, 2, shape), rng.uniform(-8, 8, shape))
    return np.round(mixed / UNIT) * UNIT


@pytest.mark.sampled(4)
@pytest.mark.parametrize(("layer", "module", "shape"), LAYERS, ids=lambda v: repr(v) if isinstance(v, Layer) else "")
@pytest.mark.parametrize("parties", [2, 3])
def test_parties_plain_and_torch_agree(
    layer: Layer, module: tn.Module, shape: tuple[int, ...], parties: int, rng: Any, evaluate: Any
) -> None:
    x = values(shape, rng)
    model = from_torch(module.double(), example_input=torch.zeros(shape, dtype=torch.float64))
    assert [step.layer for step in model.architecture.steps] == [layer]
    wanted = module(torch.tensor(x)).detach().numpy()
    assert np.abs(model.plain(x) - wanted).max() < 1e-12
    found = evaluate(model, x, parties, bound=8.0)
    smooth = isinstance(layer, nn.ELU | nn.SELU | nn.CELU | nn.LogSigmoid | nn.Softsign)
    assert np.abs(found.result - wanted).max() <= (2e-4 if smooth else 3 * UNIT)


FUNCTIONS: dict[str, Any] = {
    "relu": F.relu,
    "method": lambda x: x.relu(),
    "in place": lambda x: F.relu(x * 1.0, inplace=True),
    "torch": torch.relu,
    "leaky": lambda x: F.leaky_relu(x, 0.3),
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -2, 1),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "softshrink": lambda x: F.softshrink(x, 0.25),
    "clamp": lambda x: x.clamp(-1, 2),
    "elu": lambda x: F.elu(x, 0.5, True),
    "selu": torch.selu,
    "celu": lambda x: F.celu(x, alpha=2.0),
    "logsigmoid": F.logsigmoid,
    "softsign": F.softsign,
    "mish": F.mish,
    "erf": lambda x: torch.erf(x),
    "abs": torch.abs,
    "max_pool2d": lambda x: F.max_pool2d(x, 2, stride=1),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, (1, 1)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_torch(name: str, rng: Any) -> None:
    class Calling(tn.Module):
        def forward(self, x: Any) -> Any:
            return FUNCTIONS[name](x)

    x = values((2, 2, 4, 4), rng)
    assert np.abs(from_torch(Calling()).plain(x, exact=True) - FUNCTIONS[name](torch.tensor(x)).numpy()).max() < 1e-12


def test_a_block_of_a_residual_network(rng: Any, evaluate: Any) -> None:
    """Its ReLU is one module, called twice, in place."""

    class Block(tn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = (tn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2))
            self.bn1, self.bn2 = tn.BatchNorm2d(3), tn.BatchNorm2d(3)
            self.relu = tn.ReLU(inplace=True)
            self.pool = tn.MaxPool2d(3, 2, 1)

        def forward(self, x: Any) -> Any:
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += x
            return self.pool(self.relu(out))

    net = Block().double().eval()
    x = values((2, 3, 6, 6), rng) / 8
    model = from_torch(net, torch.tensor(x))
    wanted = net(torch.tensor(x)).detach().numpy()
    found = evaluate(model, x)
    assert np.abs(found.result - wanted).max() < 1e-3
    # A round for each convolution's input that was not opened, and two for each comparison.
    assert found.program.rounds <= 1 + 2 + 1 + 2 * 4 + 2


def test_a_relu_before_a_pool_is_evaluated_after_it(rng: Any, evaluate: Any) -> None:
    steps = (Step("act", nn.ReLU(), (0,)), Step("pool", nn.MaxPool2d(2), (1,)))
    x = values((1, 2, 8, 8), rng)
    first = evaluate(Model(Architecture(steps), {}), x, bound=8.0)
    pooled = Architecture((Step("pool", nn.MaxPool2d(2), (0,)), Step("act", nn.ReLU(), (1,))))
    second = evaluate(Model(pooled, {}), x, bound=8.0)
    assert first.cost.online_bytes_per_party == second.cost.online_bytes_per_party
    assert np.abs(first.result - F.max_pool2d(torch.tensor(x).relu(), 2).numpy()).max() <= 2 * UNIT


def test_what_makes_no_sense() -> None:
    for make in (
        lambda: nn.LeakyReLU(float("nan")),
        lambda: nn.Hardtanh(1.0, -1.0),
        lambda: nn.Softshrink(-1.0),
        lambda: nn.MaxPool2d(2, padding=2),
        lambda: nn.AdaptiveMaxPool2d(0),
        lambda: nn.MaxPool2d(2, dilation=0),
    ):
        with pytest.raises(UnsupportedError):
            make()
    for layer in (nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(), nn.PReLU(3)):
        with pytest.raises(ShapeError):
            layer.plain(np.zeros((2, 2)), weights={"weight": np.zeros(3)})


def test_a_network_takes_three_rounds_a_layer() -> None:
    """To open what a layer compares, its digits, and what the next one multiplies; nothing is opened to be cut."""
    for rectified, rounds, sent in ((True, 10, 197_208), (False, 8, 189_240)):
        cost = derm(28, rectified=rectified).cost(1, 2, Security.SEMI_HONEST)
        assert cost.online_rounds == rounds
        # Whether inputs are in their range is found out beside; whether intervals hold, too, which is one number more.
        beside = cost.layers["range check"].opened_bytes
        if not rectified:
            beside += cost.layers["interval check"].opened_bytes + 8
        assert cost.online_bytes_per_party - beside == sent
