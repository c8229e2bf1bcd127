"""Where windows, pads and interpolated points lie along one axis: public positions, so that all of it is local.

What takes them works for secret tensors and for arrays: both have ``take``, ``sum`` and ``max``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mpc.errors import ShapeError
from mpc.tensor_type import MAX_SIZE as MAX_ELEMENTS
from mpc.tensor_type import Shape
from nn.layer import MAX_SIZE
from protocols.trace.secret_tensor import SecretTensor

Positions = npt.NDArray[np.int64]

_ROUNDED = 2.0**-6
"""By how much a public factor is off, at most."""


class Taps(NamedTuple):
    """Each result is a sum of a few elements of an axis, by public weights: (results, elements) both."""

    positions: Positions
    weights: npt.NDArray[np.float64]


def weighted(x: Any, axis: int, taps: Taps) -> Any:
    """Sums along an axis, of a tensor or an array."""
    positions, weights = taps
    if positions.shape[1] == 1 and (weights == 1.0).all():
        return x.take(positions[:, 0], axis)
    shape = (*positions.shape, *(1,) * (x.ndim - axis - 1))
    y = (x.take(positions, axis) * weights.reshape(shape)).sum(axis + 1)
    if isinstance(x, SecretTensor) and (weights >= 0).all():
        # No sum is beyond the largest element by more than the weights are rounded by.
        most = float(weights.sum(1).max(initial=0.0)) + positions.shape[1] * _ROUNDED
        return y.within(min(x.type.low, 0.0) * most, max(x.type.high, 0.0) * most)
    return y


# -- windows -----------------------------------------------------------------------------------------------------------


def windows(size: int, kernel: int, stride: int, padding: int, dilation: int = 1, ceil: bool = False) -> Positions:
    """(results, ``kernel``): what each window has under it, where what is below 0 or not below ``size`` is around.

    ``ceil``: with one more that begins inside and reaches beyond, as torch's ``ceil_mode``.  Raises ShapeError where
    none fits.
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        raise ShapeError(f"a window of {kernel} (dilation {dilation}) does not fit {size} with padding {padding}")
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1
    _check_count(count * kernel)
    return np.arange(count)[:, None] * stride - padding + np.arange(kernel) * dilation


def parted(size: int, count: int) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """Windows that cover ``size`` in ``count`` parts, as torch's adaptive pools have them, and which of their places
    count: some are longer than others by one or two."""
    if not size:
        raise ShapeError("a pool of no elements")
    first = np.arange(count) * size // count
    length = -(-(np.arange(1, count + 1) * size) // count) - first
    _check_count(count * int(length.max()))
    places = np.arange(length.max())
    return first[:, None] + places, places < length[:, None]


def inside(positions: Positions, counts: npt.NDArray[np.bool_]) -> Positions:
    """Windows with what does not count replaced by what does: their maxima are the same.  Raises ShapeError."""
    if not counts.any(axis=1).all():
        raise ShapeError("a window has nothing but padding under it")
    first = positions[np.arange(len(positions)), counts.argmax(axis=1)]
    return np.asarray(np.where(counts, positions, first[:, None]))


def _check_count(count: int) -> None:
    if count > MAX_SIZE:
        raise ShapeError(f"windows with {count} elements along one axis")


# -- pads --------------------------------------------------------------------------------------------------------------


def padded(size: int, before: int, after: int, mode: str) -> Positions:
    """The axis with what ``reflect``, ``replicate`` or ``circular`` puts around it; negative widths crop.

    Raises ShapeError where torch has no such pad.
    """
    most = {"reflect": size - 1, "circular": size}.get(mode, MAX_SIZE if size else 0)
    if max(before, after) > most or min(before, after) < -size:
        raise ShapeError(f"a pad of ({before}, {after}) around {size} elements in mode {mode!r}")
    places = np.arange(-before, size + after)
    if mode == "reflect":
        places = (size - 1) - np.abs((size - 1) - np.abs(places))
    return places % size if mode == "circular" else places.clip(0, size - 1)


# -- interpolation -----------------------------------------------------------------------------------------------------


def nearest(size: int, count: int, scale: float | None, exact: bool) -> Taps:
    """``count`` points among ``size``; ``scale``, if it was said, is the factor.  As torch, in its float32."""
    step = np.float32(size / count if scale is None else 1.0 / scale)
    points = np.arange(count, dtype=np.float32) + np.float32(0.5 if exact else 0.0)
    places = np.minimum(np.floor(points * step).astype(np.int64), size - 1)
    return Taps(places[:, None], np.ones((count, 1)))


def linear(size: int, count: int, scale: float | None, corners: bool) -> Taps:
    """Between two neighbours; ``corners``: torch's ``align_corners``."""
    points = _points(size, count, scale, corners)
    points = points if corners else np.maximum(points, 0.0)
    below = np.minimum(np.floor(points).astype(np.int64), size - 1)
    part = np.clip(points - below, 0.0, 1.0)
    return Taps(np.stack([below, np.minimum(below + 1, size - 1)], 1), np.stack([1.0 - part, part], 1))


def cubic(size: int, count: int, scale: float | None, corners: bool) -> Taps:
    """By four neighbours: Keys' kernel with a = -3/4 (Cubic convolution interpolation, 1981), as torch."""
    points = _points(size, count, scale, corners)
    below = np.floor(points).astype(np.int64)
    offsets = np.arange(-1, 3)
    far = np.abs((points - below)[:, None] - offsets)
    near = (1.25 * far - 2.25) * far**2 + 1.0
    beyond = -0.75 * (((far - 5.0) * far + 8.0) * far - 4.0)
    return Taps((below[:, None] + offsets).clip(0, size - 1), np.where(far <= 1, near, beyond))


def _points(size: int, count: int, scale: float | None, corners: bool) -> npt.NDArray[np.float64]:
    places = np.arange(count, dtype=np.float64)
    if corners:
        return np.asarray(places * ((size - 1) / max(count - 1, 1)))
    return np.asarray((places + 0.5) * (size / count if scale is None else 1.0 / scale) - 0.5)


def check_room(shape: Shape) -> None:
    """Raise ShapeError for a tensor that is too large to be, before it is made axis by axis."""
    if math.prod(shape) > MAX_ELEMENTS:
        raise ShapeError(f"a tensor of shape {shape} has more than {MAX_ELEMENTS:,} elements")


def resized(size: int, factor: float) -> int:
    """How many points a factor makes of ``size``, as torch.  Raises ShapeError."""
    count = math.floor(float(size) * factor)
    if not 0 < count <= MAX_SIZE:
        raise ShapeError(f"{size} elements cannot be resized by {factor:g}")
    return count
