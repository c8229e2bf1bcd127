"""Compiles all kernels at once, so that a launcher pays before it starts other processes and those only load the cache.

Numba compiles one function at a time in a process, all kernels in some 12 s.  So where the cache on disk lacks one,
each other core compiles a share of those that follow, in a process of its own (``python -m mpc.rings.compiling``
and the kernels' names).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Sequence

from mpc.rings.kernels import Kernel, registered

MOST_PROCESSES = 4
"""Each imports Numba, and compiles what all share, for half a second."""

PATIENCE = 60.0
"""s; then this process does what another has not done."""


def warm_up() -> None:
    """Compile every kernel of the modules imported so far, or load it from the cache on disk.

    Takes 5 to 10 s the first time on a machine, a fraction of a second afterwards.
    """
    waiting = iter(registered)
    for kernel in waiting:
        if kernel.load() and kernel.kept:
            _compile(list(waiting))


def _compile(kernels: Sequence[Kernel]) -> None:
    count = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
    ours, *others = (kernels[i::count] for i in range(count))
    helpers = [_started([kernel.name for kernel in share]) for share in others if share]
    for kernel in ours:
        kernel.load()
    for helper in filter(None, helpers):
        with contextlib.suppress(subprocess.TimeoutExpired):
            helper.wait(PATIENCE)
        helper.kill()
        helper.wait()
    # What a process could not do, or where none could be started, is done here.
    for kernel in kernels:
        kernel.load()


def _started(names: Sequence[str]) -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-m", __name__, *names]
    try:
        return subprocess.Popen(  # noqa: S603 - this interpreter, and names of ours
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        return None


if __name__ == "__main__":
    for module in {name.rpartition(".")[0] for name in sys.argv[1:]}:
        importlib.import_module(module)
    for wanted in registered:
        if wanted.name in sys.argv[1:]:
            wanted.load()
