"""Small numbers, modulo a power of two, packed in words: an element is 64 bits, of which as many numbers as find room
lie side by side, lowest first.

Words are added field by field, without carries from one to the next (Warren, Hacker's Delight, 2-18).  What is in which
field is the affair of whoever makes a tensor of them (`mpc.rings.steps`).  Elements are no numbers: nothing is
multiplied, and operations on numbers refuse them (`Ring.numbers`).  They carry no MACs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mpc.errors import UnsupportedError
from mpc.rings import threads
from mpc.rings.kernels import READ, WORD, WRITE, flat, kernel
from mpc.rings.prg import Seed, taken
from mpc.rings.ring import Array, Buffer, Pair, Shape, WordRing, register_ring

MOST_BITS = 7
"""Of a number."""


def small(bits: int) -> str:
    """The ring of numbers of so many bits."""
    return f"mod{1 << bits}"


def in_a_word(bits: int) -> int:
    """Numbers of so many bits."""
    return 64 // bits


def words(count: int, bits: int) -> int:
    """That so many numbers take."""
    return -(-count // in_a_word(bits))


class SmallNumbers(WordRing):
    """uint64 arrays; bits that are left over are 0."""

    name: ClassVar[str] = ""
    element_bits: ClassVar[int] = 64
    value_bits: ClassVar[int] = 64
    macs: ClassVar[bool] = False
    numbers: ClassVar[bool] = False

    def __init__(self, bits: int) -> None:
        ones = sum(1 << bits * k for k in range(in_a_word(bits)))
        self.name = small(bits)  # type: ignore[misc]
        self._used, self._high = (np.uint64(ones * k) for k in ((1 << bits) - 1, 1 << (bits - 1)))
        self._low = self._used ^ self._high

    def full(self, shape: Shape, value: int) -> Array:
        return np.full(shape, value & int(self._used), np.uint64)

    def sample(self, seed: Seed, shape: Shape) -> Array:
        return seed.words(prod(shape), self._used).reshape(shape)

    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Array:
        parts = [self.sample(seed, shape) for seed in seeds]
        return reduce(self.add, parts) if parts else self.zeros(shape)

    def sample_less(self, x: Array, seeds: Sequence[Seed], factor: int = 1) -> Array:
        if factor != 1:
            raise UnsupportedError("packed numbers are not multiplied")
        out = np.empty(x.size, np.uint64)

        def take(_: int, source: Array, words: Array, piece: Array) -> None:
            _subtract_some(source, words, self._low, self._high, piece)

        taken(flat(x), seeds, take, out, raw=True)
        return out.reshape(x.shape) if seeds else x

    def holds(self, array: Array, shape: Shape) -> bool:
        return array.dtype == np.uint64 and array.shape == shape and self._clean(array)

    def from_signed(self, values: npt.NDArray[np.int64]) -> Array:
        return values.astype(np.uint64) & self._used

    def to_signed(self, x: Array) -> npt.NDArray[np.int64]:
        return x.astype(np.int64)

    def add(self, x: Array, y: Array) -> Array:
        return self._combined(_add, x, y)

    def subtract(self, x: Array, y: Array) -> Array:
        return self._combined(_subtract, x, y)

    def _combined(self, work: Any, x: Array, y: Array) -> Array:
        out = np.empty(x.shape, np.uint64)
        one, other, to = flat(x), flat(y), out.reshape(-1)

        def some(first: int, last: int) -> None:
            work(one[first:last], other[first:last], self._low, self._high, to[first:last])

        threads.cut(some, to.size)
        return out

    def negate(self, x: Array) -> Array:
        return self.subtract(np.zeros_like(x), x)

    def scale(self, x: Array, k: int) -> Array:
        raise UnsupportedError("packed numbers are not multiplied")

    def multiply(self, x: Array, y: Array) -> Array:
        raise UnsupportedError("packed numbers are not multiplied")

    def total(self, x: Array, axes: Sequence[int] | None = None, keepdims: bool = False) -> Array:
        raise UnsupportedError("packed numbers are not added up")

    def matmul(self, x: Any, y: Any) -> Array:
        raise UnsupportedError("packed numbers are not multiplied")

    def conv2d(self, x: Array, w: Any, stride: Pair, padding: Pair, groups: int) -> Array:
        raise UnsupportedError("packed numbers are not multiplied")

    def sum_pool2d(self, x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
        raise UnsupportedError("packed numbers are not added up")

    def accumulate(self, total: Array, incoming: Buffer) -> bool:
        if total.shape != incoming.shape or incoming.dtype != np.uint64:
            raise ValueError(f"cannot accumulate an array of shape {incoming.shape} into one of shape {total.shape}")
        _add(flat(total), flat(incoming), self._low, self._high, total)
        return self._clean(incoming)

    def _clean(self, x: Array) -> bool:
        """Whether bits that are left over are 0."""
        left = ~self._used
        return not left or not _any(flat(x), left)


@kernel(READ, WORD)
def _any(x: Any, bits: Any) -> Any:
    found = np.uint64(0)
    for i in range(x.size):
        found |= x[i]
    return found & bits != 0


@kernel(READ, READ, WORD, WORD, WRITE)
def _add(x: Any, y: Any, low: Any, high: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = ((x[i] & low) + (y[i] & low)) ^ ((x[i] ^ y[i]) & high)


@kernel(READ, READ, WORD, WORD, WRITE)
def _subtract(x: Any, y: Any, low: Any, high: Any, out: Any) -> None:
    for i in range(out.size):
        out[i] = ((x[i] & low | high) - (y[i] & low)) ^ ((x[i] ^ ~y[i]) & high)


@kernel(READ, READ, WORD, WORD, WRITE)
def _subtract_some(x: Any, y: Any, low: Any, high: Any, out: Any) -> None:
    """Of y what lies in a field, alone."""
    used = low | high
    for i in range(out.size):
        taken = y[i] & used
        out[i] = ((x[i] & low | high) - (taken & low)) ^ ((x[i] ^ ~taken) & high)


for _bits in range(1, MOST_BITS + 1):
    register_ring(SmallNumbers(_bits))
