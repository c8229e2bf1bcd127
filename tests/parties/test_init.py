"""``tessera init``: files that work together, nothing overwritten, every answer checked at once."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mpc.errors import DiskFull
from mpc.security import Security
from parties import Cluster, KeyPair
from parties.commands.command_line import main
from parties.commands.init.dialogue import _converse
from parties.commands.init.plan import Plan, write
from parties.members.cluster import Role

BASE = ["init", "--name", "skin", "--dealer", "10.0.0.1:7000"]
PARTIES = ["--party", "hospital=10.0.0.2:7001", "--party", "university=10.0.0.3:7001"]
KEYS = {name: KeyPair.generate().public for name in ("dealer", "hospital", "university", "clinic-a")}


def init(*arguments: object) -> int:
    return main([*BASE, *PARTIES, *map(str, arguments)])


def test_files_by_flags(tmp_path, capsys):
    out = tmp_path / "new" / "skin"
    listen = "hospital=0.0.0.0:7001"
    assert init("--client", "clinic-a", "--security", "malicious", "--listen", listen, "--out", out, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    cluster = Cluster.load(out / "cluster.toml")
    assert found["fingerprint"] == cluster.fingerprint
    assert cluster.name == "skin"
    assert cluster.settings.security is Security.MALICIOUS
    assert [member.name for member in cluster.members] == ["dealer", "hospital", "university", "clinic-a"]
    assert cluster.parties[0].listen == "0.0.0.0:7001"
    for member in cluster.members:
        path = out / f"{member.name}.key"
        assert path.stat().st_mode & 0o777 == 0o600
        assert KeyPair.load(path).public == member.key
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["cluster.toml", "dealer.key", "hospital.key", "university.key", "clinic-a.key"]
    )


def test_the_private_keys_are_printed_nowhere(tmp_path, capsys):
    assert init("--client", "clinic-a", "--out", tmp_path) == 0
    told = "".join(capsys.readouterr())
    for path in tmp_path.glob("*.key"):
        assert KeyPair.load(path).secret not in told


def test_with_public_keys_nobodys_private_key_is_here(tmp_path, capsys):
    given = [word for name, key in KEYS.items() for word in ("--public-key", f"{name}={key}")]
    assert init("--client", "clinic-a", *given, "--out", tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.toml"]
    cluster = Cluster.load(tmp_path / "cluster.toml")
    assert {member.name: member.key for member in cluster.members} == KEYS
    told = capsys.readouterr().out
    assert "rm " not in told
    assert "tessera keygen hospital" in told


def test_what_to_do_next(tmp_path, capsys):
    assert init("--client", "clinic-a", "--public-key", f"dealer={KEYS['dealer']}", "--out", tmp_path) == 0
    lines = [line.split(":", 1)[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    file, key = tmp_path / "cluster.toml", tmp_path / "hospital.key"
    assert f"scp -p {file} 10.0.0.1:" in lines
    assert f"scp -p {file} {key} 10.0.0.2:" in lines
    assert f"rm {key}" in lines
    assert "tessera dealer --cluster cluster.toml --key dealer.key" in lines
    assert "tessera party 1 --cluster cluster.toml --key university.key" in lines
    assert "tessera check --cluster cluster.toml --key clinic-a.key" in lines


def test_the_commands_are_ones_that_exist(tmp_path, capsys):
    """Each is taken by the parser, and fails only for what is not there: an address of this machine."""
    assert init("--client", "clinic-a", "--out", tmp_path, "--json") == 0
    for member in json.loads(capsys.readouterr().out)["members"]:
        command = (member["start"] or member["check"]).split()
        assert command[0] == "tessera"
        words = [str(tmp_path / word) if word.endswith((".toml", ".key")) else word for word in command[1:]]
        if member["start"]:
            assert main(words) == 3
            assert "is not an address of this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--party", "hospital=10.0.0.4"], "a member called 'hospital' already"),
        (["--client", "hospital"], "a member called 'hospital' already"),
        (["--party", "dealer=10.0.0.4"], "a member called 'dealer' already"),
        (["--party", "third=10.0.0.2:7001"], "the address of hospital already"),
        (["--party", "third=10.0.0.2"], "the address of hospital already"),
        (["--party", "third=10.0.0.2:70011"], "out of range"),
        (["--party", "third=fd00::1:7001"], "in brackets"),
        (["--party", "third=ten point one"], "is not host:port"),
        (["--party", "third"], "is not NAME=ADDRESS"),
        (["--party", "../x=10.0.0.4"], "is not a name"),
        (["--client", "a b"], "is not a name"),
        (["--name", "a b"], "is not a name"),
        (["--listen", "nobody=0.0.0.0:1"], "no member is called 'nobody'"),
        (["--listen", "hospital=0.0.0.0"], "is not host:port"),
        (["--client", "c", "--listen", "c=0.0.0.0:1"], "does not listen"),
        (["--public-key", "hospital=abc"], "not a public key"),
        (["--public-key", f"nobody={KEYS['hospital']}"], "no member is called 'nobody'"),
        (
            ["--public-key", f"hospital={KEYS['dealer']}", "--public-key", f"dealer={KEYS['dealer']}"],
            "the same public key",
        ),
        (["--public-key", f"dealer={KEYS['dealer']}", "--public-key", f"dealer={KEYS['hospital']}"], "given twice"),
    ],
)
def test_what_is_refused_before_anything_is_written(tmp_path, capsys, arguments, sentence):
    out = tmp_path / "out"
    assert init(*arguments, "--out", out) == 3
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_cluster_has_two_parties(tmp_path, capsys):
    assert main([*BASE, "--party", "a=10.0.0.2", "--out", str(tmp_path)]) == 3
    assert "at least 2 parties" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys):
    assert init("--out", tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert init("--out", tmp_path) == 3
    assert "--out" in capsys.readouterr().err
    (tmp_path / "cluster.toml").unlink()
    assert init("--out", tmp_path) == 3
    told = capsys.readouterr().err
    assert "dealer.key exists" in told
    assert "--public-key dealer=KEY" in told
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == {
        path: content for path, content in before.items() if path.name != "cluster.toml"
    }


def test_all_or_nothing(tmp_path, monkeypatch):
    plan = Plan("skin")
    plan.add("dealer", Role.DEALER, "10.0.0.1")
    for name in ("a", "b"):
        plan.add(name, Role.PARTY, f"{name}.example")
    monkeypatch.setattr(Cluster, "dumps", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DiskFull, match=r"this host: .* cannot be written: the disk is full"):
        write(plan, tmp_path)
    assert not list(tmp_path.iterdir())


def test_servers_that_share_a_host_are_warned_of(tmp_path, capsys):
    assert main([*BASE, "--party", "a=10.0.0.1:7001", "--party", "b=10.0.0.2", "--out", str(tmp_path)]) == 0
    assert "dealer and a share the host 10.0.0.1" in capsys.readouterr().err


def test_missing_flags_without_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert main(["init", "--out", str(tmp_path)]) == 3
    assert "--name and --dealer and --party missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Typist:
    """Types the answers one after the other, and keeps the questions."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.questions: list[str] = []

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return self.answers.pop(0)


def options(**given: object):
    import argparse

    parser = argparse.ArgumentParser()
    from parties.commands.init.dialogue import add_arguments

    add_arguments(parser)
    found = parser.parse_args([])
    for name, value in given.items():
        setattr(found, name, value)
    return found


def test_asked_with_defaults_and_each_answer_checked_at_once(capsys):
    ask = Typist(
        "no good",  # the cluster's name
        "",
        "",  # the dealer's address has no default
        "10.0.0.1",
        "1",  # too few parties
        "2",
        "dealer",  # a name that is taken
        "",
        "10.0.0.1:7000",  # an address that is taken
        "10.0.0.2",
        "university",
        "10.0.0.3:7009",
        "",  # one client
        "university",  # taken
        "clinic",
        "safe",  # no such security
        "malicious",
        KEYS["dealer"][:-1],  # no key
        KEYS["dealer"],
        KEYS["dealer"],  # another member's
        "",
        "",
        "",
    )
    plan = Plan()
    _converse(plan, options(), ask)
    assert not ask.answers
    assert (plan.name, plan.security) == ("tessera", Security.MALICIOUS)
    assert [(entry.name, entry.address) for role in Role for entry in plan.of(role)] == [
        ("dealer", "10.0.0.1:7000"),
        ("party0", "10.0.0.2:7001"),
        ("university", "10.0.0.3:7009"),
        ("clinic", None),
    ]
    assert [entry.name for entry in plan.members if entry.key] == ["dealer"]
    told = capsys.readouterr().err
    for sentence in (
        "is not a name",
        "is not a number from 2",
        "already",
        "is not one of",
        "not a public key",
        "Recommended",
    ):
        assert sentence in told


def test_only_what_the_flags_leave_open_is_asked_for():
    ask = Typist("2", "a", "10.0.0.2", "b", "10.0.0.3")
    plan = Plan()
    given = {name: [f"{name}={key}" for name, key in {"dealer": KEYS["dealer"]}.items()] for name in ("public_key",)}
    with pytest.raises(IndexError):
        _converse(plan, options(name="skin", dealer="10.0.0.1", client=["c"], security="malicious", **given), ask)
    assert not any("Name of the cluster" in q or "client" in q.lower() or "Security" in q for q in ask.questions[:-1])
    assert ask.questions[-1].startswith("Public key of a")


def test_on_a_terminal(tmp_path):
    """The real thing, on a pseudo-terminal; stdout has the result alone."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "parties.commands.command_line", "init", "--out", str(tmp_path), "--json"]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    os.close(theirs)
    # More empty lines than questions are left: defaults all.
    os.write(ours, b"skin\n10.0.0.1\n2\n\n10.0.0.2\n\n10.0.0.3\n" + b"\n" * 10)
    out, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0, err
    assert json.loads(out)["cluster"] == "skin"
    assert b"How many parties [3]" in err
    assert Cluster.load(tmp_path / "cluster.toml").clients[0].name == "client"


def test_input_that_ends_early(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stdin, "readline", lambda: "", raising=False)
    assert main(["init", "--out", str(tmp_path)]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
