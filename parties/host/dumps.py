"""No core dumps: the memory of whoever computes here holds keys, seeds, shares, and at a client the data itself."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_PR_SET_DUMPABLE = 4


def no_core_files() -> None:
    """This process writes none, nor do those that it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # Where this is not granted there is nothing to lower.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def opaque() -> None:
    """Neither does the kernel hand this process's memory to a collector of dumps, which no limit keeps it from.

    Nor may other processes of the same user look into it, unless they are root's: debuggers, or whoever counts its
    open files.  Lasts until it runs another program.
    """
    no_core_files()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
