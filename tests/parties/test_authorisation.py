"""Authorisation in the negative, and agreement as its receiver sees it: what nobody gets a server to do for them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from mpc.errors import NotPermitted, PeerError, ProgramError, ProtocolViolation
from mpc.rings import FieldRing
from mpc.rings.prg import Seed
from mpc.security import Security
from parties import Cluster, KeyPair
from parties.messages.failures import Fault, error_of
from parties.messages.rules import Rule, RuleSet
from parties.messages.runs import Dealt, Failed, Prepare, Ready, Release
from parties.messages.stock import Agreed
from parties.messages.stored import FindSecret, RemoveSecret, SecretRemoved
from parties.messages.uploads import (
    TensorInfo,
    Upload,
    UploadBegin,
    UploadFailed,
    UploadSeed,
    VersionDropped,
    VersionPrepared,
    VersionsHeld,
)
from parties.stored import rules, uploads
from parties.stored.party_secrets import PartySecrets
from parties.stored.party_versions import PartyVersions
from parties.stored.record import Record, tensor_infos
from parties.stored.rule_tables import SignedRules
from parties.stored.rules import RuleBook, signed
from parties.wire.messages import Message
from protocols.readings.party import PartyRun

from .conftest import opened
from .test_model_keeping import model, scale_of
from .test_uploads import ATTEMPT, CHUNK, ID, TENSORS, begun, chunk, small_chunks, speaking

__all__ = ["small_chunks"]

SERVERS = ("dealer", "party0", "party1")
SECOND, THIRD = "1" * 32, "2" * 32
CONTENT, MASKS = "ab" * 32, "cd" * 32


def upload(version: str = ID, **other: Any) -> Upload:
    return Upload(version=version, **{"name": "m", "tensors": TENSORS, "content": CONTENT, **other})


def begin(version: str = ID, **other: Any) -> UploadBegin:
    fields = {"name": "m", "tensors": TENSORS, "masks": MASKS, "attempt": ATTEMPT, **other}
    return UploadBegin(version=version, **fields)


async def known(ask: Any, version: str = ID, **other: Any) -> UploadBegin:
    """The beginning of an upload that the dealer knows.

    A party that tells the dealer what is here, as it does when it has started, has to drop any other.
    """
    seed = await ask("dealer", upload(version, **other), b"what")
    return begin(version, masks=seed.masks, **other)


def say(site: Any, liar: str, receiver: str, kind: Any, change: Callable[[Any], Message | None]) -> None:
    """From now on that receiver alone hears ``change(message)`` of these messages, or nothing; until ``restore``."""
    endpoint = site.servers[liar].endpoint
    honest = endpoint.send

    def send(peer: str, message: Message, *rest: Any, **options: Any) -> int:
        said = change(message) if peer == receiver and isinstance(message, kind) else message
        return 0 if said is None else int(honest(peer, said, *rest, **options))

    endpoint.send = send


def noted(heard: list[Any], *, drop: bool = True) -> Callable[[Any, list[Any]], Any]:
    """A change for ``Site.corrupt``: what is said is put down, and then lost unless ``drop`` is False."""

    def change(message: Any, buffers: list[Any]) -> Any:
        heard.append(message)
        return [] if drop else [(message, buffers)]

    return change


# -- masks -----------------------------------------------------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "name": {"name": "n"},
    "content": {"content": "ef" * 32},
    "shapes": {"tensors": (TensorInfo("w", (16, 10)),)},
    "tensor": {"tensors": (TensorInfo("v", (160,)),)},
    "description": {},
}


@pytest.mark.parametrize("kind", OTHERS)
async def test_an_upload_that_differs_in_one_thing_alone_has_masks_of_its_own(site: Any, kind: str) -> None:
    """A mask that hides two tensors shows their difference."""
    async with speaking(site, "company") as ask:
        first = await ask("dealer", upload(), b"what")
        other = await ask("dealer", upload(SECOND, **OTHERS[kind]), b"else" if kind == "description" else b"what")
        assert other.continued == SECOND
        assert other.masks != first.masks
        same = await ask("dealer", upload(THIRD), b"what")
        assert (same.version, same.continued, same.masks) == (THIRD, ID, first.masks)


async def test_another_client_s_same_upload_has_masks_of_its_own(site: Any) -> None:
    async with speaking(site, "company") as company, speaking(site, "clinic") as clinic:
        first = await company("dealer", upload(), b"what")
        second = await clinic("dealer", upload(SECOND), b"what")
        assert second.continued == SECOND
        assert second.masks != first.masks


async def test_an_id_is_no_way_to_another_s_masks(site: Any) -> None:
    """Neither of what is in use, nor of what is being uploaded; at the dealer and at the parties."""
    async with site.client("company") as company:
        remote = await company.upload(model(0.5), "used")
    async with begun(site) as (_, message), speaking(site, "clinic") as ask:
        for version in (remote.version, ID):
            for server, said in (
                ("dealer", upload(version, name="mine")),
                ("party0", begin(version, name="mine", masks=message.masks)),
            ):
                answer = await ask(server, said, b"what")
                assert isinstance(answer, UploadFailed)
                assert "id has been used" in str(error_of(answer.fault, server))
    async with site.client("company") as company:
        assert await scale_of(company, "used") == 0.5


async def test_nobody_but_its_owner_gives_an_upload_up(site: Any) -> None:
    async with begun(site) as (ask, message):
        async with speaking(site, "clinic") as other:
            for server in SERVERS:
                await other(server, VersionDropped(version=ID), answer=False)
                # Its name is nobody's yet, and the stranger's as little.
                answer = await other(server, RemoveSecret(request=SECOND, name="m"))
                assert isinstance(answer, SecretRemoved)
                assert not answer.found
        assert (await ask("party0", chunk(1), CHUNK)).chunks == 2
        again = await ask("dealer", upload(THIRD), b"what")
        assert isinstance(again, UploadSeed)
        assert (again.continued, again.masks) == (ID, message.masks)


async def test_what_is_in_use_is_dropped_on_the_dealer_s_word_alone(site: Any) -> None:
    async with site.client("company") as company:
        remote = await company.upload(model(0.5), "used")
    for name in ("company", "clinic"):
        async with speaking(site, name) as ask:
            for server in SERVERS:
                await ask(server, VersionDropped(version=remote.version), answer=False)
            await asyncio.sleep(0.1)
    async with site.client("company") as company:
        assert await scale_of(company, "used") == 0.5


async def test_no_chunk_follows_the_last_one(site: Any) -> None:
    """Not even an empty one; the dealer's seed is on its way still."""
    say(site, "dealer", "party0", UploadSeed, lambda _: None)
    async with speaking(site, "company") as ask:
        await ask("party0", await known(ask), b"what")
        for number in range(10):
            assert (await ask("party0", chunk(number), CHUNK)).chunks == number + 1
        answer = await ask("party0", chunk(10), b"")
        assert "instead of the next" in str(error_of(answer.fault, "party0"))


@pytest.mark.parametrize(("limit", "fits"), [(2 * 160 * 8, True), (2 * 160 * 8 - 1, False)])
async def test_the_bytes_of_all_that_a_client_has_begun(
    site: Any, monkeypatch: pytest.MonkeyPatch, limit: int, fits: bool
) -> None:
    monkeypatch.setattr(uploads, "MAX_BYTES_OF_A_CLIENT", limit)
    async with speaking(site, "company") as ask, speaking(site, "clinic") as other:
        for who, version in ((other, THIRD), (ask, ID)):
            first = await known(who, version, name=version)
            assert not isinstance(await who("party0", first, b"what"), UploadFailed)
        answer = await ask("party0", await known(ask, SECOND), b"what")
        assert isinstance(answer, UploadFailed) is not fits


# -- rules -----------------------------------------------------------------------------------------------------------


async def test_rules_of_what_was_removed_are_gone_for_good(site: Any) -> None:
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        await company.allow("m", "clinic", ["any"])
        await company.remove("m")
    await site.restart(*SERVERS)
    async with site.client("company") as company, site.client() as clinic:
        await company.upload(model(0.5), "m")
        for server in SERVERS:
            assert not list(site.servers[server].versions_seen_by(site.cluster.member("clinic")))
        with pytest.raises(NotPermitted, match="for us"):
            await clinic.model("m")
        (entry,) = await company.models()
        assert entry.allowed == {}


@pytest.fixture
def three_keys() -> Mapping[str, KeyPair]:
    return {name: KeyPair.generate() for name in ("dealer", "party0", "party1", "clinic", "company", "other")}


@pytest.fixture
def three(three_keys: Mapping[str, KeyPair]) -> Cluster:
    """A cluster with three clients; nothing of it runs."""
    key = [keys.public for keys in three_keys.values()]
    return Cluster.build(
        "three",
        dealer=("127.0.0.1:1", key[0]),
        parties=[("party0", "127.0.0.1:2", key[1]), ("party1", "127.0.0.1:3", key[2])],
        clients=[(name, key[3 + i]) for i, name in enumerate(("clinic", "company", "other"))],
    )


def set_of(cluster: Cluster, keys: Mapping[str, KeyPair], owner: str, number: int, *given: Rule) -> SignedRules:
    return signed(keys[owner], cluster, cluster.member(owner), RuleSet(owner, "m", number, given))


def test_rules_of_a_name_are_their_owner_s_own(
    tmp_path: Path, three: Cluster, three_keys: Mapping[str, KeyPair]
) -> None:
    """Each has names of its own; and a name of a client may become another's, by another cluster file."""
    company, other, keys = three.member("company"), three.member("other"), KeyPair.generate()
    with PartyVersions(tmp_path / "data", keys, "party0") as disk:
        book = RuleBook(disk.rules)
        for found in (
            set_of(three, three_keys, "company", 1, Rule("clinic", "any", 1)),
            set_of(three, three_keys, "other", 4, Rule("*", "predict", 4)),
        ):
            assert book.store(found, three)
            book.apply(found)
        for same in (book, RuleBook(disk.rules)):
            assert {c: {r.program for r in of.values()} for c, of in same.grants(company, "m").items()} == {
                "clinic": {"any"}
            }
            assert set(same.grants(other, "m")) == {"*"}
            assert same.grants(dataclasses.replace(company, key=other.key), "m") == same.grants(other, "m")
            assert same.grants(dataclasses.replace(company, key=keys.public), "m") == {}
            assert same.grants(dataclasses.replace(company, key=keys.public, origin=company.key), "m")
            assert same.grants(company, "n") == {}


def test_a_set_takes_the_place_of_former_ones_alone(
    tmp_path: Path, three: Cluster, three_keys: Mapping[str, KeyPair]
) -> None:
    sets = [set_of(three, three_keys, "company", number, Rule("*", "any", number)) for number in (1, 2, 3)]
    same_number = set_of(three, three_keys, "company", 2)
    with PartyVersions(tmp_path / "data", KeyPair.generate(), "party0") as disk:
        book = RuleBook(disk.rules)
        for found, newer in (
            (sets[1], True),
            (sets[0], False),
            (sets[1], False),
            (same_number, same_number.order > sets[1].order),
            (sets[2], True),
        ):
            assert book.store(found, three) is newer
            if newer:
                book.apply(found)
        assert [held.rules.number for held in disk.rules.all()] == [3]
        # Its owner has a new key: what that has signed comes after all that the former one has.
        fresh = {**three_keys, "company": KeyPair.generate()}
        company = dataclasses.replace(
            three.member("company"), key=fresh["company"].public, origin=three.member("company").key
        )
        later = dataclasses.replace(
            three, clients=tuple(company if client.name == "company" else client for client in three.clients)
        )
        again = set_of(later, fresh, "company", 1)
        assert book.store(again, later)
        book.apply(again)
        assert not book.store(again, later)
        assert book.grants(company, "m") == {}


def test_how_many_names_rules_may_be_of(
    tmp_path: Path, three: Cluster, three_keys: Mapping[str, KeyPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MOST_SETS", 2)
    with PartyVersions(tmp_path / "data", KeyPair.generate(), "party0") as disk:
        book = RuleBook(disk.rules)
        for owner, name in (("company", "a"), ("other", "a"), ("company", "b"), ("company", "b")):
            number = 1 + sum(known.name == name for known in book.known)
            found = signed(three_keys[owner], three, three.member(owner), RuleSet(owner, name, number))
            assert book.store(found, three)
            book.apply(found)
        found = signed(three_keys["company"], three, three.member("company"), RuleSet("company", "c", 1))
        with pytest.raises(ProgramError, match="company has rules of 2 names"):
            book.store(found, three)
        assert len(book.known) == 3


# -- a party's versions ----------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PartyVersions]:
    with PartyVersions(tmp_path / "data", KeyPair.generate(), "party0") as disk:
        yield disk


def prepare(disk: PartyVersions, cluster: Cluster, version: str, owner: str) -> None:
    """On the disk, as a version of ``m`` of who has that key."""
    record = Record(version, "m", owner, "somebody", cluster.circle, tensor_infos({"w": (160,)}), 1e9, b"what")
    disk.prepare(record, Seed(bytes(16)), [np.zeros(160, np.uint64)])


@pytest.mark.parametrize("in_use", [False, True])
def test_the_id_of_what_cannot_be_used_is_taken(disk: PartyVersions, three: Cluster, in_use: bool) -> None:
    """An upload under it would be written in that version's place."""
    prepare(disk, three, ID, KeyPair.generate().public)
    if in_use:
        disk.commit(ID)
    secrets = PartySecrets(disk, three, FieldRing())
    assert secrets.held == (ID,)
    with pytest.raises(ProtocolViolation, match="id has been used"):
        secrets.begin(three.member("company"), begin(), [memoryview(b"what")])


def put_in_use(secrets: PartySecrets, version: str) -> None:
    model = secrets.commit(version)
    assert model is not None
    secrets.put_in_use(model)


def test_what_one_owner_calls_so_is_not_what_another_does(disk: PartyVersions, three: Cluster) -> None:
    """Whatever the dealer has decided, neither takes the other's place, on the disk or in memory."""
    company, other = three.member("company"), three.member("other")
    for version, owner in ((ID, company), (SECOND, other), (THIRD, company)):
        prepare(disk, three, version, owner.key)
    secrets = PartySecrets(disk, three, FieldRing())
    for version, held in ((ID, {ID}), (SECOND, {ID, SECOND}), (THIRD, {THIRD, SECOND})):
        put_in_use(secrets, version)
        for same in (secrets, PartySecrets(disk, three, FieldRing())):
            assert set(same.held) == held
            assert {same.is_in_use(v) for v in held} == {True}
    assert secrets.look_up("other/m").policy.version == SECOND
    assert secrets.look_up("clinic/m") is None
    assert secrets.look_up("m") is None
    assert [model.owner for model in secrets.seen_by("other")] == [other]


def test_rules_outlast_what_they_are_of(disk: PartyVersions, three: Cluster, three_keys: Mapping[str, KeyPair]) -> None:
    """A server does not end them: their owner does, before it removes what they are of."""
    company = three.member("company")
    prepare(disk, three, ID, company.key)
    disk.commit(ID)
    secrets = PartySecrets(disk, three, FieldRing())
    found = set_of(three, three_keys, "company", 1, Rule("clinic", "any", 1))
    secrets.rules.store(found, three)
    secrets.rules.apply(found)
    secrets.drop(ID)
    secrets.forget(ID)
    assert secrets.seen_by("clinic") == []
    prepare(disk, three, SECOND, company.key)
    disk.commit(SECOND)
    assert [model.record.version for model in PartySecrets(disk, three, FieldRing()).seen_by("clinic")] == [SECOND]


# -- runs ------------------------------------------------------------------------------------------------------------


def lie(run: str) -> Failed:
    return Failed(run=run, fault=Fault("PeerLost", "party0", "a lie"))


def program(client: Any) -> Any:
    return client.share([0.5], low=-1, high=1) ** 2


async def test_a_run_is_asked_for_once(site: Any) -> None:
    async with site.client() as clinic, speaking(site, "company") as ask:
        data = clinic._written(program(clinic)).program.encode()
        await ask("party0", Prepare(run=ID), data, answer=False)
        answer = await ask("party0", Prepare(run=ID), data)
        assert isinstance(answer, Failed)
        assert "asked twice for one run" in str(error_of(answer.fault, "party0"))


async def test_only_its_client_releases_a_run_that_waits(site: Any) -> None:
    async with site.client() as clinic, speaking(site, "company") as ask:
        await clinic.stock(program(clinic), 1)
        held: list[Agreed] = []
        site.corrupt("party1", Agreed, noted(held))
        preparing = asyncio.create_task(clinic.prepare(program(clinic)))
        await site.until(lambda: len(held) == 2)
        for server in SERVERS:
            for message in (Release(run=held[0].run), lie(held[0].run)):
                await ask(server, message, answer=False)
        await asyncio.sleep(0.1)
        site.restore("party1")
        for name in ("party0", "dealer"):
            site.servers["party1"].endpoint.send(name, held[0])
        assert await clinic.finish(await preparing) == pytest.approx([0.25], abs=1e-3)


async def test_what_a_run_keeps_is_not_given_up_on_another_client_s_word(site: Any) -> None:
    held: list[VersionPrepared] = []
    site.corrupt("party1", VersionPrepared, noted(held))
    async with site.client() as clinic, speaking(site, "company") as ask:
        keeping = asyncio.create_task(clinic.keep({"s": clinic.share([0.5], low=-1, high=1)}, "result"))
        await site.until(lambda: held)
        for server in SERVERS:
            await ask(server, lie(held[0].version), answer=False)
        await asyncio.sleep(0.1)
        site.restore("party1")
        assert await clinic.reveal((await keeping)["s"]) == pytest.approx([0.5], abs=1e-3)


# -- agreement -------------------------------------------------------------------------------------------------------

ITEMS: dict[str, dict[str, Any]] = {
    "number": {"number": 99},
    "session": {"session": "0" * 32},
    "program": {"program": "0" * 64},
    "bindings": {"bindings": "0" * 64},
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", ITEMS)
@pytest.mark.parametrize("receiver", ["party0", "dealer"])
async def test_each_sees_by_itself_that_another_uses_something_else(site: Any, kind: str, receiver: str) -> None:
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 1)
        say(site, "party1", receiver, Agreed, lambda message: replace(message, **ITEMS[kind]))
        with pytest.raises(ProtocolViolation, match="other preprocessing") as caught:
            await clinic.reveal(program(clinic))
        assert caught.value.peer == "party1"
        # It has cost one item, and nobody uses what is left of that.
        assert await clinic.reveal(program(clinic)) == pytest.approx([0.25], abs=1e-3)
        assert not clinic.last_run.from_stock


async def test_a_party_says_once_what_it_uses(site: Any) -> None:
    again = site.servers["party1"].endpoint.send

    def twice(message: Agreed) -> Agreed:
        again("party0", message)
        return message

    say(site, "party1", "party0", Agreed, twice)
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 1)
        with pytest.raises(ProtocolViolation, match="said twice what it uses") as caught:
            await clinic.reveal(program(clinic))
        assert caught.value.peer == "party1"


async def test_what_is_in_stock_comes_without_a_payload(site: Any) -> None:
    async with site.client() as clinic:
        await clinic.stock(program(clinic), 1)
        site.corrupt("dealer", Dealt, lambda m, _: [(m, [bytes(16)])])
        with pytest.raises(ProtocolViolation, match="what it says is in stock") as caught:
            await clinic.reveal(program(clinic))
        assert caught.value.peer == "dealer"


async def test_two_of_three_parties_are_not_all(tmp_path: Path) -> None:
    async with opened(tmp_path, Security.SEMI_HONEST, parties=3) as site, site.client() as clinic:
        await clinic.stock(program(clinic), 1)
        ready: list[Message] = []
        site.corrupt("party0", Ready, noted(ready, drop=False))
        say(site, "party2", "party0", Agreed, lambda _: None)
        with pytest.raises(PeerError) as caught:
            await clinic.prepare(program(clinic))
        assert caught.value.peer == "party2"
        assert not ready
        site.restore("party0")
        site.restore("party2")

        held: list[Message] = []
        site.corrupt("party2", (VersionPrepared, VersionsHeld), noted(held))
        uploading = asyncio.create_task(clinic.upload(model(0.5), "m"))
        await site.until(lambda: held)
        await asyncio.sleep(0.1)
        async with speaking(site, "company") as ask:
            for party in ("party0", "party1", "party2"):
                assert (await ask(party, FindSecret(request=ID, name="m"))).found == ()
        assert not uploading.done()
        site.restore("party2")
        await uploading
        assert await scale_of(clinic) == 0.5


async def test_commitments_are_bound_to_one_run_of_one_cluster(strict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commitment of another run, item or cluster opens nothing here."""
    sessions: list[str] = []
    honest = PartyRun.__init__

    def noting(self: PartyRun, *args: Any, **options: Any) -> None:
        sessions.append(options["session"].decode())
        honest(self, *args, **options)

    monkeypatch.setattr(PartyRun, "__init__", noting)
    dealt: list[Dealt] = []
    strict.corrupt("dealer", Dealt, noted(dealt, drop=False))
    async with strict.client() as clinic:
        await clinic.stock(program(clinic), 1)
        for _ in range(2):
            await clinic.reveal(program(clinic))
    assert len(sessions) == len(dealt) == 4
    assert [message.number for message in dealt] == [1, 1, 0, 0]
    for message, session in zip(dealt, sessions, strict=True):
        item = [message.session] if message.number else []
        assert session.split() == [
            strict.cluster.terms,
            message.run,
            message.bindings,
            *item,
            str(message.number),
        ]
