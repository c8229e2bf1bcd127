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

from mpc.errors import ConfigurationError, PeerError, PeerLost, ProtocolViolation, UsageError
from parties.check.probing import Answers, Busy, answer_in
from parties.check.report import stdout_console
from parties.cluster import Cluster, Member
from parties.keys import KeyPair
from parties.status.messages import AskStatus, ServerStatus
from parties.status.report import ServerRow, StatusReport
from parties.wire.events import Delivery, Event, PeerDown, PeerRestarted
from parties.wire.transport import Endpoint

SLACK = 1.0
"""s beyond the round trip that servers may take to look at their own disk and peers."""


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
    member = cluster.by_key(keys.public)
    if member is None or member.is_server:
        raise ConfigurationError(
            f"the cluster file lists no client with the key {keys.public}: add it under [[client]], on every host"
        )
    if not patience > 0:
        raise ConfigurationError(f"a timeout of {patience:g} s: give more than 0")
    async with Endpoint(cluster, member, keys, bind=False) as endpoint:
        watcher = Watcher(cluster, member, endpoint, patience)
        listening = asyncio.get_running_loop().create_task(watcher.listen(), name="tessera status")
        try:
            yield watcher
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


class Watcher:
    """From `watching`."""

    def __init__(self, cluster: Cluster, me: Member, endpoint: Endpoint, patience: float) -> None:
        self._cluster, self._me, self._endpoint, self._patience = cluster, me, endpoint, patience
        self._answers = Answers()

    async def look(self) -> StatusReport:
        """All servers, asked at once; in about ``patience`` s at most."""
        rows = await asyncio.gather(*map(self._ask, self._cluster.servers))
        return StatusReport(self._cluster, self._me, time.time(), rows)

    async def _ask(self, server: Member) -> ServerRow:
        name, until = server.name, time.monotonic() + self._patience
        try:
            await self._endpoint.connect([name], self._patience)
            # From here on, one that dies is noticed at once.
            with self._endpoint.watch([name]):
                round_trip = await self._endpoint.ping(name, max(0.0, until - time.monotonic()))
                return ServerRow(server, await self._status(server, until), round_trip)
        except PeerError as error:
            return ServerRow(server, error=error)

    async def _status(self, server: Member, until: float) -> ServerStatus:
        """The answer; asks again while the server is busy.  Raises PeerError."""
        while True:
            try:
                return await self._status_once(server, max(0.0, until - time.monotonic()) + SLACK)
            except Busy as busy:
                if time.monotonic() + busy.wait > until:
                    raise
                await asyncio.sleep(busy.wait)

    async def _status_once(self, server: Member, patience: float) -> ServerStatus:
        with self._answers.awaited(server.name) as (query, future):
            self._endpoint.send(server.name, AskStatus(query=query))
            message = (await answer_in(future, server.name, patience)).message
        if not isinstance(message, ServerStatus):
            raise ProtocolViolation(server.name, "answered the question for its status with something else")
        peers = {peer.name for peer in self._cluster.servers if peer != server}
        if {peer.peer for peer in message.peers} != peers or len(message.peers) != len(peers):
            raise ProtocolViolation(server.name, "told of other peers than it has")
        return message

    async def listen(self) -> None:
        """For ever: hands answers, and losses, to whoever waits for them."""
        while True:
            self._take(await self._endpoint.receive())

    def _take(self, event: Event) -> None:
        if isinstance(event, Delivery):
            self._answers.take(event)
        elif isinstance(event, PeerRestarted):
            self._answers.fail(event.sender.name, PeerLost(event.sender.name, "restarted when it was asked"))
        elif isinstance(event, PeerDown):
            self._answers.fail(event.peer.name, event.error)
        else:
            self._answers.fail(event.sender.name, event.error)
