"""Deep networks among processes: right, as cheap as predicted, on several threads."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn as tn

from benchmarks.zoo import running
from nn import from_torch
from parties import Client, LocalCluster, Settings

SHAPE = (3, 32, 32)
INPUTS = 4


class Residual(tn.Module):
    """A basic block of a ResNet."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = tn.Conv2d(before, after, 3, stride, 1, bias=False), tn.Conv2d(after, after, 3, 1, 1)
        self.norm1, self.norm2 = tn.BatchNorm2d(after), tn.BatchNorm2d(after)
        self.way = tn.Identity() if before == after else tn.Conv2d(before, after, 1, stride)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.norm1(self.first(x)))
        return torch.relu(self.norm2(self.second(y)) + self.way(x))


class Inverted(tn.Module):
    """A block of a MobileNet: depthwise, between convolutions of single pixels."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        wide = 4 * before
        self.parts = tn.Sequential(
            tn.Conv2d(before, wide, 1, bias=False), tn.BatchNorm2d(wide), tn.ReLU6(),
            tn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), tn.BatchNorm2d(wide), tn.ReLU6(),
            tn.Conv2d(wide, after, 1, bias=False), tn.BatchNorm2d(after),
        )  # fmt: skip
        self.joined = stride == 1 and before == after

    def forward(self, x: Any) -> Any:
        return x + self.parts(x) if self.joined else self.parts(x)


def stem(channels: int) -> list[tn.Module]:
    return [tn.Conv2d(3, channels, 3, 1, 1, bias=False), tn.BatchNorm2d(channels), tn.ReLU(), tn.MaxPool2d(3, 2, 1)]


def head(channels: int) -> list[tn.Module]:
    return [tn.AdaptiveAvgPool2d(1), tn.Flatten(), tn.Linear(channels, 7)]


def resnet18() -> tn.Module:
    widths = [8, 8, 8, 16, 16, 32, 32, 64, 64]
    blocks = [Residual(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
    return tn.Sequential(*stem(8), *blocks, *head(64))


def mobilenet() -> tn.Module:
    widths = [8, 8, 12, 12, 16, 16]
    blocks = [Inverted(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
    return tn.Sequential(*stem(8), *blocks, *head(16))


@pytest.mark.slow
@pytest.mark.parametrize("make", [resnet18, mobilenet])
def test_a_deep_network_among_processes(make: Any) -> None:
    torch.manual_seed(1)
    net = running.seasoned(make(), SHAPE)
    model = from_torch(net, running.noise(16, SHAPE))
    images = running.noise(INPUTS, SHAPE).numpy().astype(np.float64)
    with torch.no_grad():
        wanted = net.double()(torch.tensor(images)).numpy()
    cost = model.cost((1, *SHAPE), low=-running.LARGEST, high=running.LARGEST)
    settings = Settings(threads=2, peer_timeout=running.PATIENCE, round_timeout=300.0)
    with LocalCluster(2, settings=settings) as cluster, Client(cluster) as client:
        stored = client.upload(model, name="deep")
        for image, want in zip(images, wanted, strict=True):
            got = client.reveal(stored(client.share(image[None], low=-running.LARGEST, high=running.LARGEST)))
            run = client.last_run
            assert run is not None
            assert run.in_range is not False
            assert (run.online.rounds, run.online.bytes) == (cost.online_rounds, cost.online_bytes_per_party)
            assert np.abs(got - want).max() < 1e-2 * np.abs(wanted).max()
            assert got.argmax() == want.argmax()
