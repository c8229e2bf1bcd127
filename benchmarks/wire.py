"""What the TCP connections between processes carry, as the kernel counts it (inet_diag, the source of ``ss -i``).

Everything is in it that Tessera's own counters leave out: ZeroMQ's framing, CURVE's encryption, greetings, and pings
and their answers.  What is below TCP is not: IP and TCP headers (40 to 72 bytes a packet), and those of the link.
``packets`` are the kernel's TCP segments, acknowledgements among them, on the network that was measured: loopback's
hold up to 64 KiB, Ethernet's 1.5 kB, so there are more of them on a real network.

A connection that begins after ``Wire.start`` is counted from its beginning.  One that ends before ``Wire.traffic``
takes its counters with it: what it carried since ``start`` is missing, and a warning says so.
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc.errors import ConfigurationError, UsageError
from parties.tally import Link

log = logging.getLogger(__name__)

# Of include/net/tcp_states.h: all states in which a connection may carry data, or still wait for its acknowledgement.
_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT, _LAST_ACK, _CLOSING = 1, 4, 5, 8, 9, 11
_STATES = sum(1 << state for state in (_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT, _LAST_ACK, _CLOSING))
# Of linux/inet_diag.h: ask for struct tcp_info.
_WITH_TCP_INFO = 1 << 1


@dataclass(frozen=True)
class Carried:
    """What one process sent another over TCP."""

    bytes: int = 0
    """Of TCP's payload, each counted once."""
    packets: int = 0
    """Segments of all kinds: data, again or for the first time, and acknowledgements of what the other sends."""
    retransmitted: int = 0
    """Bytes that were sent again."""

    def __add__(self, other: Carried) -> Carried:
        return Carried(self.bytes + other.bytes, self.packets + other.packets, self.retransmitted + other.retransmitted)

    def __sub__(self, other: Carried) -> Carried:
        return Carried(self.bytes - other.bytes, self.packets - other.packets, self.retransmitted - other.retransmitted)


Address = tuple[str, int]
Key = tuple[int, int]
"""Of a socket for all its life: the reader that found it, and the kernel's cookie."""


@dataclass(frozen=True)
class _Socket:
    """One end of a connection, as read."""

    cookie: int
    inode: int
    """0 once its process has closed it."""
    here: Address
    there: Address
    sent: Carried


class Reader:
    """Reads the TCP sockets of one network namespace: that of the thread which makes it.

    A thread of its own stays in the namespace, so ``read`` may be called from everywhere, also beside an event loop.

    Raises ConfigurationError, saying what to do, where the kernel's counts cannot be had.
    """

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise ConfigurationError("bytes on the wire are counted by the Linux kernel: measure on Linux")
        try:
            module = importlib.import_module("pyroute2")
        except ImportError:
            raise ConfigurationError(
                "bytes on the wire are counted with pyroute2: install tessera-mpc[bench]"
            ) from None
        # A new thread is in the namespace of the one that starts it; and pyroute2's sockets belong to their thread.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tessera wire")
        try:
            self._socket = self._thread.submit(_opened, module).result()
            self.read()
        except Exception as error:
            self._thread.shutdown()
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(
                f"bytes on the wire cannot be counted: this kernel answers no inet_diag request ({error})"
            ) from error

    def read(self) -> list[_Socket]:
        """All connections there are now."""
        return self._thread.submit(self._read).result()

    def _read(self) -> list[_Socket]:
        return [
            _parsed(message)
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in self._socket.get_sock_stats(family=family, states=_STATES, extensions=_WITH_TCP_INFO)
            if message.get_attr("INET_DIAG_INFO") is not None
        ]

    def close(self) -> None:
        """Idempotent."""
        if self._socket is not None:
            self._thread.submit(self._socket.close).result()
            self._socket = None
        self._thread.shutdown()


class Wire:
    """The connections between processes of this machine, watched from one ``start`` to the next ``traffic``.

    Args:
        pids: the processes by name.
        readers: one per network namespace that they are in; by default one of this thread's.  ``close`` closes them.

    Raises ConfigurationError where the kernel's counts cannot be had, UsageError when a process is found to be gone.
    """

    def __init__(self, pids: Mapping[str, int], readers: Sequence[Reader] | None = None) -> None:
        self._pids = dict(pids)
        self._readers = [Reader()] if readers is None else list(readers)
        self._owners: dict[Key, str | None] = {}
        """Of every socket that is known: the process, if it is one of ours."""
        self._before: dict[Key, tuple[Link, Carried]] = {}
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Count from now on.  Raises UsageError when a process is found to be gone."""
        self._before = self._now()

    def traffic(self) -> dict[Link, Carried]:
        """What each process has sent each other one since ``start``; only links that have a connection.

        Raises UsageError when a process is found to be gone: whoever owns new connections is looked up.
        """
        now, links = self._now(), dict[Link, Carried]()
        for key, (link, carried) in now.items():
            _, former = self._before.get(key, (link, Carried()))
            links[link] = links.get(link, Carried()) + carried - former
        for link in {link for key, (link, _) in self._before.items() if key not in now}:
            log.warning("a connection from %s to %s ended while it was measured: its bytes are missing", *link)
        return links

    def close(self) -> None:
        """Close the readers.  Idempotent."""
        for reader in self._readers:
            reader.close()

    def _now(self) -> dict[Key, tuple[Link, Carried]]:
        """What each socket has sent in all its life, of those whose two ends are known."""
        found = {(n, s.cookie): s for n, reader in enumerate(self._readers) for s in reader.read()}
        self._find_owners(found)
        names = {(s.here, s.there): owner for key, s in found.items() if (owner := self._owners.get(key)) is not None}
        links = {}
        for key, s in found.items():
            owner, peer = self._owners.get(key), names.get((s.there, s.here))
            if owner is not None and peer is not None and owner != peer:
                links[key] = (owner, peer), s.sent
        return links

    def _find_owners(self, found: Mapping[Key, _Socket]) -> None:
        """Whose the sockets are that were not there before."""
        self._owners = {key: owner for key, owner in self._owners.items() if key in found}
        # Without an inode a connection has not been accepted yet, or has been closed: the next reading may know more.
        fresh = {key: s.inode for key, s in found.items() if key not in self._owners and s.inode}
        if fresh:
            owners = {inode: name for name, pid in self._pids.items() for inode in _inodes(pid)}
            self._owners.update({key: owners.get(inode) for key, inode in fresh.items()})


def _opened(pyroute2: Any) -> Any:
    diag = pyroute2.DiagSocket()
    diag.bind()
    return diag


def _parsed(message: Any) -> _Socket:
    info = message.get_attr("INET_DIAG_INFO")
    sent, again, packets = (info.get(f"tcpi_{name}") for name in ("bytes_sent", "bytes_retrans", "segs_out"))
    if sent is None or again is None or packets is None:
        raise ConfigurationError("bytes on the wire cannot be counted: this kernel is older than 4.19")
    return _Socket(
        cookie=message["idiag_cookie"],
        inode=message["idiag_inode"],
        here=(_plain(message["idiag_src"]), message["idiag_sport"]),
        there=(_plain(message["idiag_dst"]), message["idiag_dport"]),
        sent=Carried(sent - again, packets, again),
    )


def _plain(address: str) -> str:
    """The two ends of a connection may call one address by an IPv4 and by an IPv6 name."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


def _inodes(pid: int) -> Iterable[int]:
    """Of the sockets that a process holds open."""
    folder = Path(f"/proc/{pid}/fd")
    try:
        descriptors = list(folder.iterdir())
    except OSError:
        raise UsageError(f"process {pid} has ended while it was measured") from None
    for descriptor in descriptors:
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            yield int(target[len("socket:[") : -1])
