"""Records: a file of them, and what counts as worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.records import Record, Recorder, compare, read, spread, write
from mpc.errors import ConfigurationError, TesseraError

CASE = {"model": "derm", "batch": 1, "shape": [3, 28, 28]}


def record(figures: dict[str, Any], case: dict[str, Any] | None = None, **others: Any) -> Record:
    return Record("inference", CASE if case is None else case, figures, **others)


def changed(old: Any, new: Any, name: str = "online.seconds") -> bool | None:
    """Whether it got worse; None where nothing changed."""
    changes = compare([record({name: new})], [record({name: old})])
    assert len(changes) <= 1
    return changes[0].worse if changes else None


def test_a_file_of_records(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = record({"online.rounds": 7, "online.seconds": spread([1.0, 3.0, 2.0])})
    second = record({"online.bytes": np.int64(8), "error": np.float64(0.5)}, {"side": np.int64(28)})
    write(path, [first])
    write(path, [second])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["format"] for line in lines] == [1, 1]
    assert lines[0].keys() == {"format", "bench", "case", "figures", "machine", "version", "time"}
    assert lines[0]["figures"]["online.seconds"] == {"median": 2.0, "min": 1.0, "max": 3.0, "count": 3}
    again = read(path)
    assert again[0] == first
    assert again[1].figures == {"online.bytes": 8, "error": 0.5}
    assert again[1].key == second.key == record({}, {"side": 28}).key


@pytest.mark.parametrize(
    ("old", "new", "worse"),
    [
        (100, 101, True),
        (100, 99, False),
        (100, 100, None),
        (0, 3, True),
        # Measured once: 10 % is noise.
        (1.0, 1.09, None),
        (1.0, 1.2, True),
        (1.0, 0.8, False),
        # Spreads: beyond the old range, and by more than 10 %.
        (spread([1.0, 1.0, 1.5]), spread([1.4]), None),
        (spread([1.0, 1.0, 1.5]), spread([1.6]), True),
        (spread([1.0, 1.0, 1.01]), spread([1.05]), None),
        (spread([0.9, 1.0, 1.5]), spread([0.91, 0.7, 0.8]), False),
        # An exact figure that has become a measured one cannot be compared.
        (1, spread([5.0]), None),
    ],
)
def test_what_counts_as_worse(old: Any, new: Any, worse: bool | None) -> None:
    assert changed(old, new) is worse


@pytest.mark.parametrize("name", ["agree", "plain.agree", "images_per_second", "accuracy"])
def test_of_some_figures_more_is_better(name: str) -> None:
    assert changed(10, 9, name) is True
    assert changed(10, 11, name) is False


def test_only_the_same_thing_is_compared_and_with_the_last() -> None:
    old = [record({"rounds": 1}), record({"rounds": 7}), record({"rounds": 1}, {**CASE, "batch": 2})]
    assert compare([record({"rounds": 7, "bytes": 5})], old) == []
    assert compare([record({"rounds": 9}, {"other": 1})], old) == []
    reordered = dict(reversed(CASE.items()))
    [change] = compare([record({"rounds": 8}, reordered)], old)
    assert (change.figure, change.old, change.new, change.worse) == ("rounds", 7, 8, True)
    assert str(change).startswith("worse: inference (shape [3, 28, 28], batch 1, model derm): rounds 7 -> 8 (+14.3%)")


def test_times_of_another_machine_are_not_compared() -> None:
    old = record({"rounds": 7, "seconds": 1.0, "cpu": spread([1.0])}, machine={"processor": "abacus"})
    new = record({"rounds": 8, "seconds": 9.0, "cpu": spread([9.0])})
    assert [change.figure for change in compare([new], [old])] == ["rounds"]


def test_worse_comes_first() -> None:
    old, new = record({"a": 2, "b": 2, "c": 2}), record({"a": 1, "b": 3, "c": 1})
    assert [c.figure for c in compare([new], [old])] == ["b", "a", "c"]


@pytest.mark.parametrize("strict", [False, True])
def test_recorder_writes_at_once_and_compares_in_the_end(
    strict: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "all.jsonl"
    write(path, [record({"rounds": 7, "bytes": 9, "seconds": 1.0}, machine={"processor": "abacus"})])
    # The same file: compared with what was there before.
    recorder = Recorder(path, path, strict=strict)
    recorder.add("inference", CASE, {"rounds": 8, "bytes": 8, "seconds": 0.5})
    recorder.add("inference", {"new": 1}, {"rounds": 1})
    assert read(path)[-1].figures == {"rounds": 1}
    recorder.print_json({"rows": []})
    assert recorder.finish() == int(strict)
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert said.pop("rows") == []
    assert said == (TesseraError("1 figures got worse than they were").to_dict() if strict else {})
    assert "worse: inference" in printed.err
    assert "1 of 2 measurements have no counterpart" in printed.err
    assert "of another machine" in printed.err
    assert "1 figures got worse, 1 better\n" in printed.err
    assert printed.err.endswith("tessera: 1 figures got worse than they were\n") == strict


def test_recorder_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder()
    recorder.add("inference", CASE, {"rounds": 8})
    assert (recorder.finish(), capsys.readouterr().err) == (0, "")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{}", "line 1 of .* is not a measurement"),
        ("[1]", "is not a measurement"),
        ("text", "is not a measurement"),
        ('{"format": 2}', "another format than 1"),
        ('{"format": 1, "bench": "x", "case": 1, "figures": {}}', "is not a measurement"),
    ],
)
def test_a_file_that_holds_something_else(line: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ConfigurationError, match=sentence):
        read(path)


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read from .*: No such file"):
        Recorder(against=tmp_path / "none.jsonl")
    with pytest.raises(ConfigurationError, match=r"cannot be written: No such file"):
        Recorder(out=tmp_path / "nowhere" / "out.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="it is not text"):
        read(tmp_path / "binary")
