"""Who is at fault: members that cheat are named, by what they have signed, and cost nobody else anything."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from cheats import (
    break_coin,
    break_commitment,
    corrupt_towards,
    equivocate,
    evidence,
    honest_again,
    lie_about_item,
    off_by_one,
    other_hash,
    other_inputs,
    other_parts,
    sign,
    speaking,
    wrong_sigma,
)
from msgspec.structs import replace

from mpc.errors import (
    AuditError,
    CaughtCheating,
    ConfigurationError,
    InconsistentInputs,
    MacCheckError,
    ProtocolViolation,
    TesseraError,
    UsageError,
)
from nn import Linear, Model, Sequential
from parties import DataSet, KeyPair
from parties.commands.command_line import main
from parties.messages.evidence import (
    BrokenWord,
    Contradiction,
    FailedCheck,
    InputsSaid,
    OtherItem,
    PartsSaid,
    SeenSaid,
    SigmaSaid,
    verify,
)
from parties.messages.failures import fault_of
from parties.messages.runs import Disputed, Failed, Inputs, Opening
from parties.messages.uploads import UploadSigned, VersionPrepared
from parties.operate import evidence as kept

from .stocked import program, right

ROUNDS = 3
"""Openings of ``program``; the check's first round has that number."""


def fresh(site) -> set[int]:
    """How many items are fresh, at the dealer and the parties: the same number everywhere."""
    stocks = [server.fresh_stock() for server in site.servers.values()]
    return {sum(stock.values()) for stock in stocks}


async def named(site, error, peer, coroutine, *, left: int = 0):
    """It fails with that error of that member, and so many runs are in progress then."""
    with pytest.raises(error) as caught:
        await coroutine
    assert type(caught.value) is error
    assert caught.value.peer == peer, str(caught.value)
    await site.until(lambda: all(len(site.servers[p.name].jobs) == left for p in site.cluster.parties))


async def proven(site, name, kind, culprit):
    """The server keeps evidence of that kind, and anybody can verify it."""
    await site.until(lambda: evidence(site, name))
    (piece,) = evidence(site, name)
    assert isinstance(piece, kind)
    assert verify(piece, site.cluster).culprit == culprit
    return piece


# -- clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("victim", ["party0", "party1"])
async def test_a_client_with_different_inputs_for_different_parties(every, victim):
    site = every
    async with site.client() as clinic, site.client("company") as company:
        await clinic.stock(program(clinic), 2)
        waiting = await clinic.prepare(program(clinic, [0.25]))
        with other_inputs(site, company, victim):
            await named(site, InconsistentInputs, "company", company.reveal(program(company, [0.75])), left=1)
        for party in site.cluster.parties:
            piece = await proven(site, party.name, Contradiction, "company")
            assert isinstance(piece.first.said, InputsSaid)
        # Nobody else has lost anything.
        assert await clinic.finish(waiting) == pytest.approx([0.25**4], abs=1e-3)
        assert fresh(site) == {2}
        await right(clinic, from_stock=True)
        await right(company)


@pytest.mark.parametrize("signature", [b"", b"garbage", b"s" * 64])
async def test_a_client_that_has_not_signed_its_inputs(either, signature):
    async with either.client() as clinic, either.client("company") as company:
        with other_inputs(either, company, "party1", signature=signature):
            await named(either, ProtocolViolation, "company", company.reveal(program(company, [0.75])))
        await right(clinic)
    assert not evidence(either, "party0")


async def test_a_client_that_signs_for_another_run(site):
    former = []

    def replay(server, message, payload):
        if isinstance(message, Inputs):
            former.append(message.signature)
            message = replace(message, signature=former[0])
        return message, payload

    async with site.client() as clinic:
        with speaking(clinic, replay):
            await right(clinic)
            with pytest.raises(ProtocolViolation, match="clinic"):
                await right(clinic)


async def test_where_nothing_is_opened_what_was_sent_is_compared_all_the_same(site):
    """A linear model: what its parties would reveal of it, of two inputs, is no output of it."""
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(DataSet({"w": np.array([0.5])}, low=-1, high=1), "d")
        await company.allow("d", "clinic", ["any"])
        secret = (await clinic.data("d"))["w"]
        assert await clinic.reveal(secret + secret) == pytest.approx([1.0], abs=1e-3)
        assert clinic.last_run.online.rounds == 2
        with other_inputs(site, clinic, "party1"):
            await named(site, InconsistentInputs, "clinic", clinic.reveal(secret + clinic.share([0.25])))


# -- owners ----------------------------------------------------------------------------------------------------------


def model(weight: float) -> Model:
    architecture = Sequential({"out": Linear(3, 1)}).architecture((3,))
    return Model(architecture, {n: np.full(s, weight) for n, s in architecture.parameters.items()})


async def test_an_owner_with_different_parts_for_different_parties(every):
    site = every
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        with other_parts(site, company, "party1"):
            await named(site, InconsistentInputs, "company", company.upload(model(0.25), "m"))
        piece = await proven(site, "dealer", Contradiction, "company")
        assert isinstance(piece.first.said, PartsSaid)
        # What was in use is.
        remote = await clinic.model("m")
        assert await clinic.reveal(remote(clinic.share([[1.0, 1.0, 1.0]], low=-1, high=1))) == pytest.approx(
            np.array([[2.0]]), abs=1e-2
        )


async def test_an_owner_that_has_not_signed_its_parts(site):
    async with site.client("company") as company:
        with other_parts(site, company, "party1", signed=False):
            await named(site, ProtocolViolation, "company", company.upload(model(0.25), "m"))
        assert (await company.upload(model(0.25), "m")).version


async def test_an_owner_that_signs_before_the_end_or_twice(site):
    def twice(server, message, payload):
        if isinstance(message, UploadSigned):
            company._board._endpoint.send(server, message)
        return message, payload

    async with site.client("company") as company:
        with speaking(company, twice), pytest.raises(ProtocolViolation, match="company"):
            await company.upload(model(0.25), "m")


async def test_different_parts_that_no_coordinator_has_seen_end_an_honest_client_s_run(either):
    """Party 1, restarted, has forgotten what it was told; its owner had signed both."""
    site = either
    async with site.client("company") as company, site.client() as clinic:
        lying = site.servers["party1"]._secrets
        with other_parts(site, company, "party1"):
            # An accomplice: it tells the coordinator what party 0 has.
            said = {}

            def same(message, buffers):
                said["party0"] = message.masked
                return [(message, buffers)]

            site.corrupt("party0", VersionPrepared, same)
            site.corrupt("party1", VersionPrepared, lambda m, b: [(replace(m, masked=said["party0"]), b)])
            prepare = site.servers["party1"]._desk._prepare

            async def later(upload):
                await site.until(lambda: "party0" in said)
                await prepare(upload)

            site.servers["party1"]._desk._prepare = later
            await company.upload(model(0.25), "m")
        assert lying.held
        await company.allow("m", "clinic")
        await clinic.stock(program(clinic), 1)
        remote = await clinic.model("m")
        run = clinic.reveal(remote(clinic.share([[1.0, 1.0, 1.0]], low=-1, high=1)))
        await named(site, InconsistentInputs, "company", run)
        piece = await proven(site, "party0", Contradiction, "company")
        assert isinstance(piece.first.said, PartsSaid)
        await right(clinic, from_stock=True)


# -- parties: what they compute on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["a digest", "nothing", "a part too many"])
async def test_a_party_that_says_it_was_sent_other_inputs(either, what):
    def lie(message, buffers):
        if message.round == 0:
            other = replace(message.inputs, digest="0" * 64)
            changes = {
                "a digest": {"inputs": other},
                "nothing": {"inputs": None},
                "a part too many": {"parts": (other,)},
            }
            message = replace(message, **changes[what])
        return [(message, buffers)]

    async with either.client() as clinic:
        await clinic.stock(program(clinic), 2)
        either.corrupt("party1", Opening, lie)
        await named(either, ProtocolViolation, "party1", clinic.reveal(program(clinic)))
        either.restore("party1")
        assert fresh(either) == {1}
        await right(clinic, from_stock=True)


# -- parties: the check ----------------------------------------------------------------------------------------------


async def test_only_a_true_failure_of_the_check_destroys_stock_and_it_proves_itself(strict_any):
    site = strict_any
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 3)
        session = site.servers["dealer"].stock.session
        wrong_sigma(site, "party1")
        with pytest.raises(MacCheckError):
            await clinic.reveal(program(clinic))
        await site.until(lambda: site.servers["dealer"].stock.session != session and fresh(site) == {0})
        piece = await proven(site, "party0", FailedCheck, "")
        assert len(piece.sigmas) == len(site.cluster.parties)
        await proven(site, "dealer", FailedCheck, "")
        # It is of a session that is over: whoever says it again destroys nothing.
        honest_again(site, "party1")
        await clinic.stock(program(clinic), 1)
        fault = fault_of(MacCheckError("again"))
        for server in ("party0", "dealer"):
            site.servers["party1"].endpoint.send(server, Failed(run="0" * 32, fault=fault, evidence=piece))
        await asyncio.sleep(0.05)
        assert fresh(site) == {1}
        await right(clinic, from_stock=True)


async def test_a_failed_check_of_a_run_dealt_on_demand_costs_no_stock(strict):
    """It had a key of its own, and no item of the stock has anything to do with it."""
    async with strict.client() as clinic, strict.client("company") as company:
        await clinic.stock(program(clinic), 1)
        wrong_sigma(strict, "party1")
        with pytest.raises(MacCheckError):
            await company.reveal(program(company, [0.75]))
        honest_again(strict, "party1")
        await strict.settled()
        assert fresh(strict) == {1}
        await right(clinic, from_stock=True)


@pytest.mark.parametrize("proof", ["none", "of another run", "forged", "sigmas that add up"])
async def test_a_party_that_cries_mac_check_error(strict, proof):
    """Its word costs the run that it is about, and names it."""
    site = strict
    async with site.client() as clinic, site.client("company") as company:
        await clinic.stock(program(clinic), 3 if proof == "sigmas that add up" else 2)
        piece = None
        if proof == "sigmas that add up":
            online, ended = site.servers["party1"].online, []
            finished = online._finish
            online._finish = lambda job, outputs: (ended.append(job), finished(job, outputs))
            # Of the session that would be over, had the check failed.
            await right(clinic, from_stock=True)
            piece = FailedCheck(tuple(words.sigma for words in ended[0].testimony._by_party.values()))
            assert all(sigma.holds(site.cluster) for sigma in piece.sigmas)
        elif proof != "none":
            wrong_sigma(site, "party1")
            with pytest.raises(MacCheckError):
                await company.reveal(program(company, [0.75]))
            honest_again(site, "party1")
            piece = await proven(site, "party0", FailedCheck, "")
        if proof == "forged":
            said = [replace(s.said, of=replace(s.said.of, session="0" * 32)) for s in piece.sigmas]
            names = [party.name for party in site.cluster.parties]
            sigmas = [
                replace(s, said=w, signature=sign(site, n, w) if n == "party1" else s.signature)
                for s, w, n in zip(piece.sigmas, said, names, strict=True)
            ]
            piece = FailedCheck(tuple(sigmas))
        prepared = await clinic.prepare(clinic.share([0.5], low=-1, high=1) * 2)
        fault = fault_of(MacCheckError("a lie"))
        for server in ("party0", "dealer"):
            site.servers["party1"].endpoint.send(server, Failed(run=prepared.run, fault=fault, evidence=piece))
        await site.until(lambda: not site.servers["party0"].jobs)
        await named(site, ProtocolViolation, "party1", clinic.finish(prepared))
        assert fresh(site) == {2}
        await right(clinic, from_stock=True)


@pytest.mark.parametrize("signed", [True, False])
async def test_a_party_that_opens_another_sigma_than_it_committed_to(strict_any, signed):
    site = strict_any
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 2)
        break_commitment(site, "party1", ROUNDS, signed=signed)
        await named(site, CaughtCheating, "party1", clinic.reveal(program(clinic)))
        if signed:
            piece = await proven(site, "party0", BrokenWord, "party1")
            assert isinstance(piece.statement.said, SigmaSaid)
        assert fresh(site) == {1}


async def test_a_party_that_opens_another_coin_than_it_committed_to(strict_any):
    site = strict_any
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 2)
        break_coin(site, "party1", ROUNDS)
        await named(site, CaughtCheating, "party1", clinic.reveal(program(clinic)))
        piece = await proven(site, "party0", BrokenWord, "party1")
        assert isinstance(piece.statement.said, SeenSaid)
        assert fresh(site) == {1}


async def test_a_party_that_does_not_sign_a_wrong_sigma(strict):
    async with strict.client() as clinic:
        await clinic.stock(program(clinic), 2)
        wrong_sigma(strict, "party1")

        def unsigned(message, buffers):
            if isinstance(message, Failed):
                return []
            return [(replace(message, signature=b"s" * len(message.signature)), buffers)]

        strict.corrupt("party1", (Opening, Failed), unsigned)
        await named(strict, CaughtCheating, "party1", clinic.reveal(program(clinic)))
        honest = {strict.servers[name] for name in ("dealer", "party0")}
        assert {sum(server.fresh_stock().values()) for server in honest} == {1}


@pytest.mark.parametrize("rounds", [0, 1])
async def test_a_party_that_sends_two_openings_of_one_round(strict, rounds):
    def twice(message, buffers):
        again = [(message, [off_by_one(b) for b in buffers])] if message.round == rounds else []
        return [(message, buffers), *again]

    async with strict.client() as clinic:
        await clinic.stock(program(clinic), 2)
        strict.corrupt("party1", Opening, twice)
        await named(strict, ProtocolViolation, "party1", clinic.reveal(program(clinic)))
        assert fresh(strict) == {1}


# -- parties: three of them ------------------------------------------------------------------------------------------


async def test_a_party_that_tells_two_others_different_things(strict3):
    async with strict3.client() as clinic:
        await clinic.stock(program(clinic), 2)
        equivocate(strict3, "party1", "party2", ROUNDS)
        await named(strict3, CaughtCheating, "party1", clinic.reveal(program(clinic)))
        for honest in ("party0", "party2"):
            piece = await proven(strict3, honest, Contradiction, "party1")
            assert isinstance(piece.first.said, SeenSaid)
        strict3.restore("party1")
        assert fresh(strict3) == {1}
        await right(clinic, from_stock=True)


async def test_a_party_that_tells_two_others_different_things_unsigned(strict3):
    async with strict3.client() as clinic:
        corrupt_towards(
            strict3, "party1", "party2",
            lambda m, b: [(m, [off_by_one(b[0])] if isinstance(m, Opening) and m.round == 1 else b)],
        )  # fmt: skip
        await named(strict3, CaughtCheating, "party1", clinic.reveal(program(clinic)))


async def test_a_party_that_says_it_has_seen_something_else(strict_any):
    site = strict_any
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 2)
        other_hash(site, "party1", ROUNDS)
        await named(site, CaughtCheating, "party1", clinic.reveal(program(clinic)))
        assert fresh(site) == {1}


async def test_a_party_that_disputes_what_nobody_else_does(strict3):
    server = strict3.servers["party1"]
    honest = server.online._sent

    def sent(job, message, outgoing):
        if message is not None and message.round == ROUNDS + 1:
            server.tell(["party0", "party2"], Disputed(run=job.run, joined=False, statements=job.testimony.seen))
            return
        honest(job, message, outgoing)

    server.online._sent = sent
    async with strict3.client() as clinic:
        await named(strict3, ProtocolViolation, "party1", clinic.reveal(program(clinic)))
        honest_again(strict3, "party1")
        prepared = await clinic.prepare(program(clinic))
        server.endpoint.send("party0", Disputed(run=prepared.run, joined=False, statements=()))
        await strict3.until(lambda: not strict3.servers["party0"].jobs)
        with pytest.raises(ProtocolViolation, match="party1"):
            await clinic.finish(prepared)


# -- parties: the stock ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["party0", "dealer"])
async def test_a_party_that_names_another_item_costs_one(either, victim):
    """It is named, and the stock is left alone from then on: runs are dealt for on demand."""
    site = either
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 4)
        lie_about_item(site, "party1", victim)
        await named(site, ProtocolViolation, "party1", clinic.reveal(program(clinic)))
        await proven(site, victim, OtherItem, "party1")
        await site.until(lambda: fresh(site) == {3})
        await site.until(lambda: site.servers["dealer"].stocking.left_by == "party1")
        for _ in range(3):
            await right(clinic, from_stock=False)
        assert fresh(site) == {3}
        with pytest.raises(ProtocolViolation, match="party1"):
            await clinic.stock(program(clinic), 1)


async def test_a_party_that_names_another_item_unsigned_is_named(site):
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 2)
        lie_about_item(site, "party1", "party0", signed=False)
        await named(site, ProtocolViolation, "party1", clinic.reveal(program(clinic)))
        assert fresh(site) == {1}
        assert not evidence(site, "party0")


# -- evidence --------------------------------------------------------------------------------------------------------


async def test_evidence_is_for_whom_it_is_about_and_nobody_else(site, tmp_path):
    async with site.client("company") as company:
        for victim in ("party0", "party1"):
            with other_inputs(site, company, victim), pytest.raises(InconsistentInputs):
                await company.reveal(program(company, [0.75]))
        await site.until(lambda: len(evidence(site, "party0")) == 2)
    one, other = evidence(site, "party0")
    for nothing in (
        Contradiction(one.first, one.first),
        Contradiction(one.first, other.first),
        Contradiction(one.first, replace(one.second, author="clinic")),
        Contradiction(one.first, replace(one.second, author="nobody")),
        Contradiction(one.first, replace(one.second, signature=b"")),
        BrokenWord(one.first),
        OtherItem(one.first, one.second),
        FailedCheck((one.first, one.second)),
    ):
        with pytest.raises(UsageError, match="proves nothing"):
            verify(nothing, site.cluster)


async def test_evidence_fills_no_disk(site, monkeypatch):
    monkeypatch.setattr(kept, "MAX_OF_A_MEMBER", 2)
    async with site.client("company") as company:
        for _ in range(3):
            with other_inputs(site, company, "party0"), pytest.raises(InconsistentInputs):
                await company.reveal(program(company, [0.75]))
        await site.settled()
    await site.until(lambda: len(evidence(site, "party0")) == 2)
    await asyncio.sleep(0.05)
    assert len(evidence(site, "party0")) == 2
    place = site.data("party0") / "evidence"
    assert place.stat().st_mode & 0o777 == 0o700
    for path in place.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{}")
    with pytest.raises(TesseraError, match="proves nothing"):
        list(kept.found(site.data("party0")))


async def test_the_command_lists_and_verifies_it(site, tmp_path, capsys):
    file = tmp_path / "cluster.toml"
    file.write_text(site.cluster.dumps())
    command = ["audit", "evidence", str(site.data("party0")), "--cluster", str(file)]
    assert main(command) == 0
    assert "no evidence" in capsys.readouterr().out
    async with site.client("company") as company:
        with other_inputs(site, company, "party1"), pytest.raises(InconsistentInputs):
            await company.reveal(program(company, [0.75]))
        await site.until(lambda: evidence(site, "party0"))
    assert main([*command, "--json"]) == 0
    (piece,) = json.loads(capsys.readouterr().out)["evidence"]
    assert (piece["proven"], piece["culprit"], piece["what"]) == (True, "company", "other-inputs")
    assert main(command) == 0
    assert "PROVEN" in capsys.readouterr().out
    # Anybody else's cluster file has other keys; and a file may be changed.
    stranger = replace_member(site.cluster, "company")
    file.write_text(stranger.dumps())
    assert main(command) == AuditError.exit_code
    assert "not all of it is signed" in capsys.readouterr().out
    assert main([*command, "--cluster", str(tmp_path / "former.toml")]) == ConfigurationError.exit_code
    path = tmp_path / "changed.json"
    path.write_text(Path(piece["file"]).read_text().replace('"InputsSaid"', '"PartsSaid"'))  # noqa: ASYNC240
    assert main(["audit", "evidence", str(path), "--cluster", str(file)]) == ConfigurationError.exit_code
    assert main(["audit", "evidence", str(tmp_path / "nowhere"), "--cluster", str(file)]) == 3


def replace_member(cluster, name):
    """The cluster with another key for that client."""
    clients = tuple(
        dataclasses.replace(c, key=KeyPair.generate().public) if c.name == name else c for c in cluster.clients
    )
    return dataclasses.replace(cluster, clients=clients)
