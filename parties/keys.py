"""Identities: CURVE25519 key pairs, and the file that holds one.

A public key is 40 characters of Z85 (ZeroMQ RFC 32).  It goes into the cluster file and *is* the identity of
a process: whatever arrives under it came from the holder of the secret half.  The secret half stays in a file
that only its owner can read; it appears in no message, log line or ``repr``.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from mpc.errors import ConfigurationError

_FORMAT = 1
_FIELDS = {"version", "public", "secret"}
# Of linux/posix_acl.h and posix_acl_xattr.h.
_ACL_VERSION = 2
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP = 0x02, 0x04, 0x08
_ACL_HEAD, _ACL_ENTRY = struct.Struct("<I"), struct.Struct("<HHI")


def is_public_key(text: object) -> bool:
    """Whether ``text`` is 40 characters of Z85, that is, 32 bytes."""
    if not isinstance(text, str) or len(text) != 40:
        return False
    try:
        # The decoder's answer is compared, as it takes some words that no 32 bytes encode to.
        return z85.encode(z85.decode(text)) == text.encode("ascii")
    except Exception:  # noqa: BLE001 - KeyError, struct.error or UnicodeError, by kind of rubbish
        return False


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair; both halves are 40 characters of Z85.  ``repr`` shows the public half only."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def generate(cls) -> KeyPair:
        """A fresh pair from the operating system's randomness."""
        public, secret = zmq.curve_keypair()
        return cls(public.decode("ascii"), secret.decode("ascii"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the pair to a new file readable by its owner alone (0600).

        Raises:
            ConfigurationError: the file exists (a key is never overwritten), or cannot be written.
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
            raise ConfigurationError(f"key file {os.fspath(path)} cannot be written: {error.strerror}") from error
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(
                "# A Tessera identity.  The public key goes into the cluster file; this file goes nowhere.\n"
                f'version = {_FORMAT}\npublic = "{self.public}"\nsecret = "{self.secret}"\n'
            )

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
        if not (is_public_key(public) and is_public_key(secret)):
            raise ConfigurationError(f"{malformed} (a key is 40 characters of Z85): {remedy}")
        if zmq.curve_public(secret.encode("ascii")).decode("ascii") != public:
            raise ConfigurationError(f"key file {name} holds a public key that is not its secret key's: {remedy}")
        return cls(public, secret)


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
