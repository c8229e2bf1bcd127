"""The field of p = 2^61 - 1 elements on torch's tensors: `mpc.rings.field_ring` for another array library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mpc.rings.characters import Node
from mpc.rings.field_chains import Chain
from mpc.rings.on_torch import angles, characters, lookups, planes, products, steps, words
from mpc.rings.on_torch.layout import TorchRing
from mpc.rings.prg import Seed, elements_sum
from mpc.rings.prime_field import Bits, P, PrimeField, Turn
from mpc.rings.ring import Buffer, Pair, Shape


class TorchField(TorchRing, PrimeField):
    """int64 tensors of numbers in [0, p)."""

    dtype = torch.int64
    wire = "<u8"

    def full(self, shape: Shape, value: int) -> Any:
        return torch.full(shape, value % P, dtype=torch.int64, device=self.device)

    def sample(self, seed: Seed, shape: Shape) -> Any:
        return self.here(seed.elements(shape))

    def sample_sum(self, seeds: Sequence[Seed], shape: Shape) -> Any:
        return self.here(elements_sum(seeds, shape))

    def holds(self, array: Any, shape: Shape) -> bool:
        known = isinstance(array, torch.Tensor) and array.dtype == torch.int64 and tuple(array.shape) == shape
        return known and _are_elements(array)

    def from_signed(self, values: npt.NDArray[np.int64]) -> Any:
        return words.from_signed(self.here(values.astype(np.int64, copy=False)))

    def to_signed(self, x: Any) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = words.to_signed(x).cpu().numpy()
        return found

    def add(self, x: Any, y: Any) -> Any:
        return words.add(x, y)

    def subtract(self, x: Any, y: Any) -> Any:
        return words.subtract(x, y)

    def negate(self, x: Any) -> Any:
        return words.negate(x)

    def scale(self, x: Any, k: int) -> Any:
        return words.product(x, k % P)

    def multiply(self, x: Any, y: Any) -> Any:
        return words.product(x, y)

    def total(self, x: Any, axes: Sequence[int] | None = None, keepdims: bool = False) -> Any:
        wanted = {axis % x.dim() for axis in (range(x.dim()) if axes is None else axes)}
        return words.total(x, sorted(wanted), keepdims)

    def matmul(self, x: Any, y: Any) -> Any:
        return products.matmul(x, y)

    def conv2d(self, x: Any, w: Any, stride: Pair, padding: Pair, groups: int) -> Any:
        return products.conv2d(x, w, stride, padding, groups)

    def sum_pool2d(self, x: Any, kernel: Pair, stride: Pair, padding: Pair) -> Any:
        return products.sum_pool2d(x, kernel, stride, padding)

    def matrix(self, x: Any) -> Any:
        return products.Limbs(x) if x.dim() >= 2 else x

    def kernel(self, w: Any, groups: int) -> Any:
        return products.Weights(w, groups)

    def dots(self, x: Any, y: Any, z: Any) -> Sequence[Any]:
        return [words.whole(words.product(x, other)).reshape(1) for other in (y, z)]

    def quotient(self, x: Any, divisor: int) -> Any:
        return x // divisor

    def quotient_signed(self, x: Any, divisor: int) -> Any:
        return words.from_signed(words.to_signed(x) // divisor)

    def below(self, x: Any, bound: int) -> Bits:
        return x < bound

    def select(self, bits: Bits, x: Any) -> Any:
        return bits * x

    def choose(self, bits: Bits, x: Any, y: Any) -> Any:
        return torch.where(bits, x, y)

    def bit(self, x: Any, position: int) -> Bits:
        return x >> position & 1 != 0

    def table(self, x: Any, ignored: int, widths: Sequence[int]) -> Any:
        return lookups.table(x, ignored, widths)

    def packed_table(self, x: Any, ignored: int, widths: Sequence[int]) -> Any:
        return planes.table(x.flatten(), ignored, widths)

    def look_up(
        self, x: Any, ignored: int, widths: Sequence[int], dealt: Any, one: int, repeats: int, equal: bool
    ) -> Any:
        return lookups.look_up(x, ignored, widths, dealt, one, repeats, equal)

    def packed_look_up(
        self, x: Any, ignored: int, widths: Sequence[int], dealt: Any, one: int, repeats: int, equal: bool
    ) -> Any:
        return planes.look_up(x.flatten(), ignored, widths, dealt, one, repeats, equal)

    def known_chains(self, opened: Any, some: Sequence[Chain]) -> Any:
        return lookups.known_chains(opened, some)

    def shared_chains(self, opened: Any, masks: Any, dealt: Any, some: Sequence[Chain]) -> Any:
        return lookups.shared_chains(opened, masks, dealt, some)

    def chain_times(self, opened: Any, dealt: Any, chain: Chain) -> Any:
        return lookups.chain_times(opened, dealt, chain)

    def unpacked(self, bits: Any, size: int) -> Any:
        return planes.unpack(bits, size).to(torch.int64)

    def kept(self, bits: Any, x: Any) -> Any:
        return planes.kept(bits, x)

    def turned(self, bits: Any, x: Any) -> Any:
        return planes.turned_by(bits, x)

    def steps(self, x: Any, ignored: int, width: int, highest: bool, bits: int) -> Any:
        return steps.table(x, ignored, width, highest, bits)

    def weighed_steps(
        self, x: Any, ignored: int, widths: Sequence[int], dealt: Sequence[Any], one: int, repeats: int, equal: bool
    ) -> Any:
        return steps.weighed(x, ignored, widths, dealt, one, repeats, equal)

    def small_signs(self, masks: Any, digits: int, size: int) -> Any:
        return steps.signs(masks, digits, size)

    def small_sign(self, opened: Any, digits: int, size: int, dealt: Any) -> Any:
        return steps.sign(opened, digits, size, dealt)

    def sign_planes(self, masks: Any, digits: int, size: int) -> Any:
        return steps.sign_planes(masks, digits, size)

    def sign_plane(self, opened: Any, digits: int, size: int, dealt: Any, one: int) -> Any:
        return steps.sign_plane(opened, digits, size, dealt, one)

    def scaled_table(self, x: Any, factors: Any, before: Any | None, node: Node) -> Any:
        return characters.table(x, factors, before, node)

    def scaled_sum(self, x: Any, signs: Any | None, node: Node, dealt: Any) -> Any:
        return characters.found(x, signs, node, dealt)

    def half_signs(self, factors: Any) -> Any:
        return characters.half_signs(factors)

    def character(self, x: Any) -> Any:
        return characters.character(x)

    def packed_bits(self, x: Any, count: int) -> Any:
        return planes.of_numbers(x.flatten(), 0, count)

    def weighed_bits(self, bits: Any, size: int, weights: Sequence[int]) -> Any:
        return lookups.weighed_bits(bits, size, weights)

    def turned_total(self, bits: Any, x: Any, weights: Sequence[int]) -> Any:
        return lookups.turned_total(bits, x, weights)

    def one_hot(self, x: Any, count: int) -> Any:
        return lookups.one_hot(x, count)

    def differences(self, x: Any, count: int, dealt: Any) -> Any:
        return lookups.differences(x, count, dealt)

    def coarse_table(self, r: Any, s: Any, ignored: int, bits: int) -> Any:
        return lookups.coarse_table(r, s, ignored, bits)

    def coarse_sums(self, c: Any, s: Any, dealt: Any, ignored: int, width: int, bits: int, rows: int) -> Any:
        return lookups.coarse_sums(c, s, dealt, ignored, width, bits, rows)

    def coarse_bits_table(self, r: Any, ignored: int, bits: int) -> Any:
        return lookups.coarse_bits_table(r, ignored, bits)

    def coarse_bits(self, x: Any, at: Sequence[int], ignored: int, bits: int, dealt: Any, one: int) -> Any:
        return lookups.coarse_bits(x, at, ignored, bits, dealt, one)

    def counted_bits(self, bits: Any, masks: Any, sizes: Sequence[int], rows: int) -> list[Any]:
        return lookups.counted_bits(bits, masks, sizes, rows)

    def ends_left_over(self, x: Any, low: int, width: int, bits: int) -> Any:
        return lookups.ends_left_over(x, low, width, bits)

    def ends_sum(self, x: Any, low: int, width: int, bits: int, s: Any, top: Any) -> Any:
        return lookups.ends_sum(x, low, width, bits, s, top)

    def weighed_pairs(self, bits: Any, s: Any, dealt: Any) -> Any:
        return lookups.weighed_pairs(bits, s, dealt)

    def bits(self, x: Any, count: int) -> Any:
        return lookups.bits_of(x, count)

    def low_bits(self, x: Any, count: int) -> Any:
        return x & ((1 << count) - 1)

    def turned_bits(self, x: Any, count: int, dealt: Any) -> Any:
        return lookups.turned_bits(x, count, dealt)

    def waves(self, x: Any, turn: Turn, terms: int, bits: int) -> Any:
        return angles.waves(x, turn, terms, bits)

    def combine_waves(
        self, x: Any, turn: Turn, cosines: Sequence[int], sines: Sequence[int], shift: int, shared: Any
    ) -> Any:
        return angles.combine_waves(x, turn, cosines, sines, shift, shared)

    def accumulate(self, total: Any, incoming: Buffer) -> bool:
        if tuple(total.shape) != incoming.shape:
            raise ValueError(f"cannot accumulate an array of shape {incoming.shape} into one of shape {total.shape}")
        some = self.here(incoming)
        if not _are_elements(some):
            return False
        total.copy_(words.add(total, some))
        return True


def _are_elements(x: torch.Tensor) -> bool:
    # What is 2^63 or more on the wire is negative here.
    return bool(((x >= 0) & (x < P)).all())
