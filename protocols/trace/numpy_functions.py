"""NumPy's functions on secret tensors: what ``numpy.mean(x)``, ``numpy.einsum(...)`` and the like mean here.

Sums, products and elements at public positions: all of it in terms of the methods of a secret tensor, which cost what
they say there.  `protocols.trace.numpy_protocol` is how NumPy finds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import ShapeError, UnsupportedError
from protocols.trace.arguments import Axis, axis_of, integers, numbers
from protocols.trace.numpy_protocol import registered
from protocols.trace.secret_tensor import SecretTensor, concatenate, moved, stack
from protocols.trace.sizes import check_moved, count_of

Operand = SecretTensor | npt.ArrayLike


# -- arithmetic and functions ------------------------------------------------------------------------------------------


def _operator(name: str) -> Callable[[Any, Any], SecretTensor]:
    """``x + y`` and the like where either may be an array: not by the operator, which would ask NumPy again."""
    ours, reflected = (getattr(SecretTensor, f"__{prefix}{name}__") for prefix in ("", "r"))

    def apply(x: Any, y: Any) -> SecretTensor:
        result: SecretTensor = ours(x, y) if isinstance(x, SecretTensor) else reflected(y, x)
        return result

    return apply


registered(np.add)(_operator("add"))
registered(np.subtract)(_operator("sub"))
registered(np.multiply)(_operator("mul"))
registered(np.divide)(_operator("truediv"))
registered(np.matmul)(_operator("matmul"))
registered(np.negative)(lambda x: -x)
registered(np.positive)(lambda x: x)
registered(np.square)(lambda x: x.square())
registered(np.exp)(lambda x: x.exp())
registered(np.log)(lambda x: x.log())
registered(np.sqrt)(lambda x: x.sqrt())
registered(np.sin)(lambda x: x.sin())
registered(np.cos)(lambda x: x.cos())
registered(np.tanh)(lambda x: x.tanh())
registered(np.reciprocal)(lambda x: x.reciprocal())
registered(np.absolute)(lambda x: abs(x))
registered(np.floor_divide)(lambda x, y: _secret(x, y) // 1)
registered(np.remainder)(lambda x, y: _secret(x, y) % 1)


@registered(np.power)
def _power(x: Operand, exponent: Any) -> SecretTensor:
    result: SecretTensor = x**exponent if isinstance(x, SecretTensor) else exponent.__rpow__(x)
    return result


def _secret(*operands: Any) -> SecretTensor:
    return next(x for x in operands if isinstance(x, SecretTensor))


# -- reductions --------------------------------------------------------------------------------------------------------


@registered(np.sum)
def _sum(a: SecretTensor, axis: Axis = None, *, keepdims: bool = False) -> SecretTensor:
    return a.sum(axis, keepdims)


@registered(np.mean)
def _mean(a: SecretTensor, axis: Axis = None, *, keepdims: bool = False) -> SecretTensor:
    return a.mean(axis, keepdims)


@registered(np.average)
def _average(a: SecretTensor, axis: int | None = None, weights: Operand | None = None) -> SecretTensor:
    if weights is None:
        return a.mean(axis)
    public = numbers(weights)
    if axis is not None and public.shape == (a.shape[axis_of(axis, a.ndim)],):
        public = public.reshape([-1 if i == axis_of(axis, a.ndim) else 1 for i in range(a.ndim)])
    elif public.shape != a.shape:
        raise ShapeError(f"weights of shape {public.shape} for a tensor of shape {a.shape}")
    total = np.broadcast_to(public, a.shape).sum(axis=axis)
    if not np.all(total):
        raise ZeroDivisionError("weights that sum up to zero")
    weighted: SecretTensor = (a * public).sum(axis) / total
    return weighted


@registered(np.var)
def _var(a: SecretTensor, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> SecretTensor:
    return a.var(axis, ddof, keepdims)


@registered(np.cumsum)
def _cumsum(a: SecretTensor, axis: int | None = None) -> SecretTensor:
    return a.cumsum(axis)


@registered(np.trace)
def _trace(a: SecretTensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> SecretTensor:
    return a.diagonal(offset, axis1, axis2).sum(-1)


@registered(np.diff)
def _diff(a: SecretTensor, n: int = 1, axis: int = -1) -> SecretTensor:
    axis = axis_of(axis, a.ndim)
    for _ in range(n):
        later, former = (a[(slice(None),) * axis + (part,)] for part in (slice(1, None), slice(None, -1)))
        a = later - former
    return a


# -- shapes ------------------------------------------------------------------------------------------------------------


@registered(np.broadcast_to)
def broadcast(array: Operand, shape: Any) -> Any:
    wanted = integers([shape])
    return array.broadcast_to(wanted) if isinstance(array, SecretTensor) else np.broadcast_to(array, wanted)


@registered(np.reshape)
def _reshape(a: SecretTensor, shape: Any, order: str = "C") -> SecretTensor:
    if order != "C":
        raise UnsupportedError(f"reshape in the order {order!r}: transpose first")
    return a.reshape(shape)


@registered(np.ravel)
def _ravel(a: SecretTensor) -> SecretTensor:
    return a.reshape(-1)


@registered(np.transpose, np.permute_dims)
def _transpose(a: SecretTensor, axes: Any = None) -> SecretTensor:
    return a.transpose() if axes is None else a.transpose(axes)


@registered(np.swapaxes)
def _swapaxes(a: SecretTensor, axis1: int, axis2: int) -> SecretTensor:
    return a.swapaxes(axis1, axis2)


@registered(np.moveaxis)
def _moveaxis(a: SecretTensor, source: Any, destination: Any) -> SecretTensor:
    order = np.moveaxis(np.broadcast_to(0, range(1, a.ndim + 1)), source, destination).shape
    return a.transpose([n - 1 for n in order])


@registered(np.squeeze)
def _squeeze(a: SecretTensor, axis: Axis = None) -> SecretTensor:
    return a.reshape(_like(np.squeeze, a, axis).shape)


@registered(np.expand_dims)
def _expand_dims(a: SecretTensor, axis: Any) -> SecretTensor:
    return a.reshape(_like(np.expand_dims, a, axis).shape)


@registered(np.atleast_1d, np.atleast_2d, np.atleast_3d)
def _at_least(*_: Any) -> Any:
    raise UnsupportedError("write expand_dims or reshape: a secret tensor has the axes that it was shared with")


@registered(np.shape)
def _shape(a: SecretTensor) -> Any:
    return a.shape


@registered(np.ndim)
def _ndim(a: SecretTensor) -> int:
    return a.ndim


@registered(np.size)
def _size(a: SecretTensor, axis: int | None = None) -> int:
    return a.size if axis is None else a.shape[axis_of(axis, a.ndim)]


@registered(np.zeros_like)
def _zeros_like(a: SecretTensor) -> npt.NDArray[np.float64]:
    return np.zeros(a.shape)


@registered(np.ones_like)
def _ones_like(a: SecretTensor) -> npt.NDArray[np.float64]:
    return np.ones(a.shape)


@registered(np.full_like)
def _full_like(a: SecretTensor, fill_value: Any) -> npt.NDArray[np.float64]:
    return np.full(a.shape, fill_value, np.float64)


@registered(np.copy)
def _copy(a: SecretTensor) -> SecretTensor:
    return a


# -- elements at public positions --------------------------------------------------------------------------------------


@registered(np.take)
def _take(a: SecretTensor, indices: Any, axis: int | None = None) -> SecretTensor:
    return a.take(indices, axis)


@registered(np.diagonal)
def _diagonal(a: SecretTensor, offset: int = 0, axis1: int = 0, axis2: int = 1) -> SecretTensor:
    return a.diagonal(offset, axis1, axis2)


@registered(np.diag)
def _diag(v: SecretTensor, k: int = 0) -> SecretTensor:
    if v.ndim == 2:
        return v.diagonal(k)
    if v.ndim != 1:
        raise ShapeError(f"diag takes a vector or a matrix, not a tensor of shape {v.shape}")
    check_moved((v.size + abs(int(k))) ** 2)
    return _with_zero(v, lambda places: np.diag(places + 1, k) - 1)


@registered(np.tril)
def _tril(m: SecretTensor, k: int = 0) -> SecretTensor:
    return _with_zero(m, lambda places: np.tril(places + 1, k) - 1)


@registered(np.triu)
def _triu(m: SecretTensor, k: int = 0) -> SecretTensor:
    return _with_zero(m, lambda places: np.triu(places + 1, k) - 1)


@registered(np.flip)
def _flip(m: SecretTensor, axis: Axis = None) -> SecretTensor:
    chosen = range(m.ndim) if axis is None else [axis_of(i, m.ndim) for i in np.atleast_1d(axis)]
    return m[tuple(slice(None, None, -1 if i in chosen else 1) for i in range(m.ndim))]


@registered(np.fliplr)
def _fliplr(m: SecretTensor) -> SecretTensor:
    return _flip(m, 1)


@registered(np.flipud)
def _flipud(m: SecretTensor) -> SecretTensor:
    return _flip(m, 0)


@registered(np.rot90)
def _rot90(m: SecretTensor, k: int = 1, axes: Any = (0, 1)) -> SecretTensor:
    return moved(m, lambda places: np.rot90(places, k, axes))


@registered(np.roll)
def _roll(a: SecretTensor, shift: Any, axis: Any = None) -> SecretTensor:
    return moved(a, lambda places: np.roll(places, shift, axis))


@registered(np.repeat)
def _repeat(a: SecretTensor, repeats: Any, axis: int | None = None) -> SecretTensor:
    times, rows = np.asarray(repeats), a.size if axis is None else a.shape[axis_of(axis, a.ndim)]
    if times.size and times.dtype.kind not in "iu":
        raise ShapeError(f"an element is repeated a whole number of times, not {repeats!r}")
    check_moved(int(times.sum(dtype=np.float64)) * a.size // (1 if times.size == 1 else max(rows, 1)))
    return moved(a, lambda places: np.repeat(places, repeats, axis))


@registered(np.tile)
def _tile(A: SecretTensor, reps: Any) -> SecretTensor:  # noqa: N803 - NumPy's name
    check_moved(A.size * math.prod(integers([reps])))
    return moved(A, lambda places: np.tile(places, reps))


@registered(np.resize)
def _resize(a: SecretTensor, new_shape: Any) -> SecretTensor:
    check_moved(math.prod(integers([new_shape])))
    return moved(a, lambda places: np.resize(places, new_shape))


@registered(np.delete)
def _delete(arr: SecretTensor, obj: Any, axis: int | None = None) -> SecretTensor:
    return moved(arr, lambda places: np.delete(places, obj, axis))


_MODES = ("edge", "reflect", "symmetric", "wrap")
"""Of padding that repeats what is there."""


@registered(np.pad)
def _pad(array: SecretTensor, pad_width: Any, mode: str = "constant", **options: Any) -> SecretTensor:
    constant = numbers(options.pop("constant_values", 0)) if mode == "constant" else None
    try:
        widths = np.broadcast_to(np.asarray(pad_width).astype(np.int64, casting="safe"), (array.ndim, 2))
    except (TypeError, ValueError):
        raise ShapeError(f"pad of {array.ndim} axes takes a whole number, or two of each axis") from None
    if constant is None:
        if mode not in _MODES:
            raise UnsupportedError(f"pad of a secret tensor in mode {mode!r}: there are constant, {', '.join(_MODES)}")
        check_moved(math.prod(n + int(a) + int(b) for n, (a, b) in zip(array.shape, widths, strict=True)))
        return moved(array, lambda places: np.pad(places, widths, mode, **options))  # type: ignore[call-overload]
    if constant.any() or options:
        raise UnsupportedError(f"pad of a secret tensor is with zeros, or in the modes {', '.join(_MODES)}")
    return array.pad([(int(a), int(b)) for a, b in widths])


@registered(np.where)
def where(condition: SecretTensor | npt.ArrayLike, x: Operand, y: Operand) -> SecretTensor:
    """Elements of ``x`` where the condition holds, of ``y`` elsewhere, as ``numpy.where``; a secret one is 0 or 1."""
    if isinstance(condition, SecretTensor):
        return condition.where(x, y)
    check_moved(count_of(condition))
    chosen = np.asarray(condition, dtype=bool)
    shape = np.broadcast_shapes(chosen.shape, *(np.shape(z) for z in (x, y)))
    size = math.prod(shape)
    check_moved(2 * size)
    both = concatenate([broadcast(z, shape).reshape(-1) for z in arrays(x, y)])
    places = np.arange(size).reshape(shape)
    return both.take(np.where(chosen, places, places + size))


def _with_zero(x: SecretTensor, places: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> SecretTensor:
    """Elements of x at these places of it, and zeros at the place -1."""
    check_moved(x.size)
    wanted = places(np.arange(x.size).reshape(x.shape))
    return concatenate([x.reshape(-1), np.zeros(1)]).take(np.where(wanted < 0, x.size, wanted))


# -- joining and cutting -----------------------------------------------------------------------------------------------

registered(np.concatenate)(concatenate)
registered(np.stack)(stack)


@registered(np.vstack)
def _vstack(tup: Sequence[Operand]) -> SecretTensor:
    return concatenate([x if x.ndim > 1 else x.reshape(1, -1) for x in arrays(*tup)])


@registered(np.hstack)
def _hstack(tup: Sequence[Operand]) -> SecretTensor:
    parts = [x if x.ndim else x.reshape(1) for x in arrays(*tup)]
    return concatenate(parts, axis=0 if parts[0].ndim == 1 else 1)


@registered(np.column_stack)
def _column_stack(tup: Sequence[Operand]) -> SecretTensor:
    return concatenate([x if x.ndim > 1 else x.reshape(-1, 1) for x in arrays(*tup)], axis=1)


@registered(np.append)
def _append(arr: Operand, values: Operand, axis: int | None = None) -> SecretTensor:
    parts = arrays(arr, values)
    return concatenate([x.reshape(-1) for x in parts]) if axis is None else concatenate(parts, axis)


@registered(np.split)
def _split(ary: SecretTensor, indices_or_sections: Any, axis: int = 0) -> list[SecretTensor]:
    length = ary.shape[axis_of(axis, ary.ndim)]
    if np.ndim(indices_or_sections) == 0 and length % int(indices_or_sections):
        raise ShapeError(f"an axis of {length} is not split into {indices_or_sections} equal parts: use array_split")
    return _array_split(ary, indices_or_sections, axis)


@registered(np.array_split)
def _array_split(ary: SecretTensor, indices_or_sections: Any, axis: int = 0) -> list[SecretTensor]:
    axis = axis_of(axis, ary.ndim)
    parts = np.array_split(np.arange(ary.shape[axis]), indices_or_sections)
    cuts = [slice(part[0], part[-1] + 1) if len(part) else slice(0, 0) for part in parts]
    return [ary[(slice(None),) * axis + (cut,)] for cut in cuts]


@registered(np.hsplit)
def _hsplit(ary: SecretTensor, indices_or_sections: Any) -> list[SecretTensor]:
    return _split(ary, indices_or_sections, 0 if ary.ndim == 1 else 1)


@registered(np.vsplit)
def _vsplit(ary: SecretTensor, indices_or_sections: Any) -> list[SecretTensor]:
    return _split(ary, indices_or_sections)


def arrays(*operands: Operand) -> list[Any]:
    """Secret tensors as they are, all else as arrays of numbers: both have the methods that are used here."""
    return [x if isinstance(x, SecretTensor) else numbers(x) for x in operands]


def _like(function: Callable[..., Any], a: SecretTensor, *arguments: Any) -> Any:
    """What NumPy's function makes of an array of that shape that takes no memory."""
    try:
        return function(np.broadcast_to(0, a.shape), *arguments)
    except ValueError as error:
        raise ShapeError(f"{function.__name__} of a tensor of shape {a.shape}: {error}") from None
