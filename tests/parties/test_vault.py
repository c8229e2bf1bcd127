"""A data file of secrets: what goes in comes out, to its owner alone, and as it was or not at all."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import ConfigurationError
from parties.members.keys import KeyPair
from parties.stored import vault as vault_module
from parties.stored.vault import Vault, VaultError
from parties.wire.messages import Buffer

KEYS = KeyPair.generate()
SCHEMA = "CREATE TABLE kept (part INTEGER PRIMARY KEY, sealed BLOB);"


def opened(folder: Path, keys: KeyPair = KEYS, purpose: str = "test", member: str = "party0") -> Vault:
    return Vault(folder, "file.sqlite", keys, purpose=purpose, member=member, schema=SCHEMA)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def unsealed(vault: Vault, label: tuple[str, ...], chunks: list[bytes]) -> list[bytes]:
    return [bytes(b) for b in vault.unseal(label, len(chunks), sum(map(len, chunks)), chunks)]


@given(payload=st.lists(st.binary(max_size=200), max_size=8), chunk=st.sampled_from([8, 24, 64, 1 << 20]))
@settings(max_examples=60)
def test_buffers_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, payload: list[bytes], chunk: int
) -> None:
    with opened(tmp_path_factory.mktemp("data")) as vault:
        chunks = [bytes(c) for c in vault.seal(("a",), payload, chunk)]
        assert unsealed(vault, ("a",), chunks) == payload


def test_kinds_of_buffers_and_how_they_lie_in_memory(folder: Path) -> None:
    array = np.arange(12, dtype=np.uint64).reshape(3, 4)
    payload: list[Buffer] = [b"seed", array, memoryview(bytearray(b"abc")), np.empty((0, 3), np.uint64), b"", array]
    with opened(folder) as vault:
        chunks = [bytes(c) for c in vault.seal(("a",), payload, 40)]
        parts = vault.unseal(("a",), len(chunks), sum(map(len, chunks)), chunks)
        assert [len(part) for part in parts] == [4, 96, 3, 0, 0, 96]
        again = np.frombuffer(parts[5], np.uint64)
        assert again.flags.aligned
        assert np.array_equal(again.reshape(3, 4), array)
        with pytest.raises(TypeError):
            list(vault.seal(("a",), [array.T]))


def test_no_two_seals_are_alike(folder: Path) -> None:
    with opened(folder) as vault:
        assert len({bytes(*vault.seal(("a",), [b"the same"])) for _ in range(100)}) == 100
        # Two chunks under one nonce show their difference, and give away the key of the checksum.
        assert len({bytes(chunk[:12]) for chunk in vault.seal(("a",), [bytes(3200)], 32)}) > 100


def test_labels_are_lists_of_words(folder: Path) -> None:
    with opened(folder) as vault:
        sealed = [bytes(chunk) for chunk in vault.seal(("a", "bc"), [b"what"])]
        for label in (("ab", "c"), ("abc", ""), ("", "abc")):
            with pytest.raises(VaultError, match="not authentic"):
                unsealed(vault, label, sealed)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c[:-1],
        lambda c: c[1:],
        lambda c: [c[1], c[0], *c[2:]],
        lambda c: [*c, c[-1]],
        lambda c: [bytes([c[0][0] ^ 1]) + c[0][1:], *c[1:]],
        lambda c: [c[0][:-1] + bytes([c[0][-1] ^ 1]), *c[1:]],
        lambda c: [c[0][:20] + bytes([c[0][20] ^ 128]) + c[0][21:], *c[1:]],
        lambda c: [c[0][:20], *c[1:]],
        lambda c: [b"", *c],
        lambda c: [None] * len(c),
        lambda c: [],
    ],
)
def test_nothing_changed_is_opened(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    with opened(folder) as vault:
        chunks = [bytes(c) for c in vault.seal(("a", "b"), [b"SECRET" * 20], 32)]
        changed = change(chunks)
        for count in {len(chunks), len(changed)}:
            with pytest.raises(VaultError) as caught:
                vault.unseal(("a", "b"), count, sum(len(c or b"") for c in changed), changed)
            assert "SECRET" not in str(caught.value)
        for label in (("a",), ("ab",), ("a", "b", ""), ("b", "a")):
            with pytest.raises(VaultError, match="not authentic"):
                unsealed(vault, label, chunks)


def test_files_have_keys_of_their_own(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as first, opened(tmp_path / "b") as second:
        chunks = [bytes(c) for c in first.seal(("a",), [b"x"])]
        with pytest.raises(VaultError):
            unsealed(second, ("a",), chunks)


def test_a_transaction_is_done_whole_or_not_at_all(folder: Path) -> None:
    with opened(folder) as vault:
        with pytest.raises(KeyError), vault.transaction() as db:
            db.execute("INSERT INTO kept VALUES (1, NULL)")
            raise KeyError
        with vault.transaction() as db:
            db.execute("INSERT INTO kept VALUES (2, NULL)")
        with pytest.raises(VaultError, match=r"cannot be used \(UNIQUE"), vault.transaction() as db:
            db.execute("INSERT INTO kept VALUES (2, NULL)")
    with opened(folder) as vault, vault.transaction() as db:
        assert db.execute("SELECT part FROM kept").fetchall() == [(2,)]


def test_durable_and_erasing(folder: Path) -> None:
    with opened(folder) as vault, vault.transaction() as db:
        pragmas = {p: db.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous", "secure_delete")}
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1}
        assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_after_close(folder: Path) -> None:
    vault = opened(folder)
    vault.close()
    vault.close()
    assert repr(vault).endswith("file.sqlite (closed)>")
    with pytest.raises(VaultError, match="is closed"), vault.transaction():
        pass
    with pytest.raises(VaultError, match="is closed"):
        vault.checkpoint()
    assert not list(folder.glob("*-wal"))


@pytest.mark.parametrize("umask", [0, 0o022])
def test_its_owner_s_alone(folder: Path, umask: int) -> None:
    former = os.umask(umask)
    try:
        with opened(folder) as vault, vault.transaction() as db:
            db.execute("INSERT INTO kept VALUES (1, NULL)")
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}
    finally:
        os.umask(former)


def test_others_may_read_it(folder: Path) -> None:
    opened(folder).close()
    folder.chmod(0o750)
    with pytest.raises(ConfigurationError, match=r"folder .*mode 0750\): run `chmod 700"):
        opened(folder)
    folder.chmod(0o700)
    for mode in (0o604, 0o640, 0o620):
        (folder / "file.sqlite").chmod(mode)
        with pytest.raises(ConfigurationError, match=rf"file .*mode {mode:04o}\): run `chmod 600"):
            opened(folder)
    (folder / "file.sqlite").chmod(0o600)
    opened(folder).close()


def test_a_link_is_not_followed(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "file.sqlite").symlink_to(folder / "elsewhere")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        opened(folder)


def test_no_place_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        opened(tmp_path / "data")


def test_somebody_else_s(folder: Path) -> None:
    opened(folder).close()
    for other, complaint in (
        ({"keys": KeyPair.generate()}, "another public key"),
        ({"member": "party1"}, "another member"),
        ({"purpose": "stock"}, "another purpose"),
        # The right public half alone opens nothing.
        ({"keys": KeyPair(KEYS.public, KeyPair.generate().secret)}, "made with another key"),
    ):
        with pytest.raises(ConfigurationError, match=complaint) as caught:
            opened(folder, **other)
        assert KEYS.secret not in str(caught.value)
    opened(folder).close()


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("PRAGMA user_version = 3", "has format 3, this release reads 2"),
        ("PRAGMA application_id = 7", "is not Tessera's"),
        ("DELETE FROM about WHERE name = 'salt'", "made with another key, or was changed"),
        ("UPDATE about SET value = zeroblob(60) WHERE name = 'key'", "made with another key, or was changed"),
        ("DROP TABLE about", r"cannot be opened \(no such table"),
    ],
)
def test_a_file_that_was_changed(folder: Path, statement: str, complaint: str) -> None:
    opened(folder).close()
    db = sqlite3.connect(folder / "file.sqlite")
    db.execute(statement)
    db.commit()
    db.close()
    with pytest.raises(ConfigurationError, match=complaint):
        opened(folder)


def test_not_a_database(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "file.sqlite").write_bytes(b"something else" * 100)
    (folder / "file.sqlite").chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"cannot be opened \(file is not a database\)"):
        opened(folder)


def test_one_at_a_time(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from parties.members.keys import KeyPair; from parties.stored.vault import Vault\n"
        "keys = KeyPair(sys.argv[2], sys.argv[3])\n"
        "v = Vault(sys.argv[1], 'file.sqlite', keys, purpose='test', member='party0', schema='')"
    )
    snippet = str(Path(__file__).parents[1] / "snippet.py")
    command = [sys.executable, snippet, code, str(folder), KEYS.public, KEYS.secret]
    with opened(folder):
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "ConfigurationError" in other.stderr
        assert "is open in another process" in other.stderr
        with pytest.raises(ConfigurationError, match="is open in another process"):
            opened(folder)
    with opened(folder):
        pass


def test_chunks_of_the_usual_size_take_little_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_module, "CHUNK_BYTES", 1 << 12)
    array = np.arange(5000, dtype=np.uint64)
    with opened(folder) as vault:
        chunks = [bytes(c) for c in vault.seal(("a",), [b"12345", array])]
        assert len(chunks) == 10
        assert max(map(len, chunks)) == (1 << 12) + 28
        assert unsealed(vault, ("a",), chunks) == [b"12345", array.tobytes()]


def test_flipped_bits_are_typed_errors(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir(mode=0o700)
    with opened(tmp_path / "good") as vault, vault.transaction() as db:
        for part, sealed in enumerate(vault.seal(("a",), [b"SECRET" * 10_000], 10_000)):
            db.execute("INSERT INTO kept VALUES (?, ?)", (part, sealed))
    good = (tmp_path / "good" / "file.sqlite").read_bytes()
    folder = tmp_path / "bad"
    outcomes = set()
    for seed in range(150):
        choice, bad = random.Random(seed), bytearray(good)
        for _ in range(choice.choice((1, 3, 20))):
            bad[choice.randrange(len(bad))] ^= 1 << choice.randrange(8)
        folder.mkdir(mode=0o700, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        (folder / "file.sqlite").touch(0o600)
        (folder / "file.sqlite").write_bytes(bad)
        try:
            with opened(folder) as vault, vault.transaction() as db:
                chunks = [row[0] for row in db.execute("SELECT sealed FROM kept ORDER BY part")]
                assert unsealed(vault, ("a",), chunks) == [b"SECRET" * 10_000]
                outcomes.add("unharmed")
        except (ConfigurationError, VaultError) as error:
            outcomes.add(type(error).__name__)
            assert "SECRET" not in str(error)
    assert outcomes == {"unharmed", "VaultError", "ConfigurationError"}
