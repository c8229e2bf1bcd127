"""A model in one file is the same model; a file that is not whole is refused, whatever is in it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from mpc.errors import ConfigurationError
from nn import AvgPool2d, Classes, Column, Interface, Label, Model, Sequential, TableInput, from_torch
from nn.derm.model import derm_model
from nn.derm.reference import WEIGHTS
from nn.saved import KEY, Saved

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
