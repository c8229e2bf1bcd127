"""Processes that have imported already: the tests start some hundreds, each of which would import for 0.9 s of CPU.

`Forked` is a ``subprocess.Popen`` of a Python program.  What it starts is no new interpreter but a fork of one process,
the *nursery*, which has imported everything, loaded the kernels and done nothing else: it has one thread, no socket and
no key.  After the fork all is as behind ``python program arguments``: arguments, environment, working directory, the
standard streams, a process id of its own; and it is a child of whoever asked, to be waited for, stopped and killed.

    python nursery.py FD

is the nursery, which serves the socket FD until its other end is closed.  ``TESSERA_TESTS_EXEC=1`` goes without one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import importlib.util
import json
import os
import runpy
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).resolve().parent
COMMANDS = "parties.commands.command_line"
PACKAGES = next(
    str(Path(spec.origin).parents[1]) for spec in [importlib.util.find_spec("parties")] if spec and spec.origin
)
"""Where they are imported from: the checkout, or where it has been installed."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Read when libraries are loaded: of these a fork has the nursery's, which is one thread each."""
PR_SET_CHILD_SUBREAPER = 36
STREAMS = 3
LONGEST = 1 << 20


class Forked(subprocess.Popen[Any]):
    """``Popen``, of which the servers, the commands and the tests' own programs are forks."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        options = dict(zip(("executable", "preexec_fn", "close_fds", "pass_fds", "cwd", "env"), rest, strict=False))
        pipes = rest[9:15]
        reads, _, _, writes, _, errors = pipes
        environment = dict(os.environ if options["env"] is None else options["env"])
        if not can_fork([str(word) for word in args], environment, options):
            super()._execute_child(args, *rest)
            return
        streams = [own if given == -1 else given for own, given in enumerate((reads, writes, errors))]
        try:
            self.pid = _nursery().fork([str(word) for word in args[1:]], environment, options["cwd"], streams)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)


def can_fork(words: Sequence[str], environment: Mapping[str, str], options: Mapping[str, Any]) -> bool:
    """Whether a fork is the same: this interpreter, these packages, as few threads, and nothing else asked for."""
    return (
        sys.platform == "linux"
        and "TESSERA_TESTS_EXEC" not in os.environ
        and words[0] == sys.executable
        and (words[1:3] == ["-m", COMMANDS] or PROGRAMS in Path(words[1]).parents)
        and environment.get("PYTHONPATH", PACKAGES).split(os.pathsep)[0] in (PACKAGES, str(PROGRAMS.parent))
        and all(environment.get(name, "1") == "1" for name in THREADS)
        and not any(options[name] for name in ("executable", "preexec_fn", "pass_fds"))
    )


class Nursery:
    """Our end of it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": PACKAGES},
            )

    def fork(self, words: list[str], environment: dict[str, str], cwd: Any, streams: list[int]) -> int:
        """The process id of a new child of ours."""
        with self._lock, adopting():
            asked = json.dumps([words, environment, os.fspath(cwd or Path.cwd())]).encode()
            socket.send_fds(self._socket, [asked], streams)
            return int(self._socket.recv(64))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """What a child of ours leaves behind meanwhile becomes our child."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@functools.cache
def _nursery() -> Nursery:
    return Nursery()


def start() -> None:
    """Now, though nobody has asked for a process yet."""
    _nursery()


def close() -> None:
    if _nursery.cache_info().currsize:
        _nursery().close()
        _nursery.cache_clear()


def warm_up() -> None:
    """All kernels that are imported.  Where they have to be compiled, one process does it, and the others load them."""
    from mpc.rings import compiling

    with Path(compiling.__file__).open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        compiling.warm_up()


def forked(asking: socket.socket) -> list[str]:
    """Serves; returns in each child alone, with what it is to run."""
    while True:
        asked, streams, _, _ = socket.recv_fds(asking, LONGEST, STREAMS)
        if not asked:
            os._exit(0)
        # Twice: what a process leaves behind when it ends is adopted by whoever asked.
        told, tell = os.pipe()
        wait, go = os.pipe()
        middle = os.fork()
        if not middle:
            pid = os.fork()
            if pid:
                os.write(tell, str(pid).encode())
                os._exit(0)
            os.close(go)
            os.read(wait, 1)
            for number in (told, tell, wait):
                os.close(number)
            asking.close()
            words, environment, cwd = json.loads(asked)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(cwd)
            return words
        os.waitpid(middle, 0)
        asking.send(os.read(told, 64))
        for number in (told, tell, wait, go, *streams):
            os.close(number)


def run(words: list[str]) -> None:
    """As the interpreter would with these arguments, to the end of the process.

    Only that one which ends by itself does not take down all that has been imported: most of it is still shared with
    the nursery, would have to be copied to be freed, and that is 0.1 s of CPU.
    """
    try:
        _run(words)
        code = 0
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        code = end.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except (OSError, ValueError):
        # The interpreter has words of its own for it.
        sys.exit(code)
    os._exit(code & 0xFF)


def _run(words: list[str]) -> None:
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        # It is not imported twice otherwise: not without a warning.
        del sys.modules[words[1]]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    import gc

    import parties.commands.command_line  # noqa: F401

    warm_up()
    gc.freeze()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork would have but one of these threads"
    sys.path.pop(0)
    run(forked(socket.socket(fileno=int(sys.argv[1]))))
