"""Matrix products, convolutions and pooling in the field, exact, through float64 BLAS.

A field element is cut into balanced limbs, x = a0 + a1 2^20 + a2 2^40 (mod p) with |a0|, |a1| <= 2^19 and
|a2| <= 2^20.  The nine products of limbs come from six matrix products, after Karatsuba:

    a_i b_j + a_j b_i = (a_i + a_j)(b_i + b_j) - a_i b_i - a_j b_j.

**Exactness.**  A limb or a sum of two is at most 2^19 + 2^20 = 3 * 2^19 in size, so a product of two is at
most 9 * 2^38, and a sum of k of them at most 9 * 2^38 * k.  A float64 holds every integer up to 2^53, so as
long as 9 * 2^38 * k <= 2^53, that is k <= 3640, each partial sum is an exact integer whatever the order of
summation, with or without fused multiply-add.  Longer inner sizes are cut into blocks of `BLOCK` and added up
in the field.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from mpc.errors import ShapeError
from mpc.rings import matrix_kernels as kernels
from mpc.rings.field import FieldArray, Shape, zeros
from mpc.rings.kernels import flat

BLOCK = 3072

# Bytes of the layout of windows that a convolution holds at a time: it stays in the cache between its making
# and its use.
_WINDOW_BYTES = 1 << 20

Pair = tuple[int, int]


class Limbs:
    """A matrix (or a batch of them) split once, for many products: `matmul` takes it in place of the array.

    Holds the field array and its six float64 matrices, 56 bytes per element.
    """

    __slots__ = ("field", "parts")

    def __init__(self, x: FieldArray) -> None:
        if x.ndim < 2:
            raise ShapeError(f"only arrays of 2 or more dimensions can be split ahead, not one of shape {x.shape}")
        self.field = np.ascontiguousarray(x)
        self.parts = _split(self.field)

    @property
    def shape(self) -> Shape:
        """The shape of the field array."""
        return self.field.shape

    @property
    def ndim(self) -> int:
        """The number of its dimensions."""
        return self.field.ndim


def matmul(x: FieldArray | Limbs, y: FieldArray | Limbs) -> FieldArray:
    """x @ y mod p, with the shapes of `np.matmul`: batches broadcast, and one dimension is a row or a column.

    Raises `ShapeError` where `np.matmul` raises.
    """
    if x.ndim == 0 or y.ndim == 0:
        raise ShapeError("matmul does not take scalars: use a product")
    row, column = x.ndim == 1, y.ndim == 1
    if row and isinstance(x, np.ndarray):
        x = x[None, :]
    if column and isinstance(y, np.ndarray):
        y = y[:, None]
    (m, k), (k_other, n) = x.shape[-2:], y.shape[-2:]
    if k != k_other:
        raise ShapeError(f"cannot multiply matrices of shapes {x.shape} and {y.shape}: {k} columns, {k_other} rows")
    try:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError as error:
        raise ShapeError(f"cannot broadcast the batches of {x.shape} and {y.shape}") from error
    shape = (*batch, m, n)
    if k == 0 or 0 in shape:
        result = zeros(shape)
    elif _integers_win(prod(batch), x, y):
        result = _multiply_small(_field(x), _field(y), batch)
    else:
        result = np.empty(shape, np.uint64)
        _multiply_parts(_parts(x), _parts(y), result)
    if row:
        result = result[..., 0, :]
    return result[..., 0] if column else result


def _integers_win(batch: int, x: FieldArray | Limbs, y: FieldArray | Limbs) -> bool:
    """Whether plain integer arithmetic should beat six BLAS calls, which pay for splitting and reading limbs.

    Estimates in nanoseconds, fitted on an AVX-512 host with one thread; near the crossing either will do.
    """
    (m, k), n = x.shape[-2:], y.shape[-1]
    tail = n % 8 if n > 1 else 0  # columns that do not fill a vector are done one by one
    integers = batch * m * k * (0.45 * n + 4 * tail)
    split = sum(2.0 * operand.size for operand in (x, y) if isinstance(operand, np.ndarray))
    blas = 8000 + split + batch * (1000 + 0.27 * m * k * n + 0.6 * (m * k + k * n) + m * n)
    return integers < blas


def _field(x: FieldArray | Limbs) -> FieldArray:
    return x.field if isinstance(x, Limbs) else x


def _parts(x: FieldArray | Limbs) -> npt.NDArray[np.float64]:
    return x.parts if isinstance(x, Limbs) else _split(x)


def _split(x: FieldArray) -> npt.NDArray[np.float64]:
    """(6, ...) float64; a transposed matrix stays a view, which BLAS takes as it is."""
    if x.ndim >= 2 and not x.flags.c_contiguous and x.swapaxes(-1, -2).flags.c_contiguous:
        return _split(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    parts = np.empty((6, *x.shape))
    kernels.split(flat(x), parts.reshape(-1))
    return parts


def _multiply_parts(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], result: FieldArray) -> None:
    """Write to `result` the product of (6, ..., m, k) and (6, ..., k, n), by blocks of the inner size."""
    rank = max(x.ndim, y.ndim)
    x = x.reshape(6, *(1,) * (rank - x.ndim), *x.shape[1:])
    y = y.reshape(6, *(1,) * (rank - y.ndim), *y.shape[1:])
    inner = x.shape[-1]
    products = None
    for start in range(0, inner, BLOCK):
        stop = start + BLOCK
        products = np.matmul(x[..., start:stop], y[..., start:stop, :], out=products)
        kernels.recombine(products.reshape(-1), result.reshape(-1), start > 0)


def _multiply_small(x: FieldArray, y: FieldArray, batch: Shape) -> FieldArray:
    m, k, n = *x.shape[-2:], y.shape[-1]
    if prod(x.shape[:-2]) != 1:
        x = np.broadcast_to(x, (*batch, m, k))
    if prod(y.shape[:-2]) != 1:
        y = np.broadcast_to(y, (*batch, k, n))
    result = np.empty((*batch, m, n), np.uint64)
    x_step = m * k if x.size > m * k else 0
    y_step = k * n if y.size > k * n else 0
    x, y = flat(x), flat(y)
    kernels.small_matmul(x, y, result.reshape(-1), m, k, n, x_step, y_step)
    return result


class ConvKernel:
    """The weights of a convolution split once: `conv2d` takes it in place of the array.

    `w` has the shape (out channels, channels / groups, kernel height, kernel width).
    """

    __slots__ = ("groups", "parts", "shape")

    def __init__(self, w: FieldArray, groups: int = 1) -> None:
        if w.ndim != 4 or 0 in w.shape:
            raise ShapeError(
                f"convolution weights have 4 dimensions, none of them empty; these have the shape {w.shape}"
            )
        if groups < 1 or w.shape[0] % groups:
            raise ShapeError(f"{w.shape[0]} output channels do not divide into {groups} groups")
        self.groups = groups
        self.shape = w.shape
        self.parts = _split(np.ascontiguousarray(w).reshape(groups, w.shape[0] // groups, -1))


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
    rows, columns = _windows(x.shape, (window[0], window[1]), stride, padding)
    images, channels, height, width = x.shape
    if channels != depth * groups:
        raise ShapeError(
            f"weights of shape {w.shape} in {groups} groups need {depth * groups} channels, not {channels}"
        )
    result = np.empty((images, out_channels, rows, columns), np.uint64)
    inner, area = depth * window[0] * window[1], rows * columns
    at_once = max(1, _WINDOW_BYTES // (48 * groups * inner * area))
    x = np.ascontiguousarray(x)
    for start in range(0, images, at_once):
        some = x[start : start + at_once]
        if tuple(window) == (1, 1) and padding == (0, 0):
            parts = _split(some[:, :, :: stride[0], :: stride[1]])
        else:
            parts = np.empty((6, len(some), groups, inner, area))
            kernels.split_columns(
                some.reshape(-1), parts.reshape(-1), len(some) * channels,
                (height, width), (window[0], window[1]), stride, padding,
            )  # fmt: skip
        parts = parts.reshape(6, len(some), groups, inner, area)
        _multiply_parts(w.parts[:, None], parts, result[start : start + at_once])
    return result


def sum_pool2d(x: FieldArray, kernel: Pair, stride: Pair, padding: Pair = (0, 0)) -> FieldArray:
    """Sums mod p over windows of (batch, channels, height, width): average pooling without the division.

    The images are padded with zeros, which count as elements.
    """
    rows, columns = _windows(x.shape, kernel, stride, padding)
    result = np.empty((*x.shape[:2], rows, columns), np.uint64)
    if result.size:
        kernels.sum_windows(flat(x), result.reshape(-1), x.shape[2:], kernel, stride, padding)
    return result


def _windows(shape: Shape, window: Pair, stride: Pair, padding: Pair) -> Pair:
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
