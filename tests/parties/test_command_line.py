"""The command: one sentence on stderr and the error's exit code, never a traceback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parties import Cluster, KeyPair, LocalCluster, Settings
from parties.commands.command_line import main
from parties.local.ports import reserved_ports


def tessera(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.run(
        [sys.executable, "-m", "parties.commands.command_line", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root},
    )


def fails(done: subprocess.CompletedProcess[str], code: int, sentence: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("tessera: ")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A folder with a cluster file and everybody's keys; nothing runs."""
    keys = {name: KeyPair.generate() for name in ("dealer", "party0", "party1", "clinic")}
    for name, pair in keys.items():
        pair.save(tmp_path / f"{name}.key")
    with reserved_ports(3) as (dealer, *parties):
        cluster = Cluster.build(
            "site",
            dealer=(f"127.0.0.1:{dealer}", keys["dealer"].public),
            parties=[(f"party{i}", f"127.0.0.1:{port}", keys[f"party{i}"].public) for i, port in enumerate(parties)],
            clients=[("clinic", keys["clinic"].public)],
        )
        (tmp_path / "cluster.toml").write_text(cluster.dumps())
        yield tmp_path


def test_keygen(tmp_path):
    done = tessera("keygen", "clinic", "--json", cwd=tmp_path)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    path = tmp_path / "clinic.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyPair.load(path).public == found["public"]
    assert found["public"] in path.read_text()
    fails(tessera("keygen", "clinic", cwd=tmp_path), 3, "clinic.key")
    fails(tessera("keygen", "../clinic", cwd=tmp_path), 2, "not a name")


@pytest.mark.parametrize("command", [("dealer",), ("party", 0), ("check",), ("predict", "x.jpg")])
def test_a_missing_cluster_file(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    code = main([*map(str, command)])
    fails(subprocess.CompletedProcess(command, code, *capsys.readouterr()), 3, "does not exist")


def test_keys_that_will_not_do(site):
    (site / "dealer.key").rename(site / "other.key")
    fails(tessera("dealer", cwd=site), 3, "dealer.key")
    fails(tessera("dealer", "--key", "party0.key", cwd=site), 3, "does not hold dealer's key")
    (site / "other.key").chmod(0o644)
    fails(tessera("dealer", "--key", "other.key", cwd=site), 3, "other.key")
    (site / "rubbish.key").write_text("rubbish")
    (site / "rubbish.key").chmod(0o600)
    fails(tessera("party", 1, "--key", "rubbish.key", cwd=site), 3, "rubbish.key")


@pytest.mark.parametrize("which", [2, "-1", "party2", "clinic"])
def test_a_party_that_is_not_there(site, monkeypatch, capsys, which):
    monkeypatch.chdir(site)
    code = main(["party", "--", str(which)])
    sentence = f"no party {which}: the cluster file lists 0 (party0), 1 (party1)"
    fails(subprocess.CompletedProcess("party", code, *capsys.readouterr()), 3, sentence)


@pytest.mark.parametrize("which", [1, "party1"])
def test_the_key_of_somebody_else_is_named(site, monkeypatch, capsys, which):
    monkeypatch.chdir(site)
    code = main(["party", str(which), "--key", "party0.key"])
    sentence = "does not hold party1's key, but that of party0 (party)"
    fails(subprocess.CompletedProcess("party", code, *capsys.readouterr()), 3, sentence)


@pytest.mark.parametrize(("command", "wanted"), [((), "COMMAND: `tessera"), (("audit",), "ACTION: `tessera audit")])
def test_who_says_too_little_is_told_where_the_list_is(capsys, command, wanted):
    assert main([*command]) == 2
    assert f"say which {wanted} --help` lists them" in capsys.readouterr().err


def test_a_port_in_use(site):
    cluster = Cluster.load(site / "cluster.toml")
    host, _, port = str(cluster.parties[0].address).partition(":")
    with socket.create_server((host, int(port))):
        fails(tessera("party", 0, cwd=site), 3, "already in use")


def test_nobody_answers(site):
    (site / "photo.png").write_bytes(b"no picture")
    done = tessera("check", "--timeout", 0.5, "--json", cwd=site)
    assert done.returncode == 6
    rows = json.loads(done.stdout)
    assert not rows["ok"]
    assert all("connection refused" in row["error"] for row in rows["servers"])
    done = tessera("predict", "photo.png", cwd=site)
    assert done.returncode == 2
    fails(done, 2, "photo.png")


def test_a_running_cluster(capsys):
    with LocalCluster(2, settings=Settings(threads=1)) as cluster:
        done = tessera("check", "--cluster", cluster.path, "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["ok"]
        assert [row["name"] for row in report["servers"]] == ["dealer", "party0", "party1"]
        assert all(0 < row["round_trip_seconds"] < 1 for row in report["servers"])
        from nn.derm import samples

        image = samples()[0].path
        predict = ("predict", image, "--cluster", cluster.path)
        assert main([*map(str, predict), "--model", "derm"]) == 14
        assert "nothing called 'derm'" in capsys.readouterr().err
        assert main([*map(str, predict)]) == 14
        assert "nothing is stored that this client may use" in capsys.readouterr().err
        upload_derm(cluster)
        done = tessera("predict", image, "--cluster", cluster.path, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["run"]["online"]["rounds"] == 8
        assert sum(result["predictions"][0]["probabilities"]) == pytest.approx(1.0)


def upload_derm(cluster: LocalCluster) -> None:
    from nn.derm.model import derm_model
    from parties import Client

    with Client(cluster) as client:
        client.upload(derm_model(), "derm")
