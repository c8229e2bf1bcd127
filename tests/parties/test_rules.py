"""Owners' rules at the servers: each enforces them by itself, keeps them, and hears only their owner about them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mpc.errors import NoSuchName, NotPermitted, UsageError
from parties.messages.bindings import Binding
from parties.messages.conversation import RequestFailed
from parties.messages.failures import error_of
from parties.messages.rules import AllowUse, NewerRules, Rule, RuleSet, UseAllowed
from parties.messages.runs import Failed, Prepare
from parties.messages.stock import Stock
from parties.stored.rules import RuleBook, signed
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of

from .rules_given import NO_RULE, tell
from .test_model_keeping import ID, IMAGE, PARTIES, model, scale_of
from .test_uploads import speaking

SERVERS = ("dealer", *PARTIES)


def book(site: Any, server: str) -> RuleBook:
    held = site.servers[server]
    book: RuleBook = (held._coordinator if server == "dealer" else held._secrets).rules
    return book


async def test_nobody_but_the_owner_until_it_allows_it(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        remote = await company.upload(model(0.5), "m")
        # Whoever knows the version's id by other means gets no further.
        clinic._slots.note(remote)
        with pytest.raises(NotPermitted, match="clinic may not use 'm': its owner company has to allow it"):
            await clinic.reveal(remote(clinic.share(IMAGE, low=-1, high=1)))
        with pytest.raises(NotPermitted, match="nothing called 'm' for us"):
            await clinic.model("m")
        await company.allow("m", "clinic")
        assert await scale_of(clinic) == 0.5
        weights = remote.description.stored(remote.slot)["out.weight"]
        with pytest.raises(NotPermitted, match="may only have 'm' predict"):
            await clinic.reveal(weights)
        await company.allow("m", "clinic", ["any"])
        assert (await clinic.reveal(weights)).mean() == pytest.approx(0.5, abs=1e-3)
        await company.allow("m", "clinic", [])
        with pytest.raises(NotPermitted):
            await clinic.reveal(remote(clinic.share(IMAGE, low=-1, high=1)))
        assert await scale_of(company) == 0.5


async def test_every_server_refuses_by_itself(site: Any) -> None:
    async with site.client("company") as company:
        remote = await company.upload(model(), "m")
        program = plan(graph_of([remote.description.stored(remote.slot)["out.weight"]]))
        bindings = (Binding(remote.slot, remote.version, NO_RULE),)
        async with speaking(site, "clinic") as ask:
            for number, server in enumerate(SERVERS):
                answer = await ask(server, Prepare(run=f"{number:032x}", bindings=bindings), program.encode())
                assert isinstance(answer, Failed)
                assert isinstance(error_of(answer.fault, server), NotPermitted)
            answer = await ask("dealer", Stock(request=ID, count=1, low_water=0, bindings=bindings), program.encode())
            assert isinstance(answer, RequestFailed)
            assert isinstance(error_of(answer.fault, "dealer"), NotPermitted)


def rules(number: int, *rules: Rule, owner: str = "company", name: str = "m") -> RuleSet:
    return RuleSet(owner, name, number, rules)


async def test_only_its_owner_says_who_may_use_a_model(site: Any) -> None:
    """In its own name, under its own key, for this cluster: whoever else says it, or says anything else, is refused."""
    anything = rules(9, Rule("clinic", "any", 9))
    member, keys = site.cluster.member, site.keys
    good = signed(keys["company"], site.cluster, member("company"), anything)
    elsewhere = signed(keys["company"], replace(site.cluster, name="elsewhere"), member("company"), anything)
    forgeries = {
        "by another": signed(keys["clinic"], site.cluster, member("company"), anything).payload,
        "for another cluster": elsewhere.payload,
        "of another purpose": [good.encoded, keys["company"].sign("else", b"within", good.encoded)],
        "other rules": [rules(10, Rule("clinic", "any", 9)).encode(), good.signature],
        "a bit more": [good.encoded + b"\0", good.signature],
        "short": [good.encoded, good.signature[:-1]],
        "no signature": [good.encoded],
        "nothing": [],
        "another's name": signed(keys["clinic"], site.cluster, member("clinic"), anything).payload,
        "a server's": signed(keys["party0"], site.cluster, member("party0"), rules(9, owner="party0")).payload,
        "rubbish": [b"\x93\x00", good.signature],
    }
    async with site.client("company") as company, speaking(site, "clinic") as ask:
        await company.upload(model(), "m")
        for server in SERVERS:
            for payload in (*forgeries.values(), good.payload):
                answer = await ask(server, AllowUse(request=ID), *payload)
                assert isinstance(answer, RequestFailed)
            # Nor do they come by way of a server.
            liar = site.servers["party1" if server != "party1" else "party0"].endpoint
            for payload in forgeries.values():
                liar.send(server, NewerRules(), payload)
        await asyncio.sleep(0.2)
        assert await company.rules("m") == ()
        assert all(book(site, server).held(member("company"), "m") is None for server in SERVERS)
    async with speaking(site, "company") as ask:
        for server in SERVERS:
            said = signed(keys["company"], site.cluster, member("company"), rules(9, Rule("nobody", "predict", 9)))
            answer = await ask(server, AllowUse(request=ID), *said.payload)
            assert isinstance(answer, RequestFailed)
            assert "no client called 'nobody'" in answer.fault.reason
    async with site.client("company") as company:
        for client, programs in (("nobody", ["predict"]), ("party0", ["predict"]), ("clinic", ["everything"])):
            with pytest.raises(NoSuchName if programs == ["predict"] else UsageError):
                await company.allow("m", client, programs)
        with pytest.raises(NoSuchName, match="nothing of yours is stored under 'other'"):
            await company.allow("other", "clinic")
        with pytest.raises(UsageError, match="a limit is at least 1"):
            await company.allow("m", "clinic", runs=0)


async def test_former_rules_are_no_rules_whoever_brings_them(site: Any) -> None:
    """What an owner has signed once and taken back, replayed by everybody, at once and after restarts."""
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic", ["any"])
        former = book(site, "dealer").held(site.cluster.member("company"), "m")
        await company.allow("m", "clinic", [])
        for restart in (False, True):
            if restart:
                await site.restart("party0")
            for bringer in ("dealer", "party1"):
                site.servers[bringer].endpoint.send("party0", NewerRules(), former.payload)
            async with speaking(site, "company") as ask:
                # Not an error: another process of its owner's has been quicker.
                answer = await ask("party0", AllowUse(request=ID), *former.payload)
                assert isinstance(answer, UseAllowed)
                assert answer.rules != former.digest
            assert book(site, "party0").grants(site.cluster.member("company"), "m") == {}
            with pytest.raises(NotPermitted, match="for us"):
                await clinic.model("m")
    async with site.client("company") as company:
        await company.remove("m")
        site.servers["dealer"].endpoint.send("party0", NewerRules(), former.payload)
        await company.upload(model(0.5), "m")
        assert await company.rules("m") == ()
        assert (await company.models())[0].allowed == {}


async def test_two_processes_of_an_owner_change_rules_at_once(site: Any) -> None:
    async with site.client("company") as first:
        await first.upload(model(), "m")
        changes = [first.allow("m", client, ["any"], runs=number) for number, client in enumerate("*", start=1)]
        changes += [first.allow("m", name, [program]) for name, program in (("clinic", "predict"), ("company", "any"))]
        await asyncio.gather(*changes)
        assert {rule.client for rule in await first.rules("m")} == {"*", "clinic", "company"}
        (entry,) = await first.models()
        assert not entry.unequal
        assert str(next(rule for rule in entry.rules if rule.client == "*")) == "any, 1 run in all"


async def test_rules_outlast_restarts_and_uploads_and_go_with_the_model(either: Any) -> None:
    async with either.client("company") as company:
        await company.upload(model(0.5), "m")
        await company.allow("m", "*")
    await either.restart(*SERVERS)
    async with either.client("company") as company, either.client() as clinic:
        assert await scale_of(clinic) == 0.5
        await company.upload(model(0.25), "m")
        assert await scale_of(clinic) == 0.25
        (entry,) = await company.models()
        assert entry.allowed == {"*": frozenset({"predict"})}
        await company.remove("m")
        await company.upload(model(0.25), "m")
        with pytest.raises(NotPermitted, match="for us"):
            await clinic.model("m")
        (entry,) = await company.models()
        assert entry.allowed == {}


async def test_one_party_that_has_not_been_told_is_enough_to_refuse(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        remote = await company.upload(model(), "m")
        await company.allow("m", "clinic")
        clinic._slots.note(remote, book(site, "dealer").grants(site.cluster.member("company"), "m")["clinic"])
        tell(site.servers["party1"]._secrets.rules, site, "company", "m", "clinic", ())
        with pytest.raises(NotPermitted, match="its owner company has to allow it"):
            await clinic.reveal(remote(clinic.share(IMAGE, low=-1, high=1)))
        # To others it is as if the model were not there, and to the owner, as if nothing were allowed.
        (entry,) = await company.models()
        assert entry.allowed == {}
        await company.allow("m", "clinic")
        assert await scale_of(clinic) == 1.0


async def test_others_learn_of_rules_only_what_concerns_them(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(), "m")
        await company.allow("m", "company", ["any"])
        await company.allow("m", "clinic")
        (entry,) = await clinic.models()
        assert entry.allowed == {"clinic": frozenset({"predict"})}
        (entry,) = await company.models()
        assert entry.allowed == {"clinic": frozenset({"predict"}), "company": frozenset({"any"})}
        assert entry.to_dict()["allowed"] == {"clinic": ["predict"], "company": ["any"]}
