"""``tessera bench strangers``: what somebody without a key does to the predictions of those who have one.

And what other members do to them: `benchmarks.members`.

A cluster of processes on this machine, a client that predicts the dermatology CNN again and again, and a process that
attacks the first party's port (`benchmarks.attacks`).  Quiet and attacked blocks of predictions alternate; each attack
is compared with the quiet blocks before and after it, so that whatever else the machine does falls on both.  The
attackers' own processor time falls on the attacked blocks as well, where there are no processors to spare.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import members, members_attacks
from benchmarks.attacks import ATTACKS, Tally, Target, record_handshake
from benchmarks.inference import WARM_UP, predict
from benchmarks.machine import machine
from benchmarks.models import derm
from benchmarks.processes import Processes
from benchmarks.records import Figure, Recorder, flatten, spread
from benchmarks.report import megabytes, milliseconds, plain_table, print_json, progress_bar, stdout_console
from mpc.errors import TesseraError, UsageError
from parties import Client, LocalCluster
from parties.members.cluster_file import Settings

ATTACKED = "party0"
"""The server whose port is attacked."""

_UNDER_WAY = 1.0
"""s from the attack's first connection until predictions are measured."""
_START = 30.0
_BACK_TO_NORMAL = 10.0


@dataclass(frozen=True)
class Block:
    """Predictions one after the other, and what the attacked server needed meanwhile."""

    online: Sequence[float]
    """s of each that succeeded."""
    failures: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    descriptors: int
    """The most that were open after one of the predictions."""

    @property
    def per_second(self) -> float:
        """Predictions."""
        return len(self.online) / self.seconds


class Server:
    """The attacked process, as the kernel sees it."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._pid = cluster.processes[ATTACKED].pid
        self._log = cluster.folder / f"{ATTACKED}.log"
        self.processes = Processes({ATTACKED: self._pid})

    def state(self) -> dict[str, int]:
        """Open descriptors, physical memory that it occupies, and lines that it has logged."""
        return {
            "descriptors": self.descriptors(),
            "resident_bytes": self._resident_bytes(),
            "log_lines": self._log.read_bytes().count(b"\n"),
        }

    def descriptors(self) -> int:
        """Open now."""
        return sum(1 for _ in Path(f"/proc/{self._pid}/fd").iterdir())

    def _resident_bytes(self) -> int:
        lines = Path(f"/proc/{self._pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS:"))


def run(options: argparse.Namespace) -> int:
    """Measure and print; the exit code."""
    recorder = Recorder.of(options)
    every = (*ATTACKS, *members_attacks.ATTACKS)
    names = options.attacks or list(every)
    for name in names:
        if name not in every:
            raise UsageError(f"there is no attack called {name!r}: there are {', '.join(map(repr, every))}")
    outside, inside = ([name for name in names if name in kind] for kind in (ATTACKS, members_attacks.ATTACKS))
    summary: dict[str, Any] = {
        "model": "derm",
        "parties": options.parties,
        "seconds": options.seconds,
        "rate": options.rate,
        "connections": options.connections,
        "attacks": _measured(outside, options) if outside else {},
        "members": members.measured(inside, options) if inside else {},
        "machine": machine(),
    }
    for name, found in summary["attacks"].items():
        case = {key: summary[key] for key in ("model", "parties", "rate", "connections")}
        recorder.add("strangers", {**case, "attack": name}, _figures(found), {"strangers": found["strangers"]})
    for name, found in summary["members"].items():
        case = {"model": "derm", "parties": 2, "memory_mb": members.MEMORY, "attack": name}
        figures = flatten(found, "failures", "quiet", "attacked", "ratio")
        figures["server.peak_bytes"] = float(found["server"]["peak_bytes"])
        figures["server.cpu"] = found["server"]["cpu"]
        recorder.add("members", case, figures, {"attackers": found["attackers"]})
    if options.json:
        print_json(summary)
        return recorder.finish()
    if outside:
        _print(summary)
    if inside:
        members.show(summary["members"], options.seconds)
    return recorder.finish()


def _figures(found: dict[str, Any]) -> dict[str, Figure]:
    """What is kept of an attack; what the server needed as floats, as whole numbers are taken to be exact."""
    server = {f"server.{name}": float(count) for name, count in found["server"].items()}
    return {**flatten(found, "failures", "quiet", "attacked", "ratio"), **server}


def _measured(names: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    settings = Settings(threads=1, round_timeout=float(options.timeout))
    chosen = derm()
    images = chosen.inputs(1)
    found = {}
    with (
        LocalCluster(options.parties, settings=settings, start_timeout=options.timeout, observable=True) as cluster,
        Client(cluster) as client,
        progress_bar("predicting", 2 * len(names) + 1) as advance,
    ):
        remote, server = client.upload(chosen.model, "attacked"), Server(cluster)
        for _ in range(WARM_UP):
            predict(client, remote, images)

        def block() -> Block:
            measured = _block(lambda: predict(client, remote, images).report.online.seconds, server, options.seconds)
            advance()
            return measured

        target = _target(cluster)
        quiet = block()
        for name in names:
            before = server.state()
            advance.describe(name)
            with attacking(name, target, options.rate, options.connections) as tally:
                attacked = block()
            after = _settled(server, before["descriptors"])
            following = block()
            found[name] = _summary((quiet, following), attacked, tally, before, after)
            quiet = following
    return found


def _target(cluster: LocalCluster) -> Target:
    member = cluster.cluster.member(ATTACKED)
    host, _, port = (member.address or "").rpartition(":")
    target = Target(host, int(port), member.curve)
    return Target(host, int(port), member.curve, record_handshake(target, cluster.client_key()))


def _block(predicted: Callable[[], float], server: Server, seconds: float) -> Block:
    online: list[float] = []
    failures, descriptors = 0, 0
    started = time.monotonic()
    server.processes.start()
    while time.monotonic() < started + seconds:
        try:
            online.append(predicted())
        except TesseraError as error:
            failures += 1
            print(f"a prediction failed: {error}", file=sys.stderr)
        descriptors = max(descriptors, server.descriptors())
    lasted, usage = time.monotonic() - started, server.processes.usage()[ATTACKED]
    return Block(online, failures, lasted, usage.cpu_seconds, usage.peak_bytes, descriptors)


@contextlib.contextmanager
def attacking(name: str, target: Target, rate: int, connections: int) -> Iterator[Tally]:
    """While it is open another process attacks; afterwards its tally is filled in."""
    words = [name, f"{target.host}:{target.port}", target.key, target.recording.hex(), str(rate), str(connections)]
    command = [sys.executable, "-m", "benchmarks.attacks", *words]
    tally = Tally()
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        _await_beginning(process)
        yield tally
        printed, _ = process.communicate(timeout=_START)
        for key, value in json.loads(printed).items():
            setattr(tally, key, value)
    finally:
        process.kill()
        process.communicate()


def _await_beginning(process: subprocess.Popen[str]) -> None:
    lines: list[str] = []

    def read() -> None:
        if process.stdout is not None:
            lines.append(process.stdout.readline())

    # A thread reads: a pipe has no timeout.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(_START)
    if not lines or not lines[0]:
        raise UsageError("the attackers' process did not start: see above")
    time.sleep(_UNDER_WAY)


def _settled(server: Server, descriptors: int) -> dict[str, int]:
    """Once the attack is over and its connections are gone, or ten seconds later."""
    deadline = time.monotonic() + _BACK_TO_NORMAL
    while server.descriptors() > descriptors and time.monotonic() < deadline:
        time.sleep(0.05)
    return server.state()


def _summary(
    quiet: Sequence[Block], attacked: Block, tally: Tally, before: dict[str, int], after: dict[str, int]
) -> dict[str, Any]:
    baseline = [seconds for one in quiet for seconds in one.online]
    calm, hit = _times(baseline), _times(attacked.online)
    calm_per_second = sum(len(one.online) for one in quiet) / sum(one.seconds for one in quiet)
    return {
        "failures": attacked.failures,
        "quiet": {**calm, "predictions_per_second": calm_per_second, "cpu": _cpu(quiet)},
        "attacked": {**hit, "predictions_per_second": attacked.per_second, "cpu": _cpu([attacked])},
        "ratio": {
            "online_seconds": hit["online_seconds"]["median"] / calm["online_seconds"]["median"],
            "p99_seconds": hit["p99_seconds"] / calm["p99_seconds"],
            "predictions_per_second": attacked.per_second / calm_per_second,
        },
        "server": {
            "resident_bytes_before": before["resident_bytes"],
            "peak_bytes": attacked.peak_bytes,
            "resident_bytes_after": after["resident_bytes"],
            "descriptors_before": before["descriptors"],
            "descriptors_during": attacked.descriptors,
            "descriptors_after": after["descriptors"],
            "log_lines": after["log_lines"] - before["log_lines"],
        },
        "strangers": asdict(tally),
    }


def _times(online: Sequence[float]) -> dict[str, Any]:
    if not online:
        raise UsageError("no prediction succeeded: see above")
    return {"online_seconds": spread(online), "p99_seconds": float(np.percentile(online, 99))}


def _cpu(blocks: Sequence[Block]) -> float:
    """Processors that the server kept busy, on the average."""
    return sum(one.cpu_seconds for one in blocks) / sum(one.seconds for one in blocks)


def _print(summary: dict[str, Any]) -> None:
    console = stdout_console()
    console.print(
        f"{summary['model']}, {summary['parties']} parties and a dealer, blocks of {summary['seconds']} s,"
        f" while {ATTACKED} is attacked: {summary['rate']} connections/s, {summary['connections']} at a time at most"
    )
    table = plain_table("attack", "median", "quiet", "ratio", "p99", "quiet", "ratio", "predictions/s", "failed")
    for name, found in summary["attacks"].items():
        hit, calm, ratio = found["attacked"], found["quiet"], found["ratio"]
        table.add_row(
            name,
            milliseconds(hit["online_seconds"]["median"]), milliseconds(calm["online_seconds"]["median"]),
            f"{ratio['online_seconds']:.2f}",
            milliseconds(hit["p99_seconds"]), milliseconds(calm["p99_seconds"]), f"{ratio['p99_seconds']:.2f}",
            f"{ratio['predictions_per_second']:.0%}", str(found["failures"]),
        )  # fmt: skip
    console.print(table)
    table = plain_table(
        "attack", "opened", "closed", "within", "CPU", "quiet", "memory", "peak", "after", "files", "log"
    )
    for name, found in summary["attacks"].items():
        server, strangers = found["server"], found["strangers"]
        table.add_row(
            name, f"{strangers['opened']:,}", f"{strangers['closed']:,}", milliseconds(strangers["longest_seconds"]),
            f"{found['attacked']['cpu']:.0%}", f"{found['quiet']['cpu']:.0%}",
            *(megabytes(server[key]) for key in ("resident_bytes_before", "peak_bytes", "resident_bytes_after")),
            "/".join(str(server[f"descriptors_{when}"]) for when in ("before", "during", "after")),
            str(server["log_lines"]),
        )  # fmt: skip
    console.print(table)
    console.print("Within: the longest that a connection stood which the server closed.  Files: before/during/after.")
