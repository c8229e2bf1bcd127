"""NumPy's functions of order, logic and counts, called with secret tensors."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import UnsupportedError
from protocols.trace.arguments import Axis, numbers
from protocols.trace.comparisons import check_bits
from protocols.trace.counting import Counting
from protocols.trace.numpy_protocol import either, registered

if TYPE_CHECKING:
    from protocols.trace.secret_tensor import SecretTensor

registered(np.sign)(lambda x: x.sign())
registered(np.logical_and, np.bitwise_and)(either(operator.and_, operator.and_))
registered(np.logical_or, np.bitwise_or)(either(operator.or_, operator.or_))
registered(np.logical_xor, np.bitwise_xor)(either(operator.xor, operator.xor))
registered(np.logical_not, np.invert)(operator.invert)


@registered(np.max, np.amax)
def _max(a: SecretTensor, axis: Axis = None, *, keepdims: bool = False) -> SecretTensor:
    return a.max(axis, keepdims)


@registered(np.min, np.amin)
def _min(a: SecretTensor, axis: Axis = None, *, keepdims: bool = False) -> SecretTensor:
    return a.min(axis, keepdims)


@registered(np.ptp)
def _ptp(a: SecretTensor, axis: Axis = None, *, keepdims: bool = False) -> SecretTensor:
    return a.max(axis, keepdims) - a.min(axis, keepdims)


@registered(np.argmax)
def _argmax(a: SecretTensor, axis: int | None = None, *, keepdims: bool = False) -> SecretTensor:
    return a.argmax(axis, keepdims)


@registered(np.argmin)
def _argmin(a: SecretTensor, axis: int | None = None, *, keepdims: bool = False) -> SecretTensor:
    return a.argmin(axis, keepdims)


@registered(np.sort)
def _sort(a: SecretTensor, axis: int | None = -1, kind: str | None = None, *, stable: bool = True) -> SecretTensor:
    return a.sort(axis)  # stable, whatever kind is asked for


@registered(np.argsort)
def _argsort(a: SecretTensor, axis: int | None = -1, kind: str | None = None, *, stable: bool = True) -> SecretTensor:
    return a.argsort(axis)


@registered(np.median)
def _median(a: SecretTensor, axis: int | None = None, *, keepdims: bool = False) -> SecretTensor:
    return a.median(axis, keepdims)


@registered(np.quantile)
def _quantile(a: SecretTensor, q: Any, axis: int | None = None, *, keepdims: bool = False) -> SecretTensor:
    return a.quantile(q, axis, keepdims)


@registered(np.percentile)
def _percentile(a: SecretTensor, q: Any, axis: int | None = None, *, keepdims: bool = False) -> SecretTensor:
    return a.quantile(numbers(q) / 100, axis, keepdims)


@registered(np.searchsorted)
def _searchsorted(a: Any, v: SecretTensor, side: str = "left") -> SecretTensor:
    if isinstance(a, Counting):
        raise UnsupportedError("numpy.searchsorted takes public edges: sort secret ones, and count comparisons")
    return v.searchsorted(a, side)


@registered(np.digitize)
def _digitize(x: SecretTensor, bins: Any, right: bool = False) -> SecretTensor:
    return x.searchsorted(bins, "left" if right else "right")


@registered(np.histogram)
def _histogram(a: SecretTensor, bins: Any) -> tuple[SecretTensor, Any]:
    if np.ndim(bins) != 1:
        raise UnsupportedError("numpy.histogram of secrets takes edges: how many bins fit is theirs to know")
    return a.histogram(bins), numbers(bins)


@registered(np.bincount)
def _bincount(x: SecretTensor, *, minlength: int) -> SecretTensor:
    return x.bincount(minlength)


@registered(np.count_nonzero)
def _count_nonzero(a: SecretTensor, axis: Axis = None, *, keepdims: bool = False) -> SecretTensor:
    there: SecretTensor = a != 0
    return there.sum(axis, keepdims)


@registered(np.any)
def _any(a: SecretTensor, axis: Axis = None, *, keepdims: bool = False) -> SecretTensor:
    check_bits("numpy.any", a)
    found: SecretTensor = a.sum(axis, keepdims) > 0
    return found


@registered(np.all)
def _all(a: SecretTensor, axis: Axis = None, *, keepdims: bool = False) -> SecretTensor:
    check_bits("numpy.all", a)
    counted = a.sum(axis, keepdims)
    found: SecretTensor = counted >= a.size // max(1, counted.size)
    return found


@registered(np.unique)
def _unique(ar: SecretTensor, *options: object, **named: object) -> SecretTensor:
    raise UnsupportedError(
        "which values there are, and how many, is secret: count public ones with x.value_counts(candidates), or"
        " np.bincount(x, minlength=n) of whole numbers"
    )
