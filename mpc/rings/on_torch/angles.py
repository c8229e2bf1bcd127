"""Sines and cosines of angles in integers, on torch's tensors: to the last bit those of `mpc.rings.angles`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch

from mpc.rings.angles import TABLE_BITS, table
from mpc.rings.field import P
from mpc.rings.on_torch.fused import fused
from mpc.rings.on_torch.words import Tensor, add, from_signed, product, rotate
from mpc.rings.prime_field import SINE_BITS, Turn

_REST = 32 - TABLE_BITS


@functools.cache
def _table(device: torch.device) -> Tensor:
    return torch.from_numpy(table().astype("int64")).to(device).reshape(2, -1)


def _multiples(x: Tensor, turn: Turn, terms: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Cosine and sine of once, twice, ... the angle of each element, with `SINE_BITS` fraction bits."""
    inside = product(x.flatten(), turn.multiplier % P) & ((1 << turn.period_bits) - 1)
    down = turn.period_bits - 32
    angles = inside >> down if down >= 0 else inside << -down
    high, rest = _table(x.device)[:, angles >> _REST], ((angles & ((1 << _REST) - 1)) * 1647099) >> 20
    less = (rest * rest) >> 31
    c1 = high[0] - ((high[0] * less + high[1] * rest) >> 30)
    s1 = high[1] + ((high[0] * rest - high[1] * less) >> 30)
    c, s, half = c1, s1, 1 << 29
    for j in range(terms):
        if j:
            c, s = (c * c1 - s * s1 + half) >> 30, (c * s1 + s * c1 + half) >> 30
        yield c, s


@fused
def waves(x: Tensor, turn: Turn, terms: int, bits: int) -> Tensor:
    """See `PrimeField.waves`."""
    drop = SINE_BITS - bits
    half = (1 << drop) >> 1
    made = [from_signed((wave + half) >> drop) for pair in _multiples(x, turn, terms) for wave in pair]
    return torch.stack([*made[::2], *made[1::2]])


@fused
def combine_waves(
    x: Tensor, turn: Turn, cosines: Sequence[int], sines: Sequence[int], shift: int, shared: Tensor
) -> Tensor:
    """See `PrimeField.combine_waves`."""
    terms, half = len(cosines), (1 << shift) >> 1
    dealt = shared.reshape(2 * terms, -1)
    low, high = torch.zeros((2, dealt.shape[1]), dtype=torch.int64, device=x.device)
    for j, (c, s) in enumerate(_multiples(x, turn, terms)):
        of_cosine = (cosines[j] * c + sines[j] * s + half) >> shift
        of_sine = (sines[j] * c - cosines[j] * s + half) >> shift
        # Factors fit 26 bits and halves of a share 31, so that 64 products add up within 63 bits.
        u, v = dealt[j], dealt[terms + j]
        low = low + of_cosine * (u & (2**31 - 1)) + of_sine * (v & (2**31 - 1))
        high = high + of_cosine * (u >> 31) + of_sine * (v >> 31)
    return add(from_signed(low), rotate(from_signed(high), 31)).reshape(x.shape)
