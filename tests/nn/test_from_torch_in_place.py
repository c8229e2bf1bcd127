"""Random forwards that change tensors under several names come over as torch's memory has them, or are refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn as tn
from torch.nn import functional as F

from mpc.errors import UnsupportedError
from nn import Model, from_torch
from nn.architecture import Architecture
from nn.importing.aten import OPERATORS
from nn.importing.export_graph import exported

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
@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(30, 1000), marks=pytest.mark.slow)], ids=str)
def test_random_programs(seeds: range) -> None:
    right = sum(map(is_right, seeds))
    assert len(seeds) // 4 < right < len(seeds)


class Ending(tn.Module):
    """Some network of what is the module's own, and something after it."""

    def __init__(self, net, of) -> None:
        super().__init__()
        self.net, self.of = net, of

    def forward(self, x):
        return self.of(self.net(x + 0))


def is_right_exported(seed: int) -> bool:
    """The same of what torch.export makes of it, which knows some names for certain, and of others not."""
    torch.manual_seed(seed)
    program, x = Program(seed), torch.rand(3, 4) * 2 - 1
    net = Ending(program, lambda y: y).eval()
    made = exported(net, x, OPERATORS, None)
    if made is None or made.blockers:
        return False
    with torch.no_grad():
        want = net(x).numpy()
    got = Model(Architecture(made.steps, (4,)), made.weights).plain(x.numpy(), exact=True)
    assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max()), program.steps
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 100), marks=pytest.mark.slow)], ids=str)
def test_random_programs_that_are_exported(seeds: range) -> None:
    right = sum(map(is_right_exported, seeds))
    assert len(seeds) // 6 <= right < len(seeds)


OWN = {
    "dropout that is off, in place": lambda y: F.dropout(y.flatten(1), 0.2, False, True).view(-1, 2, 4),
    "a change of what dropout gives": lambda y: F.relu_(F.dropout(y, 0.5, False)),
    "flattened after the change": lambda y: F.relu_(y).flatten(1).view(-1, 2, 4),
    "changed again when flattened": lambda y: F.silu(F.relu_(y).flatten(1), True).view(-1, 2, 4),
    "a part of it, changed": lambda y: torch.cat([F.relu_(each) for each in y.chunk(2, 1)], 1),
}
ANOTHERS = {
    "read under the old name": lambda y: F.relu_(F.dropout(y, 0.5, False)) + y,
    "read under the other name": lambda y: (lambda z: F.relu_(y) + z)(F.dropout(y, 0.5, False)),
    "read as a part of the old one": lambda y: (lambda z: F.relu_(z).view(-1, 2, 4) + y.view(-1, 2, 4))(y.flatten(1)),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", [*OWN, *ANOTHERS])
@pytest.mark.filterwarnings("ignore")
def test_who_else_reads_what_is_changed(name: str) -> None:
    of = {**OWN, **ANOTHERS}[name]
    net = Ending(tn.Conv2d(1, 2, 3), lambda y: of(y).transpose(1, 2)).eval()
    x = torch.rand(2, 1, 4, 4) - 0.5
    made = exported(net, x, OPERATORS, None)
    assert (made is None) == (name in ANOTHERS)
    if made is not None:
        with torch.no_grad():
            want = net(x).numpy()
        got = Model(Architecture(made.steps, (1, 4, 4)), made.weights).plain(x.numpy(), exact=True)
        assert np.abs(got - want).max() < 1e-5
