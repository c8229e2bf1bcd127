"""What networks lose: whoever puts one together is warned of it, and who imports one has it measured."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn as tn

import tessera as ts
from mpc import fixed_point
from mpc.operation import Input
from nn import Model, calibrate, from_torch
from nn.activations import GELU, Sigmoid, SiLU, Tanh
from nn.architecture import Sequential
from nn.importing.fixed import fixed_point_results
from nn.layers import Linear
from nn.rectifiers import ReLU
from parties import Client, MemoryCluster
from protocols.lowering.plan import plan
from protocols.lowering.planner import usual_bits
from protocols.lowering.precision import LOST, watch_layers
from protocols.readings.memory import MemoryStore, run_in_memory
from protocols.trace.secret_tensor import graph_of, leaf

ACTIVATIONS = (Sigmoid, Tanh, SiLU, ReLU, GELU)


def network(seed: int) -> tuple[Model, np.ndarray]:
    """Of one to four layers, with weights and inputs of any size, and inputs of it."""
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.choice([2, 5, 20, 80], rng.integers(2, 6))]
    size, layers, weights = 10.0 ** rng.uniform(-4, 4), {}, {}
    for k, (n, m) in enumerate(itertools.pairwise(sizes)):
        gain = 10.0 ** rng.uniform(-1, 1) / (1.0 if k else size)
        layers |= {f"fc{k}": Linear(n, m), f"act{k}": ACTIVATIONS[rng.integers(len(ACTIVATIONS))]()}
        weights |= {f"fc{k}.weight": rng.normal(size=(m, n)) * gain / n**0.5, f"fc{k}.bias": rng.normal(size=m) * 0.1}
    model, x = Model(Sequential(layers).architecture((sizes[0],)), weights), rng.uniform(-size, size, (20, sizes[0]))
    return (calibrate(model, x)[0] if rng.random() < 0.5 else model), x


def lost(model: Model, x: np.ndarray) -> tuple[float, bool]:
    """What is seen, as a part of the range of the results, and whether anybody was warned."""
    most = float(np.abs(x).max())
    bits = usual_bits(-most, most)
    y = model.forward(leaf(Input(x.shape, bits, -most, most)), model.description.stored("model"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        watch_layers(y.node)
    store = MemoryStore("model", model.encode(), 2)
    (out,) = run_in_memory(plan(graph_of([y])), [fixed_point.encode(x, bits)], store=store).outputs
    off = np.abs(fixed_point.decode(out, y.type.fraction_bits) - model.plain(x, exact=True)).max()
    assert off <= y.error.absolute
    return float(off / y.type.magnitude), any(issubclass(each.category, ts.PrecisionWarning) for each in said)


@pytest.mark.parametrize("seed", [14, 32, 56, *(pytest.param(n, marks=pytest.mark.slow) for n in range(100, 250))])
def test_what_a_network_loses_is_warned_of(seed: int) -> None:
    seen, said = lost(*network(seed))
    assert said or seen <= LOST


@pytest.mark.sampled(3)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("act", [tn.SiLU, tn.Tanh])
def test_a_network_that_was_compared_is_quiet(seed: int, act: type[tn.Module]) -> None:
    """Five layers, whose bound says nothing: it was measured."""
    torch.manual_seed(seed)
    layers = [layer for _ in range(4) for layer in (tn.Linear(16, 16), act())]
    net = tn.Sequential(*layers, tn.Linear(16, 3)).double()
    x = np.random.default_rng(seed).uniform(-1, 1, (64, 16))
    with warnings.catch_warnings(), MemoryCluster(parties=2) as cluster, Client(cluster) as client:
        warnings.simplefilter("error", ts.PrecisionWarning)
        model = from_torch(net, x)
        assert model.interface.compared
        remote = client.upload(model, "net")
        assert remote.description.interface.compared
        got = client.predict(remote, x[:4])
    results = fixed_point_results(model, x[:4], -1.0, 1.0)
    assert np.abs(got - net(torch.tensor(x[:4])).detach().numpy()).max() <= LOST * results.magnitude


def test_what_was_measured_to_be_much_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = tn.Sequential(tn.Linear(64, 8), tn.Tanh()).double(), np.random.default_rng(0).uniform(-10, 10, (32, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_torch(net, x)
    monkeypatch.setattr("nn.importing.compared.LOST", 1e-7)
    with pytest.warns(
        ts.PrecisionWarning, match="in fixed-point numbers, results .* differ by .*: scale inputs"
    ) as said:
        from_torch(net, x)
    assert [each.filename for each in said] == [__file__]


class Power(tn.Module):
    def __init__(self, exponent: int) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x**self.exponent


def test_most_is_lost_of_the_largest_results_which_need_not_be_the_first() -> None:
    """Powers of powers of small values: of the first sample nothing is left, which is little of the largest result."""
    net = tn.Sequential(Power(3), Power(2), tn.Tanh())
    x = np.random.default_rng(0).uniform(-0.3, 0.3, (8, 3))
    with pytest.raises(ts.DiffersFromSource, match="the first to differ in fixed-point numbers"):
        from_torch(net, np.concatenate([x / 4, x]))


def test_what_others_may_lose_beyond_the_tolerance_is_warned_of() -> None:
    """Of what tanh can be, 3e-5 is nothing, and it is a good part of what it is here."""
    net, x = tn.Sequential(Power(2), tn.Tanh()), np.random.default_rng(0).uniform(-0.1, 0.1, (64, 3))
    with pytest.warns(ts.PrecisionWarning, match="more than 1/4 of that, which others may exceed"):
        from_torch(net, x)


def test_who_puts_one_together_is_warned() -> None:
    model, x = network(14)
    assert lost(model, x)[1]
    assert not model.interface.compared
