"""Layers that divide by a norm: the parties' result, the plain reference and torch agree, whatever the variance."""

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
from nn import Architecture, Layer, Model, Step, from_torch
from nn.importing.fixed import fixed_point_results

CASES: list[tuple[Layer, tn.Module, tuple[int, ...]]] = [
    (nn.LayerNorm((6,)), tn.LayerNorm(6), (3, 6)),
    (nn.LayerNorm((2, 5), 0.01), tn.LayerNorm((2, 5), 0.01), (2, 3, 2, 5)),
    (nn.LayerNorm((6,), bias=False), tn.LayerNorm(6, bias=False), (3, 6)),
    (nn.LayerNorm((6,), 1e-5, False, False), tn.LayerNorm(6, elementwise_affine=False), (3, 4, 6)),
    (nn.RMSNorm((6,), 1e-5), tn.RMSNorm(6, 1e-5), (3, 6)),
    (nn.RMSNorm((6,), 1e-3, False), tn.RMSNorm(6, 1e-3, elementwise_affine=False), (3, 6)),
    (nn.GroupNorm(2, 6), tn.GroupNorm(2, 6), (2, 6, 3, 2)),
    (nn.GroupNorm(6, 6, 0.1, False), tn.GroupNorm(6, 6, 0.1, False), (2, 6, 4)),
    (nn.InstanceNorm1d(3), tn.InstanceNorm1d(3), (2, 3, 5)),
    (nn.InstanceNorm2d(3, 1e-3, True), tn.InstanceNorm2d(3, 1e-3, affine=True), (2, 3, 2, 3)),
    (nn.InstanceNorm3d(2), tn.InstanceNorm3d(2), (2, 2, 2, 2, 2)),
    (nn.BatchNorm2d(3, affine=False), tn.InstanceNorm2d(3, track_running_stats=True), (2, 3, 2, 3)),
    (nn.BatchNorm3d(2), tn.InstanceNorm3d(2, affine=True, track_running_stats=True), (2, 2, 2, 2, 2)),
]


def trained(module: tn.Module) -> tn.Module:
    """With weights and statistics of their own."""
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return module.double().eval()


def values(shape: tuple[int, ...], rng: Any) -> Any:
    """Each image of another size: the first of 8, the last of a hundredth."""
    sizes = np.geomspace(8.0, 0.01, shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    return np.round(rng.uniform(-1, 1, shape) * sizes * 2**16) / 2**16


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("layer", "module", "shape"), CASES, ids=lambda v: repr(v) if isinstance(v, Layer) else "")
def test_parties_plain_and_torch_agree(
    layer: Layer, module: tn.Module, shape: tuple[int, ...], rng: Any, evaluate: Any
) -> None:
    x, module = values(shape, rng), trained(module)
    model = from_torch(module, torch.tensor(x))
    assert [step.layer for step in model.architecture.steps] == [layer]
    wanted = module(torch.tensor(x)).detach().numpy()
    assert np.abs(model.plain(x) - wanted).max() < 1e-12
    found = evaluate(model, x, 2, bound=8.0)
    assert np.abs(found.result - wanted).max() <= 2e-4


def test_the_epsilon_of_a_norm_that_has_none_is_that_of_its_numbers(rng: Any, evaluate: Any) -> None:
    module, x = tn.RMSNorm(6), values((3, 6), rng)
    model = from_torch(module, torch.tensor(x, dtype=torch.float32))
    assert model.architecture.steps[0].layer == nn.RMSNorm((6,), 2.0**-23)
    wanted = module(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    assert np.abs(evaluate(model, x, 2, bound=8.0).result - wanted).max() <= 2e-4


FUNCTIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "layer_norm": lambda x, w, b: F.layer_norm(x, (6,)),
    "layer_norm of weights": lambda x, w, b: F.layer_norm(x, x.shape[-1:], w, b, eps=1e-3),
    "layer_norm by name": lambda x, w, b: F.layer_norm(x, normalized_shape=[6], weight=w),
    "group_norm": lambda x, w, b: F.group_norm(x, 2),
    "group_norm of weights": lambda x, w, b: F.group_norm(x, 3, w, b),
    "rms_norm": lambda x, w, b: F.rms_norm(x, (6,), w, eps=1e-4),
    "instance_norm": lambda x, w, b: F.instance_norm(x.reshape(-1, 2, 3)).flatten(1),
    "normalize": lambda x, w, b: F.normalize(x) + F.normalize(x, p=2.0, dim=-1),
    "norm": lambda x, w, b: x * x.norm(dim=1, keepdim=True) - torch.norm(x, 1, dim=-1, keepdim=True),
    "vector_norm": lambda x, w, b: x + torch.linalg.vector_norm(x, float("inf"), dim=1, keepdim=True),
    "cosine_similarity": lambda x, w, b: F.cosine_similarity(x, x * x, dim=1),
    "similarity by name": lambda x, w, b: F.cosine_similarity(x, x2=x + 1.0),
    "of a weight": lambda x, w, b: x * F.layer_norm(w, (6,)),
}


class Calls(tn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.similar = function, tn.CosineSimilarity()
        self.weight, self.bias = tn.Parameter(torch.rand(6) + 0.5), tn.Parameter(torch.rand(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x, self.weight, self.bias)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.filterwarnings("ignore")
def test_functions_are_imported(name: str, rng: Any, evaluate: Any) -> None:
    module, x = Calls(FUNCTIONS[name]).double(), values((3, 6), rng)
    wanted = module(torch.tensor(x)).detach().numpy()
    model = from_torch(module, torch.tensor(x))
    assert np.abs(model.plain(x) - wanted).max() < 1e-12
    assert np.abs(evaluate(model, x, 2, bound=8.0).result - wanted).max() <= 1e-3


def test_a_module_of_two_tensors() -> None:
    class Net(tn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.similar = tn.CosineSimilarity(dim=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.similar(x, x * 2.0 + 1.0)

    x = torch.rand(3, 4)
    assert from_torch(Net(), x).plain(x.numpy()) == pytest.approx(Net()(x).numpy(), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_what_would_mix_the_batch_or_is_not_known_is_refused() -> None:
    for function in (
        lambda x, w, b: F.normalize(x, dim=0), lambda x, w, b: x * x.norm(), lambda x, w, b: F.normalize(x, p=3.0),
        lambda x, w, b: F.layer_norm(x, (6,), x[0]),
        lambda x, w, b: torch.linalg.vector_norm(x, 3, dim=1),
    ):  # fmt: skip
        with pytest.raises(UnsupportedError):
            from_torch(Calls(function), torch.rand(3, 6))
    for layer, shape in (
        (nn.LayerNorm((3, 6)), (3, 6)),
        (nn.GroupNorm(2, 6), (2, 4)),
        (nn.InstanceNorm2d(2), (2, 2, 3)),
        (nn.Normalize((2,)), (2, 3)),
    ):
        with pytest.raises(ShapeError):
            layer.plain(np.zeros(shape), weights={})
    with pytest.raises(UnsupportedError, match="groups"):
        nn.GroupNorm(4, 6)
    with pytest.raises(ShapeError, match="no dimension 2"):
        nn.CosineSimilarity(2).plain(np.ones((2, 3)), np.ones((2, 3)), weights={})
    both = Architecture((Step("p", nn.Parameter((3, 6)), ()), Step("s", nn.CosineSimilarity(), (0, 1))))
    with pytest.raises(ShapeError, match="mix"):
        Model(both, {"p": np.ones((3, 6))}).plain(np.ones((3, 6)))


class Deviating(torch.nn.Module):
    """By the deviation of products, which have more digits than a root leaves room for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(x) * torch.sigmoid(x)
        return y / (y.std(-1, keepdim=True) + 0.5)


def test_what_a_root_is_taken_of_is_cut_to_the_digits_that_count() -> None:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)).clamp(-2, 2).double()
    model = from_torch(Deviating().double(), x)
    wanted = Deviating()(x).numpy()
    assert np.abs(fixed_point_results(model, x.numpy(), -2.0, 2.0).values - wanted).max() < 1e-3 * np.abs(wanted).max()
