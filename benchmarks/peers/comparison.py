"""The comparison itself: for each case all systems start and prepare, then take turns, then end.

So whatever else the machine does falls on all of them, and no case runs in memory that another one has left behind.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.cases import Case
from benchmarks.peers.catalogue import System, script
from benchmarks.peers.here import Here
from benchmarks.peers.installing import installed, interpreter
from benchmarks.peers.runner import Lacks, OverLimit, Runner, Unmeasured, Worker
from benchmarks.records import Figure, spread

WARM_UP = 2
"""Runs after the first that do not count, where the first took less than a second."""

TIMES = {"seconds": "online.seconds", "offline_seconds": "offline.seconds", "evaluation_seconds": "evaluation.seconds"}
"""Names of measured times, as a worker and as a record call them."""


@dataclass(frozen=True)
class Limits:
    """How long each system may take for each case."""

    repeat: int
    """Measured runs."""
    limit: float
    """Seconds until an answer must be there: for preparing and the first run, and then for each run."""
    budget: float
    """Seconds of measured runs after which there are no more; if the first run took longer, it is what is measured."""


@dataclass
class Outcome:
    """What came out for one system and one case."""

    system: System
    case: Case
    figures: dict[str, Figure] = field(default_factory=dict)
    status: str = "measured"
    reason: str = ""
    version: str = ""
    cold: bool = False
    """Whether the figure is of the first run, without warm-up."""
    first: float = 0.0
    """Seconds of the first run."""
    times: dict[str, list[float]] = field(default_factory=dict, repr=False)

    @property
    def identity(self) -> dict[str, Any]:
        """``case`` of its record."""
        return {"case": self.case.name, "system": self.system.name, "parties": self.system.parties}

    @property
    def about(self) -> dict[str, Any]:
        """``about`` of its record."""
        facts = {
            "status": self.status, "reason": self.reason, "version": self.version, "cold": self.cold,
            "protects": self.system.protects, "online_is": self.system.online, "numbers": self.system.numbers,
        }  # fmt: skip
        return {name: value for name, value in facts.items() if value}

    def count(self, answer: dict[str, Any]) -> None:
        """Keep the times of a run."""
        for name, figure in TIMES.items():
            if name in answer:
                self.times.setdefault(figure, []).append(float(answer[name]))

    def fail(self, error: Unmeasured) -> None:
        kinds = {Lacks: "lacks", OverLimit: "over the limit"}
        self.status, self.reason = kinds.get(type(error), "failed"), str(error)
        self.figures, self.times = {}, {}

    def close(self) -> None:
        """Sum up the times."""
        self.figures = {name: spread(values) for name, values in self.times.items()} | self.figures


class Comparison:
    """Context manager: whatever it started ends with it.

    ``environments``: where the peers' virtual environments are.  ``start``: makes a worker; by default Tessera in this
    process, and the peers' runners.
    """

    def __init__(
        self, limits: Limits, environments: Path, start: Callable[[System, Path], Worker] | None = None
    ) -> None:
        self._limits, self._environments = limits, environments
        self._start = start or self._start_worker
        self._stack = contextlib.ExitStack()
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Comparison:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tessera-peers-")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            for name in list(self._workers):
                self._end(name)

    def case(self, case: Case, systems: Sequence[System], step: Callable[[str], None]) -> list[Outcome]:
        """Every system's outcome, in their order; ``step`` is told what happens next."""
        data = self._folder / f"{case.name}.npz"
        case.save(data)
        outcomes = [Outcome(system, case) for system in systems]
        # What needs most memory goes first, while nothing else is there; most of it runs but once, and is gone again.
        for outcome in sorted(outcomes, key=lambda o: not o.system.heavy):
            step(f"{case.name}: {outcome.system.name} prepares")
            self._open(outcome, data)
        for turn in range(-WARM_UP, self._limits.repeat):
            for outcome in outcomes:
                if self._due(outcome, turn):
                    step(f"{case.name}: {outcome.system.name}")
                    self._run(outcome, turn)
        for outcome in outcomes:
            self._end(outcome.system.name)
            if outcome.status == "measured":
                outcome.close()
        data.unlink()
        return outcomes

    def _open(self, outcome: Outcome, data: Path) -> None:
        peer = outcome.system.peer
        if peer != "tessera" and self._start == self._start_worker and not installed(peer, self._environments):
            outcome.status, outcome.reason = "not installed", f"install it: tessera bench peers --install {peer}"
            return
        request = {"do": "open", "case": outcome.case.to_dict(), "data": str(data), "limit": self._limits.limit}
        answer = self._ask(outcome, request)
        if answer is None:
            return
        outcome.figures = dict(answer["figures"])
        outcome.version = str(answer.get("version", ""))
        outcome.cold = answer["seconds"] > self._limits.budget
        if outcome.cold:
            outcome.count(answer)
            self._end(outcome.system.name)
        outcome.first = float(answer["seconds"])

    def _due(self, outcome: Outcome, turn: int) -> bool:
        """Whether it has a run in this turn; those below 0 are warm-up."""
        if outcome.status != "measured" or outcome.cold:
            return False
        if turn < 0:
            return outcome.first < 1
        return sum(outcome.times.get("online.seconds", ())) < self._limits.budget

    def _run(self, outcome: Outcome, turn: int) -> None:
        answer = self._ask(outcome, {"do": "run"})
        if answer is not None and turn >= 0:
            outcome.count(answer)

    def _ask(self, outcome: Outcome, request: dict[str, Any]) -> dict[str, Any] | None:
        """The answer, or None if there is none: then the outcome says why, and the system is gone."""
        name = outcome.system.name
        try:
            if name not in self._workers:
                self._workers[name] = self._start(outcome.system, self._folder / name)
            return self._workers[name].ask(request, self._limits.limit)
        except Unmeasured as error:
            outcome.fail(error)
            self._end(name)
            return None

    def _start_worker(self, system: System, folder: Path) -> Worker:
        if system.peer == "tessera":
            return Here(system, self._limits.limit)
        python = interpreter(system.peer, self._environments)
        return Runner([python, script(system), *system.arguments], folder)

    def _end(self, name: str) -> None:
        worker = self._workers.pop(name, None)
        if worker is not None:
            worker.close()
