"""Cluster files that follow one another while servers run: what stays, what ends, and what nobody can bring about."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import (
    AuthenticationError,
    ConfigurationError,
    NotPermitted,
    PeerError,
    TesseraError,
    VersionMismatch,
)
from mpc.security import Security
from nn import Linear, Model, Sequential
from parties import AsyncClient, Cluster, KeyPair, Settings
from parties.commands.command_line import main
from parties.local.ports import reserved_ports
from parties.members.cluster import Member, Role
from parties.members.succession import Step, Succession, is_smooth
from parties.messages.uploads import UploadSeed
from parties.operate.cluster.console import consoling
from parties.operate.cluster.differences import differences, losses
from parties.operate.cluster.proposals import MAX_ALONE, Proposals
from parties.operate.cluster.record import ClusterRecord
from parties.operate.cluster.rekey import rekey

from .conftest import Site, opened

QUICK = {("dealer", "key"), ("dealer", "address"), ("party1", "key and address")}
"""Of servers and what changes of them."""


def model() -> Model:
    architecture = Sequential({"a": Linear(2, 2)}).architecture((2,))
    return Model(architecture, {name: np.ones(shape) for name, shape in architecture.parameters.items()})


def listed(site: Site, name: str) -> Member:
    """A client with a fresh key."""
    site.keys[name] = KeyPair.generate()
    return Member(name, Role.CLIENT, 0, None, site.keys[name].public)


def following(former: Cluster, **changes: Any) -> Cluster:
    return replace(former, number=former.number + 1, former=former.fingerprint, **changes)


async def accept(site: Site, new: Cluster, *signers: str) -> frozenset[str]:
    """As each of these, at its own server, or a client at all; who is missing after the last."""
    missing: frozenset[str] = frozenset()
    new = next(iter(site.servers.values())).endpoint.succession.completed(new)
    for name in signers:
        async with consoling(site.cluster, site.keys[name], 3, site.transport) as console:
            missing = await console.send(Step(new.dumps()).signed(name, site.keys[name]))
    return missing


async def go_on(site: Site, new: Cluster) -> None:
    """All accept it, and all servers go by it."""
    assert not await accept(site, new, *(signer.name for signer in site.servers["dealer"].cluster.signers))
    await site.until(lambda: all(server.cluster == new for server in site.servers.values()))


def current(site: Site) -> Cluster:
    cluster: Cluster = site.servers["dealer"].cluster
    return cluster


async def predict(client: AsyncClient, name: str = "m") -> None:
    remote = await client.model(name)
    found = await client.reveal(remote(client.share([[0.5, 0.25]], low=-1, high=1)))
    assert found == pytest.approx(np.full((1, 2), 1.75), abs=1e-3)


async def upload(site: Site, owner: str = "company", *clients: str) -> None:
    async with site.client(owner) as company:
        await company.upload(model(), "m")
        for client in clients:
            await company.allow("m", client, ["predict"])


async def test_a_client_comes_while_others_compute(either: Site) -> None:
    site = either
    await upload(site, "company", "*")
    async with site.client("clinic") as clinic:
        x = clinic.share([1.0, 2.0])
        await clinic.stock(x * 2, 2)
        prepared = await clinic.prepare(x + x * x)
        await go_on(site, following(site.cluster, clients=(*site.cluster.clients, listed(site, "late"))))
        assert await clinic.finish(prepared) == pytest.approx([2, 6], abs=1e-3)
        await predict(clinic)
        assert await clinic.reveal(x * 2) == pytest.approx([2, 4], abs=1e-3)
        assert clinic.last_run is not None
        assert clinic.last_run.from_stock
    async with AsyncClient(current(site), site.keys["late"], transport=site.transport) as late:
        await predict(late)
    # Started with the file they were begun with, they go by the newest; and who has an older one goes on to it.
    await site.restart("dealer", "party0", "party1")
    assert current(site).number == 2
    async with site.client("clinic") as clinic:
        await predict(clinic)
        assert clinic.cluster.number == 2
        assert await clinic.reveal(clinic.share([1.0, 2.0]) * 2) == pytest.approx([2, 4], abs=1e-3)
        assert clinic.last_run is not None
        assert clinic.last_run.from_stock


async def test_who_goes_has_nothing_left_and_who_stays_is_not_disturbed(either: Site) -> None:
    site = either
    await upload(site, "company", "clinic")
    async with site.client("clinic") as clinic, site.client("company") as company:
        stays = await clinic.prepare(clinic.share([3.0]) * 2)
        remote = await clinic.model("m")
        ends_too = await clinic.prepare(remote(clinic.share([[0.5, 0.25]], low=-1, high=1)))
        ends = await company.prepare(company.share([3.0]) * 2)
        heard: list[bytes] = []
        new = following(site.cluster, clients=site.cluster.clients[:1])
        await go_on(site, new)
        for server in site.servers:
            site.overhear(server, heard)
        with pytest.raises((PeerError, TesseraError)):
            await company.finish(ends)
        with pytest.raises(TesseraError):
            await clinic.finish(ends_too)
        assert heard == []
        for server in site.servers:
            site.restore(server)
        assert await clinic.finish(stays) == pytest.approx([6], abs=1e-3)
        with pytest.raises(TesseraError, match=r"not in use|no model|belongs|called 'm'"):
            await predict(clinic)
        assert all(len(server.jobs) == 0 for server in site.servers.values())
    with pytest.raises(PeerError):
        async with AsyncClient(site.cluster, site.keys["company"], transport=site.transport, connect_timeout=1):
            pass
    # It comes back, and is who it was; a restart in between makes no difference.
    await site.restart("party0", "dealer")
    back = site.cluster.clients[1]
    await go_on(site, following(new, clients=(*new.clients, back)))
    async with AsyncClient(current(site), site.keys["company"], transport=site.transport) as company:
        await predict(company)
    async with site.client("clinic") as clinic:
        await predict(clinic)


async def test_another_key_is_the_same_member(site: Site) -> None:
    await upload(site, "company", "clinic")
    former = site.keys["company"]
    async with site.client("company") as company, site.client("clinic") as clinic:
        await clinic.stock(clinic.share([1.0]) * 3, 1)
        prepared = await company.prepare(company.share([3.0]) * 2)
        now = listed(site, "company")
        await go_on(site, following(site.cluster, clients=(site.cluster.clients[0], now)))
        with pytest.raises(TesseraError):
            await company.finish(prepared)
        await predict(clinic)
        await clinic.reveal(clinic.share([2.0]) * 3)
        assert clinic.last_run is not None
        assert clinic.last_run.from_stock
    async with AsyncClient(current(site), site.keys["company"], transport=site.transport) as company:
        await predict(company)
        await company.upload(model(), "m")
        await predict(company)
    with pytest.raises((AuthenticationError, VersionMismatch)):
        async with AsyncClient(site.cluster, former, transport=site.transport, connect_timeout=1):
            pass
    await site.restart("dealer", "party0", "party1")
    async with AsyncClient(current(site), site.keys["company"], transport=site.transport) as company:
        await predict(company)


async def test_all_have_to_accept_and_one_that_was_away_learns_it(site: Site) -> None:
    new = following(site.cluster, clients=(*site.cluster.clients, listed(site, "late")))
    assert await accept(site, new, "party0") == {"dealer", "party1"}
    await site.stop("party1")
    await site.restart("party0")
    await asyncio.sleep(0)
    assert await accept(site, new, "dealer") <= {"party0", "party1"}
    async with consoling(site.cluster, site.keys["clinic"], 1, site.transport) as console:
        seen = await console.look()
    assert seen.cluster == site.cluster
    assert [step.signatures.keys() for step in seen.proposals] == [{"party0", "dealer"}]
    assert (seen.models, seen.stock) == (None, None)
    assert [error.peer for error in seen.unreached] == ["party1"]
    assert {server.cluster.number for server in site.servers.values()} == {1}
    # Signed elsewhere, and told to one server.
    signed = seen.proposals[0].signed("party1", site.keys["party1"])
    async with consoling(site.cluster, site.keys["dealer"], 3, site.transport) as console:
        assert await console.send(signed) == frozenset()
    await site.until(lambda: all(site.servers[name].cluster == new for name in ("dealer", "party0")))
    await site.start("party1")
    await site.until(lambda: bool(site.servers["party1"].cluster == new))
    await site.restart("party1")
    assert site.servers["party1"].cluster == new


async def test_who_has_not_to_sign_proposes_nothing(site: Site) -> None:
    new = following(site.cluster, clients=site.cluster.clients[:1])
    with pytest.raises(NotPermitted, match="clinic has not to sign"):
        await accept(site, new, "clinic")
    wrong = [
        (Step(new.dumps()), "without signing"),
        (Step(replace(new, number=7).dumps()).signed("party0", site.keys["party0"]), "does not follow"),
        (Step(new.dumps(), {"party0": bytes(64)}), "not right"),
        (Step(new.dumps()).signed("party0", site.keys["party1"]), "not right"),
        (Step("x" * (1 << 18)).signed, ""),
    ]
    async with consoling(site.cluster, site.keys["party0"], 3, site.transport) as console:
        for step, complaint in wrong[:-1]:
            assert isinstance(step, Step)
            with pytest.raises(TesseraError, match=complaint):
                await console.send(step)
        assert (await console.look()).proposals == ()
    assert {server.cluster.number for server in site.servers.values()} == {1}


async def test_a_client_may_be_asked_to_sign_and_is_told_what_is_stored(site: Site) -> None:
    await upload(site)
    await go_on(site, following(site.cluster, settings=_named(site.cluster, "clinic")))
    async with consoling(site.cluster, site.keys["clinic"], 3, site.transport) as console:
        seen = await console.look()
        assert seen.models is not None
        assert [(m.owner, m.name) for m in seen.models] == [("company", "m")]
    async with consoling(site.cluster, site.keys["company"], 3, site.transport) as console:
        assert (await console.look()).models is None
    with pytest.raises(NotPermitted):
        await accept(site, following(current(site), clients=current(site).clients[:1]), "party0")
    await go_on(site, following(current(site), clients=current(site).clients[:1]))


def _named(cluster: Cluster, *signers: str) -> Settings:
    settings = {name: getattr(cluster.settings, name) for name in cluster.settings.__struct_fields__}
    return Settings(**{**settings, "signers": signers})


def test_one_member_alone_does_not_fill_what_is_proposed(site_files: tuple[Succession, Any]) -> None:
    succession, _ = site_files
    keys = {name: KeyPair.generate() for name in ("dealer", "a", "b")}
    former = succession.cluster
    begun = Succession.begin(
        replace(
            former,
            dealer=replace(former.dealer, key=keys["dealer"].public),
            parties=tuple(replace(party, key=keys[party.name].public) for party in former.parties),
        )
    )
    files = [begun.completed(replace(begun.cluster, settings=Settings(threads=n))) for n in range(12)]
    proposals = Proposals(begun)
    both = Step(files[0].dumps()).signed("a", keys["a"]).signed("b", keys["b"])
    assert proposals.take(both)
    assert not proposals.take(both)
    for new in files[1:]:
        assert proposals.take(Step(new.dumps()).signed("a", keys["a"]))
    kept = [step.cluster().fingerprint for step in proposals.steps]
    assert kept == [new.fingerprint for new in (files[0], *files[-MAX_ALONE:])]
    assert proposals.complete() is None
    assert proposals.take(Step(files[0].dumps()).signed("dealer", keys["dealer"]))
    assert proposals.complete() == proposals.steps[0]


async def test_other_servers_or_settings_and_what_that_costs(site: Site) -> None:
    await upload(site, "company", "clinic")
    async with site.client("clinic") as clinic:
        await clinic.stock(clinic.share([1.0]) * 3, 2)
    async with consoling(site.cluster, site.keys["party0"], 3, site.transport) as console:
        seen = await console.look()
    settings = Settings(threads=1, peer_timeout=1.5, round_timeout=2.5)
    other = following(site.cluster, settings=settings)
    means = losses(site.cluster, seen.succession.completed(other), seen.models, seen.stock, smooth=False)
    assert means.sentences([]) == ["runs in progress fail, and servers begin anew in their processes"]
    await accept(site, other, "dealer", "party0", "party1")
    await site.until(lambda: all(server.succeeding.successor is not None for server in site.servers.values()))
    await asyncio.wait_for(asyncio.gather(*site.tasks.values()), 20)
    await site.restart("dealer", "party0", "party1")
    async with site.client("clinic") as clinic:
        assert clinic.cluster.settings == settings
        await predict(clinic)
        await clinic.reveal(clinic.share([2.0]) * 3)
        assert clinic.last_run is not None
        assert clinic.last_run.from_stock
    turned = following(other, parties=other.parties[::-1])
    means = losses(other, seen.succession.followed_by([]).cluster, seen.models, 1, smooth=False)
    assert is_smooth(other, other)
    assert not is_smooth(other, turned)
    assert differences(other, turned) == ["the parties are in another order"]
    ported = [following(other, dealer=replace(other.dealer, data_port=port)) for port in (0, 7100)]
    assert [sentence for one, two in ((other, ported[0]), ported) for sentence in differences(one, two)] == [
        "the data port of dealer dealer is none instead of a free one, from its next start",
        "the data port of dealer dealer is 7100 instead of none, from its next start",
    ]
    assert is_smooth(other, ported[1])


@pytest.mark.parametrize("has", [1, 2])
async def test_who_is_ahead_of_a_server_waits_for_it(site: Site, monkeypatch: pytest.MonkeyPatch, has: int) -> None:
    """Others have begun anew already, a client with them: with the newest file it knows the one before by its
    fingerprint alone, and else it is told."""
    behind = site.servers["party1"]
    monkeypatch.setattr(behind.succeeding, "begin_anew", behind.endpoint.tell)
    first = site.cluster
    second = following(first, settings=Settings(threads=1, peer_timeout=1.5, round_timeout=2.5))
    await accept(site, second, "dealer", "party0", "party1")
    await site.until(lambda: all(site.servers[name].succeeding.successor for name in ("dealer", "party0")))
    await site.restart("dealer", "party0")

    async def compute() -> None:
        file = {1: first, 2: second}[has]
        async with AsyncClient(file, site.keys["clinic"], transport=site.transport) as clinic:
            await clinic.reveal(clinic.share([2.0]) * 3)

    computing = asyncio.create_task(compute())
    await site.until(lambda: computing.done() or behind.endpoint._link("clinic").behind is not None)
    assert behind.cluster == first
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(computing), 0.3)
    await site.restart("party1")
    await computing


async def test_who_signs_last_is_heard_out_before_its_server_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    server, heard = site.servers["party1"], list[str]()

    async def ping(peer: str, deadline: float, honest: Any = server.endpoint.ping) -> float:
        heard.append(peer)
        return float(await honest(peer, deadline))

    monkeypatch.setattr(server.endpoint, "ping", ping)
    second = following(site.cluster, settings=Settings(threads=1, peer_timeout=1.5, round_timeout=2.5))
    assert not await accept(site, second, "dealer", "party0", "party1")
    await asyncio.wait([site.tasks["party1"]], timeout=20)
    assert "party1" in heard


async def test_who_comes_while_servers_begin_anew_waits_for_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until they have ended they have the former file, and would refuse whatever is begun by it."""
    end = asyncio.Event()
    for server in site.servers.values():

        async def leave(grace: float, server: Any = server, honest: Any = server.leave) -> None:
            server._leaving = True
            await end.wait()
            await honest(grace)

        monkeypatch.setattr(server, "leave", leave)
    second = following(site.cluster, settings=Settings(threads=1, peer_timeout=1.5, round_timeout=2.5))
    await accept(site, second, "dealer", "party0", "party1")
    await site.until(lambda: all(server.succeeding.successor is not None for server in site.servers.values()))

    async def compute() -> None:
        async with site.client() as clinic:
            await clinic.reveal(clinic.share([2.0]) * 3)

    computing = asyncio.create_task(compute())
    await site.until(
        lambda: (
            computing.done()
            or all(server.endpoint._link("clinic").behind is not None for server in site.servers.values())
        )
    )
    assert not computing.done()
    end.set()
    await asyncio.wait(site.tasks.values(), timeout=20)
    await site.restart("dealer", "party0", "party1")
    await computing


def test_what_a_change_means_in_words(tmp_path: Any) -> None:
    keys = {name: KeyPair.generate().public for name in ("dealer", "a", "b", "c", "clinic", "company", "new")}
    former = Cluster.build(
        "t",
        dealer=("h:1", keys["dealer"]),
        parties=[("a", "h:2", keys["a"]), ("b", "h:3", keys["b"])],
        clients=[("clinic", keys["clinic"]), ("company", keys["company"])],
    )
    begun = Succession.begin(former)
    from parties.messages.status import SecretSeen

    stored = (SecretSeen("m", "company", "0" * 32), SecretSeen("d", "clinic", "1" * 32))

    def said(new: Cluster, known: Sequence[SecretSeen] | None = stored, stock: int | None = 5) -> list[str]:
        new = begun.check(begun.completed(new))
        means = losses(former, new, known, stock, smooth=is_smooth(former, new))
        gone = {m.name for m in former.members} - {m.name for m in new.members}
        return differences(former, new) + means.sentences(gone)

    a, b = former.parties
    assert said(following(former)) == ["nothing has to be uploaded or dealt again"]
    assert said(following(former, clients=former.clients[:1])) == [
        "client company goes",
        "nobody can use m of company any more, unless company comes back",
    ]
    assert said(following(former, parties=(a, replace(b, address="h:9", key=keys["new"])))) == [
        "party b has another key: whoever holds that is b, with all it has stored",
        "party b is at h:9 instead of h:3",
        "nothing has to be uploaded or dealt again",
        "b has to be started anew by its operator (docs/cluster.md)",
    ]
    c = Member("c", Role.PARTY, 2, "h:4", keys["c"])
    assert said(following(former, parties=(a, b, c)))[:4] == [
        "party c comes",
        "clinic has to upload again: d",
        "company has to upload again: m",
        "5 items of preprocessing in stock are destroyed: deal again (tessera deal)",
    ]
    assert said(following(former, parties=(a, b, c)), None, None)[1:3] == [
        "every model and data set has to be uploaded again, by its owner",
        "all preprocessing in stock is destroyed: have it dealt again (tessera deal)",
    ]
    assert said(following(former, settings=Settings(signers=("a",))))[0] == "signers is a instead of (all servers)"
    strict = said(following(former, settings=Settings(security="malicious")))  # type: ignore[arg-type]
    assert strict[:2] == [
        "security is malicious instead of semi-honest",
        "5 items of preprocessing in stock are destroyed: deal again (tessera deal)",
    ]


def test_no_start_goes_back_behind_the_record(site_files: tuple[Succession, Any]) -> None:
    succession, folder = site_files
    first, last = succession.steps[0].cluster(), succession.cluster
    record = ClusterRecord(folder, first)
    assert record.succession.cluster == first
    # A crash before the record is whole leaves the former one.
    (folder / "cluster.record.part").write_bytes(b"half")
    record.keep(succession)
    for given in (first, succession.steps[1].cluster(), last):
        assert ClusterRecord(folder, given).succession.cluster == last
    other = replace(first, number=last.number + 1, former="e" * 64)
    with pytest.raises(ConfigurationError, match="none of those before it; if it has followed"):
        ClusterRecord(folder, other)
    with pytest.raises(ConfigurationError, match="none of those before it"):
        ClusterRecord(folder, replace(first, settings=Settings(threads=3)))
    (folder / "cluster.record").write_bytes((folder / "cluster.record").read_bytes().replace(b"clinic", b"cl1nic"))
    with pytest.raises(ConfigurationError, match="damaged"):
        ClusterRecord(folder, last)


def test_a_folder_with_an_older_file_and_what_followed(site_files: tuple[Succession, Any]) -> None:
    succession, folder = site_files
    first, last = succession.steps[0].cluster(), succession.cluster
    ClusterRecord(folder, first).keep(Succession.begin(first))
    assert ClusterRecord(folder, last, succession.steps).succession.cluster == last
    assert ClusterRecord(folder, first).succession.cluster == first
    with pytest.raises(ConfigurationError, match="does not follow"):
        ClusterRecord(folder, first, succession.steps[2:])
    # Before anything has followed, whoever starts the server says what it begins with.
    corrected = replace(first, settings=Settings(threads=3))
    assert ClusterRecord(folder, corrected).succession.cluster == corrected


@pytest.fixture
def site_files(tmp_path: Any) -> tuple[Succession, Any]:
    keys = {name: KeyPair.generate() for name in ("dealer", "a", "b", "clinic", "company")}
    first = Cluster.build(
        "t",
        dealer=("h:1", keys["dealer"].public),
        parties=[("a", "h:2", keys["a"].public), ("b", "h:3", keys["b"].public)],
        clients=[("clinic", keys["clinic"].public), ("company", keys["company"].public)],
    )
    succession = Succession.begin(first)
    for clients in (first.clients[:1], first.clients[:2]):
        step = Step(following(succession.cluster, clients=clients).dumps())
        for name in ("dealer", "a", "b"):
            step = step.signed(name, keys[name])
        succession = succession.followed_by([step])
    return succession, tmp_path


async def test_an_upload_of_who_goes_comes_to_nothing(site: Site) -> None:
    site.corrupt("dealer", UploadSeed, lambda _, __: ())
    party, coordinator = site.servers["party0"], site.servers["dealer"]._coordinator
    async with site.client("company") as company:
        uploading = asyncio.create_task(company.upload(model(), "m"))
        await site.until(lambda: bool(party._secrets.uploads.versions or coordinator._uploads))
        await go_on(site, following(site.cluster, clients=site.cluster.clients[:1]))
        assert party._secrets.uploads.versions == ()
        assert coordinator._uploads == {}
        uploading.cancel()
        with pytest.raises((asyncio.CancelledError, TesseraError)):
            await uploading


async def test_a_crash_before_it_has_gone_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is recorded first: what was not gone on to then, is at the next start."""
    new = following(site.cluster, clients=site.cluster.clients[:1])

    def crash(_: Succession) -> None:
        raise RuntimeError("here")

    monkeypatch.setattr(site.servers["party1"].succeeding, "go_on", crash)
    await accept(site, new, "dealer", "party0", "party1")
    assert site.servers["party1"].cluster == site.cluster
    await site.restart("party1")
    assert site.servers["party1"].cluster == new
    # Whose signatures these are nobody else has heard: it tells them.
    await site.until(lambda: all(server.cluster == new for server in site.servers.values()))
    async with site.client("clinic") as clinic:
        assert await clinic.reveal(clinic.share([1.0]) * 2) == pytest.approx([2], abs=1e-3)


async def test_a_party_goes(tmp_path: Path) -> None:
    """It says beforehand what is lost, loses that and nothing else, and the party's server ends for good."""
    async with opened(tmp_path, Security.SEMI_HONEST, parties=3) as site:
        await upload(site, "company", "clinic")
        new = following(site.cluster, parties=site.cluster.parties[:2])
        async with consoling(site.cluster, site.keys["party2"], 3, site.transport) as console:
            seen = await console.look()
            means = losses(site.cluster, seen.succession.completed(new), seen.models, seen.stock, smooth=False)
        assert means.sentences(["party2"])[0] == "company has to upload again: m"
        names = ("dealer", "party0", "party1", "party2")
        await accept(site, new, *names)
        await asyncio.wait_for(asyncio.gather(*site.tasks.values()), 20)
        with pytest.raises(ConfigurationError, match="party2 is no server any more, by cluster file 2"):
            await site.start("party2")
        del site.servers["party2"], site.tasks["party2"]
        await site.restart("dealer", "party0", "party1")
        async with site.client("company") as company, site.client("clinic") as clinic:
            assert len(company.cluster.parties) == 2
            # Nothing disappears silently: whoever might use it is told what has become of it, and nobody else.
            with pytest.raises(NotPermitted, match="'m' of company was shared among other servers"):
                await predict(clinic)
            with pytest.raises(NotPermitted, match="nothing called 'other'"):
                await clinic.model("other")
            assert await company.left_behind() == await clinic.left_behind() == ["company/m"]
            await company.allow("m", "clinic", [])
            assert await clinic.left_behind() == []
            with pytest.raises(NotPermitted, match="nothing called 'm' for us"):
                await clinic.model("m")
            await company.upload(model(), "m")
            await company.allow("m", "clinic")
            assert await company.left_behind() == []
            await predict(clinic)


def test_years_of_changes_are_gone_through_at_a_start(site_files: tuple[Succession, Any]) -> None:
    """Fifty clinics that come and go, each year: a few seconds would be too long."""
    keys = {name: KeyPair.generate() for name in ("dealer", "a", "b")}
    clients = [Member(f"c{n}", Role.CLIENT, n, None, KeyPair.generate().public) for n in range(50)]
    former = site_files[0].steps[0].cluster()
    first = replace(
        former,
        dealer=replace(former.dealer, key=keys["dealer"].public),
        parties=tuple(replace(party, key=keys[party.name].public) for party in former.parties),
        clients=tuple(clients),
    )
    succession = Succession.begin(first)
    for number in range(100):
        step = Step(succession.completed(replace(succession.cluster, clients=tuple(clients[number % 50 :]))).dumps())
        for name, pair in keys.items():
            step = step.signed(name, pair)
        succession = succession.followed_by([step])
    started = time.process_time()
    again = Succession.begin(first).followed_by(succession.steps[1:])
    assert again.cluster == succession.cluster
    assert time.process_time() - started < 3
    told, rounds = Succession.begin(first), 0
    while told.cluster != succession.cluster:
        steps = [memoryview(step) for step in succession.since(told.cluster.fingerprint)]
        told, rounds = told.told(steps), rounds + 1
    assert rounds == 2


MOVES = [
    pytest.param(name, what, marks=[] if (name, what) in QUICK else [pytest.mark.slow])
    for name in ("dealer", "party0", "party1")
    for what in ("key", "address", "key and address")
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "what"), MOVES)
async def test_a_server_with_another_key_or_address_is_the_same(
    either: Site, name: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await moved_and_the_same(either, name, what, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["key", "address", "key and address"])
@pytest.mark.parametrize("name", ["dealer", "party1"])
async def test_likewise_over_sockets(wired: Site, name: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    await moved_and_the_same(wired, name, what, capsys)


async def moved_and_the_same(site: Site, name: str, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Models, rules and stock are there, once its folder is sealed anew; a former key serves it no more."""
    await upload(site, "company", "clinic")
    async with site.client("clinic") as clinic:
        await clinic.stock(clinic.share([1.0]) * 3, 2)
    former, site.keys["new"] = site.keys[name], KeyPair.generate()
    moved = site.cluster.member(name)
    if "key" in what:
        moved = replace(moved, key=site.keys["new"].public)
    if "address" in what:
        (port,) = site.stack.enter_context(reserved_ports(1))
        moved = replace(moved, address=f"127.0.0.1:{port}")
    parties = tuple(moved if party.name == name else party for party in site.cluster.parties)
    dealer = moved if name == "dealer" else site.cluster.dealer
    new = following(site.cluster, dealer=dealer, parties=parties)
    others = {other: server for other, server in site.servers.items() if other != name}
    await accept(site, new, *others, name)
    await site.until(lambda: all(server.cluster == new for server in others.values()))
    await asyncio.wait_for(site.tasks.pop(name), 20)
    if "key" in what:
        with pytest.raises(ConfigurationError, match="tessera cluster rekey"):
            await site.start(name)
        site.keys[name] = site.keys["new"]
        with pytest.raises(ConfigurationError, match="another public key"):
            await site.start(name)
        rekey(site.data(name), former, site.keys["new"])
    await site.start(name)
    async with site.client("clinic") as clinic, site.client("company") as company:
        assert clinic.cluster.member(name).address == moved.address
        await predict(clinic)
        await clinic.reveal(clinic.share([2.0]) * 3)
        assert clinic.last_run is not None
        assert clinic.last_run.from_stock
        # What is stored and dealt from now on is as good.
        await company.upload(model(), "m")
        await predict(clinic)
        await clinic.stock(clinic.share([1.0]) * 5, 1)
        await clinic.reveal(clinic.share([1.0]) * 5)
        assert clinic.last_run.from_stock
    assert all(site.servers[other] is server and not site.tasks[other].done() for other, server in others.items())
    await site.stop(name)
    files = [site.folder / f"cluster-{number}.toml" for number in (1, 2)]
    for path, cluster in zip(files, (site.cluster, next(iter(others.values())).cluster), strict=True):
        path.write_text(cluster.dumps())
    arguments = [word for path in files for word in ("--cluster", str(path))]
    assert main(["audit", "verify", str(site.data(name)), *arguments]) == 0, capsys.readouterr().out
