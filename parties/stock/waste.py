"""Items that were spent in vain, and when to spend no more of them.

Any party can end any run, with silence if with nothing else, and what was dealt ahead for it is spent then: once a
party may have taken an item, it is used.  So a client's stock rests when its runs fail or are given up again and again:
they are dealt for on demand then, which costs time, and nothing else.  Whose fault that was does not matter, since it
may be said falsely.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque

MOST, WHILE = 3, 60.0
"""Items of a client that are spent in vain in so many s."""

REMEMBERED = 4096
"""Runs that have been assigned items."""


class Waste:
    """Of one dealer's stock."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, str] = OrderedDict()
        self._failed: dict[str, deque[float]] = {}

    def assigned(self, run: str, client: str) -> None:
        """That client's run has an item."""
        self._runs[run] = client
        if len(self._runs) > REMEMBERED:
            self._runs.popitem(last=False)

    def failed(self, run: str, client: str = "") -> None:
        """It has failed or was given up, as a server says, or this client of its own; its item, if any, is gone."""
        whose = self._runs.get(run)
        if whose is not None and client in ("", whose):
            del self._runs[run]
            self._failed.setdefault(whose, deque(maxlen=MOST)).append(time.monotonic())

    def rests(self, client: str) -> bool:
        """Whether that client's runs are given no items for now."""
        failed = self._failed.get(client)
        return failed is not None and len(failed) == MOST and time.monotonic() - failed[0] < WHILE
