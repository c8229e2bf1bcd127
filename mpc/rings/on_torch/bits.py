"""Packed bits on torch's tensors: `mpc.rings.bits` for another array library."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mpc.rings.bits import PackedBits
from mpc.rings.on_torch import planes
from mpc.rings.on_torch.layout import TorchRing
from mpc.rings.prg import Seed
from mpc.rings.ring import Buffer, Shape


class TorchBits(TorchRing, PackedBits):
    """uint8 tensors."""

    dtype = torch.uint8
    wire = "u1"

    def full(self, shape: Shape, value: int) -> Any:
        return torch.full(shape, value & 255, dtype=torch.uint8, device=self.device)

    def sample(self, seed: Seed, shape: Shape) -> Any:
        return self.here(seed.raw(prod(shape))).reshape(shape)

    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Any:
        return reduce(torch.bitwise_xor, (self.sample(seed, shape) for seed in seeds), self.zeros(shape))

    def holds(self, array: Any, shape: Shape) -> bool:
        return isinstance(array, torch.Tensor) and array.dtype == torch.uint8 and tuple(array.shape) == shape

    def from_signed(self, values: npt.NDArray[np.int64]) -> Any:
        return self.here(values.astype(np.uint8))

    def to_signed(self, x: Any) -> npt.NDArray[np.int64]:
        return self.buffer(x).astype(np.int64)

    def add(self, x: Any, y: Any) -> Any:
        return x ^ y

    def subtract(self, x: Any, y: Any) -> Any:
        return x ^ y

    def scale(self, x: Any, k: int) -> Any:
        return x if k % 2 else torch.zeros_like(x)

    def multiply(self, x: Any, y: Any) -> Any:
        return x & y

    def total(self, x: Any, axes: Sequence[int] | None = None, keepdims: bool = False) -> Any:
        wanted = sorted({axis % x.dim() for axis in (range(x.dim()) if axes is None else axes)}, reverse=True)
        for axis in wanted:
            while x.shape[axis] > 1:
                # Halves; of an odd number one stays.
                half = x.shape[axis] // 2
                first, second, rest = x.split([half, half, x.shape[axis] - 2 * half], axis)
                x = torch.cat([first ^ second, rest], axis)
            if not x.shape[axis]:
                x = self.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]))
        return x if keepdims else x.reshape([n for axis, n in enumerate(x.shape) if axis not in wanted])

    def accumulate(self, total: Any, incoming: Buffer) -> bool:
        if tuple(total.shape) != incoming.shape or incoming.dtype != np.uint8:
            raise ValueError(f"cannot accumulate an array of shape {incoming.shape} into one of shape {total.shape}")
        total ^= self.here(incoming)
        return True

    def monomials(self, masks: Any) -> Any:
        return planes.monomials(masks)

    def chain(self, opened: Any, dealt: Any) -> Any:
        return planes.chain(opened, dealt)
