"""Whether a soak went well: what is wrong, as sentences; none if nothing is."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.soak.attempts import Attempt, Interval, Outage
from benchmarks.soak.watching import Footprint, Sample

WARM_UP = 200
"""Predictions, of the whole cluster, after a process's start until its memory is judged: heaps grow first."""

SPAN = 120
"""Predictions after that, at least, for a judgement."""

HEAP = 32 << 20
"""Bytes that the memory of a process may grow by however long it lives.

Servers keep what they once needed (``parties.servers.process.tune``): whenever more runs meet than ever before, memory
goes up by some MB, and stays there.  Most of that comes before ``WARM_UP``, but not all.
"""

GROWTH = 4 << 10
"""Bytes per prediction of the cluster that it may grow by besides.

A party's part of what is dealt for one prediction is hundreds of KiB, and an image 18 KiB as shares: once a process has
lived for a thousand predictions, either shows.  Servers do remember the ids of their last 65,536 runs, some 300 bytes
each.
"""

DESCRIPTORS = 4 + 7
"""That a process may have more at rest than those of its name had at the first rest, when all had met everyone.

Seven are pyzmq's, once: what frees buffers that were sent without a copy has a context of its own, from the first such
message on (``zmq.utils.garbage``), and where data goes through ports of their own that may be after the first rest.
"""

THREADS = min(32, (os.cpu_count() or 1) + 4) + 2 * max(2, os.cpu_count() or 1)
"""Likewise: as many as the three pools of a server hold when they are full."""

SHORTLY = 5.0
"""s after a process's return in which others may still find that it was gone."""

DATA = 256 << 20
"""Bytes of a server's data folder.  A log of SQLite's grows to some 20 MiB before it is emptied; four runs dealt ahead
are 12 MiB at a party, and those of a whole soak would be several times the limit."""


@dataclass(frozen=True)
class Trend:
    """How the memory of one process grew while predictions were answered."""

    name: str
    pid: int
    predictions: int
    """Over which it was watched, after warming up."""
    first: int
    """Bytes after warming up."""
    last: int
    """Bytes at the end."""

    @property
    def slope(self) -> float:
        """Bytes per prediction."""
        return (self.last - self.first) / self.predictions

    @property
    def flat(self) -> bool:
        """Whether it grew by no more than allowed."""
        return self.last - self.first <= HEAP + GROWTH * self.predictions


@dataclass(frozen=True)
class Rests:
    """What the processes of one name had at rest: the first time, and the most that any had later."""

    name: str
    count: int
    descriptors: tuple[int, int]
    threads: tuple[int, int]


def trends(samples: Iterable[Sample]) -> list[Trend]:
    """One for each process that lived long enough."""
    found = []
    for (name, pid), own in by_process(samples).items():
        warm = [s for s in own if s.predictions - own[0].predictions >= WARM_UP]
        if not warm or warm[-1].predictions - warm[0].predictions < SPAN:
            continue
        span = warm[-1].predictions - warm[0].predictions
        found.append(Trend(name, pid, span, warm[0].memory, warm[-1].memory))
    return found


def rests(samples: Iterable[Sample]) -> list[Rests]:
    """One for each name that was at rest twice or more.

    A process that has just been started has fewer than one that has met everyone: they are not told apart.
    """
    names: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.rest:
            names[sample.name].append(sample)
    return [
        Rests(
            name,
            len(own),
            (own[0].descriptors, max(s.descriptors for s in own[1:])),
            (own[0].threads, max(s.threads for s in own[1:])),
        )
        for name, own in names.items()
        if len(own) > 1
    ]


def by_process(samples: Iterable[Sample]) -> dict[tuple[str, int], list[Sample]]:
    """In order of time."""
    processes: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        processes[sample.name, sample.pid].append(sample)
    return dict(processes)


def wrong_answers(attempts: Iterable[Attempt]) -> list[str]:
    """Answers that are not what the network says."""
    return [
        f"{a.client} was given a wrong answer at {a.began:.1f} s: it lies {a.difference:.3g} from the right one"
        for a in attempts
        if a.answered and not a.right
    ]


def untyped(attempts: Iterable[Attempt]) -> list[str]:
    """Failures that do not say what happened."""
    return [
        f"{a.client}'s {a.kind} ended at {a.ended:.1f} s with {a.error}: {a.message}"
        for a in attempts
        if a.error and (not a.typed or "internal error" in a.message)
    ]


def overdue(attempts: Iterable[Attempt], deadline: float) -> list[str]:
    """What took longer than promised, whatever came of it."""
    return [
        f"{a.client}'s {a.kind} took {a.seconds:.1f} s, and {deadline:g} s are promised: {a.error or 'it succeeded'}"
        for a in attempts
        if a.seconds > deadline
    ]


def needless(attempts: Iterable[Attempt], phases: Sequence[str]) -> list[str]:
    """Failures in phases in which nothing is done to anybody."""
    return [
        f"{a.client}'s {a.kind} failed at {a.ended:.1f} s though nothing was down: {a.error}: {a.message}"
        for a in attempts
        if a.error and a.phase in phases
    ]


def leaks(samples: Sequence[Sample]) -> list[str]:
    """Memory, descriptors and threads that grow."""
    found = [
        f"{t.name} grows: from {t.first >> 20} to {t.last >> 20} MiB over {t.predictions} predictions,"
        f" {t.slope / 1024:.1f} KiB with each (process {t.pid})"
        for t in trends(samples)
        if not t.flat
    ]
    for rest in rests(samples):
        for what, (first, most), more in (
            ("descriptors", rest.descriptors, DESCRIPTORS),
            ("threads", rest.threads, THREADS),
        ):
            if most > first + more:
                found.append(f"{rest.name} had {first} {what} at rest, and {most} later")
    return found


def heavy(footprints: Iterable[Footprint]) -> list[str]:
    """Data folders that keep what is not needed any more."""
    return [
        f"the data folder of {f.server} had {f.data >> 20} MiB after the phase in which {f.phase}"
        for f in footprints
        if f.data > DATA
    ]


def misnamed(attempts: Iterable[Attempt], outages: Sequence[Outage]) -> list[Attempt]:
    """Failures that name a process which was neither down while they lasted nor shortly before."""
    return [
        a
        for a in attempts
        if a.error
        and a.peer
        and not any(o.member == a.peer and Interval(o.began, o.ended + SHORTLY).overlaps(a) for o in outages)
    ]


def by_kind(attempts: Iterable[Attempt]) -> dict[str, dict[str, int]]:
    """How many failures of each class name whom; ``""`` is nobody."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for attempt in attempts:
        if attempt.error:
            counts[attempt.error][attempt.peer] += 1
    return {kind: dict(sorted(peers.items())) for kind, peers in sorted(counts.items())}
