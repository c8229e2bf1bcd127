"""Chains in the field are what their formula says, in Python's integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc.rings import field, field_chains
from mpc.rings.field_chains import Chain

CHAINS = [
    Chain((0,), ()), Chain((0, 1), (2,)), Chain((0, 1, 2), (3, 4)), Chain((2, 0, 3, 1), (4, 6, 5)),
    Chain((4,), (5, 6, 3)), Chain((0, 1, 2, 3, 4, 5), (6, 7, 8, 9, 10)),
]  # fmt: skip


def of(rows: Any, chain: Chain) -> Any:
    """The chain of integers."""
    found = rows[chain.a[0]]
    for j, b in enumerate(chain.b, start=1):
        found = rows[b] * found + (rows[chain.a[j]] if j < len(chain.a) else 0)
    return found % field.P


def products(masks: Any, chain: Chain) -> tuple[list[Any], list[Any]]:
    """Of integers: all monomials but the 1, and those that are no masks."""
    found = [masks[chain.a[0]]]
    for j, b in enumerate(chain.b, start=1):
        found += [masks[b], *(masks[b] * m for m in found), *(masks[a] for a in chain.a[j : j + 1])]
    return found, [m for m, row in zip(found, chain.monomials, strict=True) if row is None]


def elements(rows: Any, size: int) -> Any:
    return np.array([[int(v) % field.P for v in row] for row in rows], np.uint64).reshape(len(rows), size)


@pytest.mark.parametrize("size", [1, field_chains.CHUNK + 3])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_from_shares(chain: Chain, size: int) -> None:
    generator = np.random.default_rng(size)
    values, masks, other = (generator.integers(0, field.P, (11, size), dtype=np.uint64) for _ in range(3))
    values[:, 0], masks[:, 0] = field.P - 1, 1
    opened = field.subtract(values, masks)
    whole, dealt = products(masks.astype(object), chain)
    wanted = of(values.astype(object), chain)
    blind = generator.integers(0, field.P, (len(dealt), size), dtype=np.uint64)
    rest = field.subtract(elements(dealt, size), blind)
    # Twice: chains take what is dealt one after the other.
    twice = [np.concatenate([part, part]) for part in (blind, rest)]
    known = field_chains.known(opened, [chain, chain])
    one, two = (
        field_chains.shared(opened, share, part, [chain, chain])
        for share, part in zip((other, field.subtract(masks, other)), twice, strict=True)
    )
    for k in range(2):
        assert np.array_equal(field.add(known[k], field.add(one[k], two[k])), wanted.astype(np.uint64))
    # All monomials times a factor: the shared part of the chain, times that.
    factor = generator.integers(0, field.P, size, dtype=np.uint64)
    times = field_chains.chain_times(opened, field.multiply(elements(whole, size), factor), chain)
    assert np.array_equal(times[0], field.multiply(field.subtract(wanted.astype(np.uint64), known[0]), factor))
