"""CPU time and peak memory of other processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.processes import Processes, used
from mpc.errors import UsageError

WORK = """
import sys
for line in sys.stdin:
    kind, amount = line.split()
    x = bytearray(b"1") * int(amount) if kind == "memory" else sum(i * i for i in range(int(amount)))
    del x
    print("done", flush=True)
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        do(process, "cpu 1")
        yield process
        process.kill()


def do(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def test_cpu_and_peak_since_the_start(worker: subprocess.Popen[str]) -> None:
    processes = Processes({"worker": worker.pid})
    runs = []
    for line in ("memory 200000000", "cpu 1000000", "cpu 1"):
        processes.start()
        do(worker, line)
        runs.append(processes.usage())
    large, busy, idle = (run["worker"] for run in runs)
    assert large.peak_bytes > 190e6
    # The peak before is forgotten: the memory was given back.
    assert busy.peak_bytes < 100e6
    assert busy.cpu_seconds > 0.01
    assert 0 < idle.cpu_seconds < busy.cpu_seconds
    summary = used(runs)["worker"]
    assert summary["peak_bytes"]["max"] == large.peak_bytes
    assert summary["cpu_seconds"]["count"] == 3


def test_a_process_that_ended(worker: subprocess.Popen[str]) -> None:
    processes = Processes({"worker": worker.pid})
    worker.kill()
    worker.wait()
    with pytest.raises(UsageError, match="has ended"):
        processes.usage()
    with pytest.raises(UsageError, match="has ended"):
        Processes({"worker": worker.pid})
