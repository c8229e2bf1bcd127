"""The larger and the smaller of secret values, exactly or within one unit of the precision."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from mpc.errors import RangeError, ShapeError
from mpc.tensor_type import TensorType
from protocols.approximation.tails import clipped
from protocols.operations.linear import check_windows, window_output
from protocols.trace import mathematics as m
from protocols.trace.arguments import Pair, numbers, pair
from protocols.trace.comparisons import Comparisons

Sides = tuple[int, int]


class Selection(Comparisons):
    """Base of ``SecretTensor``: methods named as NumPy's functions."""

    __slots__ = ()

    label: str
    node: m.Node
    precision: int | None
    type: TensorType

    def __init__(self, node: m.Node, label: str = "", precision: int | None = None) -> None:
        raise NotImplementedError

    def __neg__(self) -> Self:
        raise NotImplementedError

    def _joined(self, operation: m.Mathematics, *operands: object) -> Self:
        raise NotImplementedError

    def __getitem__(self, key: Any) -> Self:
        raise NotImplementedError

    def expand_dims(self, axis: int) -> Self:
        raise NotImplementedError

    def maximum(self, other: object) -> Self:
        """The larger of each pair, with broadcasting; two rounds."""
        return self._joined(m.Maximum(), self, other)

    def minimum(self, other: object) -> Self:
        """The smaller of each pair, with broadcasting; two rounds."""
        negated = -other if isinstance(other, Selection) else -numbers(other)
        return -(-self).maximum(negated)

    def clip(self, min: object = None, max: object = None) -> Self:
        """Values below ``min`` become it, and those above ``max``: public numbers or arrays; two rounds for both.

        Raises RangeError where ``min`` is above ``max``.
        """
        min, max = (None if _is_no_bound(end) else end for end in (min, max))
        if min is None and max is None:
            return self
        if min is None or max is None or isinstance(min, Selection) or isinstance(max, Selection):
            raised = self if min is None else self.maximum(min)
            return raised if max is None else raised.minimum(max)
        low, high = numbers(min), numbers(max)
        if (low > high).any():
            raise RangeError("clip() takes a min that is not above its max")
        if not low.ndim and not high.ndim and math.isfinite(high - low):
            return self._new(m.Apply(clipped(float(low), float(high)), 0.0))
        ends = np.stack(np.broadcast_arrays(low, high), -1)
        if self.type.low < low.max() and self.type.high > high.min():
            # By the same tables.
            both = (self.expand_dims(-1) - ends).relu()
            below, above = both[..., 0], both[..., 1]
        else:
            below, above = (self - low).relu(), (self - high).relu()
        # Each may be off by what its type says that it can be below 0.
        off = sum(t for t in (below.type.low, above.type.low) if t < 0)
        return (below - above + low)._new(m.Declare(float(low.min()) + off, float(high.max()) - off))

    def __abs__(self) -> Self:
        above = self.relu()
        # Nothing but 0 <= x, or x < 0, that relu takes for the other is negative here, and no lower than there.
        sizes = m.Declare(min(above.type.low, 0.0), self.type.magnitude)
        return (above * 2 - self)._new(sizes) if self.type.low < 0 else self

    def max_pool2d(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Self:
        """Maxima over windows of (N, C, H, W); padding counts for nothing.  Two rounds for each doubling of a side.

        What was made by `relu` is pooled before: the maximum of what is let through is what is let through of the
        maximum, and there is less of it.
        """
        kernel = pair(kernel_size)
        if min(kernel) < 1:
            raise ShapeError(f"a pooling window of {kernel}")
        steps = kernel if stride is None else pair(stride)
        relu = self.node
        if not isinstance(relu.operation, m.Relu):
            pooled: Self = _pooled(self, kernel, steps, pair(padding))
            return pooled
        inner = type(self)(relu.inputs[0], self.label, self.precision)
        first = _pooled(inner, kernel, steps, pair(padding)).node
        return type(self)(m.Node(m.Relu(), (first,), relu.label, relu.precision), self.label, self.precision)


def _pooled(x: Any, kernel: Sides, stride: Sides, padding: Sides) -> Any:
    """Maxima of columns, then of rows of them: windows that overlap share columns."""
    check_windows(x.type, kernel, padding)
    size = window_output(x.shape[2:], kernel, stride, padding)
    # Zeros around lose against everything, once nothing is below them: each window has something of the image.
    unit = 2.0**-x.type.fraction_bits
    lowest = min(0.0, math.floor(x.type.low / unit) * unit) if any(padding) else 0.0
    if lowest:
        x = x - lowest
    if any(padding):
        x = x.pad(((0, 0), (0, 0), *((n, n) for n in padding)))
    for axis, wide, step, count in zip((2, 3), kernel, stride, size, strict=True):
        x = _largest([_strided(x, axis, start, step, count) for start in range(wide)])
    return x + lowest if lowest else x


def _strided(x: Any, axis: int, start: int, step: int, count: int) -> Any:
    """Every ``step``-th along an axis, ``count`` of them."""
    slices = [(0, 1, n) for n in x.shape]
    slices[axis] = (start, step, count)
    return x._new(m.Index(tuple(slices)))


def _largest(xs: list[Any]) -> Any:
    """Of tensors of one shape, elementwise: two rounds for each level of the tournament."""
    while len(xs) > 1:
        odd = xs[len(xs) // 2 * 2 :]
        xs = [x.maximum(y) for x, y in zip(xs[::2], xs[1::2], strict=False)] + odd
    return xs[0]


def _is_no_bound(end: object) -> bool:
    """None, or infinite."""
    return end is None or (isinstance(end, float) and math.isinf(end))
