"""The second half of ``tessera bench strangers``: what members do to the runs of another one.

A cluster of processes on this machine, with little memory for runs, a client that predicts the dermatology CNN again
and again, and two other clients, or one of the parties, that attack (`benchmarks.members_attacks`).  Quiet and attacked
blocks alternate, several of each: an attacked one is compared with the quiet ones before and after it, and what counts
is the median of these ratios, as a busy machine disturbs one block or another.  What is timed is a whole prediction,
from the call to its result: most of what members may ask for comes before the online phase.  What an attack costs the
servers in processor time depends least on what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cheating_party import SIGN
from benchmarks.inference import WARM_UP, predict
from benchmarks.members_attacks import CLIENTS, MODEL, PARTY, VICTIM
from benchmarks.models import derm
from benchmarks.processes import Processes
from benchmarks.records import spread
from benchmarks.report import megabytes, milliseconds, plain_table, progress_bar, stdout_console
from mpc.errors import TesseraError, UsageError
from parties import Client, LocalCluster
from parties.members.cluster_file import Settings

MEMORY = 128
"""MiB for runs at each server."""
SLACK = 256
"""MiB that a server may take beside that: the interpreter, kernels, and what is on its way."""
MOST_DELAY = 3.0
"""Times that a prediction's 99th percentile may grow."""
STOCKED = 5
"""Runs that the victim has had dealt ahead, of a program that it does not run meanwhile."""

CHEAT = "party1"
_UNDER_WAY = 2.0
_START = 60.0


class AttackedCluster(LocalCluster):
    """Its last party attacks when it is told to."""

    def _program(self, name: str) -> list[str]:
        if name != CHEAT:
            return super()._program(name)
        return [sys.executable, "-m", "benchmarks.cheating_party", str(self.folder)]


@dataclass(frozen=True)
class Block:
    """Predictions one after the other, and the most memory that an honest server took meanwhile."""

    seconds: Sequence[float]
    """Of each that succeeded, from the call to its result."""
    online: Sequence[float]
    failures: int
    peak_bytes: int
    cpu_seconds: float
    """Of an honest server, on the average."""
    lasted: float
    """s, of the block."""

    @property
    def p99(self) -> float:
        """s."""
        return float(np.percentile(self.seconds, 99))


def measured(names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By attack, what it did: each to servers that have just been started, whose memory shows no other."""
    with progress_bar("predicting", (2 * options.pairs + 1) * len(names)) as advance:
        found = {}
        for name in names:
            advance.describe(name)
            found[name] = _measured(name, options, advance)
    return found


def _measured(name: str, options: argparse.Namespace, advance: Callable[[], None]) -> dict[str, Any]:
    settings = Settings(threads=1, round_timeout=float(options.timeout), memory_mb=MEMORY)
    chosen = derm()
    images = chosen.inputs(1)
    with (
        AttackedCluster(
            2, settings=settings, clients=(VICTIM, *CLIENTS), start_timeout=options.timeout, observable=True
        ) as cluster,
        Client(cluster, name=VICTIM) as client,
    ):
        remote = client.upload(chosen.model, MODEL)
        client.allow(MODEL, "*")
        honest = {name: process.pid for name, process in cluster.processes.items() if name != CHEAT}
        processes = Processes(honest)
        stocked = remote(client.share(np.zeros((1, 3, 28, 28)), low=-1.0, high=0.5))

        def block() -> Block:
            seconds, online, failures, deadline = [], [], 0, time.monotonic() + options.seconds
            processes.start()
            began = time.monotonic()
            while time.monotonic() < deadline:
                started = time.perf_counter()
                try:
                    online.append(predict(client, remote, images).report.online.seconds)
                    seconds.append(time.perf_counter() - started)
                except TesseraError as error:
                    failures += 1
                    print(f"a prediction failed: {error}", file=sys.stderr)
            advance()
            usage = list(processes.usage().values())
            cpu = sum(one.cpu_seconds for one in usage) / len(usage)
            if not seconds:
                raise UsageError("no prediction succeeded: see above")
            return Block(seconds, online, failures, max(one.peak_bytes for one in usage), cpu, time.monotonic() - began)

        for _ in range(WARM_UP):
            predict(client, remote, images)
        in_stock = client.stock(stocked, STOCKED).in_stock
        quiet, attacked, tallies, lines = [block()], [], [], 0
        for _ in range(options.pairs):
            before = _lines(cluster, honest)
            with attacking(name, cluster) as tally:
                attacked.append(block())
            tallies.append(tally)
            lines = max(lines, _lines(cluster, honest) - before)
            quiet.append(block())
        burnt = in_stock + 1 - client.stock(stocked, 1).in_stock
    return _summary(quiet, attacked, tallies, lines, burnt)


def _lines(cluster: LocalCluster, honest: dict[str, int]) -> int:
    """That the honest servers have logged."""
    return sum((cluster.folder / f"{name}.log").read_bytes().count(b"\n") for name in honest)


@contextlib.contextmanager
def attacking(name: str, cluster: LocalCluster) -> Iterator[dict[str, Any]]:
    """While it is open; afterwards the attackers' tally is filled in."""
    tally: dict[str, Any] = {}
    if name in PARTY:
        sign = cluster.folder / SIGN
        sign.write_text(f"{name}\nparty0\n", encoding="ascii")
        time.sleep(_UNDER_WAY)
        try:
            yield tally
        finally:
            sign.unlink()
        return
    command = [sys.executable, "-m", "benchmarks.members_attacks", name, str(cluster.folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    try:
        if process.stdout is None or process.stdout.readline().strip() != "begins":
            raise UsageError("the attackers' process did not start: see above")
        time.sleep(_UNDER_WAY)
        yield tally
        printed, _ = process.communicate(timeout=_START)
        if process.returncode:
            raise UsageError(f"the attack {name!r} ended early: see above")
        tally.update(json.loads(printed))
    finally:
        process.kill()
        process.communicate()


def _summary(
    quiet: Sequence[Block], attacked: Sequence[Block], tallies: Sequence[dict[str, Any]], lines: int, burnt: int
) -> dict[str, Any]:
    calm, hit = ([seconds for one in blocks for seconds in one.seconds] for blocks in (quiet, attacked))
    pairs = list(zip(attacked, itertools.pairwise(quiet), strict=True))
    ratio = float(np.median([_times(one.seconds, *(near.seconds for near in beside)) for one, beside in pairs]))
    online = float(np.median([_times(one.online, *(near.online for near in beside)) for one, beside in pairs]))
    peak, failures = max(one.peak_bytes for one in attacked), sum(one.failures for one in attacked)
    within = ratio <= MOST_DELAY and peak <= (MEMORY + SLACK) << 20
    # Of what a server did, what was not for predictions.
    a_prediction = sum(one.cpu_seconds for one in quiet) / len(calm)
    cpu = (sum(one.cpu_seconds for one in attacked) - a_prediction * len(hit)) / sum(one.lasted for one in attacked)
    return {
        "failures": failures,
        "quiet": {"seconds": spread(calm), "p99_seconds": float(np.median([one.p99 for one in quiet]))},
        "attacked": {"seconds": spread(hit), "p99_seconds": float(np.median([one.p99 for one in attacked]))},
        "ratio": {"p99_seconds": ratio, "p99_online_seconds": online},
        "server": {"peak_bytes": peak, "log_lines": lines, "cpu": cpu},
        "burnt": burnt,
        "within": within and not failures and not burnt,
        "attackers": _together(tallies),
    }


def _times(attacked: Sequence[float], *quiet: Sequence[float]) -> float:
    """The 99th percentile, in terms of the quiet one."""
    return float(np.percentile(attacked, 99) / np.percentile([s for one in quiet for s in one], 99))


def _together(tallies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What attackers have counted, in all blocks; nothing, where a party attacked."""
    found: dict[str, Any] = {}
    for tally in tallies:
        for key, value in tally.items():
            if key == "refused":
                found[key] = dict(Counter(found.get(key, {})) + Counter(value))
            else:
                found[key] = found.get(key, 0) + value
    return found


def show(found: dict[str, dict[str, Any]], seconds: int) -> None:
    """As a table."""
    console = stdout_console()
    console.print(
        f"derm, 2 parties and a dealer with {MEMORY} MiB for runs, blocks of {seconds} s, while two clients or"
        f" {CHEAT} attack; whole predictions, medians over blocks"
    )
    table = plain_table(
        "attack",
        "median",
        "quiet",
        "p99",
        "quiet",
        "ratio",
        "online p99",
        "failed",
        "CPU",
        "memory",
        "log",
        "sent",
        "answers",
        "within",
    )
    for name, one in found.items():
        hit, calm = one["attacked"], one["quiet"]
        answers = ", ".join(f"{count:,} {kind}" for kind, count in one["attackers"].get("refused", {}).items())
        table.add_row(
            name,
            milliseconds(hit["seconds"]["median"]), milliseconds(calm["seconds"]["median"]),
            milliseconds(hit["p99_seconds"]), milliseconds(calm["p99_seconds"]), f"{one['ratio']['p99_seconds']:.2f}",
            f"{one['ratio']['p99_online_seconds']:.2f}", str(one["failures"]), f"{one['server']['cpu']:.0%}",
            megabytes(one["server"]["peak_bytes"]), str(one["server"]["log_lines"]),
            f"{one['attackers'].get('sent', 0):,}", answers, "yes" if one["within"] else "no",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"Within: p99 at most {MOST_DELAY:g} times the quiet one, memory of dealer and honest party at most"
        f" {MEMORY + SLACK} MiB, nothing failed, and the victim's stock untouched.  CPU: that it cost each of them."
    )
