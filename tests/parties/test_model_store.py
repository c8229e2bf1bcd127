"""Models on the disk: whole or not there after a crash at any step, as they were or a typed error, and upgraded."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import ConfigurationError
from mpc.rings import FieldRing, field
from mpc.rings.prg import Seed
from parties import Cluster, KeyPair
from parties.messages.uploads import TensorInfo
from parties.stored import decided_versions as dealer_module
from parties.stored import party_versions as party_module
from parties.stored import sealed_files as files
from parties.stored.decided_versions import DecidedVersions
from parties.stored.party_versions import PartyVersions, State
from parties.stored.record import Record, owner_of
from parties.stored.vault import NoSpace, Vault, VaultError
from parties.stored.version_database import FIRST
from protocols.randomness.streams import stored_stream

KEYS = KeyPair.generate()
OWNER = KeyPair.generate()
PROGRAM, OTHER_PROGRAM = "ab" * 32, "cd" * 32
NAMES = ("w", "b")


def store_id(number: int) -> str:
    return f"{number:032x}"


def record(number: int, name: str = "derm", shapes: tuple[tuple[int, ...], ...] = ((3, 4), (0, 2))) -> Record:
    tensors = tuple(TensorInfo(n, s) for n, s in zip(NAMES, shapes, strict=False))
    return Record(store_id(number), name, OWNER.public, "company", "c" * 64, tensors, 1e9 + number, b"description")


def seed(number: int) -> Seed:
    return Seed(bytes([number]) * 16)


def masked(of: Record) -> list[Any]:
    rng = np.random.default_rng(int(of.version, 16))
    return [rng.integers(0, field.P, shape, dtype=np.uint64) for shape in of.shapes.values()]


def opened(folder: Path, **options: Any) -> PartyVersions:
    return PartyVersions(folder, KEYS, "party0", **options)


def keep(models: PartyVersions, number: int, name: str = "derm") -> Record:
    """Uploaded and in use."""
    kept = record(number, name)
    models.prepare(kept, seed(number), masked(kept))
    models.commit(kept.version)
    return kept


def whole(models: PartyVersions, number: int, name: str = "derm") -> None:
    """The version reads as it was written."""
    kept = record(number, name)
    values = models.load(kept, FieldRing())
    assert list(values) == list(kept.shapes)
    for (tensor, shape), public in zip(kept.shapes.items(), masked(kept), strict=True):
        assert np.array_equal(values[tensor].public, public)
        assert np.array_equal(values[tensor].share, stored_stream(seed(number), tensor).elements(shape))


def states(models: PartyVersions) -> dict[int, State]:
    return {int(version.record.version, 16): version.state for version in models.versions()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


# -- a party's -------------------------------------------------------------------------------------------------------


def test_kept_over_a_restart(folder: Path) -> None:
    with opened(folder) as models:
        keep(models, 1)
        keep(models, 2, "other")
        former = record(3)
        models.prepare(former, seed(3), masked(former))
    with opened(folder) as models:
        assert states(models) == {1: State.CURRENT, 2: State.CURRENT, 3: State.PREPARED}
        assert models.versions()[0].record == record(1)
        whole(models, 1)
        whole(models, 2, "other")
        models.commit(store_id(3))
        models.commit(store_id(3))
        assert states(models) == {2: State.CURRENT, 3: State.CURRENT}
        whole(models, 3)
        with pytest.raises(VaultError, match=r"1\.shares cannot be read .*upload it again"):
            models.load(record(1), FieldRing())
    with opened(folder) as models:
        models.drop(store_id(3))
        models.drop(store_id(3))
        models.drop(store_id(2))
        assert states(models) == {}
        assert list((folder / "models").iterdir()) == []


@given(shapes=st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=2))
@settings(max_examples=30)
def test_any_shapes(tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, ...]]) -> None:
    with opened(tmp_path_factory.mktemp("any") / "data") as models:
        kept = record(1, shapes=tuple(shapes))
        models.prepare(kept, seed(1), masked(kept))
        values = models.load(kept, FieldRing())
        for array, (name, shape) in zip(masked(kept), kept.shapes.items(), strict=True):
            assert values[name].public.shape == shape
            assert np.array_equal(values[name].public, array)


def test_space_is_freed(folder: Path) -> None:
    def used() -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    with opened(folder) as models:
        big = record(1, shapes=((200, 1000),))
        models.prepare(big, seed(1), masked(big))
        models.commit(big.version)
        assert models.sealed_bytes(big.version) > 1_600_000
        assert used() > 1_600_000
        models.drop(big.version)
        assert used() < 400_000


def test_its_owner_s_alone_and_sealed(folder: Path) -> None:
    former = os.umask(0)
    try:
        with opened(folder) as models:
            kept = keep(models, 1)
            for path in [folder, *folder.rglob("*")]:
                assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
            contents = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
            assert kept.version.encode() in contents
            assert bytes(seed(1)) not in contents
            assert masked(kept)[0].tobytes()[:16] not in contents
            assert b"description" not in contents
            assert KEYS.secret not in repr(models)
    finally:
        os.umask(former)


def test_others_may_read_it(folder: Path) -> None:
    with opened(folder) as models:
        kept = keep(models, 1)
        path = folder / "models" / f"{kept.version}.shares"
        for mode in (0o644, 0o604, 0o640):
            path.chmod(mode)
            with pytest.raises(VaultError, match=rf"mode {mode:04o}\): run `chmod 600 .*shares"):
                models.load(kept, FieldRing())
    for mode in (0o755, 0o705, 0o750):
        (folder / "models").chmod(mode)
        with pytest.raises(ConfigurationError, match=rf"mode {mode:04o}\): run `chmod 700 .*models"):
            opened(folder)


# -- files that are not as they were ---------------------------------------------------------------------------------


def damage(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def swap(path: Path) -> None:
    other = next(p for p in path.parent.iterdir() if p != path)
    content = other.read_bytes()
    other.write_bytes(path.read_bytes())
    path.write_bytes(content)


def head(format_: int = 1, chunk: int = 1 << 24) -> Callable[[bytes], bytes]:
    return lambda b: b[:8] + format_.to_bytes(4, "little") + chunk.to_bytes(4, "little") + b[16:]


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a bit": (damage(lambda b: b[:60] + bytes([b[60] ^ 1]) + b[61:]), "is damaged, cut short, or another version's"),
    "the last byte": (damage(lambda b: b[:-1]), "is damaged"),
    "half": (damage(lambda b: b[: len(b) // 2]), "is damaged"),
    "head alone": (damage(lambda b: b[:16]), "is damaged"),
    "nothing in it": (damage(lambda _: b""), "does not begin as"),
    "something else": (damage(lambda b: b"x" * len(b)), "does not begin as"),
    "longer": (damage(lambda b: b + b"x"), "is damaged"),
    "another chunk length": (damage(head(chunk=64)), "is damaged"),
    "no chunk length": (damage(head(chunk=0)), "head that makes no sense"),
    "format 0": (damage(head(0)), "head that makes no sense"),
    "swapped": (swap, "another version's"),
    "gone": (Path.unlink, r"cannot be read \(No such file"),
    "a newer format": (damage(head(2)), "has format 2, this release reads 1"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_that_is_not_as_it_was(folder: Path, kind: str) -> None:
    change, complaint = DAMAGE[kind]
    with opened(folder) as models:
        keep(models, 1)
        keep(models, 2, "other")
        path = folder / "models" / f"{store_id(1)}.shares"
        change(path)
        with pytest.raises(VaultError, match=complaint) as caught:
            models.load(record(1), FieldRing())
        assert str(path) in str(caught.value)
        assert "upload it again" in str(caught.value)
        if kind != "swapped":
            whole(models, 2, "other")
    # The party starts all the same, and the owner uploads again.
    with opened(folder) as models:
        keep(models, 3)
        whole(models, 3)
        assert states(models) == {2: State.CURRENT, 3: State.CURRENT}


def test_flipped_bits_never_pass(folder: Path) -> None:
    with opened(folder) as models:
        keep(models, 1)
        path = folder / "models" / f"{store_id(1)}.shares"
        good = path.read_bytes()
        for chance in map(random.Random, range(100)):
            bad = bytearray(good)
            bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
            path.write_bytes(bad)
            with pytest.raises(VaultError, match="shares"):
                models.load(record(1), FieldRing())


def test_a_file_under_another_row_s_content(folder: Path) -> None:
    """Of the same version, but another name, owner or shape."""
    with opened(folder) as models:
        keep(models, 1)
        for other in (record(1, "other"), record(1, shapes=((4, 3), (0, 2)))):
            with pytest.raises(VaultError, match="damaged"):
                models.load(other, FieldRing())


def changed(folder: Path, statement: str, file: str = "models.sqlite") -> None:
    with contextlib.closing(sqlite3.connect(folder / file)) as db:
        db.execute(statement)
        db.commit()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE versions SET sealed = (SELECT sealed FROM versions WHERE name = 'other') WHERE name = 'derm'",
        "UPDATE versions SET sealed = x'00' WHERE name = 'derm'",
        "UPDATE versions SET sealed = 'text' WHERE name = 'derm'",
        "UPDATE versions SET name = 'mine' WHERE name = 'derm'",
        f"UPDATE versions SET version = '{store_id(9)}' WHERE name = 'derm'",
    ],
)
def test_rows_that_were_changed(folder: Path, statement: str) -> None:
    with opened(folder) as models:
        keep(models, 1)
        keep(models, 2, "other")
    changed(folder, statement)
    with opened(folder) as models, pytest.raises(VaultError, match=r"models\.sqlite is damaged .*move the file away"):
        models.versions()


# -- upgrades --------------------------------------------------------------------------------------------------------

LATER = (*party_module.LAYOUT, ("ALTER TABLE versions ADD COLUMN note TEXT", "UPDATE versions SET note = 'upgraded'"))


def test_an_older_layout_is_brought_up_to_date(folder: Path) -> None:
    with opened(folder) as models:
        keep(models, 1)
    with opened(folder, steps=LATER) as models:
        whole(models, 1)
        with models.vault.transaction() as db:
            assert db.execute("SELECT note FROM versions").fetchall() == [("upgraded",)]
            assert db.execute("SELECT version FROM layout").fetchall() == [(FIRST + len(LATER) - 1,)]
    with opened(folder, steps=LATER) as models:
        assert states(models) == {1: State.CURRENT}


def test_an_upgrade_that_fails_changes_nothing(folder: Path) -> None:
    with opened(folder) as models:
        keep(models, 1)
    broken = (*party_module.LAYOUT, ("ALTER TABLE versions ADD COLUMN note TEXT", "UPDATE missing SET x = 1"))
    with pytest.raises(VaultError, match="no such table"):
        opened(folder, steps=broken)
    with opened(folder) as models:
        whole(models, 1)
        assert states(models) == {1: State.CURRENT}


@pytest.mark.parametrize("kind", [PartyVersions, DecidedVersions])
def test_a_newer_layout_is_refused(folder: Path, kind: Any) -> None:
    later = (*(party_module.LAYOUT if kind is PartyVersions else dealer_module.LAYOUT), ("CREATE TABLE later (x)",))
    kind(folder, KEYS, "party0", steps=later).close()
    newer = rf"sqlite was written by a newer release \(layout {FIRST + len(later) - 1}; .*run that release"
    with pytest.raises(ConfigurationError, match=newer):
        kind(folder, KEYS, "party0")
    kind(folder, KEYS, "party0", steps=later).close()


@pytest.mark.parametrize("kind", [PartyVersions, DecidedVersions])
def test_what_release_0_2_wrote_is_refused(folder: Path, kind: Any) -> None:
    with kind(folder, KEYS, "party0") as models, models.vault.transaction() as db:
        db.execute("UPDATE layout SET version = ?", (FIRST - 1,))
    with pytest.raises(ConfigurationError, match=r"release 0\.2 or earlier \(layout 4\).* move the data folder away"):
        kind(folder, KEYS, "party0")


def test_no_layout(folder: Path) -> None:
    opened(folder).close()
    changed(folder, "DELETE FROM layout")
    with pytest.raises(VaultError, match="does not say which layout"):
        opened(folder)


# -- crashes ---------------------------------------------------------------------------------------------------------


class Crashes:
    """Copies the folder before each step that changes it, as a crash there would leave it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.copies: list[Path] = []
        self._copying = False
        self._watch(monkeypatch)

    def copy(self) -> None:
        if self._copying:
            return
        self._copying = True
        target = self.folder.with_name(f"crash{len(self.copies)}")
        shutil.copytree(self.folder, target)
        self.copies.append(target)
        self._copying = False

    def _watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "rename"), (Path, "unlink")):
            monkeypatch.setattr(owner, name, self._before(getattr(owner, name)))
        begun, seal = Vault.transaction, Vault.seal

        @contextlib.contextmanager
        def transaction(vault: Vault) -> Iterator[sqlite3.Connection]:
            self.copy()
            with begun(vault) as db:
                db.set_trace_callback(lambda _: self.copy())
                try:
                    yield db
                finally:
                    db.set_trace_callback(None)
                self.copy()
            self.copy()

        def sealed(vault: Vault, *arguments: Any, **options: Any) -> Iterator[memoryview]:
            for chunk in seal(vault, *arguments, **options):
                yield chunk
                self.copy()

        monkeypatch.setattr(Vault, "transaction", transaction)
        monkeypatch.setattr(Vault, "seal", sealed)

    def _before(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if isinstance(arguments[0], int) or str(arguments[0]).startswith(str(self.folder)):
                self.copy()
            return method(*arguments, **options)

        return call


@pytest.fixture
def crashes(folder: Path) -> Iterator[Callable[[], contextlib.AbstractContextManager[Crashes]]]:
    @contextlib.contextmanager
    def watching() -> Iterator[Crashes]:
        with pytest.MonkeyPatch.context() as patch:
            yield Crashes(folder, patch)

    yield watching


def left_tidy(models: PartyVersions, folder: Path) -> None:
    """A file for each row and no other."""
    names = {f"{version.record.version}.shares" for version in models.versions()}
    assert {path.name for path in (folder / "models").iterdir()} == names


def test_a_crash_at_any_step_of_preparing(folder: Path, crashes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_BYTES", 64)
    with opened(folder) as models:
        keep(models, 1)
        new = record(2)
        with crashes() as seen:
            models.prepare(new, seed(2), masked(new))
    outcomes = set()
    for copy in seen.copies:
        with opened(copy) as models:
            whole(models, 1)
            left_tidy(models, copy)
            found = states(models)
            outcomes.add(2 in found)
            assert found in ({1: State.CURRENT}, {1: State.CURRENT, 2: State.PREPARED})
            if 2 in found:
                whole(models, 2)
            else:
                keep(models, 2)
                whole(models, 2)
    assert outcomes == {False, True}
    assert len(seen.copies) > 10


@pytest.mark.parametrize("step", ["commit", "drop"])
def test_a_crash_at_any_step_of_deciding(folder: Path, crashes: Any, step: str) -> None:
    with opened(folder) as models:
        keep(models, 1)
        new = record(2)
        models.prepare(new, seed(2), masked(new))
        with crashes() as seen:
            getattr(models, step)(new.version)
    before = {1: State.CURRENT, 2: State.PREPARED}
    after = {2: State.CURRENT} if step == "commit" else {1: State.CURRENT}
    outcomes = []
    for copy in seen.copies:
        with opened(copy) as models:
            found = states(models)
            outcomes.append(found == after)
            assert found in (before, after)
            left_tidy(models, copy)
            for number in found:
                whole(models, number)
            getattr(models, step)(new.version)
            assert states(models) == after
    assert set(outcomes) == {False, True}
    assert outcomes == sorted(outcomes)


def test_a_crash_at_any_step_of_an_upgrade(folder: Path, crashes: Any) -> None:
    with opened(folder) as models:
        keep(models, 1)
    with crashes() as seen:
        opened(folder, steps=LATER).close()
    for copy in seen.copies:
        with opened(copy, steps=LATER) as models:
            whole(models, 1)
            assert states(models) == {1: State.CURRENT}


@pytest.mark.parametrize("call", ["open", "fsync", "write"])
def test_a_disk_that_is_full(folder: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed error, and what was there is there."""
    with opened(folder) as models:
        keep(models, 1)
        new = record(2)

        def full(*_: Any, **__: Any) -> Any:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            if call == "write":
                patch.setattr(Vault, "seal", full)
            else:
                patch.setattr(files.os, call, full)
            with pytest.raises(NoSpace, match="the disk of its data folder is full"):
                models.prepare(new, seed(2), masked(new))
        assert states(models) == {1: State.CURRENT}
        left_tidy(models, folder)
        whole(models, 1)
        keep(models, 2)
        whole(models, 2)


# -- the dealer's ----------------------------------------------------------------------------------------------------


def dealers(folder: Path) -> DecidedVersions:
    return DecidedVersions(folder, KEYS, "dealer")


def in_use(models: DecidedVersions) -> dict[int, list[bytes]]:
    return {int(v.record.version, 16): list(map(bytes, v.masks.seeds)) for v in models.current()}


SEEDS = [seed(1), seed(2), seed(3)]


def test_the_dealer_keeps_seeds_over_a_restart(folder: Path) -> None:
    with dealers(folder) as models:
        models.commit(record(1), SEEDS)
        models.commit(record(2, "other"), SEEDS[::-1])
    with dealers(folder) as models:
        assert in_use(models) == {1: list(map(bytes, SEEDS)), 2: list(map(bytes, SEEDS[::-1]))}
        assert models.current()[0].masks.shapes == record(1).shapes
        models.commit(record(3), SEEDS)
        assert set(in_use(models)) == {2, 3}
        assert models.gone([store_id(1), store_id(2), store_id(3), store_id(4)]) == {store_id(1)}
        models.remove(store_id(2))
        models.remove(store_id(2))
        assert set(in_use(models)) == {3}
        with pytest.raises(VaultError, match="UNIQUE"):
            models.commit(record(2), SEEDS)
    contents = b"".join(path.read_bytes() for path in folder.iterdir())
    assert bytes(SEEDS[0]) not in contents


def test_gone_is_gone(folder: Path) -> None:
    with dealers(folder) as models:
        models.commit(record(1), SEEDS)
        models.remove(store_id(1))
        for statement in (
            "UPDATE versions SET state = 'current', owner = 'x', name = 'derm', sealed = x'00'",
            "DELETE FROM versions",
        ):
            with pytest.raises(VaultError, match=r"gone|kept"), models.vault.transaction() as db:
                db.execute(statement)


def test_programs_go_with_their_models(folder: Path) -> None:
    with dealers(folder) as models:
        models.commit(record(1), SEEDS)
        models.commit(record(2, "other"), SEEDS)
        models.note_uses(PROGRAM, [store_id(1), store_id(2)])
        models.note_uses(PROGRAM, [store_id(1)])
        models.note_uses(OTHER_PROGRAM, [store_id(2)])
        assert models.abandoned() == []
        models.commit(record(3), SEEDS)
    with dealers(folder) as models:
        assert models.abandoned() == [PROGRAM]
        models.forget_program(PROGRAM)
        assert models.abandoned() == []
        models.remove(store_id(2))
        assert models.abandoned() == [OTHER_PROGRAM]


@pytest.mark.parametrize("step", ["replace", "remove"])
def test_a_crash_at_any_step_of_the_dealer_s(folder: Path, crashes: Any, step: str) -> None:
    with dealers(folder) as models:
        models.commit(record(1), SEEDS)
        with crashes() as seen:
            models.commit(record(2), SEEDS) if step == "replace" else models.remove(store_id(1))
    after = {2} if step == "replace" else set()
    outcomes = []
    for copy in seen.copies:
        with dealers(copy) as models:
            outcomes.append(set(in_use(models)) == after)
            assert set(in_use(models)) in ({1}, after)
            assert (models.gone([store_id(1)]) == {store_id(1)}) == outcomes[-1]
    assert set(outcomes) == {False, True}
    assert outcomes == sorted(outcomes)


@pytest.mark.parametrize("kind", ["party", "dealer"])
def test_a_crash_at_any_step_of_a_removal(folder: Path, crashes: Any, kind: str) -> None:
    """One version goes, of that name alone, and all of it."""
    make: Any = opened if kind == "party" else dealers
    with make(folder) as models:
        for number, name in ((1, "derm"), (2, "other")):
            keep(models, number, name) if kind == "party" else models.commit(record(number, name), SEEDS)
        if kind == "party":
            models.prepare(record(3), seed(3), masked(record(3)))
            models.drop(store_id(3))
        with crashes() as seen:
            models.drop(store_id(1)) if kind == "party" else models.remove(store_id(1))
    outcomes = []
    for copy in seen.copies:
        with make(copy) as models:
            found = set(states(models) if kind == "party" else in_use(models))
            assert found in ({1, 2}, {2})
            outcomes.append(found == {2})
    assert set(outcomes) == {False, True}
    assert outcomes == sorted(outcomes)


@pytest.mark.parametrize("statement", ["UPDATE versions SET sealed = x'00'", "UPDATE versions SET name = 'mine'"])
def test_the_dealer_s_rows_that_were_changed(folder: Path, statement: str) -> None:
    with dealers(folder) as models:
        models.commit(record(1), SEEDS)
    changed(folder, statement, "masks.sqlite")
    with dealers(folder) as models, pytest.raises(VaultError, match=r"masks\.sqlite is damaged .*move the file away"):
        models.current()


# -- whose -----------------------------------------------------------------------------------------------------------


def test_an_owner_or_servers_that_are_not_listed() -> None:
    keys = [KeyPair.generate().public for _ in range(4)]

    def cluster(parties: list[str], clients: list[tuple[str, str]], dealer: str = keys[0]) -> Cluster:
        listed = [(f"party{i}", f"10.0.0.{i + 2}:7000", key) for i, key in enumerate(parties)]
        return Cluster.build("test", dealer=("10.0.0.1:7000", dealer), parties=listed, clients=clients)

    clients = [("company", OWNER.public)]
    usual = cluster(keys[1:3], clients)
    kept = Record(store_id(1), "derm", OWNER.public, "company", usual.circle, (), 0.0)
    assert owner_of(usual, kept) == usual.member("company")
    renamed = cluster(keys[1:3], [("renamed", OWNER.public), ("clinic", keys[3])])
    assert owner_of(renamed, kept) == renamed.member("renamed")
    assert owner_of(cluster(keys[1:3], [("company", keys[3])]), kept) is None
    assert owner_of(cluster(keys[2:0:-1], clients), kept) is None
    assert owner_of(cluster([keys[1], keys[3]], clients), kept) is None
    assert owner_of(cluster(keys[1:3], clients, keys[3]), kept) is None
    assert owner_of(usual, Record(store_id(1), "derm", keys[1], "party0", usual.circle, (), 0.0)) is None
