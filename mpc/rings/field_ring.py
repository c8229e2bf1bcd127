"""The field of p = 2^61 - 1 elements as a `Ring`, on NumPy arrays and compiled kernels (`mpc.rings.field`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mpc.rings import field, matrix
from mpc.rings.prg import Seed, elements_sum
from mpc.rings.ring import Array, Pair, Ring, Shape, as_array, register_ring

FIELD = "field"


class FieldRing(Ring):
    """uint64 arrays of elements in [0, p); on a wire 8 bytes each, little-endian."""

    name: ClassVar[str] = FIELD
    element_bits: ClassVar[int] = 64
    value_bits: ClassVar[int] = 60
    macs: ClassVar[bool] = True

    def zeros(self, shape: Shape) -> Array:
        return field.zeros(shape)

    def sample(self, seed: Seed, shape: Shape) -> Array:
        return seed.elements(shape)

    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Array:
        return elements_sum(seeds, shape)

    def holds(self, array: Array, shape: Shape) -> bool:
        return array.dtype == np.uint64 and array.shape == shape and field.is_reduced(array)

    def from_signed(self, values: npt.NDArray[np.int64]) -> Array:
        return field.from_signed(values)

    def to_signed(self, x: Array) -> npt.NDArray[np.int64]:
        return field.to_signed(x)

    def buffer(self, x: Array) -> Array:
        return np.ascontiguousarray(x).astype("<u8", copy=False)

    def read(self, data: bytes | memoryview, shape: Shape) -> Array:
        if len(data) != self.bytes_of(prod(shape)):
            raise ValueError(f"{len(data)} bytes for an array of shape {shape}")
        return as_array(data).astype(np.uint64, copy=False).reshape(shape)

    def add(self, x: Array, y: Array) -> Array:
        return field.add(x, y)

    def subtract(self, x: Array, y: Array) -> Array:
        return field.subtract(x, y)

    def negate(self, x: Array) -> Array:
        return field.negate(x)

    def scale(self, x: Array, k: int) -> Array:
        return field.scale(x, k)

    def multiply(self, x: Array, y: Array) -> Array:
        return field.multiply(x, y)

    def total(self, x: Array, axes: Sequence[int] | None = None, keepdims: bool = False) -> Array:
        return field.total(x, axes, keepdims)

    def matmul(self, x: Any, y: Any) -> Array:
        return matrix.matmul(x, y)

    def conv2d(self, x: Array, w: Any, stride: Pair, padding: Pair, groups: int) -> Array:
        return matrix.conv2d(x, w, stride, padding, groups)

    def sum_pool2d(self, x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
        return matrix.sum_pool2d(x, kernel, stride, padding)

    def matrix(self, x: Array) -> Any:
        return matrix.Limbs(x) if x.ndim >= 2 else x

    def kernel(self, w: Array, groups: int) -> Any:
        return matrix.ConvKernel(w, groups)

    def accumulate(self, total: Array, incoming: Array) -> bool:
        return field.accumulate(total, incoming)

    def vector(self, shapes: Sequence[Shape]) -> Array:
        return np.empty(sum(map(prod, shapes)), np.uint64)

    def difference(self, x: Array | None, y: Array, out: Array) -> None:
        if x is None:
            field.negate(y, out=out)
        else:
            field.subtract(x, y, out=out)


register_ring(FieldRing())
