"""``tessera check``: every link in both directions, every data folder and clock, and what is wrong with them.

The client looks at its own links, and asks each server to look at its links to the others
(`parties.operate.check.desk`). Bandwidth is measured one link after the other, so that no measurement is in another's
way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Callable

from rich.console import Console

from mpc.errors import NotPermitted, PeerError, ProtocolViolation, RemoteError, UsageError, printable
from parties.client.async_client import AsyncClient
from parties.client.remote_model import RemoteModel
from parties.commands.arguments import client_arguments, run_with_key
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.messages.check import MAX_PATIENCE, LinkSeen, LookAround, Looked, Measure, Measured
from parties.messages.failures import error_on_link
from parties.operate.check.asking import Asker, Question, asking
from parties.operate.check.probing import Prober
from parties.operate.check.report import HostRow, LinkRow, Report, Stored, stdout_console
from parties.servers.admission import words_of
from parties.wire.messages import Message

_SLACK = 2.0
"""s that a server may take beyond its own patience with its peers."""

Progress = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera check``."""
    client_arguments(parser)
    parser.add_argument("--no-bandwidth", action="store_true", help="send nothing big (else up to 8 MiB per link)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_with_key(show, options)


async def show(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """Prints what `check` finds."""
    with Console(stderr=True).status("checking") as status:
        report = await check(cluster, keys, options.timeout, bandwidth=not options.no_bandwidth, progress=status.update)
        if report.ok:
            status.update("looking at what is stored")
            report.stored = await stored(cluster, keys, options.timeout)
    if options.json:
        print(json.dumps(report.to_dict()))
    else:
        report.print(stdout_console())
    return report.exit_code


async def check(
    cluster: Cluster,
    keys: KeyPair,
    patience: float,
    *,
    bandwidth: bool = True,
    progress: Progress = lambda _: None,
) -> Report:
    """What there is to find out within about ``patience`` s per step; a failure of a server is a row, never raised.

    Args:
        patience: s, more than 0; servers wait for one another for `MAX_PATIENCE` at most.
        bandwidth: also send just under 8 MiB over each link, each way; less where that takes long.
        progress: is told, in a few words, what is being done.

    Raises:
        ConfigurationError: the key is no client's, or ``patience`` makes no sense.
    """
    async with asking(cluster, keys, patience) as asker:
        return await _Check(asker).run(bandwidth, progress)


async def stored(cluster: Cluster, keys: KeyPair, patience: float) -> list[Stored]:
    """What the client may use.  Raises PeerError."""
    async with AsyncClient(cluster, keys, connect_timeout=patience) as client:
        found = []
        for entry in await client.models():
            elements = None
            # What a client may not look up, or is a data set, is run by programs that nobody knows here.
            with contextlib.suppress(UsageError, NotPermitted):
                elements = await asyncio.to_thread(_elements, await client.model(entry.slot), cluster)
            ours = entry.owner == client.member.name
            found.append(Stored(entry.slot, ours, entry.stored_bytes, elements, entry.complete, entry.unequal))
        return found


def _elements(model: RemoteModel, cluster: Cluster) -> int | None:
    """That a run of it on one input holds; None for a model that does not say what shape that has."""
    shape, security = model.description.input_shape, cluster.settings.security
    return None if shape is None else words_of(model.description.program((1, *shape)), security)


class _Check:
    """One check by one client."""

    def __init__(self, asker: Asker) -> None:
        self._cluster, self._me, self._patience = asker.cluster, asker.me, asker.patience
        self._endpoint, self._asker = asker.endpoint, asker
        self._prober = Prober(asker.endpoint, asker.answers)

    async def run(self, bandwidth: bool, progress: Progress) -> Report:
        servers = self._cluster.servers
        progress("reaching the servers")
        hosts = [HostRow(server) for server in servers]
        out = await asyncio.gather(*(self._reach(server) for server in servers))
        # From here on, one that dies is noticed at once.
        with self._endpoint.watch([link.receiver.name for link in out if link.ok]):
            return await self._ask_all(hosts, out, bandwidth, progress)

    async def _ask_all(self, hosts: list[HostRow], out: list[LinkRow], bandwidth: bool, progress: Progress) -> Report:
        progress("asking the servers for their links")
        looked = await asyncio.gather(*(self._ask_around(*pair) for pair in zip(hosts, out, strict=True)))
        back = [LinkRow(link.receiver, self._me, link.reach, link.round_trip) for link in out if link.ok]
        between = [row for rows in looked for row in rows]
        report = Report(self._cluster, self._me, hosts, [*out, *back, *between])
        if bandwidth:
            await self._measure_all(report, progress)
        return report

    async def _reach(self, server: Member) -> LinkRow:
        reach, found = await self._prober.look(server, self._patience)
        if isinstance(found, PeerError):
            return LinkRow(self._me, server, reach, error=found)
        return LinkRow(self._me, server, reach, found)

    # -- what the servers say --------------------------------------------------------------------------------------

    async def _ask_around(self, host: HostRow, link: LinkRow) -> list[LinkRow]:
        """Fills in the host's row; its links to the other servers."""
        if link.error is not None:
            host.error = link.error
            return []
        host.round_trip = link.round_trip
        server = host.server
        patience = min(self._patience, MAX_PATIENCE)
        try:
            message = await self._ask(
                server, lambda request: LookAround(request=request, patience=patience), 2 * patience + _SLACK
            )
            if not isinstance(message, Looked):
                raise ProtocolViolation(server.name, "answered a check with something else")
            rows = self._rows(server, message)
        except PeerError as error:
            host.error = error
            return []
        # It was sent half a round trip ago.
        host.clock = message.clock + (link.round_trip or 0.0) / 2 - time.time()
        host.folder, host.room = message.folder, message.room
        if message.folder.problem:
            host.error = RemoteError(server.name, printable(message.folder.problem))
        return rows

    def _rows(self, server: Member, message: Looked) -> list[LinkRow]:
        """Raises ProtocolViolation unless there is one for each other server."""
        peers = [peer for peer in self._cluster.servers if peer != server]
        seen = {link.peer: link for link in message.links}
        if len(seen) != len(message.links) or set(seen) != {peer.name for peer in peers}:
            raise ProtocolViolation(server.name, "told of other links than it has")
        return [_row(server, peer, seen[peer.name]) for peer in peers]

    async def _ask(self, server: Member, question: Question, patience: float) -> Message:
        """The answer; asks again while the server is busy.  Raises PeerError."""
        return (await self._asker.insist(lambda: self._asker.ask(server.name, question, patience))).message

    # -- bandwidth -------------------------------------------------------------------------------------------------

    async def _measure_all(self, report: Report, progress: Progress) -> None:
        # Whoever has not told of its links by now has been given up; a folder that fails is no reason.
        lost = {host.server for host in report.hosts if host.folder is None}
        for link in report.links:
            if link.error is None and link.round_trip is not None and not lost & {link.sender, link.receiver}:
                progress(f"measuring {link.sender.name} -> {link.receiver.name}")
                try:
                    link.rate = await self._rate(link, link.round_trip)
                except PeerError as error:
                    link.error = error
                    if link.witness is None:
                        # Our own words with that server have failed: no more of them.
                        link.witness = self._me
                        lost.add(link.receiver if link.sender == self._me else link.sender)

    async def _rate(self, link: LinkRow, round_trip: float) -> float:
        """Bytes per second.  Raises PeerError."""
        if link.sender == self._me:
            return await self._asker.insist(lambda: self._prober.upload(link.receiver.name, round_trip, self._patience))
        if link.receiver == self._me:
            return await self._asker.insist(lambda: self._prober.download(link.sender.name, round_trip, self._patience))
        server, peer = link.sender, link.receiver.name
        patience = self._patience + self._cluster.settings.peer_timeout
        message = await self._ask(server, lambda request: Measure(request=request, peer=peer), patience)
        if not isinstance(message, Measured):
            raise ProtocolViolation(server.name, "answered a check with something else")
        if message.fault is not None:
            link.witness = server
            raise error_on_link(message.fault)
        return message.rate or 0.0


def _row(server: Member, peer: Member, seen: LinkSeen) -> LinkRow:
    if seen.fault is None:
        return LinkRow(server, peer, seen.reach, seen.round_trip)
    return LinkRow(server, peer, seen.reach, error=error_on_link(seen.fault))
