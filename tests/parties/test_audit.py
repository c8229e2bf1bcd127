"""What servers put into their audit logs, what they refuse while they cannot, and what they tell each other of them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cheats import evidence, other_inputs, wrong_sigma

from mpc.errors import (
    DiskFull,
    InconsistentInputs,
    MacCheckError,
    NotPermitted,
    ProtocolViolation,
    ServerBusy,
    TesseraError,
)
from parties.client import auditing
from parties.messages.audit import AuditHead, AuditShown, Place, SignedHead
from parties.operate.audit import desk as desk_module
from parties.operate.audit import facts, looking
from parties.operate.audit import log as log_module
from parties.operate.audit.entry import read_line
from parties.operate.audit.facts import Fact
from parties.operate.audit.files import FOLDER, lines, log_files
from protocols.lowering.plan import plan
from protocols.trace.secret_tensor import graph_of

from .test_blame import program
from .test_cluster_changes import current, following, go_on
from .test_model_keeping import IMAGE, PARTIES, model, scale_of
from .test_requests import asked

SERVERS = ("dealer", *PARTIES)


async def written(site: Any, *servers: str) -> None:
    """Whatever has happened is on the disk."""
    await site.settled()
    for name in servers or site.servers:
        await site.until(lambda audit=site.servers[name].audit: not audit._pending)


def text_of(site: Any, server: str) -> bytes:
    return b"".join(path.read_bytes() for path in log_files(site.data(server) / FOLDER))


def facts_of(site: Any, server: str, *kinds: type[Fact]) -> Sequence[Any]:
    found = [read_line(line.text).what for path in log_files(site.data(server) / FOLDER) for line in lines(path)]
    return [what for what in found if not kinds or isinstance(what, kinds)]


async def test_who_ran_what_on_which_version_by_which_rule(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        remote = await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        y = remote(clinic.share(IMAGE, low=-1, high=1))
        remote = await clinic.model("m")
        y = remote(clinic.share(IMAGE, low=-1, high=1))
        await clinic.reveal(y)
        await company.keep({"out": remote(company.share(IMAGE, low=-1, high=1))}, "kept")
        await company.remove("kept")
        await clinic.stock(y, 2)
        await written(site)
    digest = plan(graph_of([y]), checked=True).digest
    for server in SERVERS:
        run, kept = facts_of(site, server, facts.Run)
        assert (run.client, run.program, run.outcome, run.keep) == ("clinic", digest, "ok", "")
        (binding,) = run.used
        assert (binding.slot, binding.version) == ("company/m", remote.version)
        assert (kept.client, kept.keep, kept.used[0].rule) == ("company", "kept", "owner")
        uploads = facts_of(site, server, facts.Upload)
        assert [(u.owner, u.name, u.version) for u in uploads] == [
            ("company", "m", remote.version),
            ("company", "kept", kept.run),
        ]
        (rule,) = facts_of(site, server, facts.RuleChange)
        assert (rule.owner, rule.name, rule.client, rule.programs) == ("company", "m", "clinic", ("predict",))
        assert rule.rules == (binding.rule,)
        (removal,) = facts_of(site, server, facts.Removal)
        assert (removal.owner, removal.name) == ("company", "kept")
        assert run.secrets == {("company", "m")}
        assert kept.secrets == {("company", "m"), ("company", "kept")}
    (order,) = facts_of(site, "dealer", facts.StockOrder)
    assert (order.client, order.program, order.count) == ("clinic", run.program, 2)
    assert len({facts_of(site, server, facts.Run)[0].run for server in SERVERS}) == 1


async def test_who_asked_for_leave_and_what_owners_said(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        digest, _ = await asked(site, company, clinic, "because")
        await company.deny(digest, why="no")
        await company.approve(digest)
        await written(site)
    for server in SERVERS:
        request, *decisions = facts_of(site, server, facts.Approval)
        assert (request.client, request.program, request.decision) == ("clinic", digest, "asked")
        assert [(d.owner, d.decision) for d in decisions] == [("company", "denies"), ("company", "approves")]
        assert request.secrets == decisions[1].secrets == {("company", "trial")}
        # What people write to each other is theirs.
        assert b"because" not in text_of(site, server)


async def test_a_client_is_shown_what_concerns_it_by_every_server(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MAX_SHOWN", 1000)
    monkeypatch.setattr(looking, "MAX_READ", 3000)
    monkeypatch.setattr(log_module, "MAX_FILE_BYTES", 2000)
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        assert await clinic.audit() == []
        await company.allow("m", "clinic")
        remote = await clinic.model("m")
        for _ in range(5):
            await clinic.reveal(remote(clinic.share(IMAGE, low=-1, high=1)))
            await written(site)
        await company.upload(model(0.5), "secret")
        await written(site)
        of_clinic, of_company = await clinic.audit(), await company.audit()
        later = await company.audit(of_company[-1].when)
    assert Counter((entry.server, entry.kind) for entry in of_clinic) == {
        (server, kind): count for server in SERVERS for kind, count in (("rule", 1), ("run", 5))
    }
    assert Counter((entry.server, entry.kind) for entry in of_company) == {
        (server, kind): count for server in SERVERS for kind, count in (("rule", 1), ("run", 5), ("upload", 2))
    }
    assert not [entry for entry in of_clinic if "secret" in entry.line]
    assert "clinic ran" in next(entry.text for entry in of_company if entry.kind == "run")
    assert len(later) < 4
    # Whoever has the cluster file can check it.
    for entry in of_company:
        assert read_line(entry.line.encode()).signed_by(site.cluster.member(entry.server))
    assert all(len(log_files(site.data(server) / FOLDER)) > 1 for server in SERVERS)


async def test_a_client_that_is_told_to_be_slower_asks_on(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MAX_READ", 1)
    monkeypatch.setattr(auditing, "_PAUSE", 0.05)
    desk = site.servers["party0"].governor
    admit, refused = desk.admit_question, 3

    def refuse(client: Any, weight: int) -> None:
        nonlocal refused
        admit(client, weight)
        if refused < 3:
            refused += 1
            raise ServerBusy("party0", "asks more than it may")

    monkeypatch.setattr(desk, "admit_question", refuse)
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        await written(site)
        refused = 0
        assert len([entry for entry in await company.audit() if entry.kind == "upload"]) == 3
    assert refused == 3


async def test_who_asks_at_once_is_told_what_it_has_just_done(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not only what a server has got around to write."""
    monkeypatch.setattr(desk_module, "PAUSE", 60.0)
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        await written(site)
        await company.allow("m", "clinic", runs=1)
        rules = [entry for entry in await company.audit() if entry.kind == "rule"]
    assert {entry.server for entry in rules} == set(SERVERS)
    said = {str(entry).partition("  ")[2] for entry in rules if entry.server == "party0"}
    assert said == {"party0        rule      company allows clinic on 'm': predict (predict, 1 run in all)"}


async def test_files_are_deleted_after_the_days_of_the_cluster_file(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "FIRST_TICK", 0.05)
    days: list[int] = []
    monkeypatch.setattr(log_module.AuditLog, "prune", lambda self, kept: days.append(kept))
    settings = msgspec.structs.replace(site.cluster.settings, audit_days=30)
    site.cluster = replace(site.cluster, settings=settings)
    await site.restart("party0")
    await site.until(lambda: bool(days))
    assert set(days) == {30}


async def test_what_a_server_has_not_signed_or_is_about_others_is_not_believed(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await written(site)
        (line,) = (e.line for e in await company.audit() if e.server == "party1")
        changed = line.replace('"name":"m"', '"name":"n"')
        for text, reason in (
            (line, "about others"),
            (changed, "has not signed"),
            ("nonsense", "that are none"),
            (next(e.line for e in await company.audit() if e.server == "dealer"), "has not signed"),
        ):
            site.corrupt("party1", AuditShown, lambda m, b, text=text: [(m, [text.encode() + b"\n"])])
            with pytest.raises(ProtocolViolation, match=reason):
                await clinic.audit()
        site.corrupt("party1", AuditShown, lambda m, b: [(AuditShown(request=m.request, more=Place()), b)])
        with pytest.raises(ProtocolViolation, match="in circles"):
            await clinic.audit()


async def test_failed_checks_and_evidence(strict: Any) -> None:
    async with strict.client("company") as company, strict.client() as clinic:
        with other_inputs(strict, company, "party1"), pytest.raises(InconsistentInputs):
            await company.reveal(program(company))
        await clinic.stock(program(clinic), 1)
        wrong_sigma(strict, "party1")
        with pytest.raises(MacCheckError):
            await clinic.reveal(program(clinic))
        await strict.until(lambda: all(evidence(strict, name) for name in SERVERS))
        # Which the dealer hears from the parties, each in its time.
        await strict.until(lambda: facts_of(strict, "dealer", facts.CheckFailed))
        await written(strict)
    for name in PARTIES:
        (piece,) = facts_of(strict, name, facts.Evidence)
        cheated, failed = facts_of(strict, name, facts.Run)
        assert (piece.culprit, piece.run, cheated.culprit) == ("company", cheated.run, "company")
        assert (cheated.outcome, failed.outcome) == ("InconsistentInputs", "MacCheckError")
        (check,) = facts_of(strict, name, facts.CheckFailed)
        assert check.run == failed.run
        assert "session" in check.destroyed
    assert facts_of(strict, "dealer", facts.CheckFailed)


async def test_cluster_files_that_are_gone_on_to(site: Any) -> None:
    new = following(site.cluster, clients=site.cluster.clients[:1])
    await go_on(site, new)
    await written(site)
    for server in SERVERS:
        (change,) = facts_of(site, server, facts.ClusterChange)
        assert (change.number, change.fingerprint, change.signers) == (2, current(site).fingerprint, SERVERS)
        assert "company" in change.change


async def test_what_is_refused_is_one_entry_however_often(site: Any) -> None:
    async with site.client("company") as company, site.client() as clinic:
        remote = await company.upload(model(0.5), "m")
        clinic._slots.note(remote)
        for _ in range(5):
            with pytest.raises(NotPermitted):
                await clinic.reveal(remote(clinic.share(IMAGE, low=-1, high=1)))
        await written(site)
        for server in SERVERS:
            (refused,) = facts_of(site, server, facts.Refused)
            assert (refused.client, refused.request, refused.error) == ("clinic", "Prepare", "NotPermitted")
            assert not facts_of(site, server, facts.Run)
        await site.stop(*SERVERS)
    for server in SERVERS:
        first, rest = facts_of(site, server, facts.Refused)
        # A server that heard of it before it had looked itself counts it likewise.
        assert (first.count, rest.count) == (1, 4)


async def test_nothing_in_it_is_a_value_a_share_or_a_key(site: Any) -> None:
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        heard: list[bytes] = []
        for server in SERVERS:
            site.overhear(server, heard)
        await scale_of(company)
        await written(site)
    shares = {piece for payload in heard for piece in (payload[:16].hex().encode(), payload[:16]) if len(payload) >= 16}
    for server in SERVERS:
        text = text_of(site, server)
        assert len(shares) > 4
        assert not [piece for piece in shares if piece in text]
        assert site.keys[server].secret.encode() not in text


async def test_while_it_cannot_be_written_nothing_is_begun(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(desk_module, "AGAIN", 0.02)
    async with site.client("company") as company:
        await company.upload(model(0.25), "n")
        remote = await company.upload(model(0.5), "m")
        x = company.share(IMAGE, low=-1, high=1)
        prepared = await company.prepare(remote(x))
        full = True
        audit = site.servers["party1"].audit
        descriptor, real = audit._log._descriptor, os.pwrite

        def pwrite(file: int, data: Any, at: int) -> int:
            if full and file == descriptor:
                raise OSError(28, "No space left on device")
            return real(file, data, at)

        monkeypatch.setattr(os, "pwrite", pwrite)
        # What was begun before ends, and is not lost.
        await company.finish(prepared)
        await site.until(lambda: bool(audit._problem))
        for attempt in (
            lambda: company.reveal(remote(x)),
            lambda: company.upload(model(0.25), "other"),
            lambda: company.allow("m", "clinic"),
            lambda: company.remove("n"),
        ):
            with pytest.raises(TesseraError, match=r"party1.*audit log cannot be written") as failure:
                await attempt()
            assert isinstance(failure.value, DiskFull)
        assert len([r for r in caplog.records if "nothing new is begun" in r.message]) == 1
        full = False
        await site.until(lambda: not audit._problem)
        await written(site)
        assert [run.outcome for run in facts_of(site, "party1", facts.Run)] == ["ok"]
        await company.reveal(remote(x))


async def test_servers_keep_where_each_others_logs_stand(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "TICK", 0.1)
    monkeypatch.setattr(desk_module, "FIRST_TICK", 0.1)
    monkeypatch.setattr(desk_module, "HEAD_PAUSE", 0.0)
    await site.restart(*SERVERS)
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        await scale_of(company)
        await written(site)

        def told(keeper: str, name: str) -> int:
            heads = facts_of(site, keeper, facts.PeerHead)
            return max((fact.head.number for fact in heads if fact.member == name), default=0)

        # What a head leaves in a log is no news.
        last = {
            name: max(i for i, what in enumerate(facts_of(site, name), 1) if not isinstance(what, facts.PeerHead))
            for name in SERVERS
        }
        await site.until(lambda: all(told(a, b) >= last[b] for a in SERVERS for b in SERVERS if a != b))
        # And are quiet when there is nothing to say.
        await written(site)
        async with asyncio.timeout(15):
            sizes = None
            while (now := [len(text_of(site, name)) for name in SERVERS]) != sizes:
                sizes = now
                await asyncio.sleep(0.5)
    for keeper in SERVERS:
        for fact in facts_of(site, keeper, facts.PeerHead):
            assert fact.head.signed_by(site.cluster.member(fact.member))
            assert not fact.conflict


async def test_a_log_that_is_not_what_it_was_is_noticed_by_the_others(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Party 1 truncates its own, anchor and all, as an operator with its key can; then it says so itself."""
    monkeypatch.setattr(desk_module, "HEAD_PAUSE", 0.0)
    audit, party1 = (site.servers[name].audit for name in PARTIES)
    party1._tell_head(["dealer", "party0"])
    await site.until(lambda: "party1" in audit._peers)
    log, number, digest = party1._log.head
    for number_now, digest_now, conflict in (
        (number - 1, digest, f"it had {number} entries"),
        (number, "ab" * 32, "this entry had another hash"),
    ):
        told = SignedHead.of(log, number_now, digest_now, 1, site.keys["party1"])
        for _ in range(2):
            site.servers["party1"].tell(["party0"], AuditHead(head=told))
        await site.until(lambda told=told: audit._conflicts.get("party1") == told)
        await written(site)
        assert facts_of(site, "party0", facts.PeerHead)[-1].conflict == conflict
    assert len([h for h in facts_of(site, "party0", facts.PeerHead) if h.conflict]) == 2
    # What it has not signed is nothing.
    forged = SignedHead.of(log, 10**6, digest, 1, site.keys["party0"])
    site.servers["party1"].tell(["party0"], AuditHead(head=forged))
    await site.until(lambda: any(r.request == "AuditHead" for r in facts_of(site, "party0", facts.Refused)))
    assert audit._peers["party1"].number == number


async def test_an_old_copy_of_a_folder_learns_from_the_others_where_it_stood(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_module, "HEAD_PAUSE", 0.0)
    party0, party1 = (site.servers[name].audit for name in PARTIES)
    party1._tell_head(["dealer", "party0"])
    await site.until(lambda: "party1" in party0._peers)
    ahead = SignedHead.of(party1._log.head.log, 1000, "cd" * 32, 1, site.keys["party1"])
    party0._peers["party1"] = ahead
    party1._tell_head(["party0"])
    await site.until(lambda: party1._log.head.number > 1000)
    (note,) = facts_of(site, "party1", facts.Broken)
    assert (note.number, note.hash) == (1000, "cd" * 32)
    # Nobody else says so: what it has not signed is nothing.
    forged = SignedHead.of(ahead.log, 2000, "cd" * 32, 1, site.keys["party0"])
    site.servers["party0"].tell(["party1"], AuditHead(head=forged, yours=forged))
    await site.until(lambda: any(r.request == "AuditHead" for r in facts_of(site, "party1", facts.Refused)))
    assert 1000 < party1._log.head.number < 1100
