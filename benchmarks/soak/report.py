"""The figures of a soak, and its tables."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.machine import machine
from benchmarks.report import megabytes, milliseconds, plain_table, stdout_console
from benchmarks.soak.attempts import STOCK, Attempt, calm, disturbed, recoveries
from benchmarks.soak.course import Course
from benchmarks.soak.verdict import by_kind, misnamed, rests, trends


def summarised(course: Course, options: argparse.Namespace) -> dict[str, Any]:
    """All of it, as JSON has it; ``figures`` are kept as a record, ``wrong`` are sentences."""
    attempts, outages = course.attempts, course.outages
    answers, failures = [a for a in attempts if a.answered], [a for a in attempts if a.error]
    down = disturbed(outages)
    quiet = calm(answers, outages)
    figures: dict[str, Any] = {
        "right": sum(a.right for a in answers),
        "wrong": sum(not a.right for a in answers),
        "untyped": sum(not a.typed for a in failures),
        "stuck": len(course.stuck),
        "difference": max((a.difference for a in answers), default=0.0),
        "calm_per_second": _calm_rate(quiet, course),
        "calm_answer": quantiles(a.seconds for a in quiet if not a.first),
        "answer": quantiles(a.seconds for a in answers),
        "failure": quantiles(a.seconds for a in failures),
        "recovery": quantiles(recoveries(attempts, outages)),
    }
    astray = misnamed(attempts, outages)
    counts = {
        "answered": len(answers),
        "from_stock": sum(a.from_stock for a in answers),
        "stock_requests": sum(a.kind == STOCK and not a.error for a in attempts),
        "attempts": len(attempts),
        "failures": len(failures),
        "misnamed": len(astray),
        "faults": len(outages),
        "seconds": course.seconds,
        "down_seconds": sum(interval.ended - interval.began for interval in down),
    }
    grown = trends(course.samples)
    return {
        "model": "derm",
        "parties": options.parties,
        "security": str(options.security),
        "predictions": options.predictions,
        "clients": options.clients,
        "faults": ",".join(options.faults),
        "every": options.every,
        "seed": options.seed,
        "figures": {name: value for name, value in figures.items() if value is not None},
        "course": counts,
        "failures": by_kind(attempts),
        "misnamed": [asdict(attempt) for attempt in astray],
        "outages": _by_member(course),
        "events": [asdict(outage) for outage in outages],
        "trends": [{**asdict(trend), "slope": trend.slope, "flat": trend.flat} for trend in grown],
        "unjudged": sorted(set(course.servers) - {trend.name for trend in grown}),
        "rests": [asdict(rest) for rest in rests(course.samples)],
        "footprints": [asdict(footprint) for footprint in course.footprints],
        "wrong": course.verdict(),
        "machine": machine(),
    }


def quantiles(values: Iterable[float]) -> dict[str, float] | None:
    """Median, 99th percentile, least, greatest, and how many; None of nothing."""
    known = list(values)
    if not known:
        return None
    median, p99 = np.percentile(known, [50, 99])
    return {"median": float(median), "p99": float(p99), "min": min(known), "max": max(known), "count": len(known)}


def _calm_rate(quiet: Sequence[Attempt], course: Course) -> float:
    """Answers per second of the time in which nothing was down."""
    up = course.seconds - sum(interval.ended - interval.began for interval in disturbed(course.outages))
    return len(quiet) / up if up > 0 else 0.0


def _by_member(course: Course) -> dict[str, dict[str, int]]:
    """How often what was done to whom."""
    counts: dict[str, Counter[str]] = {}
    for outage in course.outages:
        counts.setdefault(outage.member, Counter())[outage.fault] += 1
    return {name: dict(sorted(kinds.items())) for name, kinds in sorted(counts.items())}


def print_summary(summary: dict[str, Any]) -> None:
    """Tables for people; what is wrong is not among them."""
    console, figures, course = stdout_console(), summary["figures"], summary["course"]
    console.print(
        f"{summary['model']}, {summary['parties']} parties and a dealer, {summary['security']}, {summary['clients']}"
        f" client processes; seed {summary['seed']}, {course['seconds']:,.0f} s, something down for"
        f" {course['down_seconds']:,.0f} s"
    )
    console.print(
        f"{course['answered']:,} predictions answered ({course['from_stock']:,} from stock), {figures['right']:,} of"
        f" them right, none further than {figures['difference']:.1e} from float64; {course['failures']:,} of"
        f" {course['attempts']:,} attempts failed, {figures['untyped']} without a typed error, {course['misnamed']}"
        f" naming somebody who was there; {figures['stuck']} servers with stuck runs"
    )
    _print_outages(summary["outages"])
    _print_failures(summary["failures"])
    table = plain_table("seconds", "median", "p99", "max", "count")
    for name, title in (
        ("calm_answer", "answer, nothing down"),
        ("answer", "answer, all"),
        ("failure", "failure"),
        ("recovery", "first answer after a return"),
    ):
        if times := figures.get(name):
            table.add_row(title, *(milliseconds(times[key]) for key in ("median", "p99", "max")), f"{times['count']:,}")
    console.print(table)
    _print_trends(summary)
    console.print(
        "[bold red]Not as promised: see below.[/]" if summary["wrong"] else "All as promised.  Not for diagnosis."
    )


def _print_outages(outages: dict[str, dict[str, int]]) -> None:
    kinds = sorted({kind for counts in outages.values() for kind in counts})
    table = plain_table("harmed", *kinds)
    for name, counts in outages.items():
        table.add_row(name, *(str(counts.get(kind, 0)) for kind in kinds))
    if outages:
        stdout_console().print(table)


def _print_failures(failures: dict[str, dict[str, int]]) -> None:
    table = plain_table("failure", "names", "times")
    for kind, peers in failures.items():
        for peer, count in peers.items():
            table.add_row(kind, peer or "nobody", f"{count:,}")
    if failures:
        stdout_console().print(table)


def _print_trends(summary: dict[str, Any]) -> None:
    console = stdout_console()
    if summary["trends"]:
        table = plain_table("memory of a process", "predictions", "warmed up", "at the end", "KiB each")
        for trend in summary["trends"]:
            sizes = megabytes(trend["first"]), megabytes(trend["last"])
            table.add_row(trend["name"], f"{trend['predictions']:,}", *sizes, f"{trend['slope'] / 1024:.1f}")
        console.print(table)
    if summary["unjudged"]:
        console.print(f"Too few predictions to judge the memory of {', '.join(summary['unjudged'])}.")
    table = plain_table("at rest", "descriptors", "most later", "threads", "most later", "data folder")
    data = {footprint["server"]: megabytes(footprint["data"]) for footprint in summary["footprints"]}
    for rest in summary["rests"]:
        name, counts = rest["name"], (*rest["descriptors"], *rest["threads"])
        table.add_row(name, *map(str, counts), data.get(name, ""))
    console.print(table)
