"""Losses, named and argued as in ``torch.nn``: of secret predictions, and of targets that are secret or public.

Each gives one secret number, whose gradient (``ts.grad``) takes the closed form where there is one: softmax less the
targets, sigmoid less the targets.  The number itself costs nothing unless it is revealed.  ``reduction`` is the mean or
the sum over elements, of `CrossEntropyLoss` over samples.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec
import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from mpc.tensor_type import Shape
from nn.layer import Array, check_finite
from protocols.lowering.planner import FRACTION_BITS
from protocols.trace import mathematics as m
from protocols.trace.arguments import numbers
from protocols.trace.normalised import normalised
from protocols.trace.secret_tensor import SecretTensor
from protocols.trace.slopes import softmax_of
from protocols.trace.softmax import UNIT, exponentials

Target = SecretTensor | Array

LABEL = "loss"
"""What is added for a loss is counted under."""


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag=True, kw_only=True):
    """Base of all."""

    reduction: Literal["mean", "sum"] = "mean"

    def __call__(self, input: SecretTensor, target: Target) -> SecretTensor:
        """Of predictions, and of targets of their shape; raises ShapeError for others."""
        given: Target = target if isinstance(target, SecretTensor) else numbers(target)
        if input.shape != given.shape:
            raise ShapeError(f"predictions of shape {input.shape} and targets of shape {given.shape}")
        each = self._each(input.labelled(LABEL), given)
        return each.mean() if self.reduction == "mean" else each.sum()

    def plain(self, input: Array, target: Array) -> float:
        """The same in float64, exactly."""
        each = self._plainly(np.asarray(input, np.float64), np.asarray(target, np.float64))
        return float(each.mean() if self.reduction == "mean" else each.sum())

    def _each(self, x: SecretTensor, y: Target) -> SecretTensor:
        raise NotImplementedError

    def _plainly(self, x: Array, y: Array) -> Array:
        raise NotImplementedError


class MSELoss(Loss, frozen=True, kw_only=True):
    """(x - y)^2.  Its gradient takes no opening."""

    def _each(self, x: SecretTensor, y: Target) -> SecretTensor:
        return (x - y).square()

    def _plainly(self, x: Array, y: Array) -> Array:
        return np.square(x - y)


class SmoothL1Loss(Loss, frozen=True, kw_only=True):
    """(x - y)^2 / (2 beta) up to ``beta``, and |x - y| - beta / 2 beyond.  The gradient: x - y, clipped; two rounds."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        _check_above_zero("beta", self.beta)

    def _each(self, x: SecretTensor, y: Target) -> SecretTensor:
        return _huber(x - y, self.beta) * (1.0 / self.beta)

    def _plainly(self, x: Array, y: Array) -> Array:
        return _huber_of(x - y, self.beta) / self.beta


class HuberLoss(Loss, frozen=True, kw_only=True):
    """``delta`` times `SmoothL1Loss` of that beta."""

    delta: float = 1.0

    def __post_init__(self) -> None:
        _check_above_zero("delta", self.delta)

    def _each(self, x: SecretTensor, y: Target) -> SecretTensor:
        return _huber(x - y, self.delta)

    def _plainly(self, x: Array, y: Array) -> Array:
        return _huber_of(x - y, self.delta)


def _huber(off: SecretTensor, delta: float) -> SecretTensor:
    """With c what is clipped: c (off - c / 2)."""
    clipped = off.clip(-delta, delta)
    each = clipped * (off - clipped * 0.5)
    return each._joined(m.Sloped(), each, off, clipped)


def _huber_of(off: Array, delta: float) -> Array:
    clipped = np.clip(off, -delta, delta)
    return np.asarray(clipped * (off - clipped / 2))


class HingeEmbeddingLoss(Loss, frozen=True, kw_only=True):
    """x where the target is 1, and max(0, margin - x) where it is -1."""

    margin: float = 1.0

    def __post_init__(self) -> None:
        check_finite("margin", self.margin)

    def _each(self, x: SecretTensor, y: Target) -> SecretTensor:
        # Of what is 1 or -1, (1 + y) / 2 is 1 or 0.
        alike = (y + 1.0) * 0.5
        beyond = (-x + self.margin).relu()
        return (x - beyond) * alike + beyond

    def _plainly(self, x: Array, y: Array) -> Array:
        return np.where(y > 0, x, np.maximum(0.0, self.margin - x))


class HingeLoss(Loss, frozen=True, kw_only=True):
    """max(0, margin - x y), for targets of 1 and -1: that of support vector machines, which torch has no name for."""

    margin: float = 1.0

    def __post_init__(self) -> None:
        check_finite("margin", self.margin)

    def _each(self, x: SecretTensor, y: Target) -> SecretTensor:
        return (-(x * y) + self.margin).relu()

    def _plainly(self, x: Array, y: Array) -> Array:
        return np.maximum(0.0, self.margin - x * y)


class BCEWithLogitsLoss(Loss, frozen=True, kw_only=True):
    """-(pos_weight y log s + (1 - y) log(1 - s)), where s is the sigmoid of x.  The gradient: s - y, if there is no
    ``pos_weight``; the rounds of a sigmoid.
    """

    pos_weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.pos_weight, int | float):
            raise UnsupportedError(
                "pos_weight is one number for all classes: multiply the losses of each class by a weight of its own"
            )
        _check_above_zero("pos_weight", self.pos_weight)

    def _each(self, x: SecretTensor, y: Target) -> SecretTensor:
        s: Any = x.sigmoid()
        if self.pos_weight == 1.0:
            value, slope = x.softplus() - x * y, s - y
        else:
            weight: Any = y * (self.pos_weight - 1.0) + 1.0
            value = x - x * y + (-x).softplus() * weight
            slope = -y + 1.0 - (-s + 1.0) * weight
        return value._joined(m.Sloped(), value, x, slope)

    def _plainly(self, x: Array, y: Array) -> Array:
        weight = 1.0 + (self.pos_weight - 1.0) * y
        return np.asarray((1.0 - y) * x + weight * np.logaddexp(0.0, -x))


class CrossEntropyLoss(Loss, frozen=True, kw_only=True):
    """- sum of weight y log softmax(x) over dimension 1.

    Targets: probabilities, of the shape of x, which sum up to 1, one-hot vectors among them; or public class numbers,
    without dimension 1.  ``weight``: one for each class.  The mean is over samples; of class numbers, weighted by those
    of their classes.  ``label_smoothing`` mixes the targets with equal ones.

    The gradient: softmax(x) - y; five rounds where x is declared to lie in a short range (about -2 to 2 for 7 classes;
    `protocols.trace.softmax.exponentials`), else those of a softmax with a maximum, and two.
    """

    weight: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UnsupportedError(f"label_smoothing is from 0 to below 1, not {self.label_smoothing}")
        if self.weight is not None:
            check_finite("weight", *self.weight)

    def __call__(self, input: SecretTensor, target: Target) -> SecretTensor:
        weighted, count = self._targets(input.shape, target)
        input = input.labelled(LABEL)
        found = exponentials(input, 1)
        logs = found.below - normalised(found.total, "log")
        value = -(logs * weighted).sum() / count
        bits = FRACTION_BITS if input.precision is None else input.precision
        parts = softmax_of(found.values, found.total).within(-UNIT, 1.0 + UNIT).truncate(bits)
        # Targets of a sample sum up to 1, before they are weighted.
        slope = (parts if self.weight is None else parts * weighted.sum(1, keepdims=True)) - weighted
        return value._joined(m.Sloped(), value, input, slope / count)  # type: ignore[no-any-return]

    def plain(self, input: Array, target: Array) -> float:
        x = np.asarray(input, np.float64)
        y, count = self._targets(x.shape, np.asarray(target))
        logs = x - x.max(axis=1, keepdims=True)
        logs = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
        return float(-(logs * y).sum() / count)

    def _targets(self, shape: Shape, target: Any) -> tuple[Any, float]:
        """Weighted probabilities, and what their sum is divided by."""
        if len(shape) < 2 or not shape[1]:
            raise ShapeError(f"predictions are (N, classes, ...), not of shape {shape}")
        secret, classes = isinstance(target, SecretTensor), shape[1]
        weight = np.ones(classes) if self.weight is None else np.array(self.weight)
        if weight.shape != (classes,):
            raise ShapeError(f"{weight.size} weights for {classes} classes")
        count = float(math.prod(shape) // classes)
        if not secret and target.shape == (shape[0], *shape[2:]):
            numbers_of = _class_numbers(target, classes)
            target, count = np.moveaxis(np.eye(classes)[numbers_of], -1, 1), float(weight[numbers_of].sum())
        if target.shape != shape:
            raise ShapeError(f"predictions of shape {shape} and targets of shape {target.shape}")
        target = target if secret else numbers(target)
        if not secret and not np.allclose(target.sum(1), 1.0):
            raise UnsupportedError("targets of a cross-entropy are probabilities: those of each sample sum up to 1")
        if self.label_smoothing:
            target = target * (1.0 - self.label_smoothing) + self.label_smoothing / classes
        if self.weight is not None:
            target = target * weight.reshape((classes, *[1] * (len(shape) - 2)))
        return target, count if self.reduction == "mean" else 1.0


def _class_numbers(target: Any, classes: int) -> Any:
    if target.dtype.kind not in "iu" or (target.size and not (target.min() >= 0 and target.max() < classes)):
        raise UnsupportedError(f"public targets without dimension 1 are class numbers: 0 to {classes - 1}")
    return target


def _check_above_zero(name: str, value: float) -> None:
    check_finite(name, value)
    if value <= 0:
        raise UnsupportedError(f"{name} is above 0, not {value}")
