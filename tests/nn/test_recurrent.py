"""RNN, LSTM, GRU and their cells: parties, plain reference and torch agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn

import nn
from mpc.errors import ShapeError, UnsupportedError
from nn import Architecture, Layer, Model, Step, from_torch

pytestmark = pytest.mark.filterwarnings("ignore")


def model_of(layer: Layer, module: tn.Module) -> Model:
    weights = {f"it.{name}": w.detach().numpy() for name, w in module.state_dict().items()}
    return Model(Architecture((Step("it", layer, (0,)),)), weights)


LAYERS: list[tuple[Layer, tn.Module]] = [
    (nn.RNN(3, 2), tn.RNN(3, 2, batch_first=True)),
    (
        nn.RNN(3, 2, 2, False, True, nonlinearity="relu"),
        tn.RNN(3, 2, 2, "relu", bias=False, batch_first=True, bidirectional=True),
    ),
    (nn.LSTM(3, 2), tn.LSTM(3, 2, batch_first=True)),
    (nn.LSTM(3, 2, 2, bidirectional=True), tn.LSTM(3, 2, 2, batch_first=True, bidirectional=True)),
    (nn.GRU(3, 2, bias=False), tn.GRU(3, 2, bias=False, batch_first=True)),
    (nn.GRU(3, 2, 2, bidirectional=True), tn.GRU(3, 2, 2, batch_first=True, bidirectional=True)),
]


@pytest.mark.parametrize(("layer", "module"), LAYERS, ids=lambda v: repr(v) if isinstance(v, Layer) else "")
def test_plain_is_torch(layer: Any, module: tn.Module, rng: Any) -> None:
    """Outputs, and what is left of each layer and direction at the end."""
    x = rng.uniform(-1, 1, (4, 3, 3))
    output, last = module.double()(torch.tensor(x))
    model = model_of(layer, module)
    assert model.architecture.parameters == {f"it.{n}": tuple(w.shape) for n, w in module.state_dict().items()}
    assert np.abs(model.plain(x, exact=True) - output.detach().numpy()).max() < 1e-12
    kind = type(layer)
    options = {f: getattr(layer, f) for f in layer.__struct_fields__} | {"states": True}
    found = model_of(kind(**options), module).plain(x, exact=True)[:, 3:]
    ends = torch.cat(last if isinstance(last, tuple) else [last]).transpose(0, 1).detach().numpy()
    assert np.abs(found.reshape(ends.shape) - ends).max() < 1e-12


@pytest.mark.parametrize(("layer", "module"), [LAYERS[1], LAYERS[2], LAYERS[4]], ids=["RNN", "LSTM", "GRU"])
def test_parties_compute_it(layer: Any, module: tn.Module, rng: Any, evaluate: Any) -> None:
    x = rng.uniform(-1, 1, (2, 2, 3))
    found = evaluate(model_of(layer, module.double()), x)
    assert np.abs(found.result - module(torch.tensor(x))[0].detach().numpy()).max() < 2e-3


class Net(tn.Module):
    """Of all there is: sequences with the batch first or second, last states, and cells over steps."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = tn.LSTM(3, 2, 2, batch_first=True, bidirectional=True, dropout=0.3)
        self.gru = tn.GRU(4, 3)
        self.lstm_cell, self.gru_cell, self.cell = tn.LSTMCell(3, 2), tn.GRUCell(3, 2), tn.RNNCell(3, 2)

    def forward(self, x: Any) -> Any:
        every, (hidden, state) = self.lstm(x)
        _, last = self.gru(every.transpose(0, 1))
        h = c = g = r = None
        for t in range(2):
            h, c = self.lstm_cell(x[:, t], None if h is None else (h, c))
            g, r = self.gru_cell(x[:, t], g), self.cell(x[:, t], r)
        ends = [hidden[1], hidden[2], state[-1], last[-1]]
        return torch.cat([every.flatten(1), *ends, h, c, g, r], 1)


def test_networks_of_torch(rng: Any) -> None:
    net = Net().double().eval()
    x = torch.tensor(rng.uniform(-1, 1, (3, 4, 3)))
    model = from_torch(net, x)
    with torch.no_grad():
        wanted = net(x).numpy()
    assert np.abs(model.plain(x.numpy(), exact=True) - wanted).max() < 1e-12
    assert {type(step.layer).__name__ for step in model.architecture.steps} >= {"LSTM", "GRU", "Linear"}


@pytest.mark.slow
def test_a_sequence_with_the_batch_second_is_not_taken_for_one_with_the_batch_first(rng: Any) -> None:
    x = torch.tensor(rng.uniform(-1, 1, (3, 4, 3)))

    class First(tn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = tn.LSTM(3, 2)

        def forward(self, x: Any) -> Any:
            return self.lstm(x)[0]

    with pytest.raises(UnsupportedError, match="batch"):
        from_torch(First().double(), x)


class Stateful(tn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.first = tn.GRU(3, 2, batch_first=True), tn.Parameter(torch.ones(1, 1, 2))

    def forward(self, x: Any) -> Any:
        return self.gru(x, self.first.expand(1, len(x), 2).contiguous())[0]


class Projected(tn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = tn.LSTM(3, 4, proj_size=2, batch_first=True)

    def forward(self, x: Any) -> Any:
        return self.lstm(x)[0]


@pytest.mark.parametrize(("make", "reason"), [(Stateful, "first state"), (Projected, "projection")])
def test_what_is_not_supported(make: Any, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        from_torch(make(), torch.rand(3, 4, 3))


def test_arguments_and_shapes() -> None:
    for make in (lambda: nn.LSTM(0, 1), lambda: nn.GRU(1, 2**24), lambda: nn.RNN(1, 1, 2**20)):
        with pytest.raises(UnsupportedError):
            make()
    layer = nn.GRU(3, 2)
    weights = {name: np.zeros(shape) for name, shape in layer.parameters.items()}
    for shape in ((2, 3), (2, 0, 3), (2, 2, 4)):
        with pytest.raises(ShapeError):
            layer.plain(np.zeros(shape), weights=weights)
