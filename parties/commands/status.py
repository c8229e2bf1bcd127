"""``tessera status``: what each server holds and does, once or again and again.

One endpoint asks all servers at once; a server that does not answer is a row, never raised.  As with ``tessera check``,
a second process with a key that is in use takes the first one's place: give an operator a key of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Iterator

from rich.console import Console
from rich.live import Live

from mpc.errors import PeerError, ProtocolViolation, UsageError
from parties.commands.arguments import client_arguments, run_with_key
from parties.members.cluster import Cluster, Member
from parties.members.keys import KeyPair
from parties.messages.status import AskStatus, ServerStatus
from parties.operate.check.asking import Asker, asking
from parties.operate.check.report import stdout_console
from parties.operate.status.report import ServerRow, StatusReport

SLACK = 1.0
"""s beyond the round trip that servers may take to look at their own disk and peers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``tessera status``."""
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object; with --watch, one a line")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="again and again, until interrupted")


def run(options: argparse.Namespace) -> int:
    """The exit code."""
    return run_with_key(show, options)


async def show(cluster: Cluster, keys: KeyPair, options: argparse.Namespace) -> int:
    """Prints what `Watcher.look` sees; with ``options.watch`` until interrupted.  The value is the exit code."""
    pause: float | None = options.watch
    if pause is not None and not 0 < pause < math.inf:
        raise UsageError(f"--watch {pause:g}: give a number of seconds above 0")
    async with watching(cluster, keys, options.timeout) as watcher:
        if options.json:
            return await _print_json(watcher, pause)
        console = stdout_console()
        if pause is not None and console.is_terminal:
            await _live(watcher, pause, console)
        while True:
            with _progress(pause):
                report = await watcher.look()
            console.print(report.render())
            if pause is None:
                return report.exit_code
            await asyncio.sleep(pause)


@contextlib.contextmanager
def _progress(pause: float | None) -> Iterator[None]:
    """That servers are being asked, once."""
    if pause is not None:
        yield
        return
    with Console(stderr=True).status("asking the servers"):
        yield


async def _print_json(watcher: Watcher, pause: float | None) -> int:
    while True:
        report = await watcher.look()
        print(json.dumps(report.to_dict()), flush=True)
        if pause is None:
            return report.exit_code
        await asyncio.sleep(pause)


async def _live(watcher: Watcher, pause: float, console: Console) -> None:
    """In place, for ever: a server that comes or goes is seen at the next look."""
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.update((await watcher.look()).render(), refresh=True)
            await asyncio.sleep(pause)


@contextlib.asynccontextmanager
async def watching(cluster: Cluster, keys: KeyPair, patience: float) -> AsyncIterator[Watcher]:
    """Somebody who looks at all servers, giving each ``patience`` s to answer.

    Raises ConfigurationError when the key is no client's, or ``patience`` makes no sense.
    """
    async with asking(cluster, keys, patience) as asker:
        yield Watcher(asker)


class Watcher:
    """From `watching`."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def look(self) -> StatusReport:
        """All servers, asked at once; in about ``patience`` s at most."""
        asker = self._asker
        rows = await asyncio.gather(*map(self._ask, asker.cluster.servers))
        return StatusReport(asker.cluster, asker.me, time.time(), rows)

    async def _ask(self, server: Member) -> ServerRow:
        endpoint, patience = self._asker.endpoint, self._asker.patience
        name, until = server.name, time.monotonic() + patience
        try:
            await endpoint.connect([name], patience)
            # From here on, one that dies is noticed at once.
            with endpoint.watch([name]):
                round_trip = await endpoint.ping(name, max(0.0, until - time.monotonic()))
                status = await self._asker.insist(lambda: self._status(server, until), until)
                return ServerRow(server, status, round_trip)
        except PeerError as error:
            return ServerRow(server, error=error)

    async def _status(self, server: Member, until: float) -> ServerStatus:
        """The answer.  Raises PeerError; `Busy` when it is worth another try."""
        patience = max(0.0, until - time.monotonic()) + SLACK
        message = (await self._asker.ask(server.name, lambda request: AskStatus(request=request), patience)).message
        if not isinstance(message, ServerStatus):
            raise ProtocolViolation(server.name, "answered the question for its status with something else")
        peers = {peer.name for peer in self._asker.cluster.servers if peer != server}
        if {peer.peer for peer in message.peers} != peers or len(message.peers) != len(peers):
            raise ProtocolViolation(server.name, "told of other peers than it has")
        return message
