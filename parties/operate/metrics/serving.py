"""Metrics for Prometheus, where they are asked for (``tessera party --metrics HOST:PORT``).

`serving` has a server tell what happens to who counts it (`parties.operate.metrics.prometheus`), and answers scrapers
(`parties.operate.metrics.page`).  Labels are of bounded number: a scrape has a few hundred lines, however many clients,
programs and runs there were.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from mpc.errors import ConfigurationError

if TYPE_CHECKING:
    from parties.operate.metrics.prometheus import Measured

LOOPBACK = "127.0.0.1"


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; on loopback where the host is left out.  Raises ConfigurationError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise ConfigurationError(f"metrics at {text!r}: give HOST:PORT, with a port from 0 (any that is free) to 65535")
    return host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port)


@contextlib.asynccontextmanager
async def serving(server: Measured, address: tuple[str, int] | None) -> AsyncIterator[str]:
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
