"""Masks that are made of what would be dealt: of which products, and what is opened under them."""

from __future__ import annotations

from typing import Any

import pytest

from mpc.cost import cost
from mpc.security import Security


def lenders(secure: Any, *results: Any) -> int:
    return len(secure.program(*results).loans.lenders)


def test_a_product_lends_where_nobody_takes_a_share_of_the_mask(secure: Any) -> None:
    x, y, z = (secure.secret((4,)) for _ in range(3))
    assert lenders(secure, (x * y).sigmoid(interval=(-8, 8))) == 1
    assert lenders(secure, (x * y + z + 1).sign()) == 1
    assert lenders(secure, (x * y - z * x).truncate(8)) == 1
    assert lenders(secure, (x * y) >= 0) == 1


def test_others_do_not(secure: Any) -> None:
    x, y, z = (secure.secret((4,)) for _ in range(3))
    product = x * y
    # Revealed, and what takes a share of a mask.
    assert lenders(secure, product) == 0
    assert lenders(secure, product * z) == 0
    # Used twice.
    assert lenders(secure, product.sigmoid(interval=(-8, 8)), product) == 0
    # Of whose elements several are added, or which is repeated.
    assert lenders(secure, product.sum().sigmoid(interval=(-8, 8))) == 0
    assert lenders(secure, (product + secure.secret((3, 4))).sigmoid(interval=(-8, 8))) == 0


@pytest.mark.parametrize("security", list(Security))
def test_nothing_is_dealt_for_it(secure: Any, security: Security) -> None:
    """With MACs, that of the share in its place alone, and none of the opening's mask."""
    x, y = secure.secret((4,)), secure.secret((4,))
    program = secure.program((x * y).truncate(8))
    macs = security is Security.MALICIOUS
    of_inputs, of_product, of_truncation = (8, 4, 16) if macs else (0, 0, 8)
    dealt = sum(layer.dealt for layer in cost(program, 2, security).layers.values())
    assert dealt == of_inputs + of_product + of_truncation
