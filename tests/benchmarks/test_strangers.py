"""``tessera bench strangers``: its figures, its records, and that the attacks are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import members
from benchmarks.attacks import ATTACKS, OPENINGS, command, greeting
from benchmarks.records import read
from mpc.errors import UsageError
from parties.commands.command_line import main


def test_the_bytes_of_zmtp() -> None:
    assert len(greeting()) == len(greeting("NULL", as_server=True)) == 64
    assert greeting()[12:20] == b"CURVE\0\0\0"
    assert greeting(as_server=True)[32] == 1
    assert command(b"x" * 255)[:2] == b"\x04\xff"
    assert command(b"x" * 256)[:9] == b"\x06" + (256).to_bytes(8, "big")
    assert len({name: opening() for name, opening in OPENINGS.items()}) == len(OPENINGS)


def test_an_attack_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "strangers", "siege"]) == UsageError.exit_code
    assert "there is no attack called 'siege': there are 'no key'" in capsys.readouterr().err


@pytest.mark.slow
def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, names = tmp_path / "out.jsonl", ["replayed handshake", "slow-loris"]
    arguments = ["bench", "strangers", *names, "--seconds", "1", "--rate", "50", "--connections", "30"]
    assert main([*arguments, "--json", "--out", str(path)]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert list(summary["attacks"]) == names
    for name, found in summary["attacks"].items():
        server, strangers = found["server"], found["strangers"]
        assert found["failures"] == 0
        assert strangers["opened"] >= 20
        assert found["attacked"]["online_seconds"]["count"] > 1
        assert found["quiet"]["p99_seconds"] >= found["quiet"]["online_seconds"]["median"] > 0
        assert found["ratio"]["online_seconds"] > 0
        assert server["descriptors_after"] <= server["descriptors_before"] + 2
        assert server["descriptors_during"] >= server["descriptors_before"] + 20 * (name == "slow-loris")
        assert server["peak_bytes"] >= server["resident_bytes_before"] / 2 > 0
        assert server["log_lines"] <= 6
    replayed = summary["attacks"]["replayed handshake"]["strangers"]
    assert replayed["closed"] >= 20, "the server shows them the door"
    assert [record.case["attack"] for record in read(path)] == names
    assert "ratio.online_seconds" in read(path)[0].figures


@pytest.mark.slow
def test_figures_of_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, names = tmp_path / "out.jsonl", ["flood of rules", "burnt stock", "false ids"]
    assert main(["bench", "strangers", *names, "--seconds", "2", "--pairs", "1", "--json", "--out", str(path)]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert list(summary["members"]) == names
    assert summary["attacks"] == {}
    for found in summary["members"].values():
        assert found["failures"] == found["burnt"] == 0
        assert 0 < found["server"]["peak_bytes"] <= (members.MEMORY + members.SLACK) << 20
        assert found["ratio"]["p99_seconds"] > 0
        assert found["server"]["cpu"] < 2
    assert summary["members"]["flood of rules"]["attackers"]["refused"]["ServerBusy"] > 0
    assert [record.case["attack"] for record in read(path)] == names


@pytest.mark.slow
def test_every_attack(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "strangers", *ATTACKS, "--seconds", "6", "--rate", "100"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ATTACKS)
