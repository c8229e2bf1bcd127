"""Preprocessing ahead of time, through servers and clients: used first and once, refilled, and destroyed when due."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter, defaultdict
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from cheats import honest_again, other_sigma, wrong_sigma

from mpc.cost import cost
from mpc.errors import (
    MacCheckError,
    MaterialError,
    PeerLost,
    PeerUnavailable,
    ProgramError,
    ProtocolViolation,
    RemoteError,
    ServerBusy,
    UsageError,
)
from nn import Linear, Model, Sequential
from parties.messages.failures import fault_of
from parties.messages.runs import Failed, Opening, Outputs
from parties.messages.stock import Agreed, Spent, Stock, Stocked
from parties.stock import dealer_stock, material
from parties.stock.items import ItemId, State
from parties.stored.vault import VaultError
from parties.wire.messages import Message

from .stocked import program, right

PARTIES = ("party0", "party1")


OPENINGS = 3


def ledger(site, name):
    server = site.servers[name]
    return server.stock if name == "dealer" else server.material.ledger


def counts(site) -> list[int]:
    """Fresh items at the dealer and at each party."""
    return [sum(ledger(site, name).stock().values()) for name in ("dealer", *PARTIES)]


def uses(site) -> dict[str, dict]:
    """Which run used which item, at each."""
    return {
        name: {e.item: e.run for e in ledger(site, name).history() if e.state is State.USED}
        for name in ("dealer", *PARTIES)
    }


def once(site) -> None:
    """No item was used by two runs, and no run used two items, wherever one asks."""
    everywhere = uses(site)
    for name, used in everywhere.items():
        assert len(set(used.values())) == len(used), name
    for name in PARTIES:
        for item, run in everywhere[name].items():
            assert everywhere["party0"].get(item, run) == everywhere["party1"].get(item, run) == run


# -- filling and using -----------------------------------------------------------------------------------------------


async def test_what_is_in_stock_is_used_first(either):
    seen = []
    async with either.client() as client:
        await right(client, from_stock=False)
        demanded = client.last_run
        report = await client.stock(program(client), 3, progress=seen.append)
        assert [r.done for r in seen] == [r.in_stock for r in seen] == [1, 2, 3]
        assert report == seen[-1]
        predicted = cost(_program(client), 2, either.cluster.settings.security)
        assert report.bytes == 3 * sum(predicted.offline_dealer_bytes)
        assert all(a.bytes < b.bytes and a.seconds <= b.seconds for a, b in pairwise(seen))
        for left in (2, 1, 0):
            await right(client, from_stock=True)
            assert counts(either) == [left] * 3
            run = client.last_run
            assert (run.online.rounds, run.online.bytes) == (demanded.online.rounds, demanded.online.bytes)
            assert run.offline.bytes == demanded.offline.bytes == predicted.offline_bytes
        await right(client, from_stock=False)
    once(either)
    assert [len(used) for used in uses(either).values()] == [3, 3, 3]


def _program(client):
    return client._written(program(client)).program


async def test_another_program_is_not_served(strict):
    async with strict.client() as client, strict.client("company") as company:
        await client.stock(program(client), 1)
        x = client.share([0.5], low=-1, high=1)
        assert await client.reveal(x * x * x * x) == pytest.approx([0.0625], abs=1e-3)
        assert not client.last_run.from_stock
        x = client.share([0.5, 0.5], low=-1, high=0.75)
        await client.reveal(x * x * x * x)
        assert not client.last_run.from_stock
        assert counts(strict) == [1, 1, 1]
        # The same program is another one's when another client runs it.
        await right(company, from_stock=False)
        await right(client, from_stock=True)


async def test_nobody_uses_up_what_another_client_has_ordered(site):
    async with site.client() as client, site.client("company") as company:
        await client.stock(program(client), 3)
        for _ in range(6):
            await company.release(await company.prepare(program(company)))
        await site.settled()
        assert counts(site) == [3, 3, 3]
        for _ in range(3):
            await right(client, from_stock=True)
    once(site)


async def test_a_client_has_quotas_of_stock_and_others_have_theirs(site, monkeypatch):
    monkeypatch.setattr(dealer_stock, "MAX_ITEMS", 3)
    monkeypatch.setattr(dealer_stock, "MAX_TARGETS", 1)
    async with site.client() as client, site.client("company") as company:
        await client.stock(program(client), 3, low_water=1)
        with pytest.raises(ServerBusy, match="clinic has 3 items in stock, and may have no more: use some"):
            await client.stock(program(client), 1)
        for other in (client.share([0.5], low=-1, high=1) * 2,):
            with pytest.raises(ServerBusy, match="the stock of 1 programs is kept up for clinic"):
                await client.stock(other, 1, low_water=1)
        await company.stock(program(company), 2, low_water=1)
        await right(client, from_stock=True)
        await right(company, from_stock=True)


@pytest.mark.parametrize("where", [*PARTIES, "dealer"])
async def test_a_client_does_not_fill_a_disk_with_stock(site, monkeypatch, where):
    """It may have as much as it leaves."""
    asked = []

    def check(folder, server, more, client, held):
        asked.append((server, client))
        if server == where and client == "clinic" and held:
            raise ServerBusy(server, "no more")

    monkeypatch.setattr(dealer_stock, "check_part", check)
    monkeypatch.setattr(material, "check_part", check)
    async with site.client() as client, site.client("company") as company:
        with pytest.raises(ServerBusy, match="no more"):
            await client.stock(program(client), 2)
        await company.stock(program(company), 2)
        await right(client, from_stock=True)
    assert {(server, client) for server, client in asked} == {
        (server, client) for server in ("dealer", *PARTIES) for client in ("clinic", "company")
    }


async def test_what_cannot_be_asked_for(site):
    async with site.client() as client:
        for count, low_water in ((0, 0), (1_000_001, 0), (2, 3), (2, -1)):
            with pytest.raises(UsageError, match="count is 1 to"):
                await client.stock(program(client), count, low_water=low_water)
        board = client._board
        request = "12" * 16
        with board.conversation(request, ["dealer"]) as conversation:
            board.send("dealer", Stock(request=request, count=1, low_water=0), [b"no program"])
            with pytest.raises(Exception, match="program"):
                await conversation.take(Stocked, ["dealer"], 2)
        with board.conversation(request, ["dealer"]) as conversation:
            board.send("dealer", Stock(request=request, count=1, low_water=2), [_program(client).encode()])
            with pytest.raises(Exception, match="low-water mark"):
                await conversation.take(Stocked, ["dealer"], 2)
        await right(client, from_stock=False)


async def test_refilled_below_the_low_water_mark(strict):
    async with strict.client() as client:
        await client.stock(program(client), 3, low_water=2)
        await right(client, from_stock=True)
        await asyncio.sleep(0.1)
        assert counts(strict) == [2, 2, 2]
        await right(client, from_stock=True)
        await strict.until(lambda: counts(strict) == [3, 3, 3])
        # The mark outlives the dealer.
        await strict.restart("dealer")
        for _ in range(2):
            await right(client, from_stock=True)
        await strict.until(lambda: counts(strict) == [3, 3, 3])
    once(strict)


async def test_two_clients_drain_one_stock(strict):
    async with strict.client() as clinic, strict.client("company") as company:
        await asyncio.gather(clinic.stock(program(clinic), 6), company.stock(program(company), 6))
        assert counts(strict) == [12, 12, 12]
        served = []

        async def drain(client):
            for _ in range(8):
                result = await client.reveal(program(client))
                assert np.abs(result - np.array([0.5, -0.25]) ** 4).max() < 1e-3
                served.append(client.last_run.from_stock)

        await asyncio.gather(drain(clinic), drain(company))
    assert Counter(served) == {True: 12, False: 4}
    assert counts(strict) == [0, 0, 0]
    assert len(uses(strict)["party0"]) == 12
    assert uses(strict)["party0"] == uses(strict)["party1"] == uses(strict)["dealer"]
    once(strict)


@pytest.mark.parametrize("names", [("party0",), ("dealer",), ("dealer", "party0", "party1")])
async def test_stock_outlives_restarts(strict, names):
    async with strict.client() as client:
        await client.stock(program(client), 2)
    await strict.restart(*names)
    async with strict.client() as client:
        await right(client, from_stock=True)
        assert counts(strict) == [1, 1, 1]
        report = await client.stock(program(client), 1)
        assert report.in_stock == 2
        await right(client, from_stock=True)
    once(strict)


def model(scale: float) -> Model:
    architecture = Sequential({"out": Linear(2, 2)}).architecture((2,))
    return Model(architecture, {n: np.full(s, scale) for n, s in architecture.parameters.items()})


async def test_a_model_s_stock_goes_with_it(strict):
    async with strict.client() as client:
        await client.stock(program(client), 1)
        former = await client.upload(model(0.5), "m")
        x = client.share([[0.5, -0.25]], low=-1, high=1)
        await client.stock(former(x), 2, low_water=1)
        await client.reveal(former(x))
        assert client.last_run.from_stock
        assert counts(strict) == [2, 2, 2]
        found = await client.upload(model(0.25), "m")
        await strict.until(lambda: counts(strict) == [1, 1, 1])
        assert list(ledger(strict, "dealer").targets()) == []
        assert await client.reveal(found(x)) == pytest.approx(model(0.25).plain(np.array([[0.5, -0.25]])), abs=1e-3)
        assert not client.last_run.from_stock
        await right(client, from_stock=True)


# -- what goes wrong on the way --------------------------------------------------------------------------------------


async def test_a_party_that_is_down_while_stocking(strict):
    async with strict.client() as client:
        await client.stock(program(client), 1)
        await strict.stop("party1")
        with pytest.raises((PeerLost, PeerUnavailable)) as caught:
            await client.stock(program(client), 2)
        assert caught.value.peer == "party1"
        await strict.start("party1")
        report = await client.stock(program(client), 2)
        assert report.in_stock == 3
        for _ in range(3):
            await right(client, from_stock=True)
    once(strict)


async def test_a_party_that_says_nothing_while_stocking(strict):
    async with strict.client() as client:
        strict.corrupt("party0", Stocked, lambda message, buffers: [])
        with pytest.raises(PeerLost, match="stored no preprocessing") as caught:
            await client.stock(program(client), 2)
        assert caught.value.peer == "party0"
        strict.restore("party0")
        await right(client, from_stock=False)
        assert (await client.stock(program(client), 1)).in_stock == 1
        await right(client, from_stock=True)
    once(strict)


async def test_a_failed_attempt_does_not_count_as_stock(strict):
    async with strict.client() as client:
        await client.stock(program(client), 1, low_water=1)
        strict.corrupt("party0", Stocked, lambda message, buffers: [])
        with pytest.raises(PeerLost):
            await client.stock(program(client), 1)
        strict.restore("party0")
        await right(client, from_stock=True)
        await strict.until(lambda: counts(strict)[0] == 1)


async def test_a_party_that_cannot_store(strict, monkeypatch):
    def full(*_, **__):
        raise VaultError("the disk is full")

    async with strict.client() as client:
        monkeypatch.setattr(ledger(strict, "party1"), "add", full)
        with pytest.raises(RemoteError, match="disk is full") as caught:
            await client.stock(program(client), 1)
        assert caught.value.peer == "party1"
        monkeypatch.undo()
        assert (await client.stock(program(client), 1)).in_stock == 1


async def test_parts_that_cannot_be_read(strict, monkeypatch):
    """The item is gone, here and everywhere; the next run has the next."""
    async with strict.client() as client:
        await client.stock(program(client), 2)
        take = ledger(strict, "party0").take

        def damaged(*arguments):
            take(*arguments)
            raise VaultError("not authentic")

        monkeypatch.setattr(ledger(strict, "party0"), "take", damaged)
        with pytest.raises(RemoteError, match="not authentic") as caught:
            await client.reveal(program(client))
        assert caught.value.peer == "party0"
        monkeypatch.undo()
        await right(client, from_stock=True)
        await right(client, from_stock=False)
    once(strict)


async def test_parties_that_were_assigned_different_items(site):
    """A lie, or a dealer's mistake: nobody is ready before all have named the same, to each other and to the dealer."""
    async with site.client() as client:
        await client.stock(program(client), 4)
        site.corrupt("party1", Agreed, lambda m, b: [(msgspec.structs.replace(m, number=m.number + 1), b)])
        with pytest.raises((MaterialError, ProtocolViolation), match=r"different preprocessing|other preprocessing"):
            await client.reveal(program(client))
        site.restore("party1")
        assert counts(site) == [3, 3, 3]
        await right(client, from_stock=False)
        await site.restart("dealer")
        await right(client, from_stock=True)
    once(site)


# -- after a failed check --------------------------------------------------------------------------------------------


async def check_fails(site, client) -> None:
    with pytest.raises(MacCheckError):
        await client.reveal(program(client))
    await site.settled()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("cheat", PARTIES)
async def test_a_failed_check_destroys_all_of_the_session(strict, cheat, passes):
    """Also when only the honest party's check fails: the cheat's own had passed, and it is told."""
    async with strict.client() as client, strict.client("company") as company:
        await client.stock(program(client), 3, low_water=1)
        await company.stock(company.share([0.5], low=-1, high=1) * 2, 1)
        session = ledger(strict, "dealer").session
        other_sigma(strict, cheat, OPENINGS) if passes else wrong_sigma(strict, cheat)
        await check_fails(strict, client)
        await strict.until(lambda: ledger(strict, "dealer").session != session and counts(strict) == [0, 0, 0])
        honest_again(strict, cheat)
        for name in ("dealer", *PARTIES):
            entries = list(ledger(strict, name).history())
            assert {e.item.session for e in entries} == {session}
            assert Counter(e.state for e in entries) == {State.USED: 1, State.DISCARDED: 3}
        await right(client, from_stock=False)
        await client.stock(program(client), 1)
        await right(client, from_stock=True)
        assert {item.session for item in uses(strict)["party0"]} > {session}
    once(strict)


async def test_what_only_the_client_notices_destroys_nothing(strict):
    """The key was told when the parties' check had passed, and goes for this run alone."""
    async with strict.client() as client:
        await client.stock(program(client), 2)

        def other(message, buffers):
            return [(message, [np.asarray(buffers[0]) ^ np.uint64(1), *buffers[1:]])]

        strict.corrupt("party1", Outputs, other)
        await check_fails(strict, client)
        strict.restore("party1")
        await asyncio.sleep(0.1)
        assert counts(strict) == [1, 1, 1]
        await right(client, from_stock=True)
    once(strict)


async def test_a_client_s_word_destroys_nothing(strict, monkeypatch):
    """What servers prove is looked into, at a cost of signatures; of what a client says nothing is."""
    heard = []
    for server in strict.servers.values():
        monkeypatch.setattr(server.proofs, "take", lambda evidence, source: heard.append(source.name))
    async with strict.client() as client, strict.client("company") as company:
        await client.stock(program(client), 2)
        prepared = await company.prepare(program(company))
        company._board.tell(Failed(run=prepared.run, fault=fault_of(MacCheckError("a lie"))))
        await strict.settled()
        other = await client.prepare(client.share([0.5], low=-1, high=1) * 2)
        for run in (other.run, "0" * 32):
            company._board.tell(Failed(run=run, fault=fault_of(MacCheckError("a lie"))))
        await asyncio.sleep(0.1)
        assert await client.finish(other) == pytest.approx([1.0], abs=1e-3)
        assert counts(strict) == [2, 2, 2]
    assert not {"clinic", "company"} & set(heard)


async def test_without_macs_no_word_destroys_anything(site):
    async with site.client() as client:
        await client.stock(program(client), 1)
        prepared = await client.prepare(client.share([0.5], low=-1, high=1) * 2)
        site.servers["party1"].endpoint.send("party0", Failed(run=prepared.run, fault=fault_of(MacCheckError("a lie"))))
        await site.until(lambda: not site.servers["party0"].jobs)
        await client.release(prepared)
        await site.settled()
        assert counts(site) == [1, 1, 1]


async def test_a_dealer_that_is_down_when_a_check_fails(strict):
    """It has fresh items that nobody else has: refused at first, and skipped; then it begins a new session."""
    async with strict.client() as client:
        await client.stock(program(client), 3)
        wrong_sigma(strict, "party1")
        prepared = await client.prepare(program(client))
        await strict.stop("dealer")
        with pytest.raises(MacCheckError):
            await client.finish(prepared)
        honest_again(strict, "party1")
        await strict.until(lambda: not any(ledger(strict, party).stock() for party in PARTIES))
        await strict.start("dealer")
        session = ledger(strict, "dealer").session
        await right(client, from_stock=False)
        assert counts(strict) == [0, 0, 0]
        assert (await client.stock(program(client), 1)).in_stock == 1
        assert ledger(strict, "dealer").session != session
        await right(client, from_stock=True)
    once(strict)


# -- old files -------------------------------------------------------------------------------------------------------


async def copied(site, *names) -> None:
    await site.stop(*names)
    for name in names:
        shutil.copytree(site.data(name), site.folder / f"{name}.copy")
    await site.start(*names)


async def put_back(site, *names) -> None:
    await site.stop(*names)
    for name in names:
        shutil.rmtree(site.data(name))
        (site.folder / f"{name}.copy").rename(site.data(name))
    await site.start(*names)


class Wire:
    """Which run sent openings or outputs made with which item."""

    def __init__(self) -> None:
        self.runs: dict[ItemId, set[str]] = defaultdict(set)

    def listen(self, site) -> None:
        for name in PARTIES:
            jobs = site.servers[name].jobs

            def note(message, buffers, jobs=jobs):
                if isinstance(message, Opening | Outputs):
                    dealt = jobs[message.run].dealt[0]
                    if dealt.number:
                        self.runs[ItemId(dealt.session, dealt.number)].add(message.run)
                return [(message, buffers)]

            site.corrupt(name, Message, note)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("names", "spent"),
    [(["party0"], 3), (["dealer"], 1), (["dealer"], 4), (["dealer", "party1"], 1), (["dealer", "party1"], 4)],
)
async def test_old_files_bring_no_second_use(strict, names, spent):
    """Of 4 items some are spent; then the files of before are put back."""
    wire = Wire()
    async with strict.client() as client:
        await client.stock(program(client), 4)
    await copied(strict, *names)
    wire.listen(strict)
    async with strict.client() as client:
        for _ in range(spent):
            await right(client, from_stock=True)
    await put_back(strict, *names)
    wire.listen(strict)
    async with strict.client() as client:
        for _ in range(5):
            assert np.abs(await client.reveal(program(client)) - np.array([0.5, -0.25]) ** 4).max() < 1e-3
        # Numbers that a party has seen are not dealt for again.
        assert (await client.stock(program(client), 2)).done == 2
        await right(client, from_stock=True)
        await right(client, from_stock=True)
        await right(client, from_stock=False)
    assert all(len(runs) == 1 for runs in wire.runs.values())
    assert len(wire.runs) >= spent + 2
    # Where nothing was put back, nothing was taken twice strict, sent or not.
    kept = next(name for name in PARTIES if name not in names)
    taken = {item: {run} for item, run in uses(strict)[kept].items()}
    assert taken.items() >= wire.runs.items()


async def test_a_party_tells_the_dealer_where_its_ledger_stands(site):
    async with site.client() as client:
        await client.stock(program(client), 4)
        await copied(site, "dealer")
        for _ in range(3):
            await right(client, from_stock=True)
        await put_back(site, "dealer")
        heard = []
        # Whichever comes to it first: the other one then hears that the run has failed.
        for party in PARTIES:
            site.corrupt(party, Spent, lambda m, b: [(heard.append(m) or m, b)])
        await right(client, from_stock=True)
        assert [(m.number, m.position) for m in heard][:1] == [(1, 4)]
        assert counts(site) == [0, 0, 0]


async def test_a_client_that_waits_for_its_turn_is_patient(strict, monkeypatch):
    """The other's order takes longer than a client waits for an answer, and it is told that it is not forgotten."""
    stocker = strict.servers["dealer"].stocking.stocker
    deal = stocker._deal

    async def slow(client, program, link):
        await asyncio.sleep(0.4)
        return await deal(client, program, link)

    monkeypatch.setattr(stocker, "_deal", slow)
    async with strict.client() as clinic, strict.client("company") as company:
        reports = await asyncio.gather(clinic.stock(program(clinic), 10), company.stock(program(company), 1))
    assert sorted(report.done for report in reports) == [1, 10]


async def test_a_dealer_that_was_restarted_before_a_check_fails(strict):
    async with strict.client() as client:
        await client.stock(program(client), 3)
        wrong_sigma(strict, "party1")
        prepared = await client.prepare(program(client))
        await strict.restart("dealer")
        session = ledger(strict, "dealer").session
        dealer = strict.servers["dealer"].endpoint
        await dealer.connect(PARTIES, 20)
        with pytest.raises(MacCheckError):
            await client.finish(prepared)
        await strict.until(lambda: ledger(strict, "dealer").session != session and counts(strict) == [0, 0, 0])


async def test_a_failure_that_one_party_alone_is_told_reaches_the_client(site):
    async with site.client() as client:
        prepared = await client.prepare(client.share([0.5], low=-1, high=1) * 2)
        site.servers["party1"].endpoint.send("party0", Failed(run=prepared.run, fault=fault_of(ProgramError("a lie"))))
        await site.until(lambda: not site.servers["party0"].jobs)
        with pytest.raises(ProgramError, match="a lie"):
            await client.finish(prepared)
