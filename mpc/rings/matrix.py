"""Matrix products in the field, exact, through float64 BLAS.

A field element is cut into balanced limbs, x = a0 + a1 2^20 + a2 2^40 (mod p) with |a0|, |a1| <= 2^19 and
|a2| <= 2^20: the value at 2^20 of a polynomial of degree two.  A product of two is a polynomial of degree four, which
follows from its values at five places, and so from five matrix products, after Toom and Cook: at 0, 1, -1, infinity
(the highest coefficients) and, times 16, at 1/2.

**Exactness.**  At no place is a polynomial larger than 4 a0 + 2 a1 + a2, which is at most 2^22 in size, so a product of
two is at most 2^44, and a sum of k of them at most 2^44 k.  A float64 holds every integer up to 2^53, so as
long as k <= 2^9, each partial sum is an exact integer whatever the order of
summation, with or without fused multiply-add.  Longer inner sizes are cut into blocks of `BLOCK` and added up
in the field.

**Tiles.**  Parts take five times as much memory as what they are of, so a large product is made of tiles of the
result, each from parts of its own that are made for it and gone afterwards.  Any thread may do a tile
(`mpc.rings.threads`): BLAS itself has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mpc.errors import ShapeError
from mpc.rings import matrix_kernels as kernels
from mpc.rings import threads
from mpc.rings.field import FieldArray, Shape, add, zeros
from mpc.rings.kernels import flat
from mpc.rings.matrix_kernels import PARTS
from mpc.rings.prg import Seed

BLOCK = 512

KEPT = 1 << 16
"""Elements of a matrix whose limbs are kept, at most: of a larger one they are made anew as fast as they are read."""

TILE = 24 << 20
"""Bytes of parts of either operand that a tile is made of."""

STREAMED = 1 << 23
"""Elements of a matrix whose share is expanded anew for each product, at least."""

AT_ONCE = 1 << 20
"""Elements of such a one that are there at a time, about."""

LEAST = 1 << 22
"""Products of elements in a tile, at least, where there are more tiles for the sake of threads alone."""

Parts = npt.NDArray[np.float64]
"""`PARTS` matrices, or batches of them, one behind the other: what limbs make at each place."""

SPLIT = 8 * PARTS
"""Bytes of the parts of an element."""


class Limbs:
    """A matrix (or a batch of them) made ready for many products: `matmul` takes it in place of the array.

    Holds the field array and, unless it has more than `KEPT` elements, its five float64 matrices: 48 bytes an element.
    """

    __slots__ = ("field", "parts")

    def __init__(self, x: FieldArray) -> None:
        if x.ndim < 2:
            raise ShapeError(f"only arrays of 2 or more dimensions can be split ahead, not one of shape {x.shape}")
        self.field = np.ascontiguousarray(x)
        self.parts = split(self.field) if x.size <= KEPT else None

    @property
    def shape(self) -> Shape:
        """The shape of the field array."""
        return self.field.shape

    @property
    def ndim(self) -> int:
        """The number of its dimensions."""
        return self.field.ndim


class Streamed:
    """The sum of a matrix and of what a seed expands to, made for each product, some rows at a time.

    It takes the memory of the matrix alone, or none, and hardly more time: a row is in the cache when it is used.
    """

    __slots__ = ("_known", "_seed", "shape")

    def __init__(self, known: FieldArray | None, seed: Seed, shape: Shape) -> None:
        """``known``: None stands for zeros.  Raises `ShapeError` unless these are two dimensions."""
        if len(shape) != 2 or (known is not None and known.shape != shape):
            raise ShapeError(f"only matrices are expanded row by row, not a tensor of shape {shape}")
        self._known, self._seed, self.shape = known, seed, shape

    @property
    def ndim(self) -> int:
        """The number of its dimensions."""
        return 2

    def pieces(self) -> Iterator[tuple[slice, FieldArray]]:
        """Rows, and which these are."""
        rows, columns = self.shape
        step = max(2, AT_ONCE // max(columns, 1))
        step = step // BLOCK * BLOCK or step // 2 * 2
        for some in slices(rows, step):
            piece = self._seed.elements((min(some.stop, rows) - some.start, columns), some.start * columns)
            yield some, piece if self._known is None else add(self._known[some], piece, piece)


def _in_pieces(x: FieldArray | Limbs | Streamed, y: FieldArray | Limbs | Streamed) -> FieldArray:
    """x @ y, where one of them is streamed."""
    if isinstance(x, Streamed):
        down = -1 if y.ndim == 1 else -2
        return np.concatenate([matmul(rows, y) for _, rows in x.pieces()], axis=down)
    if not isinstance(y, Streamed):
        raise TypeError("neither is streamed")
    total, whole = None, _field(x)
    for some, rows in y.pieces():
        part = matmul(np.ascontiguousarray(whole[..., some]), rows)
        total = part if total is None else add(total, part, total)
    return zeros((*whole.shape[:-1], y.shape[1])) if total is None else total


def matmul(x: FieldArray | Limbs | Streamed, y: FieldArray | Limbs | Streamed) -> FieldArray:
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
    if isinstance(x, Streamed) or isinstance(y, Streamed):
        product = _in_pieces(x, y)
        product = product[..., 0, :] if row else product
        return product[..., 0] if column else product
    shape = (*batch, m, n)
    if k == 0 or 0 in shape:
        result = zeros(shape)
    elif _integers_win(prod(batch), x, y):
        result = _multiply_small(_field(x), _field(y), batch)
    else:
        result = np.empty(shape, np.uint64)
        _multiply(_Operand.of(x), _Operand.of(y), result)
    if row:
        result = result[..., 0, :]
    return result[..., 0] if column else result


def _integers_win(batch: int, x: FieldArray | Limbs, y: FieldArray | Limbs) -> bool:
    """Whether plain integer arithmetic should beat five BLAS calls, which pay for splitting and reading limbs.

    Estimates in nanoseconds, fitted on an AVX-512 host with one thread; near the crossing either will do.
    """
    (m, k), n = x.shape[-2:], y.shape[-1]
    tail = n % 8 if n > 1 else 0  # columns that do not fill a vector are done one by one
    integers = batch * m * k * (0.45 * n + 4 * tail)
    cut = sum(
        2.0 * prod(operand.shape) for operand in (x, y) if not isinstance(operand, Limbs) or operand.parts is None
    )
    blas = 8000 + cut + batch * (1000 + 0.23 * m * k * n + 0.5 * (m * k + k * n) + m * n)
    return integers < blas


def _field(x: FieldArray | Limbs) -> FieldArray:
    return x.field if isinstance(x, Limbs) else x


def split(x: FieldArray) -> Parts:
    """(`PARTS`, ...) float64; a transposed matrix stays a view, which BLAS takes as it is."""
    if x.ndim >= 2 and not x.flags.c_contiguous and x.swapaxes(-1, -2).flags.c_contiguous:
        return split(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    parts = np.empty((PARTS, *x.shape))
    kernels.split(flat(x), parts.reshape(-1))
    return parts


class _Operand(NamedTuple):
    """(..., rows, columns): elements, or their parts, of which the first axis is not counted."""

    array: npt.NDArray[Any]
    shape: Shape

    @classmethod
    def of(cls, x: FieldArray | Limbs) -> _Operand:
        if isinstance(x, Limbs):
            return cls(x.field if x.parts is None else x.parts, x.shape)
        return cls(x, x.shape)

    @property
    def cut(self) -> bool:
        """Whether these are parts."""
        return self.array.ndim > len(self.shape)

    def of_rank(self, rank: int) -> _Operand:
        """With axes of one before it."""
        shape = (*(1,) * (rank - len(self.shape)), *self.shape)
        return _Operand(self.array.reshape(PARTS, *shape) if self.cut else self.array.reshape(shape), shape)

    def parts(self, batch: Sequence[slice], rows: slice, columns: slice) -> Parts:
        """Of some of it: ``batch`` says which of each axis, and all of an axis of one."""
        which = (slice(None) if n == 1 else at for n, at in zip(self.shape, batch, strict=False))
        some: Any = (*which, rows, columns)
        return self.array[(slice(None), *some)] if self.cut else split(self.array[some])


def _multiply(x: _Operand, y: _Operand, result: FieldArray) -> None:
    """Write to `result` the product of (..., m, k) and (..., k, n), tile by tile."""
    (m, k), n = x.shape[-2:], y.shape[-1]
    if len(y.shape) == 2 and not x.cut and x.array.flags.c_contiguous:
        # A stack of rows is one matrix.
        m = prod(x.shape[:-1])
        x, result = _Operand(x.array.reshape(m, k), (m, k)), result.reshape(m, n)
    rank = max(3, len(x.shape), len(y.shape))
    x, y, result = x.of_rank(rank), y.of_rank(rank), result.reshape(*(1,) * (rank - result.ndim), *result.shape)
    *outer, stack = result.shape[:-2]
    blocks = inner_blocks(k)
    longest = blocks[0].stop
    area, limit = TILE // SPLIT, max(1, TILE // (SPLIT * longest))
    rows = min(m, limit, max(isqrt(area), area // n))
    columns = min(n, limit, area // rows)
    together = max(1, min(stack, TILE // (SPLIT * longest * max(rows, columns))))
    together, rows, columns = _shared((prod(outer), stack, m, n), (together, rows, columns), k)
    batches = product(*(slices(size, 1) for size in outer), slices(stack, together))
    tiles = list(product(batches, slices(m, rows), slices(n, columns)))

    def tile(number: int) -> None:
        batch, down, across = tiles[number]
        to = result[(*batch, down, across)]
        done = to if to.flags.c_contiguous else np.empty(to.shape, np.uint64)
        products = None
        for block in blocks:
            left, right = x.parts(batch, down, block), y.parts(batch, block, across)
            products = np.matmul(left, right, out=products)
            kernels.recombine(products.reshape(-1), done.reshape(-1), block.start > 0)
        if done is not to:
            to[...] = done

    threads.each(tile, len(tiles))


def _shared(sizes: tuple[int, int, int, int], tile: tuple[int, int, int], k: int) -> tuple[int, int, int]:
    """A tile small enough that every thread has one, and large enough to be worth it."""
    outer, stack, m, n = sizes
    together, rows, columns = tile

    def count() -> int:
        return outer * -(-stack // together) * -(-m // rows) * -(-n // columns)

    while count() < threads.in_use() and together * rows * columns * k >= 2 * LEAST:
        if together > 1:
            together = -(-together // 2)
        elif rows >= columns:
            rows = -(-rows // 2)
        else:
            columns = -(-columns // 2)
    return together, rows, columns


def slices(size: int, step: int) -> list[slice]:
    """Of [0, size), as long as each other but for the last."""
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def evenly(size: int, count: int) -> list[slice]:
    """[0, size) in so many, as long as each other but for one element."""
    return [slice(size * i // count, size * (i + 1) // count) for i in range(count)]


def inner_blocks(k: int, step: int = 1) -> list[slice]:
    """Of an inner size: as few as there may be, about as long as each other, multiples of ``step``."""
    count = -(-k // max(step, BLOCK // step * step))
    return slices(k, -(-k // (count * step)) * step)


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
