"""Key pairs and their files."""

from __future__ import annotations

import itertools
import os
import stat
import struct
from pathlib import Path

import pytest

from mpc.errors import ConfigurationError
from parties.members.keys import SIGNATURE_BYTES, KeyPair, is_public_key, is_signed


def test_the_secret_is_in_the_file_only(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    assert pair.secret not in repr(pair)
    assert pair.secret not in str(pair)
    assert pair.public in repr(pair)
    pair.save(tmp_path / "key")
    assert KeyPair.load(tmp_path / "key") == pair


def test_pairs_differ() -> None:
    assert KeyPair.generate() != KeyPair.generate()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_new_file_is_its_owner_s_alone(tmp_path: Path, umask: int) -> None:
    former = os.umask(umask)
    try:
        KeyPair.generate().save(tmp_path / "key")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    first = KeyPair.generate()
    first.save(tmp_path / "key")
    with pytest.raises(ConfigurationError, match=r"key exists and is never overwritten"):
        KeyPair.generate().save(tmp_path / "key")
    assert KeyPair.load(tmp_path / "key") == first


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError):
        KeyPair.generate().save(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_no_folder_to_save_in(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: No such file or directory"):
        KeyPair.generate().save(tmp_path / "missing" / "key")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist: make one with `tessera keygen`"):
        KeyPair.load(tmp_path / "key")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KeyPair.load(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
def test_a_file_that_others_can_open(tmp_path: Path, mode: int) -> None:
    KeyPair.generate().save(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}"):
        KeyPair.load(tmp_path / "key")


PAIR, OTHER = KeyPair.generate(), KeyPair.generate()
GOOD = f'version = 2\npublic = "{PAIR.public}"\nsecret = "{PAIR.secret}"\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must have version"),
        (f'secret = "{PAIR.secret}', "not TOML"),
        ("\xff", "not TOML"),
        (GOOD.replace("version = 2", "version = 1"), "version = 2"),
        (GOOD + "more = 1\n", "nothing else"),
        (GOOD.replace(PAIR.public, PAIR.public[:-1]), "80 characters"),
        (GOOD.replace(PAIR.public, "~" * 80), "80 characters"),
        (GOOD.replace(f'"{PAIR.secret}"', "7"), "80 characters"),
        (GOOD.replace(PAIR.public, OTHER.public), "not its secret key's"),
    ],
    ids=itertools.count(),  # not the keys, which differ from run to run
)
def test_a_malformed_file(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "key").write_text(text, encoding="latin-1")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        KeyPair.load(tmp_path / "key")
    assert PAIR.secret not in str(caught.value)
    assert str(tmp_path / "key") in str(caught.value)


@pytest.mark.parametrize("text", [None, 3, "", "x" * 79, "x" * 81, "é" * 80, "#" * 80, "~" * 80, b"x" * 80, "x" * 40])
def test_what_is_no_public_key(text: object) -> None:
    assert not is_public_key(text)
    assert is_public_key(PAIR.public)


def test_a_signature_is_of_one_member_s_words_for_one_purpose() -> None:
    signature, stranger = PAIR.sign("purpose", b"one", b"two"), KeyPair.generate()
    assert len(signature) == SIGNATURE_BYTES
    assert is_signed(PAIR.public, signature, "purpose", b"one", b"two")
    for whose, what, purpose, parts in (
        (stranger.public, signature, "purpose", (b"one", b"two")),
        (PAIR.curve + stranger.public[40:], signature, "purpose", (b"one", b"two")),
        (PAIR.public, signature, "another", (b"one", b"two")),
        (PAIR.public, signature, "purpose", (b"two", b"one")),
        (PAIR.public, signature, "purpose", (b"onetwo",)),
        (PAIR.public, signature, "purpose", (b"one", b"two", b"")),
        (PAIR.public, signature, "purposeone", (b"two",)),
        (PAIR.public, signature[:-1], "purpose", (b"one", b"two")),
        (PAIR.public, bytes(64), "purpose", (b"one", b"two")),
        (PAIR.public, b"", "purpose", (b"one", b"two")),
    ):
        assert not is_signed(whose, what, purpose, *parts)


def test_any_words_can_stand_where_a_signing_key_should() -> None:
    # Half of all words are on the curve; those that are not have signed nothing.
    assert not any(is_signed(PAIR.curve + KeyPair.generate().curve, bytes(64), "purpose") for _ in range(20))


def test_both_keys_come_from_one_secret() -> None:
    again = KeyPair(PAIR.public, PAIR.secret)
    assert again.sign("purpose", b"x") == PAIR.sign("purpose", b"x")
    assert len(PAIR.curve) == len(PAIR.secret) == 40
    assert PAIR.secret not in PAIR.public


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel keeps it: tag, permissions, whom."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY_IN_PARTICULAR = 0xFFFFFFFF
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20


def credential(path: Path, *granted: tuple[int, int], group: int = 0) -> KeyPair:
    """A key file as systemd's LoadCredential= hands it over: read-only, with a list of who else may read it."""
    pair = KeyPair.generate()
    pair.save(path)
    who = NOBODY_IN_PARTICULAR
    entries = [(USER_OBJ, 4, who), *((USER, permissions, user) for user, permissions in granted)]
    entries += [(GROUP_OBJ, group, who), (MASK, 4, who), (OTHER, 0, who)]
    try:
        os.setxattr(path, "system.posix_acl_access", acl(*entries))
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    assert path.stat().st_mode & 0o777 == 0o440  # the mask, which a mode alone cannot tell from a group that may read
    return pair


def test_a_key_that_a_list_lets_us_alone_read(tmp_path: Path) -> None:
    pair = credential(tmp_path / "key", (os.geteuid(), 4))
    assert KeyPair.load(tmp_path / "key") == pair


@pytest.mark.parametrize(("granted", "group"), [([(54321, 4)], 0), ([], 4), ([(54321, 4)], 4)])
def test_a_key_that_a_list_lets_others_read(tmp_path: Path, granted: list[tuple[int, int]], group: int) -> None:
    credential(tmp_path / "key", (os.geteuid(), 4), *granted, group=group)
    with pytest.raises(ConfigurationError, match="can be read or written by others"):
        KeyPair.load(tmp_path / "key")
