"""Products of matrices and convolutions in the field, exact, through float64, on whatever device a tensor is.

An element, of least size, is cut into balanced limbs: x = a0 + a1 2^20 + a2 2^40 with |a0|, |a1| <= 2^19 and
|a2| <= 2^20.  The five coefficients of a product of two come of six products of float64 (Karatsuba and Ofman, 1962):
of a0, a1, a2, and of the sums of two each, which are at most 1.5 2^20 in size.  Sums of 2^11 products of these stay
below 2^53, up to where a float64 holds every integer: so they are exact in whatever order a device adds up, with or
without fused multiply-add.  Longer inner sizes are cut into blocks of `BLOCK`.

Convolutions are products of matrices of windows.  torch's own may go by transforms, which are not exact.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch.nn import functional

from mpc.errors import ShapeError
from mpc.rings.convolution import windows
from mpc.rings.on_torch.fused import fused
from mpc.rings.on_torch.words import Tensor, add, from_signed, reduce_once, reduced, rotate, to_signed, total
from mpc.rings.ring import Pair, Shape

BLOCK = 1 << 11

_HALF, _LOW = 1 << 19, (1 << 20) - 1


class Limbs:
    """Of a tensor that is multiplied by again and again: (6, *shape), float64."""

    __slots__ = ("parts", "shape")

    def __init__(self, x: Tensor) -> None:
        self.shape: Shape = tuple(x.shape)
        self.parts = split(x)


class Weights:
    """Of a convolution: (6, groups, output channels of one, values of a window)."""

    __slots__ = ("groups", "parts", "shape")

    def __init__(self, w: Tensor, groups: int) -> None:
        if w.dim() != 4 or 0 in w.shape:
            raise ShapeError(
                f"convolution weights have 4 dimensions, none of them empty; these have the shape {tuple(w.shape)}"
            )
        if groups < 1 or w.shape[0] % groups:
            raise ShapeError(f"{w.shape[0]} output channels do not divide into {groups} groups")
        self.shape: Shape = tuple(w.shape)
        self.groups = groups
        self.parts = split(w.reshape(groups, w.shape[0] // groups, prod(w.shape[1:])))


@fused
def split(x: Tensor) -> Tensor:
    """(6, *shape): the limbs, and the sums of the first two, of the outer two, of the last two."""
    value = to_signed(x)
    a0 = ((value + _HALF) & _LOW) - _HALF
    value = (value - a0) >> 20
    a1 = ((value + _HALF) & _LOW) - _HALF
    a2 = (value - a1) >> 20
    return torch.stack([a0, a1, a2, a0 + a1, a0 + a2, a1 + a2]).to(torch.float64)


@fused
def joined(parts: Tensor) -> Tensor:
    """The field's elements of six products of ``split``, each a sum of up to `BLOCK`."""
    q0, q1, q2, q01, q02, q12 = parts.to(torch.int64)
    coefficients = (q0, q01 - q0 - q1, q02 - q0 - q2 + q1, q12 - q1 - q2, q2)
    # 2^80 is 2^19.
    c0, c1, c2, c3, c4 = (rotate(from_signed(c), k) for c, k in zip(coefficients, (0, 20, 40, 60, 19), strict=True))
    return add(reduced(c0 + c1 + c2), reduce_once(c3 + c4))


def in_blocks(inner: int, some: Callable[[slice], Tensor]) -> Tensor:
    """The sum over blocks of an inner size."""
    result = joined(some(slice(0, BLOCK)))
    for start in range(BLOCK, inner, BLOCK):
        result = add(result, joined(some(slice(start, start + BLOCK))))
    return result


def matmul(x: Tensor | Limbs, y: Tensor | Limbs) -> Tensor:
    """x @ y mod p, with the shapes of `numpy.matmul`.  Raises `ShapeError` where that raises."""
    if not x.shape or not y.shape:
        raise ShapeError("matmul does not take scalars: use a product")
    if isinstance(x, Tensor) and x.dim() == 1:
        return matmul(x[None, :], y).squeeze(-1 if len(y.shape) == 1 else -2)
    if isinstance(y, Tensor) and y.dim() == 1:
        return matmul(x, y[:, None]).squeeze(-1)
    inner = x.shape[-1]
    if inner != y.shape[-2]:
        raise ShapeError(f"cannot multiply matrices of shapes {tuple(x.shape)} and {tuple(y.shape)}")
    try:
        np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError as error:
        raise ShapeError(f"cannot broadcast the batches of {tuple(x.shape)} and {tuple(y.shape)}") from error
    left, right = (_batched(z, len(max(x.shape, y.shape, key=len))) for z in (x, y))
    return in_blocks(inner, lambda some: left[..., some] @ right[..., some, :])


def _batched(x: Tensor | Limbs, dimensions: int) -> Tensor:
    """Its limbs, with as many dimensions, so that the first is none of a batch."""
    parts = x.parts if isinstance(x, Limbs) else split(x)
    return parts.reshape(len(parts), *(1,) * (dimensions - len(x.shape)), *x.shape)


def conv2d(x: Tensor, w: Tensor | Weights, stride: Pair, padding: Pair, groups: int) -> Tensor:
    """The cross-correlation that `torch.nn.functional.conv2d` computes, mod p; see `mpc.rings.convolution.conv2d`."""
    w = w if isinstance(w, Weights) else Weights(w, groups)
    if w.groups != groups:
        raise ShapeError(f"the weights were split for {w.groups} groups, not {groups}")
    out, depth, high, wide = w.shape
    rows, columns = windows(tuple(x.shape), (high, wide), stride, padding)
    images, channels = x.shape[:2]
    if channels != depth * groups:
        raise ShapeError(
            f"weights of shape {w.shape} in {groups} groups need {depth * groups} channels, not {channels}"
        )
    # Each row of it is what one place of a window sees, of a channel.
    seen = functional.unfold(split(x).flatten(0, 1), (high, wide), padding=padding, stride=stride)
    seen, parts = seen.reshape(-1, images, groups, depth * high * wide, rows * columns), w.parts[:, None]
    result = in_blocks(depth * high * wide, lambda some: parts[..., some] @ seen[..., some, :])
    return result.reshape(images, out, rows, columns)


def sum_pool2d(x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    """See `mpc.rings.convolution.sum_pool2d`."""
    windows(tuple(x.shape), kernel, stride, padding)
    padded = functional.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    return total(padded.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]), (4, 5))
