"""What is free in a card's memory is zero; what is in use is as it was, until the end."""

from __future__ import annotations

import builtins
import weakref
from typing import Any

import pytest
import torch

from mpc.errors import ConfigurationError
from mpc.rings import FIELD, devices
from mpc.rings.on_torch import device, memory_on, rings_on
from mpc.rings.on_torch.wiping import Card, DeviceMemory, Segment

SECRET = 7


class Block:
    """Bytes that a tensor lies in."""


class Arena(Card):
    """A card of two segments, whose blocks are handed out as torch does it: the least that is large enough, split."""

    def __init__(self, *sizes: int) -> None:
        self.bytes = [torch.full((size,), SECRET, dtype=torch.uint8) for size in sizes]
        self.blocks = [[[0, size, False]] for size in sizes]
        self.count = self.waits = 0

    def allocations(self) -> int:
        return self.count

    def segments(self) -> list[Segment]:
        return [
            Segment(1000 * i, len(data), tuple(size for _, size, used in blocks if not used))
            for i, (data, blocks) in enumerate(zip(self.bytes, self.blocks, strict=True))
        ]

    def block(self, size: int) -> Block | None:
        """As a tensor takes it."""
        free = [(b[1], i, b) for i, blocks in enumerate(self.blocks) for b in blocks if not b[2] and b[1] >= size]
        if not free:
            return None
        self.count += 1
        _, place, found = min(free, key=lambda one: one[:2])
        if found[1] > size:
            at = self.blocks[place].index(found)
            self.blocks[place].insert(at + 1, [found[0] + size, found[1] - size, False])
            found[1] = size
        found[2] = True
        block = Block()
        block.where = self.bytes[place][found[0] : found[0] + size]
        weakref.finalize(block, self._free, found)
        return block

    @staticmethod
    def _free(found: list[Any]) -> None:
        found[2] = False

    def take(self, size: int) -> Any:
        block = self.block(size)
        if block is not None:
            block.where.zero_()
        return block

    def clear(self, address: int, size: int) -> None:
        self.bytes[address // 1000][:size].zero_()

    def wait(self) -> None:
        self.waits += 1


def test_what_is_free_is_zero_and_what_is_used_is_not_touched() -> None:
    card = Arena(64, 100)
    memory = DeviceMemory(card)
    used, freed = card.block(24), card.block(30)
    del freed
    assert memory.wipe() == 0
    assert (used.where == SECRET).all()
    assert sum(int(data.count_nonzero()) for data in card.bytes) == 24, "all but what is used"
    assert card.waits
    # All of it is there again.
    assert sorted(size for segment in card.segments() for size in segment.free) == [10, 30, 100]
    del used
    card.bytes[0][:] = SECRET
    assert memory.wipe() == 0
    assert card.bytes[0][0] == SECRET, "nothing has been computed since: nobody looked"
    assert card.block(8) is not None
    memory.wipe()
    assert not card.bytes[0].any()


def test_what_others_are_quicker_to_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Arena(64)
    assert card.block(8) is not None
    monkeypatch.setattr(Arena, "take", lambda *_: None)
    assert DeviceMemory(card).wipe() == 64


def test_at_the_end_all_is_zero() -> None:
    card = Arena(64, 100)
    used = card.block(24)
    DeviceMemory(card).wipe_all()
    assert not any(data.any() for data in card.bytes)
    assert used is not None


def test_on_the_processor_there_is_no_such_memory() -> None:
    assert memory_on("cpu") is None
    assert devices.memory_on("") is None


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if rest[2] == ("on_torch",):
            raise ImportError("No module named 'torch'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"takes PyTorch: install tessera-mpc\[gpu\]"):
        devices.rings_on("cuda")


def test_another_version_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.4.1+cu121")
    with pytest.raises(ConfigurationError, match=r"torch 2\.4\.1\+cu121 is installed, .* takes 2\.13"):
        rings_on("cpu")


@pytest.mark.parametrize(
    "said",
    [
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver",
        "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be",
        "Cannot find a working triton installation.",
    ],
)
def test_a_card_that_torch_cannot_compute_on(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError(said)

    monkeypatch.setattr(device, "negate", fails)
    with pytest.raises(ConfigurationError) as raised:
        rings_on("cpu")
    first = said.partition("\n")[0]
    assert str(raised.value) == f"torch {torch.__version__} cannot compute on 'cpu' here: {first}"


@pytest.mark.parametrize("name", ["meta", "mps", "CUDA", "cuda:-1", "", "card"])
def test_what_is_no_card(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name!r} is neither a card of CUDA's nor the processor"):
        rings_on(name)


def test_the_version_is_what_the_extra_asks_for() -> None:
    assert torch.__version__.startswith(f"{device.VERSION}.")
    assert FIELD in rings_on("cpu")
