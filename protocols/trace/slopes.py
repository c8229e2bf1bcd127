"""Gradients of functions: by their own formulas, of x and of y = f(x), and not through how y was made of x."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mpc.errors import UnsupportedError
from protocols.approximation import CompositeFit, RootFit
from protocols.lowering.slopes import FORMULAS
from protocols.trace import mathematics as m
from protocols.trace.adjoints import product
from protocols.trace.normalised import normalised
from protocols.trace.norms import UNIT

Ends = tuple[float, float]

NORMS = ("standardised", "rms", "unit", "root")
WEIGHT = 5
"""Which operand of a norm is its weight."""

_OTHERS = {
    "log": ("reciprocal", 1.0),
    "sqrt": ("rsqrt", 0.5),
    "sin": ("cos", 1.0),
    "cos": ("sin", -1.0),
    "softplus": ("sigmoid", 1.0),
}
"""Derivatives that are other functions of x, and a factor."""

_PRECISELY = (*_OTHERS, "exp", "reciprocal", "rsqrt")
"""Of these the derivative of a fit is too rough near the ends of its interval."""

_ROOTS = {"-1": "reciprocal", "-1/2": "rsqrt", "1/2": "sqrt"}


def may_span(operation: m.Apply | m.Called) -> bool:
    """Whether the slope of a function may be of several orders of magnitude."""
    return operation.function in _PRECISELY or (isinstance(operation, m.Apply) and isinstance(operation.fit, RootFit))


def applied(operation: m.Apply, g: Any, y: Any, x: Any) -> Any:
    """Of a fit, by its name if it has one, else by its own derivative."""
    fit = operation.fit
    name = _ROOTS[fit.power] if isinstance(fit, RootFit) else operation.function
    if isinstance(fit, RootFit | CompositeFit) or name in _PRECISELY:
        # An interval that was given is where x lies, whatever its range.
        inside = fit.low <= x.type.low and x.type.high <= fit.high
        return called(name, (), g, y, x, interval=None if inside else (fit.low, fit.high))
    return product(g, y._joined(m.Slope(name, fit), x, y), by_slope=True)


def called(
    function: str,
    axes: tuple[int, ...],
    g: Any,
    y: Any,
    x: Any,
    *parts: Any,
    interval: tuple[float, float] | None = None,
) -> Any:
    """Of a function by name; ``parts`` are what else is known of it."""
    if function in _OTHERS:
        name, factor = _OTHERS[function]
        slope = getattr(x, name)(interval=interval)
        return product(g, slope if factor == 1.0 else slope * factor)
    match function:
        case "softmax":
            return product(g - product(g, y).sum(axes, keepdims=True), y)
        case "log_softmax":
            return g - product(softmax_of(*parts), g.sum(axes, keepdims=True))
        case "logsumexp":
            return product(softmax_of(*parts), g)
        case _ if function in FORMULAS:
            return product(g, y.polynomial(FORMULAS[function]))
    raise UnsupportedError(
        f"a fit of {function or 'no named function'}, of several one after the other, has no gradient"
    )


def normed(operation: m.Called, i: int, g: Any, y: Any, x: Any, values: Any, *parts: Any) -> Any:
    """Of a norm, or of what is divided by one: ``values`` are ``operation.factor`` times x, less its mean or not."""
    axes = operation.axes
    if operation.function == "root":
        # y^2 is the sum of squares, times a number.
        return product(product(values * operation.factor, y.reciprocal()), g) if i == 1 else None
    power, inverse, weight = parts
    own = (
        y if isinstance(weight, np.ndarray) and weight.ndim == 0 else _unweighted(operation, x, values, power, inverse)
    )
    if i == WEIGHT:
        return product(g, own)
    if i != 1:
        return None
    g = product(g, weight)
    count = 1 if operation.function == "unit" else math.prod(x.shape[a] for a in axes)
    along = product(g, own).sum(axes, keepdims=True) / count
    rest = g - product(own, along)
    if operation.function == "standardised":
        rest = rest - g.sum(axes, keepdims=True) / count
    return product(rest, product(inverse, power) * operation.factor)


def _unweighted(operation: m.Called, x: Any, values: Any, power: Any, inverse: Any) -> Any:
    """What is divided by its norm, in the range that it has then, and with as many digits (``norms._over_root``)."""
    count = math.prod(x.shape[a] for a in operation.axes)
    bound = {"standardised": math.sqrt(count - 1), "rms": math.sqrt(count)}.get(operation.function, 1.0)
    beyond, end = 5 * bound + UNIT, bound * (1 + UNIT) + UNIT
    scaled = product(values, power)._new(m.Known(-beyond, beyond))
    return product(scaled, inverse)._new(m.Known(-end, end))


def softmax_of(values: Any, total: Any) -> Any:
    """From the exponentials and their sum."""
    return product(values, normalised(total, "reciprocal"))
