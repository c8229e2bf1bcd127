"""CPU time and peak memory of the processes of a session, from the kernel's own counts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.records import Spread, spread
from mpc.errors import UsageError

# Of ``man 2 clock_getres``: the clock of the CPU time of all threads of another process.
_SCHEDULED = 2
_KIB = 1024


@dataclass(frozen=True)
class Usage:
    """What one process used while something ran."""

    cpu_seconds: float
    """Of all its threads."""
    peak_bytes: int
    """The most physical memory it occupied meanwhile (its resident set's high-water mark)."""


class Processes:
    """Processes of this machine by name, watched from one ``start`` to the next ``usage``."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._cpu: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Count from now on.  Raises UsageError when a process is gone."""
        for pid in self._pids.values():
            _forget_peak(pid)
        self._cpu = {name: _cpu_seconds(pid) for name, pid in self._pids.items()}

    def usage(self) -> dict[str, Usage]:
        """What each has used since ``start``.  Raises UsageError when a process is gone."""
        return {name: Usage(_cpu_seconds(pid) - self._cpu[name], peak_bytes(pid)) for name, pid in self._pids.items()}

    def resident(self) -> dict[str, int]:
        """The physical memory that each occupies now, in bytes.  Raises UsageError when a process is gone."""
        return {name: resident_bytes(pid) for name, pid in self._pids.items()}


def used(runs: Sequence[Mapping[str, Usage]]) -> dict[str, dict[str, Spread]]:
    """CPU seconds and peak bytes of each process over runs of the same thing."""
    return {
        name: {
            "cpu_seconds": spread([run[name].cpu_seconds for run in runs]),
            "peak_bytes": spread([run[name].peak_bytes for run in runs]),
        }
        for name in runs[0]
    }


def _cpu_seconds(pid: int) -> float:
    try:
        return time.clock_gettime(~pid << 3 | _SCHEDULED)
    except OSError:
        raise UsageError(f"process {pid} has ended while it was measured") from None


def peak_bytes(pid: int) -> int:
    """The most physical memory that a process has occupied.  Raises UsageError when it is gone."""
    return _memory(pid, "VmHWM:")


def resident_bytes(pid: int) -> int:
    """The physical memory that it occupies now.  Raises UsageError when it is gone."""
    return _memory(pid, "VmRSS:")


def _memory(pid: int, which: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * _KIB for line in lines if line.startswith(which))
    except (OSError, StopIteration):
        raise UsageError(f"process {pid} has ended while it was measured, or has no /proc entry") from None


def _forget_peak(pid: int) -> None:
    """Let the high-water mark begin anew.  Where the kernel does not allow it, peaks are those of the whole life."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
