"""What an operation needs from a source of randomness: correlations, as typed data.

A *correlation* is a list of tensors that are functions of masks, of which every party is to hold a share, fresh and
uniform.  It says which operands' masks it is made from, the ring and shape of each tensor (its *parts*), and what they
are in the clear.  A source that knows the masks (a trusted dealer) asks for just that, `make`; one that knows them as
little as the parties do goes by the correlation's class and fields, and refuses the classes that it cannot make
(``protocols/randomness/source.py``).

Each class stands in the file of the operation that needs it.  Masks themselves are no correlation: shares of a mask are
independent and uniform, and need nobody to make them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import msgspec

from mpc.rings import FIELD, Array, Rings, ring_called
from mpc.rings.ring import Shape


class Part(NamedTuple):
    """Ring and shape of one tensor that is dealt."""

    shape: Shape
    ring: str = FIELD

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of a share of it, on a wire."""
        ring = ring_called(self.ring)
        return 0 if ring is None else ring.bytes_of(self.size)


class Correlation(msgspec.Struct, frozen=True, gc=False):
    """Base of all.  Its fields, and nothing else, say what it is."""

    @property
    def operands(self) -> tuple[int, ...]:
        """Positions of the operands from whose masks it is made."""
        return (0,)

    @property
    def parts(self) -> tuple[Part, ...]:
        raise NotImplementedError

    def make(self, rings: Rings, masks: Sequence[Array]) -> Sequence[Array]:
        """Its tensors in the clear, from the masks of its ``operands``."""
        raise NotImplementedError
