"""Convolution and pooling of (N, C, H, W) in float64: the plain side of the layers with windows."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mpc.errors import ShapeError
from nn.layer import Array

IMAGES_AT_ONCE = 32
"""Keeps the unrolled windows of a batch within a few tens of megabytes."""

Sides = tuple[tuple[int, int], tuple[int, int]]


def windows(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: Sides, around: float = 0.0) -> Array:
    """A view (N, C, H', W', kh, kw) of every window; ShapeError if none fits."""
    padded = np.pad(x, ((0, 0), (0, 0), *padding), constant_values=around)
    if padded.shape[2] < kernel[0] or padded.shape[3] < kernel[1]:
        raise ShapeError(f"a window of {kernel} does not fit an image of {x.shape[2:]} with padding {padding}")
    return sliding_window_view(padded, kernel, axis=(2, 3))[:, :, :: stride[0], :: stride[1]]


def conv2d(x: Array, weight: Array, stride: tuple[int, int], padding: Sides, groups: int) -> Array:
    """Cross-correlation with (O, C / groups, kh, kw)."""
    parts = [
        _conv2d(x[start : start + IMAGES_AT_ONCE], weight, stride, padding, groups)
        for start in range(0, max(1, len(x)), IMAGES_AT_ONCE)
    ]
    return np.concatenate(parts)


def _conv2d(x: Array, weight: Array, stride: tuple[int, int], padding: Sides, groups: int) -> Array:
    view = windows(x, weight.shape[2:], stride, padding)
    outputs = [
        np.tensordot(channels, filters, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        for channels, filters in zip(np.split(view, groups, axis=1), np.split(weight, groups), strict=True)
    ]
    return np.concatenate(outputs, axis=1)


def mean_pool2d(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """Means over windows, padding counted."""
    sides = ((padding[0], padding[0]), (padding[1], padding[1]))
    return np.asarray(windows(x, kernel, stride, sides).mean(axis=(4, 5)))


def max_pool2d(x: Array, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> Array:
    """Maxima over windows, padding not counted."""
    sides = ((padding[0], padding[0]), (padding[1], padding[1]))
    return np.asarray(windows(x, kernel, stride, sides, -np.inf).max(axis=(4, 5)))
