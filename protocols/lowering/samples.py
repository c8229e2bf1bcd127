"""Whether samples go their own ways: what is assumed of one then concerns its own row of the results, and no other.

Found from the nodes of a program alone, so that whoever is asked to run it finds the same.  What does not depend on an
assumption is the same for all samples, whatever its shape: weights, and data that no function with an interval is
applied to.  What an operation that is not known here makes of samples is taken to depend on all of them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from mpc.pace import paced
from mpc.program import Expression, Program
from mpc.tensor_type import Shape
from protocols.operations import fourier, linear, mask, one_hot, polynomial, product, quotient, truncation
from protocols.operations.assume import Assume
from protocols.operations.comparison import Comparison

_EACH = (
    linear.Negate,
    linear.Raise,
    linear.Divide,
    linear.Declare,
    linear.SumPool2d,
    mask.Mask,
    truncation.Truncate,
    quotient.Quotient,
    polynomial.Polynomial,
    polynomial.TruncatedPolynomial,
    fourier.Fourier,
    one_hot.OneHot,
)
"""Of each element of one tensor, or of each image."""


class _Of(enum.IntEnum):
    """What a value depends on."""

    NONE = 0
    """On nothing that is assumed."""
    ROW = 1
    """Each row, along the first axis, on the same row of what is assumed."""
    ALL = 2


def samples(outputs: Sequence[Expression]) -> int:
    """How many rows all outputs have, where each depends on no other row of what is assumed; or else 1."""
    shapes = {y.type.shape[:1] for y in outputs}
    (count,) = shapes.pop() if len(shapes) == 1 and () not in shapes else (1,)
    if count < 2:
        return 1
    found = _followed(outputs, count)
    return count if all(found[y] is _Of.ROW for y in outputs) else 1


def _followed(targets: Iterable[Expression], count: int) -> dict[Expression, _Of]:
    found: dict[Expression, _Of] = {}
    for x in paced(Program.order(targets)):
        # Digits, or waves, are of what is compared, or put in, whose place they do not keep.
        said = isinstance(x.operation, Comparison | fourier.Fourier)
        operands = [y for k, y in enumerate(x.inputs) if not (said and k == 1)]
        most = max((found[y] for y in operands), default=_Of.NONE)
        if isinstance(x.operation, Assume):
            most = max(most, _Of.ROW) if x.type.shape[:1] == (count,) else _Of.ALL
        elif most is _Of.ROW and not _keeps_rows(x, [y.type.shape for y in operands], [found[y] for y in operands]):
            most = _Of.ALL
        found[x] = most
    return found


def _keeps_rows(x: Expression, shapes: Sequence[Shape], of: Sequence[_Of]) -> bool:
    """Whether each row of ``x`` depends on no other row of operands that have one for each sample."""
    operation, shape = x.operation, x.type.shape
    match operation:
        case linear.Sum(axes=axes):
            return 0 not in axes
        case linear.RunningSum(axis=axis) | linear.Take(axis=axis) | linear.Concatenate(axis=axis):
            return axis != 0
        case linear.Reshape():
            return shape[:1] == shapes[0][:1]
        case linear.Transpose(axes=axes):
            return axes[0] == 0
        case linear.Index(slices=slices):
            return slices[0] == (0, 1, shapes[0][0])
        case linear.Pad(widths=widths):
            return widths[0] == (0, 0)
        case product.Conv2d():
            return of[1] is _Of.NONE
        case product.Matmul():
            # Rows of the first are rows of the result; of the second, if it has as many matrices.
            first, second = (len(s) > n and len(s) == len(shape) for s, n in zip(shapes, (1, 2), strict=True))
            return (of[0] is _Of.NONE or first) and (of[1] is _Of.NONE or second)
        case linear.Add() | linear.Subtract() | linear.Broadcast() | product.Multiply() | Comparison():
            same = (len(s) == len(shape) and s[0] == shape[0] for s in shapes)
            return all(one or each is _Of.NONE for one, each in zip(same, of, strict=True))
    return isinstance(operation, _EACH)
