"""How far TCP gets to an address, tried apart from everything above it: it tells a firewall from a wrong port."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from parties.members.cluster import Member
from parties.messages.check import Reach


async def probe(address: str, patience: float) -> Reach:
    """Connects to ``host:port`` and hangs up; takes ``patience`` s at most, and sends nothing."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(patience):
            # Apart from connecting: a resolver that does not answer is not a host that does not.
            found = await asyncio.get_running_loop().getaddrinfo(
                host.strip("[]"), int(port), family=_family(host), type=socket.SOCK_STREAM
            )
    except (OSError, TimeoutError):
        return Reach.UNRESOLVED
    where = found[0][4]
    try:
        async with asyncio.timeout(patience):
            _, writer = await asyncio.open_connection(str(where[0]), int(where[1]))
    except TimeoutError:
        return Reach.SILENT
    except ConnectionRefusedError:
        return Reach.REFUSED
    except OSError:
        return Reach.UNREACHABLE
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return Reach.OPEN


def _family(host: str) -> socket.AddressFamily:
    """As for the links themselves: names stand for IPv4 addresses, and IPv6 addresses are written in brackets."""
    return socket.AF_INET6 if host.startswith("[") else socket.AF_INET


def explanation(server: Member, reach: Reach) -> str:
    """What is wrong with a server that does not answer, as far as TCP tells, and what to do about it."""
    where = server.address or ""
    host, _, port = where.rpartition(":")
    role = "dealer" if server.name == "dealer" else f"party {server.index}"
    match reach:
        case Reach.REFUSED:
            return (
                f"nothing listens at {where} (connection refused): start it there with `tessera {role}`, which says "
                "why if it ends (a wrong key, a data folder in use), or correct the address or port in everybody's "
                "cluster file"
            )
        case Reach.SILENT:
            return (
                f"nothing comes back from {where} (no answer to a TCP connection): the host is down, its address is "
                f"wrong, or a firewall drops what is sent to it: let TCP port {port} through"
            )
        case Reach.UNRESOLVED:
            return (
                f"the name {host} cannot be resolved: correct the address in everybody's cluster file, or the name "
                "service of the host that looks it up"
            )
        case Reach.UNREACHABLE:
            return f"there is no way to {where} (network or host unreachable): correct the address, or the routes"
        case Reach.OPEN:
            return (
                f"something accepts connections at {where} and does not answer as Tessera: the process is frozen or "
                "cannot connect back, another program has the port, or a firewall in between holds up what is sent"
            )
