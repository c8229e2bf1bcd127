"""Networks at random, three to six layers deep, each beside itself in float64: right, or refused with its layer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn as tn

from mpc.errors import TesseraError
from nn import from_torch
from nn.importing.fixed import fixed_point_results

RIGHT = 1e-2
"""Of the results' scale, in the numbers that parties compute with."""


class Residual(tn.Module):
    def __init__(self, inner: tn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.inner(x)
        return result


class Excited(tn.Module):
    """By a gate for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = tn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Joined(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.inner(x)], 1)


class Shape(NamedTuple):
    channels: int
    size: int


ACTIVATIONS: tuple[Callable[[], tn.Module], ...] = (
    tn.ReLU, tn.ReLU6, tn.LeakyReLU, tn.ELU, tn.SELU, tn.CELU, tn.PReLU, tn.Hardtanh, tn.Hardsigmoid, tn.Hardswish,
    tn.Softshrink, tn.Hardshrink, tn.Sigmoid, tn.Tanh, tn.SiLU, tn.GELU, tn.Softplus, tn.Mish, tn.LogSigmoid,
    tn.Softsign,
)  # fmt: skip


def _layer(draw: np.random.Generator, c: int, size: int) -> tuple[tn.Module, Shape]:
    """One, and what it gives."""
    of = 2 * int(draw.integers(1, 5))
    choices: list[tuple[Callable[[], tn.Module], Shape]] = [
        (lambda: tn.Conv2d(c, of, 3, padding=1), Shape(of, size)),
        (lambda: tn.Conv2d(c, 2 * c, 3, padding=1, groups=c, bias=False), Shape(2 * c, size)),
        (lambda: tn.Conv2d(c, of, 3, padding=2, dilation=2, padding_mode="circular"), Shape(of, size)),
        (lambda: tn.BatchNorm2d(c), Shape(c, size)),
        (lambda: tn.GroupNorm(1, c), Shape(c, size)),
        (lambda: tn.InstanceNorm2d(c, affine=True), Shape(c, size)),
        (lambda: Residual(tn.Sequential(tn.Conv2d(c, c, 3, padding=1), tn.SiLU())), Shape(c, size)),
        (lambda: Excited(c), Shape(c, size)),
        (lambda: Joined(tn.Conv2d(c, of, 1)), Shape(c + of, size)),
        (lambda: tn.Softmax(1), Shape(c, size)),
    ]
    if size >= 4:
        half = size // 2
        choices += [
            (lambda: tn.MaxPool2d(3, 2, 1), Shape(c, half)),
            (lambda: tn.AvgPool2d(2), Shape(c, half)),
            (lambda: tn.AdaptiveAvgPool2d(half), Shape(c, half)),
            (lambda: tn.PixelUnshuffle(2), Shape(4 * c, half)),
        ]
    else:
        choices += [
            (lambda: tn.Upsample(scale_factor=2, mode="bilinear"), Shape(c, 2 * size)),
            (lambda: tn.ConvTranspose2d(c, of, 2, 2), Shape(of, 2 * size)),
        ]
    make, shape = choices[int(draw.integers(len(choices)))]
    return make(), shape


def _network(seed: int) -> tuple[tn.Module, torch.Tensor]:
    """In evaluation mode, and samples for it."""
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    shape = given = Shape(int(draw.integers(1, 4)), int(draw.choice([4, 8])))
    parts: list[tn.Module] = []
    for _ in range(int(draw.integers(3, 7))):
        part, shape = _layer(draw, *shape)
        parts += [part, ACTIVATIONS[int(draw.integers(len(ACTIVATIONS)))]()][: int(draw.integers(1, 3))]
    if draw.integers(2):
        parts += [tn.Flatten(), tn.Linear(shape.channels * shape.size**2, 3)]
    net = tn.Sequential(*parts)
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, tn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                norm.running_mean.normal_(0, 0.3)
                norm.running_var.uniform_(0.5, 2)
    return net.double().eval(), torch.randn(16, given.channels, given.size, given.size).clamp(-2, 2).double()


@pytest.mark.sampled(12)
@pytest.mark.parametrize("seed", range(48))
def test_a_composition_is_right_or_refused(seed: int) -> None:
    net, x = _network(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = from_torch(net, x)
        except TesseraError as error:
            assert re.search(r"layer '|Sequential|'\w+' in forward", str(error)), error
            return
        others = 0.97 * x.flip(0)[:3]
        with torch.no_grad():
            wanted = net(others).numpy()
        got = fixed_point_results(model, others.numpy(), float(x.min()), float(x.max())).values
    assert np.abs(got.reshape(wanted.shape) - wanted).max() <= RIGHT * np.abs(wanted).max()
