"""Uploads in chunks: whatever is lost on the way, they go on where they were; and what no honest client sends."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mpc.errors import NoSuchName, PeerError, ProtocolViolation, RemoteError, ServerBusy
from mpc.rings import FieldRing, field
from mpc.rings.field import FieldArray
from mpc.rings.prg import Seed
from nn import Linear, Model, Sequential
from parties import KeyPair
from parties.client.uploading import UploadProgress, content_tag
from parties.messages.failures import error_of
from parties.messages.requests import RequestsChanged
from parties.messages.uploads import (
    ChunksStored,
    TensorInfo,
    Upload,
    UploadBegin,
    UploadChunk,
    UploadFailed,
    UploadSeed,
    VersionDropped,
    VersionReady,
)
from parties.stored import chunks as chunking
from parties.stored import uploads as uploads_module
from parties.stored.chunks import WINDOW, Grid, masked_chunks
from parties.stored.decided_versions import DecidedVersions
from parties.stored.partials import Begun, Partials
from parties.stored.party_versions import PartyVersions, streamed
from parties.stored.record import Record, tensor_infos
from parties.stored.vault import Vault, VaultError
from parties.wire.events import Delivery
from parties.wire.messages import Message
from protocols.readings.dealer import StoredMasks

KEYS = KeyPair.generate()
ID = "0123456789abcdef" * 2
PARTIES = ("party0", "party1")
SHAPES = st.lists(st.lists(st.integers(0, 7), max_size=3).map(tuple), min_size=1, max_size=4)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "CHUNK_ELEMENTS", 16)


def model(scale: float = 1.0, width: int = 300) -> Model:
    """About ``4 * width`` elements, which are ``width / 4`` chunks."""
    architecture = Sequential({"out": Linear(3, width)}).architecture((3,))
    return Model(architecture, {n: np.full(s, scale) for n, s in architecture.parameters.items()})


async def scale_of(client: Any, name: str = "m") -> float:
    result = await client.reveal((await client.model(name))(client.share([[1.0, 1.0, 1.0]], low=-1, high=1)))
    return round(float(result.mean()) / 4, 2)


def pending(site: Any, party: str) -> Any:
    (upload,) = (site.servers[party]._secrets.uploads.get(s) for s in site.servers[party]._secrets.uploads.versions)
    return upload


class Sent:
    """Chunks that a client has sent, by party, from when this is made on."""

    def __init__(self, client: Any) -> None:
        self.chunks: dict[str, list[int]] = {party: [] for party in PARTIES}
        self.stop_at: dict[str, int] = {}
        self.reached = asyncio.Event()
        self._send = client._board.send
        client._board.send = self

    def __call__(self, server: str, message: Message, payload: Any = ()) -> int:
        if isinstance(message, UploadChunk):
            self.chunks[server].append(message.number)
            if message.number == self.stop_at.get(server):
                self.reached.set()
        return int(self._send(server, message, payload))


# -- chunks ----------------------------------------------------------------------------------------------------------


def tensors_of(shapes: list[tuple[int, ...]]) -> dict[str, FieldArray]:
    rng = np.random.default_rng(7)
    return {f"t{i}": rng.integers(0, field.P, shape, dtype=np.uint64) for i, shape in enumerate(shapes)}


def masked_whole(tensors: Mapping[str, FieldArray], seeds: tuple[Seed, ...]) -> FieldArray:
    masks = StoredMasks(seeds, {name: array.shape for name, array in tensors.items()})
    flat = [field.subtract(array, masks.mask(name, FieldRing())).reshape(-1) for name, array in tensors.items()]
    return np.concatenate(flat) if flat else np.empty(0, np.uint64)


@given(shapes=SHAPES, size=st.integers(1, 40))
@settings(max_examples=100)
def test_chunks_are_the_masked_tensors_with_tails(shapes: list[tuple[int, ...]], size: int) -> None:
    tensors, seeds = tensors_of(shapes), (Seed(bytes(16)), Seed(b"1" * 16))
    whole = masked_whole(tensors, seeds)
    grid = Grid(whole.size, size)
    made = list(masked_chunks(tensors, seeds, grid, FieldRing()))
    assert [chunk.size for chunk in made] == [grid.size(number) for number in range(grid.count)]
    joined = np.concatenate([*made, np.empty(0, np.uint64)])
    assert np.array_equal(joined, whole)
    assert grid.bytes_of(grid.count) == whole.nbytes


@given(shapes=SHAPES, size=st.integers(1, 40))
@settings(max_examples=25)
def test_what_comes_in_chunks_is_kept_as_what_comes_at_once(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, ...]], size: int
) -> None:
    tensors = tensors_of(shapes)
    record = a_record({name: array.shape for name, array in tensors.items()})
    with PartyVersions(tmp_path_factory.mktemp("any") / "data", KEYS, "party0") as models:
        grid = Grid(sum(array.size for array in tensors.values()), size)
        partial = models.partials.begin(Begun(record, "ab" * 32), grid)
        flat = np.concatenate([array.reshape(-1) for array in tensors.values()])
        partial.append([flat[number * size : (number + 1) * size] for number in range(grid.count)])
        models.prepare(record, Seed(bytes(16)), streamed(partial))
        loaded = models.load(record, FieldRing())
        assert list(loaded) == list(tensors)
        for name, array in tensors.items():
            assert np.array_equal(loaded[name].public, array)


# -- files -----------------------------------------------------------------------------------------------------------


def a_record(shapes: Mapping[str, tuple[int, ...]], when: float = 1e9) -> Record:
    return Record(ID, "m", KEYS.public, "company", "c" * 64, tensor_infos(shapes), when, b"description")


def begun_file(folder: Path, chunks: int) -> tuple[Vault, Partials, Path, int]:
    """A file of 5 chunks with the first few there."""
    vault = Vault(folder, "x.sqlite", KEYS, purpose="x", member="party0", schema="")
    partials = Partials(folder / "uploads", vault, "party0")
    partial = partials.begin(Begun(a_record({"w": (70,)}), "ab" * 32), Grid(70, 16))
    partial.append([np.full(partial.grid.size(number), number, np.uint64) for number in range(chunks)])
    (path,) = (folder / "uploads").iterdir()
    return vault, partials, path, path.stat().st_size


def recovered(partials: Partials) -> int:
    (partial,) = partials.found()
    partial.recover()
    values = [int(np.frombuffer(chunk, np.uint64)[0]) for chunk in partial.read()]
    assert values == list(range(partial.chunks))
    return partial.chunks


def test_a_file_cut_at_any_byte_has_the_whole_chunks_before(tmp_path: Path) -> None:
    vault, partials, path, size = begun_file(tmp_path, 5)
    content, sealed = path.read_bytes(), 16 * 8 + 44
    start = size - 4 * sealed - (6 * 8 + 44)
    with vault:
        for length in range(start, size + 1, 7):
            path.write_bytes(content[:length])
            assert recovered(partials) == min((length - start) // sealed, 4) + (length == size)
            # And it goes on from there.
            (partial,) = partials.found()
            partial.recover()
            rest = range(partial.chunks, 5)
            partial.append([np.full(partial.grid.size(number), number, np.uint64) for number in rest])
            assert recovered(partials) == 5


def test_chunks_open_in_their_own_place_only(tmp_path: Path) -> None:
    vault, partials, path, size = begun_file(tmp_path, 4)
    content, sealed = path.read_bytes(), 16 * 8 + 44
    start = size - 4 * sealed
    with vault:
        swapped = content[:start] + content[start + sealed : start + 2 * sealed] * 2 + content[start + 2 * sealed :]
        path.write_bytes(swapped)
        assert recovered(partials) == 0
        path.write_bytes(content[: start + sealed + 50] + b"\x00\xff" + content[start + sealed + 52 :])
        assert recovered(partials) == 1


@pytest.mark.parametrize(
    "change", [lambda b: b"", lambda b: b"x" * len(b), lambda b: b[:60], lambda b: b[:40] + b"?" + b[41:]]
)
def test_files_that_make_no_sense_are_deleted(tmp_path: Path, change: Any) -> None:
    vault, partials, path, _ = begun_file(tmp_path, 2)
    with vault:
        path.write_bytes(change(path.read_bytes()))
        assert partials.found() == []
        assert not path.exists()


def test_weights_are_not_in_the_clear(tmp_path: Path) -> None:
    vault, partials, path, _ = begun_file(tmp_path, 0)
    with vault:
        (partial,) = partials.found()
        partial.append([np.full(16, 0x4142434445464748, np.uint64)])
        assert b"HGFEDCBA" not in path.read_bytes()
        assert b"description" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_the_dealer_keeps_what_was_begun_until_it_is_decided(tmp_path: Path) -> None:
    record, seeds = a_record({"w": (3,)}), (Seed(bytes(16)), Seed(b"1" * 16))
    for end in ("commit", "forget"):
        with DecidedVersions(tmp_path / end, KEYS, "dealer") as kept:
            kept.begin(record, seeds, "ab" * 32)
            kept.begin(record, (Seed(b"2" * 16),) * 2, "cd" * 32)
        with DecidedVersions(tmp_path / end, KEYS, "dealer") as kept:
            ((found, masks, content),) = kept.begun()
            assert (found, masks.seeds, content) == (record, seeds, "ab" * 32)
            kept.commit(record, seeds) if end == "commit" else kept.forget_uploads([record.version])
            assert kept.begun() == []


def test_tags() -> None:
    tensors = tensors_of([(2, 3), (4,)])
    tag = content_tag(KEYS, "m", b"d", tensors)
    other = {**tensors, "t1": field.add(tensors["t1"], np.ones(4, np.uint64))}
    tags = {
        tag,
        content_tag(KEYS, "n", b"d", tensors),
        content_tag(KEYS, "m", b"e", tensors),
        content_tag(KEYS, "md", b"", tensors),
        content_tag(KEYS, "m", b"d", other),
        content_tag(KEYS, "m", b"d", {**tensors, "t0": tensors["t0"].reshape(3, 2)}),
        content_tag(KeyPair.generate(), "m", b"d", tensors),
    }
    assert len(tags) == 7
    assert tag == content_tag(KEYS, "m", b"d", {name: array.copy() for name, array in tensors.items()})


# -- going on --------------------------------------------------------------------------------------------------------


async def test_progress(site: Any) -> None:
    said: list[UploadProgress] = []
    async with site.client("company") as company:
        sent = Sent(company)
        await company.upload(model(0.5), "m", progress=said.append)
        assert await scale_of(company) == 0.5
    assert said[0] == UploadProgress(0, 1200 * 8, 0)
    assert said[-1] == UploadProgress(1200 * 8, 1200 * 8, 0)
    assert [one.done for one in said] == sorted({one.done for one in said})
    assert sent.chunks == {party: list(range(75)) for party in PARTIES}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("lost", [("party0",), ("party1",), ("dealer",), ("dealer", *PARTIES)], ids=" ".join)
async def test_it_goes_on_when_servers_are_back(site: Any, lost: tuple[str, ...]) -> None:
    async with site.client("company") as company:
        sent = Sent(company)
        sent.stop_at = {"party0": 40}
        uploading = asyncio.create_task(company.upload(model(0.5), "m"))
        await sent.reached.wait()
        await site.restart(*lost)
        remote = await uploading
        assert await scale_of(company) == 0.5
        assert (await company.model("m")).version == remote.version
    for party, numbers in sent.chunks.items():
        assert sorted(set(numbers)) == list(range(75)), party
        # What was acknowledged is not sent again: no more than the window is.
        assert len(numbers) <= 75 + WINDOW


@pytest.mark.parametrize("late", [ChunksStored(version=ID, attempt=ID, chunks=1), VersionReady(version=ID)])
async def test_what_a_party_still_says_of_the_attempt_before_is_passed_over(site: Any, late: Any) -> None:
    """It comes while the dealer is asked once more; what is of no attempt is refused."""
    async with site.client("company") as company:
        board, send = company._board, company._board.send
        said = [late]

        def asked(server: str, message: Message, payload: Any = ()) -> int:
            if isinstance(message, Upload):
                about = replace(said[0], version=message.version)
                board._deliver(Delivery(site.cluster.member("party0"), about, []))
            return int(send(server, message, payload))

        board.send = asked
        await company.upload(model(0.5), "m")
        assert await scale_of(company) == 0.5
        said[0] = UploadSeed(version=ID, continued=ID, masks="")
        with pytest.raises(ProtocolViolation, match="party0: sent UploadSeed out of turn"):
            await company.upload(model(0.25), "m")
        assert await scale_of(company) == 0.5


async def interrupted(site: Any, scale: float = 0.5, at: int = 40) -> None:
    """A client that dies in the middle of an upload."""
    async with site.client("company") as company:
        sent = Sent(company)
        sent.stop_at = {"party0": at}
        uploading = asyncio.create_task(company.upload(model(scale), "m"))
        await sent.reached.wait()
        uploading.cancel()
        await asyncio.gather(uploading, return_exceptions=True)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("restarted", [(), ("party0",), ("dealer", *PARTIES)], ids=" ".join)
async def test_another_call_goes_on(either: Any, restarted: tuple[str, ...]) -> None:
    site = either
    await interrupted(site)
    store = pending(site, "party0").version
    await site.restart(*restarted)
    said: list[UploadProgress] = []
    async with site.client("company") as company:
        sent = Sent(company)
        remote = await company.upload(model(0.5), "m", progress=said.append)
        assert remote.version == store
        assert await scale_of(company) == 0.5
    assert all(numbers[0] >= 41 - WINDOW for numbers in sent.chunks.values())
    assert said[-1].resumed >= (41 - WINDOW) * 16 * 8
    for party in PARTIES:
        assert not list((site.data(party) / "uploads").iterdir())
    assert not site.servers["dealer"]._versions.begun()


async def test_other_weights_begin_anew_with_fresh_masks(site: Any) -> None:
    await interrupted(site)
    first = pending(site, "party0")
    async with site.client("company") as company:
        sent = Sent(company)
        remote = await company.upload(model(0.25), "m")
        assert remote.version != first.version
        assert sent.chunks["party0"] == list(range(75))
        assert await scale_of(company) == 0.25
        seeds = site.servers["dealer"]._coordinator.stored[remote.version].seeds
        assert first.seed.seed not in seeds


async def test_what_is_decided_or_dropped_is_never_gone_on_with(site: Any) -> None:
    async with site.client("company") as company:
        first = await company.upload(model(0.5), "m")
        second = await company.upload(model(0.5), "m")
        assert first.version != second.version
    await interrupted(site)
    store = pending(site, "party0").version
    async with site.client("company") as company:
        company._board.tell(VersionDropped(version=store))
        await site.until(lambda: not any(site.servers[party]._secrets.uploads.versions for party in PARTIES))
        third = await company.upload(model(0.5), "m")
        assert third.version not in (first.version, second.version, store)


async def test_another_client_is_told_nothing_of_it(site: Any) -> None:
    await interrupted(site)
    upload = pending(site, "party0")
    (content,) = (pending.content for pending in site.servers["dealer"]._coordinator._uploads.values())
    async with speaking(site, "clinic") as ask:
        record = upload.begun.record
        message = Upload(version=ID, name="m", tensors=record.tensors, content=content)
        answer = await ask("dealer", message, record.description)
        assert isinstance(answer, UploadSeed)
        assert answer.continued == ID


async def test_too_many_that_are_not_complete(site: Any) -> None:
    for number in range(uploads_module.MAX_OF_A_CLIENT):
        await interrupted(site, 0.1 * (number + 1), at=2)
    async with site.client("company") as company, site.client("clinic") as clinic:
        with pytest.raises(ServerBusy, match="tessera rm") as caught:
            await company.upload(model(0.9), "m")
        assert caught.value.peer == "dealer"
        await clinic.upload(model(0.9), "theirs")
        # Going on with one of them is fine, and removing forgets the others.
        await company.upload(model(0.1), "m")
        await company.remove("m")
        await site.until(lambda: not any(site.servers[party]._secrets.uploads.versions for party in PARTIES))
        with pytest.raises(NoSuchName):
            await company.remove("m")
        await company.upload(model(0.9), "m")


async def test_too_many_bytes(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "MAX_BYTES_OF_A_CLIENT", 9_000)
    async with site.client("company") as company:
        with pytest.raises(RemoteError, match="the limit is"):
            await company.upload(model(), "m")
        await company.upload(model(width=200), "m")


async def test_old_ones_are_forgotten(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await interrupted(site)
    await site.stop("party1")
    monkeypatch.setattr(uploads_module, "MAX_AGE", 0.0)
    await site.start("party1")
    assert not site.servers["party1"]._secrets.uploads.versions
    assert not list((site.data("party1") / "uploads").iterdir())


async def test_a_disk_that_is_full(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise VaultError("upload file x cannot be written or read (No space left on device): see to the disk")

    monkeypatch.setattr("parties.stored.partials.Partial.append", full)
    async with site.client("company") as company:
        with pytest.raises(RemoteError, match="No space left"):
            await company.upload(model(), "m")
        for party in PARTIES:
            await site.until(lambda p=party: not list((site.data(p) / "uploads").iterdir()))
        monkeypatch.undo()
        await company.upload(model(width=8), "m")


async def test_a_party_that_claims_chunks_it_was_not_sent(site: Any) -> None:
    def more(message: ChunksStored, buffers: list[Any]) -> Any:
        return [(ChunksStored(version=message.version, attempt=message.attempt, chunks=10**6), buffers)]

    site.corrupt("party1", ChunksStored, more)
    async with site.client("company") as company:
        with pytest.raises(ProtocolViolation, match=r"party1.*which cannot be"):
            await company.upload(model(), "m")


async def test_a_server_that_does_not_come_back(site: Any) -> None:
    async with site.client("company") as company:
        sent = Sent(company)
        sent.stop_at = {"party0": 40}
        uploading = asyncio.create_task(company.upload(model(0.5), "m"))
        await sent.reached.wait()
        await site.stop("party1")
        with pytest.raises(PeerError) as caught:
            await uploading
        assert caught.value.peer == "party1"
        await site.start("party1")
        sent.chunks = {party: [] for party in PARTIES}
        await company.upload(model(0.5), "m")
        assert len(sent.chunks["party0"]) < 75


# -- hostile clients -------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def speaking(site: Any, name: str) -> Any:
    """A client that says what it likes: ``ask(server, message, *buffers)`` returns the answer."""
    endpoint = site.endpoint(name)

    async def ask(server: str, message: Message, *buffers: Any, answer: bool = True) -> Any:
        endpoint.send(server, message, buffers)
        async with asyncio.timeout(20):
            while answer:
                event = await endpoint.receive()
                # What servers say unasked may come first.
                if isinstance(event, Delivery) and not isinstance(event.message, RequestsChanged):
                    assert event.sender.name == server
                    return event.message
        return None

    await endpoint.start()
    try:
        await endpoint.connect(deadline=20)
        yield ask
    finally:
        await endpoint.close()


TENSORS = (TensorInfo("w", (160,)),)
CHUNK = bytes(16 * 8)
ATTEMPT = "cd" * 16


def chunk(number: int, attempt: str = ATTEMPT) -> UploadChunk:
    return UploadChunk(version=ID, attempt=attempt, number=number)


@contextlib.asynccontextmanager
async def begun(site: Any) -> Any:
    """An upload of ten chunks, of which party 0 has one; ``begin(**changes)`` begins it again."""
    async with speaking(site, "company") as ask:
        seed = await ask("dealer", Upload(version=ID, name="m", tensors=TENSORS, content="ab" * 32), b"what")
        message = UploadBegin(version=ID, name="m", tensors=TENSORS, masks=seed.masks, attempt=ATTEMPT)
        assert (await ask("party0", message, b"what")).chunks == 0
        assert (await ask("party0", chunk(0), CHUNK)).chunks == 1
        yield ask, message


HOSTILE: dict[str, tuple[UploadChunk, tuple[bytes, ...], str]] = {
    "repeated": (chunk(0), (CHUNK,), "instead of the next"),
    "a gap": (chunk(2), (CHUNK,), "instead of the next"),
    "beyond the end": (chunk(10), (CHUNK,), "instead of the next"),
    "far beyond the end": (chunk(2**62), (CHUNK,), "instead of the next"),
    "too long": (chunk(1), (CHUNK * 2,), "wrong length"),
    "too short": (chunk(1), (CHUNK[:-8],), "wrong length"),
    "no numbers": (chunk(1), (CHUNK[:-1],), "wrong length"),
    "empty": (chunk(1), (), "wrong length"),
    "two": (chunk(1), (CHUNK, CHUNK), "wrong length"),
    "outside the field": (chunk(1), (b"\xff" * len(CHUNK),), "outside the field"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", HOSTILE)
async def test_any_but_the_next_chunk_is_refused(site: Any, kind: str) -> None:
    message, buffers, sentence = HOSTILE[kind]
    async with begun(site) as (ask, _):
        answer = await ask("party0", message, *buffers)
        assert isinstance(answer, UploadFailed)
        error = error_of(answer.fault, "party0")
        assert isinstance(error, ProtocolViolation)
        assert error.peer == "company"
        assert sentence in str(error)
    # And with it the upload, whose chunks leave the disk.
    assert not list((site.data("party0") / "uploads").iterdir())
    async with site.client("company") as company:
        await company.upload(model(0.5), "m")
        assert await scale_of(company) == 0.5


async def test_chunks_of_a_former_attempt_are_left_alone(site: Any) -> None:
    async with begun(site) as (ask, message):
        await ask("party0", chunk(7, attempt="ef" * 16), CHUNK, answer=False)
        assert (await ask("party0", chunk(1), CHUNK)).chunks == 2
        again = UploadBegin(version=ID, name="m", tensors=TENSORS, masks=message.masks, attempt="12" * 16)
        assert (await ask("party0", again, b"what")).chunks == 2


@pytest.mark.parametrize("other", [{"name": "n"}, {"tensors": (TensorInfo("w", (16, 10)),)}, {"masks": "12" * 32}])
async def test_an_upload_goes_on_as_it_was_begun(site: Any, other: dict[str, Any]) -> None:
    async with begun(site) as (ask, message):
        fields = {"name": "m", "tensors": TENSORS, "masks": message.masks, **other}
        answer = await ask("party0", UploadBegin(version=ID, attempt=secrets.token_hex(16), **fields), b"what")
        assert isinstance(error_of(answer.fault, "party0"), ProtocolViolation)


async def test_somebody_else_s_upload(site: Any) -> None:
    async with begun(site) as (ask, message):
        async with speaking(site, "clinic") as other:
            for said, buffer in ((chunk(1), CHUNK), (message, b"what")):
                error = error_of((await other("party0", said, buffer)).fault, "party0")
                assert isinstance(error, ProtocolViolation)
                assert error.peer == "clinic"
            await other("party0", VersionDropped(version=ID), answer=False)
        assert (await ask("party0", chunk(1), CHUNK)).chunks == 2


async def test_more_than_the_window(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads_module, "WINDOW", 3)
    async with begun(site) as (ask, _):
        upload = site.servers["party0"]._secrets.uploads.get(ID)
        async with upload.disk:
            for number in range(1, 4):
                await ask("party0", chunk(number), CHUNK, answer=False)
            answer = await ask("party0", chunk(4), CHUNK)
        assert "more than 3 chunks" in str(error_of(answer.fault, "party0"))
