"""Whether this computer could serve as, or reach, the members of a cluster file: no key is needed, and none is used."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import closing

from parties.members.cluster import Cluster, Member
from parties.messages.check import Reach
from parties.operate.check.reach import probe
from parties.operate.doctor.findings import Finding, Verdict

PATIENCE = 3.0
"""s in which a host answers, or does not."""


def loopback() -> Finding:
    """Whether processes of this computer can talk to each other, as in `LocalCluster`."""
    try:
        with (
            closing(socket.create_server(("127.0.0.1", 0))) as server,
            closing(socket.create_connection(server.getsockname(), PATIENCE)),
        ):
            return Finding("loopback", "connects")
    except OSError as error:
        advice = "LocalCluster and tessera demo need it: look at the firewall, or the container's network"
        return Finding("loopback", f"127.0.0.1 does not connect ({error.strerror})", Verdict.BAD, advice)


def members(cluster: Cluster) -> Iterator[Finding]:
    """A line for each server: of this computer's, whether its port is free; of others, whether theirs is open."""
    for member in cluster.servers:
        yield _here(member) if _is_here(member) else _there(member)


def _ends(address: str | None) -> tuple[str, int]:
    """Host and port; servers have an address."""
    host, _, port = (address or "").rpartition(":")
    return host.strip("[]"), int(port)


def _is_here(member: Member) -> bool:
    """Whether its address is one of this computer's: then it can be bound, to any port."""
    try:
        found = socket.getaddrinfo(_ends(member.address)[0], 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, _, _, at in found:
        with closing(socket.socket(family, kind)) as probe:
            try:
                probe.bind(at)
            except OSError:
                continue
            return True
    return False


def _here(member: Member) -> Finding:
    what, (host, port) = f"{member.name} (here)", _ends(member.listen or member.address)
    try:
        family, _, _, _, at = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with closing(socket.create_server(at, family=family)):
            return Finding(what, f"port {port} is free")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Finding(what, f"port {port} is in use: it serves already, or something else does")
        advice = f"a server could not bind {host}:{port}: give another address, or `listen`, in the cluster file"
        return Finding(what, f"port {port} cannot be bound ({error.strerror})", Verdict.BAD, advice)


def _there(member: Member) -> Finding:
    host, port = _ends(member.address)
    advice = {
        Reach.UNRESOLVED: f"no host is called {host}: correct its address in the cluster file, or this computer's name"
        " service",
        Reach.SILENT: f"nothing answers within {PATIENCE:g} s: let port {port} through the firewalls between",
        Reach.REFUSED: "Connection refused: start it there (tessera check says more, with a key)",
        Reach.UNREACHABLE: "there is no way to it: correct its address, or the routes",
    }
    reach = asyncio.run(probe(member.address or "", PATIENCE))
    if reach is Reach.OPEN:
        return Finding(member.name, f"{member.address} is open")
    return Finding(member.name, f"{member.address} does not connect", Verdict.BAD, advice[reach])
