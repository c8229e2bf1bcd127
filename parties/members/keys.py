"""Identities: key pairs for links and for signatures, and the file that holds one.

A public key is 80 characters of Z85 (ZeroMQ RFC 32): a CURVE25519 key, under which links are made, then an Ed25519
key, under which is signed what others may have to show to third parties.  It goes into the cluster file and *is* the
identity of a process: whatever arrives or is signed under it came from the holder of the secret.  There is one secret,
CURVE's; the other one is derived from it (HKDF, RFC 5869).  It stays in a file that only its owner can read, and is in
no message, log line or ``repr``.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import struct
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from zmq.utils import z85

from mpc.errors import ConfigurationError, unwritable

_FORMAT = 2
_FIELDS = {"version", "public", "secret"}
_HALF = 40
"""Characters of one key, which is 32 bytes."""
SIGNATURE_BYTES = 64
# Of linux/posix_acl.h and posix_acl_xattr.h.
_ACL_VERSION = 2
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP = 0x02, 0x04, 0x08
_ACL_HEAD, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")


def is_public_key(text: object) -> bool:
    """Whether ``text`` is an identity: 80 characters of Z85, that is, two keys."""
    return isinstance(text, str) and len(text) == 2 * _HALF and _is_key(text[:_HALF]) and _is_key(text[_HALF:])


def _is_key(text: object) -> bool:
    """Whether it is 40 characters of Z85, that is, 32 bytes."""
    if not isinstance(text, str) or len(text) != _HALF:
        return False
    try:
        # The decoder's answer is compared, as it takes some words that no 32 bytes encode to.
        return z85.encode(z85.decode(text)) == text.encode("ascii")
    except Exception:  # noqa: BLE001 - KeyError, struct.error or UnicodeError, by kind of rubbish
        return False


def curve_half(public: str) -> str:
    """The part of an identity that links are made under."""
    return public[:_HALF]


def signing_half(public: str) -> str:
    """The part of an identity that signatures are checked against."""
    return public[_HALF:]


def is_signed(public: str, signature: bytes, purpose: str, *parts: bytes) -> bool:
    """Whether whoever holds the secret of ``public`` has signed these parts, in this order, for that purpose."""
    try:
        _verifier(public).verify(signature, _signed_text(purpose, parts))
    except InvalidSignature:
        return False
    return True


@functools.lru_cache(maxsize=1024)
def _verifier(public: str) -> Ed25519PublicKey:
    """Made once: reading a key takes half as long as checking a signature."""
    return Ed25519PublicKey.from_public_bytes(z85.decode(signing_half(public)))


def _signed_text(purpose: str, parts: tuple[bytes, ...]) -> bytes:
    """What is signed: each part with its length, so that no two lists of parts, or purposes, give the same bytes."""
    fields = (b"tessera signature", purpose.encode(), *parts)
    return b"".join(struct.pack("<Q", len(field)) + field for field in fields)


@dataclass(frozen=True)
class KeyPair:
    """An identity and its secret, 80 and 40 characters of Z85.  ``repr`` shows the public half only."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def generate(cls) -> KeyPair:
        """A fresh pair from the operating system's randomness."""
        _, secret = zmq.curve_keypair()
        return cls._of(secret.decode("ascii"))

    @classmethod
    def _of(cls, secret: str) -> KeyPair:
        curve = zmq.curve_public(secret.encode("ascii"))
        signing = z85.encode(_signer(secret).public_key().public_bytes_raw())
        return cls((curve + signing).decode("ascii"), secret)

    @property
    def curve(self) -> str:
        """The public key that links are made under, 40 characters."""
        return curve_half(self.public)

    def sign(self, purpose: str, *parts: bytes) -> bytes:
        """Ed25519 signature of these parts, in this order: 64 bytes that anybody can check (``Member.signed``).

        ``purpose`` says what a signature means: one made for one purpose is none for another.
        """
        return self._signer.sign(_signed_text(purpose, parts))

    @functools.cached_property
    def _signer(self) -> Ed25519PrivateKey:
        return _signer(self.secret)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the pair to a new file readable by its owner alone (0600).

        Raises:
            ConfigurationError: the file exists (a key is never overwritten), or cannot be written.
            DiskFull: nothing is left.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        try:
            # The mode is part of the creation, so that others can at no moment open it.
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            raise ConfigurationError(
                f"key file {os.fspath(path)} exists and is never overwritten: choose another name, or remove it first"
            ) from None
        except OSError as error:
            raise unwritable(f"key file {os.fspath(path)}", error) from error
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(
                    "# A Tessera identity.  The public key goes into the cluster file; this file goes nowhere.\n"
                    f'version = {_FORMAT}\npublic = "{self.public}"\nsecret = "{self.secret}"\n'
                )
        except OSError as error:
            Path(path).unlink(missing_ok=True)
            raise unwritable(f"key file {os.fspath(path)}", error) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> KeyPair:
        """Reads the pair that `save` wrote.

        Raises:
            ConfigurationError: no such file; others may read it; malformed; the halves do not match.
        """
        name = os.fspath(path)
        try:
            with Path(path).open("rb") as file:
                mode = _mode(file.fileno())
                content = file.read(4096)
        except FileNotFoundError:
            raise ConfigurationError(f"key file {name} does not exist: make one with `tessera keygen`") from None
        except OSError as error:
            raise ConfigurationError(f"key file {name} cannot be read: {error.strerror}") from error
        if mode & 0o077:
            raise ConfigurationError(
                f"key file {name} can be read or written by others (mode {mode:04o}): "
                f"run `chmod 600 {name}`, or make a new key if others may have read it"
            )
        return cls._parse(name, content)

    @classmethod
    def _parse(cls, name: str, content: bytes) -> KeyPair:
        malformed = f"key file {name} is malformed"
        remedy = "restore it from a copy, or make a new key with `tessera keygen`"
        try:
            table = tomllib.loads(content.decode("ascii"))
        except (UnicodeDecodeError, tomllib.TOMLDecodeError):
            # The parser's own words could quote the secret's line.
            raise ConfigurationError(f"{malformed} (not TOML): {remedy}") from None
        if set(table) != _FIELDS or table["version"] != _FORMAT:
            raise ConfigurationError(
                f"{malformed} (it must have version = {_FORMAT}, public and secret, nothing else): {remedy}"
            )
        public, secret = table["public"], table["secret"]
        if not (is_public_key(public) and _is_key(secret)):
            raise ConfigurationError(f"{malformed} (public has 80 characters of Z85, secret 40): {remedy}")
        if cls._of(secret).public != public:
            raise ConfigurationError(f"key file {name} holds a public key that is not its secret key's: {remedy}")
        return cls(public, secret)


def _signer(secret: str) -> Ed25519PrivateKey:
    derived = HKDF(SHA256(), 32, None, b"tessera signing key").derive(z85.decode(secret))
    return Ed25519PrivateKey.from_private_bytes(derived)


def _mode(file: int) -> int:
    """The permissions of an open file; its group's are what others than its owner and ourselves may do.

    Where there is an access control list, the mode's middle digit is only the most that the list grants to anyone.
    systemd's LoadCredential= makes such a file: root's, and readable by the service's user besides, that is, by us.
    """
    status = os.fstat(file)
    mode = stat.S_IMODE(status.st_mode)
    try:
        acl = os.getxattr(file, "system.posix_acl_access")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return mode
        raise
    if len(acl) < _ACL_HEAD.size or len(acl) % _ACL_ENTRY.size != _ACL_HEAD.size:
        return mode
    if _ACL_HEAD.unpack_from(acl)[0] != _ACL_VERSION:
        return mode
    group = 0
    for tag, permissions, who in _ACL_ENTRY.iter_unpack(acl[_ACL_HEAD.size :]):
        if tag in (_ACL_GROUP_OBJ, _ACL_GROUP) or (tag == _ACL_USER and who not in (0, os.geteuid())):
            group |= permissions
    # Nobody is granted more than the mask, which is the mode's middle digit.
    return (mode & ~0o070) | (mode & (group << 3))
