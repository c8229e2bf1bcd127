"""Tables on stdout, progress on stderr."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

WIDTH = 120
"""Columns where stdout is not a terminal."""


def stdout_console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def plain_table(first: str, *others: str) -> Table:
    """The first column holds names, the others figures."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="right")
    return table


class Steps:
    """A bar that counts, by one or up to where it is; ``describe`` says what is going on."""

    def __init__(self, progress: Progress, description: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total)

    def __call__(self) -> None:
        self._progress.advance(self._task)

    def reach(self, step: int) -> None:
        self._progress.update(self._task, completed=step)

    def describe(self, description: str) -> None:
        self._progress.update(self._task, description=description)


@contextlib.contextmanager
def progress_bar(description: str, total: int) -> Iterator[Steps]:
    """Progress on stderr, and only where that is a terminal; call what it yields after each step."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        console=console, disable=not console.is_terminal, transient=True,
    ) as progress:  # fmt: skip
        yield Steps(progress, description, total)


def print_json(summary: Mapping[str, Any]) -> None:
    """One JSON object, on a line of stdout."""
    print(json.dumps(summary))


def kilobytes(count: float) -> str:
    """In kB of 1000 bytes, as payloads are counted throughout."""
    return f"{count / 1e3:,.{0 if count >= 1e4 else 1}f} kB" if count >= 1e3 else f"{count:,.0f} B"


def megabytes(count: float) -> str:
    """In MB of 10^6 bytes."""
    return f"{count / 1e6:,.{0 if count >= 1e7 else 1}f} MB"


def gigabytes(count: float) -> str:
    """In GB of 10^9 bytes."""
    return f"{count / 1e9:,.{0 if count >= 1e10 else 2}f} GB"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f} ms"
