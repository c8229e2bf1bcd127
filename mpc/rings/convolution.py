"""Convolutions and pooling in the field: a product of matrices for each row of a window (`mpc.rings.matrix`), or, where
few outputs share a window, as in depthwise convolutions, windows are summed where they lie, in integers.

Windows that lie one below the other share rows of the image.  So for each column of a window an image is laid out once,
moved to the side by so much, and what a row of the window sees is that from another row on: a matrix that is there
already, of a row for each channel and column.  Laying out whole windows moves as many times the memory as they have
rows, and takes longer than the products do.

The gradient of weights is a convolution by windows as large as images, with few results of each: too few columns for a
product of matrices.  There those of many images stand side by side, a row of each window after the other.
"""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np

from mpc.errors import ShapeError
from mpc.rings import convolution_kernels as kernels
from mpc.rings import threads
from mpc.rings.field import FieldArray, Shape
from mpc.rings.kernels import flat
from mpc.rings.matrix import KEPT, LEAST, SPLIT, TILE, Parts, evenly, inner_blocks, slices, split
from mpc.rings.matrix_kernels import PARTS, recombine

TOGETHER = 1 << 20
"""Bytes that several images are laid out in, about: they are in the cache between their making and their use."""

STRIP = 8 << 20
"""Likewise, of a tile of one image."""

NARROW = 256
"""Columns of a matrix that is not cut into narrower ones for the sake of threads."""

FEW = 64
"""Results of an image, by windows that are higher than their result, below which matrices are made of all images'."""

DIRECT = 4
"""Output channels that share a window, at most, where windows are not laid out."""

Pair = tuple[int, int]


class ConvKernel:
    """The weights of a convolution made ready for many: `conv2d` takes it in place of the array.

    `w` has the shape (out channels, channels / groups, kernel height, kernel width).
    """

    __slots__ = ("direct", "groups", "parts", "rows", "shape")

    def __init__(self, w: FieldArray, groups: int = 1) -> None:
        if w.ndim != 4 or 0 in w.shape:
            raise ShapeError(
                f"convolution weights have 4 dimensions, none of them empty; these have the shape {w.shape}"
            )
        if groups < 1 or w.shape[0] % groups:
            raise ShapeError(f"{w.shape[0]} output channels do not divide into {groups} groups")
        self.groups = groups
        self.shape = w.shape
        out, depth, high, wide = w.shape
        self.direct = out // groups <= DIRECT
        if self.direct:
            self.rows = np.ascontiguousarray(w)
        else:
            self.rows = laid_out(w).transpose(2, 0, 1, 3).reshape(high, groups, out // groups, depth * wide)
        """Of each row of a window and each group, a row for each of its output channels; as it was where it is summed
        directly."""
        self.parts = split(self.rows) if w.size <= KEPT and not self.direct else None

    def limbs(self, down: int, group: slice, rows: slice, inner: slice) -> Parts:
        """Of a row of a window, of some of the rows of some groups."""
        some = (down, group, rows, inner)
        return split(self.rows[some]) if self.parts is None else self.parts[(slice(None), *some)]


def laid_out(w: FieldArray) -> FieldArray:
    """The same weights, in memory one row of all windows after the other: as products take them, by which a
    `ConvKernel` copies nothing.  ``w`` itself if that is how they lie."""
    rows = w.transpose(2, 0, 1, 3)
    if not rows.flags.c_contiguous:
        # A row of a window is moved as one, or it would take as long as all else that is done with weights once.
        lines = np.ascontiguousarray(w).view(f"V{w.shape[3] * w.itemsize}")
        rows = np.ascontiguousarray(lines.transpose(2, 0, 1, 3)).view(w.dtype)
    return rows.transpose(1, 2, 0, 3)


def conv2d(
    x: FieldArray,
    w: FieldArray | ConvKernel,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    groups: int = 1,
) -> FieldArray:
    """The cross-correlation that `torch.nn.functional.conv2d` computes, mod p.

    x is (batch, channels, height, width), w (out channels, channels / groups, kernel height, kernel width);
    the result is (batch, out channels, out height, out width).  `groups` must be that of a `ConvKernel`.

    Raises `ShapeError` for shapes and options that do not go together.
    """
    if isinstance(w, ConvKernel):
        if w.groups != groups:
            raise ShapeError(f"the weights were split for {w.groups} groups, not {groups}")
    else:
        w = ConvKernel(w, groups)
    out_channels, depth, *window = w.shape
    rows, columns = windows(x.shape, (window[0], window[1]), stride, padding)
    if x.shape[1] != depth * groups:
        raise ShapeError(
            f"weights of shape {w.shape} in {groups} groups need {depth * groups} channels, not {x.shape[1]}"
        )
    result = np.empty((x.shape[0], out_channels, rows, columns), np.uint64)
    if not result.size:
        return result
    x = np.ascontiguousarray(x)
    if w.direct:
        _summed(x, w, result, stride, padding)
    elif window[0] > rows and rows * columns < FEW:
        _side_by_side(x, w, result, stride, padding)
    else:
        _laid_out(x, w, result, stride, padding)
    return result


def _summed(x: FieldArray, w: ConvKernel, result: FieldArray, stride: Pair, padding: Pair) -> None:
    """In integers, an output plane after the other."""
    _, depth, *window = w.shape
    each = w.shape[0] // w.groups
    planes, area = prod(result.shape[:2]), prod(result.shape[2:])
    source, weights, to = flat(x), flat(w.rows), result.reshape(-1)

    def some(start: int, stop: int) -> None:
        kernels.summed_windows(
            source, weights, to, (start, stop), (w.groups, each), depth, x.shape[2:], (window[0], window[1]),
            stride, padding,
        )  # fmt: skip

    threads.cut(some, planes, 1, -(-LEAST // (4 * depth * prod(window) * area)))


def _laid_out(x: FieldArray, w: ConvKernel, result: FieldArray, stride: Pair, padding: Pair) -> None:
    """By matrices of windows: whole images together where they are small, else some rows of one."""
    out_channels, depth, *window = w.shape
    images, _, rows, columns = result.shape
    groups, each, inner = w.groups, out_channels // w.groups, depth * window[1]
    blocks = inner_blocks(inner, window[1])
    longest = blocks[0].stop
    line = SPLIT * columns * stride[0]
    together = TOGETHER // (line * groups * inner * _deep(rows, window[0], stride[0]))
    work = images * out_channels * inner * window[0] * rows * columns
    if together and (images >= threads.in_use() or work < 2 * LEAST):
        # Small images: all of their groups, channels and rows at once.
        together = min(together, max(1, -(-images // threads.in_use()))) if work >= 2 * LEAST else together
        tiles = list(product(slices(images, together), [slice(0, groups)], [slice(0, each)], [slice(0, rows)]))
    else:
        high, wide = min(rows, max(1, STRIP // (line * longest))), min(each, max(1, TILE // (SPLIT * longest)))
        while -(-rows // high) * -(-each // wide) * images * groups < threads.in_use():
            # Images are laid out for as many channels as there may be: rows are shared out first.
            if high > 1 and high * columns > NARROW:
                high = -(-high // 2)
            elif wide > 1 and wide * longest * high * columns >= 2 * LEAST:
                wide = -(-wide // 2)
            else:
                break
        across = -(-each // wide)
        down = _down(images * groups * across, -(-rows // high), rows)
        tiles = list(product(slices(images, 1), slices(groups, 1), evenly(each, across), evenly(rows, down)))
    shaped = result.reshape(images, groups, each, rows, columns)

    def tile(number: int) -> None:
        image, group, some, strip = tiles[number]
        to = shaped[image, group, some, strip]
        done = to if to.flags.c_contiguous else np.empty(to.shape, np.uint64)
        products = None
        for block in blocks:
            laid = _lines(x, image, group, block, strip, w, stride, padding, columns)
            for down in range(window[0]):
                seen = laid[..., down % stride[0], down // stride[0] :, :][..., : strip.stop - strip.start, :]
                right = seen.reshape(*seen.shape[:-2], -1)
                products = np.matmul(w.limbs(down, group, some, block)[:, None], right, out=products)
                recombine(products.reshape(-1), done.reshape(-1), block.start > 0 or down > 0)
        if done is not to:
            to[...] = done

    threads.each(tile, len(tiles))


def _down(others: int, strips: int, rows: int) -> int:
    """How many strips there are to be, at least ``strips``: where tiles are few, as many for each thread, or one would
    wait for another."""
    count = threads.in_use()
    if others * strips >= threads.FOR_EACH * count:
        return strips
    return next((n for n in range(strips, rows // 2 + 1) if others * n % count == 0), strips)


def _side_by_side(x: FieldArray, w: ConvKernel, result: FieldArray, stride: Pair, padding: Pair) -> None:
    """By matrices of the windows of many images, each of few results."""
    out_channels, depth, *window = w.shape
    images, _, rows, columns = result.shape
    groups, each, area = w.groups, out_channels // w.groups, rows * columns
    blocks = inner_blocks(depth * window[1], window[1])
    together = min(-(-images // threads.in_use()), max(1, STRIP // (SPLIT * area * blocks[0].stop)))
    tiles = list(product(slices(images, together), slices(groups, 1)))
    source, shaped = flat(x), result.reshape(images, groups, each, area)

    def tile(number: int) -> None:
        image, group = tiles[number]
        results = (image.stop - image.start) * area
        done, products = np.empty((each, results), np.uint64), None
        room = np.empty(PARTS * results * blocks[0].stop)
        for down, block in product(range(window[0]), blocks):
            first, last = (group.start * depth + end // window[1] for end in (block.start, block.stop))
            inner = block.stop - block.start
            laid = room[: PARTS * results * inner]
            kernels.split_windows(
                source, laid, x.shape[2:], (rows, columns), stride, padding, (image.start, image.stop),
                (first, last), x.shape[1], down, window[1],
            )  # fmt: skip
            left = w.limbs(down, group, slice(0, each), block)[:, 0]
            products = np.matmul(left, laid.reshape(PARTS, results, inner).swapaxes(-1, -2), out=products)
            recombine(products.reshape(-1), done.reshape(-1), down > 0 or block.start > 0)
        shaped[image, group.start] = done.reshape(each, -1, area).transpose(1, 0, 2)

    threads.each(tile, len(tiles))


def _deep(rows: int, window: int, stride: int) -> int:
    """Of the rows that so many windows see, one below the other, every ``stride``-th: how many that are."""
    return rows + (window - 1) // stride


def _lines(
    x: FieldArray, image: slice, group: slice, block: slice, strip: slice, w: ConvKernel, stride: Pair, padding: Pair,
    columns: int,
) -> Parts:  # fmt: skip
    """Parts (`PARTS`, images, groups, inner, stride, rows, columns) of what windows see, of some rows of results.

    ``inner``: some channels, and each column of a window; rows of the image are dealt out to as many heaps as a window
    moves down by.
    """
    _, depth, *window = w.shape
    first, last = block.start // window[1], block.stop // window[1]
    images, _, height, width = x.shape
    some = x.reshape(images, w.groups, depth, height, width)[image, group, first:last]
    rows = strip.stop - strip.start
    shape = (*some.shape[:2], block.stop - block.start, stride[0], _deep(rows, window[0], stride[0]), columns)
    if window == [1, 1] and padding == (0, 0):
        down, right = stride
        here = some[..., strip.start * down : (strip.stop - 1) * down + 1 : down, : (columns - 1) * right + 1 : right]
        return split(np.ascontiguousarray(here)).reshape(PARTS, *shape[:3], 1, *shape[4:])
    parts = np.empty((PARTS, *shape))
    kernels.split_lines(
        flat(some), parts.reshape(-1), (height, width), (window[0], window[1]), stride, padding,
        (strip.start, strip.stop),
    )  # fmt: skip
    return parts


def sum_pool2d(x: FieldArray, kernel: Pair, stride: Pair, padding: Pair = (0, 0)) -> FieldArray:
    """Sums mod p over windows of (batch, channels, height, width): average pooling without the division.

    The images are padded with zeros, which count as elements.
    """
    rows, columns = windows(x.shape, kernel, stride, padding)
    result = np.empty((*x.shape[:2], rows, columns), np.uint64)
    source, to, area, plane = flat(x), result.reshape(-1), rows * columns, prod(x.shape[2:])

    def some(start: int, stop: int) -> None:
        part, images = to[start:stop], source[start // area * plane : stop // area * plane]
        kernels.sum_windows(images, part, x.shape[2:], kernel, stride, padding)

    if result.size:
        threads.cut(some, to.size, area)
    return result


def windows(shape: Shape, window: Pair, stride: Pair, padding: Pair) -> Pair:
    """Rows and columns of the result of a window that slides over images of this shape."""
    if len(shape) != 4:
        raise ShapeError(f"images have the shape (batch, channels, height, width), not {shape}")
    if min(window) < 1 or min(stride) < 1 or min(padding) < 0:
        raise ShapeError(f"window {window}, stride {stride} or padding {padding} is out of range")
    rows = (shape[2] + 2 * padding[0] - window[0]) // stride[0] + 1
    columns = (shape[3] + 2 * padding[1] - window[1]) // stride[1] + 1
    if rows < 1 or columns < 1:
        raise ShapeError(f"a window of {window} does not fit images of {shape[2:]} with padding {padding}")
    return rows, columns
