"""``tessera upload``: the shipped model, or other weights for it, from the command line; nothing half done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from nn.derm import load_image, samples
from nn.derm.model import derm_model
from nn.derm.reference import load_weights
from parties import Client, LocalCluster, Settings
from parties.commands.command_line import main


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(2, clients=("company", "clinic"), settings=Settings(threads=1)) as running:
        yield running


def tessera(cluster: LocalCluster, client: str, *arguments: object) -> int:
    rest = ["--cluster", cluster.path, "--key", cluster.key_path(client)]
    return main([str(word) for word in (*arguments, *rest)])


def predicted(cluster: LocalCluster, name: str, client: str = "company") -> np.ndarray:
    with Client(cluster, cluster.client_key(client)) as connected:
        return connected.predict(connected.model(name), load_image(samples()[0].path)[None])


def test_the_model_that_ships(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert tessera(cluster, "company", "upload", "shipped", "--model", "derm", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["owner"], said["uploaded"]) == ("shipped", "company", True)
    wanted = derm_model().plain(load_image(samples()[0].path)[None])
    assert np.abs(predicted(cluster, "shipped") - wanted).max() < 0.01
    with Client(cluster, cluster.client_key("company")) as client:
        assert client.model("shipped").version == said["version"]


def test_weights_of_ones_own(cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {name: array * np.float32(0.5) for name, array in load_weights().items()}
    save_file(weights, tmp_path / "half.safetensors")
    assert tessera(cluster, "company", "upload", "half", "--weights", tmp_path / "half.safetensors") == 0
    assert "half is stored" in capsys.readouterr().out
    wanted = derm_model(tmp_path / "half.safetensors").plain(load_image(samples()[0].path)[None])
    assert np.abs(predicted(cluster, "half") - wanted).max() < 0.01
    assert np.abs(wanted - derm_model().plain(load_image(samples()[0].path)[None])).max() > 0.1


def test_only_if_it_is_missing(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    def upload(client: str) -> dict[str, object]:
        assert tessera(cluster, client, "upload", "once", "--if-missing", "--json") == 0
        said: dict[str, object] = json.loads(capsys.readouterr().out)
        return said

    first, second = upload("company"), upload("company")
    assert first["uploaded"] is True
    assert first["resumed_bytes"] == 0
    assert first["bytes"] == 8 * sum(array.size for array in derm_model().encode().values())
    assert second == {**first, "uploaded": False, "bytes": 0}
    # Somebody else's, once we may use it.
    assert tessera(cluster, "clinic", "upload", "once", "--if-missing") == 4
    assert "belongs to company" in capsys.readouterr().err
    assert tessera(cluster, "company", "allow", "once", "clinic") == 0
    capsys.readouterr()
    assert upload("clinic") == second


@pytest.mark.parametrize("content", [None, b"", b"rubbish", "other"])
def test_a_file_that_is_no_such_model_is_refused_before_anything_is_sent(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | str | None
) -> None:
    path = tmp_path / "weights.safetensors"
    if content == "other":
        save_file({"conv1.weight": np.zeros((2, 2), np.float32)}, path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    assert tessera(cluster, "company", "upload", "bad", "--weights", path) == 3
    assert "weights.safetensors" in capsys.readouterr().err
    with Client(cluster, cluster.client_key("company")) as client:
        assert "bad" not in {entry.name for entry in client.models()}


def test_a_name_that_is_none(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert tessera(cluster, "company", "upload", "../derm") == 2
    assert "name" in capsys.readouterr().err
