"""What is logged about strangers: enough to see that they knock, never as much as they knock."""

from __future__ import annotations

import asyncio
import logging

_SPAN = 10.0
"""Seconds over which lines are counted."""
_LINES = 5
"""Lines in such a span; further ones are only counted."""


class RefusalLog:
    """Writes the first few refusals of every ten seconds, and then how many more there were.

    It remembers a number, nothing of anyone who was refused.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def note(self, sentence: str, *arguments: object) -> None:
        """Logs a warning, or counts it."""
        if self._timer is None:
            self._timer = self._loop.call_later(_SPAN, self._sum_up)
        self._count += 1
        if self._count <= _LINES:
            self._log.warning(sentence, *arguments)

    def close(self) -> None:
        """Says what has not been said.  Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._sum_up()

    def _sum_up(self) -> None:
        self._timer = None
        if self._count > _LINES:
            self._log.warning("refused %d more connections within %g s", self._count - _LINES, _SPAN)
        self._count = 0
