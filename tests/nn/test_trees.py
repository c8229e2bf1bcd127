"""``Trees``: each row ends in the leaf that a walk from the root finds, ties included."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import nn
from mpc import fixed_point
from mpc.errors import EncodingError, ShapeError, UnsupportedError
from mpc.objective import ANY, Objective
from mpc.security import Security
from nn import Model
from nn.architecture import decode_architecture
from nn.layer import Array
from nn.stored import BIAS_BITS
from protocols.readings.memory import MemoryStore, run_in_memory

UNIT = 2.0**-16


def forest(layer: nn.Trees, rng: np.random.Generator) -> Model:
    """Random trees; thresholds are few, so that rows of the same numbers tie with them."""
    nodes = layer.trees * (2**layer.depth - 1)
    selection = np.zeros((layer.features, nodes))
    asked = rng.integers(-1, layer.features, nodes)  # -1: a node of padding asks for nothing
    selection[asked[asked >= 0], np.flatnonzero(asked >= 0)] = 1.0
    weights = {
        "trees.selection": selection,
        "trees.threshold": rng.integers(-2, 3, nodes) / 2 + rng.integers(-1, 2, nodes) * UNIT,
        "trees.leaf": np.rint(rng.normal(size=(layer.trees * 2**layer.depth, layer.outputs)) * 2**12) / 2**12,
        "trees.bias": np.rint(rng.normal(size=layer.outputs) * 2**12) / 2**12,
    }
    return Model(nn.Sequential({"trees": layer}), weights)


def rows(count: int, features: int, rng: np.random.Generator) -> Array:
    """Where thresholds are, one unit beside them, and elsewhere."""
    near = rng.integers(-2, 3, (count, features)) / 2 + rng.integers(-2, 3, (count, features)) * UNIT
    return np.where(rng.random((count, features)) < 0.7, near, np.rint(rng.uniform(-2, 2, near.shape) / UNIT) * UNIT)


def walked(model: Model, x: Array) -> Array:
    """From the root, node by node, one row and one tree at a time."""
    layer = model.architecture.layers["trees"]
    assert isinstance(layer, nn.Trees)
    w, nodes = model.weights, 2**layer.depth - 1
    result = np.tile(w["trees.bias"], (len(x), 1))
    for row, out in zip(x, result, strict=True):
        for tree in range(layer.trees):
            at = 0
            while at < nodes:
                node = tree * nodes + at
                column = w["trees.selection"][:, node]
                value = row[column.argmax()] if column.any() else 0.0
                at = 2 * at + (1 if value <= w["trees.threshold"][node] else 2)
            out += w["trees.leaf"][tree * (nodes + 1) + at - nodes]
    return result


SIZES = [nn.Trees(1, 1), nn.Trees(2, 3, 2), nn.Trees(3, 2, 4, 3), nn.Trees(4, 5, 2, 2), nn.Trees(5, 4, 1, 2)]


@pytest.mark.parametrize("layer", SIZES, ids=repr)
@pytest.mark.parametrize("parties", [2, 3])
def test_the_leaf_is_the_walked_one(layer: nn.Trees, parties: int, rng: Any, evaluate: Any) -> None:
    model, x = forest(layer, rng), rows(17, layer.features, rng)
    wanted = walked(model, x)
    assert np.array_equal(model.plain(x), wanted)
    found = evaluate(model, x, parties, bound=4.0)
    assert np.array_equal(found.result, wanted)
    # The input's product is opened, digits once or twice, products by halves, and leaves.
    assert found.program.rounds <= 1 + 2 + (layer.depth - 1).bit_length() + 1


@pytest.mark.parametrize("parties", [2, 3])
@pytest.mark.parametrize("security", list(Security))
def test_rounds_and_bytes_are_as_predicted(secure: Any, security: Security, parties: int, rng: Any) -> None:
    layer = nn.Trees(3, 4, 5, 2)
    model, x = forest(layer, rng), rows(6, 4, rng)
    program = model.description.program(x.shape, low=-4, high=4, objective=Objective(ANY, security))
    store = MemoryStore("model", model.encode(), parties)
    raw = [fixed_point.encode(x, 16)]
    run = secure.as_predicted(program, raw, parties, security, store)
    assert np.array_equal(fixed_point.decode(run.outputs[0], BIAS_BITS), walked(model, x))


@pytest.mark.parametrize(("precision", "bits"), [(8, 16), (6, 12), (24, 16), (None, 3)])
def test_the_precision_of_the_rest_decides_nothing(precision: int | None, bits: int, rng: Any) -> None:
    model = forest(nn.Trees(3, 4, 2), rng)
    x = np.rint(rows(12, 4, rng) * 2**bits) / 2**bits
    program = model.description.program(x.shape, low=-4, high=4, fraction_bits=bits, precision=precision)
    run = run_in_memory(program, [fixed_point.encode(x, bits)], store=MemoryStore("model", model.encode(), 2))
    assert np.array_equal(fixed_point.decode(run.outputs[0], BIAS_BITS), walked(model, x))


def test_plain_rounds_to_the_grid(rng: Any) -> None:
    model, x = forest(nn.Trees(3, 4, 2), rng), rows(12, 4, rng)
    assert np.array_equal(model.plain(x + rng.uniform(-0.49, 0.49, x.shape) * UNIT), model.plain(x))


def test_what_makes_no_sense(rng: Any) -> None:
    for layer in ({"depth": 13, "features": 1}, {"depth": 0, "features": 1}, {"depth": 12, "features": 2**20}):
        with pytest.raises(UnsupportedError):
            nn.Trees(**layer)
        step = {"name": "t", "layer": {"type": "Trees", **layer}, "inputs": [0]}
        with pytest.raises(UnsupportedError):
            decode_architecture(json.dumps({"steps": [step]}).encode())
    model = forest(nn.Trees(2, 3), rng)
    for x in (np.zeros((2, 4)), np.zeros((2, 3, 1))):
        with pytest.raises(ShapeError, match=r"Trees take \(N, 3\)"):
            model.plain(x)
        with pytest.raises(ShapeError):
            model.description.program(x.shape)
    with pytest.raises(UnsupportedError, match="at most 16 fraction bits, not 20"):
        model.description.program((2, 3), fraction_bits=20)
    for name, off in (("selection", 0.5), ("threshold", UNIT / 2)):
        weights = model.state_dict()
        weights[f"trees.{name}"] = weights[f"trees.{name}"] + off
        with pytest.raises(EncodingError, match=rf"trees\.{name} has values that are not multiples"):
            Model(model.architecture, weights).encode()
