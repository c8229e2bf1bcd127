"""Work is charged before it is done: to whoever asks for it, whatever it is, and given back when it is over."""

import asyncio
import contextlib

import numpy as np
import pytest

from mpc.errors import ProgramError, RemoteError, ServerBusy, TesseraError
from mpc.operation import Input
from mpc.program import Program
from mpc.program_format import nodes_announced
from nn import Linear, Model, Sequential
from parties.members.cluster import Member, Role
from parties.messages.cluster import ProposeFile
from parties.messages.conversation import WRITTEN
from parties.messages.requests import AskLeave, DecideLeave, WithdrawRequest
from parties.messages.rules import AllowUse, Rule, RuleSet
from parties.messages.runs import Opening, Prepare, Release
from parties.messages.stock import Agreed, Stock
from parties.messages.stored import ListSecrets, RemoveSecret
from parties.servers import governor
from parties.servers.early import MAX_EARLY, EarlyWords
from parties.servers.governor import Charge, estimate
from parties.servers.scheduling import Turns
from parties.stored.rules import signed
from parties.wire import expelling
from parties.wire.buckets import Bucket
from parties.wire.events import Delivery
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of, leaf


def deep(steps):
    """A legal program of as many nodes as one likes, and next to no elements."""
    x = leaf(Input((1,), 16, -1.0, 1.0))
    y = x
    for _ in range(steps):
        y = y * 0.5 + x
    return plan(graph_of([y])).encode()


def held(server):
    return server.governor.admission._reserved.total()


async def nothing_held(site):
    await site.settled()
    admissions = [server.governor.admission for server in site.servers.values()]
    await site.until(lambda: not any(one._reserved.total() or one._runs.total() for one in admissions))


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.filterwarnings("error")
async def test_a_task_that_a_stopping_server_ends_is_over(site, steps):
    """Before its first step, too: what it was for is not left unawaited, and counts as a request no longer."""
    server = site.servers["party0"]

    async def endless():
        await asyncio.Event().wait()

    before = server.governor._requests[""]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_tasks", set())
        work = endless()
        server.spawn(work)
        for _ in range(steps):
            await asyncio.sleep(0)
        await server.end_tasks()
    assert work.cr_frame is None
    assert server.governor._requests[""] == before


# -- what is known beforehand --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_a_programs_first_bytes_say_how_many_nodes_it_has(steps):
    data = deep(steps)
    assert nodes_announced(data) == nodes_announced(memoryview(data)) == len(Program.decode(data).nodes)
    found = estimate(memoryview(data))
    assert found.memory > 2 * len(data)
    assert found.seconds > 0


@pytest.mark.parametrize("size", range(17))
def test_what_does_not_begin_like_a_program_is_refused_unread(size):
    with pytest.raises(ProgramError):
        nodes_announced(deep(1)[:size][:-1] + b"\xff")


@pytest.mark.parametrize(
    "array", [b"\x90", b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdd\0\0\0\0", b"\xc0", b"\xdc", b"\x81"]
)
def test_a_number_of_nodes_that_no_program_has_is_refused_unread(array):
    data = deep(1)
    head = data[: data.index(b"nodes") + 5]
    with pytest.raises(ProgramError):
        nodes_announced(head + array)


def test_a_charge_is_given_back_once():
    given = []
    charge = Charge("a", 7, lambda member, size: given.append((member, size)))
    charge.release()
    charge.release()
    assert given == [("a", 7), ("a", 0)]


async def test_what_is_expected_counts_before_it_is_done():
    turns = Turns("party0", 1, 1.0)
    order = []

    async def one(member, seconds):
        queue = await turns._begin(member, seconds, None)
        order.append(member)
        await asyncio.sleep(0)
        turns._ended(queue, 0.0)

    # Each of b's is as long as three of a's.
    pieces = [("a", 1.0)] * 6 + [("b", 3.0)] * 2
    await asyncio.gather(*(one(*piece) for piece in pieces))
    assert order == ["a", "b", "a", "a", "a", "b", "a", "a"]


# -- decoding ------------------------------------------------------------------------------------------------------


async def test_programs_of_many_nodes_are_decoded_in_their_clients_turns(site):
    """Twelve of one client and an order of it; another's run, asked for after them, is answered among the first."""
    data = deep(400)
    endpoint = site.endpoint("company")
    async with endpoint, site.client() as clinic:
        await endpoint.connect(deadline=20)
        assert await clinic.reveal(clinic.share([1.0]) * 2) == pytest.approx([2.0], abs=1e-3)
        for i in range(12):
            for server in site.servers:
                endpoint.send(server, Prepare(run=f"{i:032x}"), [data])
        endpoint.send("dealer", Stock(request="f" * 32, count=1, low_water=0), [data])
        await site.until(lambda: all(server.governor.waiting for server in site.servers.values()))
        assert all(held(server) >= 10 * 1024 * 400 for server in site.servers.values()), "before any is decoded"
        assert await clinic.reveal(clinic.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)
        assert any(server.governor.waiting for server in site.servers.values()), "not behind all of them"
        for i in range(12):
            for server in site.servers:
                endpoint.send(server, Release(run=f"{i:032x}"))
        await nothing_held(site)


async def test_a_program_that_a_client_has_no_memory_for_is_not_decoded(site, monkeypatch):
    def no(_):
        raise AssertionError("decoded")

    data = deep(400)
    async with site.client() as client:
        await client.reveal(client.share([1.0]) * 2)
        for server in site.servers.values():
            monkeypatch.setattr(server.governor.admission, "memory", 1 << 20)
        monkeypatch.setattr(Program, "decode", no)
        endpoint = site.endpoint("company")
        async with endpoint:
            await endpoint.connect(deadline=20)
            endpoint.send("party0", Prepare(run="a" * 32), [data])
            endpoint.send("dealer", Stock(request="b" * 32, count=1, low_water=0), [data])
            for _ in range(2):
                failed = (await endpoint.receive()).message
                assert failed.fault.error == "TooLarge"
                assert "decoding this program takes about" in failed.fault.reason
    await nothing_held(site)


# -- words before their time ---------------------------------------------------------------------------------------


async def test_openings_for_runs_that_are_not_known_are_kept_by_nobody(site):
    one, other = site.servers["party0"], site.servers["party1"]
    for i in range(300):
        one.endpoint.send("party1", Opening(run=f"{i:032x}", round=0), [bytes(1 << 10)])
    async with site.client() as client:
        assert await client.reveal(client.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)
    await site.settled()
    assert len(other._early) == held(other) == 0


async def test_false_ids_of_one_party_make_nobody_busy_and_are_forgotten(site):
    one, other = site.servers["party0"], site.servers["party1"]
    for i in range(2 * MAX_EARLY):
        said = Agreed(run=f"{i:032x}", program="0" * 64, bindings="0" * 64, session="0" * 32, number=1, signature=b"")
        one.endpoint.send("party1", said)
    async with site.client() as client:
        result = client.share([3.0]) * 2
        await client.stock(result, 2)
        assert await client.reveal(result) == pytest.approx([6.0], abs=1e-3)
        assert client.last_run.from_stock
    await site.settled()
    assert len(other._early) == MAX_EARLY
    assert not other.jobs


def test_a_member_pushes_out_its_own_words_alone():
    words = EarlyWords()
    a, b = (Member(name, Role.PARTY, i, "127.0.0.1:1", "key") for i, name in enumerate("ab"))
    assert words.keep(a, "mine", "said")
    assert not words.keep(a, "mine", "said again")
    for i in range(2 * MAX_EARLY):
        words.keep(b, str(i), "false")
    assert words.take("mine") == [(a, "said")]
    assert words.take("mine") == words.take("0") == []
    assert len(words) == MAX_EARLY


async def test_what_was_dealt_for_a_run_that_its_client_told_the_dealer_alone_of_is_the_clients(site):
    data = plan(graph_of([leaf(Input((40_000,), 16, -1.0, 1.0)) ** 2])).encode()
    endpoint = site.endpoint("company")
    async with endpoint, site.client() as clinic:
        await endpoint.connect(deadline=20)
        last = site.servers["party1"]
        last.governor.admission.memory = 4 << 20
        for i in range(12):
            endpoint.send("dealer", Prepare(run=f"{i:032x}"), [data])
        await site.until(lambda: held(last) > 1 << 20)
        await site.until(lambda: held(site.servers["dealer"]) == 0)
        assert held(last) <= 2 << 20, "half, whatever was dealt"
        assert await clinic.reveal(clinic.share([3.0]) * 2) == pytest.approx([6.0], abs=1e-3)
        last.governor.admission.memory = 1 << 30
    await nothing_held(site)


# -- requests ------------------------------------------------------------------------------------------------------


async def test_another_clients_upload_does_not_wait_for_a_flood_of_rules(site):
    architecture = Sequential({"a": Linear(2, 2)}).architecture((2,))
    model = Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})
    endpoint = site.endpoint("company")
    async with site.client("company") as owner, site.client() as clinic:
        await owner.upload(model, "mine")
    async with endpoint, site.client() as clinic:
        await endpoint.connect(deadline=20)
        for i in range(400):
            rules = RuleSet("company", "mine", i + 1, (Rule("*", "predict", i + 1),))
            said = signed(site.keys["company"], site.cluster, site.cluster.member("company"), rules)
            for server in site.servers:
                endpoint.send(server, AllowUse(request=f"{i:032x}"), said.payload)
        upload = asyncio.create_task(clinic.upload(model, "theirs"))
        answers = []
        while not upload.done() or len(answers) < 3 * 400:
            answers.append((await endpoint.receive()).message)
        assert (await upload).name == "theirs"
        refused = [a for a in answers if type(a).__name__ == "RequestFailed"]
        assert 0 < len(refused) < 3 * 400
        assert {a.fault.error for a in refused} == {"ServerBusy"}
        assert all("requests of company are in progress" in a.fault.reason for a in refused)


async def test_questions_have_a_rate(site, monkeypatch):
    monkeypatch.setattr(governor, "REQUESTS_AT_ONCE", 3)
    monkeypatch.setattr(governor, "REQUESTS_PER_SECOND", 1)
    async with site.client() as client, site.client("company") as other:
        for server in site.servers.values():
            server.governor._questions["clinic"] = Bucket(3, 1)
        for _ in range(3):
            await client.models()
        with pytest.raises(ServerBusy, match="clinic asks more than 1 times a second"):
            await client.models()
        assert await other.models() == []


async def test_who_goes_on_asking_is_shown_out_and_nobody_else_is(site, monkeypatch):
    monkeypatch.setattr(expelling, "OUT", 0.3)
    for server in site.servers.values():
        server.governor._questions["clinic"] = Bucket(0, 1)
        server.governor._refusals["clinic"] = Bucket(3, 0)
    async with site.client() as client, site.client("company") as other:
        for _ in range(3):
            with pytest.raises(ServerBusy, match="asks more than"):
                await client.models()
        with pytest.raises(RemoteError, match="clinic asks far more than it may"):
            await client.models()
        assert await other.models() == []
        for server in site.servers.values():
            del server.governor._questions["clinic"]
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(TesseraError):
                    assert await client.models() == []
                    break
                await asyncio.sleep(0.02)


async def test_what_is_written_counts_as_several_questions(site):
    server, clinic = site.servers["party0"], site.cluster.member("clinic")
    for message, count in ((RemoveSecret(request="0" * 32, name="m"), WRITTEN), (ListSecrets(request="0" * 32), 1)):
        bucket = server.governor._questions["clinic"] = Bucket(100, 0)
        server.take(Delivery(clinic, message, []))
        assert 100 - bucket.left == count
    assert {kind.weight for kind in (AllowUse, AskLeave, DecideLeave, WithdrawRequest, ProposeFile)} == {WRITTEN}


async def test_rules_that_are_in_force_are_neither_checked_nor_written_again(site, monkeypatch):
    """Byte for byte, of their owner, and signed as they were."""
    architecture = Sequential({"a": Linear(2, 2)}).architecture((2,))
    model = Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})
    party, company, clinic = (site.cluster.member(name) for name in ("party0", "company", "clinic"))
    server, told, spawned = site.servers[party.name], [], []
    async with site.client("company") as owner:
        await owner.upload(model, "digits")
        await owner.allow("digits", "clinic")
        held = server._rules_desk._book.held(company, "digits")
        with monkeypatch.context() as patch:
            patch.setattr(server, "spawn", lambda work: (work.close(), spawned.append(work)))
            patch.setattr(server, "tell", lambda names, message, payload=(): told.append((names, message.rules)))

            def say(client, *payload):
                request = AllowUse(request="0" * 32)
                server.take(Delivery(client, request, [memoryview(part) for part in payload]))

            say(company, *held.payload)
            assert (told, spawned) == ([(["company"], held.digest)], [])
            say(company, held.encoded, bytes(64))
            say(company, held.encoded + b"\0", held.signature)
            say(clinic, *held.payload)
            assert (len(told), len(spawned)) == (1, 3)
        await owner.allow("digits", "clinic", [])
        assert server._rules_desk._book.repeated(company, *map(memoryview, held.payload)) is None
