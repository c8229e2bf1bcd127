"""``tessera bench peers``: Tessera beside other systems, and the installation of those."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.machine import machine
from benchmarks.peers import cases, catalogue, table
from benchmarks.peers.comparison import Comparison, Limits, Outcome
from benchmarks.peers.installing import install
from benchmarks.records import Recorder
from benchmarks.report import progress_bar, stdout_console


def run(options: argparse.Namespace) -> int:
    """Install, or compare and print; the exit code."""
    if options.install is not None:
        return install(options.install, options.folder, options.python)
    chosen, systems = cases.chosen(options.cases), catalogue.chosen(options.systems)
    recorder = Recorder.of(options)
    limits = Limits(options.repeat, options.limit, options.budget)
    outcomes: list[Outcome] = []
    with Comparison(limits, options.folder) as comparison, progress_bar("comparing", len(chosen)) as advance:
        for case in chosen:
            for outcome in comparison.case(case, systems, advance.describe):
                outcomes.append(outcome)
                recorder.add("peers", outcome.identity, outcome.figures, outcome.about)
            advance()
    if options.json:
        recorder.print_json(summary(outcomes, limits))
    else:
        table.show(stdout_console(), outcomes)
    return recorder.finish()


def summary(outcomes: list[Outcome], limits: Limits) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
        "results": [table.as_json(outcome, outcomes) for outcome in outcomes],
        "repeat": limits.repeat,
        "limit_seconds": limits.limit,
        "budget_seconds": limits.budget,
        "not_comparable": list(table.NOT_COMPARABLE),
        "machine": machine(),
    }
