"""The section about other systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.page.parts import BASE, OUT, Measurements, Section, error, number, seconds, size, table, times
from benchmarks.page.plots import Bars, Pictures, middle
from benchmarks.peers.cases import CASES, Case
from benchmarks.peers.catalogue import SYSTEMS
from benchmarks.peers.table import BASE as OURS
from benchmarks.peers.table import NOT_COMPARABLE
from benchmarks.records import Record

AHEAD = {
    "online.seconds": "online time",
    "all.seconds": "online and offline time together",
    "online.bytes_per_party": "bytes sent online",
    "online.rounds": "rounds",
    "max_abs_error": "error",
}
"""Figures in which a peer can be ahead, and what they are called."""


_WAY = (
    "Most of Tessera's time in a single operation is the way of the inputs from the client to the parties, and of the"
    " result back, encrypted; other systems' inputs are shared before the clock runs, or their results stay where"
    " they are."
)
_HELD = (
    "Tessera's time contains the encryption of all that is opened, and the client's way to the parties and back, for"
    " one number of the result: see its parties alone."
)
WHY = {
    "cnn": "Homomorphic encryption needs one message each way, and pays for it in computing.",
    "matmul": "A product modulo the prime 2^61 - 1 is six in float64 (`mpc/rings/matrix.py`) and takes longer than one"
    " modulo 2^64: at this size that decides.",
    **dict.fromkeys(
        ("rectified", "relu", "max_pool2d", "argmax", "softmax"),
        "Few rounds of comparison are paid for in what is dealt and opened for it.",
    ),
}
"""Why a peer is ahead, where one is, by kind of case."""


def beside_peers(measurements: Measurements, pictures: Pictures) -> Section:
    """Tessera and other systems, and where those are ahead."""
    records = measurements.of("peers")
    measured = [record for record in records if record.about.get("status", "measured") == "measured"]
    cases = list(dict.fromkeys(record.case["case"] for record in records))
    systems = list(dict.fromkeys(record.case["system"] for record in records))
    words = [BASE, "peers", "--cases", *cases, "--systems", *systems] if records else [BASE, "peers"]
    section = Section(
        "Tessera beside other systems",
        "The same inputs and weights on the same machine in the same run: systems take turns, so that whatever else the"
        " machine does falls on all.  Every figure counts what its system does; what cannot be compared stands below.",
        [f"{BASE} peers --install", " ".join([*words, OUT])],
        records,
    )
    if not records:
        return section
    for name, figure, x, factor, shows in (
        ("peers-time", "online.seconds", "ms", 1e3, "Online time beside other systems, medians, least and greatest"),
        ("peers-bytes", "online.bytes_per_party", "MB", 1e-6, "Bytes sent online by the party that sent most"),
    ):
        panels = [
            Bars(
                _case_title(case), f"{x}, logarithmic", [r.case["system"] for r in rows],
                {x: [r.figures[figure] for r in rows]}, factor, highlighted=OURS,
            )
            for case in cases
            if (rows := [r for r in measured if r.case["case"] == case and figure in r.figures])
        ]  # fmt: skip
        if panels:
            section.draw(pictures.bars(name, panels), f"{shows}; the scales are logarithmic.")
    for case in cases:
        rows = [record for record in records if record.case["case"] == case]
        headings = ["online", "to tessera", "offline", "sent per party", "to tessera", "rounds", "largest error"]
        section.add(f"### {_case_title(case)}", table("system", headings, [_peer_row(r, rows) for r in rows]))
        section.add(_ahead(rows))
    section.add("In parentheses: least, greatest, number of runs.  `m`: messages, of which several may make one round.")
    section.add("### What each protects against", _protection(records, systems))
    section.add("### What is not comparable", "\n".join(f"- {sentence}" for sentence in NOT_COMPARABLE))
    return section


def _case_title(name: str) -> str:
    return CASES[name].title if name in CASES else name


def _ours(rows: Sequence[Record]) -> Record | None:
    return next((r for r in rows if r.case["system"] == OURS and r.about.get("status", "measured") == "measured"), None)


def _figure(record: Record, name: str) -> float | None:
    if name == "all.seconds":
        online, offline = (record.figures.get(f"{phase}.seconds") for phase in ("online", "offline"))
        return None if online is None else middle(online) + (0.0 if offline is None else middle(offline))
    figure = record.figures.get(name)
    return None if figure is None else middle(figure)


def _ratio(record: Record, rows: Sequence[Record], name: str) -> float | None:
    """To Tessera's figure."""
    base = _ours(rows)
    own, theirs = (None if base is None else _figure(base, name)), _figure(record, name)
    return theirs / own if own and theirs is not None else None


def _peer_row(record: Record, rows: Sequence[Record]) -> list[str]:
    system, figures, about = str(record.case["system"]), record.figures, record.about
    if about.get("status", "measured") != "measured":
        return [system, f"{about['status']}", *[""] * 6]
    ratios = [
        "–" if (r := _ratio(record, rows, f"online.{n}")) is None else times(r) for n in ("seconds", "bytes_per_party")
    ]
    rounds = number(figures.get("online.rounds"))
    if "online.rounds" not in figures and "online.messages" in figures:
        rounds = f"{number(figures['online.messages'])} m"
    offline = seconds(figures["offline.seconds"]) if "offline.seconds" in figures else "inside"
    return [
        system, seconds(figures.get("online.seconds")) + (", first run" if about.get("cold") else ""), ratios[0],
        "none" if offline == "inside" and system.startswith("tenseal") else offline,
        size(figures.get("online.bytes_per_party")), ratios[1], rounds, error(figures.get("max_abs_error")),
    ]  # fmt: skip


def _ahead(rows: Sequence[Record]) -> str:
    """Which peers are ahead of Tessera in what."""
    if _ours(rows) is None:
        why = next((_unmeasured(r) for r in rows if r.case["system"] == OURS), "was not measured here")
        return f"Tessera itself has no figure, and cannot be ahead: {why}."
    found = []
    for figure, title in AHEAD.items():
        better = [
            f"{record.case['system']} ({times(1 / ratio)} less)" if ratio else f"{record.case['system']} (none)"
            for record in rows
            if not str(record.case["system"]).startswith(OURS)
            and (ratio := _ratio(record, rows, figure)) is not None
            and ratio < 1
        ]
        if better:
            found.append(f"in {title}: {', '.join(better)}")
    reasons = [f"{r.case['system']}: {_unmeasured(r)}" for r in rows if r.about.get("status", "measured") != "measured"]
    why = _why(CASES.get(rows[0].case["case"]))
    text = "No peer measured is ahead of Tessera here."
    if found:
        text = f"**Ahead of Tessera** {'; '.join(found)}.{why and '  '}{why}"
    return text + (f"  Without a figure: {'; '.join(reasons)}." if reasons else "")


def _unmeasured(record: Record) -> str:
    """Why there is no figure."""
    return str(record.about.get("reason") or record.about["status"])


def _why(case: Case | None) -> str:
    """Why a peer is ahead, where one is."""
    if case is None:
        return ""
    kind = "rectified" if case.activation == "relu" else case.kind
    reasons = [WHY.get(kind, ""), "" if case.kind == "cnn" or case.held else _WAY, _HELD if case.held else ""]
    return "  ".join(filter(None, reasons))


def _protection(records: Sequence[Record], systems: Sequence[str]) -> str:
    rows = []
    for name in systems:
        about: Mapping[str, object] = max(
            (r.about for r in records if r.case["system"] == name), key=lambda a: str(a.get("version", ""))
        )
        known = SYSTEMS.get(name)
        parts = [
            about.get("protects") or (known.protects if known else ""),
            about.get("online_is") or (known.online if known else ""),
        ]
        rows.append([name, str(about.get("version", "")), *map(str, parts), str(about.get("numbers", ""))])
    return table("system", ["version", "protects against", "its online time is", "numbers"], rows).replace(
        "---:", "---"
    )
