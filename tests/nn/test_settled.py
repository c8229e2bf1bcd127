"""Fits that had to be found travel with the description: everybody evaluates the same numbers, and at once."""

from __future__ import annotations

import numpy as np
import pytest

from nn import GELU, Activation, Description, Function, Linear, Model, Sequential, Sigmoid, SiLU, Softplus, Tanh
from nn.layer import Layer
from protocols.approximation import default_fit

SHIPPED = [Sigmoid(), Tanh(), SiLU(), GELU(), Softplus(), Function(name="exp"), Linear(3, 3)]
FOUND = [
    Sigmoid(interval=(-4.0, 4.0)),
    Tanh(method="composite"),
    Sigmoid(method="minimax", degree=5),
    SiLU(terms=6),
    GELU(approximate="tanh", interval=(-3.0, 3.0)),
    Softplus(beta=2.0, interval=(-3.0, 3.0)),
    Function(name="sin", method="taylor", degree=3),
]


@pytest.mark.parametrize("layer", SHIPPED, ids=repr)
def test_what_ships_stays_as_it_is(layer: Layer) -> None:
    assert layer.is_settled
    assert layer.settled is layer


@pytest.mark.parametrize("layer", FOUND, ids=repr)
def test_what_was_found_comes_along_and_changes_nothing(layer: Layer) -> None:
    assert not layer.is_settled
    settled = layer.settled
    assert settled.is_settled
    assert settled.settled is settled
    x = np.linspace(-2.0, 2.0, 101)
    np.testing.assert_array_equal(settled.plain(x, weights={}), layer.plain(x, weights={}))
    np.testing.assert_array_equal(settled.plain(x, weights={}, exact=True), layer.plain(x, weights={}, exact=True))


def test_a_description_is_settled_and_read_back_as_it_is() -> None:
    model = Model(Sequential({"in": Linear(2, 2), "act": Tanh(method="composite")}), {
        "in.weight": np.eye(2), "in.bias": np.zeros(2),
    })  # fmt: skip
    description = model.description
    assert description.architecture.is_settled
    assert not model.architecture.is_settled
    read = Description.decode(model.describe())
    assert read == description
    assert read.program((1, 2)).digest == description.program((1, 2)).digest


def test_a_fit_from_a_stranger_is_checked() -> None:
    fit = default_fit("sigmoid", low=-4.0, high=4.0)
    assert Activation(fit=fit).is_settled
    text = Model(Sequential({"act": Sigmoid(interval=(-4.0, 4.0))}), {}).describe()
    assert b'"found"' in text
    for wrong in (text.replace(b'"cosines":[', b'"cosines":[1e999,'), text.replace(b'"low":-4.0', b'"low":1e300')):
        assert wrong != text
        with pytest.raises(Exception, match="not a model's description"):
            Description.decode(wrong)
