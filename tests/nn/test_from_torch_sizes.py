"""from_torch tries batches of the sizes with which forward compares its own."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn as tn

from mpc.errors import DiffersFromSource, ShapeError, UnsupportedError
from nn import from_torch
from nn.importing.torch_source import TorchSource


class Net(tn.Module):
    def __init__(self, forward):
        super().__init__()
        self.fc, self.does = tn.Linear(4, 4), forward

    def forward(self, x):
        return self.does(self, x)


def told_apart(condition):
    """A forward that is another function for batches of seven alone, or beyond a hundred, whoever they are."""

    def forward(net, x):
        net.most, net.special, net.table = 100, frozenset((7, 9)), {7: 2.0}
        return net.fc(x) * (2.0 if condition(net, x) else 1.0)

    return forward


BY_SIZE = {
    "the first length": lambda net, x: x.shape[0] == 7,
    "size": lambda net, x: x.size(0) == 7,
    "not": lambda net, x: 1 - (x.size()[0] != 7),
    "of what is computed": lambda net, x: net.fc(x).shape[0] == 7,
    "of several": lambda net, x: x.shape[0] in (7, 9),
    "the whole shape": lambda net, x: x.shape == (7, 4),
    "how many numbers": lambda net, x: x.numel() == 28,
    "a reshaped one": lambda net, x: x.reshape(-1, 2).shape[0] == 14,
    "half of it": lambda net, x: x.shape[0] // 2 == 3 and x.shape[0] % 2 == 1,
    "a sum": lambda net, x: x.shape[0] * 3 + 1 == 22,
    "the rest": lambda net, x: x.shape[0] % 7 == 0,
    "more than an attribute": lambda net, x: x.shape[0] > net.most,
    "the lesser": lambda net, x: min(x.shape[0], 7) == 7 and x.shape[0] <= 7,
    "len": lambda net, x: len(x) == 7,
    "len of what is computed": lambda net, x: len(net.fc(x)[:, 0]) + 1 == 8,
    "unbound": lambda net, x: len(x.unbind()) == 7,
    "by its own name": lambda net, x: x.__len__() == 7,
    "keys": lambda net, x: {1: False, 7: True}.get(x.shape[0], False),
    "keys of an attribute": lambda net, x: x.size(0) in net.special,
    "keys of what is global": lambda net, x: len(x) in SPECIAL,
    "keys that are shapes": lambda net, x: tuple(x.shape) in {(7, 4), (9, 4)},
    "a set": lambda net, x: x.shape[0] in {7, 9},
    "as text": lambda net, x: str(len(x)) == "7",
    "a format": lambda net, x: f"of {x.shape[0]}" == "of 7",
    "an int": lambda net, x: int(x.shape[0]) == 7,
    "a square": lambda net, x: x.shape[0] ** 2 == 49 and 7,
    "a quotient": lambda net, x: x.numel() / 7 == 4,
    "a difference": lambda net, x: not 7 - x.shape[0],
    "bits": lambda net, x: x.shape[0] >> 3 == 0 and x.shape[0] & 7 == 7,
    "a match": lambda net, x: matched(len(x)),
    "a helper's": lambda net, x: is_special(x),
    "a table": lambda net, x: net.table.get(len(x), 1.0) > 1.0,
}

SPECIAL = {7: "lucky"}


def matched(n):
    match n:
        case 7 | 9:
            return True
    return False


def is_special(x):
    return hash(x.shape[0]) == hash(7)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("condition", BY_SIZE.values(), ids=list(BY_SIZE))
def test_a_batch_of_a_size_that_is_asked_for_is_tried(condition):
    with pytest.raises(DiffersFromSource, match=r"are others in a batch of (7|101) than in one of 5"):
        from_torch(Net(told_apart(condition)), torch.rand(5, 4) * 2 - 1)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "condition",
    [
        lambda net, x: len(list(x)) == 7,
        lambda net, x: x.nbytes == 7 * 4 * x.element_size(),
        lambda net, x: torch.numel(x) == 28,
        lambda net, x: np.prod(x.shape) == 28,
    ],
    ids=["rows", "bytes", "torch's count", "NumPy's product"],
)
def test_or_the_branch_is_refused_as_it_is(condition):
    with pytest.raises((DiffersFromSource, UnsupportedError)):
        from_torch(Net(told_apart(condition)), torch.rand(5, 4) * 2 - 1)


def never_of_seven(net, x):
    if x.shape[0] == 7:
        raise ValueError("not seven")
    return net.fc(x)


def test_a_batch_that_a_network_refuses_is_no_matter():
    net, x = Net(never_of_seven), np.random.default_rng(0).uniform(-1, 1, (5, 4))
    assert from_torch(net, x).plain(x).shape == (5, 4)
    source = TorchSource(net, copy.deepcopy(net))
    assert source.told_apart(x) == [6, 7, 8]
    with pytest.raises(ShapeError, match="not seven"):
        source(np.resize(x, (7, 4)))
    assert source.dtype == torch.float64
