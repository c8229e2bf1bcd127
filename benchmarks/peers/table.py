"""The comparison as tables: systems as rows, cases as columns; and what cannot be read off them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from benchmarks.peers.comparison import Outcome
from benchmarks.records import Figure
from benchmarks.report import megabytes, plain_table

BASE = "tessera"
"""Ratios are to this system."""

NOT_COMPARABLE = (
    "Online is not the same work everywhere.  Tessera's is from the client's clear input to its clear result, over"
    " encrypted sockets; CrypTen's and MPyC's begins with shared inputs and ends with the revealed result; SPU's has"
    " neither end, but all dealing inside; TenSEAL's encrypts, computes and decrypts.",
    "In the cases at the parties, at every system, operands lie there as shares before the clock runs, and the result"
    " stays there likewise.  Tessera's client has one number of it revealed, in a round of its own.",
    "Tessera and CrypTen have correlated randomness dealt beforehand (offline): where dealing counts for you, add it."
    "  SPU and MPyC make theirs inside the run.",
    "Only Tessera encrypts what goes over the wire here, and its time contains that.",
    "Bytes are what the party that sent most sent: Tessera's and SPU's payload, for CrypTen the kernel's count on its"
    " TCP sockets, for MPyC its own, for TenSEAL the ciphertexts both ways.  Tessera's client sends its masked inputs"
    " to the parties on top (online.client_bytes).",
    "Rounds are counted by Tessera and CrypTen; SPU and MPyC count messages (m), of which several may make one round.",
    "Two and three parties, a dealer that is trusted or one of the parties, an honest majority or none: what a system"
    " protects against is not what another does.  Compare rows of like protection.",
    "Precision differs: 16 fraction bits in Tessera, CrypTen and MPyC, 18 in SPU, and each has its own approximation of"
    " sigmoid and exp; the error is against float64 without approximations.",
    "CrypTen and SPU compute exp as (1 + x/256)^256, and sigmoid from it: nearly all of their error in the network.",
    "In a single operation the most of Tessera's time is the way of inputs and result between client and parties, which"
    " the other systems' times leave out wholly or in part: see its parties alone.  In a network it is paid once.",
    "A product modulo the prime 2^61-1 costs more than one modulo 2^64: in a large matrix product that decides.",
    "TenSEAL's network has cubic polynomials for sigmoid, fitted to the very image, which is its error; the server"
    " knows the weights, and no other system's does.  Its memory is of the first process only.",
    "Of CrypTen the error is of the result decoded exactly; what its get_plain_text() returns is off by 1 for some"
    " negative numbers (max_abs_error_as_decoded).",
)


def ratio(outcome: Outcome, outcomes: Sequence[Outcome], figure: str) -> float | None:
    """A figure of a system, to Tessera's in the same case."""
    base = next((o for o in outcomes if o.case == outcome.case and o.system.name == BASE), None)
    if base is None or figure not in base.figures or figure not in outcome.figures:
        return None
    own, theirs = value(base.figures[figure]), value(outcome.figures[figure])
    return theirs / own if own else None


def value(figure: Figure) -> float:
    """A number: the median of a spread."""
    return float(figure) if isinstance(figure, int | float) else float(figure["median"])


def as_json(outcome: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """One outcome with its ratios to Tessera."""
    ratios = {
        name: times
        for name in ("online.seconds", "online.bytes_per_party", "online.rounds", "online.messages")
        if (times := ratio(outcome, outcomes, name)) is not None
    }
    return {**outcome.identity, **outcome.about, "figures": outcome.figures, "to_tessera": ratios}


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Everything."""
    _table(console, outcomes, "online time", _time, "online.seconds")
    alone = [o for o in outcomes if o.system.peer == "tessera"]
    if alone:
        _table(console, alone, "of it, parties alone", _evaluation)
    _table(console, outcomes, "offline time", _offline)
    _table(console, outcomes, "sent per party online", _bytes, "online.bytes_per_party")
    _table(console, outcomes, "rounds, or messages (m)", _rounds)
    _table(console, outcomes, "largest error", lambda o: f"{value(o.figures['max_abs_error']):.1e}")
    console.print("Times are medians, beside them the ratio to tessera's.  Without a figure:")
    for outcome in outcomes:
        if outcome.status != "measured":
            console.print(f"  {outcome.case.name}, {outcome.system.name}: {outcome.reason}", markup=False)
    console.print("What each protects against:")
    seen = {outcome.system.name: outcome for outcome in sorted(outcomes, key=lambda o: o.version)}
    for name, outcome in seen.items():
        version = f" {outcome.version}" if outcome.version else ""
        console.print(
            f"  {name} ({outcome.system.peer}{version}, {outcome.system.numbers}): {outcome.system.protects}",
            markup=False,
        )
    console.print("What is not comparable:")
    for sentence in NOT_COMPARABLE:
        console.print(f"  {sentence}", markup=False)


def _table(
    console: Console, outcomes: Sequence[Outcome], title: str, cell: Callable[[Outcome], str], figure: str = ""
) -> None:
    cases = list(dict.fromkeys(o.case for o in outcomes))
    table = plain_table(title, *(case.title for case in cases))
    for system in dict.fromkeys(o.system for o in outcomes):
        row = []
        for case in cases:
            outcome = next(o for o in outcomes if o.case == case and o.system == system)
            times = ratio(outcome, outcomes, figure) if figure and system.name != BASE else None
            text = cell(outcome) if outcome.status == "measured" else _missing(outcome)
            row.append(f"{text} {times:,.{0 if times >= 10 else 1}f}x" if times is not None else text)
        table.add_row(system.name, *row)
    console.print(table)


def _missing(outcome: Outcome) -> str:
    return {"lacks": "none", "over the limit": "over limit"}.get(outcome.status, outcome.status)


def _time(outcome: Outcome) -> str:
    return seconds(value(outcome.figures["online.seconds"])) + ("*" if outcome.cold else "")


def _evaluation(outcome: Outcome) -> str:
    return seconds(value(outcome.figures["evaluation.seconds"]))


def _offline(outcome: Outcome) -> str:
    figure = outcome.figures.get("offline.seconds")
    return (
        "inside"
        if figure is None and outcome.system.peer != "tenseal"
        else ""
        if figure is None
        else seconds(value(figure))
    )


def _bytes(outcome: Outcome) -> str:
    return megabytes(value(outcome.figures["online.bytes_per_party"]))


def _rounds(outcome: Outcome) -> str:
    if "online.rounds" in outcome.figures:
        return f"{value(outcome.figures['online.rounds']):.0f}"
    messages = outcome.figures.get("online.messages")
    return "" if messages is None else f"{value(messages):,.0f} m"


def seconds(time: float) -> str:
    """Two or three digits, in ms or s."""
    if time < 1:
        return f"{time * 1e3:.{1 if time < 0.1 else 0}f} ms"
    return f"{time:.{2 if time < 10 else 0}f} s"
