"""``tessera cost``: the words of ``tessera bench inference``, and times for given links."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import read
from mpc.security import Security
from nn.derm.model import derm_model
from parties.commands.command_line import main


def cost(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["cost", *arguments, "--json"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    summary: dict[str, Any] = json.loads(printed)
    return summary


def test_without_processes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    summary = cost(capsys, "--batch", "4", "--parties", "3", "--security", "malicious")
    predicted = derm_model().cost((4, 3, 28, 28), 3, Security.MALICIOUS)
    online, offline = summary["online"], summary["offline"]
    assert online == {
        "rounds": predicted.online_rounds,
        "messages_per_party": 2 * (predicted.online_rounds - 1) + 1,
        "bytes_per_party": predicted.online_bytes_per_party,
        "client_bytes": predicted.online_client_bytes,
    }
    assert offline == {"bytes": predicted.offline_bytes}
    assert summary["per_image"]["offline_bytes"] == predicted.offline_bytes / 4
    sent = sum(layer["bytes_per_party"] for layer in summary["layers"].values())
    assert sent == predicted.online_bytes_per_party - predicted.online_output_bytes
    assert (summary["batch"], summary["parties"], summary["security"]) == (4, 3, "malicious")


def test_times_on_links(capsys: pytest.CaptureFixture[str]) -> None:
    networks = cost(capsys)["latency"]
    assert list(networks) == ["LAN", "metro", "WAN", "mobile client"]
    assert networks["LAN"]["online_seconds"] < networks["metro"]["online_seconds"] < networks["WAN"]["online_seconds"]
    wan = networks["WAN"]
    assert wan["servers"] == wan["client"] == {"round_trip_ms": 40.0, "bandwidth_mbit": 100.0}
    assert wan["online_seconds"] == pytest.approx(sum(wan["parts"].values()))
    # 7 rounds among the parties, and to them and back: 20 ms each.
    assert wan["parts"]["delays"] == pytest.approx(0.140)
    assert wan["parts"]["inputs"] > 0.020
    mobile = networks["mobile client"]
    assert mobile["client"] == {"round_trip_ms": 60.0, "bandwidth_mbit": 10.0}
    [(name, chosen)] = cost(capsys, "--rtt", "40", "--bandwidth", "100")["latency"].items()
    assert name == "40 ms, 100 Mbit/s"
    assert chosen == wan


def test_table_and_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.jsonl"
    assert main(["cost", "--side", "64", "--out", str(path)]) == 0
    printed = capsys.readouterr().out
    for part in ("3x64x64", "shipped, enlarged", "act1", "online, each party", "mobile client", "computing"):
        assert part in printed
    [record] = read(path)
    assert record.bench == "cost"
    assert record.case["shape"] == [3, 64, 64]
    assert record.figures["online.rounds"] == 8
    assert record.figures["latency.WAN.online_seconds"] > 0.16


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--parties", "1"], "at least 2"),
        (["--security", "perfect"], "perfect"),
        (["--rtt", "1"], "go together"),
        (["--rtt", "-1", "--bandwidth", "1"], "round-trip"),
        (["--rtt", "1", "--bandwidth", "0"], "bandwidth"),
        (["--model", "resnet"], "the known ones are derm"),
    ],
)
def test_refusals(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert sentence in printed.err


@pytest.mark.slow
def test_both_objectives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\nnet = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))\n")
    both = cost(capsys, "--torch", f"{path}:net", "--shape", "8", "--objective", "both")
    assert list(both) == ["latency", "traffic"]
    few_rounds, few_bytes = both["latency"], both["traffic"]
    assert few_rounds["online"]["rounds"] == few_bytes["online"]["rounds"] - 1
    assert few_rounds["offline"]["bytes"] > few_bytes["offline"]["bytes"]
