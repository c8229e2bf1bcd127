"""``tessera bench workers``: how much more a party of many workers does than one of a single one.

A run is computed here once, and what it took is measured.  Then a cluster is started in which that run is played again
and again: whatever a worker, of a party or of the dealer, would compute, is waited for; links, encryption, messages of
the right number and size, ledgers, rules, turns and the choice of a worker are the real ones, in processes of their own
for each head (`benchmarks.workers.replaying`).

*What one machine cannot show* is 64 machines' messages at the speed of 64 machines: all of them go through the
processors of this one.  So waits are as much longer as keeps it from being busy (``stretch``), the same for all numbers
of workers; what a head takes for a run does not depend on that.  At real speed a head is at its limit where the workers
need a run as often as it can handle one: ``limit`` workers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.machine import machine
from benchmarks.models import Subject, subject
from benchmarks.processes import Processes, Usage
from benchmarks.records import Recorder, flatten
from benchmarks.report import Steps, megabytes, milliseconds, plain_table, progress_bar, stdout_console
from benchmarks.session import Reals
from benchmarks.workers.farm import Progress
from benchmarks.workers.process import program, workers_log
from benchmarks.workers.recording import SECURITY, Recording, recorded
from mpc.cost import Wanted
from mpc.errors import NoAnswer, NotAsPromised, UsageError
from mpc.program import Program
from parties import AsyncClient, LocalCluster
from parties.client.remote_model import RemoteModel
from parties.commands.status import watching
from parties.host.processor import cores
from parties.members.cluster_file import Settings
from parties.servers.admission import MAX_RUNS_PER_CLIENT, Admission

MODEL = "measured"
WATCHER = "watcher"
"""A client that asks for nothing but who is there."""
AHEAD = 3
"""Runs that each worker is asked for at a time: while one waits for another party, others go on."""
WARM_UP = 3
"""Runs of each worker before anything is counted."""
MOST_WORKERS = 256
"""All their messages go through this machine."""
MESSAGES_ALONE = 24
"""Runs without waits, by which it is found out what the messages of one take here."""
BUSY = 0.3
"""Of this machine's processors, at most, with the most workers."""
PATIENCE = 120.0
"""s beyond what is waited for."""


@dataclass(frozen=True)
class Point:
    """One number of workers."""

    workers: int
    runs: int
    seconds: float
    """In which so many were completed."""
    usage: Mapping[str, float]
    """s of a processor, by process."""
    computing: float
    """Of its workers' time the part in which they computed, at the server that has most to compute in a run."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "workers": self.workers,
            "runs": self.runs,
            "seconds": self.seconds,
            "efficiency": self.computing,
            "busy": sum(self.usage.values()) / (self.seconds * cores()),
            "cpu_seconds": {name: used / self.runs for name, used in self.usage.items()},
        }


def run(options: argparse.Namespace) -> int:
    """Measure, simulate and print; the exit code."""
    recorder, chosen = Recorder.of(options), subject(options)
    if max(options.workers) > MOST_WORKERS:
        raise UsageError(f"{max(options.workers)} workers: at most {MOST_WORKERS} are simulated on one machine")
    if options.stretch is not None and not 0 < options.stretch <= 1e6:
        raise UsageError(f"--stretch {options.stretch:g} is not from 0 to 1000000")
    planned = chosen.program(options.batch, SECURITY, options.objective)
    inputs = chosen.inputs(options.batch)
    recording = recorded(chosen.model, planned, [inputs], options.parties)
    with tempfile.TemporaryDirectory() as folder, progress_bar("measuring", 0) as steps:
        file = Path(folder, "recording")
        file.write_bytes(msgspec.msgpack.encode(recording))
        simulation = Simulation(chosen, planned, inputs, recording, file, options)
        stretch = options.stretch or simulation.stretch(max(options.workers), steps)
        points = [simulation.point(workers, stretch, options.rounds, steps) for workers in options.workers]
    rows = [point.to_dict() for point in points]
    per_run = {name: rows[-1]["cpu_seconds"][name] for name in recording.computing}
    summary: dict[str, Any] = {
        **chosen.case(options.batch, options.parties, SECURITY),
        "computing": recording.computing,
        "dealt_bytes": recording.dealt_bytes,
        "stretch": stretch,
        "points": rows,
        "limit": {name: recording.seconds / used for name, used in per_run.items()},
        "machine": machine(),
    }
    case = {**chosen.case(options.batch, options.parties, SECURITY), "objective": options.objective}
    recorder.add("workers", case, flatten(summary, "computing", "limit", "stretch"))
    for row in rows:
        recorder.add("workers", {**case, "workers": row["workers"]}, flatten(row, "efficiency", "busy", "cpu_seconds"))
    if options.json:
        recorder.print_json(summary)
    else:
        _print(summary)
    return recorder.finish()


class PlayedCluster(LocalCluster):
    """Whose servers play what is recorded in a file."""

    def __init__(self, recording: Path, workers: int, stretch: float, *arguments: Any, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self._command = program(recording, workers, stretch)

    def _program(self, name: str) -> list[str]:
        return list(self._command)

    @property
    def progress(self) -> dict[str, Progress]:
        """Of servers' workers."""
        return {name: Progress.read(workers_log(self.folder, name)) for name in self.processes}

    @property
    def pids(self) -> dict[str, int]:
        """Of servers, of the processes in which their workers are, and of the clients' process."""
        servers = {name: process.pid for name, process in self.processes.items()}
        workers = {f"{name}'s workers": progress.process for name, progress in self.progress.items()}
        return {**servers, **workers, "clients": os.getpid()}


class Simulation:
    """Of one recorded run."""

    def __init__(
        self,
        chosen: Subject,
        planned: Program,
        inputs: Reals,
        recording: Recording,
        file: Path,
        options: argparse.Namespace,
    ) -> None:
        self._chosen, self._inputs, self._recording, self._file = chosen, inputs, recording, file
        self._options = options
        self._size = Admission("", 0, SECURITY, clients=1).size_of(planned)

    def stretch(self, workers: int, steps: Steps) -> float:
        """So that the messages of so many workers leave this machine idle for the most part."""
        alone = self._simulated(1, 0.0, MESSAGES_ALONE, steps, "messages alone")
        taken = sum(alone.usage.values()) / alone.runs
        return max(1.0, workers * taken / (BUSY * cores() * self._recording.seconds))

    def point(self, workers: int, stretch: float, rounds: int, steps: Steps) -> Point:
        """Measured while each worker computes so many runs."""
        return self._simulated(workers, stretch, rounds * workers, steps, f"{workers} workers")

    def _simulated(self, workers: int, stretch: float, count: int, steps: Steps, name: str) -> Point:
        at_once = AHEAD * workers
        clients = tuple(f"client{i}" for i in range(-(-at_once // (MAX_RUNS_PER_CLIENT // 2))))
        waited = AHEAD * stretch * self._recording.seconds
        settings = Settings(
            threads=1,
            round_timeout=PATIENCE + 4 * waited,
            peer_timeout=30.0,
            # As much as needs never be refused: nothing of it is taken.
            memory_mb=(8 * AHEAD * self._size >> 20) + 1024,
        )
        steps.describe(name)
        with PlayedCluster(
            self._file, workers, stretch, self._options.parties, clients=(*clients, WATCHER), settings=settings,
            start_timeout=self._options.timeout, observable=True,
        ) as cluster:  # fmt: skip
            load = Load(cluster, self._chosen, self._inputs, self._options.objective, self._recording.slowest)
            return asyncio.run(load.completed(workers, at_once, WARM_UP * workers, count, steps))


class Load:
    """Clients that ask for one run after the other."""

    def __init__(self, cluster: PlayedCluster, chosen: Subject, inputs: Reals, objective: Wanted, slowest: str) -> None:
        """``slowest``: the server whose workers have most to compute in a run."""
        self._cluster, self._chosen, self._inputs, self._objective = cluster, chosen, inputs, objective
        self._slowest = slowest
        self._done = asyncio.Queue[Reals]()

    async def completed(self, workers: int, at_once: int, before: int, count: int, steps: Steps) -> Point:
        """Of ``count`` runs after as many as ``before``, with so many in progress."""
        owner, *others = (name for name in self._cluster.client_keys if name != WATCHER)
        async with AsyncClient(self._cluster, name=owner, objective=self._objective) as client:
            await client.upload(self._chosen.model, MODEL)
            for name in others:
                await client.allow(MODEL, name)
        await self._all_there()
        each = -(-at_once // (1 + len(others)))
        tasks = [asyncio.create_task(self._ask(name, each, f"{owner}/{MODEL}")) for name in (owner, *others)]
        try:
            return await self._counted(workers, before, count, steps, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _all_there(self) -> None:
        """Returns once all workers are."""
        async with watching(self._cluster.cluster, self._cluster.client_key(WATCHER), PATIENCE) as watcher:
            while True:
                report = await watcher.look()
                seen = [row.status.workers for row in report.rows if row.status is not None]
                if all(len(one.runs) == one.wanted for one in seen if one is not None):
                    return
                await asyncio.sleep(0.1)

    async def _counted(
        self, workers: int, before: int, count: int, steps: Steps, tasks: list[asyncio.Task[None]]
    ) -> Point:
        first: Reals | None = None
        processes, started, noted = Processes(self._cluster.pids), 0.0, self._cluster.progress
        for number in range(before + count):
            found = await self._next(tasks)
            first = found if first is None else first
            if not np.array_equal(first, found):
                raise NotAsPromised("a run that was played again had another result")
            if number == before - 1:
                processes.start()
                started, noted = time.perf_counter(), self._cluster.progress
            steps()
        seconds = time.perf_counter() - started
        usage: Mapping[str, Usage] = processes.usage()
        began, now = (progress[self._slowest] for progress in (noted, self._cluster.progress))
        computing = (now.computed - began.computed) / ((now.at - began.at) * workers)
        return Point(workers, count, seconds, {name: one.cpu_seconds for name, one in usage.items()}, computing)

    async def _next(self, tasks: list[asyncio.Task[None]]) -> Reals:
        """The next result; what a client fails with is raised."""
        waiting = asyncio.ensure_future(self._done.get())
        await asyncio.wait({waiting, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            for task in tasks:
                if task.done():
                    task.result()
        return await waiting

    async def _ask(self, name: str, at_once: int, model: str) -> None:
        client = AsyncClient(self._cluster, name=name, objective=self._objective)
        async with client:
            remote = await client.model(model)
            await asyncio.gather(*(self._one_after_the_other(client, remote) for _ in range(at_once)))

    async def _one_after_the_other(self, client: AsyncClient, model: RemoteModel) -> None:
        while True:
            secret = client.share(self._inputs, low=self._chosen.low, high=self._chosen.high)
            prepared = await client.prepare(model(secret))
            try:
                result = np.asarray(await client.finish(prepared))
            except NoAnswer:
                # Values of a network that was not trained for such inputs; it costs the same.
                result = np.zeros(0)
            self._done.put_nowait(result)


def _print(summary: Mapping[str, Any]) -> None:
    console = stdout_console()
    computing = summary["computing"]
    each = ", ".join(f"{milliseconds(seconds)} ({name})" for name, seconds in computing.items())
    console.print(
        f"{summary['model']}, {summary['batch']} inputs a run, {summary['parties']} parties,"
        f" {megabytes(summary['dealt_bytes'])} dealt; computed in {each}: measured here, on one thread"
    )
    table = plain_table("workers of each", "runs/s", "efficiency", *computing, "this machine busy")
    for row in summary["points"]:
        used = row["cpu_seconds"]
        table.add_row(
            str(row["workers"]),
            f"{row['runs'] / row['seconds']:.2f}",
            f"{row['efficiency']:.0%}",
            *(milliseconds(used[name]) for name in computing),
            f"{row['busy']:.0%}",
        )
    console.print(table)
    console.print(
        f"Of heads: processor time a run, for messages alone.  Waits were {summary['stretch']:.3g} times as"
        " long as computing takes, as this machine carries the messages of all."
    )
    for name, workers in summary["limit"].items():
        console.print(f"At real speed the head of {name} has no time left with {workers:.1f} workers of each.")
