"""Memory that was freed goes back to the kernel: not at once, which is slow, but when there is much of it.

`process.tune` has freed memory stay, since arrays come and go with each run.  Once there have been large runs, or many,
that is more than the runs to come will ever want again, and it lies between what is still in use.  What the allocator
has free is looked at once a second, only after the process has grown, and given back by a thread beside the event loop:
60 MB in 5 to 10 ms.  A moment between two runs, as there are many in a training, is not a quiet one: that is two looks
in a row.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpc.rings.on_torch.wiping import DeviceMemory

INTERVAL = 1.0
"""s between two looks."""
KEPT = 48 << 20
"""Bytes that are freed and kept, at most, at a quiet moment: runs of one image or so do with it."""
BUSY = 256 << 20
"""And while there is always something going on, where there is memory enough."""
GROWN = 16 << 20
"""Bytes that the process has grown since it last gave back, without which nobody looks."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Mallinfo2(ctypes.Structure):
    """``struct mallinfo2`` (malloc.h of glibc 2.33 and later)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    )  # fmt: skip


class Freed:
    """What this process has freed.

    Args:
        most: bytes that are freed and kept, at most, while there is always something going on.
        quiet: whether there is nothing going on right now.
    """

    def __init__(self, most: int, quiet: Callable[[], bool]) -> None:
        self._most, self._quiet = max(KEPT, most), quiet
        self._settled = resident()
        self._trim: Callable[[int], int] | None = None
        # Another C library has ways of its own.
        with contextlib.suppress(OSError, AttributeError):
            self._libc = ctypes.CDLL(None)
            self._libc.mallinfo2.restype = _Mallinfo2
            self._trim = self._libc.malloc_trim

    async def work(self) -> None:
        """For ever; returns at once where nothing can be given back."""
        before = False
        while self._trim is not None:
            await asyncio.sleep(INTERVAL)
            now, quiet = resident(), self._quiet()
            self._settled = min(self._settled, now)
            if now - self._settled >= GROWN:
                await asyncio.to_thread(self.give_back, KEPT if quiet and before else self._most)
            before = quiet

    def give_back(self, kept: int) -> bool:
        """If more than so many bytes are free; whether they were.  Blocks."""
        if self._trim is None or int(self._libc.mallinfo2().fordblks) <= kept:
            return False
        self._trim(0)
        self._settled = resident()
        return True


async def wiped(memory: DeviceMemory) -> None:
    """For ever: what runs have left in a card's memory is overwritten within a second or so."""
    while True:
        await asyncio.sleep(INTERVAL)
        await asyncio.to_thread(memory.wipe)


def resident() -> int:
    """Bytes of physical memory that this process has; 0 where the kernel does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except OSError:
        return 0
