"""Short things that many ask for: pieces of uploads, lists, orders of stock; nobody waits behind all of another's."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import numpy as np
import pytest

from nn import Linear, Model, Sequential
from parties.servers.secrets_desk import SecretsDesk
from parties.stored.partials import Partial


def model() -> Model:
    architecture = Sequential({"a": Linear(2, 2)}).architecture((2,))
    return Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})


@pytest.fixture
def held():
    """What holds up one client's work until it is let go; set in the end, whatever happens."""
    let_go = threading.Event()
    yield let_go
    let_go.set()


async def test_tails_of_uploads_are_written_in_turns(site, held, monkeypatch):
    append, owners = Partial.append, {}

    def slow(self, batch):
        if owners.get(self.begun.record.version) == "company":
            assert held.wait(60)
        append(self, batch)

    monkeypatch.setattr(Partial, "append", slow)
    party = site.servers["party0"]
    begin = party._secrets.begin

    def begun(owner, message, payload):
        owners[message.version] = owner.name
        return begin(owner, message, payload)

    monkeypatch.setattr(party._secrets, "begin", begun)
    async with site.client() as clinic, site.client("company") as company:
        # A client of ours waits for its own uploads; another one need not.
        company._uploads = contextlib.nullcontext()
        uploads = [asyncio.create_task(company.upload(model(), f"m{i}")) for i in range(3)]
        await site.until(lambda: party.governor.uploads.waiting == 2)
        async with asyncio.timeout(20):
            await clinic.upload(model(), "mine")
        assert party.governor.uploads.waiting == 2
        held.set()
        await asyncio.gather(*uploads)
    assert party.governor.uploads.waiting == 0


async def test_lists_are_made_in_turns(site, held, monkeypatch):
    info = SecretsDesk._info

    def slow(self, found):
        if found.owner.name == "company":
            assert held.wait(60)
        return info(self, found)

    party = site.servers["party0"]
    async with site.client() as clinic, site.client("company") as company:
        await company.upload(model(), "theirs")
        await clinic.upload(model(), "mine")
        monkeypatch.setattr(SecretsDesk, "_info", slow)
        lists = [asyncio.create_task(company.models()) for _ in range(10)]
        await site.until(lambda: party.governor.desk.waiting == 9)
        async with asyncio.timeout(20):
            assert [entry.name for entry in await clinic.models()] == ["mine"]
        held.set()
        assert all([entry.name for entry in found] == ["theirs"] for found in await asyncio.gather(*lists))


async def test_orders_are_noted_in_turns(site, held, monkeypatch):
    stocker, noted = site.servers["dealer"].stocking.stocker, []
    set_target = stocker.stock.set_target

    def slow(program, digest, low_water, count, client):
        noted.append(client)
        assert held.wait(60)
        set_target(program, digest, low_water, count, client)

    monkeypatch.setattr(stocker.stock, "set_target", slow)
    async with site.client() as clinic, site.client("company") as company:
        flood = [
            asyncio.create_task(company.stock(company.share([0.0] * (i + 1)) * 2, 1, low_water=1)) for i in range(6)
        ]
        await site.until(lambda: stocker._noting["company"] == 6 and len(noted) == 1)
        flood.append(asyncio.create_task(clinic.stock(clinic.share([0.0]) * 2, 1, low_water=1)))
        await site.until(lambda: stocker._noting["clinic"] == 1)
        held.set()
        await asyncio.gather(*flood)
    assert noted.index("clinic") <= 2
    assert noted.count("company") == 6


async def test_a_run_that_uses_stock_counts_its_own_programs_alone(site, monkeypatch):
    """Others may have a hundred thousand items, which take long to count, and longer each time."""
    stock, counted = site.servers["dealer"].stock, []
    wanted = stock.wanted

    def noted(program=""):
        counted.append(program)
        return wanted(program)

    async with site.client() as clinic, site.client("company") as company:
        await company.stock(company.share([0.5]) * 2, 2, low_water=2)
        await clinic.stock(clinic.share([0.5]) * 2, 2, low_water=2)
        mine = clinic._slots.bind(*clinic._written(clinic.share([0.5]) * 2), "").digest
        monkeypatch.setattr(stock, "wanted", noted)
        await clinic.reveal(clinic.share([0.5]) * 2)
        await site.until(lambda: sum(stock.stock().values()) == 4)
    assert counted == [mine]
