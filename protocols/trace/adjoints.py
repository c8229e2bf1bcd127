"""Adjoints of linear maps: where a gradient goes that comes back through a product, a sum, a window or a choice.

Gradients are secret tensors or, as long as they depend on no secret, public arrays: both have the same methods here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpc.tensor_type import Shape
from protocols.trace import mathematics as m
from protocols.trace.secret_tensor import SecretTensor

MOST_TAKES = 4
"""Times that a position is chosen, up to which its gradients are added up one after the other; of more, by a product
with a public matrix of 0 and 1."""


def summed_to(g: Any, shape: Shape) -> Any:
    """``g`` of a tensor of this shape that was broadcast."""
    if g.shape == shape:
        return g
    if math.prod(g.shape) < math.prod(shape) or len(g.shape) < len(shape):
        g = _broadcast(g, np.broadcast_shapes(g.shape, shape))
    more = len(g.shape) - len(shape)
    axes = tuple(a for a, n in enumerate(g.shape) if a < more or (shape[a - more] == 1 and n != 1))
    return (g.sum(axes) if axes else g).reshape(shape)


def product(g: Any, x: Any, *, by_slope: bool = False, within: float | None = None) -> Any:
    """Elementwise; of two secrets, what has to be truncated is so at once.  ``by_slope``: as in `m.Multiply`;
    ``within``: how large it is at most, by promise."""
    if isinstance(g, SecretTensor) and isinstance(x, SecretTensor):
        if within is not None and _most(g) * _most(x) > within:
            return g._joined(m.Multiply(within=within), g, x)
        return g._joined(m.Multiply(at_once=True, by_slope=by_slope), g, x)
    return g * x


def _most(x: SecretTensor) -> float:
    return max(abs(x.type.low), abs(x.type.high))


def spread(g: Any, axes: Sequence[int], shape: Shape) -> Any:
    """Of a sum over ``axes`` of a tensor of this shape."""
    kept = tuple(1 if a in axes else n for a, n in enumerate(shape))
    return _broadcast(g.reshape(kept), shape)


def _broadcast(g: Any, shape: Shape) -> Any:
    if g.shape == shape:
        return g
    return g.broadcast_to(shape) if isinstance(g, SecretTensor) else np.broadcast_to(g, shape)


def reversed_along(g: Any, axis: int) -> Any:
    """In the reverse order along one axis."""
    return g[(slice(None),) * axis + (slice(None, None, -1),)]


def running_sum(g: Any, axis: int) -> Any:
    """Of sums of the first one, two, ...: those of the last."""
    return reversed_along(np.cumsum(reversed_along(g, axis), axis), axis)


def pad(operation: m.Pad, g: Any, shape: Shape) -> Any:
    """Without what was put around."""
    return g[tuple(slice(before, before + n) for (before, _), n in zip(operation.widths, shape, strict=True))]


def matmul(i: int, g: Any, x: Any, y: Any, within: float | None = None) -> Any:
    """Of ``x @ y``, with respect to the one or the other, which is promised to be no larger than ``within``."""
    rows, columns = x.ndim > 1, y.ndim > 1
    x = x if rows else x.reshape((1, -1))
    y = y if columns else y.reshape((-1, 1))
    g = g.reshape((*g.shape[: g.ndim - rows - columns], x.shape[-2], y.shape[-1]))
    if i == 0:
        found = _multiplied(g, _transposed(y), within)
        return found if rows else summed_to(found, x.shape).reshape(-1)
    if y.ndim == 2:
        # One product over all of a batch, whose results are not dealt for each.
        g = _broadcast(g, (*x.shape[:-1], g.shape[-1])).reshape((-1, g.shape[-1]))
        found = _multiplied(_transposed(x.reshape((-1, x.shape[-1]))), g, within)
    else:
        found = _transposed(x) @ g
    return found if columns else summed_to(found, y.shape).reshape(-1)


def _multiplied(x: Any, y: Any, within: float | None) -> Any:
    either = x if isinstance(x, SecretTensor) else y
    return either._joined(m.Matmul(within), x, y) if isinstance(either, SecretTensor) else x @ y


def _transposed(x: Any) -> Any:
    return x.transpose([*range(x.ndim - 2), x.ndim - 1, x.ndim - 2])


def conv2d(operation: m.Conv2d, i: int, g: Any, x: Any, w: Any, within: float | None = None) -> Any:
    """Of a convolution, with respect to the image or to the weights: convolutions with what its windows step over."""
    groups = operation.groups
    g = g if isinstance(g, SecretTensor) or not isinstance(x if i else w, np.ndarray) else _secret(g, x, w)
    wide, kernel, padding = _stepped(g, operation.stride), w.shape[2:], operation.padding
    if i == 0:
        # The transposed one: the kernel upside down, in and out exchanged.
        turned = w.reshape((groups, -1, *w.shape[1:])).transpose([0, 2, 1, 3, 4])[..., ::-1, ::-1]
        turned = turned.reshape((x.shape[1], -1, *kernel))
        return _convolved(_around(wide, _sides(kernel, padding, x.shape, wide.shape)), turned, groups)
    batch, channels = x.shape[:2]
    images = x.reshape((batch, groups, channels // groups, *x.shape[2:])).transpose([2, 1, 0, 3, 4])
    images = images.reshape((channels // groups, groups * batch, *x.shape[2:]))
    found = _convolved(images, wide.transpose([1, 0, 2, 3]), groups, padding, within)
    return found[:, :, : kernel[0], : kernel[1]].transpose([1, 0, 2, 3])


def _convolved(x: Any, w: Any, groups: int, padding: tuple[int, int] = (0, 0), within: float | None = None) -> Any:
    convolution = m.Conv2d((1, 1), padding, groups, within)
    either: SecretTensor = x if isinstance(x, SecretTensor) else w
    return either._joined(convolution, x, w)


def _secret(g: Any, *operands: Any) -> Any:
    """``g`` as a secret, since nothing else in a product is one."""
    one = next(x for x in operands if isinstance(x, SecretTensor))
    return one.reshape(-1)[:1].reshape((1,) * g.ndim) * 0.0 + g


def average_pool2d(operation: m.AveragePool2d, g: Any, x: Any) -> Any:
    """Of means over windows: each gets its part."""
    kernel, stride, padding = operation.kernel, operation.stride, operation.padding
    size = math.prod(kernel)
    if kernel == stride and not any(padding):
        # Windows that do not overlap: repeated.
        n, c, h, w = g.shape
        part = (g / size).reshape((n, c, h, 1, w, 1))
        part = _broadcast(part, (n, c, h, kernel[0], w, kernel[1])).reshape((n, c, h * kernel[0], w * kernel[1]))
        return _around(part, [(0, n - k) for n, k in zip(x.shape[2:], part.shape[2:], strict=True)])
    g = g if isinstance(g, SecretTensor) else _secret(g, x)
    wide = _stepped(g, stride)
    return _around(wide, _sides(kernel, padding, x.shape, wide.shape)).avg_pool2d(kernel, 1)


def _sides(kernel: Shape, padding: Sequence[int], image: Shape, wide: Shape) -> list[tuple[int, int]]:
    """Zeros around what is ``wide``, so that a window for each pixel of the image sees what the pixel went into."""
    return [(k - 1 - p, n - h + p) for k, p, n, h in zip(kernel, padding, image[2:], wide[2:], strict=True)]


def _stepped(g: Any, steps: Sequence[int]) -> Any:
    """With zeros between neighbours of the last axes: so many steps from one to the next."""
    for axis, step in zip(range(g.ndim - len(steps), g.ndim), steps, strict=True):
        if step == 1 or g.shape[axis] <= 1:
            continue
        shape = g.shape
        apart = np.pad(
            g.reshape((*shape[: axis + 1], 1, *shape[axis + 1 :])), _along(g.ndim + 1, axis + 1, (0, step - 1))
        )
        apart = apart.reshape((*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))
        g = apart[(slice(None),) * axis + (slice(None, 1 - step),)]
    return g


def _along(ndim: int, axis: int, widths: tuple[int, int]) -> list[tuple[int, int]]:
    return [widths if a == axis else (0, 0) for a in range(ndim)]


def _around(g: Any, widths: Sequence[tuple[int, int]]) -> Any:
    """With zeros around the last axes, or without what is beyond, where there are fewer than none."""
    rest = [(0, 0)] * (g.ndim - len(widths))
    added = [*rest, *((max(0, a), max(0, b)) for a, b in widths)]
    cut = [*rest, *((max(0, -a), max(0, -b)) for a, b in widths)]
    if any(map(any, cut)):
        g = g[tuple(slice(a, n - b) for (a, b), n in zip(cut, g.shape, strict=True))]
    return np.pad(g, added) if any(map(any, added)) else g


def index(operation: m.Index, g: Any, shape: Shape) -> Any:
    """Of basic indexing: each back to its place."""
    for axis, ((start, step, count), n) in enumerate(zip(operation.slices, shape, strict=True)):
        if not count:
            g = np.pad(g, _along(g.ndim, axis, (0, n)))
            continue
        if step < 0:
            g, start, step = reversed_along(g, axis), start + step * (count - 1), -step
        g = _stepped_along(g, axis, step)
        g = np.pad(g, _along(g.ndim, axis, (start, n - start - g.shape[axis]))) if g.shape[axis] < n else g
    return g


def _stepped_along(g: Any, axis: int, step: int) -> Any:
    steps = [1] * (g.ndim - axis)
    steps[0] = step
    return _stepped(g, steps)


def take(operation: m.Take, g: Any, shape: Shape) -> Any:
    """Of a choice by positions: each back to its place, those of one place added up."""
    axis, count = operation.axis, shape[operation.axis]
    positions = np.frombuffer(operation.positions, "<u4").astype(np.int64)
    times = np.bincount(positions, minlength=count)
    if not positions.size:
        return np.zeros(shape)
    if times.max() > MOST_TAKES:
        matrix = (positions[:, None] == np.arange(count)).astype(np.float64)
        last = [a for a in range(g.ndim) if a != axis]
        back = list(range(g.ndim - 1))
        back.insert(axis, g.ndim - 1)
        return (g.transpose([*last, axis]) @ matrix).transpose(back)
    # One more, which is 0, for places that nobody chose.
    padded = np.pad(g, _along(g.ndim, axis, (0, 1)))
    order = np.argsort(positions, kind="stable")
    starts = np.cumsum(times) - times
    total: Any = None
    for turn in range(times.max()):
        chosen = np.full(count, positions.size)
        chosen[times > turn] = order[(starts + turn)[times > turn]]
        part = padded.take(chosen, axis)
        total = part if total is None else total + part
    return total
