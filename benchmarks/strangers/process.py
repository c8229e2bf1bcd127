"""A process that attacks until it is told to stop, from both ends.

It says that it begins, in a line, and once its stdin is closed, in one of JSON, its tally: how it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from mpc.errors import UsageError

NICE = 19
"""Of whoever attacks: it has machines of its own elsewhere, so here it takes what the others leave."""
UNDER_WAY = 2.0
"""s from the beginning of an attack until anything is measured."""

BEGINS = "begins"
_START = _END = 60.0


def when_stdin_closes() -> asyncio.Event:
    """Set then: whoever started this process tells it to stop, or has died."""
    closed, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=wait, daemon=True).start()
    return closed


@contextlib.contextmanager
def another_attacks(module: str, *words: str) -> Iterator[dict[str, Any]]:
    """While it is open ``module`` attacks, in another process; afterwards its tally is filled in.

    Raises UsageError when it does not begin, or ends early.
    """
    tally: dict[str, Any] = {}
    command = [sys.executable, "-m", module, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
    try:
        if first_line(process) != BEGINS:
            raise UsageError("the attackers' process did not start: see above")
        time.sleep(UNDER_WAY)
        yield tally
        printed, _ = process.communicate(timeout=_END)
        if process.returncode:
            raise UsageError(f"the attack {words[0]!r} ended early: see above")
        tally.update(json.loads(printed))
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    """What a process that has just been started prints first; nothing if that does not come in time."""
    lines: list[str] = []

    def read() -> None:
        if process.stdout is not None:
            lines.append(process.stdout.readline())

    # A thread reads: a pipe has no timeout.
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(_START)
    return lines[0].strip() if lines else ""
