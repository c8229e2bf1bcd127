"""Zeros where a card's memory is free: CUDA promises nobody that what it hands out is clear, nor that another process
does not get what this one has given back.

torch keeps what tensors have left, for the next ones: the driver gets memory back from it when the process ends, or
when the card is full.  So free memory is taken, as for any tensor, overwritten and left again (``DeviceMemory.wipe``),
as often as whoever computes here likes: no thread is disturbed, for what is in use is not taken.  At the end of the
process all of it is overwritten (``DeviceMemory.wipe_all``).

What is not reached: what runs in progress have freed since the last time, where the card gets full within them, and all
that a process leaves that is killed.

Sources: CUDA Runtime API, ``cudaMalloc`` ("The memory is not cleared."); Di Pietro, Lombardi, Villani, CUDA Leaks, ACM
TECS 15(1), 2016: what one process had left in a card's global memory was read by the next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch

ROUNDS = 3
"""Times that is looked for free memory: others may leave some meanwhile."""


class Segment(NamedTuple):
    """Memory that the allocator has from the driver: where, how many bytes, and the sizes of the blocks in it that
    nothing lies in."""

    address: int
    size: int
    free: tuple[int, ...]


class Card(ABC):
    """Memory of one device, as an allocator manages it for this process."""

    @abstractmethod
    def allocations(self) -> int:
        """So many blocks have been handed out up to now."""

    @abstractmethod
    def segments(self) -> list[Segment]:
        """All that this process has."""

    @abstractmethod
    def take(self, size: int) -> Any:
        """A block of so many bytes, which are zero, for as long as what is returned is held; None where there is
        none."""

    @abstractmethod
    def clear(self, address: int, size: int) -> None:
        """Zeros there, whatever it is used for."""

    @abstractmethod
    def wait(self) -> None:
        """Until all that was asked of the device is done."""


class DeviceMemory:
    """What this process has of a card's memory."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._seen = 0

    def wipe(self) -> int:
        """Overwrites what is free; bytes that could not be, since others were quicker.  Blocks; from any thread."""
        if self._card.allocations() == self._seen:
            # Nothing has been computed.
            return 0
        held: list[Any] = []
        for _ in range(ROUNDS):
            free = sorted((size for segment in self._card.segments() for size in segment.free), reverse=True)
            if not free:
                break
            # The largest first: each is then given the very block that is as large.
            held += [block for block in map(self._card.take, free) if block is not None]
        left = sum(sum(segment.free) for segment in self._card.segments())
        self._card.wait()
        self._seen = self._card.allocations()
        return left

    def wipe_all(self) -> None:
        """Overwrites all there is, used or not: where nothing is computed any more."""
        for segment in self._card.segments():
            self._card.clear(segment.address, segment.size)
        self._card.wait()


class TorchCard(Card):
    """Of torch's caching allocator, on a device of CUDA's."""

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)

    def allocations(self) -> int:
        return int(torch.cuda.memory_stats(self._device)["allocation.all.allocated"])

    def segments(self) -> list[Segment]:
        return [
            Segment(
                int(segment["address"]),
                int(segment["total_size"]),
                tuple(int(block["size"]) for block in segment["blocks"] if block["state"] == "inactive"),
            )
            for segment in torch.cuda.memory_snapshot(include_traces=False)  # type: ignore[no-untyped-call]
            if segment["device"] == self._device.index
        ]

    def take(self, size: int) -> Any:
        try:
            return torch.zeros(size, dtype=torch.uint8, device=self._device)
        except torch.OutOfMemoryError:
            return None

    def clear(self, address: int, size: int) -> None:
        torch.as_tensor(_There(address, size), device=self._device).zero_()

    def wait(self) -> None:
        torch.cuda.synchronize(self._device)


class _There:
    """Bytes of a device, wherever they are, as torch takes arrays of others (CUDA array interface, version 3)."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,), "typestr": "|u1", "data": (address, False), "strides": None, "version": 3,
        }  # fmt: skip
