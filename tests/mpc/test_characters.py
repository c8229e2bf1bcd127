"""Which numbers are squares, and what a node says of a difference, are what Python's integers say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc.rings import characters, field
from mpc.rings.characters import MOST, RUN, Node
from mpc.rings.field import P
from mpc.rings.prg import Seed

HALF = (P + 1) // 2
NODES = [
    ((3,),),
    ((1, 1),),
    ((2, 3, 2),),
    ((4, 1, 1, 2, 2),),
    ((1, 1, 1, 1, 1),),
    ((3, 1, 1, 1, 2), (1, 1, 2, 3)),
    ((1, 1), (2,), (1, 1)),
    ((2, 1, 1, 1, 1), (1, 1, 1, 1), (3, 2, 1, 4)),
]


def drawn(seed: int, *shape: int) -> Any:
    return Seed(bytes([seed] * 16)).elements(shape)


def squares(numbers: Any) -> list[bool]:
    return [pow(int(x), (P - 1) // 2, P) == 1 for x in numbers]


def test_the_run_is_one() -> None:
    near = range(RUN - 2 ** (MOST - 1), RUN + 2 ** (MOST - 1))
    assert squares(near) == [z < RUN for z in near]
    assert squares([2, P - 1]) == [True, False]


@pytest.mark.parametrize("size", [0, 1, 700])
def test_squares(size: int) -> None:
    x = drawn(1, size)
    x[:1] = 4
    assert np.array_equal(characters.character(x), np.where(squares(x), 1, P - 1).astype(np.uint64))
    assert characters.character(np.zeros(1, np.uint64)).tolist() == [1]


def nodes(widths: tuple[tuple[int, ...], ...], ignored: int, equal: bool) -> list[Node]:
    made = []
    for j, own in enumerate(widths):
        shift = ignored + sum(map(sum, widths[:j]))
        made.append(Node(shift, own, not j, j == len(widths) - 1, equal))
    return made


@pytest.mark.parametrize("widths", NODES)
@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("ignored", [0, 13])
def test_the_sign_of_a_difference(widths: tuple[tuple[int, ...], ...], equal: bool, ignored: int) -> None:
    """From shares of tables, node by node."""
    size, bits, (*_, last) = 300, sum(map(sum, widths)), widths[-1]
    spared = 0 if equal or sum(map(len, widths)) == 1 else 2 ** (bits - last)
    most = 2 ** (bits - 1) - 1 if equal else 2**bits - 1 - spared
    near = [d for d in (-most, -most + 1, -2, -1, 0, 1, 2, most - 1, most) if abs(d) <= most]
    x = np.resize([*near, *np.random.default_rng(bits).integers(-most, most, 200, endpoint=True)], size)
    r = drawn(1, size)
    c = ((r >> np.uint64(ignored)) + (x if equal else x + 2**bits).astype(np.uint64)) << np.uint64(ignored)
    before = signs = None
    for j, node in enumerate(nodes(widths, ignored, equal)):
        assert len(node.widths) <= node.most
        factors = drawn(2 + j, size)
        factors[:2] = 0, 1
        table = characters.table(r, factors, before, node)
        share = drawn(20 + j, *table.shape)
        parts = [characters.found(c, signs, node, one) for one in (share, field.subtract(table, share))]
        u = field.add(*parts)
        assert u.all()
        before, signs = factors, characters.character(u)
    found = field.multiply(signs, characters.half_signs(before))
    assert np.array_equal(found, np.where(x == 0 if equal else x >= 0, HALF, HALF - 1).astype(np.uint64))


def test_a_uniform_factor_hides_what_it_is_multiplied_by() -> None:
    """It is made one to one of it: the square roots of s and of -s, of which one is odd."""
    node = Node(0, (1,), True, True, False)
    factors = np.arange(1, 2000, dtype=np.uint64)
    factors = np.concatenate([factors, P - factors])
    s = characters.table(np.zeros_like(factors), factors, None, node)[:, 0]
    assert len(set(s.tolist())) == len(s)
    assert all(pow(int(f), 2, P) == (int(one) if f % 2 else P - int(one)) for f, one in zip(factors, s, strict=True))
