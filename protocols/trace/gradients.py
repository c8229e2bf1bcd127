"""Gradients: reverse mode, by one table of rules over the graph of mathematics.

What comes of it is mathematics again, and is planned like all else: a tensor that was opened on the way to the loss is
not opened again on the way back, and `LetThrough` takes the very bits that a `Relu` or a `Maximum` has compared.

Rules are those of torch.  Comparisons, and what is made of them alone (positions, ranks, one-hot vectors), are
constants: where the loss depends on a parameter through them alone, that is an error and no zero.  Where two values are
equal, and at 0 of a ReLU, the gradient is that of the one that is taken: 1 at 0, where torch has 0.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, assert_never, overload

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.program import MAX_LABEL
from protocols.lowering.planner import FRACTION_BITS, usual_bits
from protocols.lowering.precision import PrecisionWarning
from protocols.trace import adjoints, slopes
from protocols.trace import mathematics as m
from protocols.trace.author import callers
from protocols.trace.secret_tensor import SecretTensor
from protocols.trace.spans import WORSE

Key = TypeVar("Key")

WIDEST = 2.0**32
"""Of a gradient: as large as ranges say that it may be, it has three digits at least where it is about 1."""
_SPAN = 2.0**-10
"""A smallest slope beside the largest."""
BACKWARD = " backward"
"""Behind the label of a layer, what its gradient is counted under."""


@overload
def grad(loss: SecretTensor, parameters: SecretTensor, within: float | None = None) -> SecretTensor: ...
@overload
def grad(
    loss: SecretTensor, parameters: Mapping[Key, SecretTensor], within: float | None = None
) -> dict[Key, SecretTensor]: ...
@overload
def grad(loss: SecretTensor, parameters: Sequence[SecretTensor], within: float | None = None) -> list[SecretTensor]: ...
def grad(loss: SecretTensor, parameters: Any, within: float | None = None) -> Any:
    """The gradients of a loss, one secret number, with respect to parameters: one tensor, several, or several by name;
    each of the shape of its parameter, and as many as there are.

    Any tensor that the loss was computed from may be a parameter.  The loss itself is not computed unless it is
    revealed.  ``within``: a promise, that no gradient of a parameter is larger at any place where that is multiplied,
    or in all, whatever it could be by the ranges of what it is made of: so more digits fit.  What is added for the
    gradients is counted under the label of what they are of, and "backward".  Raises UnsupportedError for an operation
    without a gradient, and where a parameter is in no part of the loss that has one, naming operation and line;
    RangeError for what cannot be shown to fit the field.  Warns, with a PrecisionWarning, of the place from which on
    ranges leave few digits.
    """
    if isinstance(parameters, SecretTensor):
        return _gradients(loss, {"the parameter": parameters}, within)["the parameter"]
    if isinstance(parameters, Mapping):
        return _gradients(loss, {key: parameters[key] for key in parameters}, within)
    return list(_gradients(loss, dict(enumerate(parameters)), within).values())


def _gradients(
    loss: SecretTensor, parameters: dict[Any, SecretTensor], within: float | None
) -> dict[Any, SecretTensor]:
    if loss.size != 1:
        raise ShapeError(f"a loss is one number, not a tensor of shape {loss.shape}: take its sum, or its mean")
    order = m.written([loss.node])
    depending = _depending(order, {p.node for p in parameters.values()})
    own = _moved(order, {p.node for p in parameters.values()})
    found: dict[m.Node, Any] = {loss.node: np.ones(loss.shape)}
    constants: list[m.Node] = []
    wide: m.Node | None = None
    spans = dict[m.Node, float]()
    for node in reversed(order):
        wanted = [i for i, x in enumerate(node.inputs) if x in depending]
        if node not in found or not wanted:
            continue
        y, *xs = (_tensor(x, node.label) for x in (node, *node.inputs))
        g = _relabelled(found[node], y)
        try:
            promised = [within if x in own else None for x in node.inputs]
            parts = [(i, part) for i in wanted if (part := _partial(node, i, g, y, xs, promised[i])) is not None]
        except UnsupportedError as error:
            raise UnsupportedError(f"{words(node)}, written in {node.line}, has no gradient: {error}") from None
        if not parts:
            constants.append(node)
        for i, part in parts:
            _watch_span(node, g, part, spans)
            x, part = node.inputs[i], adjoints.summed_to(part, xs[i].shape)
            found[x] = found[x] + part if x in found else part
            wide = node if wide is None and _end(found[x]) > WIDEST else wide
    if wide is not None:
        warnings.warn(
            f"gradients may be beyond {WIDEST:.0e} from the {words(wide)}, written in {wide.line}, on, as far as ranges"
            " say, and few digits are left of smaller ones: declare what values lie in on the way there, with"
            " within(low, high) or assumed(low, high), or give a larger eps where something is divided",
            PrecisionWarning,
            stacklevel=callers(),
        )
    for key, p in parameters.items():
        if p.node not in found:
            raise _without(key, p, constants)
    return {key: _promised(_secret(found[p.node], p), within) for key, p in parameters.items()}


def _promised(g: SecretTensor, within: float | None) -> SecretTensor:
    """As no product has taken it, but a sum: of a norm's weight, or of what is added."""
    return g if within is None or _end(g) <= within else g.within(-within, within)


def _watch_span(node: m.Node, g: Any, part: Any, spans: dict[m.Node, float]) -> None:
    """Warn where a gradient is multiplied that has been so by the slope of a function over orders of magnitude, as that
    of log(x x): what ranges say that the product may be leaves less than three digits of the smallest slopes.

    ``spans``: of such gradients, the smallest slope beside the largest.
    """
    of_function = isinstance(node.operation, m.Apply | m.Called) and slopes.may_span(node.operation)
    if not isinstance(part, SecretTensor) or not (of_function or isinstance(node.operation, m.Multiply | m.Polynomial)):
        return
    own = g.node if isinstance(g, SecretTensor) else None
    ratio = 1.0 if own is None else spans.get(own, 1.0)
    factors = part.node.inputs if isinstance(part.node.operation, m.Multiply) else ()
    others = [x for x in (_tensor(y, "") for y in factors if y is not own) if isinstance(x, SecretTensor)]
    if ratio < _SPAN and others:
        kept = part.type.fraction_bits - min(others[0].type.fraction_bits, FRACTION_BITS)
        if 2.0**-kept > WORSE * _end(g) * ratio:
            warnings.warn(
                f"{words(node)}, written in {node.line}: its gradient is multiplied by one of a function over orders of"
                " magnitude, of whose smallest slopes less than three digits are left, since both may be large as far"
                " as ranges say: promise how large gradients are, grad(..., within=R), or declare tighter ranges",
                PrecisionWarning,
                stacklevel=callers(),
            )
            ratio = 1.0
    if of_function:
        types = [x.type for x in (others if own is not None or others else [part])]
        ends = [sorted((abs(t.low), abs(t.high))) for t in types if t.low > 0 or t.high < 0]
        ratio *= min((least / most for least, most in ends), default=1.0)
    spans[part.node] = min(ratio, spans.get(part.node, 1.0))


def _end(g: Any) -> float:
    return max(abs(g.type.low), abs(g.type.high)) if isinstance(g, SecretTensor) else 0.0


def _depending(order: Iterable[m.Node], on: set[m.Node]) -> set[m.Node]:
    """What was made of these, they included."""
    found = set(on)
    for node in order:
        if not found.isdisjoint(node.inputs):
            found.add(node)
    return found


def _moved(order: Iterable[m.Node], parameters: set[m.Node]) -> set[m.Node]:
    """Parameters, and their elements in other places."""
    found = set(parameters)
    for node in order:
        if isinstance(node.operation, m.Reshape | m.Transpose | m.Truncate) and node.inputs[0] in found:
            found.add(node)
    return found


def _tensor(node: m.Node, label: str) -> Any:
    """Public numbers as they are."""
    if isinstance(node.operation, m.Public):
        return node.operation.values
    return SecretTensor(node, f"{label[: MAX_LABEL - len(BACKWARD)]}{BACKWARD}".strip(), node.precision)


def _kept(g: SecretTensor) -> SecretTensor:
    """With the digits that are kept of such values: comparisons drop others, without an opening."""
    return g.truncate(
        usual_bits(g.type.low, g.type.high) + (FRACTION_BITS if g.precision is None else g.precision) - FRACTION_BITS
    )


def _relabelled(g: Any, y: SecretTensor) -> Any:
    return SecretTensor(g.node, y.label, g.precision) if isinstance(g, SecretTensor) else g


def _secret(g: Any, parameter: SecretTensor) -> SecretTensor:
    return g if isinstance(g, SecretTensor) else parameter * 0.0 + g


def _without(key: object, parameter: SecretTensor, constants: Iterable[m.Node]) -> UnsupportedError:
    name = key if isinstance(key, str) else f"parameter {key}"
    for node in constants:
        if parameter.node in m.written([node]):
            return UnsupportedError(
                f"the loss depends on {name} only through what has no gradient: {words(node)}, written in {node.line}"
            )
    return UnsupportedError(f"the loss does not depend on {name}")


def words(node: m.Node) -> str:
    """What an operation is called in a message, and its layer."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", " ", type(node.operation).__name__).lower()
    return f"{name} of layer {node.label}" if node.label else name


def _partial(node: m.Node, i: int, g: Any, y: SecretTensor, xs: Sequence[Any], within: float | None) -> Any:
    """``g`` times the derivative of ``y``, the node's value, with respect to its ``i``-th operand; None where it is
    constant.  Where operands were broadcast, the caller sums it up.  ``within``: how large it is at most, by promise.
    """
    operation = node.operation
    match operation:
        case m.Add():
            return g
        case m.Subtract():
            return g if i == 0 else -g
        case m.Negate():
            return -g
        case m.Multiply():
            if node.inputs[0] is node.inputs[1]:
                return adjoints.product(g, xs[0] * 2.0, within=within) if i == 0 else None
            return adjoints.product(g, xs[1 - i], within=within)
        case m.Divide():
            return g / operation.divisor
        case m.Matmul():
            return adjoints.matmul(i, g, xs[0], xs[1], within)
        case m.Conv2d():
            return adjoints.conv2d(operation, i, g, xs[0], xs[1], within)
        case m.Sum() | m.Mean():
            count = math.prod(xs[0].shape[a] for a in operation.axes) if isinstance(operation, m.Mean) else 1
            return adjoints.spread(g / count if count > 1 else g, operation.axes, xs[0].shape)
        case m.SumOfSquares():
            return g * (xs[0] * 2.0)
        case m.RunningSum():
            return adjoints.running_sum(g, operation.axis)
        case m.AveragePool2d():
            return adjoints.average_pool2d(operation, g, xs[0])
        case m.Reshape():
            return g.reshape(xs[0].shape)
        case m.Transpose():
            return g.transpose([operation.axes.index(a) for a in range(len(operation.axes))])
        case m.Broadcast():
            return g
        case m.Index():
            return adjoints.index(operation, g, xs[0].shape)
        case m.Take():
            return adjoints.take(operation, g, xs[0].shape)
        case m.Pad():
            return adjoints.pad(operation, g, xs[0].shape)
        case m.Concatenate():
            start = sum(x.shape[operation.axis] for x in xs[:i])
            return g[(slice(None),) * operation.axis + (slice(start, start + xs[i].shape[operation.axis]),)]
        case m.Polynomial():
            return adjoints.product(
                g, xs[0].polynomial([k * c for k, c in enumerate(operation.coefficients)][1:] or [0.0])
            )
        case m.Apply():
            return slopes.applied(operation, g, y, xs[0])
        case m.Called():
            if operation.function in slopes.NORMS:
                return slopes.normed(operation, i, g, y, *xs[1:])
            return slopes.called(operation.function, operation.axes, g, y, *xs[1:]) if i == 1 else None
        case m.Sloped():
            return adjoints.product(g, xs[2]) if i == 1 else None
        case m.Relu():
            return _kept(y._joined(m.LetThrough(), g, xs[0]))
        case m.Maximum():
            through = _kept(y._joined(m.LetThrough(), g, *xs))
            return through if i == 0 else g - through
        case m.LetThrough():
            return y._joined(m.LetThrough(), g, *xs[1:]) if i == 0 else None
        case m.Truncate():
            return g if operation.factor == 1.0 else g * operation.factor
        case m.Declare() | m.Known() | m.Assume() | m.Masked() | m.Keep():
            return g
        case m.Ranked() | m.Like():
            return g if i == 0 else None
        case m.Compare() | m.Equal() | m.OneHot() | m.Reach():
            return None
        case m.Normalise() | m.Slope():
            raise UnsupportedError("it is part of a function that has one by name")
        case m.Shuffle():
            if i == 0:
                raise UnsupportedError("nobody knows the order backwards: shuffle what is learnt from beforehand")
            return None
        case m.Secret() | m.Public() | m.Draw() | m.Order():
            return None
    assert_never(operation)
