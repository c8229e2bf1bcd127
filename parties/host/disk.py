"""Room on the disk of a data folder: how much of it clients may fill, and how much of that one of them may."""

from __future__ import annotations

import os
import shutil

from mpc.errors import DiskFull, ServerBusy

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


def check_part(folder: str | os.PathLike[str], server: str, more: int, client: str, held: int) -> None:
    """Raises ServerBusy unless a client with ``more`` bytes beside the ``held`` ones leaves others as much.  Blocks."""
    left = shutil.disk_usage(folder).free - RESERVE - more
    if held + more > left:
        raise ServerBusy(
            server,
            f"{client} would have {(held + more) >> 20} MiB on the disk of its data folder, and leave"
            f" {max(0, left) >> 20} to all others: remove something of yours first (tessera rm), use what is in stock,"
            " or make room there",
        )
