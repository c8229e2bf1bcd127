"""The field of p = 2^61 - 1 elements on NumPy arrays and compiled kernels (`mpc.rings.field`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.rings import (
    angles,
    bit_planes,
    characters,
    coarse,
    coarse_bits,
    coins,
    convolution,
    digits,
    ends,
    field,
    field_chains,
    matrix,
    places,
    steps,
    weighed_bits,
)
from mpc.rings.characters import Node
from mpc.rings.field_chains import Chain
from mpc.rings.prg import Seed, elements_less, elements_sum
from mpc.rings.prime_field import Bits, P, PrimeField, Turn
from mpc.rings.ring import Array, Buffer, Pair, Shape, WordRing, register_ring


class FieldRing(WordRing, PrimeField):
    """uint64 arrays."""

    def full(self, shape: Shape, value: int) -> Array:
        return np.full(shape, value % P, np.uint64) if shape else np.array(value % P, np.uint64)

    def sample(self, seed: Seed, shape: Shape) -> Array:
        return seed.elements(shape)

    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Array:
        return elements_sum(seeds, shape)

    def sample_less(self, x: Array, seeds: Sequence[Seed], factor: int = 1) -> Array:
        return elements_less(x, seeds, factor)

    def holds(self, array: Array, shape: Shape) -> bool:
        return array.dtype == np.uint64 and array.shape == shape and field.is_reduced(array)

    def from_signed(self, values: npt.NDArray[np.int64]) -> Array:
        return field.from_signed(values)

    def to_signed(self, x: Array) -> npt.NDArray[np.int64]:
        return field.to_signed(x)

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

    def multiply_add(self, x: Array, y: Array, z: Array) -> Array:
        return field.multiply_add(x, y, z)

    def total(self, x: Array, axes: Sequence[int] | None = None, keepdims: bool = False) -> Array:
        return field.total(x, axes, keepdims)

    def matmul(self, x: Any, y: Any) -> Array:
        return matrix.matmul(x, y)

    def conv2d(self, x: Array, w: Any, stride: Pair, padding: Pair, groups: int) -> Array:
        return convolution.conv2d(x, w, stride, padding, groups)

    def sum_pool2d(self, x: Array, kernel: Pair, stride: Pair, padding: Pair) -> Array:
        return convolution.sum_pool2d(x, kernel, stride, padding)

    def matrix(self, x: Array) -> Any:
        return matrix.Limbs(x) if x.ndim >= 2 else x

    def streamed(self, known: Array | None, seed: Seed, shape: Shape) -> Any:
        if len(shape) == 2 and prod(shape) >= matrix.STREAMED:
            return matrix.Streamed(known, seed, shape)
        return super().streamed(known, seed, shape)

    def kernel(self, w: Array, groups: int) -> Any:
        return convolution.ConvKernel(w, groups)

    def settled(self, x: Array) -> Array:
        settled = x
        if x.ndim == 4 and x.size:
            settled = convolution.laid_out(x)
            if x.flags.writeable and x.flags.c_contiguous and not np.may_share_memory(settled, x):
                # Where it was: memory that has been touched is cheaper than other.
                rows = settled.transpose(2, 0, 1, 3)
                memory = x.reshape(rows.shape)
                memory[...] = rows
                settled = memory.transpose(1, 2, 0, 3)
        settled.flags.writeable = False
        return settled

    def dots(self, x: Array, y: Array, z: Array) -> Sequence[Array]:
        return list(field.dots(x, y, z).reshape(2, 1))

    def quotient(self, x: Array, divisor: int) -> Array:
        # Several times as fast as a division.
        power = np.uint64(divisor.bit_length() - 1) if divisor & (divisor - 1) == 0 else None
        return np.asarray(x // np.uint64(divisor) if power is None else x >> power)

    def quotient_signed(self, x: Array, divisor: int) -> Array:
        return field.from_signed(field.to_signed(x) // np.int64(divisor))

    def below(self, x: Array, bound: int) -> Bits:
        return x < np.uint64(bound)

    def select(self, bits: Bits, x: Array) -> Array:
        return field.select(bits, x)

    def halve(self, x: Array, share: Array, sign: Array, product: Array, less: bool) -> Sequence[Array]:
        return field.halve(x, share, sign, product, less)

    def choose(self, bits: Bits, x: Array, y: Array) -> Array:
        return field.choose(bits, x, y)

    def bit(self, x: Array, position: int) -> Bits:
        return x >> np.uint64(position) & np.uint64(1) != 0

    def table(self, x: Array, ignored: int, widths: Sequence[int]) -> Array:
        return digits.table(x, ignored, widths)

    def packed_table(self, x: Array, ignored: int, widths: Sequence[int]) -> Array:
        return bit_planes.table(x, ignored, widths)

    def look_up(
        self, x: Array, ignored: int, widths: Sequence[int], dealt: Array, one: int, repeats: int, equal: bool
    ) -> Array:
        return digits.look_up(x, ignored, widths, dealt, one, repeats, equal)

    def packed_look_up(
        self, x: Array, ignored: int, widths: Sequence[int], dealt: Array, one: int, repeats: int, equal: bool
    ) -> Array:
        return bit_planes.look_up(x, ignored, widths, dealt, one, repeats, equal)

    def known_chains(self, opened: Array, some: Sequence[Chain]) -> Array:
        return field_chains.known(opened, some)

    def shared_chains(self, opened: Array, masks: Array, dealt: Array, some: Sequence[Chain]) -> Array:
        return field_chains.shared(opened, masks, dealt, some)

    def chain_times(self, opened: Array, dealt: Array, chain: Chain) -> Array:
        return field_chains.chain_times(opened, dealt, chain)

    def unpacked(self, bits: Array, size: int) -> Array:
        return bit_planes.unpacked(bits, size)

    def kept(self, bits: Array, x: Array) -> Array:
        return bit_planes.kept(bits, x)

    def turned(self, bits: Array, x: Array) -> Array:
        return bit_planes.turned(bits, x)

    def steps(self, x: Array, ignored: int, width: int, highest: bool, bits: int) -> Array:
        return steps.table(x, ignored, width, highest, bits)

    def weighed_steps(
        self, x: Array, ignored: int, widths: Sequence[int], dealt: Sequence[Array], one: int, repeats: int, equal: bool
    ) -> Array:
        return steps.weighed(x, ignored, widths, dealt, one, repeats, equal)

    def small_signs(self, masks: Array, digits: int, size: int) -> Array:
        return steps.signs(masks, digits, size)

    def small_sign(self, opened: Array, digits: int, size: int, dealt: Array) -> Array:
        return steps.sign(opened, digits, size, dealt)

    def sign_planes(self, masks: Array, digits: int, size: int) -> Array:
        return steps.sign_planes(masks, digits, size)

    def sign_plane(self, opened: Array, digits: int, size: int, dealt: Array, one: int) -> Array:
        return steps.sign_plane(opened, digits, size, dealt, one)

    def scaled_table(self, x: Array, factors: Array, before: Array | None, node: Node) -> Array:
        return characters.table(x, factors, before, node)

    def scaled_sum(self, x: Array, signs: Array | None, node: Node, dealt: Array) -> Array:
        return characters.found(x, signs, node, dealt)

    def half_signs(self, factors: Array) -> Array:
        return characters.half_signs(factors)

    def character(self, x: Array) -> Array:
        return characters.character(x)

    def packed_bits(self, x: Array, count: int) -> Array:
        return weighed_bits.packed(x, count)

    def weighed_bits(self, bits: Array, size: int, weights: Sequence[int]) -> Array:
        return weighed_bits.total(bits, size, weights)

    def turned_total(self, bits: Array, x: Array, weights: Sequence[int]) -> Array:
        return weighed_bits.turned(bits, x, weights)

    def one_hot(self, x: Array, count: int) -> Array:
        return places.one_hot(x, count)

    def differences(self, x: Array, count: int, dealt: Array) -> Array:
        return places.found(x, count, dealt)

    def coarse_table(self, r: Array, s: Array, ignored: int, bits: int) -> Array:
        return coarse.table(r, s, ignored, bits)

    def coarse_sums(self, c: Array, s: Array, dealt: Array, ignored: int, width: int, bits: int, rows: int) -> Array:
        return coarse.sums(c, s, dealt, ignored, width, bits, rows)

    def coarse_bits_table(self, r: Array, ignored: int, bits: int) -> Array:
        return coarse_bits.table(r, ignored, bits)

    def coarse_bits(self, x: Array, at: Sequence[int], ignored: int, bits: int, dealt: Array, one: int) -> Array:
        return coarse_bits.found(x, at, ignored, bits, dealt, one)

    def counted_bits(self, bits: Array, masks: Array, sizes: Sequence[int], rows: int) -> list[Array]:
        return coarse_bits.counted(bits, masks, sizes, rows)

    def ends_left_over(self, x: Array, low: int, width: int, bits: int) -> Array:
        return ends.left_over(x, low, width, bits)

    def ends_sum(self, x: Array, low: int, width: int, bits: int, s: Array, top: Array) -> Array:
        return ends.sums(x, low, width, bits, s, top)

    def weighed_pairs(self, bits: Array, s: Array, dealt: Array) -> Array:
        return ends.weighed(bits, s, dealt)

    def bits(self, x: Array, count: int) -> Array:
        return coins.bits(x, count)

    def low_bits(self, x: Array, count: int) -> Array:
        return x & np.uint64((1 << count) - 1)

    def turned_bits(self, x: Array, count: int, dealt: Array) -> Array:
        return coins.turned(x, count, dealt)

    def waves(self, x: Array, turn: Turn, terms: int, bits: int) -> Array:
        return angles.waves(angles.turns(x, turn), terms, bits)

    def combine_waves(
        self, x: Array, turn: Turn, cosines: Sequence[int], sines: Sequence[int], shift: int, shared: Array
    ) -> Array:
        coefficients = np.array(cosines, np.int32), np.array(sines, np.int32)
        return angles.combine_waves(angles.turns(x, turn), *coefficients, shift, shared).reshape(x.shape)

    def accumulate(self, total: Array, incoming: Buffer) -> bool:
        return field.accumulate(total, incoming)

    def accumulated(self, total: Array, incoming: Buffer) -> Array | None:
        return field.accumulated(total, incoming)

    def vector(self, shapes: Sequence[Shape]) -> Array:
        return np.empty(sum(map(prod, shapes)), np.uint64)

    def difference(self, x: Array | None, y: Array | None, out: Array) -> None:
        if y is None:
            super().difference(x, y, out)
        elif x is None:
            field.negate(y, out=out)
        else:
            field.subtract(x, y, out=out)


register_ring(FieldRing())
