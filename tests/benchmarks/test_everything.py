"""``tessera bench all``: one file, and one that fails keeps no other from being run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import everything
from benchmarks.records import read
from parties.commands.command_line import main


def test_the_plan_is_of_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (*everything.PLAN, *everything.QUICK):
        with pytest.raises(SystemExit) as end:
            main(["bench", *words, "--help"])
        assert end.value.code == 0, words
        capsys.readouterr()


@pytest.mark.slow
def test_one_file_and_others_run_when_one_fails(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels = ("kernels", "--repeat", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(everything, "PLAN", (("inference", "--parties", "1"), kernels))
    assert main(["bench", "all"]) == 2
    printed = capfd.readouterr()
    assert "matmul of side" in printed.out
    assert "1 measurements in tessera-bench.jsonl" in printed.out
    assert "[2/2] tessera bench kernels --repeat 1" in printed.err
    assert "tessera: 1 parties: additive sharing needs at least 2" in printed.err
    assert "tessera bench inference --parties 1 ended with 2" in printed.err
    assert [r.bench for r in read(Path("tessera-bench.jsonl"))] == ["kernels"]

    monkeypatch.setattr(everything, "PLAN", (kernels,))
    assert main(["bench", "all", "--json", "--against", "tessera-bench.jsonl"]) == 0
    printed = capfd.readouterr()
    assert printed.out.count("\n") == 1
    summary: dict[str, Any] = json.loads(printed.out)
    assert (summary["out"], summary["records"]) == ("tessera-bench.jsonl", 1)
    assert [row["exit_code"] for row in summary["benches"]] == [0]
    assert "figures got worse" in printed.err
    assert len(read(Path("tessera-bench.jsonl"))) == 2
