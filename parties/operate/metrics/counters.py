"""What a server counts: nothing, unless it was asked to (``tessera party --metrics HOST:PORT``).

Whatever happens is told to a `Metrics`, here one that does nothing.  `serving` puts the one in its place that counts
(`parties.operate.metrics.prometheus`), and answers scrapers (`parties.operate.metrics.page`).  Labels are of bounded
number: a scrape has a few hundred lines, however many clients, programs and runs there were.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from mpc.errors import ConfigurationError

if TYPE_CHECKING:
    from parties.servers.server import Server

OK = "ok"
RELEASED = "released"
"""Outcome of a run whose client gave it up: nothing went wrong."""

LOOPBACK = "127.0.0.1"


class Phase(enum.StrEnum):
    """What takes the time of a run; seconds of each are counted."""

    DEALING = "dealing"
    """At the dealer: from the program until the randomness is made, or taken from stock."""
    PREPARING = "preparing"
    """At a party, offline: seeds are expanded."""
    ONLINE = "online"
    """At a party: from the inputs until the outputs leave; waiting is part of it."""
    WAITING = "waiting"
    """At a party, online: for the other parties' openings."""


class Metrics:
    """Counts nothing."""

    def run_ended(self, outcome: str) -> None:
        """`OK`, `RELEASED`, or the class of the error that it failed with."""

    def upload_ended(self, outcome: str) -> None:
        """Likewise."""

    def spent(self, phase: Phase, seconds: float) -> None:
        """A run took so long in that phase."""

    def rounds(self, count: int) -> None:
        """So many rounds of a run are over."""


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; on loopback where the host is left out.  Raises ConfigurationError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ConfigurationError(f"metrics at {text!r}: give HOST:PORT, with a port from 0 (any that is free) to 65535")
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


@contextlib.asynccontextmanager
async def serving(server: Server[Any], address: tuple[str, int] | None) -> AsyncIterator[str]:
    """Count what ``server`` does and answer scrapers at ``address``; the value is the URL, empty without an address.

    Raises ConfigurationError when the address cannot be bound, or ``prometheus_client`` is not installed.
    """
    if address is None:
        yield ""
        return
    try:
        from parties.operate.metrics.page import Page
        from parties.operate.metrics.prometheus import PrometheusMetrics
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "prometheus_client":
            raise
        raise ConfigurationError(
            "metrics need the package prometheus_client: pip install 'tessera-mpc[service]'"
        ) from None
    metrics = PrometheusMetrics(server)
    async with Page(metrics.render, address) as page:
        server.metrics = metrics
        yield page.url
