"""What an honest client's work takes while others attack, and what that takes the servers.

Each attack meets a cluster of its own: processes on this machine, with little memory for runs, a client that predicts
the dermatology CNN again and again, and whoever attacks: strangers, two other clients, one of the parties, or those who
hand pictures to a client.  Quiet and attacked blocks alternate, several of each: an attacked one is compared with the
quiet ones before and after it, and what counts is the median of these ratios, as a busy machine disturbs one block or
another.  What is timed is a whole prediction, from the call to its result: most of what members may ask for comes
before the online phase.  Where uploads are what is delayed, those are timed.  In the end the client stores something
new, and the honest servers are started again on what the attack has left them.

What an attack costs the servers in processor time depends least on what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference import WARM_UP, predict
from benchmarks.models import derm
from benchmarks.processes import Processes, peak_bytes, resident_bytes
from benchmarks.records import spread
from benchmarks.strangers import insiders, outsiders, pictures
from benchmarks.strangers.cheating_party import SIGN
from benchmarks.strangers.insiders import CLIENTS, MODEL, PARTY, VICTIM, small_model
from benchmarks.strangers.process import UNDER_WAY, another_attacks
from mpc.errors import NotAsPromised, TesseraError
from mpc.security import Security
from parties import Client, LocalCluster, RemoteModel
from parties.members.cluster_file import Settings

ATTACKS = (*outsiders.ATTACKS, *insiders.ATTACKS, *pictures.FED)

MEMORY = {Security.SEMI_HONEST: 128, Security.MALICIOUS: 256}
"""MiB for runs at each server: half of it divided by three clients is what each has whatever others do, and a run of
the network takes 38 MiB with MACs."""
SLACK = 256
"""MiB that a server may take beside that: the interpreter, kernels, and what is on its way."""
MOST_DELAY = 3.0
"""Times that the 99th percentile of what the honest client does may grow."""
STOCKED = 5
"""Runs that it has had dealt ahead, of a program that it does not run meanwhile."""

TARGET = "party0"
"""Whom strangers and the cheating party attack."""
_BACK_TO_NORMAL = 10.0

Act = Callable[[], float | None]
"""What the honest client does time after time; it returns the online seconds, of a run."""


class AttackedCluster(LocalCluster):
    """Its last party attacks when it is told to."""

    @property
    def cheat(self) -> str:
        """That party's name."""
        return self._server_names[-1]

    def _program(self, name: str) -> list[str]:
        if name != self.cheat:
            return super()._program(name)
        return [sys.executable, "-m", "benchmarks.strangers.cheating_party", str(self.folder)]


@dataclass(frozen=True)
class Block:
    """What the client has done, one after the other, and what it took the honest servers meanwhile."""

    seconds: Sequence[float]
    """Of each that succeeded, from the call to its result."""
    online: Sequence[float]
    failures: int
    lasted: float
    """s, of the block."""
    cpu_seconds: float
    """Of an honest server, on the average."""
    peak_bytes: int
    """The most memory that any of them took."""
    descriptors: int
    """The most that any of them had open."""

    @property
    def p99(self) -> float:
        """s."""
        return float(np.percentile(self.seconds, 99))


class Servers:
    """The honest ones, as the kernel and their logs see them."""

    def __init__(self, cluster: AttackedCluster) -> None:
        self._cluster = cluster
        self._pids = {name: process.pid for name, process in cluster.processes.items() if name != cluster.cheat}
        self.processes = Processes(self._pids)

    def descriptors(self) -> int:
        """The most that any has open now."""
        return max(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()) for pid in self._pids.values())

    def resident_bytes(self) -> int:
        """The most that any takes now."""
        return max(map(resident_bytes, self._pids.values()))

    def log_lines(self) -> int:
        """Of all of them."""
        return sum((self._cluster.folder / f"{name}.log").read_bytes().count(b"\n") for name in self._pids)

    def settle(self, descriptors: int) -> None:
        """Until an attack's connections are gone, or ten seconds."""
        deadline = time.monotonic() + _BACK_TO_NORMAL
        while self.descriptors() > descriptors and time.monotonic() < deadline:
            time.sleep(0.05)

    def restarted(self) -> int:
        """The most memory that any has taken by the time it listens, started again."""
        for name in self._pids:
            self._cluster.start_process(name)
        return max(peak_bytes(self._cluster.processes[name].pid) for name in self._pids)


@dataclass
class Course:
    """Of one attack."""

    quiet: list[Block]
    attacked: list[Block]
    tallies: list[dict[str, Any]]
    refused: int = 0
    """Of what the client wanted beside that."""
    burnt: int = 0
    """Items of its stock that it has not used."""
    log_lines: int = 0
    resident: tuple[int, int] = (0, 0)
    """Bytes, before and after."""
    descriptors: tuple[int, int] = (0, 0)
    restarted_bytes: int = 0


def besieged(name: str, security: str, options: argparse.Namespace, advance: Callable[[], None]) -> dict[str, Any]:
    """The row of one attack.  Raises NotAsPromised when nothing that the client wants succeeds."""
    settings = Settings(threads=1, round_timeout=float(options.timeout), memory_mb=MEMORY[Security(security)])
    with AttackedCluster(
        options.parties,
        security=security,
        settings=settings,
        clients=(VICTIM, *CLIENTS),
        start_timeout=options.timeout,
        observable=True,
    ) as cluster:
        servers = Servers(cluster)
        with Client(cluster, name=VICTIM) as client:
            course = _course(name, cluster, servers, client, options, advance)
        course.restarted_bytes = servers.restarted()
    return {"attack": name, "security": security, **summary(course, MEMORY[Security(security)])}


def _course(
    name: str,
    cluster: AttackedCluster,
    servers: Servers,
    client: Client,
    options: argparse.Namespace,
    advance: Callable[[], None],
) -> Course:
    remote = client.upload(derm().model, MODEL)
    client.allow(MODEL, "*")
    act = ACTS.get(name, _predictions)(client, remote)
    for _ in range(WARM_UP):
        act()
    stocked = remote(client.share(np.zeros((1, 3, 28, 28)), low=-1.0, high=0.5))
    in_stock = client.stock(stocked, STOCKED).in_stock

    def block() -> Block:
        measured = _block(act, servers, options.seconds)
        advance()
        return measured

    course = Course([block()], [], [])
    resident, descriptors = servers.resident_bytes(), servers.descriptors()
    for _ in range(options.pairs):
        lines = servers.log_lines()
        with attacking(name, cluster, options) as tally:
            course.attacked.append(block())
        course.tallies.append(tally)
        course.log_lines = max(course.log_lines, servers.log_lines() - lines)
        servers.settle(descriptors)
        course.quiet.append(block())
    course.resident = resident, servers.resident_bytes()
    course.descriptors = descriptors, servers.descriptors()
    try:
        client.upload(small_model(), "afterwards")
        course.burnt = in_stock + 1 - client.stock(stocked, 1).in_stock
    except TesseraError as error:
        course.refused += 1
        print(f"{name}: refused afterwards: {error}", file=sys.stderr)
    return course


def _predictions(client: Client, remote: RemoteModel) -> Act:
    images = derm().inputs(1)
    return lambda: predict(client, remote, images).report.online.seconds


def _uploads(client: Client, _: RemoteModel) -> Act:
    """Of something small, in its own place again and again."""

    def upload() -> None:
        client.upload(small_model(), "small")

    return upload


ACTS: dict[str, Callable[[Client, RemoteModel], Act]] = {"delayed uploads": _uploads}
"""What is timed, where that is not predictions."""


def _block(act: Act, servers: Servers, seconds: float) -> Block:
    times: list[float] = []
    online: list[float] = []
    failures = descriptors = 0
    servers.processes.start()
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        started = time.perf_counter()
        try:
            rounds = act()
            times.append(time.perf_counter() - started)
            online += [] if rounds is None else [rounds]
        except TesseraError as error:
            failures += 1
            print(f"the honest client failed: {error}", file=sys.stderr)
        descriptors = max(descriptors, servers.descriptors())
    lasted, usage = time.monotonic() - began, list(servers.processes.usage().values())
    if not times:
        raise NotAsPromised(f"nothing that the honest client did within {seconds:g} s succeeded: see above")
    cpu = sum(one.cpu_seconds for one in usage) / len(usage)
    return Block(times, online, failures, lasted, cpu, max(one.peak_bytes for one in usage), descriptors)


@contextlib.contextmanager
def attacking(name: str, cluster: AttackedCluster, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """While it is open; afterwards the attackers' tally is filled in, but for a party's."""
    if name in PARTY:
        sign = cluster.folder / SIGN
        sign.write_text(f"{name}\n{TARGET}\n", encoding="ascii")
        time.sleep(UNDER_WAY)
        try:
            yield {}
        finally:
            sign.unlink()
        return
    if name in pictures.FED:
        attack = pictures.feeding(name, cluster, CLIENTS[0], MODEL)
    elif name in outsiders.ATTACKS:
        words = outsiders.words(name, cluster.cluster.member(TARGET), cluster.client_key(VICTIM))
        attack = another_attacks(outsiders.__name__, *words, str(options.rate), str(options.connections))
    else:
        attack = another_attacks(insiders.__name__, name, str(cluster.folder))
    with attack as tally:
        yield tally


def summary(course: Course, memory: int) -> dict[str, Any]:
    """Figures of an attack on servers with so many MiB for runs; whether promises are kept, ``within`` bounds."""
    quiet, attacked, tally = course.quiet, course.attacked, together(course.tallies)
    pairs = list(zip(attacked, itertools.pairwise(quiet), strict=True))
    times = {
        "seconds": _ratio(pairs, lambda block: block.seconds, 50),
        "p99_seconds": _ratio(pairs, lambda block: block.seconds, 99),
    }
    if quiet[0].online:
        times["p99_online_seconds"] = _ratio(pairs, lambda block: block.online, 99)
    failures = sum(one.failures for one in attacked) + course.refused + tally.get("unanswered", 0)
    server = {
        "peak_bytes": max(one.peak_bytes for one in attacked),
        "restarted_bytes": course.restarted_bytes,
        "resident_bytes_before": course.resident[0],
        "resident_bytes_after": course.resident[1],
        "descriptors_before": course.descriptors[0],
        "descriptors_during": max(one.descriptors for one in attacked),
        "descriptors_after": course.descriptors[1],
        "log_lines": course.log_lines,
        "cpu": _cpu(quiet, attacked),
    }
    most, decoding = (memory + SLACK) << 20, tally.get("peak_bytes", 0)
    return {
        "quiet": _spread(quiet),
        "attacked": _spread(attacked),
        "ratio": times,
        "failures": failures,
        "burnt": course.burnt,
        "server": server,
        "attackers": tally,
        "within": {
            "p99": times["p99_seconds"] <= MOST_DELAY,
            "memory": max(server["peak_bytes"], course.restarted_bytes) <= most and decoding <= pictures.MOST,
            "others": not failures and not course.burnt,
        },
    }


def _spread(blocks: Sequence[Block]) -> dict[str, Any]:
    return {
        "seconds": spread([seconds for one in blocks for seconds in one.seconds]),
        "p99_seconds": float(np.median([one.p99 for one in blocks])),
    }


def _ratio(
    pairs: Sequence[tuple[Block, tuple[Block, Block]]], of: Callable[[Block], Sequence[float]], percentile: int
) -> float:
    """That percentile, in terms of the quiet one: the median over attacked blocks."""
    found = []
    for attacked, beside in pairs:
        quiet = [seconds for near in beside for seconds in of(near)]
        found.append(np.percentile(of(attacked), percentile) / np.percentile(quiet, percentile))
    return float(np.median(found))


def _cpu(quiet: Sequence[Block], attacked: Sequence[Block]) -> float:
    """Processors that a server kept busy with what the client did not ask for."""
    each = sum(one.cpu_seconds for one in quiet) / sum(len(one.seconds) for one in quiet)
    done = sum(len(one.seconds) for one in attacked)
    return (sum(one.cpu_seconds for one in attacked) - each * done) / sum(one.lasted for one in attacked)


_MOST = frozenset({"longest_seconds", "peak_bytes"})


def together(tallies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What attackers have counted in all blocks; nothing, where a party attacked."""
    found: dict[str, Any] = {}
    for key, value in itertools.chain.from_iterable(tally.items() for tally in tallies):
        if isinstance(value, dict):
            found[key] = dict(Counter(found.get(key, {})) + Counter(value))
        else:
            found[key] = max(found.get(key, 0), value) if key in _MOST else found.get(key, 0) + value
    return found
