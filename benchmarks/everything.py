"""``tessera bench all``: every benchmark, one after the other, into one file of records."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.machine import machine
from benchmarks.records import Recorder, read
from mpc.errors import TesseraError
from mpc.security import Security

QUICK: tuple[tuple[str, ...], ...] = (
    ("kernels",),
    ("ops", "--repeat", "5"),
    ("inference", "--repeat", "5"),
    ("inference", "--batch", "32", "--repeat", "5"),
    ("security", "--images", "50"),
    ("scale", "--batches", "1", "8", "64", "--sides", "28", "64", "--repeat", "3"),
    ("network", "--repeat", "5"),
    ("accuracy", "--images", "32"),
    ("soak", "--predictions", "60", "--clients", "4"),
    ("workers", "--workers", "1", "4", "--rounds", "3"),
    ("peers", "--cases", "cnn-28", "--repeat", "5"),
)
"""Names and arguments of benchmarks: about six minutes."""

ROUND_TRIPS = ("1", "2", "5", "10", "20", "40", "80")
"""In ms."""

PLAN: tuple[tuple[str, ...], ...] = (
    ("kernels",),
    ("ops",),
    ("ops", "--security", "malicious"),
    ("inference",),
    ("inference", "--security", "malicious"),
    *(("inference", "--batch", "32", "--security", security) for security in Security),
    *(
        ("inference", "--parties", parties, "--security", security)
        for parties in ("3", "5", "8")
        for security in Security
    ),
    *(("inference", "--side", side, "--repeat", "5") for side in ("64", "128", "224")),
    ("security",),
    *(("scale", "--security", security) for security in Security),
    *(("network", "--security", security) for security in Security),
    ("network", "--rtt", *ROUND_TRIPS),
    ("accuracy",),
    ("soak",),
    ("soak", "--security", "malicious", "--predictions", "300"),
    ("strangers", "--security", "both"),
    ("workers",),
    ("peers", "--limit", "200"),
)
"""What docs/benchmarks.md is made from; the quick ones first."""


class Outcome(NamedTuple):
    """What became of one benchmark."""

    bench: str
    seconds: float
    failure: dict[str, Any] | None
    """As ``TesseraError.to_dict`` says it."""

    @property
    def exit_code(self) -> int:
        """Of its process."""
        return 0 if self.failure is None else int(self.failure["code"])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"bench": self.bench, "seconds": self.seconds, "exit_code": self.exit_code, "failure": self.failure}


def run(options: argparse.Namespace) -> int:
    """Run what is planned; the exit code: of the first benchmark that failed, else as ``Recorder.finish`` says.

    One that fails, say because a peer is not installed, does not keep the others from being run.
    """
    recorder = Recorder.of(options)
    before = len(read(options.out))
    plan = QUICK if options.quick else PLAN
    outcomes = [_outcome(words, number, len(plan), options) for number, words in enumerate(plan, 1)]
    recorder.keep(read(options.out)[before:])
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    if options.json:
        recorder.print_json({
            "out": str(options.out),
            "records": len(recorder.records),
            "benches": [outcome.to_dict() for outcome in outcomes],
            "machine": machine(),
        })  # fmt: skip
    else:
        print(f"{len(recorder.records)} measurements in {options.out}")
    for outcome in failed[1:]:
        print(f"tessera bench {outcome.bench} ended with {outcome.exit_code}: see above", file=sys.stderr)
    return recorder.finish(failed[0].failure if failed else None)


def _outcome(words: Sequence[str], number: int, total: int, options: argparse.Namespace) -> Outcome:
    """In a process of its own, so that what one benchmark left in memory is not counted as the next one's."""
    bench = " ".join(words)
    print(f"[{number}/{total}] tessera bench {bench}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "parties.commands.command_line", "bench", *words, "--out", str(options.out)]
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own interpreter and module
        [*command, *["--json"] * options.json], stdout=subprocess.PIPE if options.json else None, check=False
    )
    return Outcome(bench, time.perf_counter() - started, _failure(bench, done) if done.returncode else None)


def _failure(bench: str, done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """What it says of itself in JSON; else that it ended so."""
    said = TesseraError(f"tessera bench {bench} ended with {done.returncode}").to_dict()
    with contextlib.suppress(ValueError):
        told = json.loads(done.stdout or b"")
        return {key: told.get(key, value) for key, value in said.items()}
    return said | ({"code": done.returncode} if done.returncode > 0 else {})
