"""What the processes of a soak occupy, what the servers say that they do, and what is in their logs."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from parties import LocalCluster
from parties.commands.status import watching
from parties.members.keys import KeyPair

INTERVAL = 0.5
"""s between two looks at every process."""

_ALARMS = re.compile(r"Traceback \(most recent call last\)|internal error", re.IGNORECASE)


@dataclass(frozen=True)
class Sample:
    """What a process occupied at a time, in s since the soak began."""

    name: str
    pid: int
    """Tells one process of a name from the next."""
    at: float
    predictions: int
    """Answered by then, by the whole cluster."""
    memory: int
    """Bytes of its own (``RssAnon``): files that are mapped, such as libraries, come and go as the kernel likes."""
    descriptors: int
    threads: int
    rest: bool = False
    """Whether all clients were waiting, and no run was in progress."""


@dataclass(frozen=True)
class Footprint:
    """What a soak has left on disk at a server by the end of a phase, in bytes."""

    phase: str
    server: str
    data: int
    log: int


class Watch:
    """Samples processes, by name."""

    def __init__(self, pids: Callable[[], Mapping[str, int]], predictions: Callable[[], int], began: float) -> None:
        self.samples: list[Sample] = []
        self._pids, self._predictions, self._began = pids, predictions, began

    async def run(self, besides: Callable[[], Awaitable[None]]) -> None:
        """Never returns, and awaits ``besides`` each time; cancel it."""
        while True:
            self.look()
            await besides()
            await asyncio.sleep(INTERVAL)

    def look(self, *, rest: bool = False) -> None:
        """Sample all processes, now."""
        at, predictions = time.monotonic() - self._began, self._predictions()
        for name, pid in self._pids().items():
            # One that has just ended is not sampled.
            with contextlib.suppress(OSError, KeyError):
                memory, threads, descriptors = occupied(pid)
                self.samples.append(Sample(name, pid, at, predictions, memory, descriptors, threads, rest))


def occupied(pid: int) -> tuple[int, int, int]:
    """Bytes of memory of its own, threads and open descriptors.  Raises OSError or KeyError for one that has ended."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["RssAnon"].split()[0]) << 10, int(fields["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir()))


def ending(code: int) -> str:
    """An exit code of ``subprocess`` in words."""
    return signal.Signals(-code).name if code < 0 else f"code {code}"


async def settled(cluster: LocalCluster, keys: KeyPair, patience: float) -> list[str]:
    """Waits, at most ``patience`` s, until no server has a run in progress; a sentence for each that still has."""
    until = time.monotonic() + patience
    async with watching(cluster.cluster, keys, min(5.0, patience)) as watcher:
        while True:
            report = await watcher.look()
            problems = []
            for row in report.rows:
                if row.status is None:
                    problems.append(f"{row.server.name} does not say what it does: {row.error}")
                elif runs := row.status.own_runs + row.status.other_runs:
                    problems.append(f"{row.server.name}: {runs} runs in progress with nobody left who asked for them")
            if not problems or time.monotonic() > until:
                return problems
            await asyncio.sleep(INTERVAL)


def footprints(cluster: LocalCluster, phase: str) -> list[Footprint]:
    """What each server has on disk now."""
    found = []
    for name in cluster.processes:
        log = cluster.folder / f"{name}.log"
        files = (path for path in cluster.data_path(name).rglob("*") if path.is_file())
        found.append(Footprint(phase, name, sum(path.stat().st_size for path in files), log.stat().st_size))
    return found


def alarms(folder: Path) -> list[str]:
    """Lines of logs that tell of a bug, with the name of the log, and what led to a traceback."""
    found = []
    for path in sorted(folder.glob("*.log")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{path.stem}: {_around(lines, i)}" for i, line in enumerate(lines) if _ALARMS.search(line)]
    return found


def _around(lines: list[str], i: int) -> str:
    """The line; of a traceback the line before it, and its last one, which names the error."""
    if "Traceback" not in lines[i]:
        return lines[i]
    end = next((line for line in lines[i + 1 :] if not line.startswith(" ")), "")
    return " / ".join((*lines[max(0, i - 1) : i], end))
