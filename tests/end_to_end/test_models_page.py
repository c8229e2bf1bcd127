"""docs/models.md, followed to the letter: its files are written, its commands are typed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from parties import LocalCluster

PAGE = (Path(__file__).parents[2] / "docs/models.md").read_text()
FILES = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"<!-- commands -->\n```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_its_commands(clusters: Callable[..., LocalCluster], tmp_path: Path) -> None:
    cluster = clusters(2)
    assert [name for name, _ in FILES] == ["risk.py", "people.json", "rows.csv"]
    for name, content in FILES:
        (tmp_path / name).write_text(content)
    printed = []
    for line in "".join(COMMANDS).splitlines():
        first, *words = shlex.split(line)
        assert first == "tessera"
        command = [
            sys.executable,
            "-m",
            "tessera",
            *words,
            "--cluster",
            cluster.path,
            "--key",
            cluster.key_path("company"),
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    uploaded, dealt, answers, as_json = printed
    assert "risk is stored" in uploaded
    assert "10 runs dealt" in dealt
    assert [re.sub(r"\d+%", "p", line) for line in answers.splitlines()] == [
        f"rows.csv[{i}]: {one['class']} (p)" for i, one in enumerate(json.loads(as_json)["predictions"])
    ]
    assert json.loads(as_json)["classes"] == ["low", "middle", "high"]
