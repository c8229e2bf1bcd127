"""What the sections of the benchmarks' page are made of: chosen records, tables, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.page.plots import Pictures, middle
from benchmarks.records import SAME_MACHINE, Figure, Record

BASE = "tessera bench"
OUT = "--out records.jsonl"


class Measurements:
    """Records by benchmark; of several of the same thing, the last."""

    def __init__(self, records: Iterable[Record]) -> None:
        latest: dict[str, Record] = {}
        for record in records:
            latest.pop(record.key, None)
            latest[record.key] = record
        self._records = list(latest.values())

    def __len__(self) -> int:
        return len(self._records)

    def of(self, bench: str, **case: Any) -> list[Record]:
        """Those of a benchmark, with these values in their case."""
        return [
            record
            for record in self._records
            if record.bench == bench and all(record.case.get(name) == value for name, value in case.items())
        ]


@dataclass
class Section:
    """One section of the page; ``records`` are those that its figures come from."""

    title: str
    about: str
    commands: Sequence[str]
    """What measures it."""
    records: Sequence[Record] = ()
    body: list[str] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    """Names, and what they show."""

    def add(self, *paragraphs: str) -> None:
        self.body.extend(paragraphs)

    def draw(self, name: str, shows: str) -> None:
        self.pictures.append((name, shows))


Maker = Callable[[Measurements, Pictures], Section]


def markdown(section: Section, pictures: str) -> list[str]:
    """Paragraphs; ``pictures`` is the folder as seen from the page."""
    lines = [f"## {section.title}", section.about]
    if not section.records:
        lines.append("**Not measured:** the records that this page was made from have nothing on it.  To measure it:")
        lines.append(shell(section.commands))
    for name, shows in section.pictures:
        lines.append(f'<img src="{pictures}/{name}.svg" width="760" alt="{shows}">')
        lines.append(f"{shows} ([SVG]({pictures}/{name}.svg), [PNG]({pictures}/{name}.png))")
    lines += section.body
    if section.records:
        lines += [provenance(section.records), "Reproduce:", shell(section.commands)]
    return lines


def shell(commands: Sequence[str]) -> str:
    return "\n".join(["```sh", *dict.fromkeys(commands), "```"])


def provenance(records: Sequence[Record]) -> str:
    """On what machine, when and with which version; and a warning where that is not one."""
    machines: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        machines.setdefault(tuple(record.machine.get(name) for name in SAME_MACHINE), []).append(record)
    described = "; and ".join(_machine(of_one) for of_one in machines.values())
    days = sorted({record.time[:10] for record in records})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = ", ".join(sorted({record.version for record in records}))
    text = f"*Measured {when} with Tessera {versions} on {described}.*"
    if len(machines) > 1:
        text += "  **These are several machines: times of one cannot be compared with those of another.**"
    return text


def _machine(records: Sequence[Record]) -> str:
    first = records[0].machine
    cores = first.get("cores", "?")
    parts = [f"{first.get('processor') or 'an unnamed processor'} ({cores} core{'s' if cores != 1 else ''})"]
    if memory := first.get("memory_bytes"):
        parts.append(f"{memory / 1e9:.0f} GB of memory")
    parts += [str(first[name]) for name in ("system",) if first.get(name)]
    parts += [f"{title} {first[name]}" for name, title in (("python", "Python"), ("numpy", "NumPy")) if first.get(name)]
    loads = [float(record.machine["load"]) for record in records if "load" in record.machine]
    if loads:
        parts.append(f"load average {min(loads):.1f} to {max(loads):.1f} (the measurements' own included)")
    return ", ".join(parts)


def table(first: str, others: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column holds names, the others figures."""
    lines = [f"| {' | '.join([first, *others])} |", f"| --- |{' ---: |' * len(others)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def seconds(figure: Figure | None) -> str:
    """A time with its spread."""
    if figure is None:
        return "–"
    value = middle(figure)
    unit, factor = ("s", 1.0) if value >= 1 else ("ms", 1e3)

    def digits(time: float) -> str:
        return f"{time * factor:,.{2 if time * factor < 10 else 1 if time * factor < 100 else 0}f}"

    if isinstance(figure, Mapping):
        return f"{digits(value)} {unit} ({digits(figure['min'])}–{digits(figure['max'])}; {figure['count']:.0f})"
    return f"{digits(value)} {unit}"


def size(figure: Figure | None) -> str:
    """Bytes in the largest unit of 1000 that leaves at least one."""
    if figure is None:
        return "–"
    count = middle(figure)
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            number = count / factor
            return f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f} {unit}"
    return f"{count:,.0f} B"


def number(figure: Figure | None, digits: int = 0) -> str:
    return "–" if figure is None else f"{middle(figure):,.{digits}f}"


def error(figure: Figure | None) -> str:
    return "–" if figure is None else f"{middle(figure):.1e}"


def times(ratio: float) -> str:
    return f"{ratio:,.{0 if ratio >= 100 else 1 if ratio >= 10 else 2}f}x"


def side(record: Record) -> int:
    """Of the images, or 0."""
    shape = record.case.get("shape") or (0,)
    return int(shape[-1])


def inference_command(record: Record) -> str:
    """What measured a record of ``tessera bench inference``."""
    case, words = record.case, [BASE, "inference"]
    shape = list(case.get("shape", []))
    if case.get("model") != "derm":
        words += ["--torch", f"FILE.py:{case.get('model')}", "--shape", ",".join(map(str, shape))]
    elif shape and shape[-1] != 28:
        words += ["--side", str(shape[-1])]
    for name, default in (("batch", 1), ("parties", 2), ("security", "semi-honest")):
        if case.get(name, default) != default:
            words += [f"--{name}", str(case[name])]
    if "data" in case:
        words += ["--data", str(case["data"])]
    else:
        counted = record.figures.get("online.seconds")
        if isinstance(counted, Mapping):
            words += ["--repeat", f"{counted['count']:.0f}"]
    return " ".join([*words, "--out", "records.jsonl"])
