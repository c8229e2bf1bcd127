"""The section about single operations."""

from __future__ import annotations

from benchmarks.page.parts import BASE, OUT, Measurements, Section, error, number, seconds, size, table
from benchmarks.page.plots import Pictures
from mpc.security import Security


def operations(measurements: Measurements, _: Pictures) -> Section:
    """Single operations: a table."""
    records = measurements.of("ops")
    words = [
        [f"{BASE} ops", *dict.fromkeys(r.case["operation"] for r in records if r.case["security"] == s), OUT]
        for s in Security
    ]
    commands = [
        " ".join([*w[:-1], *([f"--security {s}"] if s is not Security.SEMI_HONEST else []), w[-1]])
        for s, w in zip(Security, words, strict=True)
        if len(w) > 2
    ]
    section = Section(
        "Single operations",
        "Inputs from the client, one operation, the result back at the client: rounds count the reveal.  The way"
        " between client and parties is most of such a run's time, and a network pays it once.",
        commands or [f"{BASE} ops {OUT}"],
        records,
    )
    rows = [
        [
            str(r.case["operation"]), " ".join("x".join(map(str, shape)) for shape in r.case["shapes"]),
            f"{r.case['parties']}, {r.case['security']}", number(r.figures.get("online.rounds")),
            size(r.figures.get("online.bytes_per_party")), seconds(r.figures.get("online.seconds")),
            size(r.figures.get("offline.bytes")), seconds(r.figures.get("offline.seconds")),
            error(r.figures.get("max_abs_error")),
        ]
        for r in records
    ]  # fmt: skip
    headings = ["shapes", "parties", "rounds", "sent per party", "online", "dealt", "offline", "largest error"]
    if rows:
        section.add(table("operation", headings, rows))
    return section
