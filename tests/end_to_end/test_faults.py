"""kill -9 and SIGSTOP of every kind of process, offline and online: noticed in time, named, no harm to the next run."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mpc.errors import PeerError, TesseraError
from parties import Client, LocalCluster

DEADLINE = 10.0
"""Promised for the default settings; these tests run with shorter ones."""
LARGE = np.zeros((400, 400))


def next_run_works(cluster: LocalCluster) -> None:
    """Within a few seconds of the victim's return, without restarting anybody else."""
    last: TesseraError | None = None
    for _ in range(60):
        try:
            with Client(cluster) as client:
                assert client.reveal(client.share([1.0, 2.0], low=-4, high=4) ** 2) == pytest.approx([1, 4], abs=1e-3)
            return
        except TesseraError as error:
            last = error
            time.sleep(0.5)
    raise AssertionError(f"the cluster does not serve the next run: {last}")


def stop(cluster: LocalCluster, name: str, how: str) -> None:
    cluster.processes[name].send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
    if how == "kill":
        cluster.processes[name].wait()


def bring_back(cluster: LocalCluster, name: str, how: str) -> None:
    if how == "kill":
        cluster.start_process(name)
    else:
        cluster.processes[name].send_signal(signal.SIGCONT)


def lost(cluster: LocalCluster, name: str, action) -> None:
    """``action`` fails in time, with an error that names the process."""
    started = time.monotonic()
    with pytest.raises(PeerError) as caught:
        action()
    assert time.monotonic() - started < DEADLINE
    assert caught.value.peer == name, caught.value


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("dealer", "kill"),
        ("party0", "freeze"),
        ("party1", "kill"),
        pytest.param("dealer", "freeze", marks=pytest.mark.slow),
        pytest.param("party0", "kill", marks=pytest.mark.slow),
        pytest.param("party1", "freeze", marks=pytest.mark.slow),
    ],
)
def test_before_the_offline_phase(breakable, name, how):
    with Client(breakable) as client:
        x = client.share(LARGE)
        stop(breakable, name, how)
        try:
            lost(breakable, name, lambda: client.prepare(x.sigmoid(interval=(-8, 8))))
        finally:
            bring_back(breakable, name, how)
    next_run_works(breakable)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("party0", "kill"),
        ("party1", "freeze"),
        pytest.param("party0", "freeze", marks=pytest.mark.slow),
        pytest.param("party1", "kill", marks=pytest.mark.slow),
    ],
)
def test_between_offline_and_online(breakable, name, how):
    with Client(breakable) as client:
        prepared = client.prepare(client.share([0.5], low=-1, high=1) ** 2 * 2)
        stop(breakable, name, how)
        try:
            lost(breakable, name, lambda: client.finish(prepared))
        finally:
            bring_back(breakable, name, how)
    next_run_works(breakable)


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_in_the_middle_of_the_online_phase(breakable, how):
    with Client(breakable) as client:
        # Long enough to be killed in the midst of, and dealt in much less than the peers' patience.
        x = client.share(LARGE[:280, :280], low=-1, high=1)
        y = x
        for _ in range(15):
            y = (y.sigmoid(interval=(-8, 8)) - 0.5) * x
        prepared = client.prepare(y)
        timer = threading.Timer(0.05, stop, (breakable, "party1", how))
        timer.start()
        try:
            lost(breakable, "party1", lambda: client.finish(prepared))
        finally:
            timer.join()
            bring_back(breakable, "party1", how)
    next_run_works(breakable)


def test_the_dealer_is_not_needed_online(breakable):
    with Client(breakable) as client:
        prepared = client.prepare(client.share([0.5], low=-1, high=1) ** 2)
        stop(breakable, "dealer", "kill")
        try:
            assert client.finish(prepared) == pytest.approx([0.25], abs=1e-3)
        finally:
            bring_back(breakable, "dealer", "kill")
    next_run_works(breakable)


def test_every_surviving_process_names_the_dead_one(breakable):
    with Client(breakable) as client:
        prepared = client.prepare(client.share([0.5], low=-1, high=1) ** 2 * 2)
        before = len(logged(breakable, "party0"))
        stop(breakable, "party1", "kill")
        try:
            # party0, by itself, before the client asks for anything
            assert appears(breakable, "party0", "party1:", before)
            lost(breakable, "party1", lambda: client.finish(prepared))
        finally:
            bring_back(breakable, "party1", "kill")
    next_run_works(breakable)


def logged(cluster: LocalCluster, name: str) -> str:
    return (cluster.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def appears(cluster: LocalCluster, name: str, text: str, before: int) -> bool:
    """In the process's log, behind what was there before, within the deadline."""
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if text in logged(cluster, name)[before:]:
            return True
        time.sleep(0.1)
    return False


SNIPPET = str(Path(__file__).parents[1] / "snippet.py")
CLIENT = """
import sys, time
from parties import Client
with Client({path!r}, {key!r}) as client:
    prepared = client.prepare(client.share([0.5] * 1000).sum() * 2)
    print("prepared", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_client_that_goes_leaves_nothing_behind(breakable, how):
    program = CLIENT.format(path=str(breakable.path), key=str(breakable.key_path("company")))
    with subprocess.Popen([sys.executable, SNIPPET, program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"prepared\n"
        before = len(logged(breakable, "party0"))
        process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        assert appears(breakable, "party0", "company:", before)
        process.kill()
    next_run_works(breakable)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dealer", "party1"])
def test_default_settings_notice_a_freeze_within_ten_seconds(name):
    with LocalCluster(2) as cluster, Client(cluster) as client:
        prepared = client.prepare(client.share([0.5], low=-1, high=1) ** 2 * 2)
        stop(cluster, name, "freeze")
        x = client.share([0.5])
        action = (lambda: client.prepare(x * 2)) if name == "dealer" else (lambda: client.finish(prepared))
        lost(cluster, name, action)
        bring_back(cluster, name, "freeze")
        next_run_works(cluster)
