"""docs/guides/three-hosts.md, as its readers follow it, with all hosts on this one."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parties import KeyPair
from parties.local.ports import reserved_ports
from parties.servers.process import READY

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/guides/three-hosts.md").read_text()
COMMANDS = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
(PYTHON,) = re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PRINTED = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
MEMBERS = ("dealer", "hospital", "university", "company", "clinic")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TESSERA = [sys.executable, "-m", "parties.commands.command_line"]


def steps(folder: Path, ports: list[int]) -> Iterator[list[str]]:
    """Its commands, on addresses of this host, with the keys that there are when each is typed."""
    lines = [line for line in COMMANDS.splitlines() if line]
    for line in [f"tessera keygen {name}" for name in MEMBERS] + lines[1:]:
        for host, port in enumerate(ports, 1):
            line = re.sub(rf"10\.0\.0\.{host}:\d+", f"127.0.0.1:{port}", line)
        words = shlex.split(line)[1:]
        for place, word in enumerate(words):
            name, equals, rest = word.partition("=")
            if equals and rest == "...":
                words[place] = f"{name}={KeyPair.load(folder / f'{name}.key').public}"
        yield words


@pytest.mark.slow
def test_the_page_leads_to_an_answer(tmp_path: Path) -> None:
    (tmp_path / "nn").symlink_to(ROOT / "nn")
    printed = ""
    with contextlib.ExitStack() as running:
        for words in steps(tmp_path, running.enter_context(reserved_ports(3))):
            if words[0] in ("dealer", "party"):
                command = [*TESSERA, *words, "--until-stdin-closes"]
                process = subprocess.Popen(
                    command, cwd=tmp_path, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                running.callback(process.communicate, timeout=60)
                running.callback(process.terminate)
                assert process.stdout is not None
                assert process.stdout.readline().strip() == READY
                continue
            done = subprocess.run(
                [*TESSERA, *words], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, (words, done.stdout, done.stderr)
            printed += done.stdout
            if words[0] == "init":
                shutil.copy(tmp_path / "skin" / "cluster.toml", tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", PYTHON], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
    said = (printed + done.stdout).splitlines()
    assert [line for shown in PRINTED for line in shown.splitlines() if line not in said] == []
