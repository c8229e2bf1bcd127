"""Telling another server what is here, whenever one of the two may have forgotten or missed something."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mpc.errors import TesseraError
from parties.servers.server import Server
from parties.wire.messages import Message

log = logging.getLogger(__name__)


class Reporting:
    """``what`` is told to ``whom`` when it or we have started, and again while ``owed`` says that it owes an answer."""

    def __init__(
        self,
        server: Server[Any],
        whom: str,
        what: Callable[[], Awaitable[tuple[Message, Sequence[bytes]]]],
        owed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._server = server
        self._whom = whom
        self._what = what
        self._owed = owed
        self._is_new = asyncio.Event()

    def lost(self) -> None:
        """It may have forgotten what it was told, and we may have missed what it said."""
        self._is_new.set()

    async def work(self) -> None:
        """For ever."""
        due = True
        while True:
            if self._owed() or due:
                due = not await self._report()
            try:
                async with asyncio.timeout(self._server.cluster.settings.peer_timeout):
                    await self._is_new.wait()
            except TimeoutError:
                continue
            self._is_new.clear()
            due = True

    async def _report(self) -> bool:
        """Whether it was reached."""
        try:
            await self._server.endpoint.connect([self._whom], self._server.cluster.settings.peer_timeout)
            self._server.endpoint.send(self._whom, *await self._what())
        except TesseraError as error:
            log.debug("%s cannot be told what is here: %s", self._whom, error)
            return False
        return True
