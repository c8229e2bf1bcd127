"""Values that are taken to lie in a range, of which nothing shows that they do.

It says so in a program, for whoever reads it: what types say from here on holds if this does.  Where a program reads
somebody else's secret, all its results hang on it (``protocols.lowering.intervals``), or no party runs it.

Security: nothing is opened here, and nothing computed: the same public parts and shares.
Cost: none; for that of watching, by ``bits``, see ``astray.py``.
"""

from __future__ import annotations

import math

from mpc.errors import RangeError
from mpc.operation import Linear, register, require
from mpc.rings import FIELD, Array, Ring
from mpc.tensor_type import Form, TensorType, exactly
from protocols.operations.astray import FEWEST, MOST


@register
class Assume(Linear, frozen=True, tag="assume"):
    """The same masked values, taken to lie in [low, high].

    ``bits``: values nearer to an end than about a 2^bits-th of the interval may be taken for outside; 0: only those
    nearer than a thousandth may.
    """

    low: float
    high: float
    bits: int

    def __post_init__(self) -> None:
        exactly(self, "low", "high")

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].form is Form.MASKED and types[0].ring == FIELD, "takes a masked tensor")
        (x,) = types
        low, high = max(x.low, self.low), min(x.high, self.high)
        require(self.bits == 0 or FEWEST <= self.bits <= MOST, f"watches by {FEWEST} to {MOST} bits, or by all")
        require(math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high, "an interval has ends")
        if not low <= high:
            raise RangeError(f"values in [{x.low:g}, {x.high:g}] cannot lie in [{self.low:g}, {self.high:g}]")
        return x.replace(low=low, high=high, gain=None)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return arrays[0]
