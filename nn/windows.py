"""Convolution and pooling of (N, C, H, W) in float64: the plain side of the layers with windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mpc.errors import ShapeError
from nn.layer import Array
from protocols.trace.secret_tensor import SecretTensor

IMAGES_AT_ONCE = 32
"""Keeps the unrolled windows of a batch within a few tens of megabytes."""

Sides = tuple[tuple[int, int], tuple[int, int]]


def windows(
    x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: Sides, dilation: tuple[int, int] = (1, 1)
) -> Array:
    """A view (N, C, H', W', kh, kw) of every window, zeros around; ShapeError if none fits."""
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    spans = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    if padded.shape[2] < spans[0] or padded.shape[3] < spans[1]:
        raise ShapeError(f"a window of {spans} does not fit an image of {x.shape[2:]} with padding {padding}")
    view = sliding_window_view(padded, spans, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def dilated(
    x: SecretTensor, kernel: tuple[int, int], dilation: tuple[int, int], convolved: Callable[[SecretTensor], Any]
) -> SecretTensor:
    """What a dilated kernel makes of (N, C, H, W): ``convolved``, of the parts between whose pixels it steps.

    (N d d', C, H / d, W / d'), with zeros behind where these are no whole numbers.  Raises ShapeError.
    """
    (n, c, *sizes), (d, e) = x.shape, dilation
    left = [size - step * (k - 1) for size, k, step in zip(sizes, kernel, dilation, strict=True)]
    if min(left) < 1:
        raise ShapeError(f"a window of {kernel} with dilation {dilation} does not fit an image of {tuple(sizes)}")
    rows, columns = (-(-size // step) for size, step in zip(sizes, dilation, strict=True))
    whole = x.pad(((0, 0), (0, 0), (0, rows * d - sizes[0]), (0, columns * e - sizes[1])))
    parts = whole.reshape(n, c, rows, d, columns, e).transpose(0, 3, 5, 1, 2, 4).reshape(n * d * e, c, rows, columns)
    y = convolved(parts)
    _, out, rows, columns = y.shape
    joined = y.reshape(n, d, e, out, rows, columns).transpose(0, 3, 4, 1, 5, 2).reshape(n, out, rows * d, columns * e)
    return joined[:, :, : left[0], : left[1]]  # type: ignore[no-any-return]


def conv2d(
    x: Array,
    weight: Array,
    stride: tuple[int, int],
    padding: Sides,
    groups: int,
    dilation: tuple[int, int] = (1, 1),
) -> Array:
    """Cross-correlation with (O, C / groups, kh, kw)."""
    parts = [
        _conv2d(x[start : start + IMAGES_AT_ONCE], weight, stride, padding, groups, dilation)
        for start in range(0, max(1, len(x)), IMAGES_AT_ONCE)
    ]
    return np.concatenate(parts)


def _conv2d(
    x: Array, weight: Array, stride: tuple[int, int], padding: Sides, groups: int, dilation: tuple[int, int]
) -> Array:
    view = windows(x, weight.shape[2:], stride, padding, dilation)
    outputs = [
        np.tensordot(channels, filters, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        for channels, filters in zip(np.split(view, groups, axis=1), np.split(weight, groups), strict=True)
    ]
    return np.concatenate(outputs, axis=1)


def mean_pool2d(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """Means over windows, padding counted."""
    sides = ((padding[0], padding[0]), (padding[1], padding[1]))
    return np.asarray(windows(x, kernel, stride, sides).mean(axis=(4, 5)))
