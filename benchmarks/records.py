"""Measurements as JSON lines: written by every benchmark with ``--out``, compared with earlier ones by ``--against``.

One measurement is one line::

    {"format": 1, "bench": "inference", "case": {"model": "derm", "batch": 1, "parties": 2, ...},
     "figures": {"online.rounds": 7, "online.seconds": {"median": ..., "min": ..., "max": ..., "count": 10}, ...},
     "machine": {...}, "version": "0.1.0", "time": "2026-01-31T12:00:00+00:00"}

``case`` says what was measured: two records of one bench with equal cases are of the same thing.  ``figures`` is flat:
an integer is exact (rounds, bytes, messages), a spread is of repeated measurements, a float was measured once.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.machine import machine
from mpc.errors import ConfigurationError, TesseraError, unwritable
from parties.wire.version import package_version

FORMAT = 1
NOISE = 0.10
"""A measured figure that changed by no more than this has not changed."""

MORE_IS_BETTER = frozenset({"agree", "accuracy", "images", "per_second", "speedup", "right"})
"""Last words of the names of figures that should grow; of all others, less is better."""

SAME_MACHINE = ("processor", "cores", "system", "python")
"""What of a machine's description decides whether its times can be compared."""

Spread = Mapping[str, float]
Figure = int | float | Spread


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of repeated measurements, and how many there are."""
    return {
        "median": float(np.median(values)),
        "min": float(min(values)),
        "max": float(max(values)),
        "count": len(values),
    }


def flatten(summary: Mapping[str, Any], *names: str) -> dict[str, Figure]:
    """The figures of a nested summary, of these of its parts or of all, under names such as ``online.seconds``.

    Numbers and spreads; whatever else there is (names, lists, truth values) is no figure.
    """
    figures: dict[str, Figure] = {}
    for name in names or summary:
        value = summary[name]
        if isinstance(value, Mapping) and "median" not in value:
            figures.update({f"{name}.{inner}": figure for inner, figure in flatten(value).items()})
        elif isinstance(value, Mapping) or (isinstance(value, int | float) and not isinstance(value, bool)):
            figures[name] = value
    return figures


@dataclass(frozen=True)
class Record:
    """One measurement: what was measured (``bench``, ``case``), what came out, on what machine, when."""

    bench: str
    case: Mapping[str, Any]
    figures: Mapping[str, Figure]
    machine: Mapping[str, Any] = field(default_factory=machine)
    version: str = field(default_factory=package_version)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    about: Mapping[str, Any] = field(default_factory=dict)
    """What a reader should know besides, and no comparison looks at; not written where there is nothing to say."""

    @property
    def key(self) -> str:
        """Equal for records of the same thing."""
        return json.dumps([self.bench, self.case], sort_keys=True, default=_plain)

    def encode(self) -> str:
        """As one line of JSON, without the end of line."""
        parts = asdict(self)
        if not self.about:
            del parts["about"]
        return json.dumps({"format": FORMAT, **parts}, default=_plain)


def _plain(value: object) -> object:
    """NumPy's numbers as JSON's."""
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def write(path: Path, records: Iterable[Record]) -> None:
    """Append ``records`` to a file.  Raises ConfigurationError when that cannot be."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(record.encode() + "\n" for record in records)
    except OSError as error:
        raise unwritable(str(path), error) from error


def read(path: Path) -> list[Record]:
    """The records of a file, in its order.  Raises ConfigurationError, naming the line, for what is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigurationError(f"measurements cannot be read from {path}: {reason}") from error
    return [_decoded(line, f"line {n} of {path}") for n, line in enumerate(lines, 1) if line.strip()]


def _decoded(line: str, where: str) -> Record:
    try:
        data = json.loads(line)
        if data.pop("format") != FORMAT:
            raise ConfigurationError(f"{where} has another format than {FORMAT}: measure again with this version")
        record = Record(**data)
        if not all(isinstance(part, dict) for part in (record.case, record.figures, record.machine, record.about)):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigurationError(f"{where} is not a measurement: give a file that --out wrote") from None
    return record


@dataclass(frozen=True)
class Change:
    """A figure that is not what it was."""

    bench: str
    case: Mapping[str, Any]
    figure: str
    old: float
    new: float
    worse: bool

    def __str__(self) -> str:
        change = f"{self.new / self.old - 1:+.1%}" if self.old else "from nothing"
        case = ", ".join(f"{name} {value}" for name, value in self.case.items())
        verdict = "worse" if self.worse else "better"
        return f"{verdict}: {self.bench} ({case}): {self.figure} {self.old:,.6g} -> {self.new:,.6g} ({change})"


def compare(new: Iterable[Record], old: Iterable[Record]) -> list[Change]:
    """What changed between measurements of the same things; of several old ones of one thing, the last counts.

    Exact figures: any change.  Spreads: the new median lies outside the old range and differs from the old median by
    more than ``NOISE``.  Single measurements: a difference of more than ``NOISE``.  Figures that one side lacks are not
    compared, and where the machines differ only exact ones are.
    """
    known = {record.key: record for record in old}
    changes = []
    for record in new:
        before = known.get(record.key)
        if before is None:
            continue
        for name in record.figures.keys() & before.figures.keys():
            figures = before.figures[name], record.figures[name]
            if not (same_machine(record, before) or all(isinstance(figure, int) for figure in figures)):
                continue
            change = _change(*figures)
            if change is not None:
                increased = change[1] > change[0]
                more_is_better = name.replace("_per_second", ".per_second").rpartition(".")[2] in MORE_IS_BETTER
                changes.append(Change(record.bench, record.case, name, *change, worse=increased != more_is_better))
    return sorted(changes, key=lambda c: (not c.worse, c.bench, json.dumps(c.case, default=_plain), c.figure))


def same_machine(a: Record, b: Record) -> bool:
    """Whether times of both can be compared."""
    return all(a.machine.get(name) == b.machine.get(name) for name in SAME_MACHINE)


def _change(old: Figure, new: Figure) -> tuple[float, float] | None:
    """Both values, if they differ by more than noise."""
    if isinstance(old, Mapping) or isinstance(new, Mapping):
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            return None
        before, after = float(old["median"]), float(new["median"])
        outside = after > old["max"] or after < old["min"]
        return (before, after) if outside and _differ(before, after) else None
    if isinstance(old, float) or isinstance(new, float):
        return (old, new) if _differ(old, new) else None
    return (old, new) if old != new else None


def _differ(old: float, new: float) -> bool:
    return not math.isclose(old, new, rel_tol=0.0, abs_tol=NOISE * abs(old))


class Recorder:
    """Keeps a benchmark's records: ``--out`` writes each as it is added, ``--against`` compares them all at the end.

    Made before the work, so that a file that cannot be written or read is known before it, not after it::

        recorder = Recorder.of(options)
        ...
        recorder.add("inference", case, figures)
        return recorder.finish()
    """

    def __init__(self, out: Path | None = None, against: Path | None = None, *, strict: bool = False) -> None:
        self.records: list[Record] = []
        self._out, self._strict = out, strict
        self._summary: Mapping[str, Any] | None = None
        # What --against names is read before anything is written: the two may be the same file.
        self._old = None if against is None else read(against)
        if out is not None:
            write(out, ())

    @classmethod
    def of(cls, options: argparse.Namespace) -> Recorder:
        """From the arguments that ``options.add_record_arguments`` added."""
        return cls(options.out, options.against, strict=options.strict)

    def add(
        self, bench: str, case: Mapping[str, Any], figures: Mapping[str, Figure], about: Mapping[str, Any] | None = None
    ) -> Record:
        """Keep a measurement, and write it."""
        record = Record(bench, case, figures, about=about or {})
        self.records.append(record)
        if self._out is not None:
            write(self._out, [record])
        return record

    def keep(self, records: Iterable[Record]) -> None:
        """Keep measurements that are in the file already."""
        self.records.extend(records)

    def changes(self) -> list[Change]:
        """What changed since the records of ``--against``; worse first."""
        return [] if self._old is None else compare(self.records, self._old)

    def print_json(self, summary: Mapping[str, Any]) -> None:
        """One JSON object, on a line of stdout, once it is known whether anything failed."""
        self._summary = summary

    def finish(self, failure: Mapping[str, object] | None = None) -> int:
        """Say what changed, and print what there is to print; the exit code.

        That of ``failure`` (``TesseraError.to_dict``), which is in the JSON object, too; or 1 if something got worse,
        and ``--strict`` was given.
        """
        worse = self._compare()
        if failure is None and self._strict and worse:
            failure = TesseraError(f"{worse} figures got worse than they were").to_dict()
        if failure is not None:
            print(f"tessera: {failure['message']}", file=sys.stderr)
        if self._summary is not None:
            print(json.dumps({**self._summary, **(failure or {})}))
        return 0 if failure is None else cast(int, failure["code"])

    def _compare(self) -> int:
        """Say what changed; how many figures got worse."""
        if self._old is None:
            return 0
        changes = self.changes()
        for line in self._remarks():
            print(line, file=sys.stderr)
        for change in changes:
            print(change, file=sys.stderr)
        worse = sum(change.worse for change in changes)
        print(f"{worse} figures got worse, {len(changes) - worse} better", file=sys.stderr)
        return worse

    def _remarks(self) -> list[str]:
        known = {record.key: record for record in self._old or ()}
        met = [(record, known[record.key]) for record in self.records if record.key in known]
        remarks = []
        if len(met) < len(self.records):
            missing = len(self.records) - len(met)
            remarks.append(f"{missing} of {len(self.records)} measurements have no counterpart in the earlier file")
        if not all(same_machine(a, b) for a, b in met):
            remarks.append("earlier measurements are of another machine: of those only exact figures are compared")
        return remarks
