"""Softmax as a layer: of any values, by a maximum, exp and a division (``protocols/trace/softmax.py``)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from nn.layer import Array, Arrays, Layer, Secrets, axis_of, check_finite
from protocols.trace.secret_tensor import SecretTensor
from protocols.trace.softmax import FURTHEST


class Softmax(Layer, frozen=True):
    """exp(x) over its sum along ``dim``, which may not be the batch's.

    ``reach``, up to 8: how far x is assumed to be from its mean at most; then no maximum is looked for (`nn.assuming`).
    """

    logarithm: ClassVar[bool] = False

    dim: int = -1
    reach: float | None = None

    def __post_init__(self) -> None:
        check_reach(self.reach)
        if self.logarithm and self.reach is not None:
            raise UnsupportedError("a logarithm of a softmax assumes nothing")
        if self.dim == 0:
            raise UnsupportedError("a softmax over dimension 0 would mix the images of the batch")

    def _axis(self, ndim: int) -> int:
        axis = axis_of(self.dim, ndim)
        if axis == 0:
            raise ShapeError(f"a softmax over dimension {self.dim} of {ndim} would mix the images of the batch")
        return axis

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,), axis = inputs, self._axis(inputs[0].ndim)
        return x.log_softmax(axis) if self.logarithm else x.softmax(axis, reach=self.reach)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,), axis = inputs, self._axis(inputs[0].ndim)
        below = x - x.max(axis=axis, keepdims=True)
        logs = below - np.log(np.exp(below).sum(axis=axis, keepdims=True))
        return np.asarray(logs if self.logarithm else np.exp(logs))

    def from_mean(self, *inputs: Array) -> float:
        """How far x is from its mean at most."""
        (x,) = inputs
        return float(np.abs(x - x.mean(axis=self._axis(x.ndim), keepdims=True)).max(initial=0.0))


def check_reach(reach: float | None) -> None:
    """Raise UnsupportedError unless ``reach`` is None or how far from their mean values may be."""
    if reach is not None:
        check_finite("reach", reach)
        if not 0 < reach <= FURTHEST:
            raise UnsupportedError(f"reach is above 0, and {FURTHEST:g} at most")


class LogSoftmax(Softmax, frozen=True):
    """The logarithm of ``Softmax``."""

    logarithm: ClassVar[bool] = True
