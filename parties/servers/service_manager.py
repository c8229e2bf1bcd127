"""What a server tells the service manager that started it, in systemd's protocol (sd_notify(3)); or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket


def notify(state: str) -> None:
    """A datagram to ``$NOTIFY_SOCKET``: ``READY=1``, ``STOPPING=1`` or ``WATCHDOG=1``.  Never fails or blocks."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # An abstract socket's name begins with a zero byte, which an environment variable cannot hold.
    path = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link:
        link.setblocking(False)
        link.sendto(state.encode(), path)


async def feed_watchdog() -> None:
    """Say, twice in each ``$WATCHDOG_USEC``, that the event loop turns; returns at once where nobody listens."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(microseconds) * 1e-6 / 2)
