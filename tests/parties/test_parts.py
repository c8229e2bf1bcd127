"""A large program is dealt in parts, beside the online phase: bounded, in order, and whatever goes wrong has a name."""

from __future__ import annotations

import asyncio
import itertools
import secrets

import numpy as np
import pytest
from msgspec.structs import replace

from benchmarks.session import as_predicted
from mpc.errors import PeerError, PeerLost, ProtocolViolation, TesseraError
from parties.messages.runs import DealtPart, Evaluated, Opening, Prepare
from parties.messages.stock import StockItem

pytestmark = pytest.mark.usefixtures("in_parts")

VALUES = np.linspace(-0.9, 0.9, 30)


def deep(client, layers=6):
    x = client.share(VALUES, low=-1, high=1)
    for _ in range(layers):
        x = (x * 0.9).relu() + x * 0.05
    return x


def meant(layers=6):
    y = VALUES
    for _ in range(layers):
        y = np.maximum(0.9 * y, 0) + 0.05 * y
    return pytest.approx(y, abs=1e-3)


def listen(site, server, kind, heard):
    site.corrupt(server, kind, lambda m, b: heard.append(m) or [(m, b)])


async def works(site):
    async with site.client() as client:
        assert await client.reveal(deep(client)) == meant()
        assert as_predicted(client.last_run)
    await site.settled()


@pytest.mark.parametrize("soon", [False, True])
async def test_dealt_beside_the_online_phase(site, soon):
    parts, said = [], []
    async with site.client() as client:
        listen(site, "dealer", DealtPart, parts)
        listen(site, "party1", Evaluated, said)
        prepared = await client.prepare(deep(client), soon=soon)
        plan = prepared.program.schedule(site.cluster.settings.security)
        job = site.servers["party1"].jobs[prepared.run]
        assert job.ready
        if not soon:
            await site.until(lambda: job.party_run.prepared == job.dealt_parts == plan.allowed(0))
        assert len(plan.parts) > plan.allowed(0) > 2
        await site.until(lambda: len(parts) == plan.allowed(0) - 1)
        assert not said
        assert await client.finish(prepared) == meant()
        assert [m.part for m in parts] == list(range(1, len(plan.parts)))
        assert as_predicted(client.last_run)
        assert said
        assert all(a.depths < b.depths for a, b in itertools.pairwise(said))
    await site.settled()


async def test_with_macs_and_three_parties(strict3):
    """The check covers all parts, which come while rounds are opened."""
    await works(strict3)
    said = []
    async with strict3.client() as client:
        listen(strict3, "party2", Evaluated, said)
        assert await client.reveal(deep(client, 10)) == meant(10)
        assert as_predicted(client.last_run)
    assert len(said) > 3


async def test_nobody_holds_more_than_may_be_there(site):
    """Of the last party what is dealt, of the others what is prepared, of the dealer what is made."""
    beyond = []

    def look():
        for name, server in site.servers.items():
            for job in server.jobs.values():
                if name != "dealer" and job.party_run is not None:
                    run = job.party_run
                    beyond.append(max(run.prepared, job.dealt_parts) - run.schedule.allowed(run.evaluated))

    async with site.client() as client:
        for kind, server in ((DealtPart, "dealer"), (Opening, "party0"), (Evaluated, "party1")):
            site.corrupt(server, kind, lambda m, b: look() or [(m, b)])
        assert await client.reveal(deep(client, 10)) == meant(10)
    assert max(beyond) <= 0
    assert len(beyond) > 10
    await site.settled()


def other(change):
    """What ``change(message, buffers)`` makes of the second part alone."""
    return lambda m, b: change(m, b) if m.part == 2 else [(m, b)]


OTHERS = {
    "repeated": (other(lambda m, b: [(m, b), (m, b)]), "dealt part 2 of a run, where 3 is due"),
    "missing": (other(lambda m, b: []), "part 3 of a run, where 2 is due"),
    "out of order": (other(lambda m, b: [(replace(m, part=3), b)]), "part 3 of a run, where 2 is due"),
    "far ahead": (other(lambda m, b: [(replace(m, part=2**31 - 1), b)]), "where 2 is due"),
    "empty": (other(lambda m, b: [(m, [])]), "not as long as"),
    "short": (other(lambda m, b: [(m, [bytes(b[0])[:-8], *b[1:]])]), "not as long as"),
    "long": (other(lambda m, b: [(m, [*b, bytes(8)])]), "not as long as"),
    "cut elsewhere": (other(lambda m, b: [(m, [b"".join(map(bytes, b))])]), "corrections, but the program needs"),
    "no elements": (other(lambda m, b: [(m, [b"\xff" * len(bytes(c)) for c in b])]), "outside the"),
    "of another run": (other(lambda m, b: [(replace(m, run=secrets.token_hex(16)), b)]), "dealer"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", OTHERS)
async def test_a_part_that_is_not_what_is_due(site, name):
    change, sentence = OTHERS[name]
    async with site.client() as client:
        site.corrupt("dealer", DealtPart, change)
        with pytest.raises(PeerError if name == "of another run" else ProtocolViolation, match=sentence) as caught:
            await client.reveal(deep(client))
        assert caught.value.peer == "dealer"
        site.restore("dealer")
        await site.settled()
    await works(site)


async def test_more_parts_at_a_time_than_may_be_there(site):
    """By a dealer that does not wait to hear how far the parties are."""
    async with site.client() as client:
        prepared = await client.prepare(deep(client))
        job = site.servers["dealer"].jobs[prepared.run]
        message = DealtPart(run=prepared.run, part=job.parts, seconds=0.0)
        part = next(job.dealing.parts)
        site.servers["dealer"].endpoint.send("party1", message, list(part))
        with pytest.raises(ProtocolViolation, match="more of a run than may be there at a time") as caught:
            await client.finish(prepared)
        assert caught.value.peer == "dealer"
        await site.settled()
    await works(site)


@pytest.mark.parametrize("to", ["party0", "party1"])
async def test_a_part_for_whom_nothing_is_dealt(site, to):
    """Party 0 expands its seed; of a program of one part, or of no run, there is none to come."""
    async with site.client() as client:
        small = await client.prepare(client.share([0.5], low=-1, high=1) * 2)
        site.servers["dealer"].endpoint.send(to, DealtPart(run=small.run, part=1, seconds=0.0), [bytes(8)])
        with pytest.raises(ProtocolViolation, match="dealt ") as caught:
            await client.finish(small)
        assert caught.value.peer == "dealer"
        await site.settled()
    await works(site)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("when", ["a part is dealt", "openings have been sent"])
@pytest.mark.parametrize("how", ["stops", "is silent"])
async def test_a_dealer_that_ends_in_the_middle(site, when, how):
    kind, server = (DealtPart, "dealer") if when == "a part is dealt" else (Evaluated, "party1")
    met = asyncio.Event()
    async with site.client() as client:
        site.corrupt(server, kind, lambda m, b: met.set() or ([] if how == "is silent" else [(m, b)]))
        revealed = asyncio.create_task(client.reveal(deep(client, 12)))
        await met.wait()
        if how == "stops":
            await site.stop("dealer")
        with pytest.raises(PeerError) as caught:
            await revealed
        # Whether it has dealt nothing, or heard nothing, is the same to those who wait for it.
        assert caught.value.peer == "dealer"
        site.restore(server)
        await site.settled() if how == "is silent" else await site.until(
            lambda: not any(site.servers[party].jobs for party in ("party0", "party1"))
        )
    if how == "stops":
        await site.start("dealer")
    await works(site)


async def test_once_all_is_dealt_the_dealer_may_go(site):
    async with site.client() as client:
        prepared = await client.prepare(deep(client))
        parts = len(prepared.program.schedule(site.cluster.settings.security).parts)
        job = site.servers["party1"].jobs[prepared.run]
        assert "dealer" in job.involved
        running = asyncio.create_task(client.finish(prepared))
        await site.until(lambda: job.dealt_parts == parts)
        assert "dealer" not in job.involved
        await site.stop("dealer")
        assert await running == meant()
    await site.start("dealer")
    await works(site)


@pytest.mark.parametrize("what", ["released", "cancelled"])
async def test_a_run_given_up_in_the_middle_is_forgotten_by_all(site, what):
    async with site.client() as client:
        if what == "released":
            prepared = await client.prepare(deep(client))
            assert site.servers["dealer"].jobs, "it has more to deal"
            await client.release(prepared)
        else:
            met = asyncio.Event()
            site.corrupt("party1", Evaluated, lambda m, b: met.set() or [(m, b)])
            revealed = asyncio.create_task(client.reveal(deep(client, 12)))
            await met.wait()
            revealed.cancel()
            await asyncio.gather(revealed, return_exceptions=True)
        await site.settled()
    await works(site)


@pytest.mark.parametrize("party", ["party0", "party1"])
async def test_a_party_that_fails_in_the_middle_frees_the_dealer(site, party):
    async with site.client() as client:
        site.corrupt(party, Opening, lambda m, b: [(m, [bytes(b[0])[:-1], *b[1:]])] if m.round == 5 else [(m, b)])
        with pytest.raises(ProtocolViolation) as caught:
            await client.reveal(deep(client))
        assert caught.value.peer == party
        site.restore(party)
        await site.settled()
    await works(site)


SAID = {
    "twice": lambda m: [m, m],
    "backwards": lambda m: [m, replace(m, depths=1)],
    "beyond its end": lambda m: [replace(m, depths=2**31 - 1)],
    "of another run": lambda m: [replace(m, run=secrets.token_hex(16))],
}


@pytest.mark.parametrize("name", SAID)
async def test_what_a_party_may_not_say_of_how_far_it_is(site, name):
    async with site.client() as client:
        site.corrupt("party1", Evaluated, lambda m, b: [(said, b) for said in SAID[name](m)])
        with pytest.raises((ProtocolViolation, PeerLost)):
            await client.reveal(deep(client, 12))
        site.restore("party1")
        await site.settled()
    await works(site)


async def test_another_party_says_nothing_of_it(site):
    async with site.client() as client:
        prepared = await client.prepare(deep(client))
        site.servers["party0"].endpoint.send("dealer", Evaluated(run=prepared.run, depths=3))
        with pytest.raises(ProtocolViolation, match="in parts") as caught:
            await client.finish(prepared)
        assert caught.value.peer == "party0"
        await site.settled()
    await works(site)


async def test_whoever_asks_late_is_dealt_for_all_the_same(site):
    """Parts may be there before the client has asked the last party: they are counted, and checked then."""
    async with site.client() as client:
        server = site.servers["party1"]
        prepare, held = server._on_prepare, []
        server.on(Prepare, lambda *said: held.append(said))
        running = asyncio.create_task(client.reveal(deep(client)))
        await site.until(lambda: bool(held) and any(job.dealt_parts > 2 for job in server.jobs.values()))
        server.on(Prepare, prepare)
        prepare(*held[0])
        assert await running == meant()
        assert not server.governor.admission._reserved.total()
    await works(site)


async def test_dealt_ahead_of_time_is_read_in_the_same_parts(site):
    async with site.client() as client:
        report = await client.stock(deep(client), 2)
        assert report.done == 2
        for _ in range(2):
            assert await client.reveal(deep(client)) == meant()
            assert client.last_run.from_stock
            assert as_predicted(client.last_run)
    await works(site)


# -- dealt ahead of time ---------------------------------------------------------------------------------------------


def ledger(site, party="party1"):
    return site.servers[party].material.ledger


def pieces(site, party="party1"):
    with ledger(site, party)._vault.transaction() as db:
        return db.execute("SELECT count(DISTINCT piece) FROM later").fetchone()[0]


async def stocks(site, count=1):
    async with site.client() as client:
        return await client.stock(deep(client), count)


async def test_what_is_dealt_ahead_is_stored_and_read_part_by_part(site):
    async with site.client() as client:
        await client.stock(deep(client), 1)
        there = pieces(site)
        assert (pieces(site, "party0"), there > 5) == (0, True)
        prepared = await client.prepare(deep(client))
        job = site.servers["party1"].jobs[prepared.run]
        assert job.assigned.number == 1
        await site.until(lambda: not job.preparing)
        assert job.party_run.prepared == job.party_run.schedule.allowed(0)
        assert pieces(site) == there + 1 - job.party_run.prepared, "a piece that is read is gone"
        assert await client.finish(prepared) == meant()
        assert client.last_run.from_stock
        assert not pieces(site)
    await works(site)


async def test_what_a_run_leaves_of_its_item_goes_with_it(site):
    async with site.client() as client:
        await client.stock(deep(client), 2)
        each = pieces(site)
        prepared = await client.prepare(deep(client))
        await client.release(prepared)
        await site.settled()
        await site.until(lambda: _numbers(site) == {2})
        assert pieces(site) == each
        assert await client.reveal(deep(client)) == meant()
        assert client.last_run.from_stock


def _numbers(site):
    with ledger(site)._vault.transaction() as db:
        return {row[0] for row in db.execute("SELECT DISTINCT number FROM later")}


def piece_two(change):
    return lambda m, b: change(m, b) if m.piece == 2 else [(m, b)]


PIECES = {
    "repeated": piece_two(lambda m, b: [(replace(m, piece=1), b), (m, b)]),
    "out of order": piece_two(lambda m, b: [(replace(m, piece=3), b)]),
    "of another item": piece_two(lambda m, b: [(replace(m, number=m.number + 1), b)]),
    "of another program": piece_two(lambda m, b: [(replace(m, program="0" * 64), b)]),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", PIECES)
async def test_a_piece_that_does_not_come_next_is_refused(site, name):
    site.corrupt("dealer", StockItem, PIECES[name])
    # Of an item that is not on its way, a party's word counts for nothing.
    sentence = "stored no preprocessing" if name == "of another item" else "not what comes next here"
    with pytest.raises(TesseraError, match=sentence):
        await stocks(site)
    assert not ledger(site).stock()
    site.restore("dealer")
    report = await stocks(site)
    assert (report.done, report.in_stock) == (1, 1)
    assert ledger(site).stock(), "the next one is stored all the same"
    await works(site)


@pytest.mark.parametrize("name", ["dealer", "party1"])
async def test_who_dies_between_two_pieces_leaves_nothing_that_is_used(site, name):
    met = asyncio.Event()
    site.corrupt("dealer", StockItem, lambda m, b: met.set() or [] if m.piece == 2 else [(m, b)])
    stocking = asyncio.create_task(stocks(site))
    await met.wait()
    await site.stop(name)
    with pytest.raises(PeerError):
        await stocking
    site.restore("dealer")
    await site.start(name)
    async with site.client() as client:
        assert await client.reveal(deep(client)) == meant()
        assert not client.last_run.from_stock
        assert (await client.stock(deep(client), 1)).done == 1
        assert await client.reveal(deep(client)) == meant()
        assert client.last_run.from_stock
    await site.settled()
    assert not pieces(site)
