"""Linear operations: local, no communication, nothing dealt.

Security: each party computes on what it holds, and likewise on its MAC shares; nothing is sent.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mpc.errors import RangeError, ShapeError
from mpc.operation import Linear, register, require
from mpc.rings import Array, Ring, ring_called
from mpc.tensor_type import MAX_SIZE, Form, Shape, TensorType, exactly


def _one(types: tuple[TensorType, ...]) -> TensorType:
    require(len(types) == 1, "takes one tensor")
    numbers(types[0])
    # A gain speaks of a weight in its own layout; what is computed from it has none.
    return types[0].replace(gain=None)


def _two_aligned(types: tuple[TensorType, ...]) -> tuple[TensorType, TensorType, Shape, Form]:
    require(len(types) == 2, "takes two tensors")
    x, y = types
    require(x.ring == y.ring, "operands of a sum live in one ring")
    numbers(x)
    require(x.fraction_bits == y.fraction_bits, "operands of a sum need the same fraction bits")
    return x, y, broadcast(x.shape, y.shape), max(x.form, y.form)


def numbers(t: TensorType) -> None:
    """Raise ProgramError for elements that do not stand for numbers, and have no sums or products, or signs."""
    ring = ring_called(t.ring)
    require(ring is None or ring.numbers, f"takes numbers, which {t.ring} are not")


def broadcast(*shapes: Shape) -> Shape:
    """NumPy's broadcast shape; ShapeError names the shapes that do not go together."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"shapes {' and '.join(map(str, shapes))} do not broadcast together") from None


@register
class Add(Linear, frozen=True, tag="add"):
    carries: ClassVar[bool] = True

    def result(self, *types: TensorType) -> TensorType:
        x, y, shape, form = _two_aligned(types)
        return TensorType(shape, x.fraction_bits, x.low + y.low, x.high + y.high, form, ring=x.ring)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.add(*arrays)


@register
class Subtract(Linear, frozen=True, tag="subtract"):
    carries: ClassVar[bool] = True

    def result(self, *types: TensorType) -> TensorType:
        x, y, shape, form = _two_aligned(types)
        return TensorType(shape, x.fraction_bits, x.low - y.high, x.high - y.low, form, ring=x.ring)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.subtract(*arrays)


@register
class Negate(Linear, frozen=True, tag="negate"):
    carries: ClassVar[bool] = True

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        return x.replace(low=-x.high, high=-x.low)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.negate(arrays[0])


@register
class Raise(Linear, frozen=True, tag="raise"):
    """The same values with ``bits`` more fraction bits."""

    carries: ClassVar[bool] = True
    bits: int

    def result(self, *types: TensorType) -> TensorType:
        require(0 < self.bits <= 60, "raises by 1 to 60 bits")
        x = _one(types)
        return x.replace(fraction_bits=x.fraction_bits + self.bits)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.scale(arrays[0], 1 << self.bits)


@register
class Divide(Linear, frozen=True, tag="divide"):
    """Values divided by 2^bits, exactly and for free: the same raw numbers, counted with more fraction bits.

    Below 0, values are multiplied: counted with fewer, of those that there are.
    """

    carries: ClassVar[bool] = True
    bits: int

    def result(self, *types: TensorType) -> TensorType:
        require(0 < abs(self.bits) <= 60, "divides by 2^1 to 2^60, or multiplies by as much")
        x, factor = _one(types), 2.0**-self.bits
        require(x.fraction_bits + self.bits >= 0, "multiplies by 2 for each fraction bit, and no further")
        return x.replace(fraction_bits=x.fraction_bits + self.bits, low=x.low * factor, high=x.high * factor)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return arrays[0]


@register
class Declare(Linear, frozen=True, tag="declare"):
    """The same values, declared by the caller to lie in a tighter range; or to have a ``gain``, as weights have."""

    carries: ClassVar[bool] = True
    low: float
    high: float
    gain: float | None = None

    def __post_init__(self) -> None:
        exactly(self, "low", "high", "gain")

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        low, high = max(x.low, self.low), min(x.high, self.high)
        if not self.low <= self.high or not low <= high:
            raise RangeError(f"values in [{x.low:g}, {x.high:g}] cannot lie in [{self.low:g}, {self.high:g}]")
        if self.gain is None:
            return x.replace(low=low, high=high)
        require(0 <= self.gain < math.inf, "a gain is from 0")
        return x.replace(low=low, high=high, gain=self.gain)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return arrays[0]


@register
class Sum(Linear, frozen=True, tag="sum"):
    axes: tuple[int, ...]
    keepdims: bool

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        require(
            all(0 <= a < len(x.shape) for a in self.axes) and len(set(self.axes)) == len(self.axes), "axes to sum over"
        )
        count = math.prod(x.shape[a] for a in self.axes)
        kept = (1 if a in self.axes else n for a, n in enumerate(x.shape) if self.keepdims or a not in self.axes)
        return x.replace(shape=tuple(kept), low=x.low * count, high=x.high * count)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.total(arrays[0], self.axes, self.keepdims)


@register
class Reshape(Linear, frozen=True, tag="reshape"):
    carries: ClassVar[bool] = True
    shape: Shape

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        require(
            math.prod(self.shape) == x.size and all(n >= 0 for n in self.shape), f"reshapes {x.shape} to {self.shape}"
        )
        return x.replace(shape=self.shape)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.reshape(arrays[0], self.shape)


@register
class Transpose(Linear, frozen=True, tag="transpose"):
    carries: ClassVar[bool] = True
    axes: tuple[int, ...]

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        require(sorted(self.axes) == list(range(len(x.shape))), f"axes {self.axes} of {x.shape}")
        return x.replace(shape=tuple(x.shape[a] for a in self.axes))

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.transpose(arrays[0], self.axes)


@register
class Broadcast(Linear, frozen=True, tag="broadcast"):
    shape: Shape

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        require(broadcast(x.shape, self.shape) == self.shape, f"broadcasts {x.shape} to {self.shape}")
        return x.replace(shape=self.shape)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.broadcast(arrays[0], self.shape)


@register
class Index(Linear, frozen=True, tag="index"):
    """Basic slicing: (start, step, count) for each axis."""

    slices: tuple[tuple[int, int, int], ...]

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        require(len(self.slices) == len(x.shape), "one slice per axis")
        for (start, step, count), n in zip(self.slices, x.shape, strict=True):
            require(step != 0 and count >= 0, "a slice")
            require(count == 0 or (0 <= start < n and 0 <= start + step * (count - 1) < n), "a slice within its axis")
        return x.replace(shape=tuple(count for _, _, count in self.slices))

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.index(arrays[0], tuple(_slice(start, step, count) for start, step, count in self.slices))


def _slice(start: int, step: int, count: int) -> slice:
    if count == 0:
        return slice(0, 0)
    stop = start + step * count
    return slice(start, stop if stop >= 0 else None, step)


@register
class Take(Linear, frozen=True, tag="take"):
    """What lies at public positions of one axis, in any order and number: 4 bytes each, little-endian."""

    axis: int
    positions: bytes

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        require(0 <= self.axis < len(x.shape), f"axis {self.axis} of {x.shape}")
        require(len(self.positions) % 4 == 0, "a whole number of positions")
        positions = self._array()
        require(not positions.size or int(positions.max()) < x.shape[self.axis], "positions within their axis")
        return x.replace(shape=(*x.shape[: self.axis], positions.size, *x.shape[self.axis + 1 :]))

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.take(arrays[0], self._array(), self.axis)

    def _array(self) -> npt.NDArray[np.int64]:
        return np.frombuffer(self.positions, "<u4").astype(np.int64)


@register
class RunningSum(Linear, frozen=True, tag="running_sum"):
    """Sums of the first one, two, ... along an axis."""

    axis: int

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        require(0 <= self.axis < len(x.shape), f"axis {self.axis} of {x.shape}")
        count = x.shape[self.axis]
        return x.replace(low=min(x.low, x.low * count), high=max(x.high, x.high * count))

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.running_total(arrays[0], self.axis)


@register
class Concatenate(Linear, frozen=True, tag="concatenate"):
    axis: int

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) > 0, "concatenates at least one tensor")
        first = types[0]
        require(0 <= self.axis < len(first.shape), f"axis {self.axis} of {first.shape}")
        for t in types:
            require(t.fraction_bits == first.fraction_bits, "tensors to join need the same fraction bits")
            require(t.ring == first.ring, "tensors to join live in one ring")
            rest = [s[: self.axis] + s[self.axis + 1 :] for s in (t.shape, first.shape)]
            if len(t.shape) != len(first.shape) or rest[0] != rest[1]:
                raise ShapeError(f"shapes {first.shape} and {t.shape} do not join along axis {self.axis}")
        length = sum(t.shape[self.axis] for t in types)
        return TensorType(
            (*first.shape[: self.axis], length, *first.shape[self.axis + 1 :]),
            first.fraction_bits,
            min(t.low for t in types),
            max(t.high for t in types),
            max(t.form for t in types),
            ring=first.ring,
        )

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.concatenate(arrays, self.axis)


@register
class Pad(Linear, frozen=True, tag="pad"):
    """Zeros around: (before, after) for each axis."""

    widths: tuple[tuple[int, int], ...]

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        if len(self.widths) != len(x.shape) or any(n < 0 for pair in self.widths for n in pair):
            raise ShapeError(f"padding {self.widths} of a tensor of shape {x.shape}")
        shape = tuple(n + before + after for n, (before, after) in zip(x.shape, self.widths, strict=True))
        return x.replace(shape=shape, low=min(x.low, 0.0), high=max(x.high, 0.0))

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.pad(arrays[0], self.widths)


@register
class SumPool2d(Linear, frozen=True, tag="sum_pool2d"):
    """Sums over windows of (N, C, H, W); an average pool is this and a division by the window's size."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def result(self, *types: TensorType) -> TensorType:
        x = _one(types)
        check_windows(x, self.kernel, self.padding)
        height, width = window_output(x.shape[2:], self.kernel, self.stride, self.padding)
        count = math.prod(self.kernel)
        low, high = (min(x.low, 0.0), max(x.high, 0.0)) if any(self.padding) else (x.low, x.high)
        return x.replace(shape=(*x.shape[:2], height, width), low=low * count, high=high * count)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return ring.sum_pool2d(arrays[0], self.kernel, self.stride, self.padding)


def check_windows(x: TensorType, kernel: tuple[int, int], padding: tuple[int, int]) -> None:
    """Raises ShapeError, or ProgramError, for what cannot be pooled."""
    if len(x.shape) != 4:
        raise ShapeError(f"pooling takes (N, C, H, W), not {x.shape}")
    halves = all(0 <= p <= k // 2 for p, k in zip(padding, kernel, strict=True))
    require(halves, "padding is at most half the window")


def window_output(
    size: Shape, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Height and width of what a sliding window leaves; ShapeError if the window does not fit once."""
    if min(*kernel, *stride) < 1 or min(padding) < 0 or max(*kernel, *stride, *padding) > MAX_SIZE:
        raise ShapeError(f"a window of {kernel}, moved by {stride}, with padding {padding}: at least 1, 1 and 0")
    if any(n + 2 * p < k for n, k, p in zip(size, kernel, padding, strict=True)):
        raise ShapeError(f"a window of {kernel} does not fit an image of {tuple(size)} with padding {padding}")
    height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    return height, width
