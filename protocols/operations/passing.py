"""What a comparison lets through: a masked tensor, or its quotient by a power of two, which takes no opening more.

To let y = D + b through, a comparison needs shares of some products with b.  Without its ``dropped`` lowest bits, y is
u + s_0 or u + s_1, with u public; a public bit says which, and the dealer knows both (``truncation.py``).  So it deals
the products with s_0 and those with s_1 in place of those with b, and shares of both; the bit says which are taken.
What would be a truncation after the comparison, with an opening of its own, is none.

Security: nothing is opened here; what is dealt are fresh and uniform shares, and the choice is public: on MAC shares it
gives shares of the MAC.
Cost: no round; twice the products, and two elements more for each element of y.
Source: both values of a truncated mask, as for polynomials (``polynomial.py``); the truncation is that of
``truncation.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mpc.correlation import Part
from mpc.operation import Value
from mpc.rings import Array, PrimeField
from mpc.rings.prime_field import Bits
from mpc.tensor_type import Shape, TensorType
from protocols.operations.truncation import mask_quotients, opened_quotient


class Passed(NamedTuple):
    """Public part and share of what is let through, flat, and shares of products with what is masked of it: dealt, or
    where a bit is set the second of those that are."""

    public: Array
    share: Array
    dealt: Sequence[Array]
    second: Bits

    def products(self, field: PrimeField) -> Array:
        return field.choose(self.second, *self.dealt[::-1]) if len(self.dealt) == 2 else self.dealt[0]

    def __repr__(self) -> str:
        return "Passed(...)"


def passed_parts(rows: Shape, size: int, dropped: int) -> tuple[Part, ...]:
    """What is dealt where products with tensors of shape ``rows``, (..., size), are needed."""
    if not dropped:
        return (Part(rows),)
    return (Part(rows), Part(rows), Part((size,)), Part((size,)))


def passed_made(field: PrimeField, rows: Array, mask: Array, dropped: int) -> list[Array]:
    """That, in the clear: products of all ``rows`` with the mask, or with both quotients, and these."""
    size = math.prod(mask.shape)
    flat = field.reshape(mask, (size,))
    found = mask_quotients(field, flat, 1 << dropped) if dropped else (flat,)
    aligned = [field.reshape(one, (*(1,) * (len(rows.shape) - 1), size)) for one in found]
    return [*(field.multiply(rows, one) for one in aligned), *(found if dropped else ())]


def passed(field: PrimeField, y: TensorType, value: Value, dealt: Sequence[Array], dropped: int) -> Passed:
    """Of a masked y, opened as ``value``."""
    public, own = (field.zeros(y.shape) if part is None else part for part in (value.public, value.share))
    public = field.reshape(public, (y.size,))
    if not dropped:
        return Passed(public, field.reshape(own, (y.size,)), dealt, None)
    opened = opened_quotient(field, public, 1 << dropped)
    share = field.choose(opened.below_half, dealt[3], dealt[2])
    return Passed(opened.quotient, share, dealt[:2], opened.below_half)
