"""Who is told, and when, that something has become of a request: pushed by servers, which say no more than that."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.security import Security
from parties import DataSet
from parties.client import asking
from parties.client.request_entries import State
from parties.messages.requests import ListRequests, RequestsChanged

from .conftest import opened
from .test_requests import asked

SERVERS = ("dealer", "party0", "party1")


@pytest.fixture(autouse=True)
def pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks by itself."""
    monkeypatch.setattr(asking, "_LOOK", 1e6)
    monkeypatch.setattr(asking, "_FIRST_PAUSE", 0.01)


class Follower:
    """What a client sees, one after the other."""

    def __init__(self, client: Any) -> None:
        self.seen: asyncio.Queue[Any] = asyncio.Queue()
        self._client = client

    async def work(self) -> None:
        async for entry in self._client.follow():
            self.seen.put_nowait(entry)

    async def next(self) -> Any:
        return await asyncio.wait_for(self.seen.get(), 20)

    async def until(self, state: State) -> Any:
        while (entry := await self.next()).state is not state:
            pass
        return entry


@contextlib.asynccontextmanager
async def following(*clients: Any) -> AsyncIterator[list[Follower]]:
    followers = [Follower(client) for client in clients]
    tasks = [asyncio.create_task(follower.work()) for follower in followers]
    try:
        yield followers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


ENDS: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
    "taken back": lambda company, _: company.allow("trial", "clinic", []),
    "denied": lambda company, digest: company.deny(digest, why="not any more"),
    "removed": lambda company, _: company.remove("trial"),
    "other types": lambda company, _: company.upload(DataSet({"age": np.ones((7, 3))}, low=-1, high=1), "trial"),
}


@pytest.mark.parametrize("how", ENDS)
async def test_both_sides_are_told_what_others_do(site: Any, how: str) -> None:
    async with (
        site.client("company") as company,
        site.client() as clinic,
        following(company, clinic) as (owner, analyst),
    ):
        digest, _ = await asked(site, company, clinic)
        entry = await owner.next()
        assert (entry.program, entry.client, entry.state) == (digest, "clinic", State.ASKED)
        await company.approve(digest)
        assert (await analyst.until(State.APPROVED)).program == digest
        await ENDS[how](company, digest)
        ended = State.DENIED if how == "denied" else State.ENDED
        for follower in (analyst, owner):
            assert (await follower.until(ended)).program == digest


async def test_who_waits_for_leave_is_told_at_once(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic)
        monkeypatch.setattr(asking, "_FIRST_PAUSE", 60.0)
        waiting = asyncio.create_task(clinic.approved(digest))
        monkeypatch.setattr(asking, "_FIRST_PAUSE", 0.01)
        await company.approve(digest)
        assert await asyncio.wait_for(waiting, 20)


@pytest.mark.parametrize("honest", SERVERS)
async def test_one_server_that_tells_is_enough(site: Any, honest: str) -> None:
    for server in SERVERS:
        if server != honest:
            site.corrupt(server, RequestsChanged, lambda *_: [])
    async with site.client("company") as company, site.client() as clinic, following(company) as (owner,):
        digest, _ = await asked(site, company, clinic)
        entry = await owner.next()
        assert (entry.program, entry.missing) == (digest, ())


async def test_others_are_told_nothing(tmp_path: Path) -> None:
    clients = ("clinic", "company", "other")
    async with opened(tmp_path, Security.SEMI_HONEST, clients=clients) as site:
        await told_nothing(site)


async def told_nothing(site: Any) -> None:
    told: list[tuple[str, Any]] = []
    for server in SERVERS:
        endpoint = site.servers[server].endpoint
        honest = endpoint.send

        def send(peer: str, message: Any, *rest: Any, honest: Any = honest, **options: Any) -> int:
            if isinstance(message, RequestsChanged):
                told.append((peer, message))
            return int(honest(peer, message, *rest, **options))

        endpoint.send = send
    async with site.client("company") as company, site.client() as clinic, site.client("other"):
        digest, _ = await asked(site, company, clinic)
        await site.until(lambda: len(told) == 2 * len(SERVERS))
        # What depends on no request, or changes nothing of one.
        await company.allow("trial", "company", ["any"])
        await company.upload(DataSet({"age": np.ones((7, 3))}, low=-1, high=1), "other")
        await asyncio.sleep(0.5)
        assert len(told) == 2 * len(SERVERS)
        await clinic.withdraw(digest)
        await site.until(lambda: len(told) == 4 * len(SERVERS))
        assert {peer for peer, _ in told} == {"company", "clinic"}
        assert {message for _, message in told} == {RequestsChanged()}


async def test_a_server_that_tells_ever_again_has_a_client_look_so_often(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "_FIRST_PAUSE", 0.2)
    async with site.client() as clinic, following(clinic):
        listed: list[Any] = []
        honest = clinic._board.send
        clinic._board.send = lambda server, message, *rest: (
            (listed.append(message) if isinstance(message, ListRequests) and server == "dealer" else None)
            or honest(server, message, *rest)
        )
        began = time.monotonic()
        for _ in range(100):
            site.servers["party1"].endpoint.send("clinic", RequestsChanged())
            await asyncio.sleep(0.01)
        assert 2 <= len(listed) <= (time.monotonic() - began) / 0.2 + 2
        # And is told of nothing, since there is nothing.
        assert await clinic.requests() == []


@pytest.mark.parametrize("turns", range(6))
async def test_who_stops_following_as_news_come_has_stopped(turns: int) -> None:
    """The cancellation is not lost, in whichever turn of the event loop it comes."""
    news = asyncio.Event()
    waiting = asyncio.create_task(asking._either(news, 1e6))
    await asyncio.sleep(0.03)
    news.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    if waiting.cancel():
        with pytest.raises(asyncio.CancelledError):
            await waiting
