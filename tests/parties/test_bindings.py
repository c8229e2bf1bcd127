"""What stands in a program's slots: the same program over new versions, the same versions at all members, or no run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from mpc.errors import NotPermitted, PeerLost, ProgramError, TesseraError, UsageError
from parties import DataSet
from parties.messages.runs import Dealt, Failed, Opening, Prepare
from parties.messages.stock import Agreed
from parties.stock.items import State
from parties.wire.messages import Message

from .rules_given import NO_RULE, identity, tell
from .test_model_keeping import IMAGE, PARTIES, model

LATER = 0.4
"""A scale whose bounds are those of 0.5."""


def image(client: Any) -> Any:
    return client.share(IMAGE, low=-1, high=1)


def tell_otherwise(client: Any, server: str, change: Callable[[Prepare], Prepare]) -> None:
    """From now on the client asks that server for another run than the others."""
    board = client._board
    honest = board.send

    def send(peer: str, message: Message, payload: Sequence[Any] = ()) -> int:
        told = change(message) if peer == server and isinstance(message, Prepare) else message
        return int(honest(peer, told, payload))

    board.send = send


def used(site: Any) -> list[int]:
    """Items of preprocessing, at the dealer and each party."""
    ledgers = [site.servers["dealer"].stock, *(site.servers[name].material.ledger for name in PARTIES)]
    return [sum(entry.state is State.USED for entry in ledger.history()) for ledger in ledgers]


def fresh(site: Any) -> list[int]:
    ledgers = [site.servers["dealer"].stock, *(site.servers[name].material.ledger for name in PARTIES)]
    return [sum(ledger.stock().values()) for ledger in ledgers]


def kept_seeds(site: Any) -> dict[str, tuple[bytes, ...]]:
    """Of the masks of all versions in use."""
    stored = site.servers["dealer"]._coordinator.stored
    return {version: tuple(map(bytes, masks.seeds)) for version, masks in stored.items()}


async def nothing_pending(site: Any) -> None:
    await site.settled()
    await site.until(lambda: not site.servers["dealer"]._coordinator._uploads)
    await site.until(lambda: not any(site.servers[name]._secrets.prepared for name in PARTIES))


# -- the same program ------------------------------------------------------------------------------------------------


async def test_a_program_over_a_new_version_is_the_same_and_so_is_the_rule_for_it(either: Any) -> None:
    async with either.client("company") as company, either.client() as clinic:
        first = await company.upload(model(0.5), "m")
        looked_at = company.digest(first(image(company)) * 2)
        await company.allow("m", "clinic", [looked_at])
        m = await clinic.model("m")
        assert clinic.digest(m(image(clinic)) * 2) == looked_at
        assert (await clinic.reveal(m(image(clinic)) * 2)).mean() == pytest.approx(2 * 4 * 0.5, abs=1e-2)
        second = await company.upload(model(LATER), "m")
        assert second.version != first.version
        assert company.digest(second(image(company)) * 2) == looked_at
        # Who has not asked again means the version that it was told of, which is gone.
        for client, gone in ((clinic, m), (company, first)):
            with pytest.raises(ProgramError, match="not in use here"):
                await client.reveal(gone(image(client)) * 2)
        m = await clinic.model("m")
        assert (await clinic.reveal(m(image(clinic)) * 2)).mean() == pytest.approx(2 * 4 * LATER, abs=1e-2)
        with pytest.raises(NotPermitted):
            await clinic.reveal(m(image(clinic)) * 3)
        await company.remove("m")
        with pytest.raises(ProgramError, match="not in use here"):
            await clinic.reveal(m(image(clinic)) * 2)
    await nothing_pending(either)


async def test_what_a_client_has_not_asked_for_it_cannot_bind(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        first = await company.upload(model(0.5), "m")
        x = image(clinic)
        with pytest.raises(UsageError, match="does not know 'company/m'"):
            await clinic.reveal(first(x))
        second = await company.upload(model(LATER), "m")
        x = image(company)
        with pytest.raises(UsageError, match="one version of 'company/m', not two"):
            await company.reveal(first(x) + second(x))


async def test_stock_is_of_the_versions_it_was_dealt_for(either: Any) -> None:
    async with either.client("company") as company:
        m = await company.upload(model(0.5), "m")
        await company.stock(m(image(company)), 2)
        await company.reveal(m(image(company)))
        assert company.last_run.from_stock
        m = await company.upload(model(LATER), "m")
        assert (await company.reveal(m(image(company)))).mean() == pytest.approx(4 * LATER, abs=1e-2)
        assert not company.last_run.from_stock
        await either.until(lambda: fresh(either) == [0, 0, 0])
        await company.stock(m(image(company)), 1, low_water=1)
        assert (await company.reveal(m(image(company)))).mean() == pytest.approx(4 * LATER, abs=1e-2)
        assert company.last_run.from_stock
        # Dealt again for the same versions, also by a dealer that has just been started.
        await either.until(lambda: fresh(either) == [1, 1, 1])
    await either.restart("dealer")
    async with either.client("company") as company:
        m = await company.model("m")
        assert (await company.reveal(m(image(company)))).mean() == pytest.approx(4 * LATER, abs=1e-2)
        assert company.last_run.from_stock


# -- the same versions at all members, by the same rule --------------------------------------------------------------


@pytest.mark.parametrize("server", ["dealer", "party1"])
async def test_members_that_were_told_otherwise_end_the_run(either: Any, server: str) -> None:
    """Each of them would allow it: the owner's rule to one, and the one that it gave itself to another."""
    heard: list[Message] = []
    async with either.client("company") as company:
        m = await company.upload(model(0.5), "m")
        await company.allow("m", "company", ["any"])
        await company.stock(m(image(company)), 1)
        for name in PARTIES:
            either.corrupt(name, Opening, lambda message, buffers: heard.append(message) or [])
        honest = company._board.send
        rule = identity(either.servers["party0"]._secrets.look_up(m.slot).policy, "company", "any")
        assert rule != NO_RULE
        tell_otherwise(company, server, lambda m: replace(m, bindings=tuple(replace(b, rule=rule) for b in m.bindings)))
        with pytest.raises(ProgramError, match="different versions, or by different rules"):
            await company.reveal(m(image(company)))
        assert not heard
        company._board.send = honest
        for name in PARTIES:
            either.restore(name)
        await either.settled()
        # The dealer has assigned the item; a party that refused has not touched it.
        at_dealer, *at_parties = used(either)
        assert (at_dealer, at_parties[1]) == (1, 0)
        assert (await company.reveal(m(image(company)))).mean() == pytest.approx(2.0, abs=1e-2)
    await nothing_pending(either)


async def test_a_rule_that_one_does_not_have_is_no_rule(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        m = await clinic.model("m")
        for rule in ("owner", NO_RULE, clinic.digest(m(image(clinic)))):
            for server in ("dealer", *PARTIES):
                honest = clinic._board.send
                tell_otherwise(
                    clinic, server, lambda m, rule=rule: replace(m, bindings=(replace(m.bindings[0], rule=rule),))
                )
                with pytest.raises(NotPermitted):
                    await clinic.reveal(m(image(clinic)))
                clinic._board.send = honest
        assert (await clinic.reveal(m(image(clinic)))).mean() == pytest.approx(2.0, abs=1e-2)


@pytest.mark.parametrize("where", ["dealer", "party0"])
async def test_leave_that_is_taken_back_before_it_is_used_is_none(site: Any, where: str) -> None:
    """Between the admission of a run and what is dealt, or looked up, for it."""
    server = site.servers[where]
    admit, dealt = server.admit, []

    def taken_back(job: Any, program: Any) -> None:
        tell((server._coordinator if where == "dealer" else server._secrets).rules, site, "company", "m", "clinic", ())
        admit(job, program)

    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        m = await clinic.model("m")
        server.admit = taken_back
        site.corrupt("dealer", Dealt, lambda message, buffers: dealt.append(message) or [(message, buffers)])
        with pytest.raises(NotPermitted, match="has to allow it"):
            await clinic.reveal(m(image(clinic)))
        assert len(dealt) == (0 if where == "dealer" else len(PARTIES))


# -- results that stay, from stock -----------------------------------------------------------------------------------


async def test_results_that_stay_are_dealt_for_ahead_of_time(either: Any) -> None:
    x = np.array([0.5, -0.25, 1.0])

    def results(client: Any) -> dict[str, Any]:
        s = client.share(x, low=-1, high=1)
        return {"square": s * s, "s": s}

    async with either.client() as clinic:
        await clinic.stock(results(clinic), 3)
        demanded = clinic.digest(results(clinic))
        assert fresh(either) == [3, 3, 3]
    await either.restart("dealer", *PARTIES)
    async with either.client() as clinic:
        names = ("first", "second", "third", "fourth")
        for name in names:
            kept = await clinic.keep(results(clinic), name)
            assert clinic.last_run.from_stock == (name != "fourth")
            assert clinic.last_run.online.bytes == clinic.last_run.predicted.online_bytes_per_party
            assert clinic.last_run.online.rounds == clinic.last_run.predicted.online_rounds
            assert await clinic.reveal(kept["square"]) == pytest.approx(x * x, abs=1e-3)
        assert clinic.digest(results(clinic)) == demanded
    await either.restart("dealer", *PARTIES)
    seeds = kept_seeds(either)
    assert len(seeds) == len({seed for of_version in seeds.values() for seed in of_version}) / 2 == 4
    async with either.client() as clinic:
        for name in names:
            assert await clinic.reveal((await clinic.data(name))["s"] * 2) == pytest.approx(2 * x, abs=1e-3)
    assert fresh(either) == [0, 0, 0]


async def test_an_item_whose_run_fails_is_spent_and_nothing_stays_of_it(either: Any) -> None:
    """Whenever it fails: before the dealer has sent it, at the parties, or on the way."""
    async with either.client() as clinic:
        s = clinic.share([0.5], low=-1, high=1)
        await clinic.stock({"s": s * s}, 4)
        dealer = either.servers["dealer"]
        remember = dealer._coordinator.remember

        async def broken(*_: Any) -> None:
            raise TesseraError("the disk is full")

        dealer._coordinator.remember = broken
        with pytest.raises(TesseraError, match="the disk is full"):
            await clinic.keep({"s": s * s}, "result")
        assert used(either)[0] == 1
        dealer._coordinator.remember = remember
        for server, kind in (("dealer", Dealt), ("party1", Opening)):
            either.corrupt(server, kind, lambda message, buffers: [])
            with pytest.raises(TesseraError):
                await clinic.keep({"s": s * s}, "result")
            either.restore(server)
            await nothing_pending(either)
            assert not kept_seeds(either)
        prepared = await clinic._prepare(clinic._written({"s": s * s}), single=False, keep="result")
        assert prepared.account.from_stock
        await clinic.release(prepared)
        await nothing_pending(either)
        assert used(either)[0] == 4
        assert not kept_seeds(either)
        kept = await clinic.keep({"s": s * s}, "result")
        assert not clinic.last_run.from_stock
        assert await clinic.reveal(kept["s"]) == pytest.approx([0.25], abs=1e-3)


async def test_a_dealer_whom_nobody_tells_forgets_by_itself(site: Any) -> None:
    async with site.client() as clinic:
        s = clinic.share([0.5], low=-1, high=1)
        await clinic.stock({"s": s * s}, 1)
        for name in PARTIES:
            site.corrupt(name, Message, lambda m, b: [] if isinstance(m, Agreed | Failed) else [(m, b)])
        clinic._board.tell = lambda *_: None
        with pytest.raises(PeerLost, match="which preprocessing it uses"):
            await clinic.keep({"s": s * s}, "result")
        await nothing_pending(site)


async def test_an_item_that_a_party_has_used_makes_no_second_version(either: Any) -> None:
    """The dealer's stock is an old copy: it would give two versions one mask; a party knows better."""
    async with either.client() as clinic:
        s = clinic.share([0.5], low=-1, high=1)
        await clinic.stock({"s": s * s}, 2)
        kept = await clinic.keep({"s": s * s}, "first")
        (seeds,) = kept_seeds(either).values()
        await clinic.keep({"s": s * s}, "second")
        assert used(either) == [2, 2, 2]
        dealer = either.servers["dealer"]
        item, record = dealer_copy(dealer)
        dealer.stock.assign = lambda program, run: (item, record)
        with pytest.raises(TesseraError, match="used here"):
            await clinic.keep({"s": s * s}, "third")
        del dealer.stock.assign
        await nothing_pending(either)
        assert len(kept_seeds(either)) == 2
        assert kept_seeds(either)[kept.version] == seeds
        assert await clinic.reveal(kept["s"]) == pytest.approx([0.25], abs=1e-3)


def dealer_copy(dealer: Any) -> tuple[Any, list[memoryview]]:
    """What an old copy of the dealer's stock would assign again: the first item, of whatever content."""
    first = next(iter(dealer.stock.history())).item
    return first, [memoryview(bytes(8)), memoryview(bytes(32)), memoryview(bytes(32)), memoryview(bytes(32))]


# -- other owners' secrets -------------------------------------------------------------------------------------------


async def test_a_rule_for_two_secrets_is_for_these_two(site: Any) -> None:
    """What the company allows is a program on the clinic's data, by its owner and name, in whatever version."""
    x = np.full((1, 3), 0.5)
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        m, data = await clinic.model("m"), await clinic.upload(DataSet({"x": x}, low=-1, high=1), "trial")
        other = await clinic.upload(DataSet({"x": x}, low=-1, high=1), "other")
        await company.allow("m", "clinic", [clinic.digest(m(data["x"]) * 2)])
        assert (await clinic.reveal(m(data["x"]) * 2)).mean() == pytest.approx(2.5, abs=1e-2)
        with pytest.raises(NotPermitted):
            await clinic.reveal(m(other["x"]) * 2)
        # What is bound is another version than the slot's.
        trial, own = data.slot, other.version

        def forged(message: Prepare) -> Prepare:
            bindings = (replace(b, version=own) if b.slot == trial else b for b in message.bindings)
            return replace(message, bindings=tuple(bindings))

        for server in ("dealer", *PARTIES):
            honest = clinic._board.send
            tell_otherwise(clinic, server, forged)
            with pytest.raises(ProgramError, match="not in use here"):
                await clinic.reveal(m(data["x"]) * 2)
            clinic._board.send = honest
        data = await clinic.upload(DataSet({"x": -x}, low=-1, high=1), "trial")
        assert (await clinic.reveal(m(data["x"]) * 2)).mean() == pytest.approx(-0.5, abs=1e-2)
