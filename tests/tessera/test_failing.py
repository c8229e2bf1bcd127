"""Every command that fails says so in one way: a sentence, its code, and with ``--json`` an object; Ctrl-C likewise."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import itertools
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpc.errors import DiskFull, NotPermitted, ServerBusy, TesseraError, TooLarge
from parties import Cluster, KeyPair
from parties.commands import keygen
from parties.commands.command_line import COMMANDS, INTERRUPTED, main, whole_parser
from parties.commands.examples import choosers
from tessera.__main__ import INTERRUPTED as INTERRUPTED_EARLY

(COMMANDS_OF,) = (chooser.choices for chooser in choosers(whole_parser()))
PLUGGED_IN = sorted(entry.name for entry in importlib.metadata.entry_points(group="tessera.commands"))
EVERY = [*COMMANDS, *PLUGGED_IN]
BELOW = [[name, below] for name in EVERY for chooser in choosers(COMMANDS_OF[name]) for below in chooser.choices]
"""Such as ``tessera bench soak``, and ``tessera cluster show``."""
FIELDS = {"error", "code", "member", "message", "advice"}


def failure(printed: str) -> dict[str, Any]:
    """The one object that was printed."""
    found: dict[str, Any] = json.loads(printed)
    assert set(found) >= FIELDS
    assert found["advice"]
    return found


@pytest.mark.sampled(4)
@pytest.mark.parametrize("words", [[name] for name in EVERY] + BELOW, ids=" ".join)
def test_arguments_that_make_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json", "--no-such-option", "x"]) == 2
    printed = capsys.readouterr()
    found = failure(printed.out)
    assert (found["error"], found["code"], found["member"]) == ("UsageError", 2, None)
    assert printed.err.splitlines()[-1] == f"tessera: {found['message']}"
    assert main([*words, "--no-such-option", "x"]) == 2
    assert capsys.readouterr().out == ""


MISSING = {
    "party": ["0"],
    "predict": ["x.png"],
    "deal": ["--count", "1"],
    "upload": ["m"],
    "allow": ["m", "c"],
    "rm": ["m"],
}
"""What else commands want that read a cluster file."""
WRONG = {
    "keygen": ["../x"],
    "doctor": ["--cluster", "nothing.toml"],
    "init": ["--name", "x"],
    "demo": ["--parties", "1"],
    "cost": ["--model", "other"],
    "bench": ["inference", "--parties", "1"],
}
"""What is wrong for others."""


@pytest.mark.parametrize("name", EVERY)
def test_every_command_says_in_json_what_failed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = main([name, *WRONG.get(name, MISSING.get(name, [])), "--json"])
    printed = capsys.readouterr()
    found = failure(printed.out)
    assert found["code"] == code > 0
    assert found["member"] is None
    assert f"tessera: {found['message']}" in printed.err
    assert name not in MISSING or found["error"] == "ConfigurationError"


@pytest.mark.parametrize(
    ("raised", "wanted", "member"),
    [
        (NotPermitted("its owner has to allow it"), NotPermitted, None),
        (ServerBusy("party1", "has much to do"), ServerBusy, "party1"),
        (type("Local", (TooLarge,), {})("party1", "is small"), TooLarge, "party1"),
        (type("Local", (TesseraError,), {})("one of a package's own"), TesseraError, None),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), DiskFull, None),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFull, None),
        (MemoryError(), TooLarge, None),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_whatever_fails(
    raised: Exception,
    wanted: type[TesseraError],
    member: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _raising(raised, monkeypatch)
    assert main(["keygen", "x", "--json"]) == wanted.exit_code
    printed = capsys.readouterr()
    found = failure(printed.out)
    assert (found["error"], found["code"], found["member"]) == (wanted.__name__, wanted.exit_code, member)
    assert found["advice"] == wanted.advice
    assert "Traceback" not in printed.err


def test_a_fault_of_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An object for the program that asked, and Python's own words for whoever mends it."""
    _raising(KeyError("secret"), monkeypatch)
    with pytest.raises(KeyError):
        main(["keygen", "x", "--json"])
    printed = capsys.readouterr().out
    assert failure(printed)["code"] == 1
    assert "KeyError" in printed
    assert "secret" not in printed


def test_a_full_disk_under_the_output(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tessera", "keygen", "x", "--json", "--out", str(tmp_path)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == DiskFull.exit_code
    assert done.stderr == "tessera: this host: the output cannot be written: the disk is full\n"


def _raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: object) -> int:
        raise error

    monkeypatch.setattr(keygen, "run", run)


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_it_is_told_alike_early_and_late(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _raising(KeyboardInterrupt(), monkeypatch)
    assert main(["keygen", "x", "--json"]) == INTERRUPTED
    printed = capsys.readouterr()
    assert printed.out.encode() == INTERRUPTED_EARLY
    assert failure(printed.out)["code"] == INTERRUPTED
    assert printed.err == ""


MOMENTS = ["numpy.version", "numpy.linalg", "msgspec", "zmq.backend", "numba.core", "parties.members.keys", "parties"]
"""Modules after whose import the interrupt comes."""


LOADED = list(zip(EVERY, itertools.cycle(MOMENTS), itertools.cycle([True, False]), strict=False))
FIRST = len(MOMENTS)
"""Of these there is each moment, with or without an object."""


@pytest.mark.parametrize(
    ("name", "moment", "as_json"),
    [*LOADED[:FIRST], *(pytest.param(*case, marks=pytest.mark.slow) for case in LOADED[FIRST:])],
    ids=lambda value: str(value),
)
def test_while_it_is_loaded(name: str, moment: str, as_json: bool) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tessera", name, *(["--json"] if as_json else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == moment:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "Traceback" not in err
    assert out.encode() == (INTERRUPTED_EARLY if as_json else b"")


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[tuple[Path, socket.socket]]:
    """A cluster file and a client's key in a folder; where its servers should be, somebody listens and says nothing."""
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        dealer, *parties = (f"127.0.0.1:{one.getsockname()[1]}" for one in listening)
        key = KeyPair.generate()
        key.save(tmp_path / "clinic.key")
        others = [KeyPair.generate().public for _ in range(3)]
        cluster = Cluster.build(
            "silent",
            dealer=(dealer, others[0]),
            parties=[(f"party{i}", address, others[1 + i]) for i, address in enumerate(parties)],
            clients=[("clinic", key.public)],
        )
        (tmp_path / "cluster.toml").write_text(cluster.dumps())
        yield tmp_path, listening[1]


@pytest.mark.parametrize(
    "words",
    [
        ["models"],
        pytest.param(["check"], marks=pytest.mark.slow),
        pytest.param(["status"], marks=pytest.mark.slow),
        pytest.param(["deal", "--count", "1"], marks=pytest.mark.slow),
        pytest.param(["upload", "derm"], marks=pytest.mark.slow),
        pytest.param(["allow", "derm", "clinic"], marks=pytest.mark.slow),
        pytest.param(["rm", "derm"], marks=pytest.mark.slow),
    ],
    ids=lambda words: words[0],
)
def test_while_it_waits_for_servers(silent: tuple[Path, socket.socket], words: list[str]) -> None:
    folder, listening = silent
    command = [sys.executable, "-m", "tessera", *words, "--json", "--timeout", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder) as process:
        listening.settimeout(60)
        listening.accept()[0].close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out.encode()) == (INTERRUPTED, INTERRUPTED_EARLY)
    assert "Traceback" not in err
