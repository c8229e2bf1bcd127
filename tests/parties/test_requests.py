"""Joint use: clients ask owners for leave, who see the program itself, decide, and are believed by their signature."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from mpc.errors import LimitReached, NoSuchName, NotPermitted, ProgramError, ServerBusy, UsageError
from mpc.program import Program
from parties import DataSet, KeyPair
from parties.client.request_entries import State
from parties.messages.conversation import RequestFailed
from parties.messages.failures import error_of
from parties.messages.requests import (
    CLOCKS,
    LIFETIME,
    AskLeave,
    DecideLeave,
    Decision,
    FetchProgram,
    ListRequests,
    ProgramFound,
    RequestList,
    Signed,
    UseRequest,
    entry_in,
)
from parties.stored import requests
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of

from .test_model_keeping import ID
from .test_uploads import speaking

SERVERS = ("dealer", "party0", "party1")
AGES = np.linspace(0.2, 0.9, 40).reshape(20, 2)


def trial(values: Any = AGES) -> DataSet:
    return DataSet({"age": values}, low=-1, high=1)


def book_of(site: Any, server: str) -> Any:
    """What a server has of requests."""
    return site.servers[server]._handlers[ListRequests][0].__self__._book


async def asked(site: Any, company: Any, clinic: Any, why: str = "to learn") -> tuple[str, Any]:
    """The digest of a program on the company's data that the clinic has asked about, and its expression."""
    await company.upload(trial(), "trial")
    await company.allow("trial", "clinic", schema=True)
    ages = (await clinic.data("trial"))["age"]
    result = ages.T @ ages
    return await clinic.request(result, why), result


async def test_a_program_is_asked_for_shown_approved_and_run(either: Any) -> None:
    async with either.client("company") as company, either.client() as clinic:
        digest, result = await asked(either, company, clinic)
        assert digest == clinic.digest(result)
        with pytest.raises(NotPermitted):
            await clinic.reveal(result)
        (entry,) = await company.requests()
        assert (entry.program, entry.client, entry.why, entry.state) == (digest, "clinic", "to learn", State.ASKED)
        assert entry.held_by == SERVERS
        assert not entry.missing
        words = str(await company.show(digest))
        assert "company/trial 'age': 20 x 2" in words
        assert "gives    clinic 4 numbers" in words
        assert "0.2 for each of the 20 rows" in words
        assert "!!" not in words
        approved = await company.approve(digest)
        assert approved.state is State.APPROVED
        assert await clinic.approved(digest, 1)
        assert np.abs(await clinic.reveal(result) - AGES.T @ AGES).max() < 1e-2
        (entry,) = await clinic.requests()
        assert entry.state is State.APPROVED
        assert "company/trial, version" in entry.depends[0]


async def test_what_is_denied_is_told_with_the_reason_and_taken_back(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, result = await asked(site, company, clinic)
        await company.approve(digest)
        await clinic.reveal(result)
        await company.deny(digest, why="too much\x1b[2J")
        (entry,) = await clinic.requests()
        assert (entry.state, entry.standings["company"].note) == (State.DENIED, "too much [2J")
        with pytest.raises(NotPermitted, match=r"company does not let us run program .*: too much"):
            await clinic.approved(digest, 5)
        with pytest.raises(NotPermitted):
            await clinic.reveal(result)
        # What it may see it sees still.
        assert (await clinic.data("trial"))["age"].shape == (20, 2)


async def test_waiting_ends_with_the_decision_or_the_time(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic)
        assert not await clinic.approved(digest, 0.01)
        waiting = asyncio.create_task(clinic.approved(digest, 5))
        await company.approve(digest)
        assert await waiting
        with pytest.raises(NoSuchName, match="no request for the program"):
            await clinic.approved("0" * 64, 1)


async def test_schema_lets_a_client_see_and_ask_and_run_nothing(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(trial(), "trial")
        with pytest.raises(NotPermitted, match="for us"):
            await clinic.data("trial")
        await company.allow("trial", "clinic", schema=True)
        ages = (await clinic.data("trial"))["age"]
        assert ages.shape == (20, 2)
        for result in (ages.sum(), ages, ages * ages):
            with pytest.raises(NotPermitted, match="may not run this program"):
                await clinic.reveal(result)


async def test_nobody_asks_about_what_it_may_not_know_of(site: Any) -> None:
    """And what is not there is refused in the same words as what is not for it to see."""
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(trial(), "trial")
        ages = (await company.data("trial"))["age"]
        said = []
        for name in ("trial", "nothing"):
            program = plan(graph_of([ages.sum()]))
            first, *rest = program.nodes
            first = replace(first, operation=replace(first.operation, slot=f"company/{name}"))
            program = Program([first, *rest], program.outputs, program.precision)
            with pytest.raises(NotPermitted) as refused:
                await clinic.request(program, "why not")
            said.append(str(refused.value).partition(" says: ")[2].replace(name, "NAME"))
        assert said[0] == said[1]
        assert await company.requests() == []


async def test_two_owners_and_each_has_a_say(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(trial(), "trial")
        await company.allow("trial", "clinic", schema=True)
        await clinic.upload(trial(AGES / 2), "own")
        ours, theirs = (await clinic.data("own"))["age"], (await clinic.data("trial"))["age"]
        result = ours.T @ theirs
        digest = await clinic.request(result, "joint")
        # Linear in the company's data, for who has the other part.
        assert "LINEAR in company/trial" in str(await company.show(digest))
        entry = await company.approve(digest)
        assert "depends on what clinic puts in: clinic/own" in entry.depends[-1]
        assert await clinic.approved(digest, 1)
        assert np.abs(await clinic.reveal(result) - (AGES / 2).T @ AGES).max() < 1e-2


async def test_a_comparison_is_said_and_a_count_by_it_is_of_everybody(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        many = np.linspace(0, 1, 60).reshape(30, 2)
        await company.upload(trial(many), "trial")
        await company.allow("trial", "clinic", schema=True)
        age = (await clinic.data("trial"))["age"]
        result = ((age[:, 0] > 0.5) * age[:, 1]).sum() + (age[:, 1] > 0.25).sum()
        words = str(await company.show(await clinic.request(result, "how many are above")))
        assert "comparison" in words
        assert "!!" not in words


async def test_an_approval_ends_with_other_types_and_not_with_other_values(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic)
        await company.approve(digest)
        await company.upload(trial(AGES / 2), "trial")
        for client in (company, clinic):
            (entry,) = await client.requests()
            assert entry.state is State.APPROVED
            assert "is at version" in entry.standings["company"].note
        await company.upload(trial(AGES[:10]), "trial")
        for client in (company, clinic):
            (entry,) = await client.requests()
            assert entry.state is State.ENDED
            assert "has other types now" in entry.standings["company"].note
        with pytest.raises(UsageError, match="has other types than this program reads"):
            await company.approve(digest)
        await company.allow("trial", "clinic", [])
        (entry,) = await company.requests()
        assert (entry.state, "not allowed any more" in entry.standings["company"].note) == (State.ENDED, True)


async def test_a_part_of_what_is_read_may_be_approved(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        for name in ("trial", "more"):
            await company.upload(trial(), name)
            await company.allow(name, "clinic", schema=True)
        result = ((await clinic.data("trial"))["age"] * (await clinic.data("more"))["age"]).sum()
        digest = await clinic.request(result, "both")
        with pytest.raises(UsageError, match="reads no 'else' of ours: it reads trial, more"):
            await company.approve(digest, names=["else"])
        entry = await company.approve(digest, names=["more"])
        assert (entry.state, entry.standings["company"].note) == (State.ASKED, "approved, but not for company/trial")
        assert not await clinic.approved(digest, 0.01)
        with pytest.raises(NotPermitted):
            await clinic.reveal(result)
        assert (await company.approve(digest)).state is State.APPROVED
        await clinic.reveal(result)


async def test_an_approval_may_be_for_so_many_runs(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, result = await asked(site, company, clinic)
        with pytest.raises(UsageError, match="at least one run"):
            await company.approve(digest, runs=0)
        entry = await company.approve(digest, runs=1)
        assert entry.depends[0] == "holds for company/trial so often: 1 run in all"
        assert await clinic.approved(digest, 1)
        await clinic.reveal(result)
        with pytest.raises(LimitReached):
            await clinic.reveal(result)
        await company.approve(digest)
        assert (await company.requests())[0].depends[0].startswith("holds for company/trial, version")
        await clinic.reveal(result)


async def test_requests_outlast_restarts_and_expire(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic)
        await company.approve(digest, why="go on")
    await site.restart(*SERVERS)
    async with site.client("company") as company, site.client() as clinic:
        (entry,) = await clinic.requests()
        assert (entry.state, entry.standings["company"].note) == (State.APPROVED, "go on")
        await company.show(digest)
        later = time.time() + LIFETIME + 1
        with monkeypatch.context() as patch:
            patch.setattr(requests.time, "time", lambda: later)
            assert await clinic.requests() == []
        for server in SERVERS:
            # A server that still shows it is not believed for long.
            book = book_of(site, server)
            monkeypatch.setattr(book, "_alive", lambda book=book: book._held)
        assert len(await clinic.requests()) == 1
        later += CLOCKS
        monkeypatch.setattr(requests.time, "time", lambda: later)
        assert await clinic.requests() == []
        with pytest.raises(NoSuchName):
            await company.show(digest)


async def test_a_request_goes_with_the_key_that_has_signed_it(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await asked(site, company, clinic)
    book = book_of(site, "party0")
    company = site.cluster.member("company")
    assert len(book.seen_by(company)) == 1
    other = KeyPair.generate().public
    clients = tuple(dataclasses.replace(c, key=other) if c.name == "clinic" else c for c in site.cluster.clients)
    site.servers["party0"].cluster = dataclasses.replace(site.cluster, clients=clients)
    assert book.seen_by(company) == []


async def test_what_is_withdrawn_is_gone(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic)
        with pytest.raises(NoSuchName):
            await company.withdraw(digest)
        await clinic.withdraw(digest)
        assert await company.requests() == await clinic.requests() == []
        with pytest.raises(NoSuchName):
            await company.approve(digest)


async def test_asked_anew_nothing_is_decided(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, result = await asked(site, company, clinic)
        await company.deny(digest, why="say more")
        await clinic.request(result, "since we need the second moments")
        (entry,) = await company.requests()
        assert (entry.state, entry.why) == (State.ASKED, "since we need the second moments")


async def test_room_for_requests_is_bounded(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MOST_OF_A_CLIENT", 2)
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic)
        ages = (await clinic.data("trial"))["age"]
        await clinic.request(ages.sum(), "two")
        with pytest.raises(ServerBusy, match="withdraw one"):
            await clinic.request(ages.sum(axis=0), "three")
        # To ask anew takes no more room.
        await clinic.request(ages.sum(), "two, again")
        await clinic.withdraw(digest)
        await clinic.request(ages.sum(axis=0), "three")
        monkeypatch.setattr(requests, "MOST_OF_A_CLIENT", 9)
        monkeypatch.setattr(requests, "MOST_OF_AN_OWNER", 2)
        with pytest.raises(ServerBusy, match="company is asked about 2"):
            await clinic.request(ages.sum(axis=1), "four")
        for entry in await company.requests():
            await company.deny(entry.program, why="no")
        await clinic.request(ages.sum(axis=1), "four")
        monkeypatch.setattr(requests, "MOST_BYTES_OF_A_CLIENT", 10)
        with pytest.raises(ServerBusy):
            await clinic.request(ages.sum(axis=1) * 2.0, "five")


# -- servers and clients that cheat ----------------------------------------------------------------------------------


async def test_a_server_can_neither_hide_a_request_nor_an_answer(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic)
        site.corrupt("party0", RequestList, lambda message, _: [(message, [])])
        (entry,) = await company.requests()
        assert (entry.state, entry.held_by, entry.missing) == (State.ASKED, ("dealer", "party1"), ("party0",))
        assert (await company.show(digest)).client == "clinic"
        await company.deny(digest, why="no")
        with pytest.raises(NotPermitted):
            await clinic.approved(digest, 1)


async def test_a_server_can_make_up_neither_requests_nor_answers(site: Any) -> None:
    """Nor change a word of them, nor put one owner's answer to one request beside another."""
    async with site.client("company") as company, site.client() as clinic:
        digest, result = await asked(site, company, clinic, "first")
        await company.approve(digest)
        (old,) = await company.requests()
        await asyncio.sleep(0.01)
        await clinic.request(result, "second")
        keys = site.keys["party0"]

        def forged(message: Any, buffers: list[Any]) -> Any:
            (entry,) = [entry_in(memoryview(buffer)) for buffer in buffers]
            mine = replace(old.said, why="signed by another").signed(keys, site.cluster)
            changed = Signed(entry.request.said.replace(b"second", b"SECOND"), entry.request.signature)
            yes = Decision("company", "clinic", digest, old.said.when, True, time.time())
            answers = (yes.signed(keys, site.cluster), *entry.decisions)
            lies = [replace(entry, request=mine), replace(entry, request=changed), replace(entry, decisions=answers)]
            return [(message, [msgspec.msgpack.encode(lie) for lie in lies])]

        site.corrupt("party0", RequestList, forged)
        for client in (company, clinic):
            (entry,) = await client.requests()
            assert (entry.state, entry.why) == (State.ASKED, "second")


async def test_a_server_cannot_show_another_program(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic)
        ages = (await clinic.data("trial"))["age"]
        other = plan(graph_of([ages.sum()])).encode()
        site.corrupt("dealer", ProgramFound, lambda message, _: [(message, [other])])
        assert (await company.show(digest)).program == digest


async def test_clients_speak_for_themselves_alone(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, result = await asked(site, company, clinic)
        (entry,) = await company.requests()
        program = plan(graph_of([result])).encode()
        yes = Decision("company", "clinic", digest, entry.said.when, True, time.time())
        own = UseRequest("clinic", digest, ("company/trial",), "why", time.time())
        keys, cluster = site.keys, site.cluster
        cases = {
            "another's name": (AskLeave, replace(own, client="company").signed(keys["clinic"], cluster), program),
            "no signature": (AskLeave, Signed(own.signed(keys["clinic"], cluster).said, bytes(64)), program),
            "another program": (AskLeave, replace(own, program="0" * 64).signed(keys["clinic"], cluster), program),
            "other slots": (AskLeave, replace(own, slots=("company/more",)).signed(keys["clinic"], cluster), program),
            "no program": (AskLeave, own.signed(keys["clinic"], cluster), b"nothing"),
            "years ahead": (AskLeave, replace(own, when=own.when + 1e8).signed(keys["clinic"], cluster), program),
            "the owner's part": (DecideLeave, yes.signed(keys["clinic"], cluster)),
            "the owner's word": (DecideLeave, yes.signed(keys["company"], cluster)),
        }
        async with speaking(site, "clinic") as ask:
            for server in SERVERS:
                for name, (kind, signed, *rest) in cases.items():
                    answer = await ask(server, kind(request=ID), signed.encode(), *rest)
                    assert isinstance(answer, RequestFailed), name
                answer = await ask(server, AskLeave(request=ID), bytes(1 << 20), program)
                assert isinstance(error_of(answer.fault, server), ProgramError)
        assert [entry.state for entry in await company.requests()] == [State.ASKED]


async def test_programs_are_their_askers_and_owners_to_see(site: Any) -> None:
    """A third client neither lists a request nor gets its program."""
    async with site.client("company") as company, site.client() as clinic:
        await clinic.upload(trial(), "own")
        await clinic.allow("own", "company", schema=True)
        ages = (await company.data("own"))["age"]
        digest = await company.request(ages.sum(), "why")
        stranger = dataclasses.replace(site.cluster.member("company"), name="stranger")
        book = book_of(site, "party0")
        assert book.seen_by(stranger) == []
        with pytest.raises(NoSuchName, match="no request of company"):
            book.program("company", digest, stranger)
        async with speaking(site, "clinic") as ask:
            assert isinstance(
                await ask("party0", FetchProgram(request=ID, client="company", program=digest)), ProgramFound
            )
