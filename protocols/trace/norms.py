"""Norms, and what is divided by them: layer, group and instance norm, RMS norm, unit vectors, standard deviations.

Sums of squares go over any number of orders of magnitude, so 1 / sqrt comes by comparison (``normalised.py``): one
value a row.  Means are not divided by: of n values, n x - sum(x) is exact, and so is what it is divided by.

``error`` is what is shown, and not what rules for single operations would say: how far a norm is off is at most how far
the vector is, so that what x is off by counts (2 + sqrt(n)) / sqrt(eps) times at most.

Rounds: of x less its mean, of the squares' sum, its comparison, the fit, and two of the product; weights take none.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import numpy as np

from mpc.errors import RangeError, ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from protocols.trace import mathematics as m
from protocols.trace.arguments import Axis, integers, numbers, real, reduced_axes, reduced_shape
from protocols.trace.normalised import Normal, normalised
from protocols.trace.softmax import Softmax

RESOLVED = 2.0**4
"""Units of a sum of squares that ``eps`` is at least, or it would not be what it is."""

SMALLEST = 2.0**-40
"""Of a sum of squares, as a part of the largest: less counts as 0, a millionth in the root."""

WEIGHT_BITS = 20
"""Significant ones of public weights."""

UNIT = 2.0**-10
"""By which results may be beyond their bound, as a part and by themselves."""


class Vectors(NamedTuple):
    """What is normed: ``values`` = ``scale`` times x, or x less its mean, as computed; ``squares``: their sum, and the
    largest that it may be; ``unit``: what values are cut to before they are squared, or 0."""

    values: Any
    scale: float
    size: int
    squares: Any
    most: float
    unit: float
    axes: tuple[int, ...]


class Norms(Softmax):
    """Base of ``SecretTensor``."""

    __slots__ = ()

    def layer_norm(
        self, normalized_shape: object, weight: object = None, bias: object = None, eps: float = 1e-5
    ) -> Self:
        """As ``torch.nn.functional.layer_norm``: over the last axes, which have this shape.  A relative error of 1e-5
        of each value, besides what x is off by; ``eps`` counts where the variance is 0."""
        return self._over_last(normalized_shape, weight, bias, eps, centred=True)

    def rms_norm(self, normalized_shape: object, weight: object = None, eps: float | None = None) -> Self:
        """As ``torch.nn.functional.rms_norm``: x over the root of the mean of its squares.  ``eps`` None: 2^-23."""
        return self._over_last(normalized_shape, weight, None, 2.0**-23 if eps is None else eps, centred=False)

    def group_norm(self, num_groups: int, weight: object = None, bias: object = None, eps: float = 1e-5) -> Self:
        """As ``torch.nn.functional.group_norm`` of (N, C, ...): over so many groups of neighbouring channels."""
        x: Any = self
        (groups,) = integers((num_groups,))
        if x.ndim < 2 or groups < 1 or x.shape[1] % groups:
            raise ShapeError(f"{groups} groups of the channels of a tensor of shape {x.shape}")
        split = x.reshape((x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
        each = (groups, x.shape[1] // groups, *(1,) * (x.ndim - 2))
        scaled = [w if w is None else _reshaped(w, (x.shape[1],), each) for w in (weight, bias)]
        return _standardised(split, tuple(range(2, split.ndim)), eps, *scaled, centred=True).reshape(x.shape)  # type: ignore[no-any-return]

    def batch_norm(self, weight: object = None, bias: object = None, eps: float = 1e-5) -> Self:
        """As ``torch.nn.functional.batch_norm`` of (N, C, ...) in training: by the statistics of this batch, over all
        axes but the second."""
        x: Any = self
        if x.ndim < 2:
            raise ShapeError(f"batch_norm takes (N, C, ...), not a tensor of shape {x.shape}")
        each = (x.shape[1], *(1,) * (x.ndim - 2))
        scaled = [w if w is None else _reshaped(w, (x.shape[1],), each) for w in (weight, bias)]
        axes = tuple(a for a in range(x.ndim) if a != 1)
        return _standardised(x, axes, eps, *scaled, centred=True)  # type: ignore[no-any-return]

    def instance_norm(self, weight: object = None, bias: object = None, eps: float = 1e-5) -> Self:
        """As ``torch.nn.functional.instance_norm`` of (N, C, ...), by each one's own statistics."""
        x: Any = self
        if x.ndim < 3:
            raise ShapeError(f"instance_norm takes (N, C, ...), not a tensor of shape {x.shape}")
        return self.group_norm(x.shape[1], weight, bias, eps)

    def normalize(self, axis: Axis = 1, eps: float = 1e-12) -> Self:
        """As ``torch.nn.functional.normalize``: over the root of the sum of squares, or over ``eps`` if that is less.

        Of 0 it is 0.
        """
        x: Any = self
        found = _vectors(x, reduced_axes(axis, x.ndim), centred=False)
        least = _resolution(found)
        squares = found.squares.maximum(eps * eps) if eps * eps > least else found.squares
        return _over_root(x, found, squares, max(eps * eps, least), 1.0, 1.0)  # type: ignore[no-any-return]

    def norm(self, ord: float | str | None = None, axis: Axis = None, keepdims: bool = False) -> Self:
        """Of vectors along some axes, by default all: ``ord`` 2 (None, "fro"), 1, inf or -inf.

        That of 2 to a millionth of the largest that there may be, or a unit of x.
        """
        x: Any = self
        axes = reduced_axes(axis, x.ndim)
        if ord in (None, 2, "fro"):
            return _root(x, _vectors(x, axes, centred=False), 1.0, axes, keepdims)  # type: ignore[no-any-return]
        if ord == 1:
            return abs(x).sum(axes, keepdims)  # type: ignore[no-any-return]
        if ord in (math.inf, -math.inf):
            return abs(x).max(axes, keepdims) if ord == math.inf else abs(x).min(axes, keepdims)  # type: ignore[no-any-return]
        raise UnsupportedError(f"norm of order {ord!r}: there are 1, 2, inf and -inf")

    def std(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> Self:
        """The root of ``var``, to a millionth of the largest that there may be, or a unit of x."""
        x: Any = self
        axes = reduced_axes(axis, x.ndim)
        count = math.prod(x.shape[i] for i in axes)
        if count - ddof <= 0:
            raise ShapeError("the standard deviation of too few elements")
        if count == 1:
            return x.sum(axes, keepdims) * 0.0  # type: ignore[no-any-return]
        return _root(x, _vectors(x, axes, centred=True), 1 / math.sqrt(count - ddof), axes, keepdims)  # type: ignore[no-any-return]

    def _over_last(self, shape: object, weight: object, bias: object, eps: float, *, centred: bool) -> Self:
        x: Any = self
        wanted = integers((shape,))
        if not wanted or x.shape[-len(wanted) :] != wanted:
            raise ShapeError(f"a tensor of shape {x.shape} does not end with axes of shape {wanted}")
        axes = tuple(range(x.ndim - len(wanted), x.ndim))
        scaled = [w if w is None else _reshaped(w, wanted, wanted) for w in (weight, bias)]
        return _standardised(x, axes, eps, *scaled, centred=centred)  # type: ignore[no-any-return]


def _reshaped(weight: Any, shape: Shape, wanted: Shape) -> Any:
    """Weights of this shape, secret or public, in another."""
    if not isinstance(weight, Norms):
        weight = numbers(weight)
    if weight.shape != shape:
        raise ShapeError(f"weights of shape {weight.shape}, not {shape}")
    return weight.reshape(wanted)


def _vectors(x: Any, axes: tuple[int, ...], *, centred: bool) -> Vectors:
    """Local, and the opening of what is squared."""
    low, high = x.type.low, x.type.high
    count = math.prod(x.shape[i] for i in axes)
    if not count:
        raise ShapeError("the norm of no elements")
    values, scale, largest = x, 1.0, max(abs(low), abs(high))
    most = count * largest**2
    if centred:
        twos = (count - 1).bit_length()
        scale = count / 2.0**twos
        largest = (high - low) * (1 - 1 / count) * scale
        values = (x * float(count) - x.sum(axes, keepdims=True)) / 2**twos
        # No values in a range spread more than half of them at each end.
        most = count * ((high - low) / 2 * scale) ** 2
    values = values._new(m.Known(-largest, largest, as_it_is=True))
    squares = values._new(m.SumOfSquares(axes))
    cut = squares.type.fraction_bits < 2 * values.type.fraction_bits
    unit = 2.0 ** -(squares.type.fraction_bits // 2) if cut else 0.0
    # Each may be rounded up by a unit before it is squared.
    end = (math.sqrt(most) + math.sqrt(count) * unit) ** 2
    return Vectors(values, scale, count, squares._new(m.Known(0.0, end, as_it_is=True)), most, unit, axes)


def _resolution(found: Vectors) -> float:
    """The least sum of squares but 0."""
    return float(2.0**-found.squares.type.fraction_bits)


def _standardised(
    x: Any, axes: tuple[int, ...], eps: float, weight: Any = None, bias: Any = None, *, centred: bool
) -> Any:
    """x, less its mean if ``centred``, over the root of ``eps`` and the mean of squares; then weights."""
    eps = real(eps, "eps")
    if not (math.isfinite(eps) and eps >= 0):
        raise UnsupportedError(f"eps is a number from 0, not {eps!r}")
    found = _vectors(x, axes, centred=centred)
    added = found.size * found.scale**2 * eps
    least = _resolution(found)
    if 0 < added < RESOLVED * least:
        raise RangeError(
            f"of {found.size} values in [{x.type.low:g}, {x.type.high:g}] squares are summed to a unit of"
            f" {least:.1g}, which leaves nothing of eps {eps:g}: declare a tighter range with within(low, high), or"
            " give a larger eps"
        )
    bound = math.sqrt(found.size - 1 if centred else found.size)
    squares = found.squares + added if added else found.squares
    result = _over_root(x, found, squares, max(added, least), math.sqrt(found.size), bound, weight, centred=centred)
    return result if bias is None else result + bias


def _over_root(
    x: Any, found: Vectors, squares: Any, least: float, factor: float, bound: float, weight: Any = None, *,
    centred: bool = False,
) -> Any:  # fmt: skip
    """``factor`` times the vectors over the root of ``squares``, which are ``least`` at least, or they are 0.

    Nothing is beyond ``bound``, but by its weight.
    """
    squares = squares._new(m.Known(min(least, squares.type.high), max(squares.type.high, least), as_it_is=True))
    parts = Normal.of(squares, least)
    twos = round(math.log2(factor))
    inverse = parts.fitted("rsqrt", factor / 2.0**twos)
    scaled, of, largest, rounded = found.values, [x], 1.0, 0.0
    if weight is not None and not isinstance(weight, Norms):
        # To so many digits that they are exact.
        largest = float(np.abs(weight).max(initial=0.0))
        rounded = 2.0 ** (math.frexp(largest)[1] - WEIGHT_BITS)
        exact = scaled.precise(WEIGHT_BITS + 4) * (np.rint(weight / rounded) * rounded)
        scaled = type(x)(exact.node, x.label, x.precision)
    elif weight is not None:
        largest = max(abs(weight.type.low), abs(weight.type.high))
        scaled = scaled * weight._new(m.Known(weight.type.low, weight.type.high, as_it_is=True))
        of.append(weight)
    power = parts.chosen(2.0**twos * parts.base**-0.5, 0.25)
    scaled = scaled * power
    # The fit is of what is about 1 to 16: a fifth of it at least.
    beyond = 5 * bound * largest + UNIT
    end = bound * largest * (1 + UNIT) + UNIT
    result = (scaled._new(m.Known(-beyond, beyond)) * inverse)._new(m.Known(-end, end))
    # By how much a root is off at most, in parts of it; and where values are spread over their range.
    roots = [factor / (found.scale * math.sqrt(s)) for s in (least, max(least, found.most / 4))]
    times = [((1 + centred) + bound) * largest * root * found.scale for root in roots]
    cut = [bound * largest * math.sqrt(found.size) * found.unit * root * found.scale / factor for root in roots]
    factors = ((times[0], times[1]), (bound, bound))[: len(of)]
    rounded *= bound / 2
    result = result._joined(m.Like(factors, cut[0] + rounded, cut[1] + rounded), result, *of)
    function = "unit" if bound == 1.0 and factor == 1.0 and not centred else "standardised" if centred else "rms"
    called = m.Called(function, found.axes, found.scale)
    return result._joined(called, result, x, found.values, power, inverse, 1.0 if weight is None else weight)


def _root(x: Any, found: Vectors, factor: float, axes: tuple[int, ...], keepdims: bool) -> Any:
    """``factor`` times the norm of x, or of x less its mean."""
    least = max(_resolution(found), found.most * SMALLEST)
    # More by its unit where it is 0, and by less than that elsewhere.
    root = normalised((found.squares + least)._new(m.Known(least, found.most + least, as_it_is=True)), "sqrt")
    root = root * (factor / found.scale)
    count = math.sqrt(found.size)
    lost = factor / found.scale * (math.sqrt(least) + count * found.unit)
    times = (factor * count, factor)
    root = root._joined(m.Like((times,), lost, lost / 2), root, x)
    root = root._joined(m.Called("root", axes, factor * factor / found.scale), root, x, found.values)
    return root.reshape(reduced_shape(x.shape, axes, keepdims))
