"""Room on the disk of a data folder: how much of it clients may fill."""

from __future__ import annotations

import os
import shutil

from mpc.errors import DiskFull

RESERVE = 1 << 30
"""Bytes of a data folder's disk that clients cannot fill: ledgers and databases go on being written."""


def check_room(folder: str | os.PathLike[str], server: str, needed: int) -> None:
    """Raises DiskFull unless ``needed`` bytes leave `RESERVE` free on the disk.  Blocks."""
    free = shutil.disk_usage(folder).free
    if free - needed < RESERVE:
        raise DiskFull(
            server,
            f"the disk of its data folder has {free >> 20} MiB free, of which {RESERVE >> 20} stay free, and this takes"
            f" {-(-needed >> 20)}: make room there",
        )
