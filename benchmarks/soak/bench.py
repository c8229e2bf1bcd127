"""``tessera bench soak``: predictions by many clients while servers and clients are killed, frozen and stopped.

A third of the predictions is answered with nobody harmed, so that what grows with predictions alone is seen.  Then
comes one phase for each server, in which that one is spared and all others are not: it lives through the failures of
everyone else, and what they leave behind in it is seen.  At last each client asks once more.  Between phases everything
comes to rest: no server may have a run in progress then.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.models import derm
from benchmarks.records import Recorder, flatten
from benchmarks.report import Steps, progress_bar
from benchmarks.soak.chaos import Chaos
from benchmarks.soak.client import MODEL
from benchmarks.soak.course import AFTERWARDS, DEADLINE, MARGIN, SETTINGS, STEADY, Course
from benchmarks.soak.crowd import Crowd
from benchmarks.soak.report import print_summary, summarised
from benchmarks.soak.watching import Watch, alarms, footprints, settled
from mpc.errors import TesseraError, UsageError, unwritable
from nn.derm import samples
from parties import AsyncClient, LocalCluster

REST = SETTINGS.round_timeout + SETTINGS.peer_timeout + MARGIN
"""s within which every run must be over at every server, once nobody asks any more."""

OWNER, OPERATOR = "company", "operator"


def run(options: argparse.Namespace) -> int:
    """Soak and print; the exit code: 1 if anything is wrong."""
    recorder = Recorder.of(options)
    if options.predictions < 2 * options.clients:
        raise UsageError(f"--predictions {options.predictions}: give at least two for each client")
    course = _soak(options)
    summary = summarised(course, options)
    case = {
        name: summary[name]
        for name in ("model", "parties", "security", "predictions", "clients", "faults", "every", "seed")
    }
    recorder.add("soak", case, flatten(summary["figures"]), about={"course": summary["course"]})
    if options.json:
        recorder.print_json(summary)
    else:
        print_summary(summary)
    return recorder.finish(TesseraError("; ".join(summary["wrong"])).to_dict() if summary["wrong"] else None)


def _soak(options: argparse.Namespace) -> Course:
    callers = [f"clinic-{i + 1}" for i in range(options.clients)]
    names = (OWNER, OPERATOR, *callers)
    with (
        progress_bar("starting", options.predictions) as advance,
        LocalCluster(
            options.parties,
            security=options.security,
            settings=SETTINGS,
            clients=names,
            start_timeout=options.timeout,
            observable=True,
        ) as cluster,
    ):
        try:
            return asyncio.run(_course(cluster, callers, options, advance))
        finally:
            if options.logs is not None:
                _keep_logs(cluster.folder, options.logs)


async def _course(cluster: LocalCluster, callers: Sequence[str], options: argparse.Namespace, advance: Steps) -> Course:
    subject = derm()
    async with AsyncClient(cluster.cluster, cluster.client_key(OWNER)) as owner:
        await owner.upload(subject.model, MODEL)
        await owner.allow(MODEL, "*")
    references = np.asarray(subject.model.plain(subject.inputs(len(samples()))))
    began = time.monotonic()
    crowd = Crowd(cluster, callers, references, DEADLINE, options.seed, began)
    chaos = Chaos(cluster, crowd, callers, options.faults, options.every, options.seed, began)

    def pids() -> dict[str, int]:
        clients = {name: process.pid for name, process in crowd.processes.items() if process.returncode is None}
        return {name: process.pid for name, process in cluster.processes.items()} | clients

    watch = Watch(pids, lambda: crowd.answered, began)
    course = Course(crowd.attempts, chaos.outages, watch.samples, list(cluster.processes))
    watching = asyncio.create_task(watch.run(chaos.look))
    try:
        for phase, count, spared in plan(options.predictions, options.clients, list(cluster.processes)):
            advance.describe(phase)
            await _phase(crowd, chaos, phase, count, spared, advance)
            advance.describe(f"{phase}: coming to rest")
            course.stuck += await settled(cluster, cluster.client_key(OPERATOR), REST)
            watch.look(rest=True)
            course.footprints += footprints(cluster, phase)
    finally:
        watching.cancel()
        await crowd.close()
    course.seconds = time.monotonic() - began
    course.problems += [*crowd.problems, *chaos.problems, *alarms(cluster.folder)]
    return course


def plan(predictions: int, clients: int, servers: Sequence[str]) -> list[tuple[str, int, str]]:
    """Phases: name, predictions to be answered, and the server that is spared; empty where nobody is harmed."""
    steady, last = predictions // 3, clients
    rest = predictions - steady - last
    shares = [rest // len(servers) + (i < rest % len(servers)) for i in range(len(servers))]
    faulty = [(f"{name} is spared", share, name) for name, share in zip(servers, shares, strict=True)]
    return [(STEADY, steady, ""), *faulty, (AFTERWARDS, last, "")]


async def _phase(crowd: Crowd, chaos: Chaos, phase: str, count: int, spared: str, advance: Steps) -> None:
    struck, over = asyncio.Event(), asyncio.Event()
    raging = asyncio.create_task(chaos.rage(spared, struck, over)) if spared else None
    if raging is None:
        struck.set()  # nothing to wait for
    try:
        await crowd.predict(phase, count, struck, advance)
    finally:
        over.set()
        if raging is not None:
            await raging


def _keep_logs(folder: Path, target: Path) -> None:
    try:
        target.mkdir(parents=True)
        for log in folder.glob("*.log"):
            shutil.copy(log, target)
    except OSError as error:
        raise unwritable(f"the folder {target}", error) from error
