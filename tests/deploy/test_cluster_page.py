"""docs/cluster.md, as its readers follow it: every command, on processes that are not restarted, with a host each."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import TesseraError
from nn.derm import samples
from parties import Client, Cluster, KeyPair
from parties.commands.command_line import parser_for
from parties.local.ports import reserved_ports
from parties.members.cluster_file import Settings
from parties.servers.process import READY

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/cluster.md").read_text()
BLOCK = re.compile(r"<!-- walk: (?P<host>\S+) -->\n```sh\n(?P<text>.*?)```", re.S)
SERVERS = ("dealer", "hospital", "university", "university-new", "institute")


def steps() -> list[tuple[str, list[str]]]:
    """Host and words of each command."""
    return [
        (block["host"], shlex.split(line)[1:])
        for block in BLOCK.finditer(PAGE)
        for line in block["text"].replace("\\\n", " ").splitlines()
    ]


def test_every_command_of_the_page_exists() -> None:
    commands = [words for _, words in steps()]
    commands += [shlex.split(found) for found in re.findall(r"`tessera ([a-z]+ [^`]*)`", PAGE) if "|" not in found]
    assert len(commands) > 25
    for words in commands:
        if words[-1] in ("propose", "rekey"):
            continue
        parser_for(words).parse_args(words)


class Hosts:
    """A folder for each member, and its server's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.public: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._ports = contextlib.ExitStack()
        ports = self._ports.enter_context(reserved_ports(len(SERVERS)))
        self.address = {name: f"127.0.0.1:{port}" for name, port in zip(SERVERS, ports, strict=True)}
        for name in ("dealer", "hospital", "university", "company", "clinic-a", "clinic-b", "institute"):
            self.host(name).mkdir()
            pair = KeyPair.generate()
            pair.save(self.host(name) / f"{name}.key")
            self.public[name] = pair.public
        for name in ("clinic-c",):
            self.host(name).mkdir()
        self.cluster = Cluster.build(
            "skin",
            dealer=(self.address["dealer"], self.public["dealer"]),
            parties=[(name, self.address[name], self.public[name]) for name in ("hospital", "university")],
            clients=[(name, self.public[name]) for name in ("company", "clinic-a", "clinic-b")],
            settings=Settings(threads=1, peer_timeout=2.0),
        )
        for path in self.folder.iterdir():
            (path / "cluster.toml").write_text(self.cluster.dumps())
            shutil.copy(samples()[0].path, path / "lesion.png")

    def host(self, name: str) -> Path:
        return self.folder / name

    def command(self, name: str, *words: str) -> dict[str, Any]:
        """Its JSON."""
        command = [sys.executable, "-m", "parties.commands.command_line", *words, "--json"]
        done = subprocess.run(
            command, cwd=self.host(name), env=_environment(), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (name, words, done.stdout, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def serve(self, name: str, *words: str) -> None:
        command = [sys.executable, "-m", "parties.commands.command_line", *words, "--until-stdin-closes"]
        log = (self.host(name) / "log").open("a")
        self.processes[name] = process = subprocess.Popen(
            command, cwd=self.host(name), env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY, (self.host(name) / "log").read_text()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.communicate(timeout=60)
        self._ports.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    try:
        made.serve("dealer", "dealer", "--cluster", "cluster.toml")
        made.serve("hospital", "party", "0", "--cluster", "cluster.toml")
        made.serve("university", "party", "1", "--cluster", "cluster.toml")
        yield made
    finally:
        made.stop()


@pytest.mark.slow
def test_the_page_is_as_it_says(hosts: Hosts) -> None:
    company = ["--cluster", "cluster.toml", "--key", "company.key"]
    clinic = ["--cluster", "cluster.toml", "--key", "clinic-a.key"]
    hosts.command("company", "upload", "derm", *company)
    hosts.command("company", "allow", "derm", "*", *company)
    hosts.command("clinic-a", "deal", "--model", "derm", "--count", "2", *clinic)
    first = hosts.command("clinic-a", "predict", "lesion.png", "--model", "derm", *clinic)
    running = {name: process.pid for name, process in hosts.processes.items()}
    said: dict[str, Any] = {}
    with Client(hosts.host("clinic-b") / "cluster.toml", hosts.host("clinic-b") / "clinic-b.key") as clinic_b:
        prepared = clinic_b.prepare(clinic_b.share(np.array([1.0])) * 2)
        for host, words in steps():
            said = step(hosts, host, words, said) or said
            if words[:2] == ["cluster", "accept"] and said["in_force"] and "client clinic-b goes" in said["changes"]:
                with pytest.raises(TesseraError):
                    clinic_b.finish(prepared)
            if words[0] == "predict":
                found = hosts.predictions[-1]  # type: ignore[attr-defined]
                assert found["predictions"][0]["class"] == first["predictions"][0]["class"]
    # The dealer and the hospital are the processes that they were, after all of it.
    assert all(hosts.processes[name].pid == running[name] for name in ("dealer", "hospital"))
    assert hosts.command("company", "cluster", "show", *company)["number"] == 6


def step(hosts: Hosts, host: str, words: list[str], said: dict[str, Any]) -> dict[str, Any] | None:
    """One command of the page; what it said, of one about cluster files."""
    if "with-institute.toml" in words:
        show = ["show", "--cluster", "cluster.toml", "--key", "company.key", "--out", "now.toml"]
        assert hosts.command("company", "cluster", *show)["number"] == 5
        text = (hosts.host("company") / "now.toml").read_text()
        lines = [line for line in text.splitlines() if not line.startswith(("number", "former"))]
        party = f'[[party]]\nname = "institute"\naddress = "{hosts.address["institute"]}"'
        party += f'\nkey = "{hosts.public["institute"]}"'
        at = lines.index("[[client]]")
        (hosts.host("dealer") / "with-institute.toml").write_text("\n".join([*lines[:at], party, *lines[at:]]))
    for name, address in hosts.address.items():
        words = [word.replace(f"{name}.example:7001", address) for word in words]
    words = [_key(hosts, word) for word in words]
    if words[0] == "party":
        if host == "university":
            assert hosts.processes[host].wait(60) == 3
            assert "tessera cluster rekey" in (hosts.host(host) / "log").read_text()
            hosts.processes[host].communicate()
        if host == "institute":
            shutil.copy(hosts.host("dealer") / "cluster-6.toml", hosts.host(host) / "cluster-6.toml")
        hosts.serve(host, *words)
        return None
    if "--fingerprint" in words:
        words[words.index("--fingerprint") + 1] = said["fingerprint"][:16]
    if "rekey" in words:
        hosts.processes[host].wait(60)
    found = hosts.command(host, *words)
    if words[0] == "keygen":
        hosts.public[words[1]] = KeyPair.load(hosts.host(host) / f"{words[1]}.key").public
    if "newest.toml" in words and "--out" in words:
        for other in hosts.folder.iterdir():
            if other.name != host:
                for path in hosts.host(host).glob("newest.toml*"):
                    shutil.copy(path, other / path.name)
    if words[0] == "predict":
        hosts.__dict__.setdefault("predictions", []).append(found)
    if words[:2] == ["cluster", "propose"]:
        nothing = "nothing has to be uploaded or dealt again"
        uploads = [line for line in found["consequences"] if "upload again" in line]
        other_circle = "with-institute.toml" in words
        assert uploads == (["company has to upload again: derm"] if other_circle else [])
        assert (nothing in found["consequences"]) is not other_circle
    return found if words[:2] in (["cluster", "propose"], ["cluster", "accept"]) else None


def _key(hosts: Hosts, word: str) -> str:
    """``NAME=...`` with the public key that was read out last."""
    name, equals, rest = word.partition("=")
    if not equals or rest != "...":
        return word
    return f"{name}={hosts.public.get(f'{name}-new', hosts.public.get(name))}"
