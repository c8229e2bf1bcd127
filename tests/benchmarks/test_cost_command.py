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


def test_computing_is_measured_here(capsys: pytest.CaptureFixture[str]) -> None:
    summary = cost(capsys, "--computing", "--security", "malicious", "--parties", "3")
    computing = summary["computing"]
    assert 0 < computing["online"] < 5
    assert computing["dealing"] > 0
    assert computing["preparing"] > 0
    assert computing["memory"] > 1 << 20
    wan = summary["latency"]["WAN"]
    assert wan["with_computing"]["online_seconds"] == pytest.approx(wan["online_seconds"] + computing["online"])
    dealt = computing["dealing"] + computing["preparing"]
    assert wan["with_computing"]["offline_seconds"] == pytest.approx(wan["offline_seconds"] + dealt)
    assert "computing" not in cost(capsys)


def test_a_month(capsys: pytest.CaptureFixture[str]) -> None:
    summary = cost(capsys, "--batch", "4", "--per-month", "10")
    assert summary["month"] == {
        "predictions": 10,
        "party_sends": 3 * summary["online"]["bytes_per_party"],
        "dealer_sends": 3 * summary["offline"]["bytes"],
        "client_sends": 3 * summary["online"]["client_bytes"],
    }
    assert main(["cost", "--per-month", "1000000", "--computing"]) == 0
    printed = capsys.readouterr().out
    assert "1,000,000 predictions a month: 197 GB sent by each party" in printed
    assert "Computing, on this machine: dealing" in printed


def report(tmp_path: Path, *links: tuple[str, str, float | None, float | None], parties: int = 2) -> Path:
    """As ``tessera check --json`` prints it."""
    servers = [{"name": "dealer", "role": "dealer"}, *({"name": f"p{i}", "role": "party"} for i in range(parties))]
    rows = [
        {"from": a, "to": b, "ok": True, "tcp": None, "round_trip_seconds": trip, "bytes_per_second": rate}
        for a, b, trip, rate in links
    ]
    path = tmp_path / "links.json"
    path.write_text(json.dumps({"cluster": "lesions", "client": "clinic", "servers": servers, "links": rows}))
    return path


LINKS = (
    ("p0", "p1", 0.010, 50e6), ("p1", "p0", 0.012, 40e6),
    ("dealer", "p0", 0.002, 90e6), ("dealer", "p1", 0.030, 80e6),
    ("clinic", "p0", 0.050, 3e6), ("p1", "clinic", 0.040, 2e6), ("clinic", "dealer", 0.045, 4e6),
)  # fmt: skip


def test_links_that_were_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A round waits for the slowest pair."""
    [(name, found)] = cost(capsys, "--links", str(report(tmp_path, *LINKS)))["latency"].items()
    assert name == "cluster lesions"
    assert found["servers"] == {"round_trip_ms": pytest.approx(12.0), "bandwidth_mbit": pytest.approx(320.0)}
    assert found["dealer"] == {"round_trip_ms": pytest.approx(30.0), "bandwidth_mbit": pytest.approx(640.0)}
    assert found["client"] == {"round_trip_ms": pytest.approx(50.0), "bandwidth_mbit": pytest.approx(16.0)}
    predicted = derm_model().cost((1, 3, 28, 28), 2)
    assert found["parts"]["delays"] == pytest.approx((predicted.online_rounds - 1) * 0.006)
    sent = 8 * sum(predicted.offline_dealer_bytes) / 640e6
    assert found["offline_seconds"] == pytest.approx(0.025 + 0.015 + sent + 0.025)


def test_the_parties_are_those_that_were_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [(a, "p2", 0.01, 50e6) for a in ("p0", "p1", "dealer", "clinic")]
    assert cost(capsys, "--links", str(report(tmp_path, *LINKS, *more, parties=3)))["parties"] == 3


@pytest.mark.parametrize(
    ("links", "sentence"),
    [
        ((), "no round trip and bandwidth of the links between p0, p1 and p0, p1"),
        (tuple((a, b, trip, None) for a, b, trip, _ in LINKS), "without --no-bandwidth"),
        (LINKS[:2], "between dealer and p0, p1"),
        (LINKS[:4], "between clinic and dealer, p0, p1"),
    ],
)
def test_links_that_were_not(tmp_path: Path, capsys: pytest.CaptureFixture[str], links: Any, sentence: str) -> None:
    assert main(["cost", "--links", str(report(tmp_path, *links))]) == 2
    assert sentence in capsys.readouterr().err


def test_files_that_are_no_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    assert main(["cost", "--links", str(path)]) == 2
    path.write_text("[]")
    assert main(["cost", "--links", str(path)]) == 2
    assert "is not what tessera check --json prints" in capsys.readouterr().err
    path = report(tmp_path, *LINKS)
    assert main(["cost", "--links", str(path), "--rtt", "4", "--bandwidth", "9"]) == 2
    assert "give the one or the others" in capsys.readouterr().err
    assert main(["cost", "--links", str(report(tmp_path, *LINKS, parties=1))]) == 2
    assert "1 dealers and 1 parties" in capsys.readouterr().err


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
