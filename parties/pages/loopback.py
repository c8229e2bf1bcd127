"""Which names and addresses nobody but this computer can reach."""

from __future__ import annotations

import ipaddress

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def is_local(host: str) -> bool:
    """Whether a host name or address is this computer's own, on loopback."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
