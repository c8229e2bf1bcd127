"""Folders and files of a member's data that nobody else on its machine can open, and the lock on one of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from mpc.errors import ConfigurationError


def private_folder(folder: Path) -> None:
    """Makes it if it is not there, with its parents.  Raises ConfigurationError if others can open it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_others(folder, folder.stat().st_mode, "folder", "700")


def private_file(path: Path) -> None:
    """Makes it if it is not there: with its mode from the first moment on, and its name on the disk.

    Raises ConfigurationError if others can open it.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        descriptor = os.open(path, flags)
    try:
        _refuse_others(path, os.fstat(descriptor).st_mode, "file", "600")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refuse_others(path: Path, mode: int, kind: str, wanted: str) -> None:
    if mode & 0o077:
        raise ConfigurationError(
            f"data {kind} {path} can be read or written by others (mode {stat.S_IMODE(mode):04o}):"
            f" run `chmod {wanted} {path}`"
        )


@contextlib.contextmanager
def hold(lock: Path, path: Path) -> Iterator[None]:
    """A lock that goes with this process, however it ends.  On a file of its own: SQLite locks the other one itself.

    Raises ConfigurationError while another process has it.
    """
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"data file {path} is open in another process: end that one first") from None
        yield
    finally:
        os.close(descriptor)
