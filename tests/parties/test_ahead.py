"""Dealt ahead for a training: each run's for the state that the one before will have kept, and for no other."""

from collections import Counter

import numpy as np
import pytest

from mpc import schedule
from mpc.errors import MaterialError, ProgramError, ProtocolViolation, ServerBusy, UsageError
from mpc.rings.prg import Seed, fresh_seed
from mpc.security import Security
from nn import CrossEntropyLoss
from nn.schedules import StepLR
from parties import Settings
from parties.messages.runs import Opening
from parties.messages.stock import Stock, Stocked, StockItem
from parties.servers.dealt_ahead import Next
from parties.stock.items import State

from .conftest import opened
from .test_jobs import NET, OPTIONS, SGD, SOFT, data_set
from .test_training import rows, twin
from .workforces import on_workers

SERVERS = ("dealer", "party0", "party1")


def ledger(site, name):
    server = site.servers[name]
    return server.stock if name == "dealer" else server.material.ledger


def counts(site):
    return [sum(ledger(site, name).stock().values()) for name in SERVERS]


def uses(site, name):
    """Which run used which item."""
    return {e.item: e.run for e in ledger(site, name).history() if e.state is State.USED}


def once(site):
    """No item served two runs, nor one run two, wherever one asks."""
    used = [uses(site, name) for name in SERVERS]
    assert used[0] == used[1] == used[2] and len(set(used[0].values())) == len(used[0])
    return len(used[0])


async def begun(clinic, checkpoints, optimizer=SOFT, **options):
    data = [await clinic.data("data")]
    return await clinic.training(
        NET, data, CrossEntropyLoss(), optimizer, **{**OPTIONS, "epochs": checkpoints / 2, **options}
    )


async def owned(clinic, checkpoints, **options):
    """A training on rows of its client's own."""
    await clinic.upload(data_set(1, 12), "data")
    return await begun(clinic, checkpoints, **options)


async def as_in_the_clear(clinic, training):
    """The network is that of all of its steps."""
    w, _ = twin(training, [rows(1, 12)], SOFT)
    found = await clinic.reveal((await clinic.model("net"))["out.weight"])
    assert np.abs(found - w).max() < 1e-3


async def test_a_training_uses_what_was_dealt_before_it_began(strict):
    """Each run the next item; behind the last it is dealt for as it goes on."""
    site = strict
    async with site.client() as clinic:
        training = await owned(clinic, 4)
        report = await clinic.stock(training, 2)
        assert (report.done, report.in_stock) == (2, 2) and counts(site) == [2, 2, 2]
        assert (await clinic.stock(training, 1)).in_stock == 3, "behind what is there"
        made = [each.report async for each in (await clinic.submit(training)).follow()]
        assert [each.from_stock for each in made] == [True, True, True, False]
        for each in made:
            assert each.online.bytes == each.predicted.online_bytes_per_party
            assert each.offline.bytes == each.predicted.offline_bytes
        assert counts(site) == [0, 0, 0] and once(site) == 3
        await as_in_the_clear(clinic, training)


async def test_each_run_is_dealt_for_while_the_one_before_is_online(site, monkeypatch):
    """All but the first; for another state it is not taken, and of a job that has ended nothing is left."""
    taken, take = [], Next.take

    def looked_at(self, link):
        beyond = Next(self.link.after([Seed(fresh_seed()), Seed(fresh_seed())]), self.charge, self.made)
        assert take(beyond, link) is None, "it is for another state"
        made = take(self, link)
        taken.append(made is not None)
        return made

    monkeypatch.setattr(Next, "take", looked_at)
    async with site.client() as clinic:
        training = await owned(clinic, 4)
        await (await clinic.submit(training)).wait()
        assert taken == [True, True, True] and not site.servers["dealer"].ahead._next
        await as_in_the_clear(clinic, training)


@pytest.mark.slow
async def test_it_goes_on_with_its_items_whoever_was_started_again(site):
    """And no opening is made twice."""
    heard = {name: [] for name in SERVERS[1:]}
    async with site.client() as clinic:
        training = await owned(clinic, 6)
        await clinic.stock(training, 6)
        for names in ((), SERVERS[:1], SERVERS[1:], SERVERS):
            await site.restart(*names)
            for name, found in heard.items():
                site.overhear(name, found, Opening)
            done = (await clinic.model("net")).parts + 1
            job = await clinic.submit(await begun(clinic, done))
            assert [each.report.from_stock async for each in job.follow()] == [True]
            await site.settled()
        assert counts(site) == [2, 2, 2] and once(site) == 4
        await as_in_the_clear(clinic, await begun(clinic, done))
    for found in (Counter(filter(None, each)) for each in heard.values()):
        assert len(found) > 30 and set(found.values()) == {1}


@pytest.mark.slow
async def test_what_was_dealt_beyond_a_run_that_failed_is_discarded(site):
    """Everywhere: the state that it was for will never be.  The steps are made again, and dealt for on demand."""
    async with site.client() as clinic:
        training = await owned(clinic, 4)
        await clinic.stock(training, 4)
        begun_runs = set()

        def silent_in_the_second(message, buffers):
            begun_runs.add(message.run)
            return [] if len(begun_runs) == 2 else [(message, buffers)]

        site.corrupt("party1", Opening, silent_in_the_second)
        job = await clinic.submit(training)
        made = [each.report.from_stock async for each in job.follow()]
        assert made == [True, False, False, False] and (await job.standing()).begun == 5
        assert counts(site) == [0, 0, 0] and once(site) == 2
        await as_in_the_clear(clinic, training)


async def test_items_are_for_one_state_alone(site):
    """Of as many steps, and of the same program, but made by another run: it is none; whoever begins the run."""
    async with site.client() as clinic:
        training = await owned(clinic, 3)
        await clinic.stock(training, 3)
        await anext(aiter(training))
        assert clinic.last_run.from_stock and counts(site) == [2, 2, 2]
        dealer = site.servers["dealer"]
        bound = clinic._slots.bind(*clinic._written(training.kept), "net")
        state = dealer.gate.check(bound, "clinic")
        seeds = type(state["clinic/net"].seeds)(reversed(state["clinic/net"].seeds))
        other = {**state, "clinic/net": type(state["clinic/net"])(seeds, state["clinic/net"].shapes)}
        with pytest.raises(MaterialError, match="not come to be"):
            dealer.stocking.assign_next(bound, "clinic", "1" * 32, other)
        assert dealer.stock.stock() == {}
        assert dealer.stocking.assign_next(bound, "clinic", "1" * 32, state) is None


async def test_what_goes_takes_along_what_was_dealt_for_it(site):
    """The network, or the data."""
    async with site.client() as clinic:
        for name in ("net", "data"):
            await clinic.stock(await owned(clinic, 2), 2)
            assert counts(site) == [2, 2, 2]
            await clinic.remove(name)
            await site.until(lambda: counts(site) == [0, 0, 0])


async def test_what_cannot_be_dealt_ahead(site):
    async with site.client() as clinic:
        training = await owned(clinic, 2)
        with pytest.raises(UsageError, match="2 checkpoints left"):
            await clinic.stock(training, 3)
        with pytest.raises(UsageError, match="no mark"):
            await clinic.stock(training, 2, low_water=1)
        changing = await begun(clinic, 2, SGD(lr=0.125, momentum=0.5, schedule=StepLR(1, gamma=0.5)))
        with pytest.raises(UsageError, match="program at each checkpoint"):
            await clinic.stock(changing, 1)

        async def ask(result, **how):
            written = clinic._written(result)
            bound = clinic._slots.bind(*written, how.get("chain", ""))
            message = Stock(
                request="5" * 32, count=1, low_water=how.pop("low_water", 0), bindings=bound.bindings, **how
            )
            return await clinic._board.ask(message, Stocked, ["dealer"], 5, [bound.program.encode()])

        with pytest.raises(ProgramError, match="keeps what it reads"):
            await ask({"y": (await clinic.data("data"))["y"] * 2}, chain="net")
        with pytest.raises(ProtocolViolation, match="of a chain, which is dealt once"):
            await ask(training.kept, chain="net", low_water=1)
        site.servers["dealer"].stocking._being_kept = lambda slot: slot == "clinic/net"
        with pytest.raises(ServerBusy, match="under way"):
            await clinic.stock(training, 1)


async def test_an_order_ends_when_the_training_has_gone_on_otherwise(site):
    """What it has dealt is discarded, and no more of it is dealt in vain."""
    async with site.client() as clinic:
        training = await owned(clinic, 4)
        stocker = site.servers["dealer"].stocking.stocker

        def gone_on(message, buffers):
            stocker.broken(message.program)
            return [(message, buffers)]

        site.corrupt("dealer", StockItem, gone_on)
        with pytest.raises(MaterialError, match="gone on otherwise"):
            await clinic.stock(training, 3)
        await site.until(lambda: counts(site) == [0, 0, 0])


@pytest.mark.slow
async def test_in_pieces_and_by_a_dealer_with_workers(tmp_path, monkeypatch):
    """What no version has the masks of yet is dealt by the head; large items come piece by piece."""
    monkeypatch.setattr(schedule, "PART", 400)
    monkeypatch.setattr(schedule, "AHEAD", 1200)
    settings = Settings(threads=1, peer_timeout=5, round_timeout=20, security=Security.MALICIOUS)
    async with opened(tmp_path, Security.MALICIOUS, settings=settings) as site:
        await on_workers(site, "dealer", count=1)
        async with site.client() as clinic:
            training = await owned(clinic, 3)
            bound = clinic._slots.bind(*clinic._written(training.kept), "net")
            assert len(bound.program.schedule(Security.MALICIOUS).parts) > 2
            await clinic.stock(training, 2)
            made = [each.report.from_stock async for each in (await clinic.submit(training)).follow()]
            assert made == [True, True, False] and once(site) == 2
            await as_in_the_clear(clinic, training)
