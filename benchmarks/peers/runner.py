"""One system at work: a peer's runner script, or Tessera itself, behind the same three requests."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

GRACE = 2.0
"""Seconds that a killed group of processes is waited for."""


class Unmeasured(Exception):  # noqa: N818 - not all of them are errors
    """There is no figure; the message says why."""


class Lacks(Unmeasured):
    """The system has no such operation."""


class OverLimit(Unmeasured):
    """It took longer than it may."""


class Failed(Unmeasured):
    """It did not work."""


class Worker(Protocol):
    """What takes part in the comparison.  A worker that has raised is of no more use, and must be closed."""

    def ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        """The answer, within ``limit`` seconds; ``runners/serving.py`` documents both.  Raises Unmeasured."""

    def close(self) -> None:
        """End it with everything it started.  Idempotent."""


class Runner:
    """A runner script in a session of its own, so that one signal reaches all its processes.

    ``folder``: its working directory, for its log and for what it leaves; nobody else's.
    """

    def __init__(self, command: Sequence[str | os.PathLike[str]], folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the peer's interpreter and our script
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=_environment(folder),
                start_new_session=True,
            )
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Of the script; also the number of its process group."""
        return self._process.pid

    def ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        if self._process.stdin is None:
            raise Failed("its process is gone")
        deadline = time.monotonic() + limit
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise Failed(self._ending()) from None
        answer = self._answer(deadline, limit)
        if "lacks" in answer:
            raise Lacks(str(answer["lacks"]))
        if "over" in answer:
            raise OverLimit(str(answer["over"]))
        if "error" in answer:
            raise Failed(str(answer["error"]))
        return answer

    def _answer(self, deadline: float, limit: float) -> dict[str, Any]:
        line = self._line(deadline, limit)
        try:
            answer = json.loads(line)
        except ValueError:
            raise Failed("it answered something that is not JSON") from None
        if not isinstance(answer, dict):
            raise Failed("it answered something that is no JSON object")
        return answer

    def _line(self, deadline: float, limit: float) -> bytes:
        pipe = self._process.stdout
        if pipe is None:
            raise Failed("its process is gone")
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise OverLimit(f"over the limit of {limit:.0f} s")
                chunk = os.read(pipe.fileno(), 65536)
                if not chunk:
                    raise Failed(self._ending())
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _ending(self) -> str:
        """Its exit code and the last it said."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)
        with contextlib.suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            if lines:
                return f"its process ended with code {self._process.returncode}: {lines[-1][:300]}"
        return f"its process ended with code {self._process.returncode}"

    def close(self) -> None:
        # The group may have members when its leader is gone: the signal goes to the group, whatever the leader does.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait()
        deadline = time.monotonic() + GRACE
        while _group_lives(self._process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _environment(folder: Path) -> dict[str, str]:
    """The user's, but for what would let this package's environment into the peer's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
