"""``tessera bench soak``: its verdict fails for each thing that can go wrong, and a small one goes well."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.models import derm
from benchmarks.records import read
from benchmarks.report import progress_bar
from benchmarks.soak import bench, verdict, watching
from benchmarks.soak.attempts import Attempt, Outage, calm, disturbed, recoveries
from benchmarks.soak.bench import plan
from benchmarks.soak.chaos import Chaos
from benchmarks.soak.client import MODEL
from benchmarks.soak.command import faults, pause
from benchmarks.soak.course import AFTERWARDS, DEADLINE, STEADY, Course
from benchmarks.soak.crowd import Crowd
from benchmarks.soak.watching import Footprint, Sample, alarms, occupied, settled
from mpc.errors import TesseraError
from nn.derm import samples
from parties import AsyncClient, Client, LocalCluster
from parties.commands.command_line import main

GOOD = Attempt("clinic-1", "predict", "party0 is spared", 1.0, 1.5, difference=3e-4)
LOST = dataclasses.replace(GOOD, error="PeerLost", peer="party1", message="party1: its connection closed")


def growing(name: str, slope: float, *, count: int = 500, start: int = 0, pid: int = 1) -> list[Sample]:
    """Every ten predictions; 50 MB more in the first of them, as heaps have it."""
    return [
        Sample(name, pid, n / 10, start + n, int(50e6 * min(1.0, n / verdict.WARM_UP) + slope * n), 40, 12)
        for n in range(0, count, 10)
    ]


# -- what goes well ----------------------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_answers_typed_failures_and_flat_memory() -> None:
    course = Course([GOOD, LOST], [Outage("party1", "kill", 1.0, 4.0)], growing("dealer", 2000.0), ["dealer"])
    assert course.verdict() == []


# -- what does not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "sentence"),
    [
        (dataclasses.replace(GOOD, difference=0.5), "clinic-1 was given a wrong answer at 1.0 s: it lies 0.5 from"),
        (dataclasses.replace(GOOD, same_class=False), "clinic-1 was given a wrong answer"),
        (dataclasses.replace(LOST, error="KeyError", typed=False, message="'x'"), "ended at 1.5 s with KeyError: 'x'"),
        (dataclasses.replace(LOST, message="party0: internal error; see this process's log"), "internal error"),
        (dataclasses.replace(GOOD, ended=2 + DEADLINE), f"took {1 + DEADLINE:.1f} s, and {DEADLINE:g} s are promised"),
        (dataclasses.replace(LOST, ended=2 + DEADLINE), "promised: PeerLost"),
        (dataclasses.replace(LOST, phase=STEADY), "failed at 1.5 s though nothing was down: PeerLost"),
        (dataclasses.replace(LOST, phase=AFTERWARDS), "though nothing was down"),
    ],
)
def test_an_attempt_that_must_not_be(attempt: Attempt, sentence: str) -> None:
    (wrong,) = Course([GOOD, attempt, LOST]).verdict()
    assert sentence in wrong


def test_memory_that_grows_with_every_prediction() -> None:
    count = 2000
    span = count - verdict.WARM_UP - 10
    allowed = verdict.GROWTH + verdict.HEAP / span
    leaking = growing("party0", allowed + 100, count=count)
    (wrong,) = Course(samples=[*growing("dealer", allowed - 100, count=count), *leaking]).verdict()
    assert wrong.startswith("party0 grows: from ")
    assert wrong.endswith(f"over {span} predictions, {allowed / 1024 + 0.1:.1f} KiB with each (process 1)")
    # A new process of the name begins anew: neither is judged by the other's memory.
    halves = [*growing("party0", 9e3, count=400), *growing("party0", 9e3, count=400, start=400, pid=2)]
    assert [t.slope for t in verdict.trends(halves)] == pytest.approx([9e3, 9e3], rel=0.01)


def test_memory_that_goes_up_and_stays() -> None:
    def stepping(step: int) -> list[Sample]:
        flat = growing("party1", 0.0)
        return [dataclasses.replace(s, memory=s.memory + (step if s.predictions > 300 else 0)) for s in flat]

    assert Course(samples=stepping(verdict.HEAP)).verdict() == []
    (wrong,) = Course(samples=stepping(2 * verdict.HEAP)).verdict()
    assert "from 47 to 111 MiB" in wrong


def test_a_short_life_is_not_judged() -> None:
    assert verdict.trends(growing("party0", 1e6, count=verdict.WARM_UP + verdict.SPAN - 10)) == []
    assert len(verdict.trends(growing("party0", 1e6, count=verdict.WARM_UP + verdict.SPAN + 20))) == 1


@pytest.mark.parametrize(
    ("what", "more"), [("descriptors", verdict.DESCRIPTORS), ("threads", verdict.THREADS)], ids=["fds", "threads"]
)
def test_what_is_left_open(what: str, more: int) -> None:
    first = Sample("dealer", 1, 1.0, 10, 1, 40, 12, rest=True)
    # Only at rest: what is open while runs are in progress says nothing.
    busy = dataclasses.replace(first, rest=False, **{what: 500})
    allowed = dataclasses.replace(first, pid=2, **{what: getattr(first, what) + more})
    beyond = dataclasses.replace(first, pid=3, **{what: getattr(first, what) + more + 1})
    assert Course(samples=[first, busy, allowed]).verdict() == []
    (wrong,) = Course(samples=[first, busy, beyond, allowed]).verdict()
    assert wrong == f"dealer had {getattr(first, what)} {what} at rest, and {getattr(beyond, what)} later"


def test_a_data_folder_that_keeps_everything() -> None:
    course = Course(footprints=[Footprint("steady", "party0", verdict.DATA, 0)])
    assert course.verdict() == []
    course.footprints.append(Footprint(AFTERWARDS, "party1", verdict.DATA + (1 << 20), 0))
    assert "party1 had 257 MiB" in course.verdict()[0]


def test_stuck_runs_and_problems_are_told_and_fail_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    course = Course([GOOD], seconds=3.0, stuck=["party0: 1 runs in progress"], problems=["dealer ended by itself"])
    monkeypatch.setattr(bench, "_soak", lambda options: course)
    assert main(["bench", "soak"]) == 1
    printed = capsys.readouterr()
    assert "Not as promised: see below." in printed.out
    wrong = "party0: 1 runs in progress; dealer ended by itself"
    assert printed.err == f"tessera: {wrong}\n"
    assert main(["bench", "soak", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert {key: said[key] for key in TesseraError(wrong).to_dict()} == TesseraError(wrong).to_dict()
    assert said["wrong"] == wrong.split("; ")
    course.stuck.clear()
    course.problems.clear()
    assert main(["bench", "soak"]) == 0
    assert "All as promised." in capsys.readouterr().out


def test_logs_are_searched_for_bugs(tmp_path: Path) -> None:
    (tmp_path / "party0.log").write_text(
        "12:00 WARNING run 1 failed: party1: its connection closed\n"
        "12:01 ERROR an event could not be handled\n"
        'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    g()\nKeyError: 3\n'
    )
    (tmp_path / "dealer.log").write_text("12:00 ERROR run 2: internal error\n")
    assert alarms(tmp_path) == [
        "dealer: 12:00 ERROR run 2: internal error",
        "party0: 12:01 ERROR an event could not be handled / KeyError: 3",
    ]


# -- times -------------------------------------------------------------------------------------------------------------


def test_when_something_was_down() -> None:
    outages = [Outage("a", "kill", 5.0, 7.0), Outage("b", "stop", 1.0, 2.0), Outage("b", "freeze", 6.0, 9.0)]
    assert [(i.began, i.ended) for i in disturbed(outages)] == [(1.0, 2.0), (5.0, 9.0)]
    times = [(0.0, 0.5), (0.5, 1.5), (2.5, 3.0), (3.0, 4.0), (8.0, 9.5)]
    attempts = [dataclasses.replace(GOOD, began=began, ended=ended) for began, ended in times]
    assert [a.began for a in calm(attempts, outages)] == [0.0, 2.5, 3.0]
    assert recoveries(attempts, outages) == [1.0, 0.5]
    # No answer between two such times is no recovery from the first.
    assert recoveries(attempts[-1:], outages) == [0.5]


def test_who_is_named() -> None:
    outage = Outage("party1", "kill", 0.0, 2.0)
    late = dataclasses.replace(LOST, began=2.0 + verdict.SHORTLY, ended=9.0)
    other = dataclasses.replace(LOST, peer="party0")
    assert verdict.misnamed([GOOD, LOST, late, other], [outage]) == [late, other]
    assert verdict.by_kind([GOOD, LOST, late, other]) == {"PeerLost": {"party0": 1, "party1": 2}}


def test_every_prediction_has_its_phase_and_every_server_is_spared() -> None:
    phases = plan(1000, 8, ["dealer", "party0", "party1"])
    assert sum(count for _, count, _ in phases) == 1000
    assert phases[0] == (STEADY, 333, "")
    assert phases[-1] == (AFTERWARDS, 8, "")
    assert [spared for _, _, spared in phases[1:-1]] == ["dealer", "party0", "party1"]


def test_options() -> None:
    assert faults("kill,stop") == ("kill", "stop")
    for text in ("", "kill,kill", "explode"):
        with pytest.raises(argparse.ArgumentTypeError):
            faults(text)
    assert pause("0.5") == 0.5
    for text in ("0", "nan", "x"):
        with pytest.raises(argparse.ArgumentTypeError):
            pause(text)
    assert main(["bench", "soak", "--predictions", "5", "--clients", "3"]) == 2


# -- with processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """With the model, and two clients beside its owner."""
    with LocalCluster(2, settings=bench.SETTINGS, clients=("company", "clinic-1", "operator")) as cluster:
        with Client(cluster) as owner:
            owner.upload(derm().model, MODEL)
            owner.allow(MODEL, "*")
        yield cluster


async def test_a_stuck_run_is_seen(cluster: LocalCluster) -> None:
    async with AsyncClient(cluster.cluster, cluster.client_key("company")) as client:
        run = await client.prepare(client.share([0.5], low=-1, high=1) ** 2)
        stuck = await settled(cluster, cluster.client_key("operator"), 2.0)
        assert stuck == [f"{n}: 1 runs in progress with nobody left who asked for them" for n in ("party0", "party1")]
        await client.release(run)
    assert await settled(cluster, cluster.client_key("operator"), 10.0) == []


@contextlib.asynccontextmanager
async def crowd_of_one(cluster: LocalCluster, deadline: float) -> Any:
    subject = derm()
    references = np.asarray(subject.model.plain(subject.inputs(len(samples()))))
    crowd = Crowd(cluster, ["clinic-1"], references, deadline, 0, time.monotonic())
    struck = asyncio.Event()
    struck.set()

    async def predict(count: int) -> None:
        with progress_bar("predicting", count) as advance:
            await crowd.predict("phase", count, struck, advance)

    try:
        yield crowd, predict
    finally:
        await crowd.close()


@pytest.mark.slow
async def test_a_call_that_hangs_and_a_client_that_dies_are_seen(cluster: LocalCluster) -> None:
    async with crowd_of_one(cluster, deadline=2.0) as (crowd, predict):
        await predict(1)
        crowd.processes["clinic-1"].send_signal(signal.SIGSTOP)
        await predict(1)
        first, hung, again = crowd.attempts
        assert first.answered and again.answered and first.right and again.right
        assert (hung.error, hung.typed) == ("nothing", False)
        assert verdict.untyped([hung]) and not crowd.problems

        crowd.processes["clinic-1"].kill()
        await predict(1)
        (problem,) = crowd.problems
        assert problem.startswith("clinic-1 ended by itself, with SIGKILL")

        await crowd.kill("clinic-1")
        await predict(1)
        assert len(crowd.problems) == 1


async def test_a_server_that_dies_is_seen_and_started_again(cluster: LocalCluster) -> None:
    async with crowd_of_one(cluster, deadline=DEADLINE) as (crowd, predict):
        chaos = Chaos(cluster, crowd, ["clinic-1"], ["kill"], 1.0, 0, time.monotonic())
        await chaos.look()
        assert not chaos.problems
        cluster.processes["party1"].send_signal(signal.SIGSEGV)
        cluster.processes["party1"].wait()
        await chaos.look()
        (problem,) = chaos.problems
        assert problem.startswith("party1 ended by itself, with SIGSEGV")
        await predict(1)
        assert crowd.attempts[-1].right


def test_what_a_process_occupies(cluster: LocalCluster) -> None:
    memory, threads, descriptors = occupied(cluster.processes["dealer"].pid)
    assert 10 << 20 < memory < 1 << 30
    assert threads > 1
    assert 5 < descriptors < 500
    assert watching.footprints(cluster, "x")[0].data > 0
    with pytest.raises(OSError):
        occupied(2**22 + 1)


@pytest.mark.slow
def test_a_small_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, logs = tmp_path / "out.jsonl", tmp_path / "logs"
    words = ["--predictions", "12", "--clients", "2", "--faults", "kill,freeze", "--every", "0.1", "--seed", "3"]
    assert main(["bench", "soak", *words, "--json", "--out", str(out), "--logs", str(logs)]) == 0
    check(json.loads(capsys.readouterr().out), out, 12, ["dealer", "party0", "party1"])
    assert {path.stem for path in logs.iterdir()} == {"dealer", "party0", "party1", "clinic-1", "clinic-2"}


@pytest.mark.slow
@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
def test_a_larger_one(tmp_path: Path, capsys: pytest.CaptureFixture[str], security: str) -> None:
    out = tmp_path / "out.jsonl"
    words = ["--predictions", "120", "--clients", "4", "--parties", "3", "--security", security]
    assert main(["bench", "soak", *words, "--json", "--out", str(out)]) == 0
    summary = json.loads(capsys.readouterr().out)
    check(summary, out, 120, ["dealer", "party0", "party1", "party2"])
    assert summary["course"]["from_stock"] > 0


def check(summary: dict[str, Any], out: Path, predictions: int, servers: list[str]) -> None:
    figures, course = summary["figures"], summary["course"]
    assert summary["wrong"] == []
    assert course["answered"] == figures["right"] == predictions
    assert figures["wrong"] == figures["untyped"] == figures["stuck"] == 0
    assert course["faults"] >= len(servers)
    assert sum(sum(kinds.values()) for kinds in summary["outages"].values()) == course["faults"]
    assert course["attempts"] >= predictions + course["failures"]
    assert sum(sum(peers.values()) for peers in summary["failures"].values()) == course["failures"]
    assert 0 < figures["calm_answer"]["median"] <= figures["calm_answer"]["p99"] < DEADLINE
    assert {rest["name"] for rest in summary["rests"]} >= set(servers)
    assert {footprint["phase"] for footprint in summary["footprints"]} >= {STEADY, AFTERWARDS}
    (record,) = read(out)
    assert record.figures["right"] == predictions
    assert record.case["clients"] == summary["clients"]
    assert record.about["course"] == course
