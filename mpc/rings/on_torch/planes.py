"""Packed bits on torch's tensors: planes, tables and chains, to the last bit as `mpc.rings.bit_planes` and
`mpc.rings.bit_chains` make them, which say what they are.

Here all of a plane is worked on at once: a device has room, and a loop over pieces would only keep it waiting.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mpc.rings.digits import entries
from mpc.rings.field import P
from mpc.rings.on_torch.fused import fused
from mpc.rings.on_torch.words import Tensor, turned

_HALF = (P + 1) // 2


def pack(bits: Tensor) -> Tensor:
    """Bits (..., n), of 0 and 1, in bytes (..., ceil(n / 8)); the first is the lowest."""
    padded = torch.nn.functional.pad(bits, (0, -bits.shape[-1] % 8)).reshape(*bits.shape[:-1], -1, 8)
    weights = torch.tensor([1 << k for k in range(8)], dtype=torch.uint8, device=bits.device)
    return (padded.to(torch.uint8) * weights).sum(-1, dtype=torch.uint8)


def unpack(planes: Tensor, size: int) -> Tensor:
    """The first bits of planes (..., n), as answers (..., size)."""
    places = torch.arange(8, dtype=torch.uint8, device=planes.device)
    return (planes[..., None] >> places & 1).flatten(-2)[..., :size] != 0


def of_numbers(x: Tensor, first: int, count: int) -> Tensor:
    """So many bits of flat integers from the ``first`` on, as planes; behind the last integer all are 0."""
    places = torch.arange(first, first + count, device=x.device)[:, None]
    return pack(x >> places & 1)


# Tables (mpc.rings.bit_planes) --------------------------------------------------------------------------------


@fused
def table(x: Tensor, ignored: int, widths: Sequence[int]) -> Tensor:
    """See `PrimeField.packed_table`."""
    bits = of_numbers(x, ignored, sum(widths) + 1)
    made: list[Tensor] = []
    place = 0
    for width in widths:
        grown: list[Tensor] = []
        for more in bits[place : place + width]:
            grown = [more | entry for entry in grown] + [more] + [more & entry for entry in grown]
        made += grown
        place += width
    # Of the highest digit: whether its own sign's bit and a borrow differ.
    sign, last = bits[place], (1 << widths[-1]) - 1
    return torch.stack([*made[:-last], *(entry ^ sign for entry in made[-last:]), sign])


def look_up(
    x: Tensor, ignored: int, widths: Sequence[int], dealt: Tensor, one: int, repeats: int, equal: bool
) -> Tensor:
    """See `PrimeField.packed_look_up`."""
    columns = x.reshape(-1, repeats).T
    found = [_look_up(column, ignored, widths, dealt, one, equal) for column in columns]
    if repeats == 1:
        return found[0]
    return pack(torch.stack([unpack(planes, columns.shape[1]) for planes in found], -1).flatten(-2))


@fused
def _look_up(x: Tensor, ignored: int, widths: Sequence[int], dealt: Tensor, one: int, equal: bool) -> Tensor:
    bits, last, unit = of_numbers(x, ignored, sum(widths) + 1), len(widths) - 1, -one % 256
    dealt = dealt.reshape(entries(widths), -1)
    none = torch.zeros_like(dealt[0])
    above, same = [none] * len(widths), [none] * len(widths)
    start = place = 0
    for j, width in enumerate(widths):
        end = start + (1 << width) - 1
        # Behind the last entry of all digits but the highest nothing is above; before the first, all is.
        behind = dealt[end] if j == last else none
        own = torch.cat([dealt[start:end], behind[None]])
        before = torch.cat([(behind ^ unit)[None], dealt[start:end]])
        for bit in bits[place : place + width]:
            own, before = (pairs[::2] ^ bit & (pairs[::2] ^ pairs[1::2]) for pairs in (own, before))
        above[j], same[j] = own[0], own[0] ^ before[0]
        start, place = end, place + width
    if equal:
        above = [same[0], *[none] * last]
    else:
        above[last] = above[last] ^ bits[place] & unit
    return torch.stack([*above, *same[1:]])


# Chains (mpc.rings.bit_chains) --------------------------------------------------------------------------------


def monomials(masks: Tensor) -> Tensor:
    """See `PackedBits.monomials`."""
    digits = (len(masks) + 1) // 2
    made = masks[:1]
    for j in range(1, digits):
        beta = masks[digits - 1 + j]
        made = torch.cat([made, beta[None], made & beta, masks[j : j + 1]])
    return made


@fused
def chain(opened: Tensor, dealt: Tensor | None) -> Tensor:
    """See `PackedBits.chain`."""
    digits = (len(opened) + 1) // 2
    u, v = opened[:digits], opened[digits - 1 :]
    if dealt is None:
        found = u[0]
        for j in range(1, digits):
            found = u[j] ^ v[j] & found
        return found
    # The 1 is not dealt: it is the first of the first block of each length, and 0 stands for it.
    dealt = torch.cat([torch.zeros_like(dealt[:1]), dealt])
    of_one, alpha = _blocks(digits, 1, dealt)
    found = u[0] & of_one ^ alpha
    for j in range(1, digits):
        of_one, alpha = _blocks(digits, j + 1, dealt)
        found = found[::2] & v[j] ^ found[1::2] ^ alpha ^ u[j] & of_one
    return found[0]


def _blocks(digits: int, of: int, dealt: Tensor) -> tuple[Tensor, Tensor]:
    """All L_j of so many digits among those of ``digits``: their first ones, and their last, which are alphas.

    Two of one length, and an alpha, are one of the next, so before a block there is an alpha for each that ended.
    """
    length = 3 * (1 << (of - 1)) - 1
    blocks = torch.arange(1 << (digits - of), device=dealt.device)
    ended = sum((blocks >> k for k in range(1, digits)), torch.zeros_like(blocks))
    starts = blocks * length + ended
    return dealt[starts], dealt[starts + length - 1]


# Numbers (mpc.rings.bit_planes, mpc.rings.weighed_bits) -------------------------------------------------------------


@fused
def kept(bits: Tensor, x: Tensor) -> Tensor:
    """See `PrimeField.kept`."""
    return x * unpack(bits.flatten(), x.numel()).reshape(x.shape)


@fused
def turned_by(bits: Tensor, x: Tensor) -> Tensor:
    """See `PrimeField.turned`."""
    return turned(unpack(bits.flatten(), x.numel()).reshape(x.shape), x)
