"""One host is backed up and restored over real processes, with the commands of docs/deploy.md, as a person would."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from nn.derm import samples
from parties import LocalCluster, Settings

pytestmark = pytest.mark.slow


def tessera(*words: object, code: int = 0) -> dict[str, Any]:
    """The object that the command prints."""
    command = [sys.executable, "-m", "tessera", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ["dealer", "party1"])
def test_a_host_that_lost_its_disk(tmp_path: Path, name: str) -> None:
    image = samples()[0].path
    with LocalCluster(2, clients=("company", "clinic"), settings=Settings(threads=1)) as cluster:
        company = ["--cluster", cluster.path, "--key", cluster.key_path("company")]
        clinic = ["--cluster", cluster.path, "--key", cluster.key_path("clinic")]
        data, key = cluster.data_path(name), cluster.key_path(name)
        tessera("upload", "derm", *company)
        tessera("allow", "derm", "clinic", *company)
        tessera("deal", "--model", "derm", "--count", 3, *clinic)
        first = tessera("predict", image, "--model", "derm", *clinic)
        assert first["run"]["offline"]["from_stock"]

        backup = tmp_path / "host.backup"
        taken = tessera("backup", "--data", data, "--out", backup)
        assert (taken["member"], taken["versions"]) == (name, 1)
        with tarfile.open(backup) as archive:
            assert not {"ledger.sqlite", "stock.sqlite", "audit.sqlite"} & set(archive.getnames())

        old = tmp_path / "old"
        shutil.copytree(data, old)  # what a person might have copied instead
        cluster.processes[name].kill()
        cluster.processes[name].wait()
        shutil.rmtree(data)
        refused = tessera("restore", old, "--key", key, "--data", data, code=3)
        assert "knows nothing of what has been used since" in refused["message"]
        assert "tessera backup" in refused["message"]
        assert not data.exists()

        assert tessera("restore", backup, "--key", key, "--data", data)["versions"] == 1
        cluster.start_process(name)
        for _ in range(3):
            again = tessera("predict", image, "--model", "derm", *clinic)
            assert again["predictions"][0]["class"] == first["predictions"][0]["class"]
            assert not again["run"]["offline"]["from_stock"]
        (model,) = tessera("models", *company)["models"]
        assert model["complete"]
        assert "clinic" in json.dumps(model["allowed"])
        tessera("deal", "--model", "derm", "--count", 1, *clinic)
        assert tessera("predict", image, "--model", "derm", *clinic)["run"]["offline"]["from_stock"]
