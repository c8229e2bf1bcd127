"""``RBF`` and ``Columns``: the parties' result is the formula's, by description alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import nn
from mpc.errors import ShapeError, UnsupportedError
from nn import Model


@pytest.mark.parametrize("parties", [2, 3])
def test_rbf_is_the_formula(parties: int, rng: Any, evaluate: Any) -> None:
    vectors, gamma = rng.normal(size=(7, 3)), 0.4
    model = Model(nn.Sequential({"k": nn.RBF(3, 7)}), {"k.weight": vectors, "k.gamma": [gamma]})
    x = np.concatenate([rng.uniform(-4, 4, (5, 3)), vectors[:2].round(3), [[4.0, 4.0, -4.0]]])
    wanted = np.exp(-gamma * ((x[:, None] - vectors) ** 2).sum(axis=-1))
    assert np.abs(model.plain(x) - wanted).max() < 1e-12
    assert np.abs(evaluate(model, x, parties, bound=4.0).result - wanted).max() < 2e-3


def test_columns_are_bounded_by_what_their_table_says(rng: Any, evaluate: Any) -> None:
    model = Model(nn.Sequential({"c": nn.Columns((2, -3, 6))}), {})
    x = np.rint(rng.uniform(-1, 1, (5, 3)) * [4.0, 0.125, 64.0] * 2**16) / 2**16
    found = evaluate(model, x, bound=64.0)
    assert np.abs(found.result - x / [4.0, 0.125, 64.0]).max() <= 2.0**-16
    result = found.program.nodes[found.program.outputs[0]].type
    assert (result.low, result.high) == (-1.0, 1.0)
    assert found.program.rounds == 0


def test_pairs_of_classes_vote(rng: Any, evaluate: Any) -> None:
    x = np.rint(rng.uniform(-2, 2, (6, 6)) * 2**16) / 2**16
    x[0, :3] = 0.0
    wanted = np.zeros((6, 4))
    for of, votes in zip(x, wanted, strict=True):
        speaks = np.zeros(4)
        for number, (first, second) in zip(of, itertools.combinations(range(4), 2), strict=True):
            votes[first if number >= 0 else second] += 1
            speaks[first] += number
            speaks[second] -= number
        votes += speaks / (3 * (np.abs(speaks) + 1))
    model = Model(nn.Sequential({"v": nn.OneAgainstOne(4)}), {})
    assert np.abs(model.plain(x) - wanted).max() < 1e-12
    assert np.abs(evaluate(model, x, bound=2.0).result - wanted).max() < 1e-3


def test_what_makes_no_sense() -> None:
    for make in (
        lambda: nn.RBF(0, 1), lambda: nn.RBF(2**20, 2**20), lambda: nn.Columns(()), lambda: nn.Columns((41,)),
        lambda: nn.OneAgainstOne(1), lambda: nn.OneAgainstOne(129),
    ):  # fmt: skip
        with pytest.raises(UnsupportedError):
            make()
    for layer, weights in (
        (nn.RBF(2, 1), {"k.weight": [[1.0, 2.0]], "k.gamma": [1.0]}),
        (nn.Columns((1, 1)), {}),
        (nn.OneAgainstOne(4), {}),
    ):
        model = Model(nn.Sequential({"k": layer}), weights)
        for x in (np.zeros((2, 3)), np.zeros((2, 2, 1))):
            with pytest.raises(ShapeError):
                model.plain(x)
            with pytest.raises(ShapeError):
                model.description.program(x.shape)
