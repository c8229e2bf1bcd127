"""``tessera bench zoo``, with networks of torch's own in the place of libraries'."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn as tn

from benchmarks.zoo import bench
from benchmarks.zoo.networks import FULL, NETWORKS, Network
from mpc.errors import ConfigurationError
from parties.commands.command_line import main


def missing() -> Any:
    raise ImportError("No module named 'timm'")


def unfitting() -> Any:
    raise RuntimeError("operator torchvision::nms does not exist")


FEW = {
    "torch/small": Network(
        lambda: tn.Sequential(tn.Conv2d(3, 2, 3), tn.ReLU(), tn.Flatten(), tn.Linear(32, 2)), (3, 6, 6)
    ),
    "torch/sorting": Network(lambda: tn.Sequential(tn.Flatten(), tn.AdaptiveLogSoftmaxWithLoss(8, 4, [2])), (8,)),
    "torch/large": Network(lambda: tn.Sequential(*(tn.Linear(64, 64) for _ in range(40)), tn.ReLU()), (64,)),
    "torch/tokens": Network(lambda: tn.Sequential(tn.Embedding(9, 4), tn.Flatten(), tn.Linear(20, 3)), (5,), 9),
    "timm/missing": Network(missing, (3, 4, 4)),
    "torch/unfitting": Network(unfitting, (3, 4, 4)),
}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "NETWORKS", FEW)


def test_what_comes_over_and_what_does_not(tmp_path: Path, capsys: Any) -> None:
    names = ["torch/small", "torch/sorting", "torch/large"]
    out = tmp_path / "zoo.jsonl"
    assert main(["bench", "zoo", "--networks", *names, "--out", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["networks"]
    small = rows["torch/small"]
    assert small["imported"]
    assert small["error"] < 1e-5
    assert 3 <= small["rounds"] <= 4
    assert small["bytes_per_party"] > 0 < small["bytes_dealt"]
    assert not rows["torch/sorting"]["imported"]
    assert "AdaptiveLogSoftmaxWithLoss" in rows["torch/sorting"]["why"]
    assert not rows["torch/large"]["imported"]
    assert "bound values on the way" in rows["torch/large"]["why"]
    assert [json.loads(line)["case"]["network"] for line in out.read_text().splitlines()] == [
        "torch/small",
    ]


def test_the_table_says_what_stands_in_the_way(capsys: Any) -> None:
    assert main(["bench", "zoo", "--networks", "torch/small", "torch/sorting"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 come over" in printed
    assert "what stands in the way" in printed


@pytest.mark.slow
def test_what_comes_over_is_run(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "zoo.jsonl"
    arguments = ["--networks", "torch/small", "torch/sorting", "torch/tokens", "--run", "--inputs", "2", "--size", "6"]
    assert main(["bench", "zoo", *arguments, "--out", str(out), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["networks"]
    small = rows["torch/small"]
    assert small["as_predicted"]
    assert small["run_error"] < 1e-2
    assert small["same_top"] == small["inputs"] == 2
    assert small["party_peak_bytes"] > 0 < small["online_seconds"]
    tokens = rows["torch/tokens"]
    assert tokens["as_predicted"]
    assert tokens["run_error"] < 1e-3
    assert not rows["torch/sorting"]["imported"]
    bench._print_runs(rows)
    assert "2 of 2" in " ".join(capsys.readouterr().out.split())


def test_mistakes_are_said(capsys: Any) -> None:
    assert main(["bench", "zoo", "--networks", "timm/missing"]) != 0
    assert "tessera bench zoo --install" in capsys.readouterr().err
    assert main(["bench", "zoo", "--networks", "torch/unfitting"]) == 3
    assert "is none of torch 2" in capsys.readouterr().err
    assert main(["bench", "zoo", "--networks", "timm/none"]) != 0
    assert "there is no network 'timm/none'" in capsys.readouterr().err


def test_a_torchvision_is_of_the_torch_that_is_there() -> None:
    assert bench.vision("2.14.1") == ["torchvision==0.29.*"]
    wanted, *index = bench.vision("2.13.0+cpu")
    assert wanted == "torchvision==0.28.*"
    assert index == ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    with pytest.raises(ConfigurationError, match="install torch 2"):
        bench.vision("3.0")


def test_every_network_has_a_library_that_is_installed() -> None:
    lines = [*bench.REQUIREMENTS.read_text().split(), *bench.vision("2.13.0")]
    libraries = {line.partition("==")[0] for line in lines}
    assert {name.partition("/")[0] for name in NETWORKS | FULL} <= libraries
    assert not NETWORKS.keys() & FULL.keys()
