"""The section about layers and links: where bytes and time go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.models import derm
from benchmarks.page.parts import (
    BASE,
    OUT,
    Measurements,
    Section,
    inference_command,
    number,
    seconds,
    side,
    size,
    table,
)
from benchmarks.page.plots import Pictures, Stack, middle
from benchmarks.prediction import predicted
from benchmarks.records import Figure, Record, flatten
from mpc.cost import Cost
from mpc.security import Security

SMALL = 0.03
"""Layers below this part of every bar are drawn together."""


def prediction(record: Record, measurements: Measurements) -> Mapping[str, Figure] | None:
    """What was predicted of the same run: by a record of ``tessera cost``, or now, for the network that ships."""
    case = {name: value for name, value in record.case.items() if name in COST_CASE}
    known = measurements.of("cost", **case)
    if known:
        return known[-1].figures
    if case.get("model") != "derm":
        return None
    return flatten(predicted(_cost(record), case["batch"]))


COST_CASE = ("model", "weights", "shape", "batch", "parties", "security")


def _cost(record: Record) -> Cost:
    case = record.case
    return derm(side(record)).cost(case["batch"], case["parties"], Security(case["security"]))


def by_layer(measurements: Measurements, pictures: Pictures) -> Section:
    """Where bytes and time go."""
    records = sorted(measurements.of("inference"), key=_order)
    section = Section(
        "Cost by layer",
        "What a prediction costs, and which layers cost it.  Rounds and bytes are predicted exactly before anything"
        " runs (`tessera cost`); computing is measured.  Dealer, parties and client are processes on one machine.",
        [inference_command(record) for record in records] or [f"{BASE} inference {OUT}"],
        records,
    )
    if not records:
        return section
    first = records[0]
    layers = list(dict.fromkeys(name.split(".")[1] for name in first.figures if name.startswith("layers.")))
    expected = prediction(first, measurements)
    stacks = _stacks(first, expected, layers)
    section.draw(
        pictures.stacks("cost-by-layer", stacks),
        f"Cost by layer: {_title(first)}, 2 bars where both were predicted and measured.",
    )
    rows = []
    for layer in layers:
        measured = [first.figures.get(f"layers.{layer}.{name}") for name in ("rounds", "bytes_per_party", "dealt")]
        foreseen = (expected or {}).get(f"layers.{layer}.bytes_per_party")
        rows.append([
            layer, number(measured[0]), size(measured[1]), size(foreseen), number(measured[2]),
            seconds(first.figures.get(f"layers.{layer}.seconds")),
        ])  # fmt: skip
    headings = ["rounds", "sent per party", "predicted", "elements dealt", "computing"]
    section.add(f"{_title(first)}:", table("layer", headings, rows))
    section.add(*_links(first))
    headings = ["rounds", "predicted", "sent per party", "predicted", "online", "dealt", "predicted", "offline"]
    section.add("All runs measured:", table("run", headings, [_run_row(r, measurements) for r in records]))
    wrong = [_title(record) for record in records if not _as_predicted(record, measurements)]
    section.add(
        "Times are medians, in parentheses the least and the greatest and how many runs; computing is that of the"
        " slowest party.  An element has 8 bytes; dealt elements reach one party in full, the others as a seed."
    )
    section.add(
        f"**Not as predicted: {'; '.join(wrong)}.**" if wrong else "Rounds and bytes of all runs are as predicted."
    )
    return section


def _links(record: Record) -> list[str]:
    """What each link carried, where that was counted."""
    rows = []
    for phase in ("offline", "online"):
        prefix = f"wire.{phase}."
        found = [name[len(prefix) :].rpartition(".")[0] for name in record.figures if name.startswith(prefix)]
        for link in dict.fromkeys(found):
            figures = [
                record.figures.get(f"{prefix}{link}.{name}") for name in ("messages", "payload", "bytes", "packets")
            ]
            rows.append([link.replace(">", " to "), phase, *map(number, figures)])
    if not rows:
        return []
    headings = ["phase", "messages", "payload, B", "on the wire, B", "packets"]
    return [
        "Link by link; on the wire is what TCP carried as the kernel counted it, with framing, encryption and pings:",
        table("link", headings, rows),
    ]


def _order(record: Record) -> tuple[Any, ...]:
    """The plainest case first."""
    case = record.case
    return (
        case.get("model") != "derm", "data" in case, side(record), case.get("security") != "semi-honest",
        case.get("parties", 0), case.get("batch", 0),
    )  # fmt: skip


def _title(record: Record) -> str:
    case = record.case
    count = case.get("batch", 1)
    shape = "x".join(map(str, case.get("shape", [])))
    return f"{case.get('model')} {shape}, batch of {count}, {case.get('parties')} parties, {case.get('security')}"


def _stacks(record: Record, expected: Mapping[str, Figure] | None, layers: Sequence[str]) -> list[Stack]:
    def values(figures: Mapping[str, Figure], figure: str, factor: float) -> dict[str, float]:
        return {layer: middle(figures.get(f"layers.{layer}.{figure}", 0)) * factor for layer in layers}

    both = [("predicted", expected)] if expected is not None else []
    sources = [*both, ("measured", record.figures)]
    sent = [(name, values(figures, "bytes_per_party", 1e-3)) for name, figures in sources]
    dealt = [(name, values(figures, "dealt", 8e-6)) for name, figures in sources]
    time = [("measured", values(record.figures, "seconds", 1e3))]
    total = middle(record.figures["online.seconds"]) * 1e3
    small = {
        layer
        for layer in layers
        if all(bar[layer] <= SMALL * sum(bar.values()) for _, bar in [*sent, *dealt])
        and time[0][1][layer] <= SMALL * total
    }
    merged = [[(name, _merged(bar, small)) for name, bar in bars] for bars in (sent, dealt, time)]
    for name, title in (("waiting", "waiting for openings"), ("rest", "inputs, outputs, client")):
        if f"breakdown.{name}" in record.figures:
            merged[2][0][1][title] = middle(record.figures[f"breakdown.{name}"]) * 1e3
    return [
        Stack("Sent online by each party", "kB", merged[0]),
        Stack("Dealt offline", "MB", merged[1]),
        Stack("Online time", "ms", merged[2]),
    ]


def _merged(bar: Mapping[str, float], small: set[str]) -> dict[str, float]:
    kept = {layer: value for layer, value in bar.items() if layer not in small}
    rest = sum(bar[layer] for layer in small)
    return {**kept, "other layers": rest} if small else kept


EXACT = ("online.rounds", "online.bytes_per_party", "offline.bytes")


def _as_predicted(record: Record, measurements: Measurements) -> bool:
    expected = prediction(record, measurements)
    return expected is None or all(record.figures.get(name) == expected[name] for name in EXACT)


def _run_row(record: Record, measurements: Measurements) -> list[str]:
    expected = prediction(record, measurements) or {}
    rounds, sent, dealt = ([record.figures.get(name), expected.get(name)] for name in EXACT)
    return [
        _title(record), *map(number, rounds), *map(size, sent), seconds(record.figures.get("online.seconds")),
        *map(size, dealt), seconds(record.figures.get("offline.seconds")),
    ]  # fmt: skip
