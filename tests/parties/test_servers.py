"""Servers whose peers deviate: the run fails with a typed error that names them, and the next one works."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from msgspec.structs import replace

from mpc.errors import PeerError, ProgramError, ProtocolViolation, RemoteError, TesseraError
from parties.messages.failures import Fault, error_of
from parties.messages.runs import ClientMasks, Dealt, Failed, Inputs, Opening, Outputs, Prepare, Ready, Release
from parties.messages.stored import FoundSecret
from parties.messages.uploads import TensorInfo, Upload, UploadBegin, UploadChunk, UploadFailed, UploadSeed
from parties.wire.events import Delivery

REST = b"\xff" * 8


def with_round(change):
    return lambda m, b: [(replace(m, round=change(m.round)), b)]


CORRUPTIONS = {
    "short opening": ("party1", Opening, lambda m, b: [(m, [b[0][:-1]])], "instead of"),
    "long opening": ("party1", Opening, lambda m, b: [(m, [np.append(b[0], b[0])])], "instead of"),
    "odd opening": ("party1", Opening, lambda m, b: [(m, [bytes(b[0])[:-3]])], "instead of"),
    "two arrays": ("party1", Opening, lambda m, b: [(m, [b[0], b[0]])], "instead of"),
    "no array": ("party1", Opening, lambda m, b: [(m, [])], "instead of"),
    "outside the field": ("party1", Opening, lambda m, b: [(m, [REST * len(b[0])])], "outside the field"),
    "the modulus": (
        "party1",
        Opening,
        lambda m, b: [(m, [(2**61 - 1).to_bytes(8, "little") * len(b[0])])],
        "outside the field",
    ),
    "twice": ("party1", Opening, lambda m, b: [(m, b), (m, b)], "openings? (in|of) round"),
    "twice ahead": (
        "party1",
        Opening,
        lambda m, b: [*[(replace(m, round=m.round + 1), b)] * 2, (m, b)],
        "two openings in round 1",
    ),
    "far ahead": ("party1", Opening, with_round(lambda r: r + 5), "of round"),
    "behind": ("party1", Opening, with_round(lambda r: max(0, r - 1)), "openings? (in|of) round"),
    "short outputs": ("party1", Outputs, lambda m, b: [(m, [b[0][:-1]])], "wrong length"),
    "no outputs": ("party1", Outputs, lambda m, b: [(m, [])], "wrong number"),
    "wild outputs": ("party1", Outputs, lambda m, b: [(m, [REST * len(b[0])])], "outside the field"),
    "ready twice": ("party1", Ready, lambda m, b: [(m, b), (m, b)], "out of turn"),
    "no seed": ("dealer", Dealt, lambda m, b: [(m, [])], "wrong length"),
    "short seed": ("dealer", Dealt, lambda m, b: [(m, [b[0][:5], *b[1:]])], "wrong length"),
    "odd corrections": (
        "dealer",
        Dealt,
        lambda m, b: [(m, [b[0], *(bytes(c)[:-1] for c in b[1:])])],
        "wrong length",
    ),
    "dealt twice": ("dealer", Dealt, lambda m, b: [(m, b), (m, b)], "dealt twice"),
    "short masks": ("dealer", ClientMasks, lambda m, b: [(m, [b[0][:-1], *b[1:]])], "wrong length"),
    "no masks": ("dealer", ClientMasks, lambda m, b: [(m, [])], "wrong number"),
    "wild masks": ("dealer", ClientMasks, lambda m, b: [(m, [b[0], REST * len(b[1])])], "outside the field"),
    "masks of another program": (
        "dealer",
        ClientMasks,
        lambda m, b: [(replace(m, program="0" * 64), b)],
        "another program",
    ),
    "masks for other versions": (
        "dealer",
        ClientMasks,
        lambda m, b: [(replace(m, bindings="0" * 64), b)],
        "other versions",
    ),
}


async def works(site) -> None:
    async with site.client() as client:
        assert await client.reveal(client.share([1.0, -2.0], low=-4, high=4) ** 2) == pytest.approx([1, 4], abs=1e-3)
    await site.settled()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_what_a_server_may_not_send(site, name):
    at_fault, kind, change, sentence = CORRUPTIONS[name]
    async with site.client() as client:
        x = client.share([0.5, -0.5], low=-1, high=1)
        site.corrupt(at_fault, kind, change)
        with pytest.raises(ProtocolViolation, match=sentence) as caught:
            await client.reveal((x * 2).sigmoid(interval=(-2, 2)) * x * x)
        assert caught.value.peer == at_fault
        site.restore(at_fault)
        await site.settled()
    await works(site)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m, b: [(replace(m, program="0" * 64), b)], "different programs"),
        (lambda m, b: [(replace(m, bindings="0" * 64), b)], "different versions"),
        (lambda m, b: [(m, [b[0], *b[1:-1]])], "dealer: .* corrections"),
        (lambda m, b: [(m, [b[0], *(bytes(c) + REST for c in b[1:])])], "dealer: .* wrong length"),
        (lambda m, b: [(m, [b[0], *(REST * len(c) for c in b[1:])])], "dealer: .* outside the field"),
    ],
    ids=["digest", "bindings", "fewer", "longer", "unreduced"],
)
async def test_randomness_for_another_program(site, change, sentence):
    async with site.client() as client:
        x = client.share([0.5, -0.5], low=-1, high=1)
        site.corrupt("dealer", Dealt, change)
        with pytest.raises(ProtocolViolation if sentence.startswith("dealer") else ProgramError, match=sentence):
            await client.reveal(x.sigmoid(interval=(-2, 2)))
        site.restore("dealer")
    await works(site)


@dataclass
class Silence:
    """Drops the messages of a kind."""

    name: str
    kind: type
    blamed: str


@pytest.mark.parametrize(
    "silence",
    [
        Silence("dealer", Dealt, "dealer"),
        Silence("dealer", ClientMasks, "dealer"),
        Silence("party1", Ready, "party1"),
        Silence("party1", Opening, "party1"),
    ],
    ids=lambda s: s.kind.__name__,
)
async def test_who_answers_pings_but_does_not_go_on_is_named_after_round_timeout(site, silence):
    async with site.client() as client:
        x = client.share([0.5], low=-1, high=1)
        site.corrupt(silence.name, silence.kind, lambda m, b: [])
        with pytest.raises(PeerError) as caught:
            await client.reveal(x * x * x)
        assert caught.value.peer == silence.blamed
        site.restore(silence.name)
        await site.settled()
    await works(site)


async def test_a_run_given_up_while_the_way_is_broken_does_not_stay(site):
    """That it was given up is never heard of: without a gap in the numbers, as it could not be sent at all."""
    async with site.client() as client:
        prepared = await client.prepare(client.share([0.5]) * 2)
        party0 = site.servers["party0"]
        assert [job.ready for job in party0.jobs.values()] == [True]
        site.transport.break_link("clinic", "party0")
        await asyncio.sleep(0)
        await client.release(prepared)
        site.transport.mend_link("clinic", "party0")
        await site.settled()
        assert await client.reveal(client.share([0.5]) * 2) == pytest.approx([1.0], abs=1e-3)
    await site.settled()


@pytest.mark.parametrize("name", ["dealer", "party0", "party1"])
async def test_runs_end_with_their_server(site, name):
    """Whatever they were at: one that is ready waits for its client, without a deadline, and would for ever."""
    async with site.client() as client:
        prepared = await client.prepare(client.share([0.5]) * 2)
        site.corrupt("dealer", Dealt, lambda m, b: [])
        begun = asyncio.create_task(client.prepare(client.share([0.5]) * 2))
        await site.until(lambda: len(site.servers["party0"].jobs) == 2 and len(site.servers["party1"].jobs) == 2)
        server = site.servers[name]
        await site.stop(name)
        assert not server.jobs
        begun.cancel()
        await asyncio.gather(begun, return_exceptions=True)
        await client.release(prepared)
        await site.settled()


async def test_a_fault_of_our_own_fails_one_run(site, monkeypatch, caplog):
    def broken(*_):
        raise ValueError("a secret of 0.123456")

    async with site.client() as client:
        monkeypatch.setattr(site.servers["party0"]._engine, "make", broken)
        with pytest.raises(RemoteError, match="internal error") as caught:
            await client.reveal(client.share([1.0]) * 2)
        assert caught.value.peer == "party0"
        assert "0.123456" not in str(caught.value)
        monkeypatch.undo()
    await works(site)


class Rude:
    """A client with a good key and bad manners."""

    def __init__(self, site, name="company"):
        self.endpoint = site.endpoint(name)
        self.servers = [server.name for server in site.cluster.servers]

    async def __aenter__(self):
        await self.endpoint.start()
        await self.endpoint.connect(deadline=20)
        return self

    async def __aexit__(self, *_):
        await self.endpoint.close()

    def say(self, message, *buffers, to=None):
        for name in to or self.servers:
            self.endpoint.send(name, message, buffers)

    async def answer(self, *kinds):
        """The next message of these kinds, and who it is from."""
        async with asyncio.timeout(20):
            while True:
                event = await self.endpoint.receive()
                if isinstance(event, Delivery) and isinstance(event.message, kinds):
                    return event.message, event.sender.name

    async def failure(self) -> TesseraError:
        message, server = await self.answer(Failed, UploadFailed)
        return error_of(message.fault, server)


@pytest.mark.parametrize(
    "kind", [Prepare, Release, partial(Inputs, masks="", signature=b"")], ids=["Prepare", "Release", "Inputs"]
)
async def test_another_clients_run_goes_on(site, kind):
    async with site.client() as clinic, Rude(site) as rude:
        prepared = await clinic.prepare(clinic.share([0.5], low=-1, high=1) ** 2 * 2)
        rude.say(kind(run=prepared.run), bytes(8), to=("party0", "party1"))
        error = await rude.failure()
        assert isinstance(error, ProtocolViolation)
        assert error.peer == "company"
        rude.say(Failed(run=prepared.run, fault=Fault("PeerLost", "party0", "a lie")))
        await asyncio.sleep(0.1)
        assert await clinic.finish(prepared) == pytest.approx([0.5], abs=1e-3)


async def test_the_id_of_a_run_that_is_over_is_refused(site):
    async with site.client() as clinic, Rude(site) as rude:
        prepared = await clinic.prepare(clinic.share([0.5]) * 2)
        data = prepared.program.encode()
        await clinic.finish(prepared)
        await site.settled()
        for to in ("dealer", "party0"):
            rude.say(Prepare(run=prepared.run), data, to=(to,))
            error = await rude.failure()
            assert isinstance(error, ProtocolViolation)
            assert "used" in str(error)
    await works(site)


STORE = "ab" * 16
MASKS = "cd" * 32


def begin(*shapes, version=STORE, name="theirs", names=None, masks=MASKS):
    tensors = tuple(TensorInfo(n, s) for n, s in zip(names or map(str, range(len(shapes))), shapes, strict=True))
    return UploadBegin(version=version, name=name, tensors=tensors, masks=masks, attempt=STORE)


def upload(*shapes, **options):
    begun = begin(*shapes, **options)
    return Upload(version=begun.version, name=begun.name, tensors=begun.tensors, content=MASKS)


def chunk(number=0, attempt=STORE):
    return UploadChunk(version=STORE, attempt=attempt, number=number)


async def begun(site, rude, *shapes):
    """At everyone, with nothing sent; the digest of the masks."""
    rude.say(upload(*shapes), b"description", to=("dealer",))
    masks = (await rude.answer(UploadSeed))[0].masks
    rude.say(begin(*shapes, masks=masks), b"description", to=("party0", "party1"))
    for party in ("party0", "party1"):
        await site.until(lambda p=party: (u := site.servers[p]._secrets.uploads.get(STORE)) is not None and u.open)
    return masks


@pytest.mark.parametrize(
    "shapes",
    [{"shapes": [(0, 2**63)]}, {"shapes": [(2**40,)]}, {"shapes": [(2**31, 2**31)]}, {"shapes": [(2,), (2,)]}],
    ids=["empty but long", "long", "wide", "one name"],
)
async def test_absurd_uploads(site, shapes):
    names = ["w", "w"] if len(shapes["shapes"]) == 2 else None
    async with Rude(site) as rude:
        for message, to in ((upload, ("dealer",)), (begin, ("party0", "party1"))):
            rude.say(message(*shapes["shapes"], names=names), b"description", to=to)
            assert isinstance(await rude.failure(), ProgramError)
        rude.say(chunk(), b"", to=("party0",))
        await rude.failure()
    await works(site)


@pytest.mark.parametrize("buffers", [(), (bytes(8),), (bytes(16), bytes(16)), (REST * 2,)])
async def test_chunks_of_the_wrong_kind(site, buffers):
    async with Rude(site) as rude:
        await begun(site, rude, (2,))
        rude.say(chunk(), *buffers, to=("party0", "party1"))
        error = await rude.failure()
        assert isinstance(error, ProtocolViolation)
        assert error.peer == "company"
        await site.until(lambda: not site.servers["party0"]._secrets.uploads.versions)
    assert not list((site.data("party0") / "uploads").iterdir())
    await works(site)


async def test_an_upload_is_its_owners(site):
    async with Rude(site) as owner, Rude(site, "clinic") as other:
        await begun(site, owner, (2,))
        other.say(chunk(), bytes(16), to=("party0",))
        assert isinstance(await other.failure(), ProtocolViolation)
        other.say(begin((2,), name="mine"), b"description", to=("party0",))
        assert "used" in str(await other.failure())
        assert site.servers["party0"]._secrets.owner_of(STORE).name == "company"


async def test_an_upload_left_behind_sleeps(site):
    async with Rude(site) as rude:
        masks = await begun(site, rude, (2,))
        assert "nothing came of the upload within 4.5 s" in str(await rude.failure())
        upload = site.servers["party1"]._secrets.uploads.get(STORE)
        await site.until(lambda: not upload.open)
        # Its owner may come back to it.
        rude.say(begin((2,), masks=masks), b"description", to=("party1",))
        await site.until(lambda: upload.open)


async def test_refused_uploads_do_not_crowd_out_others(site):
    """Their seeds arrive all the same, for uploads the parties know nothing of."""
    from parties.stored.uploads import MAX_UPLOADS

    site.servers["party0"]._secrets.uploads._seeds.clear()
    dealer, party = site.servers["dealer"], site.servers["party0"]
    async with Rude(site):
        await dealer.endpoint.connect(["party0"], 20)
        for _ in range(2 * MAX_UPLOADS):
            seed = UploadSeed(version=secrets.token_hex(16), continued=STORE, masks=MASKS)
            dealer.endpoint.send("party0", seed, [bytes(16)])
        dealer.endpoint.send("party0", UploadSeed(version=STORE, continued=STORE, masks=MASKS), [bytes(16)])
        await site.until(lambda: STORE in party._secrets.uploads._seeds)
    assert len(party._secrets.uploads._seeds) == MAX_UPLOADS


@pytest.mark.parametrize("message", [FoundSecret(request=STORE, found=(), there=()), Ready(run=STORE, seconds=0)])
async def test_a_client_does_not_speak_for_a_server(site, message):
    async with Rude(site) as rude:
        rude.say(message)
    await works(site)


async def test_nothing_secret_is_logged(site, caplog):
    """No seed, share, mask, masked value or secret key: not as bytes, hex, decimal or Z85."""
    caplog.set_level(logging.DEBUG, logger="parties")
    heard: list[bytes] = []
    for name in site.servers:
        site.overhear(name, heard)
    async with site.client() as client, Rude(site) as rude:
        x = client.share(np.linspace(-1, 1, 50), low=-1, high=1)
        await client.reveal(x.sigmoid() * x)
        rude.say(Prepare(run=STORE), b"rubbish")
        await rude.failure()
        site.corrupt("party1", Opening, lambda m, b: [(m, [b[0][:-1]])])
        with pytest.raises(ProtocolViolation):
            await client.reveal(x.sigmoid() * x)
    text = caplog.text
    assert "is over" in text
    assert "failed" in text
    said = set(re.findall(r"\d{6,}|[0-9a-f]{8,}", text))
    for payload in heard:
        words = [payload[i : i + 8] for i in range(0, len(payload) - 7, 8)]
        for word in words:
            assert str(int.from_bytes(word, "little")) not in said
            assert word.hex() not in text
    for pair in site.keys.values():
        assert pair.secret not in text
