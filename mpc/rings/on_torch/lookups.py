"""What public numbers find in dealt tables of elements, on torch's tensors: to the last element what the modules of
`mpc.rings` that are named below find, which say what that is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch

from mpc.rings.digits import entries
from mpc.rings.field import P
from mpc.rings.field_chains import Chain
from mpc.rings.on_torch.fused import fused
from mpc.rings.on_torch.planes import pack, unpack
from mpc.rings.on_torch.words import (
    Tensor,
    add,
    product,
    rotate,
    subtract,
    total,
    turned,
    whole,
)  # fmt: skip
from mpc.rings.places import modulus

_TOP = 60


def _upto(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device)


def _entries(tables: Tensor, places: Tensor) -> Tensor:
    """One of each row."""
    return tables.gather(1, places[:, None])[:, 0]


# Digits (mpc.rings.digits) ----------------------------------------------------------------------------------------


@fused
def table(x: Tensor, ignored: int, widths: Sequence[int]) -> Tensor:
    """See `PrimeField.table`."""
    rest = x.flatten()[:, None] >> ignored
    made: list[Tensor] = []
    for width in widths[:-1]:
        last = (1 << width) - 1
        made.append(_upto(last, x) < (rest & last))
        rest = rest >> width
    full = 1 << widths[-1]
    made.append((_upto(full, x) - (rest & (2 * full - 1))) >> widths[-1] & 1)
    return torch.cat([some.to(torch.int64) for some in made], 1)


@fused
def look_up(
    x: Tensor, ignored: int, widths: Sequence[int], dealt: Tensor, one: int, repeats: int, equal: bool
) -> Tensor:
    """See `PrimeField.look_up`."""
    tables = dealt.reshape(-1, entries(widths)).repeat_interleave(repeats, 0)
    rest = x.flatten() >> ignored
    unit = torch.full_like(rest, one % P)
    none = torch.zeros_like(rest)
    above: list[Tensor] = []
    same: list[Tensor] = []
    start = 0
    for width in widths[:-1]:
        count = (1 << width) - 1
        digit = rest & count
        # Where a public digit is the least or the greatest there is no entry: all, or none, are above.
        here = torch.where(digit < count, _entries(tables, start + digit.clamp(max=count - 1)), none)
        before = torch.where(digit > 0, _entries(tables, start + (digit - 1).clamp(min=0)), unit)
        above.append(here)
        same.append(subtract(before, here))
        rest, start = rest >> width, start + count
    own, borrowed = (_of_the_highest(tables[:, start:], digit, widths[-1], unit) for digit in (rest, rest - 1))
    above.append(own)
    same.append(subtract(borrowed, own))
    if equal:
        above = [same[0], *[none] * (len(widths) - 1)]
    return torch.stack([*above, *same[1:]])


def _of_the_highest(tables: Tensor, digit: Tensor, width: int, unit: Tensor) -> Tensor:
    found = _entries(tables, digit & ((1 << width) - 1))
    return torch.where(digit >> width & 1 != 0, subtract(unit, found), found)


# Chains (mpc.rings.field_chains) ------------------------------------------------------------------------------------


def known_chains(opened: Tensor, some: Sequence[Chain]) -> Tensor:
    """See `PrimeField.known_chains`."""
    return torch.stack([_known(opened, chain) for chain in some])


def _known(opened: Tensor, chain: Chain) -> Tensor:
    found = opened[chain.a[0]]
    for j, b in enumerate(chain.b, start=1):
        found = product(opened[b], found)
        if j < len(chain.a):
            found = add(found, opened[chain.a[j]])
    return found


def shared_chains(opened: Tensor, masks: Tensor, dealt: Tensor, some: Sequence[Chain]) -> Tensor:
    """See `PrimeField.shared_chains`."""
    products = iter(dealt.reshape(-1, opened.shape[1]))
    rows = [[next(products) if row is None else masks[row] for row in chain.monomials] for chain in some]
    return torch.stack([_shared(opened, chain, [None, *own]) for chain, own in zip(some, rows, strict=True)])


def chain_times(opened: Tensor, dealt: Tensor, chain: Chain) -> Tensor:
    """See `PrimeField.chain_times`."""
    return _shared(opened, chain, [None, *dealt.reshape(-1, opened.shape[1])])[None]


def _shared(opened: Tensor, chain: Chain, rows: Sequence[Tensor | None]) -> Tensor:
    """Of shares of L_J, the first of which is of 1 where that is dealt, and else None."""
    level = len(chain.b)
    b, digit_more = chain.b[level - 1 : level], level < len(chain.a)
    *rest, last = rows if digit_more else [*rows, None]
    if b:
        half = len(rest) // 2
        of_it, of_beta = (_shared(opened, Chain(chain.a[:level], chain.b[:-1]), x) for x in (rest[:half], rest[half:]))
        found = add(product(opened[b[0]], of_it), of_beta)
    else:
        found = torch.zeros_like(opened[0])
    if last is not None:
        found = add(found, last)
        if rows[0] is not None:
            found = add(found, product(opened[chain.a[level]], rows[0]))
    return found


# Places (mpc.rings.places) --------------------------------------------------------------------------------------


def one_hot(x: Tensor, count: int) -> Tensor:
    """See `PrimeField.one_hot`."""
    size = modulus(count)
    return (_upto(size, x) == (x.flatten() % size)[:, None]).to(torch.int64)


@fused
def differences(x: Tensor, count: int, dealt: Tensor) -> Tensor:
    """See `PrimeField.differences`."""
    size, before = modulus(count), x.flatten()[:, None] - _upto(count, x)
    # Up to x without a wrap, and then with one.
    places = torch.where(before < 0, before + P, before) % size
    return dealt.reshape(-1, size).gather(1, places)


# Spans (mpc.rings.coarse, mpc.rings.coarse_bits) ------------------------------------------------------------------


def coarse_table(r: Tensor, s: Tensor, ignored: int, bits: int) -> Tensor:
    """See `PrimeField.coarse_table`."""
    size, r, s = 1 << bits, r.flatten()[:, None], s.flatten()[:, None]
    below = _upto(size - 1, r) < (r >> ignored & (size - 1))
    return torch.cat([s * below, s * (r >> _TOP)], 1)


@fused
def coarse_sums(c: Tensor, s: Tensor, dealt: Tensor, ignored: int, width: int, bits: int, rows: int) -> Tensor:
    """See `PrimeField.coarse_sums`."""
    size = 1 << bits
    tables, grains = dealt.reshape(-1, size), c.flatten() >> ignored
    moved = grains + size - width
    found = product(s.flatten(), (grains >> bits) + (moved >> bits))
    for place in (grains & (size - 1), moved & (size - 1)):
        # Nothing is above the last.
        above = _entries(tables, place.clamp(max=size - 2))
        found = torch.where(place < size - 1, subtract(found, above), found)
    turn = rotate(tables[:, -1], 62 - ignored - bits)
    found = torch.where(grains < width, add(found, turn), found)
    return total(found.reshape(rows, -1), (1,))


def coarse_bits_table(r: Tensor, ignored: int, bits: int) -> Tensor:
    """See `PrimeField.coarse_bits_table`."""
    size, number = 1 << bits, r.flatten()[:, None] >> ignored
    return pack((_upto(size, r) < (number & (size - 1))) ^ (number & size != 0))


@fused
def coarse_bits(x: Tensor, at: Sequence[int], ignored: int, bits: int, dealt: Tensor, one: int) -> Tensor:
    """See `PrimeField.coarse_bits`."""
    size, c = 1 << bits, x.flatten()
    tables = dealt.reshape(len(c), -1)
    found = torch.zeros_like(c)
    for end in at:
        number = add(c, -end % P) >> ignored
        place = number & (size - 1)
        entry = _entries(tables, place >> 3).to(torch.int64) >> (place & 7)
        found = found ^ entry ^ one & number >> bits
    return pack(found & 1)


def counted_bits(bits: Tensor, masks: Tensor, sizes: Sequence[int], rows: int) -> list[Tensor]:
    """See `PrimeField.counted_bits`."""
    octets, numbers, start = bits.flatten(), masks.flatten(), 0
    known, rest = torch.zeros((2, rows), dtype=torch.int64, device=numbers.device)
    for size in sizes:
        some = unpack(octets[start : start + -(-size // 8)], size).reshape(rows, -1)
        under = numbers[8 * start : 8 * start + size].reshape(rows, -1)
        known, rest = known + some.sum(1), add(rest, total(turned(some, under), (1,)))
        start += -(-size // 8)
    return [known, rest]


# Ends of ranges (mpc.rings.ends) ----------------------------------------------------------------------------------


def _moved(x: Tensor, low: int) -> Tensor:
    return add(x.flatten(), -low % P)


@fused
def ends_left_over(x: Tensor, low: int, width: int, bits: int) -> Tensor:
    """See `PrimeField.ends_left_over`."""
    c, rest = _moved(x, low), (1 << bits) - 1
    lower = c & rest
    return torch.stack([lower, lower + (rest - width) & rest], 1) * 2 + (c >= width)[:, None]


@fused
def ends_sum(x: Tensor, low: int, width: int, bits: int, s: Tensor, top: Tensor) -> Tensor:
    """See `PrimeField.ends_sum`."""
    c, rest = _moved(x, low), (1 << bits) - 1
    above = 2 * (c >> bits) + ((c & rest) + (rest - width) >> bits)
    found = product(s.flatten(), above)
    return whole(torch.where(c < width, add(found, rotate(top.flatten(), _TOP + 2 - bits)), found))


@fused
def weighed_pairs(bits: Tensor, s: Tensor, dealt: Tensor) -> Tensor:
    """See `PrimeField.weighed_pairs`."""
    some, pairs = dealt.flatten(), s.flatten().repeat_interleave(2)
    return whole(torch.where(unpack(bits.flatten(), len(some)), subtract(pairs, some), some))


# Numbers of bits (mpc.rings.weighed_bits, mpc.rings.coins) --------------------------------------------------------


def weighed_bits(bits: Tensor, size: int, weights: Sequence[int]) -> Tensor:
    """See `PrimeField.weighed_bits`."""
    planes = unpack(bits.reshape(len(weights), -1), size)
    return (planes * torch.tensor(weights, device=bits.device)[:, None]).sum(0)


def turned_total(bits: Tensor, x: Tensor, weights: Sequence[int]) -> Tensor:
    """See `PrimeField.turned_total`."""
    rows = x.reshape(len(weights), -1)
    sums = total(turned(unpack(bits.reshape(len(weights), -1), rows.shape[1]), rows), (1,))
    return whole(product(sums, torch.tensor(weights, device=x.device)))


def bits_of(x: Tensor, count: int) -> Tensor:
    """See `PrimeField.bits`."""
    return x.reshape(1, -1) >> _upto(count, x)[:, None] & 1


@fused
def turned_bits(x: Tensor, count: int, dealt: Tensor) -> Tensor:
    """See `PrimeField.turned_bits`."""
    parts = dealt.reshape(count, -1)
    weighed = (turned(x.flatten() >> j & 1 != 0, rotate(parts[j], j)) for j in range(count))
    return reduce(add, weighed, torch.zeros_like(x.flatten())).reshape(x.shape)
