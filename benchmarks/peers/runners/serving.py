"""What the runners have in common: requests and answers as JSON lines, and parties as processes of their own.

Standard library only: this runs on the interpreter of each peer's environment.

A runner reads one request per line from stdin and writes one answer per line to stdout.  It serves one case:

    {"do": "open", "case": {...}, "data": "case.npz", "limit": 120.0}   prepare the case and run it once, counting
        -> {"figures": {...}, "seconds": first run}
    {"do": "run"}                                       run it once more
        -> {"seconds": ..., "offline_seconds": ...}

An answer {"lacks": reason} says that the system has no such operation; {"over": reason} that it would take longer than
"limit", seconds in the request to open, as a part of the case shows; {"error": reason} that it failed.

When stdin ends, so does the runner, with all processes of its group: nothing outlives who started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any


class Lacks(Exception):  # noqa: N818 - no error
    """The system has no such operation; the message says why."""


class OverLimit(Exception):  # noqa: N818 - no error
    """It would take longer than the request allows; the message says how that is known."""


def serve(handle: Callable[[dict[str, Any]], dict[str, Any]], answers: Any = None) -> None:
    """Answer requests with ``handle``, one at a time, until stdin ends or it fails."""
    answers = answers or claim_stdout()
    requests: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        try:
            answer = handle(request)
        except Lacks as reason:
            answer = {"lacks": str(reason)}
        except OverLimit as reason:
            answer = {"over": str(reason)}
        except BaseException as error:  # reported to who asked, then this process ends
            answer = {"error": f"{type(error).__name__}: {error}"[:600]}
        print(json.dumps(answer), file=answers, flush=True)
        if "error" in answer:
            end()


def claim_stdout() -> Any:
    """The stream for answers; what libraries print goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _read_requests(requests: queue.Queue[bytes]) -> None:
    """In a thread, so that the end of stdin is seen while a computation runs."""
    buffer = b""
    while chunk := os.read(0, 65536):
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            requests.put(line)
    end()


def end() -> None:
    """End this process, and its whole group if it leads one."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


class Crew:
    """The parties of a protocol: this script once more for each, with ``arguments(rank)`` and ``environment(rank)``."""

    def __init__(
        self,
        count: int,
        arguments: Callable[[int], list[str]],
        environment: Callable[[int], dict[str, str]] = lambda rank: {},
    ) -> None:
        self._answers: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self._parties = []
        for rank in range(count):
            party = subprocess.Popen(
                [sys.executable, os.path.abspath(sys.argv[0]), *arguments(rank)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **environment(rank)},
            )
            self._parties.append(party)
            threading.Thread(target=self._read, args=(rank, party), daemon=True).start()

    def __len__(self) -> int:
        return len(self._parties)

    def _read(self, rank: int, party: subprocess.Popen[bytes]) -> None:
        for line in party.stdout:
            self._answers.put((rank, line))
        self._answers.put((rank, b""))

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Every party's answer to the same request.  Raises RuntimeError for one that fails, Lacks if they lack it."""
        line = json.dumps(request).encode() + b"\n"
        for party in self._parties:
            with contextlib.suppress(BrokenPipeError):
                party.stdin.write(line)
                party.stdin.flush()
        answers: list[dict[str, Any]] = [{} for _ in self._parties]
        for _ in self._parties:
            rank, answer = self._answers.get()
            if not answer:
                code = self._parties[rank].wait()
                raise RuntimeError(f"party {rank} ended with code {code}")
            answers[rank] = json.loads(answer)
            if "error" in answers[rank]:
                raise RuntimeError(f"party {rank}: {answers[rank]['error']}")
        if "lacks" in answers[0]:
            raise Lacks(answers[0]["lacks"])
        return answers


def free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def tcp_bytes() -> tuple[int, int]:
    """Payload bytes that the kernel counted as sent and received on this process's TCP connections, so far."""
    sent = received = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(descriptor))) as s:
                if s.type != socket.SOCK_STREAM or s.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:
            continue
        if len(info) >= 208:
            # struct tcp_info: tcpi_bytes_received, tcpi_bytes_sent.
            received += struct.unpack_from("Q", info, 128)[0]
            sent += struct.unpack_from("Q", info, 200)[0]
    return sent, received


def peak_memory() -> float:
    """The most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
