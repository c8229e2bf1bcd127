"""Models through servers and clients: in use everywhere or nowhere, listed, removed by their owners, and restarted."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from typing import Any

import msgspec
import numpy as np
import pytest

from mpc.errors import (
    NoSuchName,
    NotPermitted,
    PeerError,
    ProgramError,
    ProtocolViolation,
    RemoteError,
    ServerBusy,
    UsageError,
)
from mpc.security import Security
from nn import Linear, Model, Sequential
from parties import Cluster, KeyPair
from parties.client.remote_model import RemoteModel
from parties.members.cluster import Role
from parties.messages import rules as rule_messages
from parties.messages import stored as model_messages
from parties.messages.evidence import Vouched
from parties.messages.stock import MAX_PROGRAMS, StockDropped, StockHeld
from parties.messages.stored import FindSecret, ListSecrets, RemoveSecret, SecretInfo, SecretList, SecretRemoved
from parties.messages.uploads import (
    Prepared,
    TensorInfo,
    Upload,
    UploadSeed,
    VersionCommit,
    VersionDropped,
    VersionPrepared,
    VersionsHeld,
)
from parties.servers import coordinator
from parties.stored.vault import VaultError
from parties.wire.messages import Message, decode_header, encode_header

from .conftest import opened
from .test_uploads import speaking

PARTIES = ("party0", "party1")
ID = "0123456789abcdef" * 2
VOUCHED = Vouched("ab" * 32, b"s" * 64)
IMAGE = [[1.0, 1.0, 1.0]]


def model(scale: float = 1.0) -> Model:
    architecture = Sequential({"out": Linear(3, 2)}).architecture((3,))
    return Model(architecture, {n: np.full(s, scale) for n, s in architecture.parameters.items()})


async def scale_of(client: Any, name: str = "m") -> float:
    """Of the version in use."""
    remote = await client.model(name)
    result = await client.reveal(remote(client.share(IMAGE, low=-1, high=1)))
    return round(float(result.mean()) / 4, 2)


def stores(site: Any, name: str) -> Any:
    return site.servers[name]._secrets


async def agreed(site: Any) -> None:
    """Nothing is left to decide."""
    await site.until(lambda: not any(stores(site, party).prepared for party in PARTIES))


# -- uploads ---------------------------------------------------------------------------------------------------------


async def test_nothing_changes_before_every_party_has_all_of_it(site):
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        former = (await clinic.model("m")).version
        # Whatever party 1 says of what it holds gets lost for a while.
        site.corrupt("party1", Message, lambda m, b: [] if isinstance(m, VersionPrepared | VersionsHeld) else [(m, b)])
        uploading = asyncio.create_task(company.upload(model(0.25), "m"))
        await site.until(lambda: stores(site, "party0").prepared and stores(site, "party1").prepared)
        assert (await clinic.model("m")).version == former
        assert await scale_of(clinic) == 0.5
        # It asks again by itself, and is answered.
        site.restore("party1")
        await uploading
        assert await scale_of(clinic) == 0.25
        await agreed(site)


async def test_a_version_that_is_being_uploaded_cannot_be_asked_for_in_advance(either, monkeypatch):
    """An accomplice of party 1's learns its id, asks for a weight, and is dealt for only once it is in use."""
    site, dealer = either, either.servers["dealer"]
    deal, committed = dealer.deal, threading.Event()
    monkeypatch.setattr(dealer, "deal", lambda *what: committed.wait(60) and deal(*what))
    async with site.client("company") as company, site.client() as clinic:
        site.corrupt("party1", Message, lambda m, b: [] if isinstance(m, VersionPrepared | VersionsHeld) else [(m, b)])
        uploading = asyncio.create_task(company.upload(model(0.25), "m"))
        await site.until(lambda: stores(site, "party0").prepared and stores(site, "party1").prepared)
        (version,) = stores(site, "party0").prepared
        remote = RemoteModel("m", "company", version, model(0.25).description)
        clinic._slots.note(remote)
        weight = remote.description.stored(remote.slot)["out.weight"]
        stealing = asyncio.create_task(clinic.prepare(weight))
        await asyncio.wait([stealing], timeout=0.5)
        site.restore("party1")
        await uploading
        committed.set()
        with pytest.raises(ProgramError, match="not in use here"):
            await stealing
        # Now that it is in use its rules are known, and forbid it.
        with pytest.raises(NotPermitted):
            await clinic.prepare(weight)


async def test_a_party_that_misses_the_decision_asks_for_it(site):
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
        site.corrupt("dealer", VersionCommit, lambda message, buffers: [])
        with pytest.raises(PeerError):
            await company.upload(model(0.25), "m")
        # The former version is gone by then: refused, and never mixed with the new one.
        with pytest.raises((ProgramError, UsageError, NotPermitted), match="upload it"):
            await scale_of(clinic)
        site.restore("dealer")
        await agreed(site)
        assert await scale_of(clinic) == 0.25


async def test_an_owner_who_gives_up_too_late(site):
    """Once it is decided its word counts no more: not at some and at others."""
    async with site.client("company") as company:
        remote = await company.upload(model(0.5), "m")
        company._board.tell(VersionDropped(version=remote.version))
        await asyncio.sleep(0.2)
        assert await scale_of(company) == 0.5


async def test_an_owner_who_gives_up_while_it_is_decided(site, monkeypatch):
    """The decision is on its way to the disk: what came behind it would be dropped at the parties alone."""
    database = site.servers["dealer"]._versions
    commit, begun, heard = database.commit, threading.Event(), threading.Event()

    def slow(*what: Any) -> None:
        begun.set()
        heard.wait(60)
        commit(*what)

    monkeypatch.setattr(database, "commit", slow)
    async with site.client("company") as company:
        uploading = asyncio.create_task(company.upload(model(0.5), "m"))
        await site.until(begun.is_set)
        (version,) = stores(site, "party0").prepared
        company._board.tell(VersionDropped(version=version))
        await asyncio.sleep(0.2)
        heard.set()
        await uploading
        await asyncio.sleep(0.2)
        assert await scale_of(company) == 0.5


async def test_an_owner_who_gives_up_before_it_is_decided(site):
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        site.corrupt("party1", Message, lambda m, b: [] if isinstance(m, VersionPrepared | VersionsHeld) else [(m, b)])
        uploading = asyncio.create_task(company.upload(model(0.25), "m"))
        await site.until(lambda: stores(site, "party0").prepared and stores(site, "party1").prepared)
        uploading.cancel()
        await asyncio.gather(uploading, return_exceptions=True)
        await agreed(site)
        site.restore("party1")
        assert await scale_of(company) == 0.5
        for party in PARTIES:
            assert len(list((site.data(party) / "models").iterdir())) == 1


async def test_what_a_client_that_vanished_has_begun_is_forgotten_in_the_end(site, monkeypatch):
    async with speaking(site, "company") as ask:
        message = Upload(version=ID, name="theirs", tensors=(TensorInfo("w", (2,)),), content="ab" * 32)
        assert isinstance(await ask("dealer", message, b""), UploadSeed)
    held = site.servers["dealer"]._coordinator
    assert held._uploads
    monkeypatch.setattr(coordinator, "MAX_AGE", 0.0)
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
    await site.until(lambda: not held._uploads)
    assert not held._database.begun()


async def test_a_disk_that_fails_at_one_party(site, monkeypatch):
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")

        def full(*_: Any) -> None:
            raise VaultError("model file x cannot be written (No space left on device): see to the disk")

        monkeypatch.setattr(site.servers["party1"]._disk, "prepare", full)
        with pytest.raises(RemoteError, match="No space left") as caught:
            await company.upload(model(0.25), "m")
        assert caught.value.peer == "party1"
        await agreed(site)
        assert await scale_of(company) == 0.5
        monkeypatch.undo()
        await company.upload(model(0.25), "m")
        assert await scale_of(company) == 0.25


async def test_a_dealer_that_cannot_write(site, monkeypatch):
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")

        def full(*_: Any) -> None:
            raise VaultError("the disk is full")

        monkeypatch.setattr(site.servers["dealer"]._versions, "commit", full)
        with pytest.raises(RemoteError, match="the disk is full") as caught:
            await company.upload(model(0.25), "m")
        assert caught.value.peer == "dealer"
        await agreed(site)
        assert await scale_of(company) == 0.5


async def test_each_owner_has_names_of_its_own(site):
    async with site.client("company") as company, site.client() as clinic:
        await asyncio.gather(company.upload(model(0.5), "m"), clinic.upload(model(0.25), "m"))
        await agreed(site)
        for client, scale in ((company, 0.5), (clinic, 0.25)):
            assert await scale_of(client) == scale
            assert [(entry.owner, entry.name) for entry in await client.models()] == [(client.member.name, "m")]
        await site.restart("dealer", *PARTIES)
        await company.allow("m", "clinic")
        # What is one's own is meant first; whose it is may be said.
        for name, scale in (("m", 0.25), ("clinic/m", 0.25), ("company/m", 0.5)):
            assert await scale_of(clinic, name) == scale
        await clinic.remove("m")
        assert await scale_of(clinic) == 0.5
        assert await scale_of(company) == 0.5


async def test_a_name_that_several_others_have_says_whose_it_is(tmp_path):
    async with (
        opened(tmp_path, Security.SEMI_HONEST, clients=("clinic", "company", "other")) as site,
        site.client("company") as company,
        site.client("other") as other,
        site.client() as clinic,
    ):
        for owner, scale in ((company, 0.5), (other, 0.25)):
            await owner.upload(model(scale), "m")
            await owner.allow("m", "clinic")
        with pytest.raises(UsageError, match=r"several owners .* by writing company/m or other/m"):
            await clinic.model("m")
        assert [await scale_of(clinic, name) for name in ("company/m", "other/m")] == [0.5, 0.25]
        with pytest.raises(UsageError, match="NAME or OWNER/NAME"):
            await clinic.model("/m")
        # Who may not use one of them does not know of it.
        await other.allow("m", "clinic", [])
        assert await scale_of(clinic) == 0.5


async def test_too_many_models(site, monkeypatch):
    for server in site.servers.values():
        server.governor.quotas.names = 2
    async with site.client("company") as company, site.client() as clinic:
        for name in ("a", "b", "a"):
            await company.upload(model(), name)
        with pytest.raises(ServerBusy, match=r"company has 2 names, .* remove one first"):
            await company.upload(model(), "c")
        await clinic.upload(model(0.5), "theirs")
        assert await scale_of(clinic, "theirs") == 0.5
        await company.remove("b")
        await company.upload(model(), "c")


# -- restarts --------------------------------------------------------------------------------------------------------


async def test_shares_are_read_when_a_run_needs_them(either):
    async with either.client("company") as company:
        await company.upload(model(0.5), "m")
        await company.upload(model(0.25), "other")
        await company.allow("m", "clinic")
    await either.restart("party0", "dealer")
    assert stores(either, "party0").loaded == set()
    async with either.client() as clinic:
        assert await scale_of(clinic) == 0.5
        assert stores(either, "party0").loaded == {(await clinic.model("m")).version}


async def test_a_dealer_that_has_forgotten_an_upload_means_no(site):
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        site.corrupt("party1", Message, lambda m, b: [] if isinstance(m, VersionPrepared | VersionsHeld) else [(m, b)])
        uploading = asyncio.create_task(company.upload(model(0.25), "m"))
        await site.until(lambda: stores(site, "party0").prepared and stores(site, "party1").prepared)
        await site.stop("dealer")
        with pytest.raises(PeerError):
            await uploading
        site.restore("party1")
        await site.start("dealer")
        await agreed(site)
        assert await scale_of(company) == 0.5


async def test_a_party_drops_what_the_dealer_knows_to_be_gone(site):
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
    async with speaking(site, "company") as ask:
        for found in (True, False):
            answer = await ask("dealer", RemoveSecret(request=ID, name="m"))
            assert answer == SecretRemoved(request=ID, found=found)
    await site.restart("party1")
    await site.until(lambda: not stores(site, "party1").held)
    assert stores(site, "party0").held
    await site.restart("dealer")
    await site.until(lambda: not stores(site, "party0").held)


async def test_an_empty_dealer_drops_nothing(site):
    """Its folder may have been mixed up; what the parties hold is for their owners to remove."""
    async with site.client("company") as company:
        remote = await company.upload(model(0.5), "m")
        await site.stop("dealer")
        site.data("dealer").rename(site.folder / "elsewhere")
        await site.start("dealer")
        await asyncio.sleep(0.3)
        with pytest.raises(ProgramError, match="upload it again"):
            await scale_of(company)
        await site.stop("dealer")
        site.data("dealer").rename(site.folder / "wrong")
        (site.folder / "elsewhere").rename(site.data("dealer"))
        await site.start("dealer")
        assert (await company.model("m")).version == remote.version
        assert await scale_of(company) == 0.5
        await site.stop("dealer")
        site.data("dealer").rename(site.folder / "elsewhere")
        await site.start("dealer")
        await company.remove("m")
        assert await company.models() == []


async def test_stock_that_nobody_will_ask_for_is_swept(strict):
    """A party that was not told, since it was down."""
    async with strict.client("company") as company:
        remote = await company.upload(model(0.5), "m")
        result = remote(company.share(IMAGE, low=-1, high=1))
        program = (await company.stock(result, 2)).program
        y = company.share([0.5], low=-1, high=1)
        other = (await company.stock(y * y * y, 1)).program
        strict.corrupt("dealer", StockDropped, lambda message, buffers: [])
        await company.remove("m")
        await strict.until(lambda: program not in strict.servers["dealer"].stock.stock())
        strict.restore("dealer")
        ledger = strict.servers["party0"].material.ledger
        assert ledger.stock() == {program: 2, other: 1}
        await strict.restart("party0")
        await strict.until(lambda: strict.servers["party0"].material.ledger.stock() == {other: 1})


async def test_the_stock_of_models_that_went_while_the_dealer_died(strict):
    async with strict.client("company") as company:
        remote = await company.upload(model(0.5), "m")
        program = (await company.stock(remote(company.share(IMAGE, low=-1, high=1)), 2, low_water=1)).program
        dealer = strict.servers["dealer"]
        # As a crash right after the removal leaves it.
        dealer._versions.remove(remote.version)
        assert dealer._versions.abandoned() == [program]
        await strict.restart("dealer")
        dealer = strict.servers["dealer"]
        await strict.until(lambda: not dealer.stock.stock() and not dealer._versions.abandoned())
        assert not dealer.stock.targets()
        await strict.until(lambda: not any(strict.servers[party].material.ledger.stock() for party in PARTIES))


async def test_an_owner_that_the_cluster_file_lists_no_more(site, caplog):
    caplog.set_level(logging.WARNING, logger="parties")
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic")
    listed, usual = site.keys["company"], site.cluster

    def cluster(owner: KeyPair) -> Cluster:
        return Cluster.build(
            "within",
            dealer=(usual.dealer.address, usual.dealer.key),
            parties=[(party.name, party.address, party.key) for party in usual.parties],
            clients=[("clinic", site.keys["clinic"].public), ("company", owner.public)],
            settings=usual.settings,
        )

    servers = ("dealer", *PARTIES)
    await site.stop(*servers)
    site.keys["company"] = KeyPair.generate()
    site.cluster = cluster(site.keys["company"])
    await site.start(*servers)
    assert "model m of company is here but cannot be used" in caplog.text
    async with site.client() as clinic:
        assert await clinic.models() == []
        with pytest.raises(NotPermitted, match="has none yet"):
            await clinic.model("m")
    # Put right, it is there again.
    await site.stop(*servers)
    site.keys["company"], site.cluster = listed, cluster(listed)
    await site.start(*servers)
    async with site.client() as clinic:
        assert await scale_of(clinic) == 0.5
    await site.stop(*servers)
    site.keys["company"] = KeyPair.generate()
    site.cluster = cluster(site.keys["company"])
    await site.start(*servers)
    async with site.client() as clinic, site.client("company") as company:
        for client, scale in ((clinic, 0.25), (company, 0.75)):
            await client.upload(model(scale), "m")
            assert await scale_of(client) == scale
        # Rules were another's of that name, and so are not the new one's.
        with pytest.raises(NotPermitted, match="for us"):
            await clinic.model("company/m")
    for party in PARTIES:
        assert len(list((site.data(party) / "models").iterdir())) == 3


# -- listing and removing --------------------------------------------------------------------------------------------


async def test_listing(site):
    async with site.client("company") as company, site.client() as clinic:
        assert await clinic.models() == []
        first = await company.upload(model(), "b")
        await clinic.upload(model(), "a")
        assert [entry.name for entry in await clinic.models()] == ["a"]
        await company.allow("b", "clinic")
        entries = await clinic.models()
        assert [(entry.name, entry.owner) for entry in entries] == [("a", "clinic"), ("b", "company")]
        entry = entries[1]
        assert entry.version == first.version
        assert entry.shapes == {name: array.shape for name, array in model().encode().items()}
        assert entry.parameters == 8
        assert entry.held_by == PARTIES
        assert entry.complete
        assert entry.to_dict()["version"] == first.version
        await site.restart("party1")
        assert await clinic.models() == entries


async def test_only_its_owner_removes_a_model_and_each_server_sees_to_it(site):
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        async with site.client() as clinic:
            # As of a name that nobody has.
            for name in ("m", "n"):
                with pytest.raises(NoSuchName, match=f"nobody has anything of yours called '{name}'"):
                    await clinic.remove(name)
        async with speaking(site, "clinic") as ask:
            for server in site.servers:
                assert await ask(server, RemoveSecret(request=ID, name="m")) == SecretRemoved(request=ID, found=False)
        assert await scale_of(company) == 0.5
        await company.remove("m")
        assert await company.models() == []
        for party in PARTIES:
            assert list((site.data(party) / "models").iterdir()) == []
            assert not stores(site, party).loaded
        assert not site.servers["dealer"]._coordinator.stored
        with pytest.raises(NoSuchName, match="nobody has anything of yours called 'm'"):
            await company.remove("m")
        with pytest.raises(UsageError, match="not a name"):
            await company.remove("../m")


INFO = SecretInfo("m", "company", ID, 1e9, 100)
TENSORS = msgspec.msgpack.encode({"tensors": [{"name": "w", "shape": [2]}], "allowed": {}})
LISTS: dict[str, tuple[Any, str]] = {
    "no payload": (lambda m: [(SecretList(m.request, (INFO,)), [])], "without their tensors"),
    "rubbish": (lambda m: [(SecretList(m.request, (INFO,)), [b"\xff\x00"])], "make no sense"),
    "huge": (
        lambda m: [
            (
                SecretList(m.request, (INFO,)),
                [msgspec.msgpack.encode({"tensors": [{"name": "w", "shape": [2**60]}], "allowed": {}})],
            )
        ],
        "make no sense",
    ),
    "one name": (
        lambda m: [
            (
                SecretList(m.request, (INFO,)),
                [msgspec.msgpack.encode({"tensors": [{"name": "w", "shape": [2]}] * 2, "allowed": {}})],
            )
        ],
        "make no sense",
    ),
    "twice": (lambda m: [(SecretList(m.request, (INFO, INFO)), [TENSORS, TENSORS])], "listed a secret twice"),
}


@pytest.mark.parametrize("kind", LISTS)
async def test_lists_that_make_no_sense(site, kind):
    change, sentence = LISTS[kind]
    site.corrupt("party1", SecretList, lambda message, buffers: change(message))
    async with site.client() as client:
        with pytest.raises(ProtocolViolation, match=sentence) as caught:
            await client.models()
        assert caught.value.peer == "party1"


async def test_parties_that_list_different_owners(site):
    async with site.client("company") as company:
        await company.upload(model(), "m")

        def other(message: SecretList, buffers: list[Any]) -> Any:
            models = tuple(msgspec.structs.replace(info, owner="clinic") for info in message.secrets)
            return [(SecretList(message.request, models), buffers)]

        site.corrupt("party1", SecretList, other)
        entries = [(entry.owner, entry.held_by, entry.complete) for entry in await company.models()]
        assert entries == [("clinic", ("party1",), False), ("company", ("party0",), False)]
        site.corrupt("party1", SecretList, lambda message, buffers: [(message, [TENSORS])])
        with pytest.raises(ProtocolViolation, match="other tensors than party0"):
            await company.models()


# -- messages --------------------------------------------------------------------------------------------------------

SENDERS = {
    "AskRules": {Role.CLIENT},
    "RulesHeld": {Role.DEALER, Role.PARTY},
    "RulesKnown": {Role.DEALER, Role.PARTY},
    "NewerRules": {Role.DEALER, Role.PARTY},
    "FindSecret": {Role.CLIENT},
    "FoundSecret": {Role.PARTY},
    "ListSecrets": {Role.CLIENT},
    "SecretList": {Role.PARTY},
    "RemoveSecret": {Role.CLIENT},
    "SecretRemoved": {Role.DEALER, Role.PARTY},
    "AllowUse": {Role.CLIENT},
    "UseAllowed": {Role.DEALER, Role.PARTY},
}


def test_who_may_send_what() -> None:
    kinds = {
        kind.__name__: set(kind.senders)
        for module in (model_messages, rule_messages)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind.__module__ == module.__name__
    }
    assert kinds == SENDERS


@pytest.mark.parametrize(
    "message",
    [
        VersionCommit(version=ID[:-1]),
        RemoveSecret(request=ID, name="../m"),
        RemoveSecret(request=ID, name="m\x1b[2J"),
        FindSecret(request=ID, name="company/m"),
        FindSecret(request=ID, name="m", owner="a/b"),
        ListSecrets(request="x"),
        VersionsHeld(held=("x",), prepared=()),
        VersionsHeld(held=(), prepared=(Prepared(ID, VOUCHED),) * 1001),
        StockHeld(programs=(ID,)),
        SecretList(request=ID, secrets=(INFO,) * 1001),
        SecretList(request=ID, secrets=(SecretInfo("m", "c", ID, float("inf"), 1),)),
        SecretList(request=ID, secrets=(SecretInfo("m", "a>b", ID, 1.0, 1),)),
        SecretList(request=ID, secrets=(SecretInfo("m", "c", ID, 1.0, -1),)),
    ],
    ids=range(13),
)
def test_what_a_message_may_not_hold(message: Message) -> None:
    with pytest.raises(ProtocolViolation, match="malformed header"):
        decode_header("party0", encode_header(message))


def test_full_messages_fit_a_header() -> None:
    ids = tuple(secrets.token_hex(16) for _ in range(1000))
    programs = tuple(secrets.token_hex(32) for _ in range(MAX_PROGRAMS))
    message: Message = VersionsHeld(held=ids * 4, prepared=tuple(Prepared(i, VOUCHED) for i in ids))
    assert decode_header("party0", encode_header(message)) == message
    message = StockHeld(programs=programs)
    assert decode_header("party0", encode_header(message)) == message
    message = SecretList(request=ID, secrets=tuple(SecretInfo("n" * 64, "o" * 64, i, 1e9, 1 << 40) for i in ids))
    assert decode_header("party0", encode_header(message)) == message


async def test_strangers_to_an_upload_decide_nothing(site):
    """Only the dealer says commit, only parties say prepared: the receiver refuses others."""
    async with site.client("company") as company, speaking(site, "clinic") as ask:
        remote = await company.upload(model(0.5), "m")
        for message in (VersionCommit(version=remote.version), VersionPrepared(version=remote.version, masked=VOUCHED)):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await ask("party0", message)
        assert await scale_of(company) == 0.5


async def test_nothing_secret_is_logged(site, caplog):
    caplog.set_level(logging.DEBUG, logger="parties")
    heard: list[bytes] = []
    site.overhear("dealer", heard)
    async with site.client("company") as company:
        await company.upload(model(0.123456789), "m")
        await site.restart("party0")
        assert await scale_of(company) == 0.12
        await company.remove("m")
    seeds = [payload for payload in heard if len(payload) in (16, 32)]
    assert seeds
    for seed in seeds:
        assert seed.hex() not in caplog.text
    for pair in site.keys.values():
        assert pair.secret not in caplog.text
    assert "0.1234" not in caplog.text
