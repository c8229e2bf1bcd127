"""``LocalCluster``: processes that start together, and are gone, with their folder, however it ends."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from mpc.errors import PeerUnavailable, UsageError
from mpc.rings import threads
from parties import Client, LocalCluster, Settings
from parties.commands.serving import server_arguments
from parties.local import local_cluster as local
from parties.local.ports import reserved_ports
from parties.servers import process

ROOT = Path(__file__).resolve().parents[2]
SNIPPET = str(ROOT / "tests" / "snippet.py")


def gone(pids: Iterable[int], folder: Path, within: float = 10.0) -> bool:
    """Whether the processes and the folder are, by then."""
    deadline = time.monotonic() + within
    while any(_alive(pid) for pid in pids) or folder.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"parties": 1}, "at least 2"),
        ({"security": "perfect"}, "semi-honest"),
        ({"clients": ()}, "at least one"),
    ],
)
def test_what_makes_no_cluster(arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        LocalCluster(**arguments)


def test_not_running():
    cluster = LocalCluster()
    assert "not running" in repr(cluster)
    for use in (lambda: cluster.path, cluster.client_key, lambda: Client(cluster)):
        with pytest.raises(UsageError, match="`with` statement"):
            use()
    cluster.close()


def test_life_of_a_cluster(monkeypatch):
    # No forks of a process that has imported: they start as they do for everybody.
    monkeypatch.setenv("TESSERA_TESTS_EXEC", "1")
    with pytest.raises(ZeroDivisionError), LocalCluster(2, clients=("clinic", "company"), verbose=True) as cluster:
        folder, pids = cluster.folder, [process.pid for process in cluster.processes.values()]
        assert "3 processes" in repr(cluster)
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077 == 0} >= {
            "dealer.key", "party0.key", "party1.key", "clinic.key", "company.key",
        }  # fmt: skip
        assert "BLAS" not in repr(cluster.client_keys)
        assert cluster.client_key() == cluster.client_keys["clinic"]
        with pytest.raises(UsageError, match="no client called 'nobody': it has clinic, company"):
            Client(cluster, name="nobody")
        with Client(cluster, name="company") as client:
            client.reveal(client.share([1.0]) * 2)
        # In place of one that still runs: the old one ends.
        monkeypatch.delenv("TESSERA_TESTS_EXEC")
        cluster.start_process("party1")
        assert not _alive(pids[2])
        pids.append(cluster.processes["party1"].pid)
        with Client(cluster) as client:
            assert client.reveal(client.share([1.0]) * 2) == pytest.approx([2.0], abs=1e-3)
        assert "is over; 0 in progress" in cluster.log_tail("party0")
        raise ZeroDivisionError
    assert gone(pids, folder)
    cluster.close()


def test_a_port_in_use_is_told_and_nothing_is_left(monkeypatch):
    with reserved_ports(3) as ports, socket.create_server(("127.0.0.1", ports[1])):
        monkeypatch.setattr(local, "reserved_ports", lambda _: contextlib.nullcontext(ports))
        cluster = LocalCluster(2)
        with pytest.raises(PeerUnavailable, match=f"did not start: .*port {ports[1]} .*already in use") as caught:
            cluster.__enter__()
    assert caught.value.peer == "party0"
    assert not cluster.processes
    with pytest.raises(UsageError):
        _ = cluster.folder


def test_a_frozen_process_does_not_hold_the_end_up():
    with LocalCluster(2, settings=Settings(threads=1)) as cluster:
        folder, pids = cluster.folder, [process.pid for process in cluster.processes.values()]
        for pid in pids:
            os.kill(pid, 19)
        started = time.monotonic()
    assert time.monotonic() - started < 2.5 * local.GRACE, "one after the other would take three times as long"
    assert gone(pids, folder)


PARENT = """
import os, signal, sys, time
# Not what we inherit: a background job of a shell ignores SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
{before}
from parties import LocalCluster
with LocalCluster(2) as cluster:
    print(cluster.folder, *(p.pid for p in cluster.processes.values()), sep=chr(10), flush=True)
    {then}
    time.sleep(20)
"""
IGNORING = "for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)"


def run_parent(then: str, before: str = "") -> tuple[int, str, list[int]]:
    """Exit code, folder and children of a process that makes a cluster and does ``then``."""
    done = subprocess.run(
        [sys.executable, SNIPPET, PARENT.format(then=then, before=before)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    folder, *pids = done.stdout.splitlines()
    return done.returncode, folder, [int(pid) for pid in pids]


@pytest.mark.slow
@pytest.mark.parametrize("signal", [2, 9, 15])
def test_a_parent_that_is_killed_leaves_neither_processes_nor_keys(signal):
    code, folder, pids = run_parent(f"os.kill(os.getpid(), {signal})")
    assert code != 0
    assert gone(pids, Path(folder))


@pytest.mark.slow
def test_signals_that_a_parent_ignores_keep_no_child_alive():
    """A background job of a shell ignores SIGINT, one under nohup SIGHUP, and children inherit that."""
    interrupt = "next(iter(cluster.processes.values())).send_signal(signal.SIGINT)"
    wait = "print(next(iter(cluster.processes.values())).wait(10), flush=True)"
    code, folder, (*pids, ended) = run_parent("; ".join((interrupt, wait, "os.kill(os.getpid(), 9)")), before=IGNORING)
    assert (code, ended) == (-9, 0)
    assert gone(pids, Path(folder))


def test_a_service_manager_of_ours_hears_nothing_from_children(monkeypatch):
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "TERM"):
        monkeypatch.setenv(name, "1")
    assert "TERM" in local._environment()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(local._environment())


async def test_no_stdin_is_its_end(monkeypatch):
    """Who is started with stdin closed, to serve until it closes, does not serve for ever."""
    monkeypatch.setattr(sys, "stdin", None)
    stop = asyncio.Event()
    await asyncio.to_thread(process._await_end_of_stdin, asyncio.get_running_loop(), stop)
    await asyncio.wait_for(stop.wait(), 20)


def test_parties_divide_the_processors(monkeypatch):
    for found, parties, count in ((1, 2, 1), (2, 2, 1), (16, 2, 8), (16, 3, 5), (4, 8, 1)):
        monkeypatch.setattr(local, "cores", lambda found=found: found)
        assert LocalCluster(parties)._settings.threads == count
    assert LocalCluster(2, settings=Settings(threads=3))._settings.threads == 3


def test_a_server_computes_with_as_many_threads_as_it_is_told(monkeypatch, capsys):
    monkeypatch.setattr(process.threadpoolctl, "threadpool_limits", lambda count: None)
    process.tune(3)
    assert threads.in_use() == 3
    process.tune(0)
    assert threads.in_use() == 3
    threads.use(1)
    parser = argparse.ArgumentParser()
    server_arguments(parser)
    assert parser.parse_args(["--cluster", "c", "--threads", "3"]).threads == 3
    for wrong in ("0", "1025", "many"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--cluster", "c", "--threads", wrong])
        assert "not a number of threads" in capsys.readouterr().err
