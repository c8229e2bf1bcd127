"""Softmax as a layer: of any values, by a maximum, exp and a division (``protocols/trace/softmax.py``)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from mpc.errors import ShapeError, UnsupportedError
from nn.layer import Array, Arrays, Layer, Secrets, axis_of
from protocols.trace.secret_tensor import SecretTensor


class Softmax(Layer, frozen=True):
    """exp(x) over its sum along ``dim``, which may not be the batch's."""

    logarithm: ClassVar[bool] = False

    dim: int = -1

    def __post_init__(self) -> None:
        if self.dim == 0:
            raise UnsupportedError("a softmax over dimension 0 would mix the images of the batch")

    def _axis(self, ndim: int) -> int:
        axis = axis_of(self.dim, ndim)
        if axis == 0:
            raise ShapeError(f"a softmax over dimension {self.dim} of {ndim} would mix the images of the batch")
        return axis

    def forward(self, *inputs: SecretTensor, weights: Secrets) -> SecretTensor:
        (x,), axis = inputs, self._axis(inputs[0].ndim)
        return x.log_softmax(axis) if self.logarithm else x.softmax(axis)

    def plain(self, *inputs: Array, weights: Arrays, exact: bool = False) -> Array:
        (x,), axis = inputs, self._axis(inputs[0].ndim)
        below = x - x.max(axis=axis, keepdims=True)
        logs = below - np.log(np.exp(below).sum(axis=axis, keepdims=True))
        return np.asarray(logs if self.logarithm else np.exp(logs))


class LogSoftmax(Softmax, frozen=True):
    """The logarithm of ``Softmax``."""

    logarithm: ClassVar[bool] = True
