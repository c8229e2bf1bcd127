"""What is to be dealt ahead of time: clients' orders, taken in turns."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from parties.members.cluster import Member
from parties.messages.bindings import BoundProgram
from parties.stock.chain import Link


@dataclass
class Request:
    """Deal for ``count`` runs of a bound program, as its client asks or (None) because its stock is low.

    ``chained``: each from what the one before has kept.
    """

    bound: BoundProgram
    count: int
    client: Member | None = None
    request: str = ""
    over: Callable[[], None] = lambda: None
    """To be called when nothing more becomes of it."""
    in_stock: int = 0
    """Of the program, by what is known."""
    done: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0
    """At work on it, so far."""
    chained: bool = False
    link: Link | None = None
    """Of a chain: what is to be dealt next; once it has been begun."""
    broken: bool = False
    """The chain is."""

    @property
    def program(self) -> str:
        """Under which name it is in ledgers."""
        return self.bound.chain_digest if self.chained else self.bound.digest

    @property
    def owner(self) -> str:
        """In whose turn it is dealt for."""
        return self.bound.client


class Requests:
    """Those not dealt for yet, by client; taken in turns, of each client in order."""

    def __init__(self) -> None:
        self._by_owner: OrderedDict[str, deque[Request]] = OrderedDict()
        self._news = asyncio.Event()

    def __iter__(self) -> Iterator[Request]:
        return itertools.chain.from_iterable(self._by_owner.values())

    def of(self, owner: str) -> int:
        """How many that client has waiting."""
        return len(self._by_owner.get(owner, ()))

    def others(self, owner: str) -> bool:
        """Whether anybody else waits."""
        return any(other != owner for other in self._by_owner)

    def put(self, request: Request, *, first: bool = False) -> None:
        """Behind the client's others, or before them if it has been begun."""
        requests = self._by_owner.setdefault(request.owner, deque())
        (requests.appendleft if first else requests.append)(request)
        self._news.set()

    async def take(self) -> Request:
        """The next one, of the client whose turn is longest ago."""
        while not self._by_owner:
            self._news.clear()
            await self._news.wait()
        owner, requests = self._by_owner.popitem(last=False)
        request = requests.popleft()
        if requests:
            self._by_owner[owner] = requests
        return request
