"""Windows as columns and back, pixels at public places between pixels, and the largest values in order."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from nn import axes
from nn.choosing import AlongOne
from nn.layer import Array, OneFormula, Pair, check_finite, check_images, check_pair, check_size, pair
from protocols.trace.secret_tensor import SecretTensor

MAX_POINTS = 2**16
"""Of a grid: its numbers are in the architecture."""


class _Windows(OneFormula, frozen=True):
    kernel_size: Pair
    dilation: Pair = 1
    padding: Pair = 0
    stride: Pair = 1

    def __post_init__(self) -> None:
        check_pair("kernel_size", self.kernel_size)
        check_pair("dilation", self.dilation)
        check_pair("padding", self.padding, least=0)
        check_pair("stride", self.stride)

    def _places(self, height: int, width: int) -> tuple[axes.Positions, tuple[int, int]]:
        """Of images of these sizes, zeros around them: (places in a window, windows), and how wide an image is then."""
        (k, e, p, s) = (pair(each) for each in (self.kernel_size, self.dilation, self.padding, self.stride))
        rows, columns = (axes.windows(size, k[i], s[i], p[i], e[i]).T + p[i] for i, size in enumerate((height, width)))
        high, wide = height + 2 * p[0], width + 2 * p[1]
        axes.check_room((rows.size, columns.size))
        axes.check_room((high, wide))
        found = rows[:, None, :, None] * wide + columns[None, :, None, :]
        return found.reshape(len(rows) * len(columns), -1), (high, wide)


class Unfold(_Windows, frozen=True):
    """(N, C, H, W) to (N, C k, L): what each of L windows has under its k places.  Local."""

    def _of(self, x: Any) -> Any:
        check_images(x, self)
        n, c, height, width = x.shape
        places, (high, wide) = self._places(height, width)
        axes.check_room((n, c, *places.shape))
        axes.check_room((n, c, high, wide))
        up, left = pair(self.padding)
        around = ((0, 0), (0, 0), (up, up), (left, left))
        padded = x.pad(around) if isinstance(x, SecretTensor) else np.pad(x, around)
        return padded.reshape(n, c, high * wide).take(places, 2).reshape(n, c * len(places), places.shape[1])


class Fold(_Windows, frozen=True, kw_only=True):
    """(N, C k, L) to (N, C, H, W): sums of what windows have at each pixel.  Local."""

    output_size: tuple[int, int]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pair("output_size", self.output_size)

    def _of(self, x: Any) -> Any:
        height, width = self.output_size
        places, (high, wide) = self._places(height, width)
        if x.ndim != 3 or x.shape[1] % len(places) or x.shape[2] != places.shape[1]:
            raise ShapeError(f"Fold takes (N, C * {len(places)}, {places.shape[1]}), not a tensor of shape {x.shape}")
        n, c = x.shape[0], x.shape[1] // len(places)
        up, left = pair(self.padding)
        inside = np.arange(high * wide).reshape(high, wide)[up : up + height, left : left + width]
        sources = _sources(places.reshape(-1), high * wide)[inside.reshape(-1)]
        axes.check_room((n, c, *sources.shape))
        around = ((0, 0), (0, 0), (0, 1))  # a zero behind all, for what has fewer
        flat = x.reshape(n, c, places.size)
        padded = flat.pad(around) if isinstance(x, SecretTensor) else np.pad(flat, around)
        return padded.take(sources, 2).sum(3).reshape(n, c, height, width)


def _sources(places: axes.Positions, count: int) -> axes.Positions:
    """(``count``, most): for each place where it comes from, and one behind the last where there are fewer."""
    order = np.argsort(places, kind="stable")
    many = np.bincount(places, minlength=count)
    found = np.full((count, max(1, int(many.max()))), places.size)
    number = np.arange(places.size) - np.repeat(np.cumsum(many) - many, many)
    found[places[order], number] = order
    return found


class GridSample(OneFormula, frozen=True):
    """``torch.nn.functional.grid_sample`` at places that are public, the same for all images.  Local.

    ``grid``: x and y of each of the ``size`` pixels of the result, row by row; -1 and 1 are an image's ends.
    """

    grid: tuple[float, ...]
    size: tuple[int, int]
    mode: Literal["bilinear", "nearest"] = "bilinear"
    padding_mode: Literal["zeros", "border", "reflection"] = "zeros"
    align_corners: bool = False

    def __post_init__(self) -> None:
        check_pair("size", self.size)
        count = math.prod(self.size)
        if count > MAX_POINTS or len(self.grid) != 2 * count:
            raise UnsupportedError(f"a grid of {len(self.grid)} numbers: x and y of {self.size}, {MAX_POINTS} at most")
        for number in self.grid:
            check_finite("a grid's number", number)

    def _of(self, x: Any) -> Any:
        check_images(x, self)
        n, c, height, width = x.shape
        if not height or not width:
            raise ShapeError(f"no pixels of a tensor of shape {x.shape}")
        axes.check_room((n, c, 4, *self.size))
        return axes.weighted(x.reshape(n, c, height * width), 2, self._taps(height, width)).reshape(n, c, *self.size)

    def _taps(self, height: int, width: int) -> axes.Taps:
        """Of all pixels in a row."""
        points = np.array(self.grid).reshape(-1, 2)
        (x, tx), (y, ty) = (self._along(points[:, i], size) for i, size in enumerate((width, height)))
        positions = y[:, :, None] * width + x[:, None, :]
        weights = ty[:, :, None] * tx[:, None, :]
        return axes.Taps(positions.reshape(len(points), -1), weights.reshape(len(points), -1))

    def _along(self, at: Array, size: int) -> axes.Taps:
        """Of one dimension: the pixels around each place, and how much of each; nothing of those outside."""
        at = (at + 1) / 2 * (size - 1) if self.align_corners else ((at + 1) * size - 1) / 2
        if self.padding_mode == "reflection":
            at = _reflected(at, 0.0, size - 1.0) if self.align_corners else _reflected(at, -0.5, size - 0.5)
        if self.padding_mode != "zeros":
            at = np.clip(at, 0, size - 1)
        # Far outside, where whole numbers would be too large, is outside.
        at = np.clip(at, -2.0, size + 1.0)
        if self.mode == "nearest":
            places, weights = np.rint(at)[:, None], np.ones((len(at), 1))
        else:
            first = np.floor(at)
            places, weights = first[:, None] + (0, 1), np.stack([first + 1 - at, at - first], 1)
        inside = (places >= 0) & (places < size)
        return axes.Taps(np.clip(places, 0, size - 1).astype(np.int64), weights * inside)


def _reflected(at: Array, low: float, high: float) -> Array:
    """At mirrors in both ends."""
    span = high - low
    if not span:
        return np.zeros_like(at)
    beyond = np.mod(np.abs(at - low), 2 * span)
    return low + np.minimum(beyond, 2 * span - beyond)


class TopK(AlongOne, frozen=True):
    """The ``k`` largest values along a dimension, or smallest, from the first on; of equal ones the first.

    ``positions``: where they are, behind them.  A sort: about log2(n)^2 / 2 steps of comparisons.
    """

    k: int
    smallest: bool = False
    positions: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size("k", self.k)

    def of(self, x: Any, axis: int) -> Any:
        if self.k > x.shape[axis]:
            raise ShapeError(f"the {self.k} largest of {x.shape[axis]} values")
        if isinstance(x, SecretTensor):
            found = (-x if self.smallest else x).topk(self.k, axis)
            values: Any = -found.values if self.smallest else found.values
            return np.concatenate([values, found.indices], axis) if self.positions else values
        order = np.argsort(x if self.smallest else -x, axis, kind="stable").take(np.arange(self.k), axis)
        taken = np.take_along_axis(x, order, axis)
        return np.concatenate([taken, order.astype(np.float64)], axis) if self.positions else taken
