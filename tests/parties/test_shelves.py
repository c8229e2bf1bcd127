"""What is dealt ahead of time lies with workers, sealed: each item for one run, whoever ends when; what is lost is."""

from __future__ import annotations

import asyncio
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from mpc.errors import PeerLost
from mpc.security import Security
from parties import Settings
from parties.messages.workers import Keep, Take
from parties.servers import shelving
from parties.worker.computing import Computing

from .conftest import opened
from .stocked import program, right
from .workforces import Shelving, all_there, on_workers

LAST = "party1"
SETTINGS = Settings(threads=1, peer_timeout=5, round_timeout=20)


@pytest.fixture
async def site(tmp_path):
    async with opened(tmp_path, Security.SEMI_HONEST, settings=SETTINGS) as site:
        yield site


@pytest.fixture(params=[Security.SEMI_HONEST, pytest.param(Security.MALICIOUS, marks=pytest.mark.slow)], ids=str)
async def either(request, tmp_path):
    async with opened(tmp_path, request.param, settings=replace(SETTINGS, security=request.param)) as site:
        yield site


@pytest.fixture
def taken(monkeypatch):
    """Keys of items that workers are given, one for each run."""
    found, honest = [], Computing._take

    def take(self, message: Take, payload):
        if message.place is not None:
            found.append(message.place.key)
        honest(self, message, payload)

    monkeypatch.setattr(Computing, "_take", take)
    return found


async def shelved(site, tmp_path: Path, count: int = 2, **how) -> Shelving:
    """Everybody has workers, and the last party's have shelves."""
    await on_workers(site, "dealer", "party0", count=1)
    kind = partial(Shelving, folder=tmp_path / "shelves", **how)
    return (await on_workers(site, LAST, count=count, kind=kind))[LAST]


def ledger(site):
    return site.servers[LAST].material.ledger


def deep(client):
    """Many parts, where those are small, and its result."""
    values = np.linspace(-0.9, 0.9, 30)
    x = client.share(values, low=-1, high=1)
    for _ in range(4):
        x = (x * 0.9).relu() + x * 0.05
        values = np.maximum(0.9 * values, 0) + 0.05 * values
    return x, values


@pytest.mark.parametrize("together", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_from_shelves_each_item_once(either, tmp_path, in_parts, taken, together):
    site = either
    force = await shelved(site, tmp_path, together=together)
    async with site.client() as client:
        await client.stock(deep(client)[0], 4)
        assert len(force.lying()) == 4
        assert len(ledger(site).shelved.counts()) == (1 if together else 2), "all shelves have their part"
        on_disk = ledger(site).shelved.bytes_of("clinic")
        assert on_disk > 4 * 10_000
        assert ledger(site).held_by("clinic") < on_disk + 4 * 100, "the head has seed and key"
        for _ in range(4):
            x, values = deep(client)
            assert await client.reveal(x) == pytest.approx(values, abs=1e-3)
            assert client.last_run.from_stock
        assert ledger(site).held_by("clinic") == 0
        await right(client, from_stock=False)
    assert len(set(taken)) == len(taken) == 4
    await site.until(lambda: not force.lying())
    assert not site.servers[LAST]._engine.crew.at_work


async def test_stock_outlives_head_and_workers(site, tmp_path, in_parts, taken):
    await shelved(site, tmp_path)
    async with site.client() as client:
        await client.stock(deep(client)[0], 2)
        await site.restart(LAST)
        await all_there(site, LAST)
        for _ in range(2):
            x, values = deep(client)
            assert await client.reveal(x) == pytest.approx(values, abs=1e-3)
            assert client.last_run.from_stock
    assert len(set(taken)) == 2


async def test_one_run_alone_can_open_it(site, tmp_path, taken):
    """Copies of all that ever lay there, put back, are nobody's."""
    force = await shelved(site, tmp_path, count=1)
    async with site.client() as client:
        await client.stock(program(client), 1)
        (item,) = force.lying()
        shutil.copytree(item, tmp_path / "copy")
        await right(client, from_stock=True)
        await site.until(lambda: not force.lying())
        shutil.copytree(tmp_path / "copy", item)
        await right(client, from_stock=False)
        await site.restart(LAST)
        await all_there(site, LAST)
        # Swept, as nobody's.
        await site.until(lambda: not site.workforces[LAST].lying())
    assert len(taken) == 1


async def test_a_worker_that_ends_while_it_keeps_an_item(site, tmp_path, in_parts, monkeypatch):
    """It is dealt anew; nothing of it is left in the ledger, and what lies there is swept."""
    force = await shelved(site, tmp_path, count=1)
    honest, lost = Computing.hear, []

    def hear(self, message, payload):
        if isinstance(message, Keep) and message.piece == 1 and not lost:
            lost.append(message.run)
            force.tasks[0].cancel()
        else:
            honest(self, message, payload)

    monkeypatch.setattr(Computing, "hear", hear)
    async with site.client() as client:
        order = asyncio.create_task(client.stock(deep(client)[0], 1))
        await site.until(lambda: bool(lost))
        await order
        await all_there(site, LAST)
        x, values = deep(client)
        assert await client.reveal(x) == pytest.approx(values, abs=1e-3)
        assert client.last_run.from_stock
    await site.until(lambda: not force.lying())


@pytest.mark.parametrize("piece", [0, 1])
async def test_a_worker_that_ends_just_before_it_is_asked(site, tmp_path, in_parts, monkeypatch, piece):
    """While the head looks into its ledger: nobody waits for an answer of the one that is gone."""
    force = await shelved(site, tmp_path, count=1)
    loop, asked = asyncio.get_running_loop(), []
    crew, items = site.servers[LAST]._engine.crew, ledger(site).shelved
    honest, gone = items.bytes_of, threading.Event()

    def bytes_of(client, shelf=None):
        if shelf is not None:
            asked.append(shelf)
            if len(asked) == piece + 1:
                loop.call_soon_threadsafe(force.tasks[0].cancel)
                assert gone.wait(10)
        return honest(client, shelf)

    lose = crew._lose
    monkeypatch.setattr(crew, "_lose", lambda *which: lose(*which) or gone.set())
    monkeypatch.setattr(items, "bytes_of", bytes_of)
    async with site.client() as client:
        async with asyncio.timeout(10):
            await client.stock(deep(client)[0], 1)
        assert len(asked) > piece


async def test_a_worker_that_ends_when_it_has_been_given_the_key(site, tmp_path, monkeypatch, taken):
    force = await shelved(site, tmp_path, count=1)
    honest, lost = Computing.hear, []

    def hear(self, message, payload):
        honest(self, message, payload)
        if isinstance(message, Take) and self._post.me.name == LAST and not lost:
            lost.append(message.run)
            force.tasks[0].cancel()

    monkeypatch.setattr(Computing, "hear", hear)
    async with site.client() as client:
        await client.stock(program(client), 2)
        with pytest.raises(PeerLost, match=f"{LAST}.*run it again"):
            await right(client)
        assert ledger(site).stock().popitem()[1] == 1
        await all_there(site, LAST)
        await right(client, from_stock=True)
    assert len(set(taken)) == len(taken) == 2
    await site.until(lambda: not force.lying())


@pytest.mark.parametrize("where", [pytest.param("handed out", marks=pytest.mark.slow), "placed"])
async def test_a_head_that_ends_when_it_has_marked_the_item(site, tmp_path, monkeypatch, taken, where):
    """Before it says anything of it, or when a worker has it."""
    await shelved(site, tmp_path, count=1)
    server, reached = site.servers[LAST], asyncio.Event()

    async def stuck(*_):
        reached.set()
        await asyncio.sleep(3600)

    if where == "handed out":
        monkeypatch.setattr(server._engine, "_place", stuck)
    else:
        monkeypatch.setattr(Computing, "_prepare", stuck)
    async with site.client() as client:
        await client.stock(program(client), 1)
        running = asyncio.create_task(right(client))
        await reached.wait()
        monkeypatch.undo()
        await site.restart(LAST)
        with pytest.raises(PeerLost):
            await running
        await all_there(site, LAST)
        await site.settled()
        await right(client, from_stock=False)
    assert not ledger(site).stock() and not ledger(site).shelved.counts()


async def test_shelves_that_are_lost(site, tmp_path, monkeypatch):
    """What lay there counts no more, and runs go on with what there is elsewhere."""
    monkeypatch.setattr(shelving, "LOOKS", 0.05)
    force = await shelved(site, tmp_path)
    async with site.client() as client:
        await client.stock(program(client), 6)
        # One that wakes up with an empty disk, and is another shelf.
        monkeypatch.setattr(shelving, "GONE", 0.0)
        shutil.rmtree(tmp_path / "shelves" / "0")
        force.tasks[0].cancel()
        await site.until(lambda: len(site.servers[LAST].workers.runs) < 2)
        await all_there(site, LAST)
        await site.until(lambda: sum(site.servers["dealer"].stock.stock().values()) == 3)
        for _ in range(3):
            await right(client, from_stock=True)
        await right(client, from_stock=False)
        # And one whose pieces are not there any more.
        await client.stock(program(client), 2)
        for item in force.lying():
            shutil.rmtree(item)
        await site.until(lambda: not site.servers["dealer"].stock.stock())
        await right(client, from_stock=False)


async def test_two_looks_at_once(site, tmp_path, monkeypatch):
    """What is kept after the one has been answered, and before the other, is not lost."""
    force = await shelved(site, tmp_path, count=1)
    shelves = site.servers[LAST].material.shelves
    await site.until(lambda: not shelves._looking)
    (worker,) = site.servers[LAST]._engine.crew.workers.values()
    honest, answers = shelves._lying, []
    monkeypatch.setattr(site.servers[LAST]._engine.crew, "lying", lambda *answer: answers.append(answer))
    await shelves._look(worker)
    await site.until(lambda: bool(answers))
    async with site.client() as client:
        await client.stock(program(client), 1)
        await shelves._look(worker)
        honest(*answers[0])
        await asyncio.sleep(0.1)
        await right(client, from_stock=True)
    await site.until(lambda: not force.lying())


@pytest.mark.sampled(4)
@pytest.mark.parametrize("how", ["flipped", "shorter", "another's", "gone"])
async def test_pieces_that_are_not_what_was_kept(site, tmp_path, how):
    force = await shelved(site, tmp_path, count=1)
    async with site.client() as client:
        await client.stock(program(client), 2)
        first, second = (item / "0" for item in force.lying())
        kept = {path: path.read_bytes() for path in (first, second)}
        for path, other in ((first, second), (second, first)):
            content = bytearray(kept[path])
            if how == "flipped":
                content[len(content) // 2] ^= 1
                path.write_bytes(content)
            elif how == "shorter":
                path.write_bytes(content[:-1])
            elif how == "gone":
                path.unlink()
            else:
                path.write_bytes(kept[other])
        with pytest.raises(PeerLost, match=f"{LAST}.*has lost what was dealt"):
            await right(client)


async def test_without_a_shelf_the_head_keeps_it(site, tmp_path, caplog):
    (tmp_path / "shelves").mkdir(mode=0o755)
    await shelved(site, tmp_path, together=True)
    assert "can be read or written by others" in caplog.text
    async with site.client() as client:
        await client.stock(program(client), 1)
        assert ledger(site).stock() and not ledger(site).shelved.counts()
        await right(client, from_stock=True)
