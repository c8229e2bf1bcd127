"""Can a member's data folder be written, and how much room is there?"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from mpc.errors import TesseraError
from parties.messages.check import FolderSeen

log = logging.getLogger(__name__)

TRIAL_BYTES = 64 << 10

_TRIAL = ".check"


def look_at_folder(folder: str | os.PathLike[str], databases: Callable[[], None]) -> FolderSeen:
    """What there is to say of a data folder; blocks on the disk.

    Args:
        folder: its path.  It is not told to who asks; the log has it.
        databases: raises TesseraError when the data files in it cannot be written now.
    """
    free = total = 0
    try:
        usage = shutil.disk_usage(folder)
        free, total = usage.free, usage.total
        _write_and_remove(Path(folder) / _TRIAL)
        databases()
    except OSError as error:
        log.warning("check: data folder %s: %s", os.fspath(folder), error)
        return FolderSeen(
            free,
            total,
            f"its data folder cannot be written ({error.strerror}): make room on its disk, or see to the folder's owner"
            " and mode",
        )
    except TesseraError as error:
        log.warning("check: %s", error)
        said = str(error.__cause__) if isinstance(error.__cause__, sqlite3.Error) else "see its log"
        return FolderSeen(
            free,
            total,
            f"its data file cannot be used ({said}): see to its disk, and start the server again",
        )
    return FolderSeen(free, total)


def _write_and_remove(path: Path) -> None:
    """All the way to the disk: a full one may take what it cannot keep."""
    path.unlink(missing_ok=True)  # a crash in the middle of this leaves it
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        data = memoryview(bytes(TRIAL_BYTES))
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)
