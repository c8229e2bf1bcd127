"""What an algebra must offer for tensors to live in it: a `Ring`, by whose name tensor types call it.

A tensor's type says its ring.  The ring says how many bytes elements take on a wire, how they are drawn from a seed,
added up, opened and checked when they come from elsewhere; whoever computes on a tensor does so through its ring, and
takes the array as it is, looking at nothing but its shape.  So another algebra (packed bits) is one more subclass, and
another array library behind an algebra (a GPU's) is another object of the same name in the `Rings` that a process
hands to the readings of a program.

A ring whose elements cannot carry SPDZ MACs says so (`macs`), and programs with it are refused in malicious security.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mpc.rings.prg import Seed

Array = npt.NDArray[Any]
"""Elements of a ring, opaque to everybody else but for their shape."""

Buffer = npt.NDArray[Any]
"""A tensor as it goes over a wire, in this host's memory: NumPy's, whatever library is behind the ring."""

Shape = tuple[int, ...]
Pair = tuple[int, int]


class Ring(ABC):
    """One algebra on one array library.  Nothing here checks that operands are elements, but for ``holds``."""

    name: ClassVar[str]
    """In tensor types, and so in programs."""
    element_bits: ClassVar[int]
    """Of one element on a wire; the elements of one tensor are packed, and its bytes rounded up."""
    value_bits: ClassVar[int]
    """Signed values below 2^this in size are told apart."""
    macs: ClassVar[bool]
    """Whether a multiple by a secret element authenticates a value."""
    numbers: ClassVar[bool] = True
    """Whether elements stand for numbers, whose sums and products theirs are."""

    def bytes_of(self, elements: int) -> int:
        """Bytes that a tensor of so many elements takes on a wire."""
        return -(-elements * self.element_bits // 8)

    # -- elements --------------------------------------------------------------------------------------------------

    @abstractmethod
    def zeros(self, shape: Shape) -> Array: ...

    @abstractmethod
    def full(self, shape: Shape, value: int) -> Array:
        """The element that stands for this integer, of any sign and size, everywhere."""

    @abstractmethod
    def sample(self, seed: Seed, shape: Shape) -> Array:
        """Uniform elements; a pure function of the seed, which is expanded once."""

    @abstractmethod
    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Array:
        """The sum of what all these seeds expand to."""

    def sample_less(self, x: Array, seeds: Sequence[Seed], factor: int = 1) -> Array:
        """``factor x`` less what all these seeds expand to: what is left for one more share of it."""
        scaled = x if factor == 1 else self.scale(x, factor)
        return self.subtract(scaled, self.sample_sum(seeds, tuple(x.shape)))

    @abstractmethod
    def holds(self, array: Array, shape: Shape) -> bool:
        """Whether this, which came from elsewhere, is an array of elements of that shape."""

    @abstractmethod
    def is_zero(self, x: Array) -> bool:
        """Whether every element is zero."""

    @abstractmethod
    def from_signed(self, values: npt.NDArray[np.int64]) -> Array:
        """The elements that stand for these integers."""

    @abstractmethod
    def to_signed(self, x: Array) -> npt.NDArray[np.int64]:
        """The integers that these elements stand for."""

    # -- wires -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def buffer(self, x: Array) -> Buffer:
        """As it goes over a wire: contiguous, ``bytes_of`` long, without a copy where there need be none."""

    @abstractmethod
    def read(self, data: bytes | memoryview, shape: Shape) -> Array:
        """What ``buffer`` made, without a copy where there need be none; not checked to be elements.

        Raises ValueError for another length.
        """

    # -- arithmetic ------------------------------------------------------------------------------------------------

    @abstractmethod
    def add(self, x: Array, y: Array) -> Array: ...

    @abstractmethod
    def subtract(self, x: Array, y: Array) -> Array: ...

    @abstractmethod
    def negate(self, x: Array) -> Array: ...

    @abstractmethod
    def scale(self, x: Array, k: int) -> Array:
        """``k x`` for a public integer of any sign and size."""

    @abstractmethod
    def multiply(self, x: Array, y: Array) -> Array: ...

    def multiply_add(self, x: Array, y: Array, z: Array) -> Array:
        """``x y + z``."""
        return self.add(self.multiply(x, y), z)

    def inverse(self, k: int) -> int | None:
        """The integer by which to ``scale`` what has been scaled by ``k``, to have it back; None if there is none."""
        return None

    @abstractmethod
    def total(self, x: Array, axes: Sequence[int] | None = None, keepdims: bool = False) -> Array:
        """The sum over these axes, by default all."""

    @abstractmethod
    def matmul(self, x: Any, y: Any) -> Array:
        """As ``numpy.matmul``, of arrays or of what ``matrix`` makes of them."""

    @abstractmethod
    def conv2d(self, x: Array, w: Any, stride: Pair, padding: Pair, groups: int) -> Array:
        """Cross-correlation, by an array or by what ``kernel`` makes of it."""

    @abstractmethod
    def sum_pool2d(self, x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array: ...

    def running_total(self, x: Array, axis: int) -> Array:
        """The sums of the first one, two, ... along an axis."""
        before = (slice(None),) * axis
        reach = 1
        while reach < x.shape[axis]:
            # Each is the sum of the last ``reach`` up to it; with what lies as far before it, of twice as many.
            first = self.index(x, (*before, slice(reach)))
            later = self.add(self.index(x, (*before, slice(reach, None))), self.index(x, (*before, slice(-reach))))
            x, reach = self.concatenate([first, later], axis), 2 * reach
        return x

    def matrix(self, x: Array) -> Any:
        """A matrix in the form in which multiplying by it again and again is cheapest."""
        return x

    def streamed(self, known: Array | None, seed: Seed, shape: Shape) -> Any:
        """Likewise the sum of ``known``, None for zero, and of a seed's ``sample``: one that is large may be expanded
        in each product."""
        sampled = self.sample(seed, shape)
        return self.matrix(sampled if known is None else self.add(known, sampled))

    def kernel(self, w: Array, groups: int) -> Any:
        """A convolution's weights likewise."""
        return w

    def settled(self, x: Array) -> Array:
        """The same tensor, which will be a factor of many products, in the order in memory that they like best.

        It is not to be written to, and ``x`` not to be used any more: its memory may have been taken.
        """
        return x

    # -- layout ----------------------------------------------------------------------------------------------------

    def reshape(self, x: Array, shape: Shape) -> Array:
        return x.reshape(shape)

    def or_zeros(self, x: Array | None, shape: Shape) -> Array:
        """``x`` in that shape, where None stands for zero (``mpc.operation.Value``)."""
        return self.zeros(shape) if x is None else self.reshape(x, shape)

    def transpose(self, x: Array, axes: Shape) -> Array:
        return _contiguous(x.transpose(axes))

    def broadcast(self, x: Array, shape: Shape) -> Array:
        return _contiguous(np.broadcast_to(x, shape))

    def index(self, x: Array, key: tuple[slice, ...]) -> Array:
        return _contiguous(x[key])

    def take(self, x: Array, positions: npt.NDArray[np.int64], axis: int) -> Array:
        """What lies at these positions of an axis."""
        return np.take(x, positions, axis=axis)

    def concatenate(self, xs: Sequence[Array], axis: int) -> Array:
        return np.concatenate(xs, axis=axis)

    def pad(self, x: Array, widths: Sequence[Pair]) -> Array:
        """Zeros around: (before, after) for each axis."""
        padded = self.zeros(tuple(n + sum(pair) for n, pair in zip(x.shape, widths, strict=True)))
        padded[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))] = x
        return padded

    # -- openings --------------------------------------------------------------------------------------------------

    @abstractmethod
    def accumulate(self, total: Array, incoming: Buffer) -> bool:
        """``total += incoming`` in place, both flat, of what came over a wire; False, and rubbish in it, if something
        incoming is no element."""

    def accumulated(self, total: Array, incoming: Buffer) -> Array | None:
        """As ``accumulate``, into an array of its own; None if something incoming is no element."""
        own = self.copy(total)
        return own if self.accumulate(own, incoming) else None

    def copy(self, x: Array) -> Array:
        return x.copy()

    def vector(self, shapes: Sequence[Shape]) -> Array:
        """Room for tensors of these shapes that are opened in one round, one behind the other, each ``bytes_of`` long;
        what it holds is not defined."""
        return self.zeros((sum(map(prod, shapes)),))

    def split(self, vector: Array, shapes: Sequence[Shape]) -> list[Array]:
        """The tensors of these shapes in it: parts of it, not copies."""
        ends = accumulate(map(prod, shapes))
        return [vector[end - prod(s) : end].reshape(s) for s, end in zip(shapes, ends, strict=True)]

    def difference(self, x: Array | None, y: Array | None, out: Array) -> None:
        """``x - y``, None for zero, into a part of a vector."""
        if y is None:
            out[...] = self.or_zeros(x, out.shape)
        else:
            out[...] = self.negate(y) if x is None else self.subtract(x, y)


class WordRing(Ring):
    """Of uint64 arrays, which go over a wire as they are."""

    def zeros(self, shape: Shape) -> Array:
        return np.zeros(shape, np.uint64)

    def is_zero(self, x: Array) -> bool:
        return not x.any()

    def buffer(self, x: Array) -> Buffer:
        return np.asarray(x, order="C").astype("<u8", copy=False)

    def read(self, data: bytes | memoryview, shape: Shape) -> Array:
        if len(data) != self.bytes_of(prod(shape)):
            raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
        return as_array(data).astype(np.uint64, copy=False).reshape(shape)


Rings = Mapping[str, Ring]
"""By name; what stands behind an algebra in this process."""

_REGISTRY: dict[str, Ring] = {}


def register_ring(ring: Ring) -> None:
    """Make an algebra known to programs under its name, with what stands behind it unless a process chooses another."""
    if not ring.name or ring.name in _REGISTRY:
        raise ValueError(f"{type(ring).__name__} needs a name of its own, not {ring.name!r}")
    _REGISTRY[ring.name] = ring


def known_rings() -> Rings:
    """All algebras that programs may use, with their usual implementations."""
    return dict(_REGISTRY)


def ring_called(name: str) -> Ring | None:
    """The algebra of that name, for what is true of it whatever array library is behind it; None for an unknown one."""
    return _REGISTRY.get(name)


def as_array(buffer: memoryview | bytes, dtype: npt.DTypeLike = "<u8") -> Array:
    """Bytes that came over a wire as a flat array, without a copy unless its memory is not aligned.

    Raises ValueError if its length is not a whole number of elements.
    """
    array = np.frombuffer(buffer, dtype=dtype)
    # Kernels are compiled for aligned arrays; frames of a few bytes lie wherever ZeroMQ put them.
    return array if array.flags.aligned else array.copy()


def _contiguous(array: Array) -> Array:
    """Unlike ``numpy.ascontiguousarray``, this leaves a scalar without axes."""
    return np.asarray(array, order="C")
