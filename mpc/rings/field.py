"""Arithmetic in the field of p = 2^61 - 1 elements, on NumPy arrays.

A field array is a uint64 array of elements in [0, p).  Functions broadcast as NumPy does and return a new
array, or write to `out`, which may be one of the operands.  They do not check that their operands are
reduced: what came from elsewhere goes through `is_reduced` or `accumulate` first.  An array of another dtype
raises `TypeError`.

p is a Mersenne prime: 2^61 = 1 (mod p), so reduction is a shift and an addition.  A signed value v stands for
v mod p, and [-(p-1)/2, (p-1)/2] is recovered by `to_signed`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.rings import kernels, threads

P = 2**61 - 1

FieldArray = npt.NDArray[np.uint64]
Shape = tuple[int, ...]


def zeros(shape: int | Shape) -> FieldArray:
    """The zero array of this shape."""
    return np.zeros(shape, np.uint64)


def add(x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
    """x + y mod p."""
    return _binary(kernels.add, x, y, out)


def subtract(x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
    """x - y mod p."""
    if y.size > x.size or y.ndim > x.ndim:
        return add(negate(y), x, out)
    return _binary(kernels.subtract, x, y, out)


def multiply(x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
    """x y mod p, elementwise."""
    return _binary(kernels.multiply, x, y, out)


def negate(x: FieldArray, out: FieldArray | None = None) -> FieldArray:
    """-x mod p."""
    return _unary(kernels.negate, x, out, np.uint64)


def multiply_add(x: FieldArray, y: FieldArray, z: FieldArray, out: FieldArray | None = None) -> FieldArray:
    """x y + z mod p, in one pass."""
    if y.size > x.size:
        x, y = y, x
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    x, z = _full(x, shape), _full(z, shape)
    y, period, inner = _repetition(y, shape)
    result = _target(out, shape, x, y, z)
    if result.size:
        _repeated(kernels.multiply_add, [kernels.flat(x), kernels.flat(z)], y, result, period, inner)
    return _deliver(result, out)


def choose(bits: npt.NDArray[np.bool_], x: FieldArray, y: FieldArray) -> FieldArray:
    """x where the bit is set, else y; in a time that no bit decides."""
    shape = np.broadcast_shapes(bits.shape, x.shape, y.shape)
    if bits.shape != shape[len(shape) - bits.ndim :]:
        bits = np.broadcast_to(bits, shape)
    out = np.empty(shape, np.uint64)
    kernels.choose(kernels.flat(bits), kernels.flat(_full(x, shape)), kernels.flat(_full(y, shape)), out.reshape(-1))
    return out


def select(bits: npt.NDArray[np.bool_], x: FieldArray) -> FieldArray:
    """x where the bit, one for each element, is set, else 0; in a time that no bit decides."""
    out = np.empty(x.shape, np.uint64)
    chosen, source, to = kernels.flat(bits), kernels.flat(x), out.reshape(-1)
    if chosen.size != to.size:
        raise ValueError(f"{chosen.size} bits for an array of shape {x.shape}")
    threads.cut(lambda i, j: kernels.select(chosen[i:j], source[i:j], to[i:j]), to.size)
    return out


def halve(x: FieldArray, share: FieldArray, sign: FieldArray, product: FieldArray, less: bool) -> list[FieldArray]:
    """x / 2, and share / 2 + (x sign + product), or less it; of arrays of one shape."""
    half, out = np.empty(x.shape, np.uint64), np.empty(x.shape, np.uint64)
    if not x.shape == share.shape == sign.shape == product.shape:
        raise ValueError(f"shapes {x.shape}, {share.shape}, {sign.shape} and {product.shape} are not the same")
    arrays = [kernels.flat(array) for array in (x, share, sign, product)]
    arrays += [half.reshape(-1), out.reshape(-1)]
    threads.cut(lambda start, stop: kernels.halve(less, *(array[start:stop] for array in arrays)), x.size)
    return [half, out]


def scale(x: FieldArray, k: int, out: FieldArray | None = None) -> FieldArray:
    """k x mod p, for a public integer k of any sign and size."""
    return _binary(kernels.multiply, x, np.array(k % P, np.uint64), out)


def from_signed(x: npt.NDArray[np.int64], out: FieldArray | None = None) -> FieldArray:
    """x mod p, for any int64 values."""
    return _unary(kernels.from_signed, x, out, np.uint64)


def to_signed(x: FieldArray) -> npt.NDArray[np.int64]:
    """The representatives of x in [-(p-1)/2, (p-1)/2]."""
    return _unary(kernels.to_signed, x, None, np.int64)


def total(x: FieldArray, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> FieldArray:
    """The sum mod p over one, several or (None) all axes, of any length."""
    wanted = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    if not all(-x.ndim <= a < x.ndim for a in wanted):
        raise ValueError(f"cannot sum over axes {axis} of an array of shape {x.shape}")
    axes = sorted({a % x.ndim for a in wanted})
    kept = tuple(1 if a in axes else size for a, size in enumerate(x.shape))
    shape = kept if keepdims else tuple(size for a, size in enumerate(x.shape) if a not in axes)
    if axes and axes[-1] - axes[0] >= len(axes):
        rest = [a for a in range(x.ndim) if a not in axes]
        x = x.transpose(*rest, *axes)
        axes = list(range(len(rest), x.ndim))
    length = prod(x.shape[a] for a in axes)
    inner = prod(x.shape[axes[-1] + 1 :]) if axes else 1
    result = zeros(shape)
    if result.size and length:
        source, sums, block = kernels.flat(x), result.reshape(-1), length * inner

        def piece(start: int, stop: int) -> None:
            some = sums[start // block * inner : stop // block * inner]
            kernels.total(source[start:stop], some, length, inner)

        threads.cut(piece, source.size, block)
    return result


def dots(x: FieldArray, y: FieldArray, z: FieldArray) -> FieldArray:
    """The sums mod p of all x y, and of all x z, of arrays of one shape."""
    out = np.empty(2, np.uint64)
    kernels.dots(kernels.flat(x), kernels.flat(y), kernels.flat(z), out)
    return out


def accumulate(acc: FieldArray, incoming: FieldArray) -> bool:
    """acc += incoming mod p, in place; False if an element of `incoming` is not in [0, p).

    Both have one shape and `acc` is C-contiguous.  After False, `acc` holds nothing of use.
    """
    if acc.shape != incoming.shape or not acc.flags.c_contiguous:
        raise ValueError(f"cannot accumulate an array of shape {incoming.shape} into one of shape {acc.shape}")
    total, some = acc.reshape(-1), kernels.flat(incoming)
    return _all(lambda start, stop: kernels.accumulate(total[start:stop], some[start:stop]), total.size)


def accumulated(total: FieldArray, incoming: FieldArray) -> FieldArray | None:
    """As `accumulate` of flat arrays, into one of its own; None if an element of `incoming` is not in [0, p)."""
    if total.shape != incoming.shape:
        raise ValueError(f"cannot accumulate an array of shape {incoming.shape} into one of shape {total.shape}")
    out = np.empty(total.size, np.uint64)
    return out if kernels.accumulated(kernels.flat(total), kernels.flat(incoming), out) else None


def is_reduced(x: FieldArray) -> bool:
    """Whether every element is in [0, p)."""
    some = kernels.flat(x)
    return _all(lambda start, stop: kernels.is_reduced(some[start:stop]), some.size)


def _all(holds: Callable[[int, int], bool], size: int) -> bool:
    """Whether it holds of every piece."""
    found: list[bool] = []
    threads.cut(lambda start, stop: found.append(bool(holds(start, stop))), size)
    return all(found)


def _full(x: FieldArray, shape: Shape) -> FieldArray:
    return x if x.shape == shape else np.ascontiguousarray(np.broadcast_to(x, shape))


def _target(
    out: npt.NDArray[Any] | None, shape: Shape, *operands: npt.NDArray[Any], dtype: Any = np.uint64
) -> npt.NDArray[Any]:
    """Where a kernel writes: `out`, unless it is strided or one of the operands.

    A loop that overwrites its operands is not run as vector code; a copy afterwards is much faster.
    """
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape:
        raise ValueError(f"out has the shape {out.shape}, the result has {shape}")
    separate = out.flags.c_contiguous and not any(np.may_share_memory(out, x) for x in operands)
    return out if separate else np.empty(shape, dtype)


def _deliver(result: npt.NDArray[Any], out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if out is None or out is result:
        return result
    out[...] = result
    return out


def _repetition(y: FieldArray, shape: Shape) -> tuple[FieldArray, int, int]:
    """How y repeats over an array of this shape: (y, period, inner) as the kernels take them.

    A scalar, a row, and one value per channel of an image all repeat without being copied; any other pattern
    is copied.
    """
    if y.shape == shape:
        return y, y.size, 1
    if y.size == 1:
        return y, 1, prod(shape)
    sizes = (1,) * (len(shape) - y.ndim) + y.shape
    own = [axis for axis, size in enumerate(sizes) if size != 1]
    first, after = own[0], own[-1] + 1
    if sizes[first:after] != shape[first:after]:
        y = _full(y, shape)
        return y, y.size, 1
    return y, y.size, prod(shape[after:])


def _binary(function: Callable[..., None], x: FieldArray, y: FieldArray, out: FieldArray | None) -> FieldArray:
    """Apply a kernel to x and y, the smaller one second; a kernel that does not commute gets no larger y."""
    if x.shape == y.shape:
        shape, period, inner = x.shape, x.size, 1
    else:
        if y.size > x.size or y.ndim > x.ndim:
            x, y = y, x
        shape = x.shape if y.ndim == 0 else np.broadcast_shapes(x.shape, y.shape)
        x = _full(x, shape)
        y, period, inner = _repetition(y, shape)
    result = _target(out, shape, x, y)
    if result.size:
        _repeated(function, [kernels.flat(x)], y, result, period, inner)
    return _deliver(result, out)


def _repeated(
    function: Callable[..., None],
    full: Sequence[FieldArray],
    y: FieldArray,
    result: FieldArray,
    period: int,
    inner: int,
) -> None:
    """A kernel of flat ``full`` arrays, the first of them and ``y`` first, in pieces."""
    (x, *rest), y, out = full, kernels.flat(y), result.reshape(-1)
    if out.size < 2 * threads.LEAST:
        function(x, y, *rest, out, period, inner)
        return
    once = period * inner == out.size

    def piece(start: int, stop: int) -> None:
        some = [array[start:stop] for array in rest]
        if period == 1:
            function(x[start:stop], y, *some, out[start:stop], 1, stop - start)
        elif once:
            part = y[start // inner : stop // inner]
            function(x[start:stop], part, *some, out[start:stop], part.size, inner)
        else:
            function(x[start:stop], y, *some, out[start:stop], period, inner)

    threads.cut(piece, out.size, 1 if period == 1 else inner if once else period * inner)


def _unary(
    function: Callable[..., None], x: npt.NDArray[Any], out: npt.NDArray[Any] | None, dtype: Any
) -> npt.NDArray[Any]:
    result = _target(out, x.shape, x, dtype=dtype)
    source, to = kernels.flat(x), result.reshape(-1)
    threads.cut(lambda start, stop: function(source[start:stop], to[start:stop]), to.size)
    return _deliver(result, out)
