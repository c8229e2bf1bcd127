"""What is done to whole planes of bits is what formulas say of one number, in Python's integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.rings import bit_chains, bit_planes, digits, field

WIDTHS = [(1,), (3,), (10,), (2, 3, 1), (1,) * 7, (5,) * 4, (7, 7, 6), (10, 9)]
SIZES = [0, 1, 7, 8, 9, bit_planes.CHUNK - 1, bit_planes.CHUNK, 2 * bit_planes.CHUNK + 9]


def bits_of(planes: Any, size: int) -> Any:
    planes = planes.reshape(1, -1) if planes.ndim == 1 else planes
    return np.unpackbits(planes, axis=1, count=size, bitorder="little")


def drawn(seed: int, *shape: int) -> Any:
    """Elements, the least and the greatest among them."""
    found = np.random.default_rng(seed).integers(0, field.P, shape, dtype=np.uint64)
    found.reshape(-1)[:2] = [0, field.P - 1][: min(found.size, 2)]
    return found


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("ignored", [0, 13])
def test_tables_are_those_of_the_field(widths: tuple[int, ...], ignored: int) -> None:
    for size in SIZES:
        mask, number = drawn(1, size), drawn(2, size)
        table = digits.table(mask, ignored, widths)
        packed = bit_planes.table(mask, ignored, widths)
        assert np.array_equal(bits_of(packed, size).T, table)
        found = digits.look_up(number, ignored, widths, table, 1, 1, False)
        # Shares, and a whole of them; under XOR a difference of bits is 1, whatever its sign.
        share = np.random.default_rng(3).integers(0, 256, packed.shape, dtype=np.uint8)
        one = bit_planes.look_up(number, ignored, widths, packed ^ share, 1, 1, False)
        other = bit_planes.look_up(number, ignored, widths, share, 0, 1, False)
        assert np.array_equal(bits_of(one ^ other, size), found != 0)


@settings(max_examples=60)
@given(st.integers(0, field.P - 1), st.integers(0, field.P - 1), st.sampled_from(WIDTHS), st.integers(0, 9))
def test_a_chain_of_digits_is_the_bit_of_a_difference(r: int, c: int, widths: tuple[int, ...], ignored: int) -> None:
    table = bit_planes.table(np.array([r], np.uint64), ignored, widths)
    found = bit_planes.look_up(np.array([c], np.uint64), ignored, widths, table, 1, 1, False)
    bit = ((c >> ignored) - (r >> ignored)) >> sum(widths) & 1
    assert bit_chains.chain(found, None)[0] & 1 == bit
    # And behind masks.
    masks = np.random.default_rng(r % 97).integers(0, 256, found.shape, dtype=np.uint8)
    opened = found ^ masks
    share = bit_chains.chain(opened, bit_chains.packed_monomials(masks))
    assert (bit_chains.chain(opened, None) ^ share)[0] & 1 == bit


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 9])
def test_chains_are_linear_in_shares(count: int) -> None:
    """Of any number of digits, across chunks, and of shares of all sizes."""
    for size in (1, 9, 257, 8 * bit_planes.ROW + 3):
        generator = np.random.default_rng(size)
        masks, found = generator.integers(0, 256, (2, 2 * count - 1, bit_planes.packed(size)), dtype=np.uint8)
        # Of one digit below the highest, not both: less, and the same.
        found[count : 2 * count - 2] &= ~found[1 : count - 1]
        opened = masks ^ found
        bits = bits_of(found, size)
        bit = bits[0]
        for a, b in zip(bits[1:count], bits[count:], strict=True):
            bit = a ^ b & bit
        dealt = bit_chains.packed_monomials(masks)
        blind = generator.integers(0, 256, dealt.shape, dtype=np.uint8)
        shares = bit_chains.chain(opened, blind) ^ bit_chains.chain(opened, blind ^ dealt)
        assert np.array_equal(bits_of(bit_chains.chain(opened, None) ^ shares, size)[0], bit)


@pytest.mark.parametrize("size", SIZES)
def test_bits_choose_elements(size: int) -> None:
    plane = np.random.default_rng(size).integers(0, 256, bit_planes.packed(size), dtype=np.uint8)
    bit, x = bits_of(plane, size)[0].astype(bool), drawn(size, size)
    assert np.array_equal(bit_planes.unpacked(plane, size), bit)
    assert np.array_equal(bit_planes.kept(plane, x), np.where(bit, x, 0).astype(np.uint64))
    assert np.array_equal(bit_planes.turned(plane, x), np.where(bit, field.negate(x), x))
