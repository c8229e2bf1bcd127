"""The section about networks: time against round-trip time, predicted and measured."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from benchmarks.models import derm
from benchmarks.page.parts import BASE, OUT, Measurements, Section, seconds, side, table
from benchmarks.page.plots import Line, Panel, Pictures, middle
from benchmarks.prediction import MEGA, MILLI
from benchmarks.records import Record
from mpc.cost import Link
from mpc.security import Security

UNSHAPED = "unshaped"
ROUND_TRIPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 100.0)
"""In ms."""
BANDWIDTHS = (10, 100, 1000, 10_000)
"""In Mbit/s."""
LINKS = ("servers_rtt_ms", "servers_mbit", "client_rtt_ms", "client_mbit")


def by_network(measurements: Measurements, pictures: Pictures) -> Section:
    """Predicted seconds, and measured ones where there are any, against the round-trip time."""
    records = sorted(measurements.of("network"), key=_order)
    section = Section(
        "Time against round-trip time",
        "Client, dealer and parties on hosts of their own (network namespaces of one machine), joined by links that"
        " delay and throttle.  What a link does is measured before anything runs over it.  **Predicted** is what rounds"
        " and bytes take on the links asked for (`tessera cost --rtt MS --bandwidth MBIT`); **with computing** adds"
        " the time of the same run without delay and limit.",
        _commands(records),
        records,
    )
    _draw(section, pictures, [r for r in records if _plain_case(r)])
    if not records:
        return section
    checked = [
        [_name(r), _link(r.case["servers_rtt_ms"], r.case["servers_mbit"]), _found(r, "servers"),
         _link(r.case["client_rtt_ms"], r.case["client_mbit"]), _found(r, "client")]
        for r in records
    ]  # fmt: skip
    headings = ["among servers", "measured", "to the client", "measured"]
    section.add("What the links were asked to do, and did:", table("network", headings, checked))
    for phase in ("online", "offline"):
        headings = [phase, "predicted", "with computing", "measured to that"]
        rows = [[_name(r), *_times(r, records, phase)] for r in records]
        section.add(f"The {phase} phase:", table("network", headings, rows))
    section.add(
        f"TCP's congestion control was {_control(records)}.  Where much is sent over a long way it decides how soon a"
        " connection is as fast as its link; each network has connections of its own, warmed up by a few runs."
    )
    return section


def _draw(section: Section, pictures: Pictures, records: Sequence[Record]) -> None:
    """Lines for every bandwidth; points of every network whose client is as near as its servers."""
    cost = derm().cost(1, 2, Security.SEMI_HONEST)
    base = next((r for r in records if r.case["network"] == UNSHAPED), None)
    computing = 0.0 if base is None else middle(base.figures["online.seconds"])
    lines = []
    for bandwidth in BANDWIDTHS:
        ys = [computing + cost.latency(Link(rtt * MILLI, bandwidth * MEGA)).online for rtt in ROUND_TRIPS]
        lines.append(Line(f"{bandwidth:,} Mbit/s", ROUND_TRIPS, ys, measured=False))
    points = [r for r in records if _one_link(r)]
    for bandwidth in sorted({r.case["servers_mbit"] for r in points}):
        of_one = sorted((r for r in points if r.case["servers_mbit"] == bandwidth), key=lambda r: _rtt(r))
        xs = [_rtt(r) for r in of_one]
        ys_measured = [r.figures["online.seconds"] for r in of_one]
        # In the colour of what was predicted for it.
        colour = BANDWIDTHS.index(int(bandwidth)) if bandwidth in BANDWIDTHS else None
        lines.append(Line(f"measured, {bandwidth:,.0f} Mbit/s", xs, ys_measured, joined=False, colour=colour))
    panel = Panel("", "round-trip time of every link, ms", "online, ms", lines, (0.1, 1, 10, 100), factor=1e3)
    shown = "lines predicted, points measured" if points else "predicted, nothing measured"
    section.draw(
        pictures.lines("round-trip-time", [panel]),
        f"Online time of one image (28x28, 2 parties, semi-honest) against round-trip time: {shown}.",
    )


def _one_link(record: Record) -> bool:
    case = record.case
    same = case["servers_rtt_ms"] == case["client_rtt_ms"] and case["servers_mbit"] == case["client_mbit"]
    return bool(same and case["network"] != UNSHAPED)


def _rtt(record: Record) -> float:
    return float(record.case["servers_rtt_ms"])


def _commands(records: Sequence[Record]) -> list[str]:
    """One for the networks with names, one for each bandwidth of the others; by number of parties and security."""
    commands = []
    for kind in dict.fromkeys(_kind(r) for r in records):
        group = [r for r in records if _kind(r) == kind and r.case["network"] != UNSHAPED]
        words = [*(f"--{n} {v}" for n, v, usual in kind if v != usual), OUT]
        named = [r for r in group if not _unnamed(r)]
        if named:
            commands.append(" ".join([f"{BASE} network", *(shlex.quote(r.case["network"]) for r in named), *words]))
        for rate in dict.fromkeys(r.case["servers_mbit"] for r in group if _unnamed(r)):
            round_trips = [f"{_rtt(r):g}" for r in group if _unnamed(r) and r.case["servers_mbit"] == rate]
            commands.append(" ".join([f"{BASE} network --rtt", *round_trips, f"--bandwidth {rate:g}", *words]))
    return commands or [f"{BASE} network {OUT}"]


def _unnamed(record: Record) -> bool:
    return bool(record.case["network"] == f"{_rtt(record):g} ms, {record.case['servers_mbit']:g} Mbit/s")


def _kind(record: Record) -> tuple[tuple[str, Any, Any], ...]:
    case = record.case
    return (
        ("side", side(record), 28), ("batch", case["batch"], 1), ("parties", case["parties"], 2),
        ("security", case["security"], "semi-honest"),
    )  # fmt: skip


def _plain_case(record: Record) -> bool:
    """Whether it is of what the lines are of."""
    return record.case.get("model") == "derm" and all(value == usual for _, value, usual in _kind(record))


def _order(record: Record) -> tuple[Any, ...]:
    """The plainest case first, in it networks with names first."""
    return str(_kind(record)) if _others(record) else "", _unnamed(record), _rtt(record)


def _others(record: Record) -> list[str]:
    """In what it is not the plain case."""
    return [f"{name} {value}" for name, value, usual in _kind(record) if value != usual]


def _name(record: Record) -> str:
    return ", ".join([str(record.case["network"]), *_others(record)])


def _link(rtt: float, rate: float) -> str:
    return f"{rtt:g} ms, {rate:,.0f} Mbit/s" if rtt or rate else "no delay, no limit"


def _found(record: Record, who: str) -> str:
    figures = [record.figures.get(f"check.{who}.{name}") for name in ("round_trip_ms", "mbit")]
    if any(figure is None for figure in figures):
        return "–"
    rtt, rate = (middle(figure) for figure in figures if figure is not None)
    return f"{rtt:.2f} ms, {rate:,.0f} Mbit/s"


def _times(record: Record, records: Sequence[Record], phase: str) -> list[str]:
    measured = record.figures[f"{phase}.seconds"]
    alone = middle(record.figures[f"predicted.{phase}_seconds"])
    base = next((r for r in records if r.case["network"] == UNSHAPED and _kind(r) == _kind(record)), None)
    if base is None:
        return [seconds(measured), seconds(alone), "–", "–"]
    both = alone + middle(base.figures[f"{phase}.seconds"])
    return [seconds(measured), seconds(alone), seconds(both), f"{middle(measured) / both:.0%}"]


def _control(records: Sequence[Record]) -> str:
    return " and ".join(dict.fromkeys(str(r.about.get("congestion_control", "unknown")) for r in records))
