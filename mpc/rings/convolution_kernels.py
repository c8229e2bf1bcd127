"""Compiled loops of convolutions and pooling: windows, and sums over them.  See `mpc.rings.kernels`.

`size` is (height, width) of an image, and so are window, stride and padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from mpc.rings.kernels import INT, READ, WRITE, Words, fold, kernel, partial_product, reduce_once
from mpc.rings.matrix_kernels import PARTS, WRITE_REAL, Reals, split_into

Pair = tuple[int, int]

PAIR: Any = types.UniTuple(types.intp, 2)  # type: ignore[no-untyped-call]


@kernel(READ, WRITE_REAL, PAIR, PAIR, PAIR, PAIR, PAIR)
def split_lines(x: Words, out: Reals, size: Pair, window: Pair, stride: Pair, padding: Pair, strip: Pair) -> None:
    """Split (planes, height, width) once, and lay out, for each column of a window, what it sees:
    (`PARTS`, planes, window[1], stride[0], rows, columns), where the r-th row that windows see is the
    (r / stride[0])-th of the (r mod stride[0])-th rows.

    ``strip``: the first row of windows, and that behind the last.
    """
    height, width = size
    count = strip[1] - strip[0]
    columns = (width + 2 * padding[1] - window[1]) // stride[1] + 1
    padded_width = width + 2 * padding[1]
    # Rows of the image, padded, that these windows see.
    top, high = strip[0] * stride[0] - padding[0], (count - 1) * stride[0] + window[0]
    deep = count + (window[0] - 1) // stride[0]
    column = stride[0] * deep * columns
    planes = x.size // (height * width)
    limb = planes * window[1] * column
    line = np.zeros(PARTS * padded_width)
    for plane in range(planes):
        for r in range(high):
            start = plane * window[1] * column + (r % stride[0] * deep + r // stride[0]) * columns
            inside = 0 <= top + r < height
            if inside:
                source = (plane * height + top + r) * width
                split_into(x[source : source + width], line, padding[1], padded_width)
            for k in range(PARTS):
                for dc in range(window[1]):
                    to, of = np.uintp(start + k * limb + dc * column), np.uintp(k * padded_width + dc)
                    if not inside:
                        for i in range(np.uintp(columns)):
                            out[to + i] = 0.0
                    elif stride[1] == 1:
                        for i in range(np.uintp(columns)):
                            out[to + i] = line[of + i]
                    else:
                        for i in range(np.uintp(columns)):
                            out[to + i] = line[of + i * np.uintp(stride[1])]


@kernel(READ, WRITE_REAL, PAIR, PAIR, PAIR, PAIR, PAIR, PAIR, INT, INT, INT)
def split_windows(
    x: Words, out: Reals, size: Pair, results: Pair, stride: Pair, padding: Pair, images: Pair, channels: Pair,
    depth: int, down: int, wide: int,
) -> None:  # fmt: skip
    """Split row ``down`` of each window of some channels of some images, a row of the result for each window:
    (`PARTS`, images, results, channels, ``wide``).

    ``x``: images of ``depth`` channels; ``images`` and ``channels``: the first, and that behind the last.
    """
    height, width = size
    rows, columns = results
    count = channels[1] - channels[0]
    inner = count * wide
    limb = (images[1] - images[0]) * rows * columns * inner
    padded_width = width + 2 * padding[1]
    line = np.zeros(PARTS * padded_width)
    for image in range(images[0], images[1]):
        for r in range(rows):
            first = ((image - images[0]) * rows + r) * columns * inner
            row = r * stride[0] + down - padding[0]
            inside = 0 <= row < height
            for c in range(count):
                if inside:
                    source = ((image * depth + channels[0] + c) * height + row) * width
                    split_into(x[source : source + width], line, padding[1], padded_width)
                for k in range(PARTS):
                    for column in range(columns):
                        to = np.uintp(k * limb + first + column * inner + c * wide)
                        of = np.uintp(k * padded_width + column * stride[1])
                        for j in range(np.uintp(wide)):
                            out[to + j] = line[of + j] if inside else 0.0


@kernel(READ, READ, WRITE, PAIR, PAIR, INT, PAIR, PAIR, PAIR, PAIR)
def summed_windows(
    x: Words, w: Words, out: Words, planes: Pair, each: Pair, depth: int, size: Pair, window: Pair, stride: Pair,
    padding: Pair,
) -> None:  # fmt: skip
    """Output planes (of all images, channel by channel) from ``planes[0]`` up to ``planes[1]``.

    ``each``: groups, and output channels of a group, which see ``depth`` channels.
    """
    height, width = size
    groups, count = each
    rows = (height + 2 * padding[0] - window[0]) // stride[0] + 1
    columns = (width + 2 * padding[1] - window[1]) // stride[1] + 1
    sums = np.empty(columns, np.uint64)
    # Every other column of a row, and so on, where windows move by more than one.
    lane = np.empty(columns, np.uint64)
    for plane in range(planes[0], planes[1]):
        channel = plane % (groups * count)
        source = (plane // (groups * count) * groups + channel // count) * depth * height * width
        for r in range(rows):
            top = r * stride[0] - padding[0]
            for i in range(columns):
                sums[i] = 0
            for c in range(depth):
                for dr in range(max(0, -top), min(window[0], height - top)):
                    line = source + (c * height + top + dr) * width
                    for dc in range(window[1]):
                        factor = w[((channel * depth + c) * window[0] + dr) * window[1] + dc]
                        # Results whose window has a column of the image here.
                        left = padding[1] - dc
                        first = max(0, (left + stride[1] - 1) // stride[1])
                        last = min(columns, (width - 1 + left) // stride[1] + 1)
                        if last <= first:
                            continue
                        u = x[line + first * stride[1] - left : line + width]
                        v = sums[first:last]
                        if stride[1] == 1:
                            for i in range(last - first):
                                v[i] = fold(v[i] + fold(partial_product(u[i], factor)))
                        else:
                            for i in range(last - first):
                                lane[i] = u[i * stride[1]]
                            for i in range(last - first):
                                v[i] = fold(v[i] + fold(partial_product(lane[i], factor)))
            v = out[(plane * rows + r) * columns : (plane * rows + r + 1) * columns]
            for i in range(columns):
                v[i] = reduce_once(fold(sums[i]))


@kernel(READ, WRITE, PAIR, PAIR, PAIR, PAIR)
def sum_windows(x: Words, out: Words, size: Pair, window: Pair, stride: Pair, padding: Pair) -> None:
    """Sums over windows of (planes, height, width), zero outside."""
    height, width = size
    rows = (height + 2 * padding[0] - window[0]) // stride[0] + 1
    columns = (width + 2 * padding[1] - window[1]) // stride[1] + 1
    for plane in range(out.size // (rows * columns)):
        for r in range(rows):
            top = r * stride[0] - padding[0]
            for c in range(columns):
                left = c * stride[1] - padding[1]
                value = np.uint64(0)
                for i in range(max(top, 0), min(top + window[0], height)):
                    for j in range(max(left, 0), min(left + window[1], width)):
                        value = reduce_once(value + x[(plane * height + i) * width + j])
                out[(plane * rows + r) * columns + c] = value
