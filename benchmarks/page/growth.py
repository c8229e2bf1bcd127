"""The sections about growth: with the image's side, and with the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.page.parts import BASE, OUT, Measurements, Section, number, seconds, side, size, table, times
from benchmarks.page.plots import Line, Panel, Pictures, middle
from benchmarks.records import Record
from benchmarks.scale import FITTED

SERIES = {"seconds": "streamed, whole", "online.seconds": "online", "offline.seconds": "offline"}


def by_size(measurements: Measurements, pictures: Pictures) -> Section:
    """Growth with the image's side."""
    every = _of_most(measurements.of("scale"))
    points = sorted((r for r in every if r.case.get("batch") == 1 and "fit" not in r.case), key=side)
    section = Section(
        "Bytes and time against image size",
        "One image of side 28 to 224.  For larger images the first dense layer grows with them: the network costs what"
        " one of that size costs; it was not trained for such images.",
        [_scale_command("sides", [side(r) for r in points], points)],
        points,
    )
    if not points:
        return section
    xs = [side(r) for r in points]
    sent = [
        Line(title, xs, [r.figures[name] for r in points])
        for name, title in (("online.bytes_per_party", "online, each party"), ("offline.bytes", "offline, dealer"))
    ]
    time = [Line(title, xs, [r.figures[name] for r in points]) for name, title in SERIES.items()]
    panels = [
        Panel("Bytes sent", "side of the image, pixels", "MB", sent, xs, factor=1e-6),
        Panel("Time", "side of the image, pixels", "ms", time, xs, factor=1e3),
    ]
    section.draw(pictures.lines("image-size", panels), f"Bytes and time against the image's side ({_cluster(points)}).")
    headings = ["online", "offline", "sent per party", "dealt", "peak memory, a party", "peak memory, dealer"]
    section.add(table("side", headings, [[f"{side(r)}", *_growth_row(r)] for r in points]), *_fits(every, {"side"}))
    return section


def by_batch(measurements: Measurements, pictures: Pictures) -> Section:
    """Throughput."""
    every = _of_most(measurements.of("scale"))
    points = [r for r in every if side(r) == 28 and "fit" not in r.case]
    points.sort(key=lambda r: (r.case["batch"], r.case["chunk"]))
    section = Section(
        "Throughput against batch",
        "Images of side 28.  Large batches are streamed in chunks, whose dealing and online phases overlap: memory"
        " stays bounded, and the time that the caller waits for is less than both phases together.",
        [_scale_command("batches", [r.case["batch"] for r in points], points)],
        points,
    )
    if not points:
        return section
    xs = [r.case["batch"] for r in points]
    lines = [Line("images per second", xs, [r.figures["images_per_second"] for r in points])]
    memory = [
        Line(name, xs, [r.figures[f"peak_bytes.{name}"] for r in points]) for name in ("dealer", "party", "client")
    ]
    panels = [
        Panel("Throughput", "images in the batch", "images per second", lines, xs, log_y=False),
        Panel("Peak memory of each process", "images in the batch", "MB", memory, xs, log_y=False, factor=1e-6),
    ]
    section.draw(pictures.lines("throughput", panels), f"Throughput and memory against the batch ({_cluster(points)}).")
    rows = [
        [f"{r.case['batch']:,}", f"{r.case['chunk']:,}", number(r.figures["images_per_second"], 1),
         seconds(r.figures["seconds"]), *_growth_row(r)]
        for r in points
    ]  # fmt: skip
    headings = ["chunk", "images/s", "time", "online", "offline", "sent per party", "dealt", "memory, a party"]
    fits = _fits(every, {"batch", "streamed batch"})
    section.add(table("batch", [*headings, "memory, dealer"], rows), *fits)
    return section


def _of_most(records: Sequence[Record]) -> list[Record]:
    """Those of the number of parties and the security of which there are most: others are not in one line with them."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault((record.case["parties"], record.case["security"]), []).append(record)
    return max(groups.values(), key=len, default=[])


def _cluster(records: Sequence[Record]) -> str:
    return f"{records[0].case['parties']} parties, {records[0].case['security']}; medians, least and greatest"


def _growth_row(record: Record) -> list[str]:
    figures = record.figures
    times_ = [seconds(figures.get(f"{phase}.seconds")) for phase in ("online", "offline")]
    names = ("online.bytes_per_party", "offline.bytes", "peak_bytes.party", "peak_bytes.dealer")
    return [*times_, *(size(figures.get(name)) for name in names)]


def _fits(records: Sequence[Record], names: set[str]) -> list[str]:
    fits = [record for record in records if record.case.get("fit") in names]
    if not fits:
        return []
    rows = []
    for record in fits:
        low, high = record.case["range"]
        rows.append([
            FITTED.get(record.case["figure"], record.case["figure"]),
            f"{record.case['fit']}^{middle(record.figures['exponent']):.2f}",
            f"{low:g} to {high:g}", times(middle(record.figures["deviation"])),
        ])  # fmt: skip
    return ["Fitted growth:", table("figure", ["grows as", "fitted on", "points within"], rows)]


def _scale_command(option: str, values: Sequence[int], records: Sequence[Record]) -> str:
    words = [f"{BASE} scale"]
    if records:
        case, counted = records[0].case, records[0].figures["seconds"]
        for name in ("batches", "sides"):
            words += [f"--{name}", *(map(str, dict.fromkeys(values)) if name == option else ())]
        words += [f"--parties {case['parties']}"] if case["parties"] != 2 else []
        words += [f"--security {case['security']}"] if case["security"] != "semi-honest" else []
        words += [f"--repeat {counted['count']:.0f}"] if isinstance(counted, Mapping) else []
    return " ".join([*words, OUT])
