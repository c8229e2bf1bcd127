"""Words that come late, twice, or about something else: each counts for what it is about, once, or for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from mpc.errors import ProgramError, ProtocolViolation, TesseraError
from nn import Linear, Model, Sequential
from parties.client.conversation import Conversation
from parties.messages.failures import fault_of
from parties.messages.runs import Inputs, Prepare, Ready
from parties.messages.stock import Agreed, StockDropped, Stocked, StockHeld, StockRefused
from parties.servers.pending_upload import PendingUpload
from parties.stock import stocker as stocker_module
from parties.wire.events import Delivery
from parties.wire.liveness import GRACE, TICK
from protocols.readings.dealer import StoredMasks

RUN = "0" * 32
ID = "ab" * 16


def square(client: Any, value: float = 0.5) -> Any:
    return client.share([value], low=-1, high=1) ** 2


def fresh(site: Any, name: str) -> int:
    server = site.servers[name]
    ledger = server.stock if name == "dealer" else server.material.ledger
    return sum(ledger.stock().values())


# -- of items --------------------------------------------------------------------------------------------------------


async def test_a_party_s_word_about_another_item_is_not_about_this_one(site):
    """The dealer waits for this one, in vain."""
    async with site.client() as client:
        site.corrupt("party0", Stocked, lambda message, _: [(replace(message, number=message.number + 7), [])])
        with pytest.raises(TesseraError, match="stored no preprocessing"):
            await client.stock(square(client), 1)
        assert fresh(site, "dealer") == 0


async def test_a_party_s_refusal_of_another_item_stops_nothing(site):
    def refusing(message: Stocked, _: object) -> Sequence[tuple[Any, Sequence[Any]]]:
        other = StockRefused(session=message.session, number=message.number + 7, fault=fault_of(TesseraError("no")))
        return [(other, []), (message, [])]

    async with site.client() as client:
        site.corrupt("party0", Stocked, refusing)
        assert (await client.stock(square(client), 2)).in_stock == 2


async def test_a_party_that_has_stored_its_part_may_go(site):
    held: list[Stocked] = []

    def hold(message: Stocked, _: object) -> Sequence[Any]:
        held.append(message)
        return []

    async with site.client() as client:
        site.corrupt("party1", Stocked, hold)
        stocking = asyncio.create_task(client.stock(square(client), 1))
        stocker = site.servers["dealer"].stocking.stocker
        await site.until(lambda: held and stocker._missing == {"party1"})
        await site.stop("party0")
        await site.until(lambda: not site.servers["dealer"].endpoint.connected("party0"))
        await asyncio.sleep(GRACE + 2 * TICK)
        site.restore("party1")
        site.servers["party1"].endpoint.send("dealer", held[0])
        assert (await stocking).in_stock == 1
        await site.start("party0")


async def test_a_client_s_requests_are_dealt_for_in_their_order(site, monkeypatch):
    """Also one that was begun, and made room for another client's."""
    monkeypatch.setattr(stocker_module, "SLICE", 1)
    stocker, gate, done = site.servers["dealer"].stocking.stocker, asyncio.Event(), []
    deal = stocker._deal

    async def gated(*arguments: Any) -> Any:
        await gate.wait()
        return await deal(*arguments)

    monkeypatch.setattr(stocker, "_deal", gated)
    async with site.client() as clinic, site.client("company") as company:

        async def ordered(client: Any, value: int, count: int) -> None:
            await client.stock(client.share([0.5] * value, low=-1, high=1) ** 2, count)
            done.append((client.member.name, value))

        tasks = [asyncio.create_task(ordered(clinic, 1, 3))]
        await site.until(lambda: stocker._requests.of("clinic") == 0 and len(site.servers["dealer"].jobs) == 0)
        await asyncio.sleep(0.1)
        tasks.append(asyncio.create_task(ordered(clinic, 2, 1)))
        tasks.append(asyncio.create_task(ordered(company, 3, 3)))
        await site.until(lambda: stocker._requests.of("clinic") == stocker._requests.of("company") == 1)
        gate.set()
        await asyncio.gather(*tasks)
    assert done.index(("clinic", 1)) < done.index(("clinic", 2))


async def test_a_new_session_takes_the_place_of_the_former_one(site):
    """A dealer that has lost its stock, or destroyed it while a party was away."""
    async with site.client() as client:
        await client.stock(square(client), 3)
        site.servers["dealer"].stock.new_session()
        assert [fresh(site, name) for name in ("dealer", "party0", "party1")] == [0, 3, 3]
        await client.stock(square(client), 1)
        assert [fresh(site, name) for name in ("dealer", "party0", "party1")] == [1, 1, 1]


async def test_a_party_keeps_what_a_run_may_be_about_to_use(site):
    told: list[StockDropped] = []

    def listen(message: StockDropped, _: object) -> Sequence[Any]:
        told.append(message)
        return []

    site.corrupt("dealer", StockDropped, listen)
    stocker, party = site.servers["dealer"].stocking.stocker, site.cluster.member("party0")
    for busy in (True, False):
        await stocker.answer(party, StockHeld(programs=("d" * 64,)), lambda busy=busy: busy)
        assert len(told) == (not busy)


# -- of runs ---------------------------------------------------------------------------------------------------------


async def test_inputs_that_come_twice_are_their_client_s_fault(site):
    async with site.client() as client:
        x = square(client)
        prepared = await client.prepare(x * x)  # with an opening, for which party0 has to wait
        send = client._board.send

        def twice(server: str, message: Any, payload: Sequence[Any] = ()) -> int:
            if isinstance(message, Inputs) and server == "party0":
                send(server, message, payload)
            return int(send(server, message, payload))

        client._board.send = twice
        with pytest.raises(ProtocolViolation, match="clinic: sent inputs for a run that is not ready"):
            await client.finish(prepared)


@pytest.mark.parametrize("silent", ["party0", "party1"])
async def test_nothing_begins_before_all_have_agreed_on_an_item(site, silent):
    """Neither has the client its masks, nor would its inputs be taken."""
    async with site.client() as client:
        await client.stock(square(client), 1)
        site.corrupt(silent, Agreed, lambda *_: [])
        preparing = asyncio.create_task(client.prepare(square(client)))
        dealer, talking = site.servers["dealer"], site.servers["party1" if silent == "party0" else "party0"]
        await site.until(lambda: any(job.agreed for job in dealer.jobs.values()))
        await site.until(lambda: all(job.party_run for job in talking.jobs.values()))
        await asyncio.sleep(0.05)
        ((run, job),) = talking.jobs.items()
        assert run in dealer.jobs
        assert not job.ready
        message = Inputs(run=run, masks="", signature=bytes(64))
        with pytest.raises(ProtocolViolation, match="not ready for them"):
            talking.online._on_inputs(site.cluster.member("clinic"), message, [memoryview(bytes(8))])
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)


async def test_a_server_has_one_part_in_a_conversation(site):
    conversation = Conversation(["party0", "party1"])
    for name in ("party0", "party0", "party1"):
        conversation.put(Delivery(site.cluster.member(name), Ready(run=RUN, seconds=0.0), []))
    with pytest.raises(ProtocolViolation, match="party0: sent Ready out of turn"):
        await conversation.take(Ready, ["party0", "party1"], 1)


async def test_a_dealer_that_has_done_its_part_may_be_started_again(site):
    async with site.client() as client:
        prepared = await client.prepare(square(client))
        await site.restart("dealer")
        await client._board.reach(["dealer"])
        assert await client.finish(prepared) == pytest.approx([0.25], abs=1e-3)
        # Whose it is still to do, fails.
        conversation = client._board.begin(RUN, ["dealer", "party0"])
        await site.restart("dealer")
        await client._board.reach(["dealer"])
        with pytest.raises(TesseraError, match="dealer"):
            conversation.check()


async def test_the_loss_of_who_has_no_part_in_a_run_ends_nothing(site):
    async with site.client() as client, site.client("company"):
        prepared = await client.prepare(square(client))
        for name in ("party0", "party1"):
            server = site.servers[name]
            for other in ("dealer", "company"):
                server._fail_all(site.cluster.member(other), ProtocolViolation(other, "is lost"))
            assert prepared.run in server.jobs
        assert await client.finish(prepared) == pytest.approx([0.25], abs=1e-3)


@pytest.mark.parametrize("name", ["dealer", "party0"])
async def test_a_run_is_the_client_s_that_it_was_begun_for(site, name):
    """Another may have heard its id, and be first to ask for it where a server has only been told of it."""
    server = site.servers[name]
    job = server.open_job(RUN, "clinic")
    with pytest.raises(ProtocolViolation, match="company: asked for a run that is clinic's"):
        server.claim_job(RUN, site.cluster.member("company"), [])
    assert server.claim_job(RUN, site.cluster.member("clinic"), []) is job
    server.end(job)


async def test_the_id_of_a_run_that_is_over_is_taken(site):
    async with site.client() as client:
        prepared = await client.prepare(square(client))
        await client.finish(prepared)
        await site.settled()
        with client._board.conversation(prepared.run, ["party0"]) as conversation:
            message = Prepare(run=prepared.run, bindings=prepared.bound.bindings)
            client._board.send("party0", message, [prepared.program.encode()])
            with pytest.raises(ProtocolViolation, match="whose id has been used"):
                await conversation.take(Ready, ["party0"], 2)
        assert not site.servers["party0"].jobs


# -- of versions -----------------------------------------------------------------------------------------------------


def model(scale: float) -> Model:
    architecture = Sequential({"out": Linear(1, 1)}).architecture((1,))
    return Model(
        architecture, {name: [[scale]] if name.endswith("weight") else [0.0] for name in architecture.parameters}
    )


async def test_a_version_that_was_replaced_since_it_was_looked_up_is_not_loaded(site):
    secrets = site.servers["party0"]._secrets
    async with site.client() as client:
        former = await client.upload(model(0.5), "m")
        looked_up = secrets.look_up(former.slot).held
        await client.upload(model(0.25), "m")
        with pytest.raises(ProgramError, match="not in use here"):
            secrets._load(looked_up)
        assert looked_up.record.version not in secrets.loaded


@pytest.mark.parametrize("how", ["forget", "_forget_old"])
async def test_what_is_being_decided_is_not_given_up(site, how):
    coordinator = site.servers["dealer"]._coordinator
    upload = PendingUpload(site.cluster.member("clinic"), "m", StoredMasks((), {}), begun=0.0, deciding=True)
    coordinator._uploads[ID] = upload
    for deciding in (True, False):
        upload.deciding = deciding
        coordinator.forget(ID) if how == "forget" else coordinator._forget_old()
        assert (ID in coordinator._uploads) is deciding
