"""Networks of many layers, narrow ones: the worst case outgrows the field, or says nothing; results are right, or there
is no answer."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

import tessera as ts
from mpc.errors import UnsupportedError
from nn import (
    GELU,
    Add,
    Affine,
    Architecture,
    Linear,
    LogSoftmax,
    Model,
    Multiply,
    Polynomial,
    ReLU,
    ScaledDotProductAttention,
    Softmax,
    Step,
    Tanh,
    from_torch,
)
from nn.assuming import assuming
from nn.importing.fusing import fused

LAYERS = 12
TOKENS, WIDTH = 6, 16
SHAPES = {"encoder": (TOKENS, WIDTH), "decoder": (TOKENS, WIDTH), "residual": (4, 4, 4)}


class Decoder(tn.Module):
    """A layer of GPT-2's kind: norms first, each token sees those before it, GELU by its formula."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = tn.LayerNorm(WIDTH), tn.LayerNorm(WIDTH)
        self.qkv, self.joined = tn.Linear(WIDTH, 3 * WIDTH), tn.Linear(WIDTH, WIDTH)
        self.wide, self.narrow = tn.Linear(WIDTH, 2 * WIDTH), tn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(self.norm1(x)).split(WIDTH, 2)
        q, k, v = (each.view(-1, TOKENS, 2, WIDTH // 2).transpose(1, 2) for each in (q, k, v))
        seen = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = x + self.joined(y.transpose(1, 2).reshape(-1, TOKENS, WIDTH))
        y = self.wide(self.norm2(x))
        gelu = 0.5 * y * (1.0 + torch.tanh(0.7978845608028654 * (y + 0.044715 * torch.pow(y, 3.0))))
        return x + self.narrow(gelu)


class Bottleneck(tn.Module):
    """A block of a ResNet of many layers: three convolutions beside nothing at all."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = tn.Sequential(
            tn.Conv2d(4, 2, 1), tn.BatchNorm2d(2), tn.ReLU(), tn.Conv2d(2, 2, 3, padding=1), tn.BatchNorm2d(2),
            tn.ReLU(), tn.Conv2d(2, 4, 1), tn.BatchNorm2d(4),
        )  # fmt: skip

    def forward(self, x: Any) -> Any:
        return torch.relu(x + self.parts(x))


class Stack(tn.Module):
    """Layers one after the other, in a class of its own."""

    def __init__(self, layer: Callable[[], tn.Module], count: int) -> None:
        super().__init__()
        self.layers = tn.ModuleList(layer() for _ in range(count))
        self.head = tn.Linear(WIDTH, 3)

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.flatten(1)[:, :WIDTH])


def encoder_layer() -> tn.Module:
    return tn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, activation="gelu", batch_first=True)


MAKERS: dict[str, Callable[[], tn.Module]] = {
    "encoder": lambda: Stack(encoder_layer, LAYERS),
    "decoder": lambda: Stack(Decoder, LAYERS),
    "residual": lambda: Stack(Bottleneck, 3 * LAYERS),
}


def imported(kind: str) -> tuple[tn.Module, Model, torch.Tensor]:
    """Network, model, and samples that it was made with."""
    torch.manual_seed(1)
    net = MAKERS[kind]().double().eval()
    samples = torch.rand(4, *SHAPES[kind], dtype=torch.float64) * 2 - 1
    return net, from_torch(net, samples), samples


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_what_is_deep_is_right_and_warns_of_nothing(kind: str) -> None:
    net, model, samples = imported(kind)
    assert model.interface.compared
    layers = model.architecture.layers.values()
    assert all(x.is_causal == (kind == "decoder") for x in layers if isinstance(x, ScaledDotProductAttention))
    assert (kind != "residual") or all(x.interval for x in layers if isinstance(x, ReLU)), "the worst case does not fit"
    with ts.MemoryCluster(2) as cluster, ts.Client(cluster) as client, warnings.catch_warnings():
        warnings.simplefilter("error", ts.PrecisionWarning)
        remote = client.upload(model, "deep")
        wanted = net(samples[:2]).detach().numpy()
        assert np.abs(client.predict(remote, samples[:2].numpy()) - wanted).max() < 2e-3 * np.abs(wanted).max()
        bound = remote(client.share(samples[:1].numpy())).error
    assert bound.relative <= 2.01, "no more than what there is"


def test_scores_are_assumed_to_be_near_their_mean_and_else_there_is_no_answer(rng: Any) -> None:
    """In attention, causal or not, and a softmax: as far as samples show and twice that, but no further than can be."""
    steps = (
        Step("both", ScaledDotProductAttention(), (0, 0, 0)),
        Step("causal", ScaledDotProductAttention(is_causal=True), (0, 0, 0)),
        Step("sum", Add(), (1, 2)),
        Step("soft", Softmax(-1), (3,)),
        Step("weighed", Linear(4, 4, bias=False), (4,)),
    )
    model = Model(Architecture(steps, (5, 4)), {"weighed.weight": rng.normal(size=(4, 4))})
    samples = rng.uniform(-1, 1, (8, 5, 4))
    made = assuming(model, samples, after=[])
    assert [made.architecture.layers[n].reach for n in ("both", "causal", "soft")] == [2.5, 2.0, 3.75]  # type: ignore[union-attr]
    assert np.array_equal(made.plain(samples), model.plain(samples))
    assert assuming(model, samples * 8, after=[]).architecture.layers["both"].reach is None  # type: ignore[union-attr]
    with ts.MemoryCluster(2) as cluster, ts.Client(cluster) as client:
        remote = client.upload(made, "attention")
        found = client.predict(remote, np.concatenate([samples[:2], samples[:1] * 3]), low=-3.0, high=3.0)
        rounds = client.last_run.online.rounds  # type: ignore[union-attr]
        client.predict(client.upload(model, "exact"), samples[:1], low=-3.0, high=3.0)
        assert rounds < client.last_run.online.rounds  # type: ignore[union-attr]
    assert np.abs(found[:2] - model.plain(samples[:2])).max() < 1e-3
    assert np.isnan(found[2]).all()


def test_a_reach_is_one() -> None:
    for reach in (0.0, -1.0, 9.0, np.nan):
        for kind in (Softmax, ScaledDotProductAttention):
            with pytest.raises(UnsupportedError):
                kind(reach=reach)
    with pytest.raises(UnsupportedError):
        LogSoftmax(reach=1.0)


def test_what_is_written_as_a_formula_is_one_layer() -> None:
    """Whichever way round; what else takes a part of it keeps that."""
    formula = [
        Step("half", Affine(0.5, 0.0), (0,)), Step("cube", Polynomial((0.0, 0.0, 0.0, 1.0)), (0,)),
        Step("small", Affine(0.044715, 0.0), (2,)), Step("sum", Add(), (3, 0)),
        Step("scaled", Affine(math.sqrt(2 / math.pi), 0.0), (4,)), Step("tanh", Tanh(), (5,)),
        Step("more", Affine(1.0, 1.0), (6,)), Step("gelu", Multiply(), (7, 1)),
    ]  # fmt: skip
    assert fused(formula) == [Step("gelu", GELU(approximate="tanh"), (0,))]
    also = [*formula, Step("both", Add(), (8, 6))]
    assert [step.name for step in fused(also)] == ["cube", "small", "sum", "scaled", "tanh", "gelu", "both"]
    x = np.linspace(-4, 4, 33).reshape(1, -1)
    model, whole = (Model(Architecture(tuple(steps))) for steps in (also, fused(also)))
    assert np.abs(model.plain(x, exact=True) - whole.plain(x, exact=True)).max() < 1e-9
    other = [*formula[:2], Step("small", Affine(0.05, 0.0), (2,)), *formula[3:]]
    assert fused(other) == other
