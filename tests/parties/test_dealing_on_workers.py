"""A dealer's work on workers: the same bits, of seeds that nothing else is made of, whoever is lost meanwhile."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.session import as_predicted
from mpc.errors import PeerError, PeerLost, ProgramError, ServerBusy
from mpc.rings.prg import SEED_BYTES
from mpc.security import Security
from nn import Linear, Model, Sequential
from parties import Settings
from parties.messages.runs import Dealt, DealtPart, Source
from parties.messages.stock import StockItem
from parties.messages.workers import Deal
from parties.stock.collecting import Collecting
from parties.wire.direct import DirectLink
from parties.worker.dealing import DealingWork

from .conftest import opened
from .stocked import program, right
from .workforces import Machines, all_there, on_workers

DEALER = "dealer"

# Nobody is at fault who takes long on a busy machine.
SETTINGS = Settings(threads=1, peer_timeout=5, round_timeout=20)


@pytest.fixture
async def site(tmp_path):
    async with opened(tmp_path, Security.SEMI_HONEST, settings=SETTINGS) as site:
        yield site


@pytest.fixture(params=[Security.SEMI_HONEST, Security.MALICIOUS], ids=str)
async def either(request, tmp_path):
    async with opened(tmp_path, request.param, settings=replace(SETTINGS, security=request.param)) as site:
        yield site


def deep(client):
    """Many parts, where those are small, and its result."""
    values = np.linspace(-0.9, 0.9, 30)
    x = client.share(values, low=-1, high=1)
    for _ in range(4):
        x = (x * 0.9).relu() + x * 0.05
        values = np.maximum(0.9 * values, 0) + 0.05 * values
    return x, values


@pytest.fixture
def dealt(monkeypatch):
    """Seeds that workers are given, by the number of their dealing."""
    found, honest = [], DealingWork.hear

    def hear(self, message, payload):
        if isinstance(message, Deal):
            found.append(bytes(payload[1]))
        honest(self, message, payload)

    monkeypatch.setattr(DealingWork, "hear", hear)
    return found


async def test_the_same_results_and_bytes(either, in_parts, dealt):
    site = either
    await on_workers(site, DEALER)
    async with site.client() as client:
        for _ in range(3):
            await right(client, from_stock=False)
            assert as_predicted(client.last_run)
        x, values = deep(client)
        assert await client.reveal(x) == pytest.approx(values, abs=1e-3)
        assert as_predicted(client.last_run)
        # What a run keeps has its masks from these seeds, which the head remembers.
        kept = await client.keep({"cube": client.share([0.5, -0.25], low=-1, high=1) ** 3}, "result")
        assert await client.reveal(kept["cube"] * 2) == pytest.approx([0.25, -0.03125], abs=1e-3)
    await site.settled()
    assert len(set(dealt)) == len(dealt) == 6, "each is dealt of seeds of its own"
    await site.until(lambda: not site.servers[DEALER]._engine.crew.at_work)


async def test_stock_is_dealt_on_all_of_them(either, dealt):
    site = either
    await on_workers(site, DEALER, count=3)
    async with site.client() as client:
        await client.stock(program(client), 5)
        assert len(set(dealt)) == len(dealt) == 5
        for _ in range(5):
            await right(client, from_stock=True)
    assert len(dealt) == 5
    await site.until(lambda: not site.servers[DEALER]._engine.crew.at_work)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("where", [(DEALER,), (DEALER, "party0", "party1")])
async def test_what_is_dealt_for_a_run_goes_past_the_dealer(either, in_parts, where):
    """To the last party, or to its worker."""
    site = either
    await on_workers(site, *where, count=1)
    sent = []
    site.corrupt(DEALER, Dealt | DealtPart, lambda m, b: sent.append(sum(map(len, b))) or [(m, b)])
    async with site.client() as client:
        x, values = deep(client)
        assert await client.reveal(x) == pytest.approx(values, abs=1e-3)
        assert as_predicted(client.last_run)
    assert len(sent) > 4, "there are several parts"
    assert sum(sent) == 2 * SEED_BYTES
    await site.until(lambda: not site.servers[DEALER]._engine.crew.at_work)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("where", [(DEALER,), (DEALER, "party0", "party1")])
async def test_what_is_dealt_ahead_goes_past_the_dealer(site, in_parts, where):
    await on_workers(site, *where)
    sent = []
    site.corrupt(DEALER, StockItem, lambda m, b: sent.append(sum(map(len, b))) or [(m, b)])
    async with site.client() as client:
        x, values = deep(client)
        await client.stock(x, 2)
        for _ in range(2):
            assert await client.reveal(deep(client)[0]) == pytest.approx(values, abs=1e-3)
            assert client.last_run.from_stock
            assert as_predicted(client.last_run)
    assert len(sent) > 8, "there are several parts"
    assert sum(sent) == 2 * 2 * SEED_BYTES
    await site.until(lambda: not site.servers[DEALER]._engine.crew.at_work)


@pytest.mark.parametrize("piece", [0, 1])
async def test_stock_that_is_lost_with_a_worker_is_dealt_anew(site, in_parts, dealt, piece):
    """When its party has had none of it, or some; and so are others that were made there."""
    forces = await on_workers(site, DEALER, count=1)
    lost = []

    def lose(message, buffers):
        if message.piece == piece and not lost:
            lost.append(message)
            forces[DEALER].tasks[0].cancel()
        return [(message, buffers)]

    site.corrupt(DEALER, StockItem, lose)
    async with site.client() as client:
        await client.stock(deep(client)[0], 2)
        for _ in range(2):
            x, values = deep(client)
            assert await client.reveal(x) == pytest.approx(values, abs=1e-3)
            assert client.last_run.from_stock
    assert len(set(dealt)) == len(dealt) > 2, "of other seeds"
    assert not site.servers["party1"].material.ledger.stock(), "nothing is left of it"


@pytest.mark.parametrize("what", ["party", "secret", "size", "beside"])
async def test_what_a_dealer_may_not_say_of_stock(site, what):
    await on_workers(site, DEALER, count=1)
    source = Source(site.servers["party0"].member.address, bytes(16), bytes(32))
    lies = {
        "party": lambda m, b: [(replace(m, source=source), b)],
        "secret": lambda m, b: [(m if m.source is None else replace(m, source=replace(m.source, secret=bytes(32))), b)],
        "size": lambda m, b: [(m if m.source is None else replace(m, collected=m.collected + 8), b)],
        "beside": lambda m, b: [(replace(m, source=None), b)],
    }
    site.corrupt(DEALER, StockItem, lies[what])
    async with site.client() as client:
        with pytest.raises(PeerError, match="dealer"):
            await client.stock(program(client), 1)
            # That something is missing is seen when it is used: a ledger does not know programs.
            await right(client, from_stock=True)
        site.restore(DEALER)
        await right(client)
    await site.settled()


@pytest.mark.parametrize("what", ["comes", "reads"])
async def test_what_nobody_collects_is_not_kept(tmp_path, monkeypatch, what):
    """The last party is gone before it comes, or comes and reads nothing."""
    settings = replace(SETTINGS, round_timeout=1)
    async with opened(tmp_path, Security.SEMI_HONEST, settings=settings) as site:
        forces = await on_workers(site, DEALER, count=1)
        never, honest = asyncio.Event(), DirectLink.flush
        if what == "comes":
            monkeypatch.setattr(Collecting, "_dial", lambda self: never.wait())
        else:
            monkeypatch.setattr(Collecting, "_received", lambda self, link, size: never.wait())
            # What is small goes into buffers of the kernel.
            monkeypatch.setattr(DirectLink, "flush", lambda s: never.wait() if s.peer == "party1" else honest(s))
        work = forces[DEALER].workers[0].does
        async with site.client() as client:
            with pytest.raises(PeerLost, match="dealer"):
                await client.reveal(program(client))
            assert work._dealings
            await site.until(lambda: not work._dealings and not site.servers[DEALER]._engine.crew.at_work)
            assert not work._post.doors._doors


@pytest.mark.parametrize("what", ["party", "secret", "door", "both"])
async def test_what_a_dealer_may_not_say_of_its_worker(site, in_parts, what):
    await on_workers(site, DEALER, count=1)
    source = Source(site.servers["party0"].member.address, bytes(16), bytes(32))
    lies = {
        "party": lambda m, b: [(replace(m, source=source), b)],
        "secret": lambda m, b: [(m if m.source is None else replace(m, source=replace(m.source, secret=bytes(32))), b)],
        "door": lambda m, b: [(m if m.source is None else replace(m, source=replace(m.source, door=bytes(16))), b)],
        "both": lambda m, b: [(m, b if m.source is None else [*b, bytes(8)])],
    }
    site.corrupt(DEALER, Dealt, lies[what])
    async with site.client() as client:
        with pytest.raises(PeerError, match="dealer"):
            await client.reveal(deep(client)[0])
        site.restore(DEALER)
        await right(client)
    await site.settled()


async def test_masks_of_a_model_are_there_once_and_overwritten_when_dropped(site):
    forces = await on_workers(site, DEALER, count=1)
    work = forces[DEALER].workers[0].does
    async with site.client("company") as company:
        layer = Sequential({"a": Linear(2, 1)}).architecture((2,))
        held = await company.upload(Model(layer, {"a.weight": np.array([[0.5, 0.25]]), "a.bias": np.zeros(1)}), "m")
        for _ in range(2):
            result = await company.reveal(held(company.share([[1.0, 1.0]], low=-1, high=1)))
            assert result == pytest.approx(0.75, abs=1e-3)
        (masks,) = work.held.values()
        mask = masks._masks["a.weight"]
        assert mask.any()
        assert not any(each.made for each in site.servers[DEALER]._coordinator.stored.values()), "not at the head"
        await company.remove("m")
        await site.until(lambda: not work.held)
    assert not mask.any() and not masks.made


@pytest.mark.parametrize("count", [1, 2])
async def test_one_that_is_lost_before_anything_has_left_is_dealt_for_anew(either, dealt, monkeypatch, count):
    site = either
    forces = await on_workers(site, DEALER, count=count)
    stuck, honest = asyncio.get_running_loop().create_future(), DealingWork._begin

    async def begin(self, dealing, payload):
        stuck.set_result(self)
        await asyncio.sleep(3600)

    monkeypatch.setattr(DealingWork, "_begin", begin)
    async with site.client() as client:
        running = asyncio.create_task(right(client))
        at_it = await stuck
        monkeypatch.setattr(DealingWork, "_begin", honest)
        (number,) = (number for number, worker in forces[DEALER].workers.items() if worker.does is at_it)
        forces[DEALER].tasks[number].cancel()
        await running
    assert len(set(dealt)) == len(dealt) == 2, "of other seeds"
    await site.settled()


async def test_one_that_is_lost_in_the_middle_ends_the_run(site, in_parts):
    forces = await on_workers(site, DEALER, count=1)
    async with site.client() as client:
        x, values = deep(client)
        prepared = await client.prepare(x)
        forces[DEALER].tasks[0].cancel()
        await site.until(lambda: not site.servers[DEALER].workers.runs)
        with pytest.raises(PeerLost, match=r"dealer: .*run it again"):
            await client.finish(prepared)
        await all_there(site, DEALER)
        assert await client.reveal(deep(client)[0]) == pytest.approx(values, abs=1e-3)
    await site.settled()


async def test_without_a_worker_runs_are_refused_and_orders_wait(site):
    machines = (await on_workers(site, DEALER, count=1, kind=Machines))[DEALER]
    machines.leave()
    await site.until(lambda: not site.servers[DEALER].workers.runs)
    async with site.client() as client:
        with pytest.raises(ServerBusy, match="dealer: has none of its workers"):
            await right(client)
        order = asyncio.create_task(client.stock(program(client), 2))
        await asyncio.sleep(0.1)
        assert not order.done()
        machines.join()
        await order
        await right(client, from_stock=True)


async def test_a_version_that_goes_in_the_middle(site, in_parts):
    """Nothing more is made of its masks; whoever was dealt for hears why."""
    forces = await on_workers(site, DEALER, count=1)
    async with site.client("company") as company:
        layer = Sequential({"a": Linear(2, 2)}).architecture((2,))
        held = await company.upload(Model(layer, {"a.weight": np.eye(2), "a.bias": np.zeros(2)}), "m")
        x = held(company.share([[1.0, 1.0]] * 20, low=-1, high=1))
        for _ in range(4):
            x = (x * 0.9).relu()
        prepared = await company.prepare(x)
        assert forces[DEALER].workers[0].does._dealings
        await company.remove("m")
        with pytest.raises(ProgramError, match="not in use"):
            await company.finish(prepared)
    await site.until(lambda: not forces[DEALER].workers[0].does._dealings)
