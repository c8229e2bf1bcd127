"""The clients of a soak: a process each, given one order after the other until enough has been answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.report import Steps
from benchmarks.soak.attempts import PREDICT, STOCK, Attempt
from benchmarks.soak.watching import ending
from parties import LocalCluster

STOCKED = 4
"""Runs dealt ahead at a time, by every second client, before as many of its predictions."""

PAUSE = 0.1
"""s that a client waits after a failure; a person would wait longer."""

_START = 60.0
"""s more for the first order of a process: it has to start."""


class Crowd:
    """Client processes by name.

    Args:
        cluster: running; lists the clients.
        names: of those clients.
        references: what the network says of each image, (images, classes).
        deadline: s within which whatever is asked must succeed or fail.
        seed: of the choice of images.
        began: the time, as ``time.monotonic`` has it, from which times are counted.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        names: Sequence[str],
        references: npt.NDArray[np.float64],
        deadline: float,
        seed: int,
        began: float,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.problems: list[str] = []
        """What became of client processes that nobody has done anything to."""
        self.answered = 0
        self.processes: dict[str, Process] = {}
        self._cluster, self._names, self._references = cluster, names, references
        self._deadline, self._seed, self._began = deadline, seed, began
        self._in_hand = 0
        self._killed: set[str] = set()
        self._fresh: set[str] = set()

    async def predict(self, phase: str, count: int, struck: asyncio.Event, advance: Steps) -> None:
        """Until ``count`` more predictions have been answered, the last of them begun after ``struck`` was set."""
        target = self.answered + count
        async with asyncio.TaskGroup() as tasks:
            for number, name in enumerate(self._names):
                tasks.create_task(self._work(name, number, phase, target, struck, advance))

    async def kill(self, name: str) -> None:
        """SIGKILL, whatever it is at; ``predict`` starts another in its place."""
        process = self.processes.get(name)
        if process is not None and process.returncode is None:
            self._killed.add(name)
            process.kill()
            await process.wait()

    async def close(self) -> None:
        """End all of them."""
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def _work(
        self, name: str, number: int, phase: str, target: int, struck: asyncio.Event, advance: Steps
    ) -> None:
        choice = random.Random(f"{self._seed} {name} {phase}")  # noqa: S311 - nothing secret
        stocked = STOCKED  # not before some predictions that are dealt for when they are asked
        while self.answered < target:
            if number % 2 and not stocked:
                await self._attempt(name, phase, {"kind": STOCK, "count": STOCKED})
                stocked = 2 * STOCKED
            if self.answered + self._in_hand >= (target if struck.is_set() else target - 1):
                await asyncio.sleep(PAUSE)  # the others have the rest in hand, and one of theirs may fail
                continue
            self._in_hand += 1
            try:
                attempt = await self._attempt(
                    name, phase, {"kind": PREDICT, "image": choice.randrange(len(self._references))}
                )
            finally:
                self._in_hand -= 1
            if attempt is None or attempt.error:
                await asyncio.sleep(PAUSE)
                continue
            stocked = max(0, stocked - 1)
            self.answered += 1
            advance()

    async def _attempt(self, name: str, phase: str, order: dict[str, Any]) -> Attempt | None:
        """None when its process was killed."""
        process = await self._process(name)
        deadline = self._deadline + (_START if name in self._fresh else 0.0)
        began = time.monotonic()
        try:
            async with asyncio.timeout(deadline):
                answer = await _ask(process, order)
        except TimeoutError:
            answer = {"error": "nothing", "typed": False, "message": f"no answer and no error within {deadline:g} s"}
            process.kill()
            await process.wait()
        if answer is None:
            await self._ended(name, process)
            return None
        ended = time.monotonic()
        first = name in self._fresh
        if first:
            # What the process took to start is not a part of the attempt.
            self._fresh.discard(name)
            began = max(began, ended - answer.get("seconds", 0.0))
        parts = self._judged(order, answer)
        attempt = Attempt(name, order["kind"], phase, began - self._began, ended - self._began, first=first, **parts)
        self.attempts.append(attempt)
        return attempt

    def _judged(self, order: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """What came of it, as parts of an ``Attempt``."""
        parts: dict[str, Any] = {
            name: answer[name] for name in ("error", "typed", "peer", "message", "from_stock") if name in answer
        }
        if "values" in answer:
            reference, values = self._references[order["image"]], np.asarray(answer["values"])
            parts["difference"] = float(np.abs(values - reference).max()) if values.shape == reference.shape else np.inf
            parts["same_class"] = bool(values.argmax() == reference.argmax())
        return parts

    async def _process(self, name: str) -> Process:
        """The one that runs, or a new one."""
        process = self.processes.get(name)
        if process is None or process.returncode is not None:
            command = ["-m", "benchmarks.soak.client", str(self._cluster.path), str(self._cluster.key_path(name))]
            with (self._cluster.folder / f"{name}.log").open("ab") as log:
                process = self.processes[name] = await asyncio.create_subprocess_exec(
                    sys.executable, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                    stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
                )  # fmt: skip
            self._fresh.add(name)
        return process

    async def _ended(self, name: str, process: Process) -> None:
        code = await process.wait()
        if name in self._killed:
            self._killed.discard(name)
        else:
            self.problems.append(f"{name} ended by itself, with {ending(code)}: {self._cluster.log_tail(name)}")


async def _ask(process: Process, order: dict[str, Any]) -> dict[str, Any] | None:
    """Its answer, or None when the process is no more."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("clients are started with pipes")
    with contextlib.suppress(ConnectionError):
        process.stdin.write(json.dumps(order).encode() + b"\n")
        await process.stdin.drain()
    line = await process.stdout.readline()
    answer: dict[str, Any] | None = json.loads(line) if line else None
    return answer
