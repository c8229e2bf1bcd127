"""``SecretTensor``: NumPy's names and broadcasting for a tensor that nobody may see.

Nothing runs here.  Each operation adds typed nodes to a graph; ``Client.reveal`` turns the graph into a program and
has the parties run it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import RangeError, ShapeError, UnsupportedError
from mpc.program import Expression, Program
from mpc.tensor_type import Shape, TensorType
from protocols.lowering.planner import FRACTION_BITS, Planner

MAX_POWER = 512

Axis = int | tuple[int, ...] | None
Pair = int | Sequence[int]

_FUNCTIONS: dict[str, Callable[..., Expression]] = {}


def register_function(name: str) -> Callable[[Callable[..., Expression]], Callable[..., Expression]]:
    """Decorator: how ``SecretTensor.name(...)`` becomes nodes of the graph; used by ``protocols``."""

    def keep(lowering: Callable[..., Expression]) -> Callable[..., Expression]:
        _FUNCTIONS[name] = lowering
        return lowering

    return keep


class SecretTensor:
    """A secret-shared tensor of fixed-point numbers, as an expression yet to be run.

    Operands may be secret tensors or anything NumPy makes an array of (then they are public).  Shapes are checked at
    once; ranges and fraction bits are followed through every operation, and what cannot be shown to fit raises
    ``RangeError`` here, before anything is sent.

    ``precision``, where it was set (``precise``), is the number of fraction bits that what is computed from the tensor
    keeps; of two operands that have one, the greater counts.
    """

    __slots__ = ("expression", "label", "precision")
    __array_ufunc__ = None  # so that `array * secret` reaches __rmul__

    def __init__(self, expression: Expression, label: str = "", precision: int | None = None) -> None:
        self.expression = expression
        self.label = label
        self.precision = precision

    @property
    def type(self) -> TensorType:
        return self.expression.type

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.type.size

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a secret scalar has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<SecretTensor {self.type}>"

    def __bool__(self) -> bool:
        raise TypeError("a secret has no truth value that this process may know")

    def labelled(self, label: str) -> SecretTensor:
        """The same tensor; operations on it are counted under ``label`` (a layer's name) in costs and timings."""
        return SecretTensor(self.expression, label, self.precision)

    def precise(self, fraction_bits: int) -> SecretTensor:
        """The same tensor; what is computed from it keeps ``fraction_bits`` where it has to be truncated.

        Public constants are encoded, and functions rounded, to match.  The default is 16; with fewer, results are
        coarser; with more, more truncations may be needed.  Tensors keep the bits that they were shared or uploaded
        with.  Raises RangeError for less than 6 and, because products would not fit the field, for more than 29.
        """
        return SecretTensor(
            self.expression, self.label, Planner(self.label, operator.index(fraction_bits)).fraction_bits
        )

    # -- arithmetic ------------------------------------------------------------------------------------------------

    def __add__(self, other: object) -> SecretTensor:
        return self._sum("add", other)

    def __radd__(self, other: object) -> SecretTensor:
        return self._sum("add", other, reflected=True)

    def __sub__(self, other: object) -> SecretTensor:
        return self._sum("subtract", other)

    def __rsub__(self, other: object) -> SecretTensor:
        return self._sum("subtract", other, reflected=True)

    def __neg__(self) -> SecretTensor:
        return self._linear("negate")

    def __pos__(self) -> SecretTensor:
        return self

    def __mul__(self, other: object) -> SecretTensor:
        x = self._with(other)
        return x._new(x._planner.product("multiply", x.expression, x._factor(other)))

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> SecretTensor:
        """By a public number or array, or (through ``reciprocal``, on its interval) by a secret one."""
        if isinstance(other, SecretTensor):
            return self * other.reciprocal()
        divisor = _numbers(other)
        if not divisor.all():
            raise ZeroDivisionError("division of a secret by a public zero")
        if divisor.ndim == 0 and divisor > 0 and float(divisor).is_integer() and divisor < 2**30:
            return self._new(self._planner.divided(self.expression, int(divisor)))
        return self * (1.0 / divisor)

    def __rtruediv__(self, other: object) -> SecretTensor:
        return self.reciprocal() * other

    def __pow__(self, exponent: int) -> SecretTensor:
        """Integer powers from 0: one opening, whatever the exponent, as far as the range allows."""
        try:
            exponent = operator.index(exponent)
        except TypeError:
            raise UnsupportedError("only integer powers of a secret: use exp and log for others") from None
        if not 0 <= exponent <= MAX_POWER:
            raise UnsupportedError(f"only powers from 0 to {MAX_POWER}: use reciprocal() for negative ones")
        return self.polynomial([0.0] * exponent + [1.0])

    def square(self) -> SecretTensor:
        return self**2

    def __matmul__(self, other: object) -> SecretTensor:
        x = self._with(other)
        return x._matmul(x.expression, x._factor(other))

    def __rmatmul__(self, other: object) -> SecretTensor:
        x = self._with(other)
        return x._matmul(x._factor(other), x.expression)

    # -- reductions ------------------------------------------------------------------------------------------------

    def sum(self, axis: Axis = None, keepdims: bool = False) -> SecretTensor:
        axes = self._axes(axis)
        count = math.prod(self.shape[i] for i in axes)
        return self._new(self._planner.reduced("sum", self.expression, count, axes=axes, keepdims=bool(keepdims)))

    def mean(self, axis: Axis = None, keepdims: bool = False) -> SecretTensor:
        count = math.prod(self.shape[i] for i in self._axes(axis))
        if count == 0:
            raise ShapeError("the mean of no elements")
        return self._new(self._planner.divided(self.sum(axis, keepdims).expression, count))

    # -- shape -----------------------------------------------------------------------------------------------------

    def reshape(self, *shape: int | Sequence[int]) -> SecretTensor:
        wanted = _integers(shape)
        if wanted.count(-1) == 1:
            rest = -math.prod(wanted)
            wanted = tuple(self.size // rest if n == -1 and rest else n for n in wanted)
        if math.prod(wanted) != self.size or any(n < 0 for n in wanted):
            raise ShapeError(f"a tensor of shape {self.shape} cannot be reshaped to {wanted}")
        return self if wanted == self.shape else self._linear("reshape", shape=wanted)

    def flatten(self, start_dim: int = 0) -> SecretTensor:
        """All axes from ``start_dim`` on as one."""
        if not 0 <= start_dim <= self.ndim:
            raise ShapeError(f"start_dim {start_dim} of a tensor of shape {self.shape}")
        return self.reshape((*self.shape[:start_dim], math.prod(self.shape[start_dim:])))

    def transpose(self, *axes: int | Sequence[int]) -> SecretTensor:
        order = tuple(_axis(a, self.ndim) for a in _integers(axes)) if axes else tuple(reversed(range(self.ndim)))
        if sorted(order) != list(range(self.ndim)):
            raise ShapeError(f"{order} does not permute the axes of a tensor of shape {self.shape}")
        return self._linear("transpose", axes=order)

    @property
    def T(self) -> SecretTensor:  # noqa: N802 - NumPy's name
        return self.transpose()

    def squeeze(self, axis: int) -> SecretTensor:
        axis = _axis(axis, self.ndim)
        if self.shape[axis] != 1:
            raise ShapeError(f"axis {axis} of a tensor of shape {self.shape} is not 1")
        return self.reshape(self.shape[:axis] + self.shape[axis + 1 :])

    def expand_dims(self, axis: int) -> SecretTensor:
        axis = _axis(axis, self.ndim + 1)
        return self.reshape((*self.shape[:axis], 1, *self.shape[axis:]))

    def broadcast_to(self, shape: Sequence[int]) -> SecretTensor:
        wanted = _integers(shape)
        try:
            fits = np.broadcast_shapes(self.shape, wanted) == wanted
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"a tensor of shape {self.shape} does not broadcast to {wanted}")
        return self._linear("broadcast", shape=wanted)

    def __getitem__(self, key: Any) -> SecretTensor:
        """Basic indexing: integers, slices, ``...`` and ``None``, all public."""
        keys = key if isinstance(key, tuple) else (key,)
        used = sum(k is not None and k is not Ellipsis for k in keys)
        if sum(k is Ellipsis for k in keys) > 1 or used > self.ndim:
            raise ShapeError(f"too many indices for a tensor of shape {self.shape}")
        if not any(k is Ellipsis for k in keys):
            keys = (*keys, Ellipsis)
        slices: list[tuple[int, int, int]] = []
        shape: list[int] = []
        for k in keys:
            if k is None:
                shape.append(1)
            elif k is Ellipsis:
                for n in self.shape[len(slices) : len(slices) + self.ndim - used]:
                    slices.append((0, 1, n))
                    shape.append(n)
            elif isinstance(k, slice):
                chosen = range(*k.indices(self.shape[len(slices)]))
                slices.append((chosen.start, chosen.step, len(chosen)))
                shape.append(len(chosen))
            else:
                n = self.shape[len(slices)]
                if isinstance(k, bool | np.bool_) or np.ndim(k) > 0 or not hasattr(k, "__index__"):
                    raise UnsupportedError("a secret tensor takes integers, slices, ... and None as indices")
                position = operator.index(k)
                if not -n <= position < n:
                    raise IndexError(f"index {position} is out of range for an axis of {n}")
                slices.append((position % n, 1, 1))
        return self._linear("index", slices=tuple(slices)).reshape(tuple(shape))

    def pad(self, widths: Sequence[tuple[int, int]]) -> SecretTensor:
        """Zeros around: ``widths`` holds (before, after) for each axis, as in ``numpy.pad``."""
        pairs = tuple((operator.index(a), operator.index(b)) for a, b in widths)
        return self._linear("pad", widths=pairs)

    # -- layers ----------------------------------------------------------------------------------------------------

    def conv2d(self, weight: object, *, stride: Pair = 1, padding: Pair = 0, groups: int = 1) -> SecretTensor:
        """Cross-correlation of (N, C, H, W) with (O, C / groups, kh, kw), as in ``torch.nn.functional``."""
        x = self._with(weight)
        w = x._factor(weight)
        if self.ndim != 4 or len(w.type.shape) != 4:
            raise ShapeError(
                f"conv2d takes (N, C, H, W) and (O, C / groups, kh, kw), not {self.shape} and {w.type.shape}"
            )
        return x._new(
            x._planner.product(
                "conv2d", self.expression, w, _growth(self.type, w.type, math.prod(w.type.shape[1:])),
                stride=_pair(stride), padding=_pair(padding), groups=groups,
            )
        )  # fmt: skip

    def avg_pool2d(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> SecretTensor:
        """Means over windows of (N, C, H, W), padding counted; local, and free of arithmetic for a 2^k window."""
        kernel = _pair(kernel_size)
        if min(kernel) < 1:
            raise ShapeError(f"a pooling window of {kernel}")
        pooled = self._planner.reduced(
            "sum_pool2d", self.expression, math.prod(kernel),
            kernel=kernel, stride=kernel if stride is None else _pair(stride), padding=_pair(padding),
        )  # fmt: skip
        return self._new(self._planner.divided(pooled, math.prod(kernel)))

    # -- functions -------------------------------------------------------------------------------------------------

    def polynomial(self, coefficients: Sequence[float]) -> SecretTensor:
        """c0 + c1 x + c2 x^2 + ...: one opening."""
        return self._call("polynomial", coefficients=tuple(float(c) for c in coefficients))

    def apply(self, fit: object, *, target: float = 0.0) -> SecretTensor:
        """An approximation made by ``protocols.approximation`` (``fit``, ``fit_polynomial``, ...).

        Rounding adds at most the fit's own error, or ``target`` where that is larger.
        """
        return self._call("apply", fit=fit, target=target)

    def sigmoid(self, **options: Any) -> SecretTensor:
        """1 / (1 + exp(-x)).  Options as for every function: ``method``, ``interval``, ``terms`` or ``degree``."""
        return self._call("sigmoid", **options)

    def tanh(self, **options: Any) -> SecretTensor:
        return self._call("tanh", **options)

    def exp(self, **options: Any) -> SecretTensor:
        return self._call("exp", **options)

    def log(self, **options: Any) -> SecretTensor:
        return self._call("log", **options)

    def reciprocal(self, **options: Any) -> SecretTensor:
        return self._call("reciprocal", **options)

    def sin(self, **options: Any) -> SecretTensor:
        return self._call("sin", **options)

    def cos(self, **options: Any) -> SecretTensor:
        return self._call("cos", **options)

    def silu(self, **options: Any) -> SecretTensor:
        return self._call("silu", **options)

    def gelu(self, **options: Any) -> SecretTensor:
        return self._call("gelu", **options)

    def softplus(self, **options: Any) -> SecretTensor:
        return self._call("softplus", **options)

    def truncate(self, fraction_bits: int = FRACTION_BITS) -> SecretTensor:
        """The same values with fewer fraction bits (stochastically rounded); seldom needed: the planner does it."""
        fraction_bits = operator.index(fraction_bits)
        if fraction_bits < 0:
            raise RangeError(f"{fraction_bits} is not a number of fraction bits")
        return self._new(self._planner.truncated(self.expression, fraction_bits))

    def within(self, low: float, high: float) -> SecretTensor:
        """The same values, *declared* to lie in [low, high].

        A promise of the caller about its own data or model which nobody can check on secrets: where it does not hold,
        results are wrong (never less secret).
        """
        return self._linear("declare", low=float(low), high=float(high))

    # -- building --------------------------------------------------------------------------------------------------

    @property
    def _planner(self) -> Planner:
        return Planner(self.label) if self.precision is None else Planner(self.label, self.precision)

    def _new(self, expression: Expression) -> SecretTensor:
        return SecretTensor(expression, self.label, self.precision)

    def _with(self, other: object) -> SecretTensor:
        """The same tensor, with the precision of an operation on it and ``other``."""
        precision = _precision(self, other)
        return self if precision == self.precision else SecretTensor(self.expression, self.label, precision)

    def _factor(self, other: object) -> Expression:
        return other.expression if isinstance(other, SecretTensor) else self._planner.factor(_numbers(other), self.type)

    def _sum(self, name: str, other: object, *, reflected: bool = False) -> SecretTensor:
        x = self._with(other)
        operands = (x.expression, _as_expression(other, x._planner))
        return x._new(x._planner.sum(name, *(reversed(operands) if reflected else operands)))

    def _linear(self, name: str, **attributes: Any) -> SecretTensor:
        return self._new(self._planner.make(name, self.expression, **attributes))

    def _matmul(self, x: Expression, y: Expression) -> SecretTensor:
        if not x.type.shape or not y.type.shape:
            raise ShapeError("matmul takes tensors of at least one axis: use * for scalars")
        return self._new(self._planner.product("matmul", x, y, _growth(x.type, y.type, x.type.shape[-1])))

    def _call(self, name: str, **options: Any) -> SecretTensor:
        if name not in _FUNCTIONS:
            raise UnsupportedError(f"there is no function {name!r}; `import protocols` makes the built-in ones known")
        return self._new(_FUNCTIONS[name](self._planner, self.expression, **options))

    def _axes(self, axis: Axis) -> tuple[int, ...]:
        if axis is None:
            return tuple(range(self.ndim))
        axes = tuple(_axis(a, self.ndim) for a in (axis if isinstance(axis, tuple) else (axis,)))
        if len(set(axes)) != len(axes):
            raise ShapeError(f"an axis appears twice in {axis}")
        return tuple(sorted(axes))


def program_of(outputs: Sequence[SecretTensor], kept: Mapping[str, SecretTensor] | None = None) -> Program:
    """The program that reveals ``outputs``, and keeps ``kept`` under the names of the stored tensors they become.

    It says the greatest precision that any of them has.
    """
    keeping = [Planner(x.label).make("keep", x.expression, tensor=name) for name, x in (kept or {}).items()]
    precision = _precision(*outputs, *(kept or {}).values())
    expressions = [x.expression for x in outputs]
    return Program.of(expressions, keeping, FRACTION_BITS if precision is None else precision)


def _as_expression(x: object, planner: Planner) -> Expression:
    """A secret tensor's expression, or a public constant of anything NumPy can read."""
    return x.expression if isinstance(x, SecretTensor) else planner.constant(_numbers(x))


def _precision(*operands: object) -> int | None:
    """The greatest that an operand has; None if none has any."""
    return max((x.precision for x in operands if isinstance(x, SecretTensor) and x.precision is not None), default=None)


def _numbers(x: object) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(x)
        if array.dtype.kind in "biuf":
            return array.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        pass
    raise UnsupportedError(f"{type(x).__name__} is neither a secret tensor nor an array of real numbers")


def concatenate(tensors: Sequence[SecretTensor | npt.ArrayLike], axis: int = 0) -> SecretTensor:
    """Join along an existing axis, as ``numpy.concatenate``; public arrays may be among the tensors."""
    secret = [t for t in tensors if isinstance(t, SecretTensor)]
    if not secret:
        raise ShapeError("nothing to join: at least one tensor has to be secret")
    first = SecretTensor(secret[0].expression, secret[0].label, _precision(*secret))
    planner = first._planner
    expressions = [_as_expression(t, planner) for t in tensors]
    axis = _axis(axis, len(expressions[0].type.shape))
    return first._new(planner.make("concatenate", *planner.aligned(expressions), axis=axis))


def stack(tensors: Sequence[SecretTensor], axis: int = 0) -> SecretTensor:
    """Join along a new axis, as ``numpy.stack``."""
    if len({t.shape for t in tensors}) != 1:
        raise ShapeError("a stack takes at least one tensor, and all of one shape")
    return concatenate([t.expand_dims(axis) for t in tensors], axis=_axis(axis, tensors[0].ndim + 1))


def _growth(x: TensorType, w: TensorType, inner: int) -> float:
    """How much larger a sum of ``inner`` products can be than one of them."""
    if w.gain is not None and w.magnitude > 0:
        return min(float(inner), w.gain / w.magnitude)
    return float(inner)


def _axis(axis: int, ndim: int) -> int:
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis {axis} of a tensor of {ndim} axes")
    return axis % ndim


def _pair(value: Pair) -> tuple[int, int]:
    if not isinstance(value, Sequence):
        return operator.index(value), operator.index(value)
    if len(value) != 2:
        raise ShapeError(f"{value} is not one number or two, for height and width")
    return operator.index(value[0]), operator.index(value[1])


def _integers(values: Sequence[Any]) -> tuple[int, ...]:
    """A shape or axes, given as one sequence or as so many arguments."""
    if len(values) == 1 and np.ndim(values[0]) > 0:
        values = values[0]
    return tuple(operator.index(n) for n in values)
