"""What ``tessera doctor`` has found: a line each, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Verdict(StrEnum):
    """How bad it is."""

    GOOD = "ok"
    SLOW = "note"
    """It runs, and could run better."""
    BAD = "bad"
    """It does not run, or not as it should."""


@dataclass(frozen=True)
class Finding:
    """Of one thing; ``advice`` is empty where there is none to give."""

    what: str
    found: str
    verdict: Verdict = Verdict.GOOD
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"what": self.what, "found": self.found, "verdict": str(self.verdict), "advice": self.advice}


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """Plain data, for JSON."""
    return {"ok": not bad(findings), "findings": [each.to_dict() for each in findings]}


def bad(findings: Sequence[Finding]) -> list[Finding]:
    """Those that something does not run for."""
    return [each for each in findings if each.verdict is Verdict.BAD]


def show(findings: Sequence[Finding], console: Console) -> None:
    """As a table, with the advice below it."""
    table = Table("what", "found", "", box=box.SIMPLE_HEAD, pad_edge=False)
    styles = {Verdict.GOOD: "green", Verdict.SLOW: "yellow", Verdict.BAD: "red"}
    for each in findings:
        table.add_row(each.what, escape(each.found), f"[{styles[each.verdict]}]{each.verdict}[/]")
    console.print(table)
    for each in findings:
        if each.advice:
            console.print(f"[bold]{each.what}[/]: {escape(each.advice)}", highlight=False)
    console.print("Something is wrong." if bad(findings) else "Nothing is wrong.")
