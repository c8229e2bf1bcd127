"""What the command says of itself: who uses what, examples that parse, completion for shells."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpc.errors import ConfigurationError
from parties.commands.catalogue import COMMANDS, GROUPS
from parties.commands.command_line import main, whole_parser
from parties.commands.completion import SHELLS
from parties.commands.examples import choosers

OURS = ("demo", "bench", "cost")
"""Those that plug in from another package of ours."""


@pytest.fixture(scope="module")
def parser() -> argparse.ArgumentParser:
    return whole_parser()


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (commands,) = choosers(parser)
    return dict(commands.choices)


def examples(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    for line in (parser.epilog or "").splitlines():
        if line.startswith("  tessera "):
            words = shlex.split(line)
            yield words[1 : words.index(">")] if ">" in words else words[1:]


def test_each_command_is_in_the_help_once_under_who_uses_it(parser: argparse.ArgumentParser) -> None:
    said = parser.format_help()
    places = [said.index(f"\n{group}:\n") for group in GROUPS]
    assert places == sorted(places)
    ends = [*places[1:], said.index("\noptions:")]
    for name in [*COMMANDS, *OURS]:
        (at,) = (found.start() for found in re.finditer(rf"^  {name}\b", said, re.M))
        group = COMMANDS[name].group if name in COMMANDS else GROUPS[-1]
        start, end = places[GROUPS.index(group)], ends[GROUPS.index(group)]
        assert start < at < end


@pytest.mark.parametrize("name", [*COMMANDS, *OURS])
def test_the_examples_of_a_command_are_calls_of_it(parser: argparse.ArgumentParser, name: str) -> None:
    calls = list(examples(commands_of(parser)[name]))
    assert calls
    for words in calls:
        assert words[0] == name
        assert parser.parse_args(words).run


def test_the_help_of_a_command_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["deny", "--help"])
    said = capsys.readouterr().out
    assert "Say no to who asks for a program, and why." in said
    assert "examples:\n  tessera deny 3f1c9a02 --why" in said


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_and_flags(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell, "--json"]) == 0
    script = json.loads(capsys.readouterr().out)["script"]
    assert "low" in script
    for name in [*COMMANDS, *OURS]:
        assert name in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pred"], {"predict"}),
        (["cl"], {"clinic", "cluster"}),
        (["allow", "--per"], {"--per-day", "--per-client"}),
        (["audit", "ver"], {"verify"}),
        (["completion", ""], set(SHELLS)),
    ],
)
def test_bash_completes(tmp_path: Path, words: list[str], expected: set[str]) -> None:
    script = tmp_path / "tessera.bash"
    script.write_text(
        subprocess.run(
            [sys.executable, "-m", "parties.commands.command_line", "completion", "bash"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    line = f"COMP_WORDS=(tessera {' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words)}; _shtab_tessera"
    asked = f'source {shlex.quote(str(script))}; {line}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert expected <= set(done.stdout.split())


def test_without_shtab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == ConfigurationError.exit_code
    assert "pip install 'tessera-mpc[completion]'" in capsys.readouterr().err
