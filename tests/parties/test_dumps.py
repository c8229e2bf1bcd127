"""No way of starting leaves a core dump: of a process that the kernel kills where dumps are on, nothing is written."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parties import Client, Cluster, KeyPair, LocalCluster, MemoryCluster
from parties.host import dumps
from parties.local.ports import reserved_ports

SNIPPET = str(Path(__file__).parents[1] / "snippet.py")
SLEEP = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def cores_are_on() -> Iterator[None]:
    """For this process and those that it starts; skips the test where they cannot be seen to be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        if not hard or not leaves_core([sys.executable, "-c", SLEEP]):
            pytest.skip("this system writes no core dumps")
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def leaves_core(command: list[str], until: Callable[[], object] | None = None, cwd: Path | None = None) -> bool:
    """Whether the process, killed once it has printed a line or ``until`` returns, has left one."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=cwd) as process:
        assert process.stdout is not None
        if until is None:
            assert process.stdout.readline()
        else:
            until()
        process.send_signal(signal.SIGSEGV)
        _, status = os.waitpid(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == -signal.SIGSEGV
    for left in (cwd or Path()).glob("core*"):
        left.unlink()
    return os.WCOREDUMP(status)


def test_what_the_command_does_to_its_process(tmp_path: Path) -> None:
    code = (
        "import ctypes, resource, sys\n"
        "from parties.commands.command_line import main\n"
        "main(sys.argv[1:])\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0], ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    for words, dumpable in ((["keygen", "x", "--out", str(tmp_path)], "0"), (["cost", "--model", "none"], "1")):
        done = subprocess.run([sys.executable, SNIPPET, code, *words], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1].split() == ["0", dumpable], words


def test_a_client_and_servers_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr("parties.wire.transport.no_core_files", lambda: told.append(True))
    with MemoryCluster(2) as cluster, Client(cluster):
        assert len(told) == 4


def test_the_limit(cores_are_on: None) -> None:
    dumps.no_core_files()
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("words", [["dealer"], ["party", "0"], ["party", "1", "--observable"]], ids=" ".join)
def test_servers(cores_are_on: None, tmp_path: Path, words: list[str]) -> None:
    with reserved_ports(3) as ports:
        cluster, keys = _cluster([f"127.0.0.1:{port}" for port in ports])
        _written(tmp_path, cluster, keys)
        assert not leaves_core([sys.executable, "-m", "tessera", *words], cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["models", "check", "clinic"])
def test_clients(cores_are_on: None, tmp_path: Path, name: str) -> None:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        cluster, keys = _cluster([f"127.0.0.1:{one.getsockname()[1]}" for one in held])
        _written(tmp_path, cluster, keys)

        def asked() -> None:
            held[1].settimeout(60)
            held[1].accept()[0].close()

        assert not leaves_core([sys.executable, "-m", "tessera", name], asked, cwd=tmp_path)


@pytest.mark.slow
def test_those_of_a_local_cluster(cores_are_on: None) -> None:
    with LocalCluster(2) as cluster:
        for name, process in cluster.processes.items():
            process.send_signal(signal.SIGSEGV)
            _, status = os.waitpid(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert not os.WCOREDUMP(status), name


def _cluster(addresses: list[str]) -> tuple[Cluster, dict[str, KeyPair]]:
    keys = {name: KeyPair.generate() for name in ("dealer", "party0", "party1", "clinic")}
    dealer, *parties = addresses
    cluster = Cluster.build(
        "dumps",
        dealer=(dealer, keys["dealer"].public),
        parties=[(f"party{i}", address, keys[f"party{i}"].public) for i, address in enumerate(parties)],
        clients=[("clinic", keys["clinic"].public)],
    )
    return cluster, keys


def _written(folder: Path, cluster: Cluster, keys: dict[str, KeyPair]) -> None:
    (folder / "cluster.toml").write_text(cluster.dumps())
    for name, pair in keys.items():
        pair.save(folder / f"{name}.key")
