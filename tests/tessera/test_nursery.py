"""What the tests start as forks of a process that has imported is what a new interpreter would be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("said.py")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands a child over")


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def said(*arguments: str, cwd: Path) -> tuple[int, Any, str]:
    done = subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        input="a word", capture_output=True, text=True, cwd=cwd, env=environment(),
    )  # fmt: skip
    found, _, last = done.stdout.partition("\n")
    return done.returncode, json.loads(found) | {"last words": last}, done.stderr


@pytest.mark.parametrize("arguments", [(), ("signal", "9"), ("signal", "2"), ("signal", "15")], ids=" ".join)
def test_a_fork_finds_what_a_new_interpreter_finds(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE", "two\udcff")
    code, found, errors = said(*arguments, cwd=tmp_path)
    monkeypatch.setenv("TESSERA_TESTS_EXEC", "1")
    assert found["said to it"] == "a word"
    assert arguments or found["last words"] == "at its end"
    new_code, new, new_errors = said(*arguments, cwd=tmp_path)
    new["environment"].remove("TESSERA_TESTS_EXEC=1")
    assert {name: (found[name], new[name]) for name in new if found[name] != new[name]} == {}
    assert code == new_code
    assert errors.splitlines()[:1] == new_errors.splitlines()[:1] == ["of errors"]


def test_a_fork_has_imported_and_a_new_interpreter_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the comparison above is one of two things."""
    program = [sys.executable, str(PROGRAM.with_name("imported.py"))]
    assert subprocess.run(program, capture_output=True, text=True, env=environment()).stdout == "True\n"
    monkeypatch.setenv("TESSERA_TESTS_EXEC", "1")
    assert subprocess.run(program, capture_output=True, text=True, env=environment()).stdout == "False\n"


def test_it_is_a_child_to_wait_for_and_to_end() -> None:
    with subprocess.Popen([sys.executable, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.poll() is None
        process.kill()
        assert process.wait(60) == -9


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (["-c", "import sys; print('parties' in sys.modules)"], {}),
        ([str(PROGRAM.with_name("imported.py"))], {"env": {"PYTHONPATH": "/elsewhere"}}),
        ([str(PROGRAM.with_name("imported.py"))], {"env": {"OMP_NUM_THREADS": "2"}}),
    ],
    ids=["another program", "other packages", "more threads"],
)
def test_what_a_fork_could_not_be_is_a_new_interpreter(words: list[str], more: dict[str, Any]) -> None:
    assert subprocess.run([sys.executable, *words], capture_output=True, text=True, **more).stdout == "False\n"
