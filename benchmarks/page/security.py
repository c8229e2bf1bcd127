"""The section about malicious security."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.page.parts import BASE, OUT, Measurements, Section, number, seconds, side, size, table, times
from benchmarks.page.plots import Bars, Pictures, middle
from mpc.security import Security


def by_security(measurements: Measurements, pictures: Pictures) -> Section:
    """What malicious security costs."""
    records = sorted(measurements.of("security"), key=lambda r: (r.case["parties"], r.case["batch"], side(r)))
    commands = []
    for record in records:
        case, counted = record.case, record.figures.get(f"{Security.MALICIOUS}.online.seconds")
        words = [f"{BASE} security --batch {case['batch']} --parties {case['parties']}"]
        words += [f"--images {case['batch'] * int(counted['count'])}"] if isinstance(counted, Mapping) else []
        commands.append(" ".join([*words, OUT]))
    section = Section(
        "Malicious beside semi-honest",
        "Both clusters run at the same time and take turns, batch by batch.  With malicious security every share"
        " carries a MAC, and the parties check all openings before anything is revealed.",
        commands or [f"{BASE} security {OUT}"],
        records,
    )
    if not records:
        return section
    groups = [f"batch {r.case['batch']}, {r.case['parties']} parties" for r in records]
    panels = [
        Bars(
            f"{phase} time", "ms", groups,
            {str(s): [r.figures.get(f"{s}.{phase.lower()}.seconds") for r in records] for s in Security},
            1e3, log=False,
        )
        for phase in ("Online", "Offline")
    ]  # fmt: skip
    section.draw(pictures.bars("security", panels), "Malicious beside semi-honest: medians, least and greatest.")
    rows = []
    for group, record in zip(groups, records, strict=True):
        for security in Security:
            figures = {name: record.figures.get(f"{security}.{name}") for name in SHOWN}
            rows.append([
                f"{group}, {security}", number(figures["online.rounds"]), size(figures["online.bytes_per_party"]),
                seconds(figures["online.seconds"]), size(figures["offline.bytes"]), seconds(figures["offline.seconds"]),
            ])  # fmt: skip
        ratios = {name: record.figures.get(f"ratio.{name}") for name in RATIOS}
        shown = ["–" if ratio is None else times(middle(ratio)) for ratio in ratios.values()]
        more = record.figures.get("ratio.more_rounds")
        rows.append([f"{group}, malicious to semi-honest", "–" if more is None else f"{middle(more):+.0f}", *shown])
    section.add(table("run", ["rounds", "sent per party", "online", "dealt", "offline"], rows))
    return section


SHOWN = ("online.rounds", "online.bytes_per_party", "online.seconds", "offline.bytes", "offline.seconds")
RATIOS = ("online_bytes", "online_seconds", "offline_bytes", "offline_seconds")
