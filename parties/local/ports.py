"""Ports of this machine for servers that are yet to be started."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Ports of 127.0.0.1 that, until the block is over, are given to nobody who has not been told of them.

    A port that was free a moment ago may be the near end of anybody's connection by the time a server asks for it.
    So each is held by a socket that is bound and does not listen: Linux then picks it for nobody, and lets a server
    that names it have it, as often as it is started, if that sets ``SO_REUSEADDR`` (ZeroMQ and asyncio do).  Other
    systems would keep it from that server too; there it is let go at once.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
        if sys.platform != "linux":
            held.close()
        yield ports
