"""What a rule, a version or a removal ends, everywhere and at once; and how often a rule may be used."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mpc.errors import LimitReached, NotPermitted, ProgramError, RunExpired, TesseraError, UsageError
from mpc.security import Security
from parties import KeyPair, Settings
from parties.client.remote_data import RemoteData
from parties.messages.rules import NewerRules, Rule, RuleSet, RulesKnown
from parties.messages.runs import ClientMasks, Dealt, Inputs, Opening, Outputs, Ready
from parties.messages.uploads import VersionPrepared
from parties.stored import rule_tables
from parties.stored.data_set import DataDescription
from parties.stored.rules import is_signed, signed
from parties.wire.messages import Message

from .conftest import opened
from .rules_given import tell
from .test_bindings import image, nothing_pending, tell_otherwise
from .test_model_keeping import PARTIES, model, scale_of
from .test_rules import SERVERS, book

RUN = (Dealt, ClientMasks, Ready, Opening, Outputs, VersionPrepared)
"""What a server says in a run that goes on."""

ENDS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "nothing any more": lambda company: company.allow("m", "clinic", []),
    "another rule": lambda company: company.allow("m", "clinic", ["0" * 64]),
    "the same again": lambda company: company.allow("m", "clinic"),
    "a limit": lambda company: company.allow("m", "clinic", runs=5),
    "a new version": lambda company: company.upload(model(0.25), "m"),
    "removal": lambda company: company.remove("m"),
}


def listen(site: Any, server: str, heard: list[Message]) -> None:
    """Puts down what that server says in runs from now on."""

    def change(message: Any, buffers: list[Any]) -> Any:
        heard.append(message)
        return [(message, buffers)]

    site.corrupt(server, RUN, change)


@pytest.mark.parametrize("how", ENDS)
async def test_what_ends_a_prepared_run(site: Any, how: str) -> None:
    """Its client may hold it as long as it likes, and send its inputs whatever it is told."""
    heard: list[Message] = []
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        m = await clinic.model("m")
        prepared = [await clinic.prepare(m(image(clinic))) for _ in range(3)]
        own = await clinic.prepare(clinic.share([0.5], low=-1, high=1) * 2)
        masked = prepared[1].masked_inputs()
        await ENDS[how](company)
        for server in SERVERS:
            listen(site, server, heard)
        for server in PARTIES:
            assert list(site.servers[server].jobs) == [own.run]
        with pytest.raises((NotPermitted, ProgramError)):
            await clinic.finish(prepared[0])
        for party in PARTIES:
            clinic._board.send(party, Inputs(run=prepared[1].run, masks="", signature=b""), masked)
        await asyncio.sleep(0.1)
        assert not heard
        for server in SERVERS:
            site.restore(server)
        # What has nothing to do with it goes on.
        assert await clinic.finish(own) == pytest.approx([1.0], abs=1e-3)


MOMENTS: dict[str, tuple[str, type[Message]]] = {
    "dealt": ("dealer", Dealt),
    "ready": ("party1", Ready),
    "opening": ("party1", Opening),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_honest_server_says_no_further_word(either: Any, moment: str) -> None:
    """Between any two messages of a run its rule ends at party 0 alone; the other servers go on, as a cheat's would."""
    liar, kind = MOMENTS[moment]
    heard: list[Message] = []
    ended = asyncio.Event()
    honest = either.servers["party0"]

    def revoke(message: Any, buffers: list[Any]) -> Any:
        if not ended.is_set():
            ended.set()
            tell(honest._secrets.rules, either, "company", "m", "clinic", ())
            honest.end_forbidden()
            listen(either, "party0", heard)
        return [(message, buffers)]

    async with either.client("company") as company, either.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        m = await clinic.model("m")
        either.corrupt(liar, kind, revoke)
        with pytest.raises(TesseraError):
            await clinic.reveal(m(image(clinic)))
        assert ended.is_set()
        assert not heard
    await nothing_pending(either)


async def test_a_result_that_is_kept_needs_leave_until_it_is_kept(site: Any) -> None:
    """The rule ends when the parties are done, and the result is not in use yet."""
    async with site.client("company") as company, site.client() as clinic:
        first = await company.upload(model(0.5), "m")
        await company.allow("m", "clinic", schema=True)
        m = await clinic.model("m")
        await company.allow("m", "clinic", [clinic.digest({"y": m(image(clinic))})])
        assert first.slot == (await clinic.model("m")).slot
        held: list[Any] = []
        site.corrupt("party1", VersionPrepared, lambda m, b: held.append(m) or [])
        keeping = asyncio.create_task(clinic.keep({"y": m(image(clinic))}, "result"))
        await site.until(lambda: held)
        await company.allow("m", "clinic", [])
        site.restore("party1")
        site.servers["party1"].endpoint.send("dealer", held[0])
        with pytest.raises(TesseraError):
            await keeping
        await nothing_pending(site)
        assert [entry.name for entry in await clinic.models()] == []


async def test_leave_for_a_result_that_is_being_kept_cannot_be_had_in_advance(either: Any) -> None:
    """An accomplice of party 1's learns the version that another's result will be, and asks for it beforehand."""
    site = either
    async with site.client("company") as company, site.client() as clinic:
        s = company.share([0.5], low=-1, high=1)
        held: list[Any] = []
        site.corrupt("party1", VersionPrepared, lambda m, b: held.append(m) or [])
        keeping = asyncio.create_task(company.keep({"s": s * s}, "result"))
        await site.until(lambda: held)
        version, party0 = held[0].version, site.servers["party0"]._secrets
        await site.until(lambda: version in party0._prepared)
        described = DataDescription.decode(party0._prepared[version].record.description)
        remote = RemoteData("result", "company", version, described)
        clinic._slots.note(remote)
        for _ in range(2):
            with pytest.raises(ProgramError, match="not in use here"):
                await clinic.prepare(remote["s"])
        site.restore("party1")
        site.servers["party1"].endpoint.send("dealer", held[0])
        await keeping
        with pytest.raises(NotPermitted):
            await clinic.prepare(remote["s"])


@pytest.mark.parametrize("server", SERVERS)
async def test_a_result_has_one_name_at_all_members(site: Any, server: str) -> None:
    """Kept under another name at one of them, it would take a name there that it has not at the others."""
    async with site.client() as clinic:
        s = clinic.share([0.5], low=-1, high=1)
        honest = clinic._board.send
        tell_otherwise(clinic, server, lambda message: replace(message, keep="other"))
        with pytest.raises(TesseraError):
            await clinic.keep({"s": s * s}, "result")
        clinic._board.send = honest
        await nothing_pending(site)
        assert await clinic.models() == []
        await clinic.keep({"s": s * s}, "result")


async def test_prepared_runs_expire(tmp_path: Path) -> None:
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=1.5, prepared_timeout=1.0)
    async with opened(tmp_path, Security.SEMI_HONEST, settings=settings) as site, site.client() as clinic:
        prepared = await clinic.prepare(clinic.share([0.5], low=-1, high=1) * 2)
        await site.settled()
        with pytest.raises(RunExpired, match=r"no inputs within prepared_timeout \(1 s\)"):
            await clinic.finish(prepared)
        in_time = await clinic.prepare(clinic.share([0.5], low=-1, high=1) * 2)
        assert await clinic.finish(in_time) == pytest.approx([1.0], abs=1e-3)


async def test_who_has_gone_ends_runs_on_what_it_has_left(site: Any) -> None:
    """The owner is no client of the next cluster file; its data lie where they are."""
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        m = await clinic.model("m")
        prepared = await clinic.prepare(m(image(clinic)))
        own = await clinic.prepare(clinic.share([0.5], low=-1, high=1) * 2)
        party = site.servers["party0"]
        party.cluster = dataclasses.replace(party.cluster, clients=(site.cluster.member("clinic"),))
        party._secrets.follow(party.cluster)
        party.end_forbidden()
        assert list(party.jobs) == [own.run]
        with pytest.raises(ProgramError, match="not in use here"):
            await clinic.finish(prepared)
        assert await clinic.finish(own) == pytest.approx([1.0], abs=1e-3)


# -- how often -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def allowed(site: Any) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Of ``m``, which is the company's."""
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")

        async def allow(client: str = "clinic", **limits: int) -> None:
            await company.allow("m", client, **limits)

        yield allow


async def runs_of(client: Any, most: int) -> int:
    """How many predictions it gets before it is refused, of so many at most."""
    for made in range(most):
        try:
            assert await scale_of(client, "company/m") == 0.5
        except LimitReached:
            return made
    return most


async def test_runs_in_all_whatever_crashes(site: Any, allowed: Any) -> None:
    await allowed(runs=4)
    async with site.client() as clinic:
        assert await runs_of(clinic, 2) == 2
        # One that is given up has been counted, at all servers.
        m = await clinic.model("m")
        await clinic.release(await clinic.prepare(m(image(clinic))))
    await site.restart(*SERVERS)
    async with site.client() as clinic:
        assert await runs_of(clinic, 9) == 1
        with pytest.raises(LimitReached, match="allows 4 runs in all, and they have been made"):
            await scale_of(clinic)
        # Given again it begins anew.
        await allowed(runs=2)
        assert await runs_of(clinic, 9) == 2


async def test_runs_on_a_day_whose_clock_goes_forward_alone(
    site: Any, allowed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(rule_tables, "today", lambda: int(now // rule_tables.DAY))
    await allowed(per_day=2)
    async with site.client() as clinic:
        assert await runs_of(clinic, 9) == 2
        with pytest.raises(LimitReached, match="allows 2 runs a day"):
            await scale_of(clinic)
        now += rule_tables.DAY
        assert await runs_of(clinic, 9) == 2
        now -= 5 * rule_tables.DAY
        assert await runs_of(clinic, 9) == 0


async def test_runs_for_each_client_and_of_all_together(site: Any, allowed: Any) -> None:
    await allowed("*", per_client=2, runs=3)
    async with site.client() as clinic:
        assert await runs_of(clinic, 9) == 2
    async with site.client("company") as company:
        # Its owner is not counted.
        assert await runs_of(company, 5) == 5
        for server in SERVERS:
            held = site.servers[server]
            (use,) = _uses(held)
            tables = (held._versions if server == "dealer" else held._disk).rules
            tables.count([use._replace(client="other")])
            with pytest.raises(LimitReached, match="3 runs in all"):
                tables.count([use._replace(client="other")])


def _uses(server: Any) -> list[rule_tables.Use]:
    policy = server.gate.look_up("company/m").policy
    return [rule_tables.Use("company/m", "clinic", rule, limits) for rule, limits in policy.of("clinic").items()]


@pytest.mark.parametrize("honest", SERVERS)
async def test_one_server_that_counts_is_enough(site: Any, allowed: Any, honest: str) -> None:
    """The others have forgotten how often, as cheats or with old copies of their folders."""
    await allowed(runs=2)
    async with site.client() as clinic:
        assert await runs_of(clinic, 2) == 2
        for server in SERVERS:
            if server != honest:
                held = site.servers[server]
                with (held._versions if server == "dealer" else held._disk).vault.transaction() as db:
                    db.execute("DELETE FROM counted")
        for _ in range(3):
            with pytest.raises(LimitReached):
                await scale_of(clinic)


async def test_a_rule_that_is_used_up_leaves_others(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic", ["predict"], runs=1)
        await company.allow("m", "*", ["predict", "any"], runs=2)
        m = await clinic.model("m")
        for _ in range(1 + 2 + 2):
            await clinic.reveal(m(image(clinic)))
        with pytest.raises(LimitReached):
            await clinic.reveal(m(image(clinic)))


async def test_many_runs_at_once_are_counted_one_by_one(site: Any, allowed: Any) -> None:
    await allowed(runs=5)
    async with site.client() as clinic:
        m = await clinic.model("m")
        x = image(clinic)
        made = await asyncio.gather(*(clinic.reveal(m(x)) for _ in range(12)), return_exceptions=True)
        refused = [one for one in made if isinstance(one, LimitReached)]
        assert 7 <= len(refused) < 12
        assert len(made) - len(refused) == sum(not isinstance(one, BaseException) for one in made)
        assert await runs_of(clinic, 9) == 0


async def test_a_program_on_two_counted_secrets_takes_of_both_or_of_none(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        for name in ("m", "n"):
            await company.upload(model(0.5), name)
            await company.allow(name, "clinic", ["any"], runs=3 if name == "m" else 2)
        m, n = await clinic.model("m"), await clinic.model("n")
        x = image(clinic)
        for _ in range(2):
            await clinic.reveal(m(x) + n(x))
        for _ in range(3):
            with pytest.raises(LimitReached, match="'company/n'"):
                await clinic.reveal(m(x) + n(x))
        await clinic.reveal(m(x))
        with pytest.raises(LimitReached, match="'company/m'"):
            await clinic.reveal(m(x))


# -- lost disks ------------------------------------------------------------------------------------------------------


def lose(site: Any, server: str) -> None:
    site.data(server).rename(site.folder / f"{server}-{time.monotonic_ns()}")


@pytest.mark.parametrize("server", SERVERS)
async def test_rules_outlast_a_lost_disk(site: Any, server: str) -> None:
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
    await site.stop(server)
    lose(site, server)
    await site.start(server)
    async with site.client("company") as company, site.client() as clinic:
        if server in PARTIES:
            with pytest.raises(UsageError, match=f"{server} has no 'm' for us, .* must upload it again"):
                await clinic.model("m")
        await company.upload(model(0.25), "m")
        assert await scale_of(clinic) == 0.25
        (entry,) = await company.models()
        assert not entry.unequal
        assert str(entry.rules[0]) == "predict"
        assert {held.held(company.member, "m") for held in (book(site, s) for s in SERVERS)} == {
            book(site, server).held(company.member, "m")
        }


async def test_rules_come_with_the_upload_though_servers_tell_each_other_nothing(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        for number in (1, 2):
            await company.allow("m", "clinic", ["any"] if number == 1 else [])
        await company.allow("m", "clinic", ["predict"])
    await site.stop("party0")
    lose(site, "party0")
    monkeypatch.setattr("parties.servers.rules_desk.RulesDesk.begin", lambda _: None)
    for server in ("dealer", "party1"):
        site.corrupt(server, (NewerRules, RulesKnown), lambda message, buffers: [])
    await site.start("party0")
    async with site.client("company") as company:
        assert book(site, "party0").held(company.member, "m") is None
        await company.upload(model(0.25), "m")
        assert book(site, "party0").held(company.member, "m").rules.number == 3


async def test_who_was_away_hears_of_it_from_the_others(site: Any) -> None:
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic", ["any"])
    await site.stop("party1")
    member = site.cluster.member("company")
    tell(book(site, "dealer"), site, "company", "m", "clinic", ())
    await site.start("party1")
    await site.until(lambda: book(site, "party1").grants(member, "m") == {})
    # And one that was there, from whoever was told first.
    async with site.client("company") as company:
        new = signed(site.keys["company"], site.cluster, company.member, RuleSet("company", "m", 3))
        await company._own_rules._tell(new, ["dealer"])
        await site.until(lambda: {book(site, s).held(member, "m").rules.number for s in SERVERS} == {3})


async def test_an_owner_with_a_new_key_signs_what_all_servers_have(site: Any) -> None:
    """Whoever has the former key says nothing any more; what was allowed by it stays."""
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic", runs=3)
        await company.allow("m", "*", schema=True)
    former, member = site.keys["company"], site.cluster.member("company")
    stolen = signed(former, site.cluster, member, RuleSet("company", "m", 99, (Rule("clinic", "any", 99),)))
    site.keys["company"] = KeyPair.generate()
    later = dataclasses.replace(member, key=site.keys["company"].public, origin=member.key)
    site.cluster = dataclasses.replace(site.cluster, clients=(site.cluster.member("clinic"), later))
    await site.stop(*SERVERS)
    await site.start(*SERVERS)
    async with site.client("company") as company, site.client() as clinic:
        before = await company.rules("m")
        assert [str(rule) for rule in before] == ["predict, 3 runs in all", "schema"]
        for server in SERVERS:
            bringer = "party1" if server != "party1" else "party0"
            site.servers[bringer].endpoint.send(server, NewerRules(), stolen.payload)
        await company.upload(model(0.25), "m")
        assert await company.rules("m") == before
        for server in SERVERS:
            held = book(site, server).held(later, "m")
            assert (held.rules.number, is_signed(site.cluster, held)) == (3, True)
        assert await scale_of(clinic) == 0.25
