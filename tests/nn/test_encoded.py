"""The tensors of a model are encoded one at a time, when they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from mpc import fixed_point
from mpc.errors import EncodingError
from nn import Linear, Model, ReLU, Sequential, Tanh
from nn.importing.fixed import fixed_point_results
from nn.layer import Layer, WeightArray
from nn.stored import StoredType


def _model() -> Model:
    shapes = {"a.weight": (4, 3), "a.bias": (4,), "b.weight": (2, 4), "b.bias": (2,)}
    rng = np.random.default_rng(2)
    weights = {name: rng.uniform(-1, 1, shape) for name, shape in shapes.items()}
    return Model(Sequential({"a": Linear(3, 4), "b": Linear(4, 2)}), weights)


def test_each_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[str]()
    encode = fixed_point.encode
    monkeypatch.setattr(fixed_point, "encode", lambda *a, **k: made.append(k["name"]) or encode(*a, **k))
    encoded = _model().encode()
    made.clear()
    assert sorted(encoded) == ["a.bias", "a.weight", "b.bias", "b.weight"]
    assert len(encoded) == 4
    assert not made
    first = encoded["a.weight"]
    assert made == ["a.weight"]
    assert np.array_equal(first, encoded["a.weight"])
    assert first is not encoded["a.weight"]
    assert "0." not in repr(encoded)
    with pytest.raises(KeyError):
        encoded["c.weight"]


def test_large_tensors_are_encoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which makes no difference to what they are, nor to what is said of one that does not fit."""
    rng = np.random.default_rng(3)
    for contracted in (None, (0,), (1,), (-1, -3), (0, 1, 2)):
        array = WeightArray(rng.normal(size=(6, 5, 4)), contracted)
        whole = StoredType.of(array, "it")
        with monkeypatch.context() as patched:
            patched.setattr("nn.stored.PART", 7)
            assert StoredType.of(array, "it") == whole
            assert np.array_equal(whole.encode(array, "it"), fixed_point.encode(array.values, whole.fraction_bits))
            array.values[4, 3, 2] = 2.0**50
            with pytest.raises(EncodingError, match=r"it\[4, 3, 2\]"):
                StoredType.of(array, "it")


def _deep(activation: Layer) -> Model:
    """Sixteen linear layers, each of weights that nearly keep the scale, and do not outgrow the numbers."""
    rng = np.random.default_rng(3)
    layers = {f"{i}.{kind}": layer for i in range(16) for kind, layer in (("in", Linear(8, 8)), ("act", activation))}
    weights = {f"{i}.in.weight": 0.9 * np.eye(8) + rng.uniform(-0.01, 0.01, (8, 8)) for i in range(16)}
    return Model(Sequential(layers), weights | {f"{i}.in.bias": np.zeros(8) for i in range(16)})


def test_weights_of_deep_networks_have_more_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bits more, so a quarter of the error; where series follow, whose angles have no room for more, none."""
    x = np.random.default_rng(4).integers(-64, 65, (32, 8)) / 64.0
    wanted = _deep(ReLU()).plain(x)

    def off(model: Model) -> float:
        return float(np.abs(fixed_point_results(model, x, -1.0, 1.0).values - wanted).max())

    finer, fine = off(_deep(ReLU())), {n: t.fraction_bits for n, t in _deep(ReLU()).stored_types().items()}
    series = _deep(Tanh()).stored_types()
    monkeypatch.setattr("nn.stored.DEEP", 17)
    usual, bits = off(_deep(ReLU())), {n: t.fraction_bits for n, t in _deep(ReLU()).stored_types().items()}
    assert {n: b - bits[n] for n, b in fine.items()} == {n: 2 * n.endswith("weight") for n in bits}
    assert finer < usual / 2
    assert {n: t.fraction_bits for n, t in series.items()} == bits
