"""Leave of joint owners: asked for, bound to a run, counted, put down, and shown; of each of them, at every server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from mpc.errors import (
    LimitReached,
    MacCheckError,
    NoSuchName,
    NotPermitted,
    PeerError,
    ProgramError,
    TesseraError,
    UsageError,
)
from mpc.security import Security
from parties import DataSet
from parties.client.request_entries import State
from parties.client.writing import Kept
from parties.messages.bindings import Binding, BoundProgram, Leave
from parties.messages.requests import AskLeave, LeaveAsked, Shared, UseRequest

from .conftest import opened
from .rules_given import NO_RULE, tell
from .test_cluster_changes import following
from .test_moments import go_on

SERVERS = ("dealer", "party0", "party1")
X = np.array([[0.5, -0.25], [0.25, 0.75]])
Y = np.array([[-0.5, 0.25], [0.125, 0.5]])


@pytest.fixture
async def joint(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """``study/sums`` belongs to study, north and south; ``other`` is a client like any."""
    security = getattr(request, "param", Security.SEMI_HONEST)
    async with opened(tmp_path, security, clients=("study", "north", "south", "other")) as site:
        async with site.client("study") as study, site.client("north") as north, site.client("south") as south:
            await kept(study, {north: X, south: Y})
        yield site


async def kept(study: Any, owners: dict[Any, Any]) -> None:
    """The sums of what these owners upload, for all of them."""
    tensors = []
    for owner, values in owners.items():
        await owner.upload(DataSet({"x": values}, low=-1, high=1), "data")
        await owner.allow("data", "study", ["any"])
        tensors.append((await study.data(f"{owner.member.name}/data"))["x"])
    total = tensors[0] if len(tensors) == 1 else tensors[0] + tensors[1]
    await study.keep(Kept({"sum": total}, joint=True), "sums")


MACS = pytest.param(Security.MALICIOUS, marks=pytest.mark.slow)
both = pytest.mark.parametrize("joint", [Security.SEMI_HONEST, MACS], ids=str, indirect=True)


@both
async def test_every_joint_owner_is_asked_for_what_nobody_owns_alone(joint: Any) -> None:
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        squares = (await study.data("sums"))["sum"] ** 2
        digest = await study.request(squares, "how far they are apart")
        (entry,) = await study.requests()
        assert set(entry.standings) == {"north", "south"}
        for owner in (north, south):
            (asked,) = await owner.requests()
            assert (asked.program, asked.slots, asked.state) == (digest, ("study/sums",), State.ASKED)
            assert "reads    study/sums 'sum'" in str(await owner.show(digest))
        await north.approve(digest)
        assert not await study.approved(digest, 0.01)
        with pytest.raises(NotPermitted, match="belongs to south as well"):
            await study.reveal(squares)
        await south.approve(digest, names=["study/sums"])
        assert await study.approved(digest, 1)
        assert np.abs(await study.reveal(squares) - (X + Y) ** 2).max() < 1e-3
        await north.deny(digest, why="enough")
        with pytest.raises(NotPermitted, match="north does not let us"):
            await study.approved(digest, 1)
        with pytest.raises(NotPermitted, match="belongs to north as well"):
            await study.reveal(squares)


async def test_another_client_asks_its_owner_and_all_others(joint: Any) -> None:
    async with joint.client("study") as study, joint.client("north") as north, joint.client("other") as other:
        await study.allow("sums", "other", schema=True)
        squares = (await other.data("study/sums"))["sum"] ** 2
        digest = await other.request(squares, "curious")
        async with joint.client("south") as south:
            for owner in (study, north, south):
                with pytest.raises(NotPermitted):
                    await other.reveal(squares)
                await owner.approve(digest)
            assert await other.approved(digest, 1)
            assert np.abs(await other.reveal(squares) - (X + Y) ** 2).max() < 1e-3
            with pytest.raises(NoSuchName):
                await other.approve(digest)


async def test_nobody_is_left_out_of_a_request_or_put_in(joint: Any) -> None:
    """A client that asks as it likes: every server refuses by itself what does not name those whose leave it takes."""
    async with joint.client("study") as study:
        program = study._written((await study.data("sums"))["sum"]).program
        for others in ((), ("north",), ("north", "other", "south")):
            lie = (Shared("study/sums", others),) if others else ()
            said = UseRequest("study", program.digest, program.slots, "so", time.time(), lie)
            payload = [said.signed(joint.keys["study"], joint.cluster).encode(), program.encode()]
            for server in SERVERS:
                with pytest.raises(TesseraError, match=r"to others than this request says|is to somebody"):
                    await study._board.ask(AskLeave(request="a" * 32), LeaveAsked, [server], 5, payload)


async def test_how_often_joint_owners_say_as_well(joint: Any) -> None:
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        data = await study.data("sums")
        for owner, runs in ((north, 3), (south, 2)):
            await owner.allow("study/sums", "study", [study.digest(data["sum"])], runs=runs)
        data = await study.data("sums")
        for _ in range(2):
            await study.reveal(data["sum"])
        with pytest.raises(LimitReached, match="allows 2 runs in all"):
            await study.reveal(data["sum"])
        for name in SERVERS:
            server = joint.servers[name]
            tables = (server._coordinator if name == "dealer" else server._secrets).gate._tables
            with tables._vault.transaction() as db:
                counted = sorted(runs for (runs,) in db.execute("SELECT runs FROM counted").fetchall())
            assert counted == [2, 2], name
        await south.allow("study/sums", "study", ["any"])
        await study.reveal(data["sum"])
        with pytest.raises(LimitReached, match="allows 3 runs in all"):
            await study.reveal(data["sum"])


LEAVE = {
    "of one alone": lambda north, _: (Leave("north", north),),
    "of nobody": lambda _, __: (),
    "of one twice": lambda north, _: (Leave("north", north), Leave("north", north)),
    "the one's for the other": lambda north, _: (Leave("north", north), Leave("south", north)),
    "by no rule": lambda north, _: (Leave("north", north), Leave("south", NO_RULE)),
    "of another besides": lambda north, south: (Leave("north", north), Leave("other", north), Leave("south", south)),
    "in another order": lambda north, south: (Leave("south", south), Leave("north", north)),
}


async def test_a_run_says_by_whose_leave_and_every_server_looks(joint: Any) -> None:
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        for owner in (north, south):
            await owner.allow("study/sums", "study", ["any"])
        written = study._written((await study.data("sums"))["sum"])
        right = study._slots.bind(*written)
        (binding,) = right.bindings
        for name in SERVERS:
            server = joint.servers[name]
            gate = (server._coordinator if name == "dealer" else server._secrets).gate
            gate.check(right, "study")
            for what, lie in LEAVE.items():
                wrong = replace(binding, others=lie(*(leave.rule for leave in binding.others)))
                with pytest.raises((NotPermitted, PeerError)):
                    pytest.fail(f"{name} takes leave {what}: {gate.check(replaced(right, wrong), 'study')}")


def replaced(bound: BoundProgram, binding: Binding) -> BoundProgram:
    return BoundProgram(bound.program, (binding,), bound.client)


@both
async def test_leave_that_one_member_was_told_otherwise_ends_the_run(joint: Any) -> None:
    """Two rules are good enough: by which of them it is all members are told alike."""
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        data = await study.data("sums")
        digest = study.digest(data["sum"])
        await north.allow("study/sums", "study", ["any", digest])
        await south.allow("study/sums", "study", [digest])
        data = await study.data("sums")
        honest, rules = study._board.send, study._slots._known["study/sums"].others["north"]
        first, second = rules

        def send(server: str, message: Any, buffers: Any) -> int:
            if server == "party1" and hasattr(message, "bindings"):
                (binding,) = message.bindings
                swapped = {first: second, second: first}
                leave = tuple(Leave(o, swapped.get(r, r)) for o, r in binding.others)
                message = replace(message, bindings=(replace(binding, others=leave),))
            return honest(server, message, buffers)

        study._board.send = send
        with pytest.raises((PeerError, ProgramError, MacCheckError)):
            await study.reveal(data["sum"])
        study._board.send = honest
        assert np.abs(await study.reveal(data["sum"]) - (X + Y)).max() < 1e-3


async def test_an_approval_ends_when_it_belongs_to_others(joint: Any) -> None:
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        result = (await study.data("sums"))["sum"] ** 2
        digest = await study.request(result, "so")
        for owner in (north, south):
            await owner.approve(digest)
        async with joint.client("other") as other:
            await kept(study, {north: X, other: Y})
            for client in (study, north):
                (entry,) = await client.requests()
                assert entry.state is State.ENDED
                assert "belongs to others than before" in entry.standings["north"].note
            again = (await study.data("sums"))["sum"] ** 2
            assert study.digest(again) == digest
            with pytest.raises(NotPermitted, match="belongs to north as well"):
                await study.reveal(again)


@both
async def test_leave_is_for_what_one_program_makes_and_for_nothing_that_another_puts_in_its_place(joint: Any) -> None:
    """Or who lets sums be revealed, and anything be kept jointly, has let that be revealed: under the same name."""
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        revealed = (await study.data("sums"))["sum"]
        digest = await study.request(revealed, "the sums")
        for owner in (north, south):
            await owner.approve(digest)
        assert np.abs(await study.reveal(revealed) - (X + Y)).max() < 1e-3
        # Made again, by the same program of the same data, they are what was allowed.
        await kept(study, {north: X, south: Y})
        again = (await study.data("sums"))["sum"]
        assert np.abs(await study.reveal(again) - (X + Y)).max() < 1e-3
        rows = [(await study.data(f"{owner}/data"))["x"] for owner in ("north", "south")]
        await study.keep(Kept({"sum": rows[0] - rows[1]}, joint=True), "sums")
        instead = (await study.data("sums"))["sum"]
        assert study.digest(instead) == digest
        with pytest.raises(NotPermitted, match="belongs to north as well"):
            await study.reveal(instead)
        for client in (study, north):
            (entry,) = await client.requests()
            assert entry.state is State.ENDED
        await study.request(instead, "the differences")
        for owner in (north, south):
            await owner.approve(digest)
        assert np.abs(await study.reveal(instead) - (X - Y)).max() < 1e-3


async def test_joint_owners_see_the_rules_and_the_runs(joint: Any) -> None:
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        for owner in (north, south):
            await owner.allow("study/sums", "study", ["any"], per_day=7)
        await study.reveal((await study.data("sums"))["sum"])
        for client in (study, north):
            (entry,) = [each for each in await client.models() if each.slot == "study/sums"]
            assert {owner: [rule.per_day for rule in rules] for owner, rules in entry.others.items()} == {
                "north": [7],
                "south": [7],
            }
        async with joint.client("other") as other:
            await study.allow("sums", "other", schema=True)
            (entry,) = await other.models()
            assert entry.others == {"north": (), "south": ()}
        runs = [each.text for each in await north.audit() if each.kind == "run" and "study/sums" in each.text]
        assert len(runs) == len(SERVERS)
        assert all("by rule owner and north's" in run and "and south's" in run for run in runs)


async def test_what_belongs_to_who_is_no_client_any_more_is_nobody_s_to_use(joint: Any) -> None:
    """And is said so: to who would run something on it, and to who would ask; what came back is who it was."""
    async with joint.client("north") as north, joint.client("south") as south:
        for owner in (north, south):
            await owner.allow("study/sums", "study", ["any"])
    left = following(joint.cluster, clients=tuple(c for c in joint.cluster.clients if c.name != "north"))
    for server in joint.servers.values():
        go_on(server, left)
    async with joint.client("study") as study:
        data = await study.data("sums")
        for what in (study.reveal, lambda result: study.request(result, "so")):
            with pytest.raises(NotPermitted, match="belongs to somebody whom the cluster file lists no longer"):
                await what(data["sum"])
    for server in joint.servers.values():
        go_on(server, joint.cluster)
    async with joint.client("study") as study:
        assert np.abs(await study.reveal((await study.data("sums"))["sum"]) - (X + Y)).max() < 1e-3


@pytest.mark.parametrize("name", SERVERS)
async def test_leave_of_a_joint_owner_ends_at_the_one_honest_server(joint: Any, name: str) -> None:
    server = joint.servers[name]
    book = (server._coordinator if name == "dealer" else server._secrets).rules
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        for owner in (north, south):
            await owner.allow("study/sums", "study", ["any"])
        prepared = await study.prepare((await study.data("sums"))["sum"])
        tell(book, joint, "north", "study/sums", "study", [])
        server.end_forbidden()
        assert not server.jobs
        if name != "dealer":  # which has done its part
            with pytest.raises(NotPermitted, match="belongs to north as well"):
                await study.finish(prepared)
        with pytest.raises(NotPermitted, match="belongs to north as well"):
            await study.stock((await study.data("sums"))["sum"], 1) if name == "dealer" else await study.reveal(
                (await study.data("sums"))["sum"]
            )


async def test_words_are_no_leave_for_a_data_set(joint: Any) -> None:
    async with joint.client("north") as north:
        with pytest.raises(UsageError, match="is a data set"):
            await north.allow("study/sums", "study")
        with pytest.raises(NoSuchName, match="not yours as well"):
            await north.allow("study/nothing", "study")


async def test_leave_for_a_program_on_one_is_leave_on_all_that_it_reads(joint: Any) -> None:
    """Of what is theirs jointly as of what is theirs alone; for that program, and for no other."""
    async with joint.client("study") as study, joint.client("north") as north, joint.client("south") as south:
        sums = (await study.data("sums"))["sum"]
        for owner in (north, south):
            await owner.allow("study/sums", "study", [study.digest(Kept({"twice": 2 * sums}, joint=True))])
        await study.keep(Kept({"twice": 2 * sums}, joint=True), "more")
        more = (await study.data("more"))["twice"]
        both = sums * more
        with pytest.raises(NotPermitted, match="belongs to north as well"):
            await study.reveal(both)
        for owner in (north, south):
            await owner.allow("study/sums", "study", [study.digest(both)], runs=1)
        await study.data("sums")
        assert np.abs(await study.reveal(both) - 2 * (X + Y) ** 2).max() < 1e-3
        with pytest.raises(LimitReached):
            await study.reveal(both)
        with pytest.raises(NotPermitted, match="belongs to north as well"):
            await study.reveal(sums + more)
