"""Who wrote an expression: the first frame up the stack that is not one of this package's own."""

from __future__ import annotations

import sys
from types import FrameType
from typing import NamedTuple

_OURS = ("mpc", "protocols", "nn", "parties", "tessera")


class Line(NamedTuple):
    """Of somebody's source text."""

    file: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.number}"


def author() -> Line:
    """The line that wrote what is being made."""
    _, frame = _outside(sys._getframe(1))
    return Line(frame.f_code.co_filename, frame.f_lineno)


def callers() -> int:
    """Frames up to that line, as ``warnings.warn`` counts them for the one who asks."""
    return _outside(sys._getframe(1))[0]


def _outside(frame: FrameType) -> tuple[int, FrameType]:
    level = 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        level, frame = level + 1, frame.f_back
    return level, frame
