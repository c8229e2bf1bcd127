"""What a layer is to a tensor depends on how many axes it has: a network is torch's on each image, or is refused."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn

from mpc.errors import ShapeError, TesseraError
from nn import Flatten, Linear, Model, Sequential, Sigmoid, from_torch
from nn.dimensions import Conv1d, Conv3d, ConvTranspose1d
from nn.layers import AvgPool2d, BatchNorm1d, BatchNorm2d, BatchNorm3d, Conv2d
from nn.transposed import ConvTranspose2d
from nn.transposed_volumes import ConvTranspose3d

C = 3
"""As often as can be, so that what belongs to another axis fits this one as well."""

SHAPES = ((C,), (C, C), (C, C, C), (2, C), (C, 2), (1,), (C, 1), (1, C), (C, 2, 2))


class Forward(tn.Module):
    def __init__(self, function: Callable[..., Any], *shape: int) -> None:
        super().__init__()
        self.function = function
        if shape:
            self.p = tn.Parameter(torch.rand(shape) + 0.5)

    def forward(self, x: Any) -> Any:
        return self.function(x, self.p) if hasattr(self, "p") else self.function(x)


def trained(norm: Any) -> Any:
    for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        values.uniform_(0.5, 2)
    return norm


MODULES: dict[str, Callable[[], tn.Module]] = {
    "a norm after a linear layer": lambda: tn.Sequential(tn.Linear(C, C), trained(tn.BatchNorm1d(C))),
    "two of them": lambda: tn.Sequential(
        tn.Linear(C, C), trained(tn.BatchNorm1d(C)), tn.Linear(C, C), trained(tn.BatchNorm1d(C)), tn.Linear(C, 2)
    ),
    "a norm of images after a linear layer": lambda: tn.Sequential(tn.Linear(C, C), trained(tn.BatchNorm2d(C))),
    "a norm after a convolution": lambda: tn.Sequential(tn.Conv2d(C, C, 1), trained(tn.BatchNorm2d(C))),
    "a norm alone": lambda: tn.Sequential(trained(tn.BatchNorm1d(C))),
    "flattened from an axis": lambda: tn.Sequential(tn.Flatten(1, 2)),
    "flattened from the end": lambda: tn.Sequential(tn.Flatten(-2, -1)),
    "flattened, then a norm": lambda: tn.Sequential(tn.Flatten(), tn.Linear(C * C, C), trained(tn.BatchNorm1d(C))),
    "pooled": lambda: tn.Sequential(tn.AdaptiveAvgPool2d(1), tn.Flatten(), tn.Linear(C, 2)),
    **{f"mean {d}": lambda d=d: Forward(lambda x: x.mean(d)) for d in (0, 1, -1, -2, -3)},  # type: ignore[misc]
    **{f"mean {d}, kept": lambda d=d: Forward(lambda x: x * x.mean(d, keepdim=True)) for d in (1, -1, -2)},  # type: ignore[misc]
    **{f"joined {d}": lambda d=d: Forward(lambda x: torch.cat([x, x * 2], d)) for d in (1, -1, -2, -3)},  # type: ignore[misc]
    "joined to a parameter": lambda: Forward(lambda x, p: torch.cat([x, p], 1), C, C),
    "permuted": lambda: Forward(lambda x: x.permute(0, 2, 1)),
    "permuted from the end": lambda: Forward(lambda x: x.permute(-2, -1, -3)),
    "reshaped": lambda: Forward(lambda x: x.reshape(x.size(0), -1)),
    "reshaped to what the batch was": lambda: Forward(lambda x: x.reshape(-1, C, 1)),
    "added to its mean": lambda: Forward(lambda x: x + x.mean(-1)),
    "times its mean": lambda: Forward(lambda x: x.flatten(1).mean(1) * x),
    "a linear layer of means": lambda: tn.Sequential(tn.Flatten(), Forward(lambda x: x.mean(1)), tn.Linear(C, 2)),
    "times itself": lambda: Forward(lambda x: x @ x),
    **{
        f"{name} {shape}": lambda shape=shape, function=function: Forward(function, *shape)  # type: ignore[misc]
        for shape in ((C,), (1, C), (C, C), (2, C), (2, 1, C), (1, C, C), (2, C, C), (1, C, 1, 1), (1, 1, 1, 1, C))
        for name, function in (
            ("less a parameter", lambda x, p: p - x),
            ("times a matrix", lambda x, p: x @ p),
            ("a matrix times it", lambda x, p: p @ x),
        )
    },
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", MODULES)
def test_a_network_is_torchs_on_each_image_or_is_refused(name: str) -> None:
    torch.manual_seed(0)
    module = MODULES[name]().eval().double()
    for example, shape in itertools.product((None, *SHAPES), SHAPES):
        if example not in (None, shape):
            continue
        try:
            model = from_torch(module, example_input=None if example is None else torch.rand(2, *example).double())
        except TesseraError:
            continue
        images = torch.rand(C, *shape).double()
        for batch in (images, images[:2], images[:1]):
            try:
                found = model.plain(batch.numpy(), exact=True)
            except TesseraError:
                continue
            wanted = torch.cat([module(image[None]) for image in batch]).detach().numpy()
            assert found.shape == wanted.shape, (example, shape)
            assert np.abs(found - wanted).max() < 1e-9, (example, shape)


def norm_folded(*layers: Any, shape: tuple[int, ...] | None = None) -> Model:
    net = Sequential(*layers, Linear(C, C), BatchNorm1d(C), Sigmoid()).architecture(shape)
    return Model(net, {name: np.ones(shape) for name, shape in net.parameters.items()}).fold()


def test_a_norm_whose_axis_is_not_known_refuses_what_it_may_be_wrong_of() -> None:
    model = norm_folded()
    assert model.plain(np.ones((2, C))).shape == (2, C)
    for shape in ((2, C, C), (2, C, C, C)):
        with pytest.raises(ShapeError, match=r"layer '1': a BatchNorm1d was folded .* give from_torch"):
            model.plain(np.ones(shape))
        with pytest.raises(ShapeError, match="folded"):
            model.description.program(shape)
    # Where it is known, nothing is left of it, or all.
    assert len(norm_folded(shape=(C,)).architecture.steps) == 2
    assert len(norm_folded(shape=(C, C)).architecture.steps) == 3


@pytest.mark.parametrize(
    "layers",
    [
        (Flatten(),),
        (Conv2d(C, C, 1), AvgPool2d(2), Sigmoid(), BatchNorm2d(C), Flatten()),
        (Flatten(), Linear(C, C), Sigmoid()),
        (Flatten(), Linear(C, C), BatchNorm1d(C)),
    ],
)
def test_layers_before_a_norm_tell_its_axis(layers: Any) -> None:
    assert [step.name for step in norm_folded(*layers).architecture.steps][-2:] == [
        str(len(layers)),
        str(len(layers) + 2),
    ]


@pytest.mark.parametrize("layers", [(Flatten(2),), (Linear(C, C), Flatten(-1)), (Sigmoid(),)])
def test_layers_that_do_not_tell(layers: Any) -> None:
    model = norm_folded(*layers)
    with pytest.raises(ShapeError):
        model.plain(np.ones((2, C, C)))


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (Conv1d(4, 6, 3, groups=2), BatchNorm1d(6), (4, 5)),
        (Conv2d(4, 6, 3), BatchNorm2d(6), (4, 5, 5)),
        (Conv3d(4, 6, 2, bias=False), BatchNorm3d(6), (4, 3, 3, 3)),
        (ConvTranspose1d(4, 6, 3, stride=2), BatchNorm1d(6), (4, 5)),
        (ConvTranspose2d(4, 6, 3, stride=2, groups=2), BatchNorm2d(6), (4, 3, 3)),
        (ConvTranspose3d(4, 6, 2, stride=2, groups=2), BatchNorm3d(6), (4, 2, 2, 2)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_norm_after_a_convolution_is_its_own(layer: Any, norm: Any, shape: Any) -> None:
    rng = np.random.default_rng(0)
    net = Sequential(layer, norm, Sigmoid()).architecture(shape)
    model = Model(net, {name: rng.uniform(0.5, 1.5, size) for name, size in net.parameters.items()})
    folded, x = model.fold(), rng.uniform(-1, 1, (2, *shape))
    assert [step.name for step in folded.architecture.steps] == ["0", "2"]
    np.testing.assert_allclose(folded.plain(x, exact=True), model.plain(x, exact=True), atol=1e-9)
