"""How much of a server's audit log a member can fill, and what it is refused then: nothing is left out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import ServerBusy, TesseraError
from parties.messages.bindings import Binding, Leave
from parties.messages.failures import Fault
from parties.messages.runs import Failed, Prepare
from parties.operate.audit import desk as desk_module
from parties.operate.audit import facts, quota
from parties.operate.audit.entry import beginning, next_line
from parties.operate.audit.quota import DAY, ENTRY, KEPT, Quotas, Used, size_of, size_of_run

from .test_audit import facts_of, text_of, written
from .test_audit_log import KEYS, opened
from .test_model_keeping import IMAGE, model, scale_of
from .test_requests import asked

SERVERS = ("dealer", "party0", "party1")
MOST = 12 * ENTRY


class Clock:
    now = 10 * DAY

    def __call__(self) -> int:
        return self.now


# -- the account -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, quota.MIB), st.integers(0, DAY // 4)), max_size=30))
def test_no_span_of_time_has_more_than_a_quota_and_what_has_come_back(steps: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    quotas = Quotas("party0", lambda: 1, clock)
    charged: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    for member, size, pause in steps:
        clock.now += pause
        try:
            quotas.charge(member, size, takes_back=size % 2 == 0)
        except ServerBusy:
            # Refused for what it has used itself, and for nothing else.
            assert any(clock.now - when < DAY for when, _ in charged[member]) or size > quota.MIB * (1 - 1 / KEPT)
        else:
            charged[member].append((clock.now, size))
    for taken in charged.values():
        for first, (begun, _) in enumerate(taken):
            total = 0
            for when, size in taken[first:]:
                total += size
                assert total <= quota.MIB * (1 + (when - begun) / DAY) + 1


def test_a_part_is_kept_for_taking_back() -> None:
    quotas = Quotas("party0", lambda: 1, Clock())
    rest = quota.MIB // KEPT
    quotas.charge("a", quota.MIB - rest)
    with pytest.raises(ServerBusy, match=r"party0: a has filled its part .* 1 MiB a day.*raise audit_mb"):
        quotas.charge("a", 1)
    quotas.charge("a", rest, takes_back=True)
    with pytest.raises(ServerBusy):
        quotas.charge("a", 1, takes_back=True)
    assert not quotas.affords("a", 1)
    quotas.charge("b", 1)


def test_a_clock_that_goes_back_gives_nothing_back() -> None:
    clock = Clock()
    quotas = Quotas("party0", lambda: 1, clock)
    quotas.charge("a", quota.MIB, takes_back=True)
    clock.now -= DAY
    assert not quotas.affords("a", 1)


def test_what_was_used_outlasts_a_crash(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.quotas.charge("clinic", 5000)
    log.anchor({})
    log._release()
    again = opened(tmp_path)
    assert 4000 < again.quotas.used["clinic"].bytes <= 5000
    again.close()


NAMES = st.text("aZ0_.-", min_size=0, max_size=63).map(lambda text: "n" + text)
LEAVE = st.lists(st.builds(lambda name: Leave(name, "e" * 64), NAMES), max_size=4).map(tuple)
BINDINGS = st.lists(
    st.builds(lambda a, b, c: Binding(f"{a}/{b}", "0" * 32, "f" * 64, c), NAMES, NAMES, LEAVE), max_size=5
)


@given(client=NAMES, keep=NAMES, used=BINDINGS.map(tuple))
def test_an_entry_is_no_longer_than_was_charged(client: str, keep: str, used: tuple[Binding, ...]) -> None:
    """Whatever becomes of the run, of which nothing is known yet."""
    head = beginning("0" * 16)._replace(number=(1 << 53) - 2)
    longest, when = "E" * 64, (1 << 53) - 1
    run = facts.Run("0" * 32, client, "f" * 64, used, longest, when, longest, keep)
    kept = facts.Upload(client, keep, "0" * 32)
    lines = [next_line(head, when, fact, KEYS["party0"])[1] for fact in (run, kept)]
    assert sum(len(line) + 1 for line in lines) <= size_of_run(used, keep)
    removal = facts.Removal(client, keep, "0" * 32)
    for fact in (kept, removal):
        assert len(next_line(head, when, fact, KEYS["party0"])[1]) < ENTRY
    rule = facts.RuleChange(client, keep, "*", ("f" * 64,) * 9, "0" * 32, "t" * 500, ("e" * 64,) * 9)
    assert len(next_line(head, when, rule, KEYS["party0"])[1]) < size_of([rule])


# -- servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(site: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A day's quota is a dozen entries, and nothing of it comes back unless the clock is set."""
    clock = Clock()
    monkeypatch.setattr(quota, "MIB", MOST / 256)
    for server in site.servers.values():
        server.audit._log.quotas._clock = clock
    monkeypatch.setattr(desk_module, "now", clock)
    return clock


def fill(site: Any, member: str, *servers: str, leave: int = 0) -> None:
    """That member has used all of its quota, but for so many bytes."""
    for name in servers or SERVERS:
        quotas = site.servers[name].audit._log.quotas
        quotas.restore({**quotas.used, member: Used(MOST - leave, quotas._clock())})


def written_for(site: Any, server: str, client: str) -> int:
    """Bytes of entries that are of that client alone."""
    return sum(len(line) + 1 for line in text_of(site, server).splitlines() if f'"client":"{client}"'.encode() in line)


async def give_up(client: Any, m: Any) -> None:
    await client.release(await client.prepare(m(client.share(IMAGE, low=-1, high=1))))


async def fail(client: Any, m: Any) -> None:
    """It ends a run that has begun, as a failure whose name it makes up."""
    prepared = await client.prepare(m(client.share(IMAGE, low=-1, high=1)))
    for server in SERVERS:
        client._board.send(server, Failed(run=prepared.run, fault=Fault(f"E{prepared.run[:8]}", "", "")))


async def send_nonsense(client: Any, m: Any) -> None:
    prepared = await client.prepare(m(client.share(IMAGE, low=-1, high=1)))
    for server in SERVERS:
        client._board.send(server, Prepare(run=prepared.run[::-1]), [b"no program"])
    await client.release(prepared)


CHEAP: dict[str, Callable[[Any, Any], Awaitable[None]]] = {
    "given up": give_up,
    "failed": fail,
    "refused": send_nonsense,
}


@pytest.mark.parametrize("how", CHEAP)
async def test_cheap_runs_fill_a_log_as_far_as_their_client_may(site: Any, small: Clock, how: str) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        m = await clinic.model("m")
        for tried in range(40):  # noqa: B007 - looked at below
            try:
                await CHEAP[how](clinic, m)
            except ServerBusy as error:
                assert "has filled its part of the audit log" in str(error)
                break
        assert 4 < tried < 39
        # It alone.
        assert await scale_of(company) == 0.5
        await written(site)
        for server in SERVERS:
            assert 0 < written_for(site, server, "clinic") <= MOST
        # What has happened is there, whatever its client calls it.
        outcomes = {run.outcome for run in facts_of(site, "party0", facts.Run) if run.client == "clinic"}
        assert outcomes <= {"released", "RemoteError", "PeerLost"}
        small.now += DAY
        await clinic.reveal(m(clinic.share(IMAGE, low=-1, high=1)))


WAYS: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
    "a run": lambda owner, m: owner.reveal(m(owner.share(IMAGE, low=-1, high=1))),
    "what a run keeps": lambda owner, m: owner.keep({"y": m(owner.share(IMAGE, low=-1, high=1))}, "kept"),
    "an upload": lambda owner, _: owner.upload(model(0.25), "n"),
    "an order": lambda owner, m: owner.stock(m(owner.share(IMAGE, low=-1, high=1)), 1),
}
BACK: dict[str, Callable[[Any, Any], Awaitable[Any]]] = {
    "rules": lambda owner, _: owner.allow("m", "clinic", []),
    "removal": lambda owner, _: owner.remove("m"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("way", [*WAYS, *BACK])
async def test_each_way_to_an_entry_is_charged_and_who_takes_back_has_more(
    site: Any, small: Clock, way: str, server: str
) -> None:
    """At any one server, alone."""
    async with site.client("company") as company:
        m = await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        # Orders are put down by the dealer alone.
        server = "dealer" if way == "an order" else server
        before = written_for(site, server, "company")
        fill(site, "company", server, leave=MOST // KEPT)
        if way in WAYS:
            with pytest.raises(ServerBusy, match=f"{server}.*has filled its part"):
                await WAYS[way](company, m)
            await written(site)
            assert written_for(site, server, "company") - before < ENTRY
            small.now += DAY
            await WAYS[way](company, m)
        else:
            await BACK[way](company, m)
            await site.settled()
        assert site.servers[server].audit._log.quotas.used["company"].bytes > (
            0 if way in WAYS else MOST * (1 - 1 / KEPT)
        )


async def test_who_asks_for_leave_and_who_gives_it_are_charged(site: Any, small: Clock) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, result = await asked(site, company, clinic, "because")
        fill(site, "company", leave=MOST // KEPT)
        with pytest.raises(ServerBusy, match="company has filled its part"):
            await company.approve(digest)
        await company.deny(digest, why="no")
        await clinic.withdraw(digest)
        fill(site, "clinic", leave=MOST // KEPT)
        with pytest.raises(ServerBusy, match="clinic has filled its part"):
            await clinic.request(result, "again")


async def test_refusals_wait_until_they_can_be_paid_for_and_are_counted(
    site: Any, small: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = site.servers["party0"].audit
    fill(site, "clinic", "party0")
    for _ in range(9):
        audit.refused("clinic", "Prepare", "NotPermitted")
        audit.refused("nobody", "Prepare", "Invented")
    audit._sum_up()
    await written(site)
    (nobody,) = (what for what in facts_of(site, "party0", facts.Refused) if what.count == 1)
    assert (nobody.client, nobody.error) == ("", "RemoteError")
    assert not [what for what in facts_of(site, "party0", facts.Refused) if what.client == "clinic"]
    small.now += DAY
    audit._sum_up()
    await written(site)
    (late,) = (what for what in facts_of(site, "party0", facts.Refused) if what.client == "clinic")
    assert (late.count, late.since) == (9, small.now - DAY)


async def test_another_server_s_word_of_rules_is_charged_to_their_owner(site: Any, small: Clock) -> None:
    """An owner and a party in league: the party brings what the owner signs, as often as they like."""
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        fill(site, "company", "party0")
        with pytest.raises(TesseraError):
            await company.allow("m", "clinic")
        await asyncio.sleep(0.3)
        assert not facts_of(site, "party0", facts.RuleChange)
        assert not site.servers["party0"]._secrets.rules.grants(site.cluster.member("company"), "m")
