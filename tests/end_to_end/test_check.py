"""``tessera init`` and ``tessera check`` with real processes: what they write runs, and what is wrong is found."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mpc.errors import DiskFull
from parties import Client, Cluster, KeyPair, LocalCluster
from parties.servers.process import READY

ROOT = str(Path(__file__).resolve().parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}


def tessera(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parties.commands.command_line", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=cwd,
        env=ENVIRONMENT,
    )


def check(cluster: LocalCluster, *more: object) -> tuple[int, dict]:
    key = cluster.key_path("clinic")
    done = tessera("check", "--cluster", cluster.path, "--key", key, "--json", "--timeout", 3, *more)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def failing(report: dict) -> set[tuple[str, str]]:
    return {(link["from"], link["to"]) for link in report["links"] if not link["ok"]}


def works(cluster: LocalCluster) -> None:
    with Client(cluster) as client:
        assert client.reveal(client.share([2.0], low=-4, high=4) * 2) == pytest.approx([4.0], abs=1e-3)


def test_all_is_well_while_runs_go_on(breakable):
    works(breakable)
    code, report = check(breakable)
    assert code == 0, report["failures"]
    assert len(report["links"]) == 12
    assert all(link["ok"] and link["bytes_per_second"] > 0 for link in report["links"])
    assert report["fingerprint"] == Cluster.load(breakable.path).fingerprint
    works(breakable)


def test_a_party_that_is_down(breakable):
    breakable.processes["party1"].kill()
    breakable.processes["party1"].wait()
    code, report = check(breakable, "--no-bandwidth")
    assert code == 6
    assert failing(report) == {("clinic", "party1"), ("dealer", "party1"), ("party0", "party1")}
    assert len(report["failures"]) == 1
    assert "connection refused" in report["failures"][0]
    breakable.start_process("party1")
    code, report = check(breakable, "--no-bandwidth")
    assert code == 0, report["failures"]


@pytest.mark.slow
def test_a_party_that_is_frozen(breakable):
    breakable.processes["party1"].send_signal(signal.SIGSTOP)
    try:
        code, report = check(breakable, "--no-bandwidth")
    finally:
        breakable.processes["party1"].send_signal(signal.SIGCONT)
    assert code == 6
    assert ("clinic", "party1") in failing(report)
    assert ("party0", "party1") in failing(report)
    assert ("party0", "dealer") not in failing(report)
    assert any("frozen" in failure for failure in report["failures"])
    works(breakable)


def test_a_store_that_takes_no_more(breakable):
    """A limit on the size of files, set on the running process, stands in for a full disk."""
    process = breakable.processes["party0"]
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        code, report = check(breakable, "--no-bandwidth")
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
    assert code == 11
    (failure,) = report["failures"]
    assert failure.startswith("party0: its data folder cannot be written (File too large)")
    assert not failing(report)
    # The audit log may have been written to meanwhile: the next attempt is a moment away.
    deadline = time.monotonic() + 20
    while True:
        try:
            works(breakable)
            break
        except DiskFull:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_store_that_another_process_holds(breakable):
    """The second one does not start, and says why; the first goes on."""
    cluster = Cluster.load(breakable.path)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
    elsewhere = replace(cluster, parties=(replace(cluster.parties[0], address=address), cluster.parties[1]))
    path = breakable.folder / "elsewhere.toml"
    path.write_text(elsewhere.dumps())
    done = tessera("party", 0, "--cluster", path, "--data", breakable.data_path("party0"))
    assert done.returncode == 3
    assert "is open in another process: end that one first" in done.stderr
    works(breakable)


@contextlib.contextmanager
def started(folder: Path, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "parties.commands.command_line", *map(str, arguments), "--until-stdin-closes"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=ENVIRONMENT
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def hosts(tmp_path: Path) -> dict[str, Path]:
    """Four "hosts", each with what `tessera init` says belongs there, and nothing else: keys are made on each."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    folders = {name: tmp_path / name for name in ("dealer", "hospital", "university", "clinic")}
    keys = []
    for name, folder in folders.items():
        folder.mkdir()
        made = json.loads(tessera("keygen", name, "--json", cwd=folder).stdout)
        keys += ["--public-key", f"{name}={made['public']}"]
    parties = ["--party", f"hospital={addresses[1]}", "--party", f"university={addresses[2]}"]
    out = tmp_path / "out"
    done = tessera(
        "init", "--name", "skin", "--dealer", addresses[0], *parties, "--client", "clinic", *keys, "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in out.iterdir()] == ["cluster.toml"]
    for folder in folders.values():
        (folder / "cluster.toml").write_bytes((out / "cluster.toml").read_bytes())
    return folders


SERVERS = {"dealer": ["dealer"], "hospital": ["party", 0], "university": ["party", 1]}


def look(hosts: dict[str, Path]) -> tuple[int, dict]:
    done = tessera("check", "--timeout", 3, "--no-bandwidth", "--json", cwd=hosts["clinic"])
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_from_keygen_and_init_to_a_check(hosts):
    with contextlib.ExitStack() as stack:
        for name, role in SERVERS.items():
            stack.enter_context(started(hosts[name], *role, "--cluster", "cluster.toml", "--key", f"{name}.key"))
        code, report = look(hosts)
        assert code == 0, report["failures"]
        done = tessera("check", cwd=hosts["clinic"])
        assert done.returncode == 0
        assert "all links, both ways" in done.stdout
        assert "university" in done.stdout


@pytest.mark.slow
def test_a_party_with_the_wrong_key(hosts):
    """It made its key anew, and corrected its own copy of the cluster file only."""
    keys = KeyPair.generate()
    university = hosts["university"]
    (university / "university.key").unlink()
    keys.save(university / "university.key")
    cluster = Cluster.load(university / "cluster.toml")
    hospital, own = cluster.parties
    (university / "cluster.toml").write_text(
        replace(cluster, parties=(hospital, replace(own, key=keys.public))).dumps()
    )
    with contextlib.ExitStack() as stack:
        for name, role in SERVERS.items():
            stack.enter_context(started(hosts[name], *role))
        code, report = look(hosts)
    assert code == 9
    assert failing(report) == {(who, "university") for who in ("clinic", "dealer", "hospital")}
    assert any("does not hold the key that the cluster file lists" in failure for failure in report["failures"])


@pytest.mark.slow
def test_another_cluster_file(hosts):
    path = hosts["university"] / "cluster.toml"
    path.write_text(path.read_text().replace("round_timeout = 60.0", "round_timeout = 61.0"))
    with contextlib.ExitStack() as stack:
        for name, role in SERVERS.items():
            stack.enter_context(started(hosts[name], *role))
        code, report = look(hosts)
    assert code == 10
    assert failing(report) == {(who, "university") for who in ("clinic", "dealer", "hospital")}
    assert any("give every process the same file" in failure for failure in report["failures"])


@pytest.mark.slow
def test_nothing_at_all_is_up(hosts):
    code, report = look(hosts)
    assert code == 6
    assert len(report["failures"]) == 3
    assert all(link["tcp"] == "refused" for link in report["links"])
