"""What a party says of preprocessing without proof costs nobody their stock: it is passed over, and stays."""

from __future__ import annotations

import shutil
import time

import msgspec
import pytest
from cheats import honest_again, lie_about_item, wrong_sigma

from mpc.errors import MacCheckError, MaterialError, ProtocolViolation
from parties.messages.failures import fault_of
from parties.messages.runs import Failed, Ready
from parties.messages.stock import Spent, Stocked, StockRefused
from parties.stock import dealer_stock, waste
from parties.stock.dealer_stock import DealerStock
from parties.stock.items import NOTHING_FRESH, ItemId, SpentItem, State

from .stocked import program, right


def kept(site, name="dealer") -> int:
    """Items that are there, whether or not anybody asks for them."""
    server = site.servers[name]
    ledger = server.stock if name == "dealer" else server.material.ledger
    return sum(entry.state is State.FRESH for entry in ledger.history())


def offered(site) -> int:
    """Items that runs may have."""
    return sum(site.servers["dealer"].stock.stock().values())


def bound(site, client) -> str:
    """The digest that the one program in stock goes by."""
    (digest,) = site.servers["dealer"].stock.programs()
    return digest


def denies(site, party, monkeypatch, position=NOTHING_FRESH):
    """From now on the party says that it has not got what it is asked for, below that position."""
    honest = site.servers[party].material.ledger.take

    def take(item, program, run):
        if item.number >= position:
            return honest(item, program, run)
        raise SpentItem(item, "is unknown here", position)

    monkeypatch.setattr(site.servers[party].material.ledger, "take", take)


# -- items that are assigned -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [NOTHING_FRESH, 3])
async def test_a_party_that_says_it_has_lost_its_stock_discards_nobodys(site, monkeypatch, position):
    async with site.client() as client, site.client("company") as company:
        await client.stock(program(client), 4)
        await company.stock(company.share([0.5], low=-1, high=1) * 2, 1)
        with monkeypatch.context() as lying:
            denies(site, "party1", lying, position)
            await right(client, from_stock=position == 3)
        # What it is not said of, and another program's.
        left = offered(site)
        assert (left, kept(site)) == ((2, 3) if position == 3 else (1, 4))
        await company.reveal(company.share([0.5], low=-1, high=1) * 2)
        assert company.last_run.from_stock
        for _ in range(left - 1):
            await right(client, from_stock=True)
        await right(client, from_stock=False)
        # When the party is started again its word is forgotten, and what was kept is used.
        await site.restart("party1")
        await site.until(lambda: offered(site) == kept(site) > 0)
        await right(client, from_stock=True)


async def test_a_word_about_what_was_never_assigned_is_no_word(site):
    async with site.client() as client:
        await client.stock(program(client), 3)
        await right(client, from_stock=True)
        dealer, session = site.servers["dealer"], site.servers["dealer"].stock.session
        for number, said in ((2, session), (1, "0" * 32), (1, session)):
            message = Spent(session=said, number=number, program=bound(site, client), position=NOTHING_FRESH)
            if (number, said) == (1, session):
                message = msgspec.structs.replace(message, program="0" * 64)
            site.servers["party1"].endpoint.send("dealer", message)
        await right(client, from_stock=True)
        assert offered(site) == kept(site) == 1
        assert dealer.stock.session == session


async def test_what_is_in_doubt_goes_when_its_client_orders_anew(site, monkeypatch):
    async with site.client() as client:
        await client.stock(program(client), 3)
        with monkeypatch.context() as lost:
            denies(site, "party1", lost)
            await right(client, from_stock=False)
        report = await client.stock(program(client), 2)
        assert (report.in_stock, kept(site)) == (2, 2)
        for _ in range(2):
            await right(client, from_stock=True)
        await right(client, from_stock=False)


async def test_a_standing_order_makes_good_what_a_party_has_lost(site, monkeypatch):
    async with site.client() as client:
        await client.stock(program(client), 3, low_water=2)
        with monkeypatch.context() as lost:
            denies(site, "party1", lost)
            await right(client, from_stock=False)
        await site.until(lambda: offered(site) == 3)
        assert kept(site) == 5
        await right(client, from_stock=True)


async def test_a_disk_that_was_lost_costs_one_item(site):
    async with site.client() as client:
        await client.stock(program(client), 3)
        await site.stop("party1")
        shutil.rmtree(site.data("party1"))
        await site.start("party1")
        for _ in range(2):
            await right(client, from_stock=False)
        assert (kept(site), kept(site, "party1")) == (2, 0)
        assert (await client.stock(program(client), 1)).in_stock == 1
        await right(client, from_stock=True)


async def test_what_was_said_counts_for_the_run_that_follows(site, monkeypatch):
    """However long the dealer takes to note it down: else each attempt would cost one more item."""
    doubt = DealerStock.doubt

    def slowly(self, *said):
        time.sleep(0.1)
        return doubt(self, *said)

    monkeypatch.setattr(DealerStock, "doubt", slowly)
    async with site.client() as client:
        await client.stock(program(client), 4)
        with monkeypatch.context() as lost:
            denies(site, "party1", lost)
            await right(client, from_stock=False)
        assert (offered(site), kept(site)) == (0, 3)


# -- items that are dealt --------------------------------------------------------------------------------------------


def refuses(site, party, position, evidence=None):
    """From now on the party says that it cannot take in what it has stored."""

    def refusal(message, buffers):
        fault = fault_of(MaterialError("a lie"))
        said = StockRefused(message.session, message.number, fault=fault, position=position, evidence=evidence)
        return [(said, [])]

    site.corrupt(party, Stocked, refusal)


@pytest.mark.parametrize("position", [0, 7, NOTHING_FRESH])
async def test_a_party_that_refuses_alone_destroys_nobodys_stock(site, position):
    """And is named; what others have stored of the item counts for nothing."""
    async with site.client() as client, site.client("company") as company:
        await client.stock(program(client), 2)
        session = site.servers["dealer"].stock.session
        refuses(site, "party1", position)
        with pytest.raises(MaterialError, match="party1 says: a lie"):
            await company.stock(program(company), 2)
        site.restore("party1")
        assert site.servers["dealer"].stock.session == session
        assert offered(site) == kept(site) == 2
        for _ in range(2):
            await right(client, from_stock=True)
        assert (await company.stock(program(company), 1)).in_stock == 1
        await right(company, from_stock=True)


async def test_a_party_whose_ledger_is_ahead_of_all_others_is_followed(site):
    async with site.client() as client:
        await client.stock(program(client), 1)
        stock, ahead = site.servers["dealer"].stock, site.servers["party0"].material.ledger
        session = stock.session
        ahead.add(ItemId(session, 900), "0" * 64, [b"of a dealer whose file has been replaced since"])
        assert (await client.stock(program(client), 2)).in_stock == 3
        assert stock.session == session
        assert [e.item.number for e in stock.history() if e.state is State.FRESH] == [1, 901, 902]
        for _ in range(3):
            await right(client, from_stock=True)


async def test_numbers_are_not_used_up_by_whoever_claims_to_be_far_ahead(site, monkeypatch):
    monkeypatch.setattr(dealer_stock, "MAX_JUMP", 1000)
    async with site.client() as client:
        refuses(site, "party1", 1 << 61)
        with pytest.raises(MaterialError):
            await client.stock(program(client), 1)
        site.restore("party1")
        await client.stock(program(client), 1)
        await right(client, from_stock=True)
        assert site.servers["party0"].material.ledger.position(site.servers["dealer"].stock.session) < 2000


async def test_whoever_can_prove_that_a_check_has_failed_is_believed_alone(strict, monkeypatch):
    """The dealer was down, and the cheat acts as if nothing had been; the one honest party has all signatures."""
    async with strict.client() as client:
        await client.stock(program(client), 3)
        session = strict.servers["dealer"].stock.session
        monkeypatch.setattr(strict.servers["party1"].material, "destroy", lambda session: None)
        wrong_sigma(strict, "party1")
        prepared = await client.prepare(program(client))
        await strict.stop("dealer")
        with pytest.raises(MacCheckError):
            await client.finish(prepared)
        honest_again(strict, "party1")
        await strict.until(lambda: not strict.servers["party0"].fresh_stock())
        await strict.start("dealer")
        dealer = strict.servers["dealer"]
        await right(client, from_stock=False)
        assert dealer.stock.session == session
        assert (await client.stock(program(client), 1)).in_stock == 1
        assert dealer.stock.session != session
        await right(client, from_stock=True)
        # The same evidence again says nothing of the new session.
        (piece,) = [strict.servers["party0"].proofs.of_session(session)]
        assert strict.servers["party0"].proofs.of_session(dealer.stock.session) is None
        refuses(strict, "party1", NOTHING_FRESH, piece)
        now = dealer.stock.session
        with pytest.raises(MaterialError, match="party1"):
            await client.stock(program(client), 1)
        assert dealer.stock.session == now


# -- runs that fail --------------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("how", ["garbage", "to the dealer", "fails them", "fails them before they are ready"])
async def test_a_party_spends_few_items_however_it_makes_runs_fail(site, monkeypatch, how):
    """It is named in each, and from then on they are dealt for on demand."""

    def failed(message, buffers):
        return [(Failed(run=message.run, fault=fault_of(ProtocolViolation("party0", "a lie"))), [])]

    async with site.client() as client:
        await client.stock(program(client), 9)
        match how:
            case "garbage":
                lie_about_item(site, "party1", "party0", signed=False)
            case "to the dealer":
                lie_about_item(site, "party1", "dealer", signed=False)
            case "fails them":
                site.corrupt("party1", Ready, failed)
            case _:
                denies(site, "party1", monkeypatch)
        errors = []
        for _ in range(6):
            try:
                await client.reveal(program(client))
            except (ProtocolViolation, MaterialError) as error:
                errors.append(error)
        spent = 9 - kept(site)
        assert spent == (waste.MOST if how in ("garbage", "fails them") else 1)
        if how != "fails them":
            assert len(errors) == (0 if how.endswith("ready") else spent)
            assert all(error.peer == "party1" for error in errors)


async def test_stock_that_rests_is_used_again(site, monkeypatch):
    async with site.client() as client, site.client("company") as company:
        await client.stock(program(client), 5)
        await company.stock(program(company), 1)
        lie_about_item(site, "party1", "party0", signed=False)
        for _ in range(waste.MOST):
            with pytest.raises(ProtocolViolation, match="party1"):
                await client.reveal(program(client))
        site.restore("party1")
        await right(client, from_stock=False)
        # Another client's runs have not failed, and no one's for ever.
        await right(company, from_stock=True)
        monkeypatch.setattr(waste, "WHILE", 0.0)
        await right(client, from_stock=True)


def test_of_how_many_runs_it_is_known_that_they_had_an_item(monkeypatch):
    monkeypatch.setattr(waste, "REMEMBERED", 2)
    found = waste.Waste()
    for run in "abc":
        found.assigned(run, "clinic")
    for run in "abcabc":
        found.failed(run)
    assert not found.rests("clinic")
    found.assigned("d", "clinic")
    found.failed("d")
    assert found.rests("clinic")
    assert not found.rests("company")
