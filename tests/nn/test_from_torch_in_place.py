"""Random forwards that change tensors under several names come over as torch's memory has them, or are refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

from mpc.errors import UnsupportedError
from nn import from_torch

NAMES = 3


class Program(tn.Module):
    """Some steps on a few names for tensors; the result is of all of them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.fc = tn.Linear(4, 4)
        self.act = tn.Tanh()
        self.silu = tn.SiLU(inplace=True)
        self.nothing = tn.Sequential(tn.Identity(), tn.Dropout(0.5))
        self.register_buffer("offset", torch.linspace(-1, 1, 4))
        choose = random.Random(seed)
        self.steps = [
            (choose.choice(STEPS), *(choose.randrange(NAMES) for _ in range(3))) for _ in range(choose.randint(3, 9))
        ]

    def forward(self, x):
        r = [x] * NAMES
        for step, i, j, k in self.steps:
            step(self, r, i, j, k)
        return r[0] + 2 * r[1] - r[2]


def named_again(net, r, i, j, k):
    r[i] = r[j]


def added(net, r, i, j, k):
    r[i] = r[j] + r[k]


def layer(net, r, i, j, k):
    r[i] = net.act(net.fc(r[j]))


def nothing(net, r, i, j, k):
    r[i] = F.dropout(net.nothing(r[j]), 0.5, net.training)


def view(net, r, i, j, k):
    r[i] = r[j].view(-1, 4)


def flat(net, r, i, j, k):
    r[i] = torch.flatten(r[j], 1)


def detached(net, r, i, j, k):
    r[i] = r[j].detach().contiguous()


def copied(net, r, i, j, k):
    r[i] = r[j].clone()


def increased(net, r, i, j, k):
    r[i] += 0.25


def scaled(net, r, i, j, k):
    r[i] *= 0.5


def joined(net, r, i, j, k):
    r[i] += r[j]


def by_a_buffer(net, r, i, j, k):
    r[i].sub_(net.offset).mul_(0.75)


def activated(net, r, i, j, k):
    net.silu(r[i])


def activated_by_a_function(net, r, i, j, k):
    r[j] = F.silu(r[i], True)


def written(net, r, i, j, k):
    torch.mul(r[j], 0.5, out=r[i])


STEPS = (
    named_again, added, layer, nothing, view, flat, detached, copied, increased, scaled, joined, by_a_buffer, activated,
    activated_by_a_function, written,
)  # fmt: skip


def is_right(seed: int) -> bool:
    """Whether the program of that seed came over; what is refused is refused for what it changes in place."""
    torch.manual_seed(seed)
    net, x = Program(seed).eval(), torch.rand(3, 4) * 2 - 1
    try:
        model = from_torch(net, example_input=x)
    except UnsupportedError as error:
        assert "in place" in str(error) or "out=" in str(error)
        return False
    given = x.numpy().copy()
    with torch.no_grad():
        want = net(x).numpy()
    assert np.abs(model.plain(given, exact=True) - want).max() < 1e-5 * max(1.0, np.abs(want).max()), net.steps
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(60, 1000), marks=pytest.mark.slow)], ids=str)
def test_random_programs(seeds: range) -> None:
    right = sum(map(is_right, seeds))
    assert len(seeds) // 4 < right < len(seeds)
