"""What a comparison lets through: a masked tensor, or its quotient by a power of two, which takes no opening more.

To let y = D + b through, a comparison needs shares of some products with b.  Without its ``dropped`` lowest bits, y is
u + s_0 or u + s_1, with u public; a public bit says which, and the dealer knows both (``truncation.py``).  So it deals
the products with s_0 and those with s_1 in place of those with b, and shares of both; the bit says which are taken.
What would be a truncation after the comparison, with an opening of its own, is none.

*Its own.*  Where x >= 0 lets x itself through, as in a ReLU, the products with one quotient will do.  Let r = -b, as a
number in [0, p).  For |x| < 2^59, D - r is x; or x - p, which takes D < 2^59, r >= 2^60 and x >= 0; or x + p, for some
x < 0.  Of the last the bit is 0, and a comparison's is so even where it ignores bits of x, as of the second it is 1:
there D or r is nearer to 0 or p than x, and so are the parts of them that are compared (``digits.py``).  So

    bit x / 2^f  =  bit (floor(D / 2^f) - floor(r / 2^f))  +  [D < 2^59] w,

with w = [r >= 2^60] (2^(61-f) + floor(r / 2^f) - floor((r + 1) / 2^f)), what a wrap adds to the quotient, dealt once.

Security: nothing is opened here; what is dealt are fresh and uniform shares, and the choice is public: on MAC shares it
gives shares of the MAC.
Cost: no round; twice the products, or of x itself as many as without, and two elements more for each element of y.
Source: both values of a truncated mask, as for polynomials (``polynomial.py``); the truncation is that of
``truncation.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mpc.correlation import Correlation, Part
from mpc.operation import Value
from mpc.rings import Array, PrimeField, Rings, field_of
from mpc.rings.prime_field import Bits
from mpc.tensor_type import Shape, TensorType
from protocols.operations.truncation import OFFSET, mask_quotient, mask_quotients, opened_quotient


class Passed(NamedTuple):
    """Public part and share of what is let through, flat, and shares of products with what is masked of it: dealt, or
    where a bit is set the second of those that are."""

    public: Array
    share: Array
    dealt: Sequence[Array]
    second: Bits
    wraps: Array | None
    """To be added to what comes of it, whatever the bit is."""

    def products(self, field: PrimeField) -> Array:
        return field.choose(self.second, *self.dealt[::-1]) if len(self.dealt) == 2 else self.dealt[0]

    def wrapped(self, field: PrimeField, share: Array) -> Array:
        return share if self.wraps is None else field.add(share, self.wraps)

    def __repr__(self) -> str:
        return "Passed(...)"


def passed_parts(rows: Shape, size: int, dropped: int, own: bool) -> tuple[Part, ...]:
    """What is dealt where products with tensors of shape ``rows``, (..., size), are needed; ``own``: of x itself."""
    if not dropped:
        return (Part(rows),)
    return (Part(rows), *(() if own else (Part(rows),)), Part((size,)), Part((size,)))


def passed_made(field: PrimeField, rows: Array, mask: Array, dropped: int, own: bool) -> list[Array]:
    """That, in the clear: products of all ``rows`` with the mask, or with its quotients, and these."""
    size = math.prod(mask.shape)
    flat, wraps = field.reshape(mask, (size,)), list[Array]()
    found: Sequence[Array] = (flat,)
    if dropped and own:
        down, wrap = mask_quotient(field, flat, 1 << dropped)
        found, wraps = (field.negate(down),), [wrap]
    elif dropped:
        found = mask_quotients(field, flat, 1 << dropped)
    aligned = [field.reshape(one, (*(1,) * (len(rows.shape) - 1), size)) for one in found]
    return [*(field.multiply(rows, one) for one in aligned), *(found if dropped else ()), *wraps]


def passed(field: PrimeField, y: TensorType, value: Value, dealt: Sequence[Array], dropped: int, own: bool) -> Passed:
    """Of a masked y, opened as ``value``."""
    public = field.or_zeros(value.public, (y.size,))
    if not dropped:
        return Passed(public, field.or_zeros(value.share, (y.size,)), dealt, None, None)
    if own:
        wraps = field.select(field.below(public, OFFSET), dealt[2])
        return Passed(field.quotient(public, 1 << dropped), dealt[1], dealt[:1], None, wraps)
    opened = opened_quotient(field, public, 1 << dropped)
    share = field.choose(opened.below_half, dealt[3], dealt[2])
    return Passed(opened.quotient, share, dealt[:2], opened.below_half, None)


class SaidOfMasks(Correlation, frozen=True):
    """What opened values are looked up in, made of the masks of what is opened, for ``size`` values; if ``gated``, it
    times a third mask besides, of which so many bits are ``dropped``, and which may be that of what is compared, its
    ``own``."""

    size: int
    gated: bool
    dropped: int
    own: bool

    @property
    def operands(self) -> tuple[int, ...]:
        return (1, 2) if self.gated else (1,)

    @property
    def rows(self) -> Shape:
        """Of what is said."""
        return (self.size,)

    def said(self, field: PrimeField, mask: Array) -> Array:
        raise NotImplementedError

    @property
    def parts(self) -> tuple[Part, ...]:
        return (
            Part(self.rows),
            *(passed_parts(self.rows, self.size, self.dropped, self.own) if self.gated else ()),
        )

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        field = field_of(rings)
        said = self.said(field, masks[0])
        through = [passed_made(field, said, mask, self.dropped, self.own) for mask in masks[1:]]
        return (said, *(one for made in through for one in made))
