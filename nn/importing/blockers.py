"""Why a network cannot be imported: each thing that stands in the way, with its place and what to do about it."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mpc.errors import UnsupportedError, UsageError, printable

LONGEST = 160
"""Characters of a reason that somebody else wrote."""

SMOOTH = (
    "write it with what there is (+ - * @, mean, reshape, permute, cat, Linear, Conv2d, AvgPool2d, MaxPool2d,"
    " BatchNorm, ReLU, smooth activations), or end the network before it and compute the rest from what is revealed"
)


INSTEAD = "; instead: "
"""Between a reason and a remedy."""


def refused(reason: str, remedy: str) -> UnsupportedError:
    """Of something that a network has and this library has not."""
    return UnsupportedError(f"{reason}{INSTEAD}{remedy}")


class Blocker(NamedTuple):
    """One thing that stands in the way."""

    layer: str
    """Which, as a sentence begins: ``layer 'a.b' is Kind``."""
    reason: str
    remedy: str
    source: str = ""
    """Of the call: file, line and what stands there."""
    kind: type[UsageError] = UnsupportedError

    @classmethod
    def of(cls, layer: str, error: Exception, source: str, remedy: str = SMOOTH) -> Blocker:
        """From what was raised about it; ``remedy`` is for errors that bring none."""
        if not isinstance(error, UsageError):
            return cls(layer, f"{type(error).__name__}: {said_by(error)}", remedy, source)
        reason, said, own = printable(str(error)).partition(INSTEAD)
        return cls(layer, reason, own if said else remedy, source, type(error))

    def __str__(self) -> str:
        return f"{self.layer}: {self.reason}{INSTEAD}{self.remedy} [{self.source or 'no line of forward'}]"


def refuse(network: str, blockers: Sequence[Blocker]) -> UsageError:
    """The error that says all of it, of the kind that all are of."""
    distinct = list(dict.fromkeys(blockers))
    kinds = {blocker.kind for blocker in distinct}
    kind = kinds.pop() if len(kinds) == 1 else UnsupportedError
    if len(distinct) == 1:
        return kind(str(distinct[0]))
    lines = "".join(f"\n- {blocker}" for blocker in distinct)
    return kind(f"{len(distinct)} things of {network} stand in the way:{lines}")


def said_by(error: BaseException) -> str:
    """The first line of what it says, printable and not too long."""
    lines = str(error).strip().splitlines() or ["it says nothing of why"]
    return printable(lines[0])[:LONGEST]


def line_of(file: str, number: int) -> str:
    """A line of somebody's Python: the file's name, the number, and the text if there is any."""
    text = linecache.getline(file, number).strip()
    return f"{Path(file).name}:{number}" + (f": {printable(text)[:LONGEST]}" if text else "")


def calling_line(own: tuple[str, ...], stop: str) -> str:
    """The innermost line outside of files that begin like ``own``, up to the function ``stop``; empty for none."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != stop:
        if not frame.f_code.co_filename.startswith(own):
            return line_of(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back  # type: ignore[assignment]
    return ""
