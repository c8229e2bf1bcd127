"""A client's conversations with the servers: messages that belong to one run, upload or query, until it is over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Mapping

from mpc.errors import PeerLost, ProtocolViolation, TesseraError
from parties.wire.events import Delivery
from parties.wire.messages import Message

Expected = Mapping[type[Message], Collection[str]]
"""Who is to send which message."""


class Conversation:
    """What has arrived for one run, upload or query; and whether it has failed.

    ``needs`` are the servers whose loss ends it.
    """

    def __init__(self, needs: Collection[str]) -> None:
        self.needs = frozenset(needs)
        self._arrived: deque[Delivery] = deque()
        self._failure: TesseraError | None = None
        self.told = False
        """Whether it has failed on a server's word, and not for the loss of one."""
        self._news = asyncio.Event()

    def put(self, delivery: Delivery) -> None:
        """A message has arrived."""
        self._arrived.append(delivery)
        self._news.set()

    def fail(self, error: TesseraError, *, told: bool = False) -> None:
        """It has come to nothing; the first reason counts.  ``told``: a server says so."""
        if self._failure is None:
            self._failure, self.told = error, told
        self._news.set()

    def check(self) -> None:
        """Raises the reason if it has come to nothing."""
        if self._failure is not None:
            raise self._failure

    async def take(
        self, kind: type[Message], senders: Collection[str], patience: float, first: float | None = None
    ) -> dict[str, Delivery]:
        """One message of ``kind`` from each of ``senders``; see ``take_all``."""
        return (await self.take_all({kind: senders}, patience, first))[kind]

    async def take_all(
        self, expected: Expected, patience: float, first: float | None = None
    ) -> dict[type[Message], dict[str, Delivery]]:
        """The messages expected, by kind and sender, in whatever order they come, at most ``patience`` s apart.

        The first may take ``first`` s, by default no longer than the others.

        Raises why it has come to nothing, ProtocolViolation for anything else, PeerLost when nothing comes.
        """
        missing = {kind: set(senders) for kind, senders in expected.items()}
        got: dict[type[Message], dict[str, Delivery]] = {kind: {} for kind in expected}
        while any(missing.values()):
            allowed = first if first is not None and not any(got.values()) else patience
            delivery = await self.take_next(allowed)
            if delivery is None:
                kind, senders = next((k, s) for k, s in missing.items() if s)
                raise PeerLost(min(senders), f"sent no {kind.__name__} within {allowed:g} s")
            name, kind = delivery.sender.name, type(delivery.message)
            if name not in missing.get(kind, ()):
                raise ProtocolViolation(name, f"sent {kind.__name__} out of turn")
            missing[kind].discard(name)
            got[kind][name] = delivery
        return got

    async def take_next(self, patience: float) -> Delivery | None:
        """The next message, whatever it is; None when there is none in time.  Raises why it has come to nothing."""
        if not self._arrived:
            try:
                async with asyncio.timeout(patience):
                    while not self._arrived:
                        self.check()
                        self._news.clear()
                        await self._news.wait()
            except TimeoutError:
                return None
        return self._arrived.popleft()
