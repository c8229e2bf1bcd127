"""Products whose factors are truncated by the openings that they are multiplied by."""

from __future__ import annotations

from mpc.program import Expression
from mpc.tensor_type import Form
from protocols.lowering.cuts import cut
from protocols.lowering.planner import Planner
from protocols.operations.truncated_product import TruncatedMultiply


def multiplied(planner: Planner, x: Expression, y: Expression) -> Expression | None:
    """The product, where a secret factor has to be truncated for it and comparisons do not do it anyway; else None."""
    if x is y or Form.PUBLIC in (x.type.form, y.type.form):
        return None
    operands, dropped = [], []
    for one, bits in zip((x, y), planner.fitted_bits(x, y), strict=True):
        drop = one.type.fraction_bits - bits
        made = cut(planner, one, drop) if drop and one.type.form is Form.SHARED else None
        operands.append(planner.masked(one if made is None else made))
        dropped.append(drop if made is None else 0)
    return planner.make(TruncatedMultiply((dropped[0], dropped[1])), *operands) if any(dropped) else None
