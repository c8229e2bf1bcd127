"""``SecretTensor``: NumPy's names and broadcasting for a tensor that nobody may see.

Nothing runs here.  Each operation adds a node of mathematics to a graph; ``Client.reveal`` has the graph planned as a
program (``protocols.lowering``) and the parties run it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import PositionError, RangeError, ShapeError, UnknownValueError, UnsupportedError
from mpc.operation import Input, Stored
from mpc.program_format import DATA, Keeping
from mpc.tensor_type import Shape, TensorType
from protocols.lowering.plan import lowered
from protocols.lowering.planner import FRACTION_BITS, check_precision
from protocols.trace import mathematics as m
from protocols.trace import numpy_protocol
from protocols.trace.activations import Activations
from protocols.trace.arguments import (
    Axis,
    Pair,
    axis_of,
    check_positions,
    integers,
    is_basic,
    numbers,
    pair,
    positions_of,
    real,
    reduced_axes,
    slices_of,
    whole,
)
from protocols.trace.norms import Norms
from protocols.trace.sizes import check_moved
from protocols.trace.stated import Stated

MAX_POWER = 512


class SecretTensor(Activations, Stated, Norms):
    """A secret-shared tensor of fixed-point numbers, as an expression yet to be run.

    Operands may be secret tensors or anything NumPy makes an array of (then they are public).  Shapes are checked at
    once; ranges and fraction bits are followed through every operation, and what cannot be shown to fit raises
    ``RangeError`` here, before anything is sent.

    ``precision``, where it was set (``precise``), is the number of fraction bits that what is computed from the tensor
    keeps; of two operands that have one, the greater counts.
    """

    __slots__ = ("label", "node", "precision", "type")

    def __init__(self, node: m.Node, label: str = "", precision: int | None = None) -> None:
        self.node = node
        self.label = label
        self.precision = precision
        self.type: TensorType = lowered(node).type

    @property
    def shape(self) -> Shape:
        """Lengths of its axes."""
        return self.type.shape

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements it has."""
        return self.type.size

    def __len__(self) -> int:
        if not self.shape:
            raise UnknownValueError("a secret scalar has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[SecretTensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"<SecretTensor {self.type}>"

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> Any:
        return numpy_protocol.call_ufunc(ufunc, method, operands, options)

    def __array_function__(self, function: Any, types: object, arguments: Any, options: dict[str, Any]) -> Any:
        return numpy_protocol.call(function, arguments, options)

    def labelled(self, label: str) -> SecretTensor:
        """The same tensor; operations on it are counted under ``label`` (a layer's name) in costs and timings."""
        return SecretTensor(self.node, label, self.precision)

    def precise(self, fraction_bits: int) -> SecretTensor:
        """The same tensor; what is computed from it keeps ``fraction_bits`` where it has to be truncated.

        Public constants are encoded, and functions rounded, to match.  The default is 16; with fewer, results are
        coarser; with more, more truncations may be needed.  Tensors keep the bits that they were shared or uploaded
        with.  Raises RangeError for less than 6 and, because products would not fit the field, for more than 29.
        """
        return SecretTensor(self.node, self.label, check_precision(whole(fraction_bits, "fraction_bits")))

    # -- arithmetic ------------------------------------------------------------------------------------------------

    def __add__(self, other: object) -> SecretTensor:
        return self._joined(m.Add(), self, other)

    def __radd__(self, other: object) -> SecretTensor:
        return self._joined(m.Add(), other, self)

    def __sub__(self, other: object) -> SecretTensor:
        return self._joined(m.Subtract(), self, other)

    def __rsub__(self, other: object) -> SecretTensor:
        return self._joined(m.Subtract(), other, self)

    def __neg__(self) -> SecretTensor:
        return self._new(m.Negate())

    def __pos__(self) -> SecretTensor:
        return self

    def __mul__(self, other: object) -> SecretTensor:
        return self._joined(m.Multiply(), self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: object) -> SecretTensor:
        """By a public number or array, or (through ``reciprocal``, on its interval) by a secret one."""
        if isinstance(other, SecretTensor):
            return self * other.reciprocal()
        divisor = numbers(other)
        if not divisor.all():
            raise ZeroDivisionError("division of a secret by a public zero")
        if divisor.ndim == 0 and divisor > 0 and float(divisor).is_integer() and divisor < 2**30:
            return self._new(m.Divide(int(divisor)))
        return self * (1.0 / divisor)

    def __rtruediv__(self, other: object) -> SecretTensor:
        return self.reciprocal() * other

    def __pow__(self, exponent: float) -> SecretTensor:
        """Whole powers from 0: one opening, whatever the exponent, as far as ranges allow; others of values above 0."""
        power = numbers(exponent)
        if power.ndim:
            raise UnsupportedError(f"one power for all elements, not an array of shape {power.shape}")
        if not (power >= 0 and float(power).is_integer()):
            return self._power(float(power))
        if power > MAX_POWER:
            raise UnsupportedError(f"only powers up to {MAX_POWER}: use log and exp for higher ones")
        return self._whole_power(int(power))

    def __rpow__(self, base: float) -> SecretTensor:
        """A public number above 0 to this power: as ``exp``, whose errors are relative to each value."""
        number = real(base, "the base of a power")
        if not 0 < number < math.inf:
            raise UnsupportedError(f"{number:g} to a secret power: only of numbers above 0")
        return (self * math.log(number)).exp() if number != 1.0 else self * 0.0 + 1.0

    def square(self) -> SecretTensor:
        """``x ** 2``."""
        return self**2

    def __matmul__(self, other: object) -> SecretTensor:
        return self._joined(m.Matmul(), self, other)

    def __rmatmul__(self, other: object) -> SecretTensor:
        return self._joined(m.Matmul(), other, self)

    # -- reductions ------------------------------------------------------------------------------------------------

    def sum(self, axis: Axis = None, keepdims: bool = False) -> SecretTensor:
        """The sum over some axes, by default all; local."""
        return self._new(m.Sum(reduced_axes(axis, self.ndim), bool(keepdims)))

    def mean(self, axis: Axis = None, keepdims: bool = False) -> SecretTensor:
        """The mean over some axes, by default all; local, but where a division by their number takes an opening."""
        axes = reduced_axes(axis, self.ndim)
        if 0 in (self.shape[i] for i in axes):
            raise ShapeError("the mean of no elements")
        return self._new(m.Mean(axes, bool(keepdims)))

    def var(self, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> SecretTensor:
        """The variance, divided by the number of elements less ``ddof``; two rounds: one opens what is squared."""
        axes = reduced_axes(axis, self.ndim)
        count = math.prod(self.shape[i] for i in axes) - ddof
        if count <= 0:
            raise ShapeError("the variance of too few elements")
        return (self - self.mean(axes, keepdims=True)).square().sum(axes, keepdims) / count

    def cumsum(self, axis: int | None = None) -> SecretTensor:
        """Running sums along an axis, or of all elements in order; local."""
        if axis is None:
            return self.reshape(-1).cumsum(0)
        return self._new(m.RunningSum(axis_of(axis, self.ndim)))

    # -- shape -----------------------------------------------------------------------------------------------------

    def reshape(self, *shape: int | Sequence[int]) -> SecretTensor:
        """The same elements in another shape, of which one length may be -1; local."""
        wanted = integers(shape)
        if wanted.count(-1) == 1:
            rest = -math.prod(wanted)
            wanted = tuple(self.size // rest if n == -1 and rest else n for n in wanted)
        if math.prod(wanted) != self.size or any(n < 0 for n in wanted):
            raise ShapeError(f"a tensor of shape {self.shape} cannot be reshaped to {wanted}")
        return self if wanted == self.shape else self._new(m.Reshape(wanted))

    def flatten(self, start_dim: int = 0) -> SecretTensor:
        """All axes from ``start_dim`` on as one."""
        if not 0 <= start_dim <= self.ndim:
            raise ShapeError(f"start_dim {start_dim} of a tensor of shape {self.shape}")
        return self.reshape((*self.shape[:start_dim], math.prod(self.shape[start_dim:])))

    def transpose(self, *axes: int | Sequence[int]) -> SecretTensor:
        """Axes in this order, by default the reverse one; local."""
        order = tuple(axis_of(a, self.ndim) for a in integers(axes)) if axes else tuple(reversed(range(self.ndim)))
        if sorted(order) != list(range(self.ndim)):
            raise ShapeError(f"{order} does not permute the axes of a tensor of shape {self.shape}")
        return self._new(m.Transpose(order))

    @property
    def T(self) -> SecretTensor:  # noqa: N802 - NumPy's name
        """Axes in the reverse order."""
        return self.transpose()

    def swapaxes(self, axis1: int, axis2: int) -> SecretTensor:
        """Two axes in each other's place; local."""
        order = list(range(self.ndim))
        i, j = axis_of(axis1, self.ndim), axis_of(axis2, self.ndim)
        order[i], order[j] = j, i
        return self.transpose(order)

    def ravel(self) -> SecretTensor:
        """All elements along one axis; local."""
        return self.reshape(-1)

    def squeeze(self, axis: int) -> SecretTensor:
        """Without an axis of length 1; local."""
        axis = axis_of(axis, self.ndim)
        if self.shape[axis] != 1:
            raise ShapeError(f"axis {axis} of a tensor of shape {self.shape} is not 1")
        return self.reshape(self.shape[:axis] + self.shape[axis + 1 :])

    def expand_dims(self, axis: int) -> SecretTensor:
        """With one more axis of length 1, at this place; local."""
        axis = axis_of(axis, self.ndim + 1)
        return self.reshape((*self.shape[:axis], 1, *self.shape[axis:]))

    def broadcast_to(self, shape: Sequence[int]) -> SecretTensor:
        """Repeated along axes of length 1, and new ones in front, as NumPy does; local."""
        wanted = integers([shape])
        try:
            fits = np.broadcast_shapes(self.shape, wanted) == wanted
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"a tensor of shape {self.shape} does not broadcast to {wanted}")
        return self._new(m.Broadcast(wanted))

    def __getitem__(self, key: Any) -> SecretTensor:
        """As NumPy's: integers, slices, ``...``, ``None``, and arrays of integers or of truth values; all public."""
        if is_basic(key):
            slices, shape = slices_of(key, self.shape)
            return self._new(m.Index(slices)).reshape(shape)
        check_positions(key)
        if not isinstance(key, tuple) and self.ndim and np.asarray(key).dtype.kind != "b":
            return self.take(key, 0)
        return moved(self, lambda places: places[key])

    def take(self, indices: npt.ArrayLike, axis: int | None = None) -> SecretTensor:
        """What lies at public positions of an axis, or of all elements in order: local, and 4 bytes of program each.

        At secret ones: ``chosen_from``.
        """
        if axis is None:
            return self.reshape(-1).take(indices, 0)
        if isinstance(indices, SecretTensor):
            return indices.chosen_from(self, axis)
        axis = axis_of(axis, self.ndim)
        positions = positions_of(indices, self.shape[axis])
        taken = self._new(m.Take(axis, positions.astype("<u4").tobytes()))
        return taken.reshape((*self.shape[:axis], *positions.shape, *self.shape[axis + 1 :]))

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> SecretTensor:
        """As ``numpy.diagonal``; local, and 4 bytes of program an element."""
        return moved(self, lambda places: np.diagonal(places, offset, axis1, axis2))

    def dot(self, other: object) -> SecretTensor:
        """As ``numpy.dot``."""
        dot: Any = np.dot
        return dot(self, other)  # type: ignore[no-any-return]

    def pad(self, widths: Sequence[tuple[int, int]]) -> SecretTensor:
        """Zeros around: ``widths`` holds (before, after) for each axis, as in ``numpy.pad``."""
        pairs = tuple((operator.index(a), operator.index(b)) for a, b in widths)
        return self._new(m.Pad(pairs))

    # -- layers ----------------------------------------------------------------------------------------------------

    def conv2d(self, weight: object, *, stride: Pair = 1, padding: Pair = 0, groups: int = 1) -> SecretTensor:
        """Cross-correlation of (N, C, H, W) with (O, C / groups, kh, kw), as in ``torch.nn.functional``."""
        return self._joined(m.Conv2d(pair(stride), pair(padding), groups), self, weight)

    def avg_pool2d(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> SecretTensor:
        """Means over windows of (N, C, H, W), padding counted; local, and free of arithmetic for a 2^k window."""
        kernel = pair(kernel_size)
        if min(kernel) < 1:
            raise ShapeError(f"a pooling window of {kernel}")
        return self._new(m.AveragePool2d(kernel, kernel if stride is None else pair(stride), pair(padding)))

    # -- functions -------------------------------------------------------------------------------------------------

    def polynomial(self, coefficients: Sequence[float]) -> SecretTensor:
        """c0 + c1 x + c2 x^2 + ...: one opening."""
        return self._new(m.Polynomial(tuple(float(c) for c in coefficients)))

    def truncate(self, fraction_bits: int = FRACTION_BITS) -> SecretTensor:
        """The same values with fewer fraction bits (stochastically rounded); seldom needed: the planner does it."""
        fraction_bits = operator.index(fraction_bits)
        if fraction_bits < 0:
            raise RangeError(f"{fraction_bits} is not a number of fraction bits")
        return self._new(m.Truncate(fraction_bits))

    def within(self, low: float, high: float) -> SecretTensor:
        """The same values, *declared* to lie in [low, high].

        A promise of the caller about its own data or model which nobody can check on secrets: where it does not hold,
        results are wrong (never less secret).
        """
        return self._new(m.Declare(real(low, "an end of a range"), real(high, "an end of a range")))

    def assumed(self, low: float, high: float) -> SecretTensor:
        """The same values, taken to lie in [low, high]; all results hang on it.

        So what is computed from them need not fit the field for whatever they could be at worst: in a deep network
        the worst that types know grows with every layer, and values do not.  Where one is beyond there is no answer
        (NoAnswer) if anything stored is read, and there may be none where one is nearer to an end than a ninth of the
        range, or a little more; of the client's own alone a RangeWarning says that results may be wrong.  From one
        assumption to the next, what is worst has to fit.  Values are opened here, which costs nothing if they are so
        next, and watched beside what follows.
        """
        low, high = real(low, "an end of a range"), real(high, "an end of a range")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise RangeError(f"[{low}, {high}] is not a range to assume")
        return self._new(m.Assume(low, high))

    # -- building --------------------------------------------------------------------------------------------------

    def _new(self, operation: m.Mathematics) -> SecretTensor:
        """``operation`` of this alone."""
        return SecretTensor(m.Node(operation, (self.node,), self.label, self.precision), self.label, self.precision)

    def _joined(self, operation: m.Mathematics, *operands: object) -> SecretTensor:
        """``operation`` of several, this one among them, whose label counts."""
        precision = _precision(*operands)
        nodes = tuple(_node(x) for x in operands)
        return SecretTensor(m.Node(operation, nodes, self.label, precision), self.label, precision)


def leaf(
    source: Input | Stored, *, precision: int | None = None, lost: float = 0.0, weight: bool = False
) -> SecretTensor:
    """A secret as the leaf of expressions: a client's input, or a stored tensor; the rest as in ``m.Secret``."""
    return SecretTensor(m.Node(m.Secret(source, lost, weight)), precision=precision)


def graph_of(
    outputs: Sequence[SecretTensor], kept: Mapping[str, SecretTensor] | None = None, keeping: Keeping = DATA
) -> m.Graph:
    """What is to be planned to reveal ``outputs``, and keep ``kept`` as stored tensors under these names.

    It says the greatest precision that any of them has.
    """
    named = kept or {}
    precision = _precision(*outputs, *named.values())
    return m.Graph(
        tuple(x.node for x in outputs),
        tuple(x._new(m.Keep(name)).node for name, x in named.items()),
        FRACTION_BITS if precision is None else precision,
        keeping,
    )


def concatenate(tensors: Sequence[SecretTensor | npt.ArrayLike], axis: int = 0) -> SecretTensor:
    """Join along an existing axis, as ``numpy.concatenate``; public arrays may be among the tensors."""
    first = next((t for t in tensors if isinstance(t, SecretTensor)), None)
    if first is None:
        raise ShapeError("nothing to join: at least one tensor has to be secret")
    return first._joined(m.Concatenate(axis_of(axis, first.ndim)), *tensors)


def stack(tensors: Sequence[SecretTensor], axis: int = 0) -> SecretTensor:
    """Join along a new axis, as ``numpy.stack``."""
    if len({t.shape for t in tensors}) != 1:
        raise ShapeError("a stack takes at least one tensor, and all of one shape")
    return concatenate([t.expand_dims(axis) for t in tensors], axis=axis_of(axis, tensors[0].ndim + 1))


def moved(x: SecretTensor, move: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]) -> SecretTensor:
    """``x`` with its elements where ``move`` puts their numbers, which are laid out as they are: any choice of elements
    that NumPy has a function for is that function of positions.
    """
    check_moved(x.size)
    try:
        places = move(np.arange(x.size).reshape(x.shape))
    except IndexError as error:
        raise PositionError(str(error)) from None
    except (ValueError, TypeError) as error:
        raise ShapeError(f"of a tensor of shape {x.shape}: {error}") from None
    return x.reshape(-1).take(places)


def _node(x: object) -> m.Node:
    """A secret tensor's node, or a leaf of public numbers: a copy, which nobody can change later."""
    return x.node if isinstance(x, SecretTensor) else m.Node(m.Public(numbers(x).copy()))


def _precision(*operands: object) -> int | None:
    """The greatest that an operand has; None if none has any."""
    return max((x.precision for x in operands if isinstance(x, SecretTensor) and x.precision is not None), default=None)
