"""Owners' rules at the servers: each enforces them by itself, keeps them, and hears only their owner about them."""

from __future__ import annotations

from typing import Any

import pytest

from mpc.errors import NameTaken, NoSuchName, NotPermitted, UsageError
from parties.messages.bindings import Binding
from parties.messages.conversation import RequestFailed
from parties.messages.failures import error_of
from parties.messages.runs import Failed, Prepare
from parties.messages.stock import Stock
from parties.messages.stored import AllowUse
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of

from .test_model_keeping import ID, IMAGE, PARTIES, model, scale_of, speaking

SERVERS = ("dealer", *PARTIES)


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
        bindings = (Binding(remote.slot, remote.version, "any"),)
        async with speaking(site, "clinic") as ask:
            for number, server in enumerate(SERVERS):
                answer = await ask(server, Prepare(run=f"{number:032x}", bindings=bindings), program.encode())
                assert isinstance(answer, Failed)
                assert isinstance(error_of(answer.fault, server), NotPermitted)
            answer = await ask("dealer", Stock(request=ID, count=1, low_water=0, bindings=bindings), program.encode())
            assert isinstance(answer, RequestFailed)
            assert isinstance(error_of(answer.fault, "dealer"), NotPermitted)


async def test_only_its_owner_says_who_may_use_a_model(site: Any) -> None:
    async with site.client("company") as company:
        await company.upload(model(), "m")
        async with speaking(site, "clinic") as ask:
            for server in SERVERS:
                for name, reason in (("m", "belongs to company"), ("other", "nothing is stored")):
                    message = AllowUse(request=ID, name=name, client="clinic", programs=("any",))
                    answer = await ask(server, message)
                    assert isinstance(answer, RequestFailed)
                    assert isinstance(error_of(answer.fault, server), NameTaken if name == "m" else NoSuchName)
                    assert reason in answer.fault.reason
        async with speaking(site, "company") as ask:
            for server in SERVERS:
                answer = await ask(server, AllowUse(request=ID, name="m", client="nobody", programs=("predict",)))
                assert isinstance(answer, RequestFailed)
                assert "no client called 'nobody'" in answer.fault.reason
    async with site.client("company") as company:
        for client, programs in (("nobody", ["predict"]), ("party0", ["predict"]), ("clinic", ["everything"])):
            with pytest.raises(NoSuchName if programs == ["predict"] else UsageError):
                await company.allow("m", client, programs)


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
        clinic._slots.note(remote)
        party1 = site.servers["party1"]._secrets
        party1.allow(site.cluster.member("company"), "m", "clinic", ())
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
