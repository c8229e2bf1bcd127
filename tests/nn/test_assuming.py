"""Deep networks of rectifiers, whose worst case does not fit the field, and whose values do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mpc.errors import RangeError, UnsupportedError, UsageError
from nn import Linear, Model, ReLU, Sequential, from_torch
from nn.assuming import assuming
from nn.importing import compared
from nn.importing.fixed import fixed_point_results
from nn.rectifiers import Assumed

LAYERS = 14


@pytest.fixture(name="deep")
def deep_model(rng: Any) -> Model:
    layers: dict[str, Any] = {}
    for k in range(LAYERS):
        layers |= {f"fc{k}": Linear(16, 16, bias=False), f"act{k}": ReLU()}
    architecture = Sequential(layers).architecture((16,))
    weights = {name: np.linalg.qr(rng.normal(size=shape))[0] * 1.3 for name, shape in architecture.parameters.items()}
    return Model(architecture, weights)


def test_what_samples_lead_to_takes_the_place_of_the_worst_case(deep: Model, rng: Any, evaluate: Any) -> None:
    samples = rng.uniform(-1, 1, (64, 16))
    with pytest.raises(RangeError):
        deep.description.program((1, 16))
    model = assuming(deep, samples)
    assert np.array_equal(model.plain(samples), deep.plain(samples))
    for name, (low, high) in {n: x.interval for n, x in model.architecture.layers.items() if "act" in n}.items():
        assert low == -high
        assert np.log2(high).is_integer(), name
    run = evaluate(model, samples[:2], 2)
    assert run.program.flagged
    wanted = deep.plain(samples[:2])
    assert np.abs(run.result - wanted).max() < 1e-2 * np.abs(wanted).max()


def test_it_is_assumed_where_one_says(deep: Model, rng: Any, evaluate: Any) -> None:
    samples = rng.uniform(-1, 1, (64, 16))
    after = [f"fc{k}" for k in range(1, LAYERS, 3)]
    model = assuming(deep, samples, after=after)
    assert [s.name for s in model.architecture.steps if isinstance(s.layer, Assumed)] == [f"{n}.assumed" for n in after]
    assert np.array_equal(model.plain(samples), deep.plain(samples))
    run = evaluate(model, samples[:2], 2)
    assert run.program.flagged
    wanted = deep.plain(samples[:2])
    assert np.abs(run.result - wanted).max() < 1e-2 * np.abs(wanted).max()
    everywhere = evaluate(assuming(deep, samples), samples[:2], 2)
    watched = "interval check"
    assert run.cost.layers[watched].dealt < 0.5 * everywhere.cost.layers[watched].dealt
    with pytest.raises(UsageError, match="no layer fc99"):
        assuming(deep, samples, after=["fc99"])


def test_of_networks_too_large_to_be_evaluated_the_program_tells(deep: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is not the worst case's, even where nothing else is looked at in fixed point."""
    net = torch.nn.Sequential()
    for weight in deep.weights.values():
        layer = torch.nn.Linear(16, 16, bias=False)
        layer.weight.data = torch.tensor(weight, dtype=torch.float32)
        net.extend([layer, torch.nn.ReLU()])
    monkeypatch.setattr(compared, "MOST_PRODUCTS", 0)
    model = from_torch(net, torch.rand(8, 16) * 2 - 1)
    assert all(layer.interval for layer in model.architecture.layers.values() if isinstance(layer, ReLU))
    assert model.description.program((1, 16)).flagged


def test_of_networks_without_rectifiers_what_norms_take_is_assumed(deep: Model) -> None:
    """As in a transformer, whose worst case leaves a LayerNorm no fraction bits."""
    net = torch.nn.Sequential()
    for weight in list(deep.weights.values())[:7]:
        layer = torch.nn.Linear(16, 16, bias=False)
        layer.weight.data = torch.tensor(weight, dtype=torch.float32)
        net.append(layer)
    net.append(torch.nn.LayerNorm(16))
    model = from_torch(net, torch.rand(8, 16) * 2 - 1)
    assert [step.name for step in model.architecture.steps if isinstance(step.layer, Assumed)] == ["6.assumed"]
    assert model.description.program((1, 16)).flagged


class Added(torch.nn.Module):
    """Sums that grow, of what is around them."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(torch.nn.Linear(16, 16, bias=False) for _ in range(30))

    def forward(self, x):
        for part in self.parts:
            x = x + 0.5 * part(x)
        return x


def _grown(deep: Model, of: type[torch.nn.Module]) -> torch.nn.Sequential:
    net = torch.nn.Sequential()
    for weight in deep.weights.values():
        layer = torch.nn.Linear(16, 16, bias=False)
        layer.weight.data = torch.tensor(weight, dtype=torch.float32)
        net.extend([layer, of()])
    return net


@pytest.mark.parametrize("kind", ["leaky", "hardswish", "sums", "a norm behind rectifiers"])
def test_whatever_grows_is_assumed_where_nothing_else_will_do(deep: Model, kind: str) -> None:
    torch.manual_seed(1)
    net = {
        "leaky": lambda: _grown(deep, torch.nn.LeakyReLU),
        "hardswish": lambda: _grown(deep, torch.nn.Hardswish),
        "sums": Added,
        "a norm behind rectifiers": lambda: torch.nn.Sequential(
            torch.nn.ReLU(), *list(_grown(deep, torch.nn.Identity))[:14], torch.nn.LayerNorm(16)
        ),
    }[kind]()
    x = torch.rand(8, 16) * 2 - 1
    model = from_torch(net, x)
    count = sum(isinstance(step.layer, Assumed) for step in model.architecture.steps)
    assert count == {"leaky": LAYERS, "hardswish": LAYERS, "sums": 30, "a norm behind rectifiers": 1}[kind]
    if kind in ("leaky", "hardswish"):
        # Of what they open anyway.
        steps = model.architecture.steps
        taken = [steps[step.inputs[0] - 1].layer for step in steps if isinstance(step.layer, Assumed)]
        assert all(isinstance(layer, Linear) for layer in taken)
    assert model.description.program((1, 16)).flagged
    with torch.no_grad():
        wanted = net.double()(x.double()).numpy()
    got = fixed_point_results(model, x[:1].double().numpy(), -1.0, 1.0).values
    assert np.abs(got - wanted[:1]).max() < 1e-2 * np.abs(wanted).max()


def test_an_interval_is_one() -> None:
    for interval in ((1.0, 1.0), (2.0, -2.0), (0.0, np.inf)):
        for kind in (ReLU, Assumed):
            with pytest.raises(UnsupportedError):
                kind(interval=interval)
