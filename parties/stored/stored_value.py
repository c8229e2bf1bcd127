"""A stored tensor at a party: w - b, which all parties have, and its share of b, which is made of a seed."""

from __future__ import annotations

from math import prod

from mpc.operation import Value
from mpc.rings import Array, PrimeField
from mpc.rings.prg import Seed
from mpc.tensor_type import Shape

KEPT = 1 << 16
"""Elements of a tensor whose share is kept, at most."""


def stored_value(field: PrimeField, public: Array, shape: Shape, stream: Seed) -> Value:
    """``stream``: that of the share."""
    if prod(shape) > KEPT:
        return Expanded(field, public, shape, stream)
    return Value(public, field.sample(stream, shape))


class Expanded(Value):
    """One whose share is expanded whenever it is asked for, as fast as it could be read twice.

    Products ask once, for the form that they keep, beside which the share would take as much memory again; those by a
    large matrix keep nothing, and expand it each time, row by row.
    """

    __slots__ = ("_field", "_shape", "_stream")

    def __init__(self, field: PrimeField, public: Array, shape: Shape, stream: Seed) -> None:
        super().__init__(public, None)
        self._field, self._shape, self._stream = field, shape, stream
        # What is not there is asked of __getattr__.
        del self.share

    def __getattr__(self, name: str) -> Array:
        if name != "share":
            raise AttributeError(name)
        return self._field.sample(self._stream, self._shape)

    @property
    def stream(self) -> Seed:
        return self._stream

    def __repr__(self) -> str:
        return "<Expanded: public + share>"
