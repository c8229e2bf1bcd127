"""How much members can have a server log: a number of lines in a span of time each, and then how many more there were.

Whatever is logged because of a message, in tasks, threads and timers that it starts as well, is caused by its sender.
What ``-v`` adds is counted by itself, so that it never keeps a warning from being written.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass

SPAN = 10.0
"""Seconds over which lines are counted."""
LINES = 50
"""That one member may cause in such a span."""
OWN_LINES = 500
"""Of those that nobody in particular has caused; and, of anybody, of what ``-v`` adds."""

# What is said there is about a link, in the context of whatever made it read.
_LINKS = "parties.wire"

_cause: contextvars.ContextVar[str] = contextvars.ContextVar("tessera_log_cause", default="")


@contextlib.contextmanager
def caused_by(member: str) -> Iterator[None]:
    """What is logged within it, and by what is started within it, is caused by that member."""
    token = _cause.set(member)
    try:
        yield
    finally:
        _cause.reset(token)


def cause_of(record: logging.LogRecord) -> str:
    """Who has caused a line that is being logged in this context: a member, the links, or (empty) nobody."""
    return _LINKS if record.name.startswith(_LINKS) else _cause.get()


@dataclass
class _Span:
    """Of one member's lines."""

    ends: float
    lines: int = 0
    left_out: int = 0


class QuotaHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr what is within the quotas, and at the end of a span how many lines were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._spans: dict[tuple[str, bool], _Span] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held."""
        cause, verbose = cause_of(record), record.levelno < logging.WARNING
        self._sum_up(record.created)
        span = self._spans.setdefault((cause, verbose), _Span(record.created + SPAN))
        if span.lines < (LINES if cause and not verbose else OWN_LINES):
            span.lines += 1
            super().emit(record)
            return
        span.left_out += 1
        if self._timer is None:
            # A span ends whether or not anything is logged after it.
            self._timer = threading.Timer(SPAN, self._later)
            self._timer.daemon = True
            self._timer.start()

    def close(self) -> None:
        """Says what has not been said."""
        if self._timer is not None:
            self._timer.cancel()
        self._later()
        super().close()

    def _later(self) -> None:
        self.acquire()
        try:
            self._timer = None
            self._sum_up(float("inf"))
        finally:
            self.release()

    def _sum_up(self, now: float) -> None:
        for (cause, verbose), span in list(self._spans.items()):
            if span.ends <= now:
                del self._spans[cause, verbose]
                if span.left_out:
                    whose = f"that {cause} has caused" if cause else "of its own"
                    text = f"{span.left_out} more lines {whose} within {SPAN:g} s were left out"
                    line = logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, None, None)
                    super().emit(line)
