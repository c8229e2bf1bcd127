"""What has threads of its own, and was not closed when the interpreter ends: closed then, with a ResourceWarning.

Threads go on while the interpreter is taken down around them, and would complain of that with a traceback each.
``atexit`` comes too late: by then nobody can hand work to another thread any more.
"""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from typing import Protocol


class Closable(Protocol):
    """It has been opened."""

    def close(self) -> None:
        """Idempotent."""


_open: dict[int, tuple[Closable, int]] = {}
"""In the order in which they were opened, with the process that did."""


def opened(thing: Closable) -> None:
    """It is to be closed, at the latest when the interpreter ends."""
    if not _hooked:
        _hooked.append(True)
        # As ``concurrent.futures`` has itself told, and before that is told: the last to be registered is called first.
        threading._register_atexit(_close_all)  # type: ignore[attr-defined]
    _open[id(thing)] = thing, os.getpid()


def closed(thing: Closable) -> None:
    """It has been.  Idempotent."""
    _open.pop(id(thing), None)


_hooked: list[bool] = []


def _close_all() -> None:
    with contextlib.ExitStack() as stack:
        for thing, process in list(_open.values()):
            if process == os.getpid():
                # The last one first; and each, whatever becomes of others, or if the warning is made an error.
                stack.callback(thing.close)
                stack.callback(warnings.warn, f"unclosed {thing!r}", ResourceWarning, stacklevel=2, source=thing)
