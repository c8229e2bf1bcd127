"""The section about workers: how much more a party of many does than one of a single one."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.page.parts import BASE, OUT, Measurements, Section, inference_command, number, seconds, table
from benchmarks.page.plots import Pictures, middle
from benchmarks.records import Record


def by_workers(measurements: Measurements, _: Pictures) -> Section:
    """Throughput, by simulation."""
    every = measurements.of("workers")
    points = sorted((r for r in every if "workers" in r.case), key=lambda r: (_of(r), r.case["workers"]))
    section = Section(
        "Throughput against workers",
        "By simulation: a run is computed here once and measured, and played again and again by servers whose messages,"
        " encryption, ledgers, turns and choice of a worker are real, while what workers compute is waited for, as much"
        " longer as this one machine needs that carries the messages of all.  Efficiency is the part of their time in"
        " which workers compute; of heads, the processor's time for one run.",
        _commands(points),
        every,
    )
    if not points:
        return section
    servers = ["dealer", *(f"party{index}" for index in range(max(point.case["parties"] for point in points)))]
    headings = ["workers of each", "efficiency", *(f"head of {name}" for name in servers), "this machine busy"]
    rows = [
        [
            _of(point),
            f"{point.case['workers']}",
            f"{middle(point.figures['efficiency']):.0%}",
            *(seconds(point.figures.get(f"cpu_seconds.{name}")) for name in servers),
            f"{middle(point.figures['busy']):.0%}",
        ]
        for point in points
    ]
    section.add(table("run", headings, rows))
    for whole in (record for record in every if "workers" not in record.case):
        those = servers[: 1 + whole.case["parties"]]
        computing = ", ".join(f"{seconds(whole.figures[f'computing.{name}'])} ({name})" for name in those)
        least = min(those, key=lambda name: middle(whole.figures[f"limit.{name}"]))
        section.add(
            f"{_of(whole)}: a run is computed in {computing}, on one thread, and was waited for"
            f" {number(whole.figures['stretch'])} times as long.  At its real speed the head of {least} has no time"
            f" left with {number(whole.figures[f'limit.{least}'], 1)} workers of each."
        )
    return section


def _of(record: Record) -> str:
    case = record.case
    return f"{case['model']}, batch {case['batch']}, {case['parties']} parties"


def _commands(points: Sequence[Record]) -> list[str]:
    counts: dict[str, list[int]] = {}
    for point in points:
        counts.setdefault(inference_command(point), []).append(point.case["workers"])
    return [
        words.replace(" inference ", f" workers --workers {' '.join(map(str, workers))} ")
        for words, workers in counts.items()
    ] or [f"{BASE} workers {OUT}"]
