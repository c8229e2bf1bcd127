"""The sign's bit from packed digits (`mpc.rings.bit_planes`), when these are known but for masks: a_j = u_j + alpha_j,
b_j = v_j + beta_j, of bits under XOR.

It is a polynomial in alpha and beta, with coefficients that follow from u and v.  Its monomials L_J are in this order:
L_1 is 1 and alpha_1; L_(j+1) is L_j, beta times L_j, alpha, with the masks of a digit more.  Of shares of them, in this
order, the bit e_J follows as it would of a mask's own,

    e_(j+1)(L_(j+1))  =  [1 or alpha, as u says]  +  [of e_j(L_j) and e_j(beta L_j) what v says],

where a public bit turns x round, to x + 1, of which the 1 is the public part.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc.rings import threads
from mpc.rings.bit_planes import READ_BYTES, ROW, WRITE_BYTES, Bytes
from mpc.rings.kernels import INT, flat, inline, kernel

_LEAST = threads.LEAST // 4
"""Bytes of a plane, of a piece."""


def monomials(digits: int) -> int:
    """Without the 1."""
    return 3 * (1 << (digits - 1)) - 2


def packed_monomials(masks: Bytes) -> Bytes:
    """See `PackedBits.monomials`."""
    planes, row = masks.shape
    digits = (planes + 1) // 2
    out = np.empty((monomials(digits), row), np.uint8)
    some, to = flat(masks), out.reshape(-1)
    threads.cut(lambda first, last: _packed_monomials(some, row, digits, to, first, last), row, least=_LEAST)
    return out


def chain(opened: Bytes, dealt: Bytes | None) -> Bytes:
    """See `PackedBits.chain`."""
    planes, row = opened.shape
    out, digits, some = np.empty(row, np.uint8), (planes + 1) // 2, flat(opened)
    if dealt is None:
        threads.cut(lambda first, last: _chain_of_known(some, row, digits, out, first, last), row, least=_LEAST)
    else:
        shares = flat(dealt)
        threads.cut(lambda first, last: _chain(some, row, digits, shares, out, first, last), row, least=_LEAST)
    return out


@inline
def _start(block: Any, length: Any) -> Any:
    """Where the ``block``-th of the L_j of this ``length`` begins: two, and an alpha, are one of the next length."""
    start, rest = block * (length + 1), block
    while rest:
        start -= rest & 1
        rest >>= 1
    return start


# Bits are in planes of a ``row`` of bytes.  Places are unsigned, see `mpc.rings.bit_planes`.


@kernel(READ_BYTES, INT, INT, WRITE_BYTES, INT, INT)
def _packed_monomials(masks: Any, row: Any, digits: Any, out: Any, begin: Any, stop: Any) -> None:
    number = np.uintp(stop - begin)
    for k in range(begin, stop):
        out[k] = masks[k]
    count = 1
    for j in range(1, digits):
        a, b = np.uintp(j * row + begin), np.uintp((digits - 1 + j) * row + begin)
        beta, alpha = np.uintp(count * row + begin), np.uintp((2 * count + 1) * row + begin)
        for k in range(number):
            out[beta + k] = masks[b + k]
            out[alpha + k] = masks[a + k]
        for m in range(count):
            of, to = np.uintp(m * row + begin), np.uintp((count + m + 1) * row + begin)
            for k in range(number):
                out[to + k] = out[of + k] & masks[b + k]
        count = 2 * count + 2


@kernel(READ_BYTES, INT, INT, READ_BYTES, WRITE_BYTES, INT, INT)
def _chain(opened: Any, row: Any, digits: Any, dealt: Any, out: Any, begin: Any, stop: Any) -> None:
    held = np.empty(ROW << (digits - 1), np.uint8)
    for first in range(begin, stop, ROW):
        number = np.uintp(min(ROW, stop - first))
        # The 1 is not dealt: each block begins a row earlier than among all monomials, and the first has none.
        for block in range(1 << (digits - 1)):
            u, to, at = np.uintp(first), np.uintp(block * ROW), np.uintp((_start(block, 2) - 1) * row + first)
            alpha = at + np.uintp(row)
            if block:
                for k in range(number):
                    held[to + k] = (opened[u + k] & dealt[at + k]) ^ dealt[alpha + k]
            else:
                for k in range(number):
                    held[k] = dealt[alpha + k]
        length = 2
        for j in range(1, digits):
            u, v = np.uintp(j * row + first), np.uintp((digits - 1 + j) * row + first)
            for block in range(1 << (digits - 1 - j)):
                at = np.uintp((_start(block, 2 * length + 1) - 1) * row + first)
                alpha, to = at + np.uintp(2 * length * row), np.uintp(block * ROW)
                for k in range(number):
                    kept = held[to + to + k] & opened[v + k]
                    held[to + k] = kept ^ held[to + to + np.uintp(ROW) + k] ^ dealt[alpha + k]
                if block:
                    for k in range(number):
                        held[to + k] ^= opened[u + k] & dealt[at + k]
            length = 2 * length + 1
        for k in range(number):
            out[np.uintp(first) + k] = held[k]


@kernel(READ_BYTES, INT, INT, WRITE_BYTES, INT, INT)
def _chain_of_known(opened: Any, row: Any, digits: Any, out: Any, begin: Any, stop: Any) -> None:
    to, number = np.uintp(begin), np.uintp(stop - begin)
    for k in range(number):
        out[to + k] = opened[to + k]
    for j in range(1, digits):
        u, v = np.uintp(j * row + begin), np.uintp((digits - 1 + j) * row + begin)
        for k in range(number):
            out[to + k] = opened[u + k] ^ (opened[v + k] & out[to + k])
