"""What NumPy takes as arguments (axes, shapes, keys, numbers), checked and made plain."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from mpc.errors import PositionError, RangeError, ShapeError, UnsupportedError
from mpc.tensor_type import FIELD_BITS, Shape
from protocols.lowering.planner import usual_bits
from protocols.trace.sizes import check_moved, check_public, count_of

Axis = int | tuple[int, ...] | None
Pair = int | Sequence[int]
Slices = tuple[tuple[int, int, int], ...]


def axis_of(axis: int, ndim: int) -> int:
    """One of ``ndim`` axes, counted from the front."""
    try:
        axis = operator.index(axis)
    except TypeError:
        raise UnsupportedError(f"an axis is a whole number, not {type(axis).__name__}") from None
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} of a tensor of {ndim} axes")
    return axis % ndim


def whole(value: object, what: str) -> int:
    """A number of things, as an int.  Raises UnsupportedError, saying ``what`` is one, for anything else."""
    if isinstance(value, SupportsIndex) and not isinstance(value, bool | np.bool_):
        with contextlib.suppress(TypeError):  # of an array that holds more than one
            return operator.index(value)
    raise UnsupportedError(f"{what} is a whole number, not {_shown(value)}")


def real(value: object, what: str) -> float:
    """One real number, as a float.  Raises UnsupportedError, saying ``what`` is one, for anything else."""
    if not isinstance(value, str | bytes | bool):
        with contextlib.suppress(TypeError, ValueError):
            return float(value)  # type: ignore[arg-type]
    raise UnsupportedError(f"{what} is a real number, not {_shown(value)}")


def pair_of_ends(interval: object) -> tuple[float, float]:
    """(low, high).  Raises UnsupportedError for anything else."""
    if not isinstance(interval, Sequence) or len(interval) != 2 or isinstance(interval, str):
        raise UnsupportedError(f"an interval is (low, high), not {_shown(interval)}")
    return real(interval[0], "an end of an interval"), real(interval[1], "an end of an interval")


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, float | bool | str | None) else type(value).__name__


def reduced_axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes that a reduction is over, in order: one, some, or all for None."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(axis_of(a, ndim) for a in (axis if isinstance(axis, tuple) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"an axis appears twice in {axis}")
    return tuple(sorted(axes))


def reduced_shape(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """What is left of a shape."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes)


def pair(value: Pair) -> tuple[int, int]:
    """Height and width, from two numbers or from one for both."""
    if not isinstance(value, Sequence):
        return operator.index(value), operator.index(value)
    if len(value) != 2:
        raise ShapeError(f"{value} is not one number or two, for height and width")
    return operator.index(value[0]), operator.index(value[1])


def integers(values: Sequence[Any]) -> tuple[int, ...]:
    """A shape or axes, given as one sequence or as so many arguments.  Raises UnsupportedError for what is neither."""
    if len(values) == 1 and np.ndim(values[0]) > 0:
        values = values[0]
    return tuple(whole(n, "a length or an axis") for n in values)


def declared(low: object, high: object, fraction_bits: object = None) -> tuple[float, float, int]:
    """The range and the fraction bits that a secret is said to have; without ``fraction_bits``, the usual ones.

    Raises RangeError for what is no range, and for so few bits that nothing of it is left; UnsupportedError for what is
    no number of bits.
    """
    try:
        ends = float(low), float(high)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise UnsupportedError("low and high are numbers: between them all values of a secret lie") from None
    if not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] <= ends[1]):
        raise RangeError(
            f"no value lies between low={ends[0]:g} and high={ends[1]:g}: give finite ends, the lower first"
        )
    if fraction_bits is None:
        return (*ends, usual_bits(*ends))
    bits = whole(fraction_bits, "fraction_bits")
    largest, half = max(map(abs, ends)), math.ldexp(0.5, -bits) if 0 <= bits <= FIELD_BITS else 0.0
    if 0.0 < largest <= half:
        raise RangeError(
            f"{bits} fraction bits leave nothing of values up to {largest:g}: all would be 0; leave them out, and there"
            f" are {usual_bits(*ends)}"
        )
    return (*ends, bits)


def lost_to_whole(values: npt.ArrayLike, fraction_bits: int) -> float:
    """What is lost of values without fraction bits, which are taken for whole numbers, where some are not."""
    return 0.0 if fraction_bits or np.array_equal(values, np.rint(values)) else 0.5


def numbers(x: object) -> npt.NDArray[np.float64]:
    """Anything that NumPy can read as real numbers; UnsupportedError for all else, UsageError for too many."""
    check_public(x)
    if np.ma.is_masked(x):
        raise UnsupportedError("an array has masked numbers: say what stands in their place, with filled(...)")
    try:
        # Beyond 64 bits NumPy makes objects of whole numbers.
        array = np.asarray(float(x) if isinstance(x, int) and abs(x) >> 63 else x)
        if array.dtype.kind in "biuf":
            return array.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UnsupportedError(f"{type(x).__name__} is neither a secret tensor nor an array of real numbers")


def is_basic(key: Any) -> bool:
    """Whether it takes no arrays: what is left is integers, slices, ``...`` and None."""
    keys = key if isinstance(key, tuple) else (key,)
    return all(k is None or k is Ellipsis or isinstance(k, slice | str) or _is_integer(k) for k in keys)


def _is_integer(k: Any) -> bool:
    # A sequence, which NumPy would make an array of to see how many axes it has, is no integer.
    return not isinstance(k, bool | np.bool_) and (hasattr(k, "__index__") or isinstance(k, float)) and np.ndim(k) == 0


def check_positions(key: Any) -> None:
    """Raises UnsupportedError for an index that NumPy has no meaning for, that is secret, or that chooses too many."""
    for k in key if isinstance(key, tuple) else (key,):
        check_moved(count_of(k))
        if not is_basic(k) and np.size(k) and np.asarray(k).dtype.kind not in "biu":
            raise UnsupportedError(
                "a secret tensor takes integers, slices, ..., None, and arrays of integers or truth values as indices"
            )


def positions_of(indices: npt.ArrayLike, length: int) -> npt.NDArray[np.int64]:
    """Public positions along an axis, counted from the front.  Raises PositionError, UnsupportedError."""
    check_moved(count_of(indices))
    array = np.asarray(indices)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise UnsupportedError("positions are whole numbers: a secret tensor takes them from public arrays alone")
    outside = array[(array < -length) | (array >= length)]
    if outside.size:
        raise PositionError(f"index {outside.flat[0]} is out of range for an axis of {length}")
    return np.where(array < 0, array + length, array).astype(np.int64)


def slices_of(key: Any, of: Shape) -> tuple[Slices, Shape]:
    """Basic indexing of a tensor of shape ``of``: (start, step, count) for each axis, and the shape of the result."""
    keys = key if isinstance(key, tuple) else (key,)
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if sum(k is Ellipsis for k in keys) > 1 or used > len(of):
        raise ShapeError(f"too many indices for a tensor of shape {of}")
    if not any(k is Ellipsis for k in keys):
        keys = (*keys, Ellipsis)
    slices: list[tuple[int, int, int]] = []
    shape: list[int] = []
    for k in keys:
        if k is None:
            shape.append(1)
        elif k is Ellipsis:
            for n in of[len(slices) : len(slices) + len(of) - used]:
                slices.append((0, 1, n))
                shape.append(n)
        elif isinstance(k, slice):
            chosen = range(*k.indices(of[len(slices)]))
            slices.append((chosen.start, chosen.step, len(chosen)))
            shape.append(len(chosen))
        else:
            n = of[len(slices)]
            if isinstance(k, bool | np.bool_) or np.ndim(k) > 0 or not hasattr(k, "__index__"):
                raise UnsupportedError("a secret tensor takes integers, slices, ... and None as indices")
            position = operator.index(k)
            if not -n <= position < n:
                raise PositionError(f"index {position} is out of range for an axis of {n}")
            slices.append((position % n, 1, 1))
    return tuple(slices), tuple(shape)
