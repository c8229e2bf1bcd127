"""Small numbers packed in words, and what digits are added up to (`mpc.rings.small`, `mpc.rings.steps`), on torch's
tensors: to the last bit what those modules say.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mpc.rings.field import P
from mpc.rings.on_torch import planes
from mpc.rings.on_torch.fused import fused
from mpc.rings.on_torch.layout import TorchRing
from mpc.rings.on_torch.words import Tensor, turned
from mpc.rings.prg import Seed
from mpc.rings.ring import Buffer, Shape
from mpc.rings.small import SmallNumbers, in_a_word, words
from mpc.rings.steps import entries, entry_bits, parts_of

_HALF = (P + 1) // 2


class TorchSmall(TorchRing, SmallNumbers):
    """int64 tensors, whose sign is the highest bit of a word."""

    dtype = torch.int64
    wire = "<u8"

    def __init__(self, device: torch.device, bits: int) -> None:
        SmallNumbers.__init__(self, bits)
        TorchRing.__init__(self, device)
        self._masks = [int(word.view(np.int64)) for word in (self._low, self._high, ~self._used)]

    def full(self, shape: Shape, value: int) -> Any:
        word = int(np.uint64(value & int(self._used)).view(np.int64))
        return torch.full(shape, word, dtype=torch.int64, device=self.device)

    def sample(self, seed: Seed, shape: Shape) -> Any:
        return self.here(seed.words(prod(shape), self._used)).reshape(shape)

    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Any:
        return reduce(self.add, (self.sample(seed, shape) for seed in seeds), self.zeros(shape))

    def holds(self, array: Any, shape: Shape) -> bool:
        known = isinstance(array, torch.Tensor) and array.dtype == torch.int64 and tuple(array.shape) == shape
        return known and self._clean(array)

    def from_signed(self, values: npt.NDArray[np.int64]) -> Any:
        return self.here(values.astype(np.uint64) & self._used)

    def to_signed(self, x: Any) -> npt.NDArray[np.int64]:
        return self.buffer(x).astype(np.int64)

    def add(self, x: Any, y: Any) -> Any:
        return _add(x, y, *self._masks[:2])

    def subtract(self, x: Any, y: Any) -> Any:
        return _subtract(x, y, *self._masks[:2])

    def negate(self, x: Any) -> Any:
        return self.subtract(torch.zeros_like(x), x)

    def accumulate(self, total: Any, incoming: Buffer) -> bool:
        if tuple(total.shape) != incoming.shape or incoming.dtype != np.uint64:
            raise ValueError(f"cannot accumulate an array of shape {incoming.shape} into one of shape {total.shape}")
        some = self.here(incoming)
        total.copy_(self.add(total, some))
        return self._clean(some)

    def _clean(self, x: Any) -> bool:
        return not bool((x & self._masks[2]).any())


@fused
def _add(x: Tensor, y: Tensor, low: int, high: int) -> Tensor:
    return ((x & low) + (y & low)) ^ ((x ^ y) & high)


@fused
def _subtract(x: Tensor, y: Tensor, low: int, high: int) -> Tensor:
    return ((x & low | high) - (y & low)) ^ ((x ^ ~y) & high)


def _pack(x: Tensor, bits: int) -> Tensor:
    """Along the last axis."""
    per, count = in_a_word(bits), x.shape[-1]
    padded = torch.nn.functional.pad(x & ((1 << bits) - 1), (0, words(count, bits) * per - count))
    return (padded.reshape(*x.shape[:-1], -1, per) << (torch.arange(per, device=x.device) * bits)).sum(-1)


def _unpack(x: Tensor, bits: int, count: int) -> Tensor:
    """Along the last axis."""
    fields = x[..., None] >> (torch.arange(in_a_word(bits), device=x.device) * bits) & ((1 << bits) - 1)
    return fields.flatten(-2)[..., :count]


@fused
def table(x: Tensor, ignored: int, width: int, highest: bool, bits: int) -> Tensor:
    """See `PrimeField.steps`."""
    full = 1 << width
    digit = (x.flatten()[:, None] >> ignored) & (2 * full - 1 if highest else full - 1)
    places = torch.arange(entries(width, highest), device=x.device)
    found = (places - digit) >> width & 1 if highest else (places < digit).to(torch.int64)
    return _pack(found, bits)


@fused
def weighed(
    x: Tensor, ignored: int, widths: Sequence[int], dealt: Sequence[Tensor], one: int, repeats: int, equal: bool
) -> Tensor:
    """See `PrimeField.weighed_steps`."""
    rest, digits = x.flatten() >> ignored, len(widths)
    total = torch.zeros_like(rest)
    for j, (width, tables) in enumerate(zip(widths, dealt, strict=True)):
        highest = j == digits - 1
        count = entries(width, highest)
        rows = _unpack(tables, entry_bits(digits, j), count).repeat_interleave(repeats, 0)
        own, before = (_found(rows, rest - back, width, highest, count, one, back) for back in (0, 1))
        of_own, of_before, known = parts_of(digits, j, equal)
        total = total + of_own * own + of_before * before + known * one
        rest = rest >> width
    return _pack(total, digits)


def _found(rows: Tensor, at: Tensor, width: int, highest: bool, count: int, one: int, back: int) -> Tensor:
    """What a digit finds, or if ``back`` is 1 the one before it."""
    full = 1 << width
    if highest:
        entry = rows.gather(1, (at & (full - 1))[:, None])[:, 0]
        return torch.where(at & full != 0, one - entry, entry)
    digit = (at + back & (full - 1)) - back
    entry = rows.gather(1, digit.clamp(0, count - 1)[:, None])[:, 0]
    return torch.where(digit < 0, one, torch.where(digit < count, entry, 0))


@fused
def signs(masks: Tensor, digits: int, size: int) -> Tensor:
    """See `PrimeField.small_signs`."""
    places = torch.arange(1 << (digits - 1), device=masks.device)[:, None]
    return _HALF - ((places + _unpack(masks, digits, size)) >> (digits - 1) & 1)


@fused
def sign(opened: Tensor, digits: int, size: int, dealt: Tensor) -> Tensor:
    """See `PrimeField.small_sign`."""
    place, rows = _unpack(opened, digits, size), 1 << (digits - 1)
    found = dealt.reshape(rows, size).gather(0, (place & (rows - 1))[None])[0]
    return turned(place >= rows, found)


@fused
def sign_planes(masks: Tensor, digits: int, size: int) -> Tensor:
    """See `PrimeField.sign_planes`."""
    places = torch.arange(1 << (digits - 1), device=masks.device)[:, None]
    return planes.pack((places + _unpack(masks, digits, size)) >> (digits - 1) & 1 ^ 1)


@fused
def sign_plane(opened: Tensor, digits: int, size: int, dealt: Tensor, one: int) -> Tensor:
    """See `PrimeField.sign_plane`."""
    place, rows = _unpack(opened, digits, size), 1 << (digits - 1)
    bits = planes.unpack(dealt, size).to(torch.int64)
    found = bits.gather(0, (place & (rows - 1))[None])[0]
    return planes.pack(found ^ (place >> (digits - 1) & one & 1))
