"""Squares, and what public digits find in scaled tables, on torch's tensors: to the last element what
`mpc.rings.characters` finds, which says what that is for.
"""

from __future__ import annotations

import torch

from mpc.rings import characters
from mpc.rings.characters import Node
from mpc.rings.field import P
from mpc.rings.on_torch.fused import fused
from mpc.rings.on_torch.words import Tensor, add, negate, product, rotate, subtract, turned

_HALF = (P + 1) // 2


def _odd(factors: Tensor) -> Tensor:
    return factors.flatten().clamp(min=1) & 1 != 0


def table(r: Tensor, factors: Tensor, before: Tensor | None, node: Node) -> Tensor:
    """See `PrimeField.scaled_table`."""
    some = factors.flatten().clamp(min=1)
    s = turned(~_odd(factors), product(some, some))
    rest, last = r.flatten() >> node.ignored, len(node.widths) - node.highest
    rows = [s[:, None]]
    if before is not None:
        rows.append(turned(_odd(before), s)[:, None])
    j = 0
    while j < last:
        if j == node.borrowing and node.joined:
            rows.append(product(s, rest & ((1 << node.joined) - 1))[:, None])
            rest, j = rest >> node.joined, j + node.joined
            continue
        count = (1 << node.widths[j]) - 1
        below = torch.arange(count, device=r.device) < (rest & count)[:, None]
        rows.append(below * s[:, None])
        rest, j = rest >> node.widths[j], j + 1
    if node.highest:
        full = 1 << node.widths[last]
        bits = (torch.arange(full, device=r.device) - (rest & (2 * full - 1))[:, None]) >> node.widths[last] & 1
        rows.append(bits * s[:, None])
    return torch.cat(rows, 1)


class _Row:
    """Entries of tables, read from left to right."""

    def __init__(self, rows: Tensor, s: Tensor) -> None:
        self._rows, self._s, self._at = rows, s, 1

    def next(self) -> Tensor:
        self._at += 1
        return self._rows[:, self._at - 1]

    def _entry(self, places: Tensor) -> Tensor:
        return self._rows.gather(1, self._at + places[:, None])[:, 0]

    def pair(self, digit: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """What a digit finds, and what the one before it does."""
        above = torch.where(digit < count, self._entry(digit.clamp(max=count - 1)), 0)
        since = torch.where(digit > 0, self._entry((digit - 1).clamp(min=0)), self._s)
        self._at += count
        return above, since

    def highest(self, number: Tensor, width: int) -> Tensor:
        entry = self._entry(number & ((1 << width) - 1))
        return torch.where(number >> width & 1 != 0, subtract(self._s, entry), entry)


@fused
def found(c: Tensor, signs: Tensor | None, node: Node, dealt: Tensor) -> Tensor:
    """See `PrimeField.scaled_sum`."""
    rest, last = c.flatten() >> node.ignored, len(node.widths) - node.highest
    rows = dealt.reshape(len(rest), node.entries)
    s = rows[:, 0]
    row, known = _Row(rows, s), torch.full_like(rest, 2 * characters.RUN % P)
    total, beside = torch.zeros_like(s), torch.zeros_like(s)
    if signs is not None:
        beside = product(signs.flatten(), row.next())
        known = add(known, P - 1)
    if node.borrowing:
        count = (1 << node.widths[0]) - 1
        above, _ = row.pair(rest & count, count)
        total, rest = negate(above), rest >> node.widths[0]
    if node.joined:
        total = subtract(total, row.next())
        known = add(known, 2 * (rest & ((1 << node.joined) - 1)))
        rest = rest >> node.joined
    weight = node.joined
    for width in node.widths[node.borrowing + node.joined : last]:
        count = (1 << width) - 1
        above, since = row.pair(rest & count, count)
        part = subtract(subtract(since, above), s) if node.equal else subtract(subtract(s, above), since)
        total = add(total, part if node.equal else rotate(part, weight))
        rest, weight = rest >> width, weight + 1
    if node.highest:
        own, former = (row.highest(number, node.widths[last]) for number in (rest, rest - 1))
        if node.equal:
            total = add(total, subtract(subtract(former, own), s))
        else:
            part = subtract(add(own, former) if last or not node.lowest else own, s)
            total = add(total, rotate(part, weight))
    return add(add(product(s, known), rotate(total, 1)), beside)


def half_signs(factors: Tensor) -> Tensor:
    """See `PrimeField.half_signs`."""
    return _HALF - _odd(factors).to(torch.int64)


@fused
def character(x: Tensor) -> Tensor:
    """See `PrimeField.character`."""
    some = x.flatten()
    made, ones = some, {1: some}
    for twos, more in ((1, 1), (1, 1), (3, 3), (6, 6), (3, 3), (15, 15), (30, 30)):
        count = max(ones)
        for _ in range(twos):
            made = product(made, made)
        made = product(made, ones[more])
        ones[count + twos] = made
    return made.clamp(min=1)
