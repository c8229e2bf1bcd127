"""Packed bits: an element is eight of them, added by XOR.

What is in which bit is the affair of whoever makes a tensor of them: protocols pack what they open, in planes of a bit
of many numbers (`mpc.rings.bit_planes`), so that a bit takes a bit on the wire.  Elements are no numbers, and nothing
is multiplied: no sum, product or scale of values means here what it means in a field, and operations on numbers refuse
them (`Ring.numbers`).  Bits carry no MACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mpc.errors import UnsupportedError
from mpc.rings import bit_chains
from mpc.rings.prg import Seed
from mpc.rings.ring import Array, Buffer, Pair, Ring, Rings, Shape, as_array, register_ring

BITS = "bits"


class PackedBits(Ring):
    """uint8 arrays, which go over a wire as they are."""

    name: ClassVar[str] = BITS
    element_bits: ClassVar[int] = 8
    value_bits: ClassVar[int] = 8
    macs: ClassVar[bool] = False
    numbers: ClassVar[bool] = False

    def zeros(self, shape: Shape) -> Array:
        return np.zeros(shape, np.uint8)

    def full(self, shape: Shape, value: int) -> Array:
        return np.full(shape, value & 255, np.uint8)

    def sample(self, seed: Seed, shape: Shape) -> Array:
        return seed.raw(prod(shape)).reshape(shape)

    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Array:
        return reduce(np.bitwise_xor, (self.sample(seed, shape) for seed in seeds), self.zeros(shape))

    def holds(self, array: Array, shape: Shape) -> bool:
        return array.dtype == np.uint8 and array.shape == shape

    def is_zero(self, x: Array) -> bool:
        return not x.any()

    def from_signed(self, values: npt.NDArray[np.int64]) -> Array:
        return values.astype(np.uint8)

    def to_signed(self, x: Array) -> npt.NDArray[np.int64]:
        return x.astype(np.int64)

    def buffer(self, x: Array) -> Buffer:
        return np.asarray(x, order="C")

    def read(self, data: bytes | memoryview, shape: Shape) -> Array:
        if len(data) != prod(shape):
            raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
        return as_array(data, np.uint8).reshape(shape)

    def add(self, x: Array, y: Array) -> Array:
        return np.bitwise_xor(x, y)

    def subtract(self, x: Array, y: Array) -> Array:
        return np.bitwise_xor(x, y)

    def negate(self, x: Array) -> Array:
        return x

    def scale(self, x: Array, k: int) -> Array:
        return x if k % 2 else np.zeros_like(x)

    def multiply(self, x: Array, y: Array) -> Array:
        return np.bitwise_and(x, y)

    def total(self, x: Array, axes: Sequence[int] | None = None, keepdims: bool = False) -> Array:
        xor: Any = np.bitwise_xor
        return np.asarray(xor.reduce(x, axis=None if axes is None else tuple(axes), keepdims=keepdims))

    def matmul(self, x: Any, y: Any) -> Array:
        raise UnsupportedError("packed bits are no numbers to multiply")

    def conv2d(self, x: Array, w: Any, stride: Pair, padding: Pair, groups: int) -> Array:
        raise UnsupportedError("packed bits are no numbers to multiply")

    def sum_pool2d(self, x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
        raise UnsupportedError("packed bits are no numbers to add up")

    def accumulate(self, total: Array, incoming: Buffer) -> bool:
        if total.shape != incoming.shape or incoming.dtype != np.uint8:
            raise ValueError(f"cannot accumulate an array of shape {incoming.shape} into one of shape {total.shape}")
        np.bitwise_xor(total, incoming, out=total)
        return True

    # -- chains (mpc.rings.bit_chains) ---------------------------------------------------------------------------------

    def monomials(self, masks: Array) -> Array:
        """Of the masks of digits, a plane each."""
        return bit_chains.packed_monomials(masks)

    def chain(self, opened: Array, dealt: Array | None) -> Array:
        """The part of the signs' bits that shares of ``monomials`` give, or if there are none, the public part."""
        return bit_chains.chain(opened, dealt)


register_ring(PackedBits())


def bits_of(rings: Rings) -> PackedBits:
    """What stands behind packed bits in this process."""
    ring = rings[BITS]
    if not isinstance(ring, PackedBits):
        raise TypeError(f"{type(ring).__name__} is not a ring of packed bits")
    return ring
