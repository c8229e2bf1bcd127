"""Chains of digits in the field, a_J + b_J (a_(J-1) + b_(J-1) (... + b_2 a_1)), of which a_j = u_j + alpha_j and
b_j = v_j + beta_j are opened but for masks.

A chain is a polynomial in alpha and beta.  Its monomials L_J are in this order: L_1 is 1 and alpha_1; L_(j+1) is L_j,
beta times L_j, and alpha, with the masks of a digit more; without alpha, where that digit has no a.  From shares of
them, read in that order, the chain follows digit by digit,

    e_(j+1)(L_(j+1))  =  v e_j(L_j) + e_j(beta L_j) + u 1 + alpha,

where the share of 1 is left out: what is public stands apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mpc.rings.field import FieldArray
from mpc.rings.kernels import READ, READ_INT, WRITE, flat, fold, inline, kernel, partial_product, reduce_once

CHUNK = 512
"""Numbers at a time: what is known of their chains stays in the first cache."""


class Chain(NamedTuple):
    """Which rows of a tensor it is made of, lowest digit first: an a for each digit, or none but the first; all b's."""

    a: tuple[int, ...]
    b: tuple[int, ...]

    @property
    def monomials(self) -> tuple[int | None, ...]:
        """All but the 1: the row of one that is a mask, None of one that is a product."""
        found: list[int | None] = [self.a[0]]
        for j, b in enumerate(self.b, start=1):
            found += [b, *(None for _ in found), *self.a[j : j + 1]]
        return tuple(found)

    @property
    def products(self) -> int:
        return self.monomials.count(None)


def known(opened: FieldArray, some: Sequence[Chain]) -> FieldArray:
    """See `PrimeField.known_chains`."""
    out = np.empty((len(some), opened.shape[1]), np.uint64)
    for chain, row in zip(some, out, strict=True):
        _known(flat(opened), np.array(chain.a, np.int64), np.array(chain.b, np.int64), row)
    return out


def shared(opened: FieldArray, masks: FieldArray, dealt: FieldArray, some: Sequence[Chain]) -> FieldArray:
    """See `PrimeField.shared_chains`."""
    out, start = np.empty((len(some), opened.shape[1]), np.uint64), 0
    for chain, row in zip(some, out, strict=True):
        a, b, places = np.array(chain.a, np.int64), np.array(chain.b, np.int64), _places(chain, start)
        _shared(flat(opened), flat(masks), flat(dealt), a, b, places, np.empty(_room(chain), np.uint64), row)
        start += chain.products
    return out


def chain_times(opened: FieldArray, dealt: FieldArray, chain: Chain) -> FieldArray:
    """See `PrimeField.chain_times`."""
    a, b = np.array(chain.a, np.int64), np.array(chain.b, np.int64)
    out, places = np.empty((1, opened.shape[1]), np.uint64), _places(chain, 0, own=False)
    _shared(flat(opened), flat(dealt), flat(dealt), a, b, places, np.empty(_room(chain), np.uint64), out[0])
    return out


def _places(chain: Chain, start: int, own: bool = True) -> Any:
    """Of each monomial, the 1 first, its row among the masks, or -1 - its row of what is dealt."""
    found = [0]
    for row in chain.monomials:
        if row is None or not own:
            found.append(-1 - start)
            start += 1
        else:
            found.append(row)
    return np.array(found, np.int64)


def _room(chain: Chain) -> int:
    return CHUNK * (len(chain.b) + 2)


@kernel(READ, READ_INT, READ_INT, WRITE)
def _known(opened: Any, a: Any, b: Any, out: Any) -> None:
    size = out.size
    for first in range(0, size, CHUNK):
        number, to = np.uintp(min(CHUNK, size - first)), np.uintp(first)
        u = np.uintp(a[0] * size + first)
        for i in range(number):
            out[to + i] = opened[u + i]
        for j in range(b.size):
            v = np.uintp(b[j] * size + first)
            if j + 1 < a.size:
                u = np.uintp(a[j + 1] * size + first)
                for i in range(number):
                    found = fold(partial_product(opened[v + i], out[to + i]))
                    out[to + i] = reduce_once(fold(found + opened[u + i]))
            else:
                for i in range(number):
                    out[to + i] = reduce_once(fold(partial_product(opened[v + i], out[to + i])))


@inline
def _weighed(w: Any, at: Any, x: Any, start: Any, out: Any, number: Any) -> None:
    """w x more."""
    for i in range(number):
        found = partial_product(w[np.uintp(at) + i], x[np.uintp(start) + i])
        out[i] = reduce_once(fold(found + out[i]))


@inline
def _added(x: Any, start: Any, out: Any, number: Any) -> None:
    for i in range(number):
        out[i] = reduce_once(out[i] + x[np.uintp(start) + i])


@kernel(READ, READ, READ, READ_INT, READ_INT, READ_INT, WRITE, WRITE)
def _shared(opened: Any, masks: Any, dealt: Any, a: Any, b: Any, places: Any, held: Any, out: Any) -> None:
    """``held``: room for a row of a chunk that is made, and one of each level that waits for its other half."""
    begun, size = np.zeros(b.size + 1, np.int64), out.size
    for first in range(0, size, CHUNK):
        number, place = np.uintp(min(CHUNK, size - first)), 0
        for block in range(1 << b.size):
            begin, level = place, 0
            place += 1
            for i in range(number):
                held[i] = 0
            while True:
                if level < a.size:
                    # The 1 of this block, times u, and an alpha; the very first is none that is dealt.
                    row, one, u = places[place], places[begin], a[level] * size + first
                    place += 1
                    if row < 0:
                        _added(dealt, (-1 - row) * size + first, held, number)
                    else:
                        _added(masks, row * size + first, held, number)
                    if begin and one < 0:
                        _weighed(opened, u, dealt, (-1 - one) * size + first, held, number)
                    elif begin:
                        _weighed(opened, u, masks, one * size + first, held, number)
                if not (block >> level) & 1:
                    break
                _weighed(opened, b[level] * size + first, held, (level + 1) * CHUNK, held, number)
                begin = begun[level]
                level += 1
            # What has as many digits waits for its other half.
            begun[level] = begin
            for i in range(number):
                held[np.uintp((level + 1) * CHUNK) + i] = held[i]
        for i in range(number):
            out[np.uintp(first) + i] = held[i]
