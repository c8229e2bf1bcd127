"""A model in one file is the same model; a file that is not whole is refused, whatever is in it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from mpc.errors import ConfigurationError
from nn import AvgPool2d, Classes, Column, Interface, Label, Model, Sequential, TableInput, from_torch
from nn.derm.model import derm_model
from nn.derm.reference import WEIGHTS
from nn.saved import KEY, OnDisk, Saved, save

COLUMNS = TableInput((Column("a", -1.0, 1.0), Column("b", -1.0, 1.0)))
SAID = Interface(COLUMNS, Classes((Label("no"), Label("yes"))), "A toy.")


def small() -> Model:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    return from_torch(net, torch.zeros(1, 2), interface=SAID)


@pytest.mark.parametrize("make", [small, derm_model, lambda: Model(Sequential(AvgPool2d(2)), {})])
def test_what_is_saved_is_loaded(make, tmp_path: Path) -> None:
    model = make()
    model.save(tmp_path / "net.safetensors")
    loaded = Model.load(str(tmp_path / "net.safetensors"))
    assert loaded.describe() == model.describe()
    assert loaded.interface == model.interface
    assert loaded.weights.keys() == model.weights.keys()
    for name, array in model.encode().items():
        np.testing.assert_array_equal(loaded.encode()[name], array)


def damaged(folder: Path, change) -> Path:
    """A model's file in which ``change(metadata, arrays)`` has replaced what it likes."""
    model = small()
    model.save(folder / "net.safetensors")
    arrays = dict(model.weights)
    said = msgspec.to_builtins(Saved(model.architecture, model.interface))
    change(said, arrays)
    save_file(arrays, folder / "net.safetensors", {KEY: msgspec.json.encode(said).decode()})
    return folder / "net.safetensors"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said, _: said.update(format=2), "no model of this version"),
        (lambda said, _: said.update(code="print()"), "no model of this version"),
        (lambda said, _: said["architecture"].pop("steps"), "no model of this version"),
        (lambda said, _: said["interface"].update(notice="\x1b[2J"), "no model of this version"),
        (lambda _, arrays: arrays.popitem(), "other weights"),
        (lambda _, arrays: arrays.update(more=np.zeros(3)), "other weights"),
        (lambda _, arrays: arrays.update({"0.bias": np.zeros(4)}), "other weights"),
        (lambda _, arrays: arrays.update({"0.bias": np.zeros(3, np.int64)}), "of type I64"),
    ],
)
def test_a_file_that_was_changed(tmp_path: Path, change, words: str) -> None:
    assert Model.load(damaged(tmp_path, lambda *_: None)).describe() == small().describe()
    path = damaged(tmp_path, change)
    with pytest.raises(ConfigurationError, match=words) as caught:
        Model.load(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


_HEADER = rb'{"w":{"dtype":"\u009b2J","shape":[0],"data_offsets":[0,0]}}'


@pytest.mark.parametrize(
    "content", [None, b"", b"rubbish", b"\xff" * 100, len(_HEADER).to_bytes(8, "little") + _HEADER]
)
def test_what_is_no_file_of_a_model(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(ConfigurationError, match="cannot be read as a model's file") as raised:
        Model.load(tmp_path / "net.safetensors")
    assert str(raised.value).isprintable(), "a file that somebody has sent writes to no terminal"


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not which network they are of"):
        Model.load(WEIGHTS)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        small().save(tmp_path / "none" / "net.safetensors")


def test_of_large_models_weights_are_read_when_they_are_asked_for(tmp_path: Path, monkeypatch) -> None:
    """And are what they were before, or refused: what has been masked is not masked with the same mask again if it is
    something else."""
    path = tmp_path / "net.safetensors"
    model = small()
    model.save(path)
    held = Model.load(path)
    monkeypatch.setattr("nn.saved.HELD", 0)
    loaded = Model.load(path)
    assert isinstance(held.weights, dict)
    assert isinstance(loaded.weights, OnDisk)
    assert isinstance(Model(loaded.architecture, loaded.weights, SAID).weights, OnDisk)
    assert "0." not in repr(loaded.weights)
    assert loaded.describe() == model.describe()
    for name, array in model.encode().items():
        np.testing.assert_array_equal(loaded.encode()[name], array)
    x = np.ones((1, 2))
    np.testing.assert_array_equal(loaded.plain(x), model.plain(x))
    loaded.save(path)
    np.testing.assert_array_equal(Model.load(path).plain(x), model.plain(x))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    other = Model(model.architecture, {name: 2 * w for name, w in model.weights.items()}, SAID)
    other.save(path)
    with pytest.raises(ConfigurationError, match="changed"):
        loaded.encode()["0.weight"]
    assert Model.load(path).plain(x).shape == (1, 2)
    path.unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        dict(loaded.weights)


def test_values_are_written_with_as_few_bits_as_hold_them(tmp_path: Path) -> None:
    weights = {"a": np.array([1 / 3]), "b": np.array([0.1, 0.5], np.float32).astype(np.float64), "c": np.ones((2, 3))}
    architecture = Sequential(AvgPool2d(2)).architecture()
    save(tmp_path / "x.safetensors", Saved(architecture), weights)
    with safe_open(tmp_path / "x.safetensors", framework="np") as file:
        for name, array in weights.items():
            found = file.get_tensor(name)
            assert found.dtype == (np.float64 if name == "a" else np.float32)
            np.testing.assert_array_equal(found, array)
