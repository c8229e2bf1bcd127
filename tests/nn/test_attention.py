"""Attention: the parties' result, the plain reference and torch agree; what is masked has no part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

import nn
from mpc.errors import ShapeError, UnsupportedError
from nn import Architecture, Model, Step, from_torch


class Attends(tn.Module):
    """Of its input, in one of several ways."""

    def __init__(self, forward: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.attention = tn.MultiheadAttention(4, 2, batch_first=True)
        self.how = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.how(self, x)


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "function": lambda m, x: F.scaled_dot_product_attention(x, x, x),
    "causal": lambda m, x: F.scaled_dot_product_attention(x, x * 2.0, x, is_causal=True, scale=0.3),
    "module": lambda m, x: m.attention(x, x, x, need_weights=False)[0],
    "both results": lambda m, x: x + m.attention(x, x * 2.0, x + 1.0)[0],
}
MODULES: dict[str, Callable[[], tn.Module]] = {
    **{name: (lambda way=way: Attends(way)) for name, way in WAYS.items()},  # type: ignore[misc]
    "encoder layer": lambda: tn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    "norm first": lambda: tn.TransformerEncoderLayer(
        4, 2, 8, activation="gelu", batch_first=True, norm_first=True, bias=False
    ),
    "taken apart": lambda: tn.TransformerEncoderLayer(4, 2, 8, activation=F.mish, batch_first=True),
    "encoder": lambda: tn.TransformerEncoder(
        tn.TransformerEncoderLayer(4, 2, 4, batch_first=True), 2, tn.LayerNorm(4), enable_nested_tensor=False
    ),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "taken apart" else []) for name in sorted(MODULES)]
)
@pytest.mark.filterwarnings("ignore")
def test_parties_plain_and_torch_agree(name: str, evaluate: Any) -> None:
    torch.manual_seed(1)
    module = MODULES[name]().double().eval()
    x = np.round(np.random.default_rng(2).uniform(-2, 2, (2, 3, 4)) * 2**16) / 2**16
    model = from_torch(module, torch.tensor(x))
    assert any(isinstance(step.layer, nn.ScaledDotProductAttention) for step in model.architecture.steps)
    wanted = module(torch.tensor(x)).detach().numpy()
    assert np.abs(model.plain(x, exact=True) - wanted).max() < 1e-9
    assert np.abs(evaluate(model, x, 2, bound=2.0).result - wanted).max() <= 5e-3


REFUSED: dict[str, tuple[Callable[[], tn.Module], str]] = {
    "batch second": (lambda: tn.TransformerEncoderLayer(4, 2, 8), "batch_first=True"),
    "dropout": (lambda: Attends(lambda m, x: F.scaled_dot_product_attention(x, x, x, None, 0.5)), "self.training"),
    "what has no layer": (lambda: tn.TransformerEncoderLayer(4, 2, 8, activation=torch.tan, batch_first=True), "gelu"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(REFUSED))
@pytest.mark.filterwarnings("ignore")
def test_what_is_refused_says_what_to_do(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(UnsupportedError, match=said):
        from_torch(make().eval(), torch.rand(2, 3, 4))


def test_what_is_masked_has_no_part(secure: Any) -> None:
    x = np.round(np.random.default_rng(0).uniform(-8, 8, (4, 5)) * 2**16) / 2**16
    seen = np.tri(4, 5, 1)
    wanted = np.exp(x) * seen / (np.exp(x) * seen).sum(axis=1, keepdims=True)
    secure.check(lambda s: s.softmax(-1, where=seen), x, reference=lambda _: wanted, error=1e-5, low=-8.0, high=8.0)
    for wrong in (np.zeros(5), np.ones(4)):
        with pytest.raises(ShapeError):
            secure.secret((4, 5)).softmax(-1, where=wrong)
    with pytest.raises(UnsupportedError):
        secure.secret((4, 5)).softmax(-1, where=np.full(5, 0.5))


def test_more_scores_than_there_can_be_are_refused_at_once(secure: Any) -> None:
    long = secure.secret((1, 2**20, 1))
    with pytest.raises(ShapeError, match="elements"):
        nn.ScaledDotProductAttention(is_causal=True).forward(long, long, long, weights={})


def test_the_batch_is_not_mixed() -> None:
    layer = nn.ScaledDotProductAttention()
    for shapes in (((2, 3), (2, 3), (2, 3)), ((2, 3, 4), (2, 3, 5), (2, 3, 4))):
        steps = [Step(f"p{i}", nn.Parameter(shape), ()) for i, shape in enumerate(shapes[1:])]
        model = Model(
            Architecture((*steps, Step("a", layer, (0, 1, 2)))), {f"p{i}": np.ones(s) for i, s in enumerate(shapes[1:])}
        )
        with pytest.raises(ShapeError):
            model.plain(np.ones(shapes[0]))
    with pytest.raises(UnsupportedError):
        nn.ScaledDotProductAttention(scale=-1.0)
