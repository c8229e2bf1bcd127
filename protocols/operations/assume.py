"""Values that are taken to lie in a range, of which nothing shows that they do.

It says so in a program, for whoever reads it: what types say from here on holds if this does.  Where a program reads
somebody else's secret, all its results hang on it (``protocols.lowering.intervals``), or no party runs it.

Security: nothing is opened here, and nothing computed: the same public parts and shares.
Cost: none.
"""

from __future__ import annotations

import math

from mpc.errors import RangeError
from mpc.operation import Linear, register, require
from mpc.rings import FIELD, Array, Ring
from mpc.tensor_type import Form, TensorType, exactly


@register
class Assume(Linear, frozen=True, tag="assume"):
    """The same masked values, taken to lie in [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        exactly(self, "low", "high")

    def result(self, *types: TensorType) -> TensorType:
        require(len(types) == 1 and types[0].form is Form.MASKED and types[0].ring == FIELD, "takes a masked tensor")
        (x,) = types
        low, high = max(x.low, self.low), min(x.high, self.high)
        require(math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high, "an interval has ends")
        if not low <= high:
            raise RangeError(f"values in [{x.low:g}, {x.high:g}] cannot lie in [{self.low:g}, {self.high:g}]")
        return x.replace(low=low, high=high, gain=None)

    def apply(self, ring: Ring, *arrays: Array) -> Array:
        return arrays[0]
