"""Masking and opening: the one interactive step of the system.

The dealer picks ``a`` uniform in the field, and each party expands its share of ``a`` from its seed.  Each party sends
its share of ``x - a`` to every other; all add up what they hold and receive, and know ``E = x - a``.

Security: ``a`` is uniform, independent of everything else, and masks this one tensor, so ``E`` is uniform whatever
``x`` is: perfect hiding, no statistical slack.  The shares sent, ``x_i - a_i``, are uniform subject to their sum, since
any n-1 of the ``a_i`` are independent and uniform; so what up to n-1 pooled parties see can be simulated from E.

Malicious security: an opening is optimistic.  A wrong share makes E, and with it all that is opened later, wrong by an
error the cheat chose without knowing any secret; each later E has a mask of its own and stays uniform all the same.
Every party's share of alpha E, from the evaluation on MAC shares, shows the error before a result leaves
(``mac_check.py``).

A product may lend the mask that it is opened under: then parties have no share of it (``mpc/loans.py``).

Cost: one round, one element sent to each other party per element of x; nothing dealt but seeds.
Source: Beaver, Efficient Multiparty Protocols Using Circuit Randomization, CRYPTO 1991; one mask per tensor rather than
per product: Mohassel and Zhang, SecureML, IEEE S&P 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mpc.operation import Operation, PartyContext, Value, register, require
from mpc.rings import Array, Rings, field_of
from mpc.tensor_type import Form, TensorType


@register
class Mask(Operation, frozen=True, tag="mask"):
    """Open ``x - a``; from here on the dealer knows the shared part of ``x``."""

    opens: ClassVar[bool] = True
    hides: ClassVar[bool] = True
    borrows: ClassVar[bool] = True
    takes_inner: ClassVar[range] = range(1)

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].form is Form.SHARED, "mask takes one shared tensor")
        return types[0].replace(form=Form.MASKED)

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        return inputs[0]


class OfMask(Operation, frozen=True):
    """What a dealer makes of the mask of each element of x, by its one correlation; it says nothing of x, but to who
    knows what is opened of it."""

    inner: ClassVar[bool] = True

    def takes_share(self, operand: int) -> bool:
        return False

    def evaluate(
        self, party: PartyContext, types: Sequence[TensorType], inputs: Sequence[Value], prepared: Any
    ) -> Value:
        return Value(None, prepared[0])

    def clear(self, rings: Rings, types: Sequence[TensorType], inputs: Sequence[Array]) -> Array:
        """Of the mask 0."""
        (correlation,) = self.correlations(*types)
        return correlation.make(rings, [field_of(rings).zeros(types[0].shape)])[0]
